//! Where a repository is.

mod ssh;

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

pub(super) use ssh::{DEFAULT_PORT as SSH_PORT, SshPlace};

/// A repository that we can reach: a local path, `file://`, `http://`, `https://`, `ssh://` or `user@host:path`.
///
/// It never holds a credential (text with one is refused), so it may be shown, logged and compared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location(Place);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Path(PathBuf),
    Web(Url),
    Ssh(SshPlace),
}

/// Why a text is not a [`Location`]. The text itself is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// Nothing there.
    #[error("the location is empty")]
    Empty,
    /// A user or password inside the URL.
    #[error("the URL of {host} holds a credential: put it in a secret")]
    EmbeddedCredential {
        /// The host of the URL.
        host: String,
    },
    /// Another scheme.
    #[error("locations with {scheme}:// are not supported: use a path, file://, http://, https:// or ssh://")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// `file://host/…`.
    #[error("file:// locations name no host")]
    FileHost,
    /// `?query` or `#fragment`.
    #[error("the location has a query or a fragment")]
    Query,
    /// Not a URL at all, or control characters.
    #[error("the location is malformed")]
    Malformed,
}

impl Location {
    /// A repository on this machine.
    #[must_use]
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self(Place::Path(path.into()))
    }

    /// Whether the repository is on this machine's file system.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.0, Place::Path(_))
    }

    /// The path of a local repository.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Path(path) => Some(path),
            Place::Web(_) | Place::Ssh(_) => None,
        }
    }

    /// The host of a remote one, lower case, without port; an IPv6 address is in brackets.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.0 {
            Place::Path(_) => None,
            Place::Web(url) => url.host_str(),
            Place::Ssh(place) => Some(&place.host),
        }
    }

    /// The host of a remote one, with the port where it is not the scheme's own: how a Secret names whom it may be sent to.
    #[must_use]
    pub fn authority(&self) -> Option<String> {
        if let Some(place) = self.ssh() {
            return Some(place.authority());
        }
        let url = self.web()?;
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }

    /// The port of a remote one, the scheme's own when the text names none.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Place::Path(_) => None,
            Place::Web(url) => url.port_or_known_default(),
            Place::Ssh(place) => Some(place.port),
        }
    }

    /// Whether bytes to it are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.web().is_some_and(|url| url.scheme() == "https")
    }

    /// Whether it is this machine's loopback interface, by address or by the name `localhost` (RFC 6761, 6.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host().is_some_and(on_loopback)
    }

    /// Whether it is behind an ssh server.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        self.ssh().is_some()
    }

    pub(super) fn web(&self) -> Option<&Url> {
        match &self.0 {
            Place::Web(url) => Some(url),
            Place::Path(_) | Place::Ssh(_) => None,
        }
    }

    pub(super) fn ssh(&self) -> Option<&SshPlace> {
        match &self.0 {
            Place::Ssh(place) => Some(place),
            Place::Path(_) | Place::Web(_) => None,
        }
    }
}

fn on_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl std::str::FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(LocationError::Malformed);
        }
        match text.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "file" => file(rest),
                "http" | "https" => web(text),
                "ssh" => ssh::parse(text).map(Place::Ssh).map(Self),
                other => Err(LocationError::Scheme { scheme: other.to_owned() }),
            },
            None if is_scp_like(text) => ssh::parse(text).map(Place::Ssh).map(Self),
            None => Ok(Self::from_path(text)),
        }
    }
}

/// As git decides: a colon before the first slash.
fn is_scp_like(text: &str) -> bool {
    text.find(':').is_some_and(|colon| text.find('/').is_none_or(|slash| colon < slash))
}

fn file(rest: &str) -> Result<Location, LocationError> {
    let slash = rest.find('/').ok_or(LocationError::FileHost)?;
    if !matches!(&rest[..slash], "" | "localhost") {
        return Err(LocationError::FileHost);
    }
    let url = Url::parse("file:///")
        .and_then(|base| base.join(&rest[slash..]))
        .map_err(|_| LocationError::Malformed)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(LocationError::Query);
    }
    url.to_file_path().map(Location::from_path).map_err(|()| LocationError::Malformed)
}

fn web(text: &str) -> Result<Location, LocationError> {
    let url = Url::parse(text).map_err(|_| LocationError::Malformed)?;
    let host = url.host_str().ok_or(LocationError::Malformed)?.to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::EmbeddedCredential { host });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(LocationError::Query);
    }
    Ok(Location(Place::Web(url)))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Path(path) => path.display().fmt(f),
            Place::Web(url) => url.fmt(f),
            Place::Ssh(place) => place.fmt(f),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        text.parse()
    }

    #[test]
    fn paths_and_file_urls_are_local() {
        for (text, path) in [
            ("/srv/a.git", "/srv/a.git"),
            ("./a", "./a"),
            ("a/b:c", "a/b:c"),
            ("file:///srv/a%20b.git", "/srv/a b.git"),
            ("file://localhost/srv/a", "/srv/a"),
        ] {
            let location = parse(text).unwrap();
            assert!(location.is_local(), "{text}");
            assert_eq!(location.path(), Some(Path::new(path)), "{text}");
            assert_eq!(location.host(), None);
        }
    }

    #[test]
    fn web_urls_have_a_host_and_a_port() {
        let location = parse("https://Git.Example.com/team/a.git").unwrap();
        assert_eq!((location.host(), location.port()), (Some("git.example.com"), Some(443)));
        assert!(location.is_https() && !location.is_local() && !location.is_loopback());
        for loopback in ["http://127.0.0.2:8080/a", "http://[::1]/a", "http://localhost/a"] {
            assert!(parse(loopback).unwrap().is_loopback(), "{loopback}");
        }
        assert!(!parse("http://localhost.example.com/a").unwrap().is_loopback());
    }

    #[test]
    fn credentials_in_urls_are_refused_and_never_shown() {
        for text in [
            "https://user:hunter2@example.com/a",
            "https://hunter2@example.com/a",
            "ssh://git:hunter2@example.com/a",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, LocationError::EmbeddedCredential { host: "example.com".into() });
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn the_rest_is_refused() {
        assert_eq!(parse(""), Err(LocationError::Empty));
        assert_eq!(parse("git://example.com/a"), Err(LocationError::Scheme { scheme: "git".into() }));
        assert_eq!(parse("file://nas/share"), Err(LocationError::FileHost));
        assert_eq!(parse("https://example.com/a?token=x"), Err(LocationError::Query));
        assert_eq!(parse("https://"), Err(LocationError::Malformed));
        assert_eq!(parse("/a\nb"), Err(LocationError::Malformed));
    }
}
