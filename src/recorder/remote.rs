//! A repository's location and a Secret make a remote.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Error;
use crate::{
    git::{Credential, Location, Remote},
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        secrets::{SecretData, SecretUse},
    },
};

/// Resolves the credential for exactly this host, and puts the parts together.
pub(super) async fn open(
    secrets: &dyn Secrets,
    namespace: &Namespace,
    location: Location,
    secret: Option<&ObjectName>,
    proxy: Option<&ObjectName>,
    timeout: Duration,
) -> Result<Remote, Error> {
    let host = location.host().map(str::to_owned);
    let mut builder = Remote::builder(location).timeout(timeout);
    if let (Some(name), Some(host)) = (secret, &host) {
        let data = secrets.resolve(namespace, name, SecretUse::Git, Some(host)).await?;
        builder = builder.credential(credential(&data, name)?);
        if let Some(ca) = data.get("ca.crt") {
            builder = builder.ca(ca.expose_secret().clone());
        }
    }
    if let (Some(name), Some(_)) = (proxy, &host) {
        let data = secrets.resolve(namespace, name, SecretUse::Git, None).await?;
        let address = text(&data, "address", name)?;
        let address =
            address.ok_or_else(|| Error::Credential { secret: name.clone(), what: "has no key address" })?;
        builder = builder.proxy(address.expose_secret())?;
    }
    Ok(builder.build()?)
}

fn credential(data: &SecretData, name: &ObjectName) -> Result<Credential, Error> {
    if let Some(token) = text(data, "bearerToken", name)? {
        return Ok(Credential::Bearer(token));
    }
    match (text(data, "username", name)?, text(data, "password", name)?) {
        (Some(username), Some(password)) => {
            Ok(Credential::Basic { username: username.expose_secret().to_owned(), password })
        }
        (None, None) => Ok(Credential::None),
        _ => Err(Error::Credential { secret: name.clone(), what: "needs both username and password" }),
    }
}

fn text(data: &SecretData, key: &str, name: &ObjectName) -> Result<Option<SecretString>, Error> {
    let Some(value) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(value.expose_secret());
    let text = text
        .map_err(|_| Error::Credential { secret: name.clone(), what: "holds a value that is not UTF-8" })?;
    Ok(Some(SecretString::from(text.trim_end_matches(['\r', '\n']))))
}
