//! The keys of a Secret for ssh: `identity`, `passphrase` and `known_hosts`.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use ssh_key::{Algorithm, HashAlg, PrivateKey};

use super::known_hosts::{KnownHosts, Malformed};

/// Who we are, and whom we believe. `Debug` shows no secret.
#[derive(Clone)]
pub struct SshIdentity {
    key: Arc<PrivateKey>,
    known_hosts: Arc<KnownHosts>,
}

/// Why the keys of a Secret are no identity. No text holds a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentity {
    /// Another format, or broken.
    #[error(
        "identity is not a private key in OpenSSH's own format (ssh-keygen -p -f FILE rewrites one of another)"
    )]
    Format,
    /// A kind that Git hosts do not take, or that needs a device.
    #[error("identity is a key of kind {0}: use ed25519, ecdsa or rsa")]
    Kind(String),
    /// Encrypted.
    #[error("identity is encrypted, and there is no passphrase")]
    Encrypted,
    /// Encrypted with another passphrase.
    #[error("the passphrase does not open identity")]
    Passphrase,
    /// A line that cannot be read.
    #[error("{0}")]
    KnownHosts(String),
    /// There is no trust on first use.
    #[error(
        "known_hosts has no line: put the server's host keys there (ssh-keyscan shows them; compare with what its operator names)"
    )]
    NobodyKnown,
}

impl From<Malformed> for InvalidIdentity {
    fn from(error: Malformed) -> Self {
        Self::KnownHosts(error.to_string())
    }
}

impl SshIdentity {
    /// A private key as ssh-keygen(1) writes it, opened, and the text of a `known_hosts` file.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(
        identity: &SecretString,
        passphrase: Option<&SecretString>,
        known_hosts: &str,
    ) -> Result<Self, InvalidIdentity> {
        let mut key =
            PrivateKey::from_openssh(identity.expose_secret().trim()).map_err(|_| InvalidIdentity::Format)?;
        if key.is_encrypted() {
            let passphrase = passphrase.ok_or(InvalidIdentity::Encrypted)?;
            key = key
                .decrypt(passphrase.expose_secret().as_bytes())
                .map_err(|_| InvalidIdentity::Passphrase)?;
        }
        match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => {}
            other => return Err(InvalidIdentity::Kind(other.to_string())),
        }
        let known_hosts = KnownHosts::parse(known_hosts)?;
        if known_hosts.is_empty() {
            return Err(InvalidIdentity::NobodyKnown);
        }
        Ok(Self { key: Arc::new(key), known_hosts: Arc::new(known_hosts) })
    }

    /// SHA-256 of the public key, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn key(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.key)
    }

    pub(super) fn known_hosts(&self) -> Arc<KnownHosts> {
        Arc::clone(&self.known_hosts)
    }
}

impl fmt::Debug for SshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshIdentity({})", self.fingerprint())
    }
}
