//! The asking side.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use futures::{SinkExt, StreamExt, stream, stream::BoxStream};
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};
use tokio_util::codec::{Framed, LinesCodec};

use super::{
    short,
    wire::{Answer, MAX_ANSWER_BYTES, Request},
};
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::{
        Objects,
        objects::{At, Error, Happening, Page, Part, Told},
    },
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait before a broken watch is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Why there is no connection to a store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody serves there.
    #[error("no `ostler up` serves at {}", path.display())]
    NotServed {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A store in another process.
#[derive(Debug, Clone)]
pub struct RemoteStore {
    path: PathBuf,
}

/// Finds out whether a store is served at a socket, and returns a handle on it. Each call connects anew, so the handle
/// outlives a restart of the other side; its watches then begin again with `Init`, after one error.
///
/// # Errors
/// When nobody serves there.
pub async fn connect(path: &Path) -> Result<RemoteStore, ConnectError> {
    let path = path.to_owned();
    match dial(&path).await {
        Ok(_) => Ok(RemoteStore { path }),
        Err(source) => Err(ConnectError::NotServed { path, source }),
    }
}

type Lines = Framed<UnixStream, LinesCodec>;

async fn dial(path: &Path) -> io::Result<Lines> {
    let (_folder, short) = short(path)?;
    let stream = UnixStream::connect(short).await?;
    Ok(Framed::new(stream, LinesCodec::new_with_max_length(MAX_ANSWER_BYTES)))
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable(error.into())
}

async fn send(path: &Path, request: &Request) -> Result<Lines, Error> {
    let line = serde_json::to_string(request).map_err(unavailable)?;
    let mut lines = dial(path).await.map_err(unavailable)?;
    lines.send(line).await.map_err(unavailable)?;
    Ok(lines)
}

async fn receive(lines: &mut Lines) -> Result<Answer, Error> {
    match lines.next().await {
        Some(line) => serde_json::from_str(&line.map_err(unavailable)?).map_err(unavailable),
        None => Err(unavailable("the other side closed the connection")),
    }
}

impl RemoteStore {
    async fn ask(&self, request: Request) -> Result<Answer, Error> {
        let asked = async {
            let mut lines = send(&self.path, &request).await?;
            receive(&mut lines).await
        };
        match timeout(PATIENCE, asked).await.map_err(unavailable)?? {
            Answer::Failed(failure) => Err(failure.into()),
            answer => Ok(answer),
        }
    }

    async fn ask_object(&self, request: Request) -> Result<Object, Error> {
        match self.ask(request).await? {
            Answer::Object(Some(object)) => Ok(*object),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &Answer) -> Error {
    let word = match answer {
        Answer::Done => "done",
        Answer::Object(_) => "an object",
        Answer::Objects(_) => "objects",
        Answer::Page(_) => "a page",
        Answer::Events(_) => "events",
        Answer::Change(_) | Answer::End => "a watch",
        Answer::Failed(_) => "a failure",
    };
    unavailable(format!("the other side answered with {word}"))
}

#[async_trait]
impl Objects for RemoteStore {
    fn watch(
        &self,
        kind: Kind,
        namespace: Option<Namespace>,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        let watch = Watch { path: self.path.clone(), kind, namespace, state: State::Start };
        stream::unfold(watch, Watch::next).boxed()
    }

    async fn get(&self, id: &ObjectId) -> Result<Option<Object>, Error> {
        match self.ask(Request::Get { id: id.clone() }).await? {
            Answer::Object(object) => Ok(object.map(|object| *object)),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Vec<Object>, Error> {
        match self.ask(Request::List { kind, namespace: namespace.cloned() }).await? {
            Answer::Objects(objects) => Ok(objects),
            other => Err(unexpected(&other)),
        }
    }

    async fn page(&self, kind: Kind, namespace: Option<&Namespace>, part: &Part) -> Result<Page, Error> {
        let request = Request::Page { kind, namespace: namespace.cloned(), part: part.clone() };
        match self.ask(request).await? {
            Answer::Page(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    async fn create(&self, object: &Object, manager: &str) -> Result<Object, Error> {
        self.ask_object(Request::Create { object: object.clone(), manager: manager.to_owned() }).await
    }

    async fn apply(
        &self,
        object: &Object,
        manager: &str,
        force: bool,
        at: Option<&At>,
    ) -> Result<Object, Error> {
        let (object, manager) = (object.clone(), manager.to_owned());
        self.ask_object(Request::Apply { object, manager, force, at: at.map(Into::into) }).await
    }

    async fn merge(&self, id: &ObjectId, at: &At, patch: &Value, manager: &str) -> Result<Object, Error> {
        let (id, patch, manager) = (id.clone(), patch.clone(), manager.to_owned());
        self.ask_object(Request::Merge { id, at: at.into(), patch, manager }).await
    }

    async fn write_status(
        &self,
        id: &ObjectId,
        at: &At,
        patch: &Value,
        manager: &str,
    ) -> Result<Object, Error> {
        let (id, patch, manager) = (id.clone(), patch.clone(), manager.to_owned());
        self.ask_object(Request::WriteStatus { id, at: at.into(), patch, manager }).await
    }

    async fn delete(&self, id: &ObjectId, at: &At) -> Result<(), Error> {
        self.ask(Request::Delete { id: id.clone(), at: at.into() }).await.map(drop)
    }

    async fn tell(&self, happening: Happening) {
        if let Err(error) = self.ask(Request::tell(happening)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "an event is dropped");
        }
    }

    async fn events(&self, id: &ObjectId) -> Result<Vec<Told>, Error> {
        match self.ask(Request::Events { id: id.clone() }).await? {
            Answer::Events(events) => Ok(events),
            other => Err(unexpected(&other)),
        }
    }
}

enum State {
    Start,
    Following(Box<Lines>),
    Broken,
    Ended,
}

struct Watch {
    path: PathBuf,
    kind: Kind,
    namespace: Option<Namespace>,
    state: State,
}

impl Watch {
    async fn next(mut self) -> Option<(watcher::Result<Event<Object>>, Self)> {
        loop {
            match self.state {
                State::Ended => return None,
                State::Broken => {
                    tokio::time::sleep(RETRY).await;
                    self.state = State::Start;
                }
                State::Start => {
                    let request = Request::Watch { kind: self.kind, namespace: self.namespace.clone() };
                    match send(&self.path, &request).await {
                        Ok(lines) => self.state = State::Following(Box::new(lines)),
                        Err(error) => return Some(self.broken(error)),
                    }
                }
                State::Following(ref mut lines) => match receive(lines).await {
                    Ok(Answer::Change(change)) => return Some((Ok(change.into()), self)),
                    Ok(Answer::End) => self.state = State::Ended,
                    Ok(Answer::Failed(failure)) => return Some(self.broken(failure.into())),
                    Ok(other) => return Some(self.broken(unexpected(&other))),
                    Err(error) => return Some(self.broken(error)),
                },
            }
        }
    }

    fn broken(self, error: Error) -> (watcher::Result<Event<Object>>, Self) {
        let error = watcher::Error::WatchFailed(kube::Error::Service(Box::new(error)));
        (Err(error), Self { state: State::Broken, ..self })
    }
}
