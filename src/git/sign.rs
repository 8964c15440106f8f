//! SSH signatures over Git objects (PROTOCOL.sshsig), in process: signing with our ed25519 key, verifying against allowed signers.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use gix::objs::CommitRefIter;
use jiff::Timestamp;
use rand::TryRngCore;
use ssh_key::{
    Algorithm, Fingerprint, HashAlg, LineEnding, PrivateKey, SshSig,
    private::{Ed25519Keypair, KeypairData},
};
use zeroize::Zeroizing;

use super::signers::{AllowedSigners, Patterns};

/// The namespace that Git signs in, so that a signature over a file can never pass for one over a commit.
pub const NAMESPACE: &str = "git";

const SHA1: gix::hash::Kind = gix::hash::Kind::Sha1;

/// Longest key file that is read, bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Longest armored signature that is looked at, bytes (an RSA 16384 one has about 6 KiB).
const MAX_SIGNATURE: usize = 32 * 1024;

/// Why a signing key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key file cannot be read or written.
    #[error("signing key {}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read the key file.
    #[error("signing key {} is open to others (mode {mode:o}): chmod 600 it", path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no OpenSSH private key.
    #[error("signing key {} is not an OpenSSH private key", path.display())]
    Format {
        /// The key file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: ssh_key::Error,
    },
    /// The key needs a passphrase, which nobody is there to type.
    #[error("signing key {} is protected by a passphrase; give ostler a key of its own", path.display())]
    Encrypted {
        /// The key file.
        path: PathBuf,
    },
    /// Only ed25519 signs: the RSA crate has an open timing weakness (RUSTSEC-2023-0071), and one kind is enough.
    #[error("signing key {} is {algorithm}; ostler signs with ed25519 only", path.display())]
    Algorithm {
        /// The key file.
        path: PathBuf,
        /// What it holds.
        algorithm: Algorithm,
    },
    /// The system gave no randomness.
    #[error("no randomness for a new signing key")]
    Random(#[source] rand::rand_core::OsError),
    /// Encoding or signing failed.
    #[error("ssh signature")]
    Ssh(#[from] ssh_key::Error),
}

/// An ed25519 key that signs commits. `Debug` shows the fingerprint only; the secret is wiped on drop.
pub struct SigningKey {
    key: PrivateKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&format_args!("{}", self.fingerprint())).finish()
    }
}

impl SigningKey {
    /// A new key from the system's randomness. `comment` is public.
    pub fn generate(comment: &str) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rand::rngs::OsRng.try_fill_bytes(seed.as_mut()).map_err(Error::Random)?;
        let key = PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&seed)), comment)?;
        Ok(Self { key })
    }

    /// Reads an OpenSSH private key file.
    ///
    /// Errors: not a regular file, readable by group or others, encrypted, or not ed25519. A file of somebody else may be
    /// readable by its group: so the kubelet gives the file of a Secret to a pod that is not root's.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(io)?;
        // The mode is asked of the open file, so that it cannot be swapped in between.
        let metadata = file.metadata().map_err(io)?;
        let mode = metadata.permissions().mode() & 0o777;
        if !is_private(mode, metadata.uid() == rustix::process::geteuid().as_raw()) {
            return Err(Error::Mode { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(io)?;
        Self::from_openssh(&text, path)
    }

    /// Reads key text that came from a secret store; `origin` names it in errors.
    pub fn from_openssh(text: &str, origin: &Path) -> Result<Self, Error> {
        let path = || origin.to_owned();
        let key = PrivateKey::from_openssh(text).map_err(|source| Error::Format { path: path(), source })?;
        if key.is_encrypted() {
            return Err(Error::Encrypted { path: path() });
        }
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self { key }),
            algorithm => Err(Error::Algorithm { path: path(), algorithm }),
        }
    }

    /// Writes the key to a new file with mode 0600, synced. Never overwrites.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let text = self.key.to_openssh(LineEnding::LF)?;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// The public half as one OpenSSH line, without a line end.
    pub fn public_line(&self) -> Result<String, Error> {
        Ok(self.key.public_key().to_openssh()?)
    }

    /// A line for an `allowed_signers` file that lets this key sign Git objects as `principal`.
    pub fn allowed_signers_line(&self, principal: &str) -> Result<String, Error> {
        let key = self.public_line()?;
        Ok(format!("{principal} namespaces=\"{NAMESPACE}\" {key}"))
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint(HashAlg::Sha256)
    }

    /// The armored signature over `payload` (a commit without its signature header), ending without a line end.
    pub fn sign(&self, payload: &[u8]) -> Result<String, Error> {
        let signature = self.key.sign(NAMESPACE, HashAlg::Sha512, payload)?;
        Ok(signature.to_pem(LineEnding::LF)?.trim_end().to_owned())
    }
}

/// What a signature says about a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by an allowed signer at an allowed time.
    Verified {
        /// The principals of the line that allows the key.
        principal: Patterns,
        /// The key.
        fingerprint: Fingerprint,
    },
    /// There is no signature.
    Unsigned,
    /// The signature fits, but no line allows this key for Git at this time.
    UnknownKey {
        /// The key.
        fingerprint: Fingerprint,
    },
    /// The signature does not fit the payload, or is no SSH signature for Git.
    Bad,
}

impl Verdict {
    /// True for [`Verdict::Verified`].
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// Judges an armored SSH signature over `payload`. `at` is the moment the validity of keys is asked for (the committer time, as Git does).
#[must_use]
pub fn verify(payload: &[u8], signature: Option<&[u8]>, signers: &AllowedSigners, at: Timestamp) -> Verdict {
    let Some(armor) = signature else { return Verdict::Unsigned };
    if armor.len() > MAX_SIGNATURE {
        return Verdict::Bad;
    }
    let Ok(signature) = SshSig::from_pem(armor.trim_ascii()) else { return Verdict::Bad };
    // The version is not signed; OpenSSH knows only this one.
    if signature.version() != SshSig::VERSION {
        return Verdict::Bad;
    }
    let key = signature.public_key();
    let public = ssh_key::PublicKey::from(key.clone());
    if public.verify(NAMESPACE, payload, &signature).is_err() {
        return Verdict::Bad;
    }
    let fingerprint = key.fingerprint(HashAlg::Sha256);
    match signers.find(key, NAMESPACE, at) {
        Some(principal) => Verdict::Verified { principal: principal.clone(), fingerprint },
        None => Verdict::UnknownKey { fingerprint },
    }
}

/// Judges a commit as stored: splits its signature off and takes the committer's time as the moment.
#[must_use]
pub fn verify_commit(commit: &[u8], signers: &AllowedSigners) -> Verdict {
    let (signature, signed) = match CommitRefIter::signature(commit, SHA1) {
        Ok(Some((signature, signed))) => (signature, signed.to_bstring()),
        Ok(None) => return Verdict::Unsigned,
        Err(_) => return Verdict::Bad,
    };
    match committer_time(commit) {
        Some(at) => verify(&signed, Some(&signature), signers, at),
        None => Verdict::Bad,
    }
}

/// Whether the file of a key with that mode is read by nobody but us, and by the group that its owner, who is not us,
/// gave it to.
fn is_private(mode: u32, is_ours: bool) -> bool {
    mode & if is_ours { 0o077 } else { 0o037 } == 0
}

fn committer_time(commit: &[u8]) -> Option<Timestamp> {
    let committer = CommitRefIter::from_bytes(commit, SHA1).committer().ok()?;
    Timestamp::from_second(committer.time().ok()?.seconds).ok()
}

#[cfg(test)]
mod tests;
