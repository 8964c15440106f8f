//! A Secret and a location make a [`Remote`]: the same keys for every repository.
//!
//! Over http: `bearerToken`, or `password` with `username` (default `git`); `ca.crt`. Over ssh: `identity`, `passphrase`
//! if that is encrypted, and `known_hosts`. Of a proxy, `address`.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{Credential, Error, Location, Remote, SshIdentity};
use crate::{
    class::Class,
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        secrets::{self, SecretUse},
    },
};

/// A key of a Secret is missing or cannot be used. The text names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Secret {0}")]
pub struct Unusable(String);

/// Why a remote cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The Secret is not given out.
    #[error("failed to get the credential")]
    Secret(#[from] secrets::Error),
    /// The Secret's keys do not make a credential.
    #[error("failed to read the credential")]
    Unusable(#[from] Unusable),
    /// The parts do not fit together.
    #[error("failed to use the credential")]
    Git(#[from] Error),
}

impl RemoteError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Secret(error) => error.class(),
            Self::Unusable(_) => Class::Invalid,
            Self::Git(error) => error.class(),
        }
    }
}

/// The credential in a Secret for a location, by a look at its keys.
///
/// # Errors
/// When neither a token nor a password nor a CA is there (for ssh: an identity and known hosts), or one is not sound.
pub fn credential<'a>(
    location: &Location,
    key: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Credential, Unusable> {
    let text = |name: &str| -> Result<Option<SecretString>, Unusable> {
        let Some(bytes) = key(name) else { return Ok(None) };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Unusable(format!("has a key {name} that is not UTF-8")))?;
        Ok(Some(SecretString::from(text.trim_end_matches(['\r', '\n']))))
    };
    if location.is_ssh() {
        let needed =
            |name| text(name)?.ok_or_else(|| Unusable(format!("has no key {name}, which ssh needs")));
        let (identity, known_hosts, passphrase) =
            (needed("identity")?, needed("known_hosts")?, text("passphrase")?);
        return SshIdentity::new(&identity, passphrase.as_ref(), known_hosts.expose_secret())
            .map(Credential::Ssh)
            .map_err(|error| Unusable(format!("cannot be used for ssh: {error}")));
    }
    match (text("bearerToken")?, text("username")?, text("password")?) {
        (Some(token), ..) => Ok(Credential::Bearer(token)),
        (None, username, Some(password)) => {
            let username = username.map_or_else(|| "git".to_owned(), |name| name.expose_secret().to_owned());
            Ok(Credential::Basic { username, password })
        }
        (None, Some(_), None) => Err(Unusable("has a username and no password".to_owned())),
        (None, None, None) if key("ca.crt").is_some() => Ok(Credential::None),
        (None, None, None) => Err(Unusable("has neither bearerToken nor password nor ca.crt".to_owned())),
    }
}

/// Resolves the Secrets for exactly this host, and puts the parts together. A local repository needs none.
///
/// # Errors
/// When a Secret is not given out or cannot be used.
pub async fn remote(
    secrets: &dyn Secrets,
    namespace: &Namespace,
    location: Location,
    secret: Option<&ObjectName>,
    proxy: Option<&ObjectName>,
    timeout: Duration,
) -> Result<Remote, RemoteError> {
    let authority = location.authority();
    let mut builder = Remote::builder(location.clone()).timeout(timeout);
    let Some(authority) = authority else { return Ok(builder.build()?) };
    if let Some(name) = secret {
        let data = secrets.resolve(namespace, name, SecretUse::Git, Some(&authority)).await?;
        builder = builder.credential(credential(&location, |key| {
            data.get(key).map(|value| value.expose_secret().as_slice())
        })?);
        if let Some(ca) = data.get("ca.crt") {
            builder = builder.ca(ca.expose_secret().clone());
        }
    }
    if let Some(name) = proxy {
        let data = secrets.resolve(namespace, name, SecretUse::Git, Some(&authority)).await?;
        let address = data.get("address").and_then(|value| std::str::from_utf8(value.expose_secret()).ok());
        let address = address.ok_or_else(|| Unusable("has no key address".to_owned()))?;
        builder = builder.proxy(address.trim())?;
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_credential() {
        let of = |keys: &'static [(&'static str, &'static str)]| {
            credential(&"https://example.com/a".parse().unwrap(), move |key| {
                keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes())
            })
        };
        assert!(
            matches!(of(&[("bearerToken", "t\n")]), Ok(Credential::Bearer(t)) if t.expose_secret() == "t")
        );
        assert!(
            matches!(of(&[("password", "p")]), Ok(Credential::Basic { username, .. }) if username == "git")
        );
        assert!(matches!(of(&[("ca.crt", "c")]), Ok(Credential::None)));
        assert!(of(&[("username", "u")]).is_err());
        assert!(of(&[]).is_err());
    }
}
