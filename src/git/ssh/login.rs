//! From a TCP connection to a channel: host key, identity, command.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use russh::{
    Channel,
    client::{self, AuthResult, Handle, Msg},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey, public::KeyData};

use super::{
    SshError, SshIdentity,
    error::Why,
    known_hosts::{Host, KnownHosts, Verdict},
};
use crate::git::location::SshPlace;

/// Messages that wait to be read; then the server waits. One is at most 32 KiB.
const WAITING: usize = 32;

/// What we accept of host keys and signatures, best first. SHA-1 and DSA are not among it.
const HOST_KEYS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// Why there is no channel.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server, or we, are not who we should be.
    Ssh(SshError),
    /// The network.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        use russh::Error as E;
        match error {
            E::NoCommonAlgo { .. }
            | E::KexInit
            | E::Kex
            | E::UnknownAlgo
            | E::Version
            | E::WrongServerSig
            | E::Keys(_)
            | E::SshKey(_)
            | E::Signature(_)
            | E::StrictKeyExchangeViolation { .. } => Self::Ssh(SshError::Protocol(Box::new(error))),
            error => Self::Broken(Box::new(error)),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// A connection of a user who is let in.
pub(super) type Connection = Handle<Doorkeeper>;

/// Believes a server or does not.
pub(super) struct Doorkeeper {
    name: String,
    port: u16,
    known_hosts: Arc<KnownHosts>,
}

impl client::Handler for Doorkeeper {
    type Error = Fault;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let host = Host { name: &self.name, port: self.port };
        believe(&self.known_hosts, host, shown).map(|()| true).map_err(Fault::Ssh)
    }
}

/// Whether the server is who it should be. A certificate of nobody we trust is as good as the key in it.
fn believe(known: &KnownHosts, host: Host<'_>, shown: &PublicKeyOrCertificate) -> Result<(), SshError> {
    let key = match shown {
        PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data(),
        PublicKeyOrCertificate::Certificate(certificate) => {
            let keys = [certificate.signature_key(), certificate.public_key()];
            if let Some(revoked) = keys.into_iter().find(|key| known.is_revoked(host, key)) {
                return Err(distrust(host, revoked, Verdict::Revoked));
            }
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
            match known.vouched(host, certificate, now) {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => {
                    return Err(SshError::HostCertificate { host: host.listed(), why: Why(why) });
                }
                None => certificate.public_key(),
            }
        }
    };
    match known.judge(host, key) {
        Verdict::Known => Ok(()),
        verdict => Err(distrust(host, key, verdict)),
    }
}

fn distrust(host: Host<'_>, key: &KeyData, verdict: Verdict) -> SshError {
    let (host, key) = (host.listed(), PublicKey::from(key.clone()));
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    match verdict {
        Verdict::Revoked => SshError::RevokedHost { host, fingerprint },
        Verdict::Changed => SshError::ChangedHost { host, fingerprint },
        Verdict::Unknown | Verdict::Known => {
            let line = format!("{host} {}", key.to_openssh().unwrap_or_default());
            SshError::UnknownHost { host, fingerprint, line }
        }
    }
}

/// Connects, believes the server, and lets the user in.
pub(super) async fn log_in(place: SshPlace, identity: SshIdentity) -> Result<Connection, Fault> {
    let host = Host { name: place.bare_host(), port: place.port };
    let known_hosts = identity.known_hosts();
    let config = client::Config {
        client_id: russh::SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-ostler_",
            env!("CARGO_PKG_VERSION")
        ))),
        preferred: preferred(&known_hosts, host),
        channel_buffer_size: WAITING,
        nodelay: true,
        ..client::Config::default()
    };
    let doorkeeper = Doorkeeper { name: host.name.to_owned(), port: host.port, known_hosts };
    let mut connection = client::connect(Arc::new(config), (host.name, host.port), doorkeeper).await?;
    authenticate(&mut connection, &place, &identity).await?;
    Ok(connection)
}

/// Kinds of keys that the host is known by come first, for a server with several shows one that we can check.
fn preferred(known: &KnownHosts, host: Host<'_>) -> russh::Preferred {
    let listed = known.algorithms(host);
    let is_rsa = |kind: &Algorithm| matches!(kind, Algorithm::Rsa { .. });
    let is_listed =
        |kind: &Algorithm| listed.iter().any(|known| *known == *kind || is_rsa(known) && is_rsa(kind));
    let mut key = HOST_KEYS.to_vec();
    key.sort_by_key(|kind| !is_listed(kind));
    let certificates = if known.has_authority(host) { HOST_KEYS.to_vec() } else { Vec::new() };
    russh::Preferred {
        key: key.into(),
        host_key_certificates: certificates.into(),
        ..russh::Preferred::DEFAULT
    }
}

async fn authenticate(
    connection: &mut Connection,
    place: &SshPlace,
    identity: &SshIdentity,
) -> Result<(), Fault> {
    let host = Host { name: place.bare_host(), port: place.port }.listed();
    let key = identity.key();
    let hashes = if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        vec![None]
    } else if connection.best_supported_rsa_hash().await? == Some(None) {
        return Err(Fault::Ssh(SshError::WeakRsa { host }));
    } else {
        // A server may name more than it takes of this user.
        vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)]
    };
    for hash in hashes {
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&key), hash);
        match connection.authenticate_publickey(&place.user, key).await? {
            AuthResult::Success => return Ok(()),
            // russh's answer when the connection ends here; a server names the ways that are left.
            AuthResult::Failure { remaining_methods, partial_success: false }
                if remaining_methods.is_empty() =>
            {
                return Err(russh::Error::HUP.into());
            }
            AuthResult::Failure { .. } => {}
        }
    }
    let (user, kind) = (place.user.clone(), key.algorithm().to_string());
    Err(Fault::Ssh(SshError::IdentityRefused { host, user, fingerprint: identity.fingerprint(), kind }))
}

/// A channel on which `command` is asked for; the answer comes on it.
pub(super) async fn run(
    connection: &Connection,
    command: String,
    version: Option<&str>,
) -> Result<Channel<Msg>, Fault> {
    let channel = connection.channel_open_session().await?;
    if let Some(version) = version {
        // A server that does not take it says nothing, and speaks the first version.
        channel.set_env(false, "GIT_PROTOCOL", version).await?;
    }
    channel.exec(true, command).await?;
    Ok(channel)
}
