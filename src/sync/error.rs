//! Why a round could not end.

use crate::{
    class::Class,
    git::{self, secret::RemoteError},
    kinds::Reason,
    manifest::InvalidPattern,
    ports::{objects, secrets},
    repositories,
};

/// Why a round could not end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository cannot be fetched or read.
    #[error("failed to {what}")]
    Git {
        /// Which step.
        what: &'static str,
        /// Why.
        #[source]
        source: git::Error,
    },
    /// The remote cannot be put together.
    #[error("failed to prepare the remote")]
    Remote(#[from] RemoteError),
    /// A write to the store failed.
    #[error("failed to {what}")]
    Objects {
        /// Which write.
        what: String,
        /// Why.
        #[source]
        source: objects::Error,
    },
    /// `spec.allowedNamespaces` has a bad pattern.
    #[error("spec.allowedNamespaces is invalid")]
    Namespaces(#[from] InvalidPattern),
    /// `spec.checks.allowedRepositories` has a bad pattern.
    #[error("spec.checks.allowedRepositories is invalid")]
    Repositories(#[from] repositories::InvalidPattern),
    /// The spec cannot be used.
    #[error("{0}")]
    Spec(String),
    /// A write broke off: a bug.
    #[error("a write broke off")]
    Broken(#[source] tokio::task::JoinError),
    /// A status cannot be written as JSON.
    #[error("failed to compose the status")]
    Status(#[source] serde_json::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Git { source, .. } => source.class(),
            Self::Remote(source) => source.class(),
            Self::Objects { source, .. } => source.class(),
            Self::Namespaces(_) | Self::Repositories(_) | Self::Spec(_) => Class::Invalid,
            Self::Status(_) | Self::Broken(_) => Class::Bug,
        }
    }

    /// The same as a reason of the repository.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Git {
                source: git::Error::Unauthenticated { .. } | git::Error::Forbidden { .. }, ..
            } => Reason::AuthenticationFailed,
            Self::Git { source: git::Error::LimitExceeded { .. }, .. } => Reason::LimitExceeded,
            Self::Remote(RemoteError::Secret(secrets::Error::NotFound { .. })) => Reason::SecretNotFound,
            // that the store of Secrets is away says nothing of the Secret
            Self::Git { .. }
            | Self::Status(_)
            | Self::Remote(RemoteError::Git(_) | RemoteError::Secret(secrets::Error::Unavailable(_))) => {
                Reason::FetchFailed
            }
            Self::Remote(_) => Reason::SecretNotAllowed,
            Self::Objects { .. } | Self::Broken(_) => Reason::Progressing,
            Self::Namespaces(_) | Self::Repositories(_) | Self::Spec(_) => Reason::InvalidSpec,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_secrets_that_is_away_says_nothing_of_the_secret() {
        let of = |error| Error::Remote(RemoteError::Secret(error));
        let (namespace, name) = ("team".parse().unwrap(), "pull".parse().unwrap());
        let cases = [
            (secrets::Error::Unavailable("away".into()), Reason::FetchFailed, Class::Transient),
            (secrets::Error::NotFound { namespace, name }, Reason::SecretNotFound, Class::Invalid),
        ];
        for (error, reason, class) in cases {
            let error = of(error);
            assert_eq!((error.reason(), error.class()), (reason, class), "{error:?}");
        }
    }
}
