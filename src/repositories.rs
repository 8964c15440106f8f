//! Which code repositories runs may clone and push to: URLs, and the patterns that stand for some of them.
//!
//! Only plain URLs are compared: those that every program reads in the same way. What has escapes, `..`, a password or
//! another script in it matches nothing, so that nobody gets round a pattern by a form that we and Git read differently.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::egress::{Host, HostError, HostPattern};

/// Why a text cannot be compared. The text itself is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// No form that we know.
    #[error("it is none of https://, http://, ssh://, user@host:path, file:/// and an absolute path")]
    Form,
    /// A user where there is none, or a password.
    #[error("it holds a credential")]
    Credential,
    /// Not a host.
    #[error("its host is not one")]
    Host(#[source] HostError),
    /// Not a port.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// A path that may be read in more than one way, or none.
    #[error(
        "its path is not plain: segments of letters, digits and . _ ~ + - with one / between them, none of them . or .."
    )]
    Path,
    /// A wildcard that is not a whole segment of the path or the first label of a host, or `**` before the end.
    #[error("a wildcard is a whole segment of the path: * for one, ** at the end for one and more")]
    Wildcard,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Local,
    Http,
    Https,
    Ssh,
}

impl Transport {
    /// 0 where there is none.
    fn port(self) -> u16 {
        match self {
            Self::Local => 0,
            Self::Http => 80,
            Self::Https => 443,
            Self::Ssh => 22,
        }
    }
}

/// The user of ssh when the text names none: that of every Git host.
const SSH_USER: &str = "git";

/// A text taken apart, normalised as far as URL and pattern have that in common.
struct Parts<'a> {
    transport: Transport,
    user: &'a str,
    /// Empty on this machine.
    host: &'a str,
    port: u16,
    path: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, Unclear> {
        let (transport, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (transport(scheme)?, rest),
            None if text.starts_with('/') => (Transport::Local, text),
            None => return Self::of_scp(text),
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or(Unclear::Path)?);
        Self::at(transport, authority, path)
    }

    /// `user@host:path`: the colon stands before the first slash, and there is no port.
    fn of_scp(text: &'a str) -> Result<Self, Unclear> {
        let (authority, path) = text.split_once(':').ok_or(Unclear::Form)?;
        if authority.contains('/') {
            return Err(Unclear::Form);
        }
        Self::at(Transport::Ssh, authority, path)
    }

    fn at(transport: Transport, authority: &'a str, path: &'a str) -> Result<Self, Unclear> {
        let path = segments(path)?;
        let (user, place) = match (transport, authority.split_once('@')) {
            (Transport::Local, _) if authority.is_empty() => ("", ""),
            (Transport::Local, _) => return Err(Unclear::Form),
            (Transport::Ssh, Some((user, place))) if is_plain(user) => (user, place),
            (_, Some(_)) => return Err(Unclear::Credential),
            (Transport::Ssh, None) => (SSH_USER, authority),
            (Transport::Http | Transport::Https, None) => ("", authority),
        };
        let (host, port) = host_and_port(place)?;
        let port = match port {
            Some(text) => port_number(text)?,
            None => transport.port(),
        };
        Ok(Self { transport, user, host, port, path })
    }
}

fn transport(scheme: &str) -> Result<Transport, Unclear> {
    match scheme.to_ascii_lowercase().as_str() {
        "file" => Ok(Transport::Local),
        "http" => Ok(Transport::Http),
        "https" => Ok(Transport::Https),
        "ssh" => Ok(Transport::Ssh),
        _ => Err(Unclear::Form),
    }
}

/// The segments of a path: what stands between slashes, without the one slash and the `.git` that may end it.
fn segments(path: &str) -> Result<Vec<&str>, Unclear> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments: Vec<&str> = path.split('/').collect();
    if let Some(last) = segments.last_mut()
        && let Some(name) = last.strip_suffix(".git").filter(|name| !name.is_empty())
    {
        *last = name;
    }
    if segments.iter().all(|segment| is_plain(segment)) { Ok(segments) } else { Err(Unclear::Path) }
}

/// `*` is for patterns; a URL with one is refused later.
fn is_plain(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+-*".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
}

/// The port as it is written, if it is.
fn host_and_port(place: &str) -> Result<(&str, Option<&str>), Unclear> {
    if !place.starts_with('[') {
        return Ok(place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))));
    }
    let (host, rest) = place.split_at(place.find(']').map_or(place.len(), |end| end + 1));
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(Unclear::Port),
    }
}

fn port_number(text: &str) -> Result<u16, Unclear> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(Unclear::Port)
}

/// Where a code repository is, in plain form. Equal when it is the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    transport: Transport,
    user: String,
    /// None on this machine.
    host: Option<Host>,
    port: u16,
    path: Vec<String>,
}

impl Address {
    /// The server; none for a repository on this machine.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The server's port; none for a repository on this machine.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host.as_ref().map(|_| self.port)
    }
}

impl FromStr for Address {
    type Err = Unclear;

    fn from_str(text: &str) -> Result<Self, Unclear> {
        let Parts { transport, user, host, port, path } = Parts::of(text)?;
        if user.contains('*') || path.iter().any(|segment| segment.contains('*')) {
            return Err(Unclear::Path);
        }
        let host = match transport {
            Transport::Local => None,
            _ => Some(host.parse().map_err(Unclear::Host)?),
        };
        let path = path.into_iter().map(str::to_owned).collect();
        Ok(Self { transport, user: user.to_owned(), host, port, path })
    }
}

