//! The Secrets port: a reference is resolved for one use and one host, or not at all.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretBox;

use crate::{
    class::Class,
    names::{Namespace, ObjectName},
};

/// What a secret is wanted for; it must be named in the Secret's annotation `ostler.dev/use`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretUse {
    /// A credential for a Git remote.
    Git,
    /// A credential that the proxy adds.
    Route,
    /// A value that the agent itself gets.
    Env,
    /// A token for a forge's API.
    Forge,
    /// A signing key.
    Sign,
}

impl SecretUse {
    /// The word in the annotation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Route => "route",
            Self::Env => "env",
            Self::Forge => "forge",
            Self::Sign => "sign",
        }
    }
}

impl fmt::Display for SecretUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The data of a Secret: bytes by key, wiped when dropped.
pub type SecretData = BTreeMap<String, SecretBox<Vec<u8>>>;

/// Why a secret is not given out. No text holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such Secret, or no store of secrets at all.
    #[error("Secret {namespace}/{name} does not exist")]
    NotFound {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        name: ObjectName,
    },
    /// Its annotations do not allow it.
    #[error("Secret {namespace}/{name} may not be used: {why}")]
    NotAllowed {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        name: ObjectName,
        /// Which annotation says no, and what it would have to say.
        why: String,
    },
    /// It cannot be read as a Secret, or its file can be read by others.
    #[error("Secret {namespace}/{name} is unusable: {why}")]
    Unusable {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        name: ObjectName,
        /// What is wrong.
        why: String,
    },
    /// The store of secrets is out of reach.
    #[error("the store of secrets cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::NotAllowed { .. } | Self::Unusable { .. } => Class::Invalid,
            Self::Unavailable(_) => Class::Transient,
        }
    }
}

/// The store of secrets.
///
/// # Guarantees
/// A Secret without the annotation `ostler.dev/use`, or whose annotation does not name the use, is never given out. With
/// a host, the annotation `ostler.dev/hosts` must name it; `Env` and `Sign` have no host.
#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// Resolves a reference.
    async fn resolve(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
        purpose: SecretUse,
        host: Option<&str>,
    ) -> Result<SecretData, Error>;

    /// Names of Secrets that changed, for whoever waits for one.
    fn changes(&self) -> BoxStream<'static, (Namespace, ObjectName)>;
}
