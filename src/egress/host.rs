//! Host names as rules and requests write them.

use std::{fmt, net::IpAddr, str::FromStr};

use super::address::canonical;

/// The longest name in text form that DNS can carry (RFC 1035, 2.3.4, less the length bytes).
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Why a text is not a host, or not a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing is left when the trailing dot is taken away.
    #[error("the host is empty")]
    Empty,
    /// The name or one of its labels is longer than DNS can carry.
    #[error("a host has at most 253 bytes and each of its labels 1 to 63")]
    Length,
    /// A character that no host name has.
    #[error("{0:?} cannot be part of a host name; write other scripts in their xn-- form")]
    Character(char),
    /// A label that begins or ends with a hyphen, which no registry hands out.
    #[error("the label {0:?} is not one of a host name")]
    Label(String),
    /// Resolvers read such names as addresses (`127.1`, `0x7f000001`), so they would get round address rules.
    #[error("the last label of a host name is not a number; write an address in its full form")]
    Numeric,
    /// An address where a rule wants a name.
    #[error("{0} is an address: name it under cidrs")]
    Address(IpAddr),
    /// A wildcard that is not one whole leading label in front of a name.
    #[error("a wildcard is one whole leading label in front of a name, as in *.example.com")]
    Wildcard,
}

/// A DNS name in lower case without its trailing dot; never an address in disguise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name, lower case, no trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(odd) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        {
            return Err(HostError::Character(odd));
        }
        let name = text.to_ascii_lowercase();
        if name.len() > NAME_BYTES || name.split('.').any(|l| l.is_empty() || l.len() > LABEL_BYTES) {
            return Err(HostError::Length);
        }
        if let Some(label) = name.split('.').find(|l| l.starts_with('-') || l.ends_with('-')) {
            return Err(HostError::Label(label.to_owned()));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostError::Numeric);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The target's host as a request writes it: a name to resolve or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name.
    Name(HostName),
    /// An address; IPv4 in IPv6 clothes is held as IPv4.
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = HostError;

    /// Reads the host part of a URL authority: a name, `192.0.2.1` or `[2001:db8::1]`.
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let address = inner.parse().map_err(|_| HostError::Label(inner.to_owned()))?;
            return Ok(Self::Address(canonical(IpAddr::V6(address))));
        }
        if let Ok(address) = text.strip_suffix('.').unwrap_or(text).parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        text.parse().map(Self::Name)
    }
}

impl fmt::Display for Host {
    /// Writes the form that fits in a URL authority (IPv6 in brackets).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// What a rule's `hosts` entry stands for: one name, or every name with one more label in front of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.` and this name: one label, no more and no less.
    OneLabel(HostName),
}

impl HostPattern {
    /// Whether the pattern stands for `name`.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::OneLabel(parent) => name.0.split_once('.').is_some_and(|(_, rest)| rest == parent.0),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(Host::Address(address)) = text.parse() {
            return Err(HostError::Address(address));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Err(HostError::Address(address));
        }
        match text.strip_prefix("*.") {
            Some(rest) if rest.contains('*') || rest.is_empty() => Err(HostError::Wildcard),
            Some(rest) => rest.parse().map(Self::OneLabel),
            None if text.contains('*') => Err(HostError::Wildcard),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::OneLabel(parent) => write!(f, "*.{parent}"),
        }
    }
}
