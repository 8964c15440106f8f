//! The Secrets port on one machine: Kubernetes Secret manifests below a folder.
//!
//! Every resolution reads the files anew, so that a changed file counts at once and nothing secret stays in memory.

mod folder;
mod manifest;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::{
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        secrets::{Error, SecretData, SecretUse, check_use},
    },
};
use folder::Contents;

/// How many changes wait for one listener. One that is slower hears of every Secret.
const CHANGES: usize = 256;

/// Why a folder of secrets cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no folder, or cannot be read.
    #[error("the folder of secrets {} cannot be read", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be watched.
    #[error("the folder of secrets {} cannot be watched", folder.display())]
    Watch {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

type Name = (Namespace, ObjectName);
type Digests = BTreeMap<Name, [u8; 32]>;

/// A folder of secrets: `*.yaml` and `*.yml` files anywhere below it, with one or several documents of `kind: Secret`.
///
/// A file that group or others can read gives no secret, nor does a link that leads out of the folder. At most 1,000
/// files of 1 MiB each are read, 8 folders deep.
pub struct SecretFolder {
    folder: PathBuf,
    changes: broadcast::Sender<Name>,
    seen: Arc<Mutex<Digests>>,
    _watcher: RecommendedWatcher,
}

impl SecretFolder {
    /// Opens a folder and watches it.
    ///
    /// # Errors
    /// When it is no folder, cannot be read or cannot be watched.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { folder: folder.to_owned(), source };
        let folder = folder.canonicalize().map_err(io)?;
        std::fs::read_dir(&folder).map_err(io)?;
        let (changes, _) = broadcast::channel(CHANGES);
        let seen = Arc::new(Mutex::new(Digests::new()));
        let (at, told, digests) = (folder.clone(), changes.clone(), Arc::clone(&seen));
        let unwatched = |source| OpenError::Watch { folder: folder.clone(), source };
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                tell_changes(&at, &digests, &told);
            }
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(unwatched)?;
        watcher.watch(&folder, RecursiveMode::Recursive).map_err(unwatched)?;
        // after the watch has begun, so that no change falls in between
        tell_changes(&folder, &seen, &changes);
        Ok(Self { folder, changes, seen, _watcher: watcher })
    }
}

/// Compares the folder with what was seen last, and tells the names that differ.
fn tell_changes(folder: &Path, seen: &Mutex<Digests>, changes: &broadcast::Sender<Name>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let now = digests(&folder::read(folder));
    let names = seen.keys().chain(now.keys()).filter(|name| seen.get(*name) != now.get(*name));
    let differing: std::collections::BTreeSet<Name> = names.cloned().collect();
    *seen = now;
    for name in differing {
        // nobody may be listening
        drop(changes.send(name));
    }
}

fn digests(contents: &Contents) -> Digests {
    let mut digests = BTreeMap::<Name, Sha256>::new();
    for found in &contents.found {
        let digest = digests.entry(found.name.clone()).or_default();
        digest.update(format!("{:?}{:?}", found.refusal, found.annotations));
        for (key, value) in &found.data {
            digest.update(key.len().to_le_bytes());
            digest.update(key);
            digest.update(value.expose_secret().len().to_le_bytes());
            digest.update(value.expose_secret());
        }
    }
    digests.into_iter().map(|(name, digest)| (name, digest.finalize().into())).collect()
}

#[async_trait]
impl Secrets for SecretFolder {
    async fn resolve(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
        purpose: SecretUse,
        host: Option<&str>,
    ) -> Result<SecretData, Error> {
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || folder::read(&folder)).await;
        let contents = read.map_err(|error| Error::Unavailable(Box::new(error)))?;
        choose(contents, namespace, name, purpose, host)
    }

    fn changes(&self) -> BoxStream<'static, (Namespace, ObjectName)> {
        let seen = Arc::clone(&self.seen);
        let changes = BroadcastStream::new(self.changes.subscribe()).flat_map(move |change| {
            let names = match change {
                Ok(name) => vec![name],
                Err(BroadcastStreamRecvError::Lagged(_)) => {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
                }
            };
            futures::stream::iter(names)
        });
        changes.boxed()
    }
}

fn choose(
    contents: Contents,
    namespace: &Namespace,
    name: &ObjectName,
    purpose: SecretUse,
    host: Option<&str>,
) -> Result<SecretData, Error> {
    let unusable = |why: String| Error::Unusable { namespace: namespace.clone(), name: name.clone(), why };
    let is_meant = |found: &folder::Found| (&found.name.0, &found.name.1) == (namespace, name);
    let mut meant: Vec<_> = contents.found.into_iter().filter(is_meant).collect();
    let Some(found) = meant.pop() else {
        return Err(match contents.problems.first() {
            Some(problem) => {
                unusable(format!("it was not found, and not all files could be read: {problem}"))
            }
            None => Error::NotFound { namespace: namespace.clone(), name: name.clone() },
        });
    };
    if let Some(other) = meant.first() {
        return Err(unusable(format!("it is in {} and in {}", other.file.display(), found.file.display())));
    }
    if let Some(why) = found.refusal {
        return Err(unusable(why));
    }
    check_use(&found.annotations, purpose, host).map_err(|why| Error::NotAllowed {
        namespace: namespace.clone(),
        name: name.clone(),
        why,
    })?;
    Ok(found.data)
}

/// Bytes that are wiped when dropped.
type Bytes = SecretBox<Vec<u8>>;

#[cfg(test)]
mod tests;
