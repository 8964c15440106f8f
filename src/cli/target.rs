//! Which control plane a verb speaks to.

use std::path::{Path, PathBuf};

use clap::Args;
use kube::Client;

use super::up::state_folder::{self, Layout, StateError};
use crate::{
    embedded::{
        objects::{ConnectError, EmbeddedStore, OpenError, RemoteStore, connect},
        secrets::{self, SecretFolder},
    },
    kubernetes::{
        client::{self, Target},
        objects::KubeObjects,
        secrets::KubeSecrets,
    },
    ports::{Objects, Secrets},
};

/// Which control plane is meant; default: the only running `ostler up`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Control plane")]
pub struct TargetArgs {
    /// The state folder of an `ostler up`; default: that of the only one that runs
    #[arg(long, value_name = "DIR", env = "OSTLER_STATE")]
    pub state: Option<PathBuf>,
    /// The objects of a cluster, by its kubeconfig
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME", conflicts_with = "state")]
    pub context: Option<String>,
    /// The objects of the current context's cluster; `kubectl ostler` means them by itself
    #[arg(long, conflicts_with = "state")]
    pub cluster: bool,
}

/// Why no control plane can be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The cluster that was named cannot be used.
    #[error("the cluster cannot be used")]
    Cluster(#[from] client::Error),
    /// Nothing runs, and nothing ran before.
    #[error(
        "no `ostler up` is running and none has left its state here; start `ostler up PATH`, or give --state DIR"
    )]
    Nothing,
    /// The folder holds no state.
    #[error("there is no state of an `ostler up` in {}", .0.display())]
    NoState(PathBuf),
    /// More than one could be meant.
    #[error("{what}; choose one with --state:\n  {}", folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join("\n  "))]
    Several {
        /// What there is several of.
        what: &'static str,
        /// Their state folders.
        folders: Vec<PathBuf>,
    },
    /// A write, or waiting for a change, needs a running control plane.
    #[error("no `ostler up` is running on {}: nothing there changes; start it, or commit the change", .0.display())]
    NotRunning(PathBuf),
    /// The user's folders.
    #[error("the state folders cannot be found")]
    State(#[from] StateError),
    /// Its socket does not answer.
    #[error("the `ostler up` on {} does not answer", folder.display())]
    Connect {
        /// The state folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The store cannot be read.
    #[error("the store of {} cannot be read", folder.display())]
    Open {
        /// The state folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
}

/// A control plane that a verb speaks to.
#[derive(Debug)]
pub struct Plane(Store);

enum Store {
    /// By the socket of a running `ostler up`.
    Served(Layout, RemoteStore),
    /// The folder that an `ostler up` left.
    AtRest(Layout, Box<EmbeddedStore>),
    /// An API server.
    Cluster(KubeObjects),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Served(..) => "Served",
            Self::AtRest(..) => "AtRest",
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl Plane {
    /// Finds the control plane and connects: to its socket while it runs, else to its store for reading.
    ///
    /// # Errors
    /// When there is none, when it is not clear which one is meant, or when it cannot be reached.
    pub async fn find(args: &TargetArgs) -> Result<Self, TargetError> {
        if args.cluster || args.kubeconfig.is_some() || args.context.is_some() {
            let target = Target { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() };
            let client = client::connect(&target).await?;
            return Ok(Self(Store::Cluster(KubeObjects::new(client))));
        }
        let folder = match &args.state {
            Some(folder) => folder.clone(),
            None => choose(&state_folder::default_root()?)?,
        };
        Self::open(&folder).await
    }

    /// Connects to the control plane of a state folder.
    async fn open(folder: &Path) -> Result<Self, TargetError> {
        let layout = Layout::of(folder);
        let folder = folder.to_owned();
        Ok(Self(if state_folder::is_owned(&layout) {
            let served = connect(&layout.socket()).await;
            Store::Served(layout, served.map_err(|source| TargetError::Connect { folder, source })?)
        } else {
            match EmbeddedStore::open_read_only(&layout.objects()) {
                Ok(store) => Store::AtRest(layout, Box::new(store)),
                Err(OpenError::Missing { .. }) => return Err(TargetError::NoState(folder)),
                Err(source) => return Err(TargetError::Open { folder, source }),
            }
        }))
    }

    /// Its objects, for reading.
    #[must_use]
    pub fn objects(&self) -> &dyn Objects {
        match &self.0 {
            Store::Served(_, store) => store,
            Store::AtRest(_, store) => store.as_ref(),
            Store::Cluster(store) => store,
        }
    }

    /// Its objects, for writing and for waiting until they change.
    ///
    /// # Errors
    /// [`TargetError::NotRunning`] when no process serves them.
    pub fn running(&self) -> Result<&dyn Objects, TargetError> {
        match &self.0 {
            Store::Served(_, store) => Ok(store),
            Store::AtRest(layout, _) => Err(TargetError::NotRunning(layout.root().to_owned())),
            Store::Cluster(store) => Ok(store),
        }
    }

    /// The cluster that holds its objects; `None` when that is an `ostler up`.
    #[must_use]
    pub fn cluster(&self) -> Option<&Client> {
        match &self.0 {
            Store::Served(..) | Store::AtRest(..) => None,
            Store::Cluster(store) => Some(store.client()),
        }
    }

    /// Its Secrets: those below `folder`, or with none the cluster's by the user's own rights, or those of the `ostler up`.
    ///
    /// # Errors
    /// When the folder of secrets cannot be read.
    pub fn secrets(&self, folder: Option<&Path>) -> Result<Box<dyn Secrets>, secrets::OpenError> {
        let folder = match (folder, &self.0) {
            (Some(folder), _) => folder.to_owned(),
            (None, Store::Cluster(store)) => return Ok(Box::new(KubeSecrets::new(store.client().clone()))),
            (None, Store::Served(layout, _) | Store::AtRest(layout, _)) => {
                let named = layout.named_secrets();
                if named.is_symlink() { named } else { layout.secrets() }
            }
        };
        Ok(Box::new(SecretFolder::open(&folder)?))
    }

    /// Where its files are; `None` for a cluster, whose places are on other machines.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        match &self.0 {
            Store::Served(layout, _) | Store::AtRest(layout, _) => Some(layout),
            Store::Cluster(_) => None,
        }
    }
}

/// The only state folder below `root` that a process owns; when none is owned, the only one there is.
fn choose(root: &Path) -> Result<PathBuf, TargetError> {
    let children = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = children.filter(|path| Layout::of(path).objects().exists()).collect();
    folders.sort();
    let (owned, at_rest): (Vec<_>, Vec<_>) =
        folders.into_iter().partition(|path| state_folder::is_owned(&Layout::of(path)));
    let (what, mut candidates) = match owned.len() {
        0 => ("no `ostler up` is running, and several have left their state", at_rest),
        _ => ("several `ostler up` are running", owned),
    };
    match candidates.len() {
        0 => Err(TargetError::Nothing),
        1 => Ok(candidates.remove(0)),
        _ => Err(TargetError::Several { what, folders: candidates }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use state_folder::StateFolder;

    fn state(root: &Path, name: &str) -> StateFolder {
        let folder = StateFolder::open(&root.join(name)).unwrap();
        drop(EmbeddedStore::open(&folder.layout().objects()).unwrap());
        folder
    }

    #[test]
    fn the_only_running_one_is_meant() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        assert!(matches!(choose(&root), Err(TargetError::Nothing)));
        let one = state(&root, "one");
        drop(state(&root, "at-rest"));
        assert_eq!(choose(&root).unwrap(), root.join("one"));
        let two = state(&root, "two");
        let several = choose(&root).unwrap_err();
        assert!(matches!(&several, TargetError::Several { folders, .. } if folders.len() == 2), "{several}");
        drop((one, two));
        assert!(matches!(choose(&root), Err(TargetError::Several { folders, .. }) if folders.len() == 3));
    }

    #[tokio::test]
    async fn at_rest_it_can_only_be_read() {
        let root = tempfile::tempdir().unwrap();
        drop(state(root.path(), "s"));
        let plane = Plane::open(&root.path().join("s")).await.unwrap();
        assert!(plane.objects().list(crate::kinds::Kind::Agent, None).await.unwrap().is_empty());
        assert!(matches!(plane.running(), Err(TargetError::NotRunning(_))));
        let nowhere = Plane::open(&root.path().join("none")).await;
        assert!(matches!(nowhere, Err(TargetError::NoState(_))));
    }

    #[tokio::test]
    async fn a_cluster_that_no_file_names_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let args = TargetArgs { kubeconfig: Some(root.path().join("none")), ..TargetArgs::default() };
        assert!(matches!(Plane::find(&args).await, Err(TargetError::Cluster(_))));
    }
}
