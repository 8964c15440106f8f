//! The serving side.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, path::PathBuf, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::codec::{Framed, LinesCodec};

use super::{
    short,
    wire::{Answer, MAX_REQUEST_BYTES, Request},
};
use crate::ports::objects::{Error, Happening, Severity, Store};

/// How many connections are served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;
/// How long a caller may take to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A served socket. Dropping it ends all connections and removes the socket.
#[derive(Debug)]
pub struct Server {
    accepting: JoinHandle<()>,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        drop(fs::remove_file(&self.path));
    }
}

/// Serves a store on a Unix socket with mode 0600. A socket that a killed process left at the path is replaced, so the
/// caller must hold the state folder's lock.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, store: Store) -> io::Result<Server> {
    let (_folder, short) = short(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is at this path")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let accepting = tokio::spawn(accept(listener, store));
    Ok(Server { accepting, path: path.to_owned() })
}

async fn accept(listener: UnixListener, store: Store) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // ends all connections when this task ends
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let store = Arc::clone(&store);
                connections.spawn(async move {
                    if let Err(error) = talk(stream, &store).await {
                        tracing::debug!(%error, "a connection to the store's socket ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the store's socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type Lines = Framed<UnixStream, LinesCodec>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn talk(stream: UnixStream, store: &Store) -> Result<(), Failed> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(format!("user {peer} may not use the store").into());
    }
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_REQUEST_BYTES));
    let Some(line) = timeout(PATIENCE, lines.next()).await? else { return Ok(()) };
    let answer = match serde_json::from_str(&line?) {
        Ok(Request::Watch { kind, namespace }) => {
            return watch(lines, store.watch(kind, namespace)).await;
        }
        Ok(request) => answer(store, request).await.unwrap_or_else(|error| Answer::Failed(error.into())),
        Err(error) => Answer::Failed(Error::Forbidden(format!("not a request: {error}")).into()),
    };
    send(&mut lines, &answer).await
}

async fn send(lines: &mut Lines, answer: &Answer) -> Result<(), Failed> {
    timeout(PATIENCE, lines.send(serde_json::to_string(answer)?)).await??;
    Ok(())
}

async fn watch(
    mut lines: Lines,
    mut changes: impl futures::Stream<
        Item = kube::runtime::watcher::Result<kube::runtime::watcher::Event<crate::kinds::Object>>,
    > + Unpin,
) -> Result<(), Failed> {
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(event)) => send(&mut lines, &Answer::Change(event.into())).await?,
                Some(Err(error)) => {
                    let error = Error::Unavailable(Box::new(error));
                    send(&mut lines, &Answer::Failed(error.into())).await?;
                }
                None => return send(&mut lines, &Answer::End).await,
            },
            // nothing is said after the request: this is how the caller's going away is noticed
            _ = lines.next() => return Ok(()),
        }
    }
}

async fn answer(store: &Store, request: Request) -> Result<Answer, Error> {
    let object = |object| Answer::Object(Some(Box::new(object)));
    Ok(match request {
        Request::Get { id } => Answer::Object(store.get(&id).await?.map(Box::new)),
        Request::List { kind, namespace } => Answer::Objects(store.list(kind, namespace.as_ref()).await?),
        Request::Page { kind, namespace, part } => {
            Answer::Page(store.page(kind, namespace.as_ref(), &part).await?)
        }
        Request::Create { object: new, manager } => object(store.create(&new, &manager).await?),
        Request::Apply { object: new, manager, force, at } => {
            let at = at.map(Into::into);
            object(store.apply(&new, &manager, force, at.as_ref()).await?)
        }
        Request::Merge { id, at, patch, manager } => {
            object(store.merge(&id, &at.into(), &patch, &manager).await?)
        }
        Request::WriteStatus { id, at, patch, manager } => {
            object(store.write_status(&id, &at.into(), &patch, &manager).await?)
        }
        Request::Delete { id, at } => {
            store.delete(&id, &at.into()).await?;
            Answer::Done
        }
        Request::Tell { about, uid, warning, reason, message } => {
            let severity = if warning { Severity::Warning } else { Severity::Normal };
            store.tell(Happening { about, uid, severity, reason, message }).await;
            Answer::Done
        }
        Request::Events { id } => Answer::Events(store.events(&id).await?),
        Request::Watch { .. } => {
            return Err(Error::Forbidden("this request is answered elsewhere".to_owned()));
        }
    })
}
