//! Why something could not be recorded.

use crate::{class::Class, git, ledger, names::ObjectName, ports};

/// Why something could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The `ConfigRepository` asks for something that cannot be.
    #[error("{field}: {why}")]
    Settings {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A remote cannot be put together.
    #[error("the remote cannot be prepared")]
    Remote(#[from] git::secret::RemoteError),
    /// A Secret does not hold what a signature needs.
    #[error("Secret {secret} {what}")]
    Credential {
        /// Its name.
        secret: ObjectName,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A Secret is not given out.
    #[error("a Secret cannot be used")]
    Secrets(#[from] ports::secrets::Error),
    /// The store of objects failed.
    #[error("the store of objects failed")]
    Store(#[from] ports::objects::Error),
    /// A repository could not be read or reached.
    #[error("the repository cannot be read")]
    Git(#[from] git::Error),
    /// A commit could not be made.
    #[error("the commit cannot be made")]
    Commit(#[from] git::commit::Error),
    /// A push ended without an answer, or never began.
    #[error("the push failed")]
    Push(#[from] git::push::Error),
    /// An entry could not be written.
    #[error("the entry cannot be written")]
    Entry(#[from] ledger::entry::Error),
    /// The signing key cannot be used.
    #[error("the signing key cannot be used")]
    Key(#[from] git::sign::Error),
    /// The ledger's history is not the one that was seen before.
    #[error("the ledger was rewritten: {0}")]
    Rewritten(String),
    /// The remote refuses our push.
    #[error("the ledger's remote refuses the push: {0}")]
    Refused(String),
    /// Others kept pushing first.
    #[error("others pushed first, {0} times in a row")]
    Contended(u32),
    /// The quarantine of an agent's commits failed.
    #[error("the quarantine failed")]
    Bundle(#[source] git::bundle::Error),
    /// A file of the spool or the state folder failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A task ended in a panic.
    #[error("a task of the recorder broke")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Settings { .. }
            | Self::Credential { .. }
            | Self::Entry(_)
            | Self::Refused(_)
            | Self::Rewritten(_) => Class::Invalid,
            Self::Secrets(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Git(error) => error.class(),
            Self::Remote(error) => error.class(),
            Self::Commit(_) | Self::Key(_) | Self::Task(_) | Self::Bundle(_) => Class::Bug,
            Self::Push(_) | Self::Io { .. } => Class::Transient,
            Self::Contended(_) => Class::Conflict,
        }
    }
}
