//! What goes over the socket.

use kube::runtime::watcher::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    kinds::{Kind, Object, ObjectId, Reason},
    names::{Namespace, Uid},
    ports::objects::{At, Error, Happening, Page, Part, Severity, Told},
};

/// The longest line: an object of the largest size with room for what JSON adds, twice.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 20;
/// The longest answer: a list of all objects.
pub(super) const MAX_ANSWER_BYTES: usize = 1 << 30;

/// The state that a write expects.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Expected {
    uid: Uid,
    resource_version: Option<String>,
}

impl From<&At> for Expected {
    fn from(at: &At) -> Self {
        Self { uid: at.uid.clone(), resource_version: at.resource_version.clone() }
    }
}

impl From<Expected> for At {
    fn from(expected: Expected) -> Self {
        Self { uid: expected.uid, resource_version: expected.resource_version }
    }
}

/// One request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    Watch { kind: Kind, namespace: Option<Namespace> },
    Get { id: ObjectId },
    List { kind: Kind, namespace: Option<Namespace> },
    Page { kind: Kind, namespace: Option<Namespace>, part: Part },
    Create { object: Object, manager: String },
    Apply { object: Object, manager: String, force: bool, at: Option<Expected> },
    Merge { id: ObjectId, at: Expected, patch: Value, manager: String },
    WriteStatus { id: ObjectId, at: Expected, patch: Value, manager: String },
    Delete { id: ObjectId, at: Expected },
    Tell { about: ObjectId, uid: Uid, warning: bool, reason: Reason, message: String },
    Events { id: ObjectId },
}

impl Request {
    pub(super) fn tell(happening: Happening) -> Self {
        let Happening { about, uid, severity, reason, message } = happening;
        Self::Tell { about, uid, warning: severity == Severity::Warning, reason, message }
    }
}

/// One answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    Done,
    Object(Option<Box<Object>>),
    Objects(Vec<Object>),
    Page(Page),
    Events(Vec<Told>),
    Change(Change),
    /// The watched store has ended.
    End,
    Failed(Failure),
}

/// One event of a watch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Change {
    Init,
    InitApply(Box<Object>),
    InitDone,
    Apply(Box<Object>),
    Delete(Box<Object>),
}

impl From<Event<Object>> for Change {
    fn from(event: Event<Object>) -> Self {
        match event {
            Event::Init => Self::Init,
            Event::InitApply(object) => Self::InitApply(Box::new(object)),
            Event::InitDone => Self::InitDone,
            Event::Apply(object) => Self::Apply(Box::new(object)),
            Event::Delete(object) => Self::Delete(Box::new(object)),
        }
    }
}

impl From<Change> for Event<Object> {
    fn from(change: Change) -> Self {
        match change {
            Change::Init => Self::Init,
            Change::InitApply(object) => Self::InitApply(*object),
            Change::InitDone => Self::InitDone,
            Change::Apply(object) => Self::Apply(*object),
            Change::Delete(object) => Self::Delete(*object),
        }
    }
}

/// An error of the port.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Failure {
    NotFound { id: ObjectId },
    AlreadyExists { id: ObjectId },
    Conflict { id: ObjectId, message: String },
    Invalid { id: ObjectId, causes: Vec<String> },
    Forbidden { message: String },
    Malformed { id: ObjectId, message: String },
    Expired,
    NoSuchPage,
    Unavailable { message: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(id) => Self::NotFound { id },
            Error::AlreadyExists(id) => Self::AlreadyExists { id },
            Error::Conflict { id, message } => Self::Conflict { id, message },
            Error::Invalid { id, causes } => Self::Invalid { id, causes },
            Error::Forbidden(message) => Self::Forbidden { message },
            Error::Malformed { id, source } => Self::Malformed { id, message: source.to_string() },
            Error::Expired => Self::Expired,
            Error::NoSuchPage => Self::NoSuchPage,
            Error::Unavailable(source) => Self::Unavailable { message: source.to_string() },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound { id } => Self::NotFound(id),
            Failure::AlreadyExists { id } => Self::AlreadyExists(id),
            Failure::Conflict { id, message } => Self::Conflict { id, message },
            Failure::Invalid { id, causes } => Self::Invalid { id, causes },
            Failure::Forbidden { message } => Self::Forbidden(message),
            Failure::Malformed { id, message } => {
                Self::Malformed { id, source: <serde_json::Error as serde::de::Error>::custom(message) }
            }
            Failure::Expired => Self::Expired,
            Failure::NoSuchPage => Self::NoSuchPage,
            Failure::Unavailable { message } => Self::Unavailable(message.into()),
        }
    }
}
