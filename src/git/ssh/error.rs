//! Why there is no conversation over ssh, and what its owner does about it.

use super::known_hosts::BadCertificate;

/// A server that is not who it should be, or that does not let us in. Nothing of this goes away by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// No line for the host.
    #[error(
        "known_hosts has no key of {host}, which shows {fingerprint}: if that is the key its operator names, add the line: {line}"
    )]
    UnknownHost {
        /// How a line names the host.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
        /// What to add.
        line: String,
    },
    /// Lines for the host, but with other keys.
    #[error(
        "the host key of {host} has changed: it shows {fingerprint}, and known_hosts has another; ask its operator, and replace the line if the change is theirs"
    )]
    ChangedHost {
        /// How a line names the host.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
    },
    /// A line that says `@revoked`.
    #[error("the host key {fingerprint} of {host} is revoked in known_hosts: the server has to get another")]
    RevokedHost {
        /// How a line names the host.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
    },
    /// One of an authority that `known_hosts` trusts.
    #[error("the host certificate of {host} does not count: {why}; its operator has to renew it")]
    HostCertificate {
        /// How a line names the host.
        host: String,
        /// What is wrong.
        #[doc(hidden)]
        why: Why,
    },
    /// The server does not let the user in with this key.
    #[error(
        "{host} refused the identity {fingerprint} ({kind}) for user {user}: give its public key access there, or correct the key or the user"
    )]
    IdentityRefused {
        /// The host, with its port.
        host: String,
        /// Who logs in.
        user: String,
        /// SHA-256 of our public key.
        fingerprint: String,
        /// Its algorithm.
        kind: String,
    },
    /// The server takes RSA keys with SHA-1 only.
    #[error("{host} takes RSA signatures with SHA-1 only: use an ed25519 or ecdsa identity")]
    WeakRsa {
        /// The host, with its port.
        host: String,
    },
    /// No command may be run there.
    #[error("the server does not run {service}")]
    CommandRefused {
        /// The program.
        service: &'static str,
    },
    /// The two sides have no algorithm in common, or the server breaks the protocol.
    #[error("the server does not speak ssh as we do")]
    Protocol(#[source] Box<russh::Error>),
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Why(pub(super) BadCertificate);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
