//! What can go wrong between us and a repository, and what a caller should do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::location::{Location, LocationError};
use super::ssh::SshError;
use crate::class::Class;

/// The thing that was limited. See [`super::Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// Bytes received from the remote in one operation.
    ReceivedBytes,
    /// Objects announced by one pack.
    PackObjects,
    /// Bytes that one object needs in memory.
    ObjectBytes,
    /// Files listed below one path.
    Files,
    /// Bytes of one file.
    FileBytes,
    /// Bytes of one path.
    PathBytes,
    /// Directories below one another.
    TreeDepth,
}

impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReceivedBytes => "received bytes",
            Self::PackObjects => "objects in one pack",
            Self::ObjectBytes => "bytes of one object",
            Self::Files => "files",
            Self::FileBytes => "bytes of one file",
            Self::PathBytes => "bytes of one path",
            Self::TreeDepth => "nested directories",
        })
    }
}

/// An operation on a repository failed. No variant ever holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text does not name a repository that we can reach.
    #[error("not a usable repository location")]
    Location(#[from] LocationError),
    /// A credential for plain http to another machine; nothing was sent.
    #[error("will not send a credential over plain http to {host}: use https")]
    InsecureCredential {
        /// The host of the URL.
        host: String,
    },
    /// The private CA is not PEM certificates, or the credential cannot be an HTTP header.
    #[error("unusable {what} for {location}")]
    Settings {
        /// Which setting.
        what: &'static str,
        /// Where it was meant for.
        location: Location,
        /// What the parser said, where that cannot hold a secret.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server wants a credential, or refused ours.
    #[error("{location} {}", unauthenticated(*.sent, *.redirected))]
    Unauthenticated {
        /// The repository.
        location: Location,
        /// A credential was sent.
        sent: bool,
        /// The server had redirected us; credentials never follow.
        redirected: bool,
        /// Over ssh: which identity.
        #[source]
        source: Option<Box<SshError>>,
    },
    /// The server is not who it should be, or does not speak ssh as we do.
    #[error("no trustworthy ssh connection to {location}")]
    Ssh {
        /// The repository.
        location: Location,
        /// What to do about it.
        #[source]
        source: Box<SshError>,
    },
    /// The server knows us and says no (HTTP 403).
    #[error("access to {location} is forbidden")]
    Forbidden {
        /// The repository.
        location: Location,
    },
    /// No such repository, reference, commit or file.
    #[error("{what} does not exist in {place}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        place: String,
    },
    /// The peer's certificate was not accepted, or TLS failed otherwise.
    #[error("no trustworthy TLS connection to {location}")]
    Tls {
        /// The repository.
        location: Location,
        /// What rustls said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection, or it broke.
    #[error("cannot talk to {location}")]
    Unreachable {
        /// The repository.
        location: Location,
        /// What the network said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository is elsewhere now, and nobody said that it may be.
    #[error("{location} redirects to {to}, which is another repository: name that one, if it may be used")]
    Moved {
        /// The repository that was asked for.
        location: Location,
        /// Where the server sends us, cut short.
        to: String,
    },
    /// The server answered, but not with Git.
    #[error("{location} answered {answer}")]
    Refused {
        /// The repository.
        location: Location,
        /// The status or message of the server, cut short.
        answer: String,
        /// The answer says that trying again later may help.
        retry: bool,
    },
    /// The whole operation took longer than its budget.
    #[error("{location} took longer than {after:?}")]
    Timeout {
        /// The repository.
        location: Location,
        /// The budget.
        after: Duration,
    },
    /// The caller set the interrupt flag.
    #[error("interrupted")]
    Interrupted,
    /// More than we accept; the operation was given up at once.
    #[error("more than {limit} {what} in {place}")]
    LimitExceeded {
        /// What was limited.
        what: LimitKind,
        /// How much is allowed.
        limit: u64,
        /// The repository, file or folder.
        place: String,
    },
    /// Something the repository uses and we do not support.
    #[error("{place} needs {what}, which ostler does not support")]
    Unsupported {
        /// The feature.
        what: String,
        /// The repository.
        place: String,
    },
    /// Objects are missing or broken.
    #[error("{what} is corrupt in {place}")]
    Corrupt {
        /// Which object or file.
        what: String,
        /// Where.
        place: String,
        /// What gix said.
        #[source]
        source: Option<gix::Error>,
    },
    /// Another process, or another handle of this one, holds the mirror.
    #[error("{} is in use by another process", .path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The system watches no more files for us.
    #[error("cannot watch {}", .path.display())]
    Unwatchable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: notify::Error,
    },
    /// The text is no revision, range, reference name, object id or glob.
    #[error("{text:?} is not {wanted}")]
    Malformed {
        /// The text.
        text: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The file system failed.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// gix failed in a way that none of the above names.
    #[error("cannot {doing}")]
    Gix {
        /// The verb.
        doing: &'static str,
        /// What gix said.
        #[source]
        source: gix::Error,
    },
}

fn unauthenticated(sent: bool, redirected: bool) -> &'static str {
    match (sent, redirected) {
        (_, true) => "redirected to a place that wants a credential, and credentials never follow a redirect",
        (true, false) => "did not accept the credential",
        (false, false) => "wants a credential and none was given",
    }
}

impl Error {
    /// What the caller should do.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Location(_)
            | Self::InsecureCredential { .. }
            | Self::Settings { .. }
            | Self::Unauthenticated { .. }
            | Self::Ssh { .. }
            | Self::Forbidden { .. }
            | Self::Moved { .. }
            | Self::NotFound { .. }
            | Self::Tls { .. }
            | Self::LimitExceeded { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Refused { retry: false, .. } => Class::Invalid,
            Self::Unreachable { .. }
            | Self::Refused { retry: true, .. }
            | Self::Timeout { .. }
            | Self::Interrupted
            | Self::Unwatchable { .. }
            | Self::Io { .. } => Class::Transient,
            Self::Busy { .. } => Class::Conflict,
            Self::Gix { source, .. } if source.can_retry_lenient() => Class::Transient,
            Self::Gix { .. } | Self::Corrupt { .. } => Class::Bug,
        }
    }

    /// A credential is needed, and there is none.
    pub(super) fn unauthenticated(location: Location) -> Self {
        Self::Unauthenticated { location, sent: false, redirected: false, source: None }
    }

    /// For `map_err` on file system calls.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// For `map_err` on gix calls that fail only by our fault or a broken store.
    pub(super) fn gix(doing: &'static str) -> impl FnOnce(gix::Error) -> Self {
        move |source| Self::Gix { doing, source }
    }
}

/// An error and all its causes, also the ones that `io::Error` keeps inside instead of below.
pub(super) fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| {
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        }
    })
}
