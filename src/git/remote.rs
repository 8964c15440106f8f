//! A repository, and all that is needed to talk to it.

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::Error;
use super::location::{Location, LocationError};
use super::ssh::SshIdentity;

/// What proves to the server who we are. `Debug` shows no secret.
#[derive(Debug, Clone, Default)]
pub enum Credential {
    /// Anonymous.
    #[default]
    None,
    /// RFC 7617.
    Basic {
        /// The user, without a colon.
        username: String,
        /// The password or access token.
        password: SecretString,
    },
    /// RFC 6750.
    Bearer(SecretString),
    /// A key, and the servers that it is shown to.
    Ssh(SshIdentity),
}

/// A repository and how to reach it. Made by [`Remote::builder`], which checks that the parts fit together.
#[derive(Debug, Clone)]
pub struct Remote {
    location: Location,
    credential: Credential,
    ca: Option<Vec<u8>>,
    proxy: Option<Url>,
    timeout: Duration,
    stays: bool,
}

/// Collects the parts of a [`Remote`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RemoteBuilder(Remote);

impl Remote {
    /// Starts with redirects followed, no credential, the system's certificate authorities, no proxy (also none from the environment)
    /// and 60 s for a whole operation.
    pub fn builder(location: Location) -> RemoteBuilder {
        RemoteBuilder(Self {
            location,
            credential: Credential::None,
            ca: None,
            proxy: None,
            timeout: Duration::from_mins(1),
            stays: false,
        })
    }

    /// Where the repository is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// How long one whole operation (a fetch, a list, a push) may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same, for a location that somebody has allowed: a redirect to another repository is [`Error::Moved`].
    #[must_use]
    pub fn staying(self) -> Self {
        Self { stays: true, ..self }
    }

    pub(super) fn stays(&self) -> bool {
        self.stays
    }

    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(super) fn ca(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    pub(super) fn proxy(&self) -> Option<&Url> {
        self.proxy.as_ref()
    }
}

impl RemoteBuilder {
    /// Used for this location only; redirects do not carry it.
    pub fn credential(mut self, credential: Credential) -> Self {
        self.0.credential = credential;
        self
    }

    /// PEM certificates of the only authorities to trust for this location.
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.0.ca = Some(pem.into());
        self
    }

    /// An HTTP proxy to go through, `http://host:port`; not used for loopback.
    ///
    /// # Errors
    /// When it is no http or https URL, or holds a credential.
    pub fn proxy(mut self, proxy: &str) -> Result<Self, Error> {
        let proxy: Location = proxy.parse()?;
        let url = proxy.web().ok_or(LocationError::Malformed)?;
        self.0.proxy = Some(url.clone());
        Ok(self)
    }

    /// The time of one whole operation.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// # Errors
    /// [`Error::InsecureCredential`] for a credential over plain http to another machine; [`Error::Settings`] for a
    /// credential of another protocol, and for a proxy before ssh.
    pub fn build(self) -> Result<Remote, Error> {
        let Remote { location, credential, proxy, .. } = &self.0;
        let settings = |what| Error::Settings { what, location: location.clone(), source: None };
        match credential {
            Credential::Basic { .. } | Credential::Bearer(_) if location.is_ssh() => {
                return Err(settings("password or token"));
            }
            Credential::Ssh(_) if location.web().is_some() => return Err(settings("ssh identity")),
            _ if location.is_ssh() && proxy.is_some() => return Err(settings("HTTP proxy")),
            _ => {}
        }
        let clear_text = location.web().is_some() && !location.is_https() && !location.is_loopback();
        match (credential, location.host()) {
            (Credential::Basic { .. } | Credential::Bearer(_), Some(host)) if clear_text => {
                Err(Error::InsecureCredential { host: host.to_owned() })
            }
            _ => Ok(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(text: &str) -> Result<Remote, Error> {
        Remote::builder(text.parse().unwrap()).credential(Credential::Bearer("hunter2".into())).build()
    }

    #[test]
    fn credentials_go_over_http_to_loopback_only() {
        assert!(with_token("https://example.com/a").is_ok());
        assert!(with_token("http://127.0.0.1:1/a").is_ok());
        let error = with_token("http://example.com/a").unwrap_err();
        assert!(matches!(&error, Error::InsecureCredential { host } if host == "example.com"));
        assert!(Remote::builder("http://example.com/a".parse().unwrap()).build().is_ok());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", with_token("https://example.com/a").unwrap());
        assert!(shown.contains("example.com") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_proxy_is_a_web_url_without_a_credential() {
        let builder = || Remote::builder("https://example.com/a".parse().unwrap());
        assert!(builder().proxy("http://proxy.example.com:3128").is_ok());
        assert!(builder().proxy("http://user:pw@proxy.example.com").is_err());
        assert!(builder().proxy("/tmp/socket").is_err());
    }
}