/// The hosts that a pattern stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    None,
    Named(HostPattern),
    Address(IpAddr),
}

impl Hosts {
    fn of(text: &str) -> Result<Self, Unclear> {
        if let Ok(Host::Address(address)) = text.parse() {
            return Ok(Self::Address(address));
        }
        text.parse().map(Self::Named).map_err(Unclear::Host)
    }

    fn holds(&self, host: Option<&Host>) -> bool {
        match (self, host) {
            (Self::None, None) => true,
            (Self::Named(pattern), Some(Host::Name(name))) => pattern.matches(name),
            (Self::Address(own), Some(Host::Address(address))) => own == address,
            _ => false,
        }
    }
}

/// A pattern of code repositories: a URL whose path may have wildcards, and whose host may begin with one.
///
/// `https://git.example.com/shop/*` stands for the repositories right below `shop`, `/shop/**` for all below it,
/// `https://*.example.com/shop/payments` for one on every host with one label more. Scheme, user and port must be the
/// same; a trailing `.git` or slash does not count, nor does the form in which ssh is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    transport: Transport,
    user: String,
    hosts: Hosts,
    port: u16,
    /// `None` stands for any one segment.
    path: Vec<Option<String>>,
    /// True: one or more segments follow.
    open: bool,
}

impl Pattern {
    /// Whether the pattern stands for that place.
    #[must_use]
    pub fn stands_for(&self, address: &Address) -> bool {
        let same = self.transport == address.transport
            && self.user == address.user
            && self.port == address.port
            && self.hosts.holds(address.host.as_ref());
        same && self.leads_to(&address.path)
    }

    fn leads_to(&self, path: &[String]) -> bool {
        let Some((named, rest)) = path.split_at_checked(self.path.len()) else { return false };
        // `~ada` is somebody's home on an ssh server: whoever means that writes it
        let any = |segment: &String| !segment.starts_with('~');
        let fits = |(own, segment): (&Option<String>, &String)| match own {
            Some(own) => own == segment,
            None => any(segment),
        };
        self.path.iter().zip(named).all(fits) && self.open != rest.is_empty() && rest.iter().all(any)
    }
}

impl FromStr for Pattern {
    type Err = Unclear;

    fn from_str(text: &str) -> Result<Self, Unclear> {
        let Parts { transport, user, host, port, mut path } = Parts::of(text)?;
        let open = path.last() == Some(&"**");
        if open {
            path.pop();
        }
        let segment = |segment: &str| match segment {
            "*" => Ok(None),
            _ if segment.contains('*') => Err(Unclear::Wildcard),
            _ => Ok(Some(segment.to_owned())),
        };
        let path = path.into_iter().map(segment).collect::<Result<_, _>>()?;
        if user.contains('*') {
            return Err(Unclear::Wildcard);
        }
        let hosts = if transport == Transport::Local { Hosts::None } else { Hosts::of(host)? };
        Ok(Self { transport, user: user.to_owned(), hosts, port, path, open })
    }
}

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {number} of the allowed repositories is not a pattern")]
pub struct InvalidPattern {
    /// Which entry, from 1.
    pub number: usize,
    /// Why.
    #[source]
    pub source: Unclear,
}

/// Why a code repository may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be compared.
    #[error("the URL of the repository cannot be held against the allowed ones")]
    Unclear(#[source] Unclear),
    /// No pattern stands for it.
    #[error("{0} is none of the repositories that are allowed")]
    NotAllowed(Address),
}

impl Refused {
    /// All of it, for people, on one line; never the text of a URL that may hold a secret.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Unclear(why) => format!("{self}: {why}"),
            Self::NotAllowed(_) => self.to_string(),
        }
    }
}

/// Which code repositories may be used; by default every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Option<Vec<Pattern>>);

impl Allowed {
    /// Those that one of the patterns stands for: with an empty list none, without a list every one.
    ///
    /// # Errors
    /// [`InvalidPattern`] names the first entry that is not a pattern.
    pub fn new(patterns: Option<&[String]>) -> Result<Self, InvalidPattern> {
        let one = |(index, text): (usize, &String)| {
            text.parse().map_err(|source| InvalidPattern { number: index + 1, source })
        };
        let all = |patterns: &[String]| patterns.iter().enumerate().map(one).collect();
        patterns.map(all).transpose().map(Self)
    }

    /// May the repository with this URL be used?
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub fn check(&self, url: &str) -> Result<(), Refused> {
        let Some(patterns) = &self.0 else { return Ok(()) };
        let address = url.parse().map_err(Refused::Unclear)?;
        let stands = patterns.iter().any(|pattern| pattern.stands_for(&address));
        if stands { Ok(()) } else { Err(Refused::NotAllowed(address)) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.join("/");
        let Some(host) = &self.host else { return write!(f, "/{path}") };
        let (scheme, at) = match self.transport {
            Transport::Ssh => ("ssh", format!("{}@", self.user)),
            Transport::Http => ("http", String::new()),
            Transport::Https | Transport::Local => ("https", String::new()),
        };
        write!(f, "{scheme}://{at}{host}")?;
        if self.port != self.transport.port() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{path}")
    }
}
