//! What a remote's settings mean for an HTTP client.

use base64::Engine as _;
use reqwest::header::HeaderValue;
use reqwest::{Client, redirect};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::git::Error;
use crate::git::remote::{Credential, Remote};

/// A client that trusts, and goes through, what the remote says; nothing of the environment.
pub(in crate::git) fn client(remote: &Remote) -> Result<Client, Error> {
    let settings = |what| {
        let location = remote.location().clone();
        move |source: reqwest::Error| Error::Settings { what, location, source: Some(Box::new(source)) }
    };
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(std::time::Duration::from_secs(20))
        .http1_only();
    if let Some(proxy) = remote.proxy().filter(|_| !remote.location().is_loopback()) {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(settings("proxy"))?);
    }
    if let Some(pem) = remote.ca() {
        let authorities =
            reqwest::Certificate::from_pem_bundle(pem).map_err(settings("certificate authority"))?;
        if authorities.is_empty() {
            let location = remote.location().clone();
            return Err(Error::Settings { what: "certificate authority", location, source: None });
        }
        builder = builder.tls_certs_only(authorities);
    } else if !remote.location().is_https() {
        // Plain HTTP trusts nobody, and must work where there are no authorities, as in a pod's sidecar.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(settings("TLS settings"))
}

/// What goes into the Authorization header, marked as sensitive.
pub(in crate::git) fn authorization(remote: &Remote) -> Result<Option<HeaderValue>, Error> {
    let value = match remote.credential() {
        Credential::None | Credential::Ssh(_) => return Ok(None),
        Credential::Basic { username, password } => {
            let pair = Zeroizing::new(format!("{username}:{}", password.expose_secret()));
            let pair = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
            Zeroizing::new(format!("Basic {}", pair.as_str()))
        }
        Credential::Bearer(token) => Zeroizing::new(format!("Bearer {}", token.expose_secret())),
    };
    let location = remote.location().clone();
    let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Settings {
        what: "credential",
        location,
        source: None,
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}
