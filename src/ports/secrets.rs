//! The Secrets port: a reference is resolved for one use and one host, or not at all.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretBox;

use crate::{
    class::Class,
    kinds::meta::{SECRET_HOSTS, SECRET_USE},
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
    /// ostler itself may not read it. Nobody tells when that changes, so it is tried again.
    #[error("Secret {namespace}/{name} cannot be read: ostler is not allowed to get it")]
    Forbidden {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        name: ObjectName,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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
            Self::Forbidden { .. } | Self::Unavailable(_) => Class::Transient,
        }
    }
}

/// Decides by a Secret's annotations whether it may be used so.
///
/// A host is named as its user dials it: the name alone on the default port of its protocol, else `host:port`. It must
/// be in `ostler.dev/hosts` literally, in any case; there are no wildcards.
///
/// # Errors
/// Which annotation says no, and what it would have to say.
pub fn check_use(
    annotations: &BTreeMap<String, String>,
    purpose: SecretUse,
    host: Option<&str>,
) -> Result<(), String> {
    let names = |annotation: &str, wanted: &str| {
        let list = annotations.get(annotation).map(String::as_str).unwrap_or_default();
        list.split(',').any(|entry| entry.trim().eq_ignore_ascii_case(wanted))
    };
    if !names(SECRET_USE, purpose.as_str()) {
        return Err(format!("its annotation {SECRET_USE} does not name {purpose}"));
    }
    match host {
        Some(host) if host.is_empty() || !names(SECRET_HOSTS, host) => {
            Err(format!("its annotation {SECRET_HOSTS} does not name {host:?}"))
        }
        None if matches!(purpose, SecretUse::Git | SecretUse::Route | SecretUse::Forge) => {
            Err(format!("use {purpose} needs a host, and none was given"))
        }
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_only_where_its_annotations_say() {
        let annotated = |used: &str, hosts: &str| -> BTreeMap<String, String> {
            [(SECRET_USE.to_owned(), used.to_owned()), (SECRET_HOSTS.to_owned(), hosts.to_owned())].into()
        };
        let good = annotated("git, route", "git.example.com, other.example.com:8443");
        let cases = [
            (&good, SecretUse::Git, Some("git.example.com"), true),
            (&good, SecretUse::Route, Some("GIT.example.com"), true),
            (&good, SecretUse::Git, Some("other.example.com:8443"), true),
            (&good, SecretUse::Git, Some("git.example.com:8443"), false),
            (&good, SecretUse::Git, Some("other.example.com"), false),
            (&good, SecretUse::Git, Some("example.com"), false),
            (&good, SecretUse::Git, Some("git.example.com.evil.example"), false),
            (&good, SecretUse::Git, Some(""), false),
            (&good, SecretUse::Git, None, false),
            (&good, SecretUse::Env, None, false),
            (&good, SecretUse::Forge, Some("git.example.com"), false),
            (&annotated("env", ""), SecretUse::Env, None, true),
            (&annotated("sign", ""), SecretUse::Sign, None, true),
            (&annotated("environment", ""), SecretUse::Env, None, false),
            (&annotated("git", "*"), SecretUse::Git, Some("git.example.com"), false),
            (&BTreeMap::new(), SecretUse::Env, None, false),
        ];
        for (annotations, purpose, host, good) in cases {
            let decided = check_use(annotations, purpose, host);
            assert_eq!(decided.is_ok(), good, "{annotations:?} {purpose} {host:?}: {decided:?}");
        }
    }
}
