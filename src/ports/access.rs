//! The Access port: who is this, and may they?

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use secrecy::SecretString;

use crate::{
    class::Class,
    names::{Namespace, ObjectName},
};

/// For whom a token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// People and their tools, at the API.
    Ostler,
    /// The sidecar of one run, at the recorder.
    Result,
}

impl Audience {
    /// The word in the token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ostler => "ostler",
            Self::Result => "ostler-result",
        }
    }
}

/// A person or tool, with all that decides what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// What tells it from an earlier one of the same name, where names are used again.
    pub uid: Option<String>,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// What else its authenticator says of it, such as scopes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// One of whom only the name is known.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// A caller who proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A person or tool.
    User(User),
    /// The sidecar of a run.
    Run {
        /// The run's namespace.
        namespace: Namespace,
        /// Its name.
        name: ObjectName,
        /// Its UID.
        uid: crate::names::Uid,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(User { name, .. }) => write!(f, "user:{name}"),
            Self::Run { namespace, name, .. } => write!(f, "run:{namespace}/{name}"),
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// A Kubernetes verb: `get`, `list`, `watch`, `update`, …
    pub verb: &'a str,
    /// The plural resource, with its subresource: `harnessruns/result`.
    pub resource: &'a str,
    /// The namespace; `None` means all.
    pub namespace: Option<&'a Namespace>,
    /// The object; `None` means all.
    pub name: Option<&'a ObjectName>,
}

impl Request<'_> {
    /// True for the one thing that a run may do: deliver its own result.
    #[must_use]
    pub fn delivers_result_of(&self, namespace: &Namespace, name: &ObjectName) -> bool {
        (self.verb, self.resource) == ("update", "harnessruns/result")
            && (self.namespace, self.name) == (Some(namespace), Some(name))
    }
}

/// Why access could not be decided. "No" is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is unknown, expired or for somebody else.
    #[error("the token is not valid here")]
    Unauthenticated,
    /// The decider is out of reach.
    #[error("access cannot be decided")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unauthenticated => Class::Invalid,
            Self::Unavailable(_) => Class::Transient,
        }
    }
}

/// Who is this, and may they?
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Finds out who holds the token.
    async fn authenticate(&self, token: &SecretString, audience: Audience) -> Result<Identity, Error>;

    /// Decides. Everything that is not allowed is refused.
    async fn authorize(&self, who: &Identity, request: &Request<'_>) -> Result<bool, Error>;
}
