//! `known_hosts` files: sshd(8), `SSH_KNOWN_HOSTS FILE FORMAT`. What such a file says of a host and a key; nothing else.

#[cfg(test)]
mod tests;

use aws_lc_rs::hmac;
use base64::Engine as _;
use ssh_key::{Algorithm, Certificate, PublicKey, certificate::CertType, public::KeyData};

use crate::git::{location::SSH_PORT, signers::Patterns};

/// Whom we want to talk to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    /// Lower case; an IPv6 address has no brackets.
    pub(super) name: &'a str,
    pub(super) port: u16,
}

impl Host<'_> {
    /// How a line names this host: with the port unless it is ssh's own.
    pub(super) fn listed(self) -> String {
        if self.port == SSH_PORT { self.name.to_owned() } else { format!("[{}]:{}", self.name, self.port) }
    }
}

/// What the file says of a key that a host presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known of this host.
    Unknown,
    /// The host is known, with other keys.
    Changed,
    /// It must not be trusted, whoever presents it.
    Revoked,
}

/// Why a host's certificate does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadCertificate {
    #[error("it is not one of a host")]
    Kind,
    #[error("it is for other hosts")]
    Principal,
    #[error("it is not valid now")]
    Time,
    #[error("its signature is wrong or rests on SHA-1")]
    Signature,
    #[error("it has critical options, and a host's has none")]
    Options,
}

/// A line that cannot be read. The text names the line only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of known_hosts is malformed")]
pub(crate) struct Malformed(usize);

/// A whole file.
#[derive(Debug, Clone)]
pub(super) struct KnownHosts(Vec<Line>);

#[derive(Debug, Clone)]
struct Line {
    marker: Marker,
    hosts: Hosts,
    key: KeyData,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Key,
    Authority,
    Revoked,
}

#[derive(Debug, Clone)]
enum Hosts {
    Patterns(Patterns),
    /// HMAC-SHA1 of the name under a salt.
    Hashed {
        salt: Box<hmac::Key>,
        hash: Vec<u8>,
    },
}

impl KnownHosts {
    /// Reads a file. Lines of protocol 1, which nobody speaks any more, are left out.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let used = |line: &str| !line.is_empty() && !line.starts_with('#') && !is_of_protocol_1(line);
        let lines = lines.filter(|(_, line)| used(line));
        lines.map(|(at, line)| Line::parse(line).ok_or(Malformed(at))).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is known of a key that `host` presents. A host at a port of its own is also known by its name alone, if
    /// nothing is listed for the port; as with OpenSSH.
    pub(super) fn judge(&self, host: Host<'_>, key: &KeyData) -> Verdict {
        if self.is_revoked(host, key) {
            return Verdict::Revoked;
        }
        let (mut listed, mut known) = (false, false);
        for line in self.of(host, Marker::Key) {
            listed = true;
            known |= line.key == *key;
        }
        match (known, listed) {
            (true, _) => Verdict::Known,
            (false, true) => Verdict::Changed,
            (false, false) => Verdict::Unknown,
        }
    }

    /// Whether a certificate authority of `host` vouches for it; `None` when none of its authorities signed.
    ///
    /// The caller has seen that the host owns the certificate's key. `now` is in seconds since 1970.
    pub(super) fn vouched(
        &self,
        host: Host<'_>,
        certificate: &Certificate,
        now: u64,
    ) -> Option<Result<(), BadCertificate>> {
        let authority = certificate.signature_key();
        self.of(host, Marker::Authority)
            .any(|line| line.key == *authority)
            .then(|| good(host, certificate, now))
    }

    /// Whether a line takes the trust away from a key.
    pub(super) fn is_revoked(&self, host: Host<'_>, key: &KeyData) -> bool {
        let names = [host.listed(), host.name.to_owned()];
        self.0.iter().any(|line| {
            line.marker == Marker::Revoked
                && line.key == *key
                && names.iter().any(|name| line.hosts.matches(name))
        })
    }

    /// Whether a certificate of `host` could be believed.
    pub(super) fn has_authority(&self, host: Host<'_>) -> bool {
        self.of(host, Marker::Authority).next().is_some()
    }

    /// The kinds of keys that are known of `host`.
    pub(super) fn algorithms(&self, host: Host<'_>) -> Vec<Algorithm> {
        self.of(host, Marker::Key).map(|line| line.key.algorithm()).collect()
    }

    /// The lines of a kind for a host; those for its name alone if there are none for its port.
    fn of(&self, host: Host<'_>, marker: Marker) -> impl Iterator<Item = &Line> {
        let listed = host.listed();
        let some = self.0.iter().any(|line| line.marker == marker && line.hosts.matches(&listed));
        let name = if some { listed } else { host.name.to_owned() };
        self.0.iter().filter(move |line| line.marker == marker && line.hosts.matches(&name))
    }
}

/// Bits, exponent and modulus instead of a kind and a key.
fn is_of_protocol_1(line: &str) -> bool {
    let bits = line.split_ascii_whitespace().nth(1);
    bits.is_some_and(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next()?;
        let (marker, hosts) = match first {
            "@cert-authority" => (Marker::Authority, fields.next()?),
            "@revoked" => (Marker::Revoked, fields.next()?),
            other if other.starts_with('@') => return None,
            hosts => (Marker::Key, hosts),
        };
        let hosts = Hosts::parse(hosts)?;
        let (kind, key) = (fields.next()?, fields.next()?);
        let key = PublicKey::from_openssh(&format!("{kind} {key}")).ok()?;
        Some(Self { marker, hosts, key: key.key_data().clone() })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        let Some(hashed) = text.strip_prefix("|1|") else {
            return Patterns::parse(&text.to_ascii_lowercase()).map(Self::Patterns);
        };
        let (salt, hash) = hashed.split_once('|')?;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
        let salt = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decode(salt)?);
        Some(Self::Hashed { salt: Box::new(salt), hash: decode(hash)? })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => patterns.matches(name),
            Self::Hashed { salt, hash } => hmac::verify(salt, name.as_bytes(), hash).is_ok(),
        }
    }
}

/// PROTOCOL.certkeys of OpenSSH. A certificate for everybody, without names, is not believed.
fn good(host: Host<'_>, certificate: &Certificate, now: u64) -> Result<(), BadCertificate> {
    if certificate.cert_type() != CertType::Host {
        return Err(BadCertificate::Kind);
    }
    let named = |name: &String| {
        Patterns::parse(&name.to_ascii_lowercase()).is_some_and(|name| name.matches(host.name))
    };
    if !certificate.valid_principals().iter().any(named) {
        return Err(BadCertificate::Principal);
    }
    if !(certificate.valid_after()..certificate.valid_before()).contains(&now) {
        return Err(BadCertificate::Time);
    }
    if !certificate.critical_options().is_empty() {
        return Err(BadCertificate::Options);
    }
    if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
        return Err(BadCertificate::Signature);
    }
    let authority = certificate.signature_key().fingerprint(ssh_key::HashAlg::Sha256);
    certificate.validate_at(now, [&authority]).map_err(|_| BadCertificate::Signature)
}
