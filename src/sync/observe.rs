//! A repository's spec and Secrets make a remote.

use kube::ResourceExt;
use secrecy::{ExposeSecret, SecretString};

use super::{Context, Error};
use crate::{
    git::{Credential, Location, Remote},
    kinds::{ConfigRepository, shared::NameRef},
    names::{Namespace, ObjectName},
    ports::secrets::{SecretData, SecretUse},
};

/// The time of one operation when `spec.timeout` says nothing.
const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Resolves the credential for exactly this host, and puts the parts together.
pub(super) async fn remote(repository: &ConfigRepository, context: &Context) -> Result<Remote, Error> {
    let spec = &repository.spec;
    let git = |source| Error::Git { what: "read spec.url", source };
    let location: Location = spec.url.parse().map_err(|error| git(crate::git::Error::Location(error)))?;
    let namespace: Namespace = parsed(&repository.namespace().unwrap_or_default())?;
    let host = location.host().map(str::to_owned);
    let timeout = spec.timeout.map_or(DEFAULT_TIMEOUT, Into::into);
    let mut builder = Remote::builder(location).timeout(timeout);
    if let (Some(reference), Some(host)) = (&spec.secret_ref, &host) {
        let data = resolve(context, &namespace, reference, host).await?;
        builder = builder.credential(credential(&data)?);
        if let Some(ca) = data.get("ca.crt") {
            builder = builder.ca(ca.expose_secret().clone());
        }
    }
    if let Some(reference) = &spec.proxy_secret_ref {
        let name: ObjectName = parsed(&reference.name)?;
        let data = context.secrets.resolve(&namespace, &name, SecretUse::Git, None).await?;
        let address = text(&data, "address")?
            .ok_or_else(|| Error::Spec(format!("Secret {name} has no key address")))?;
        builder = builder
            .proxy(address.expose_secret())
            .map_err(|source| Error::Git { what: "use the proxy", source })?;
    }
    builder.build().map_err(git)
}

async fn resolve(
    context: &Context,
    namespace: &Namespace,
    reference: &NameRef,
    host: &str,
) -> Result<SecretData, Error> {
    let name: ObjectName = parsed(&reference.name)?;
    Ok(context.secrets.resolve(namespace, &name, SecretUse::Git, Some(host)).await?)
}

fn credential(data: &SecretData) -> Result<Credential, Error> {
    if let Some(token) = text(data, "bearerToken")? {
        return Ok(Credential::Bearer(token));
    }
    match (text(data, "username")?, text(data, "password")?) {
        (Some(username), Some(password)) => {
            Ok(Credential::Basic { username: username.expose_secret().to_owned(), password })
        }
        (None, None) => Ok(Credential::None),
        _ => Err(Error::Spec("the Secret needs both username and password".to_owned())),
    }
}

fn text(data: &SecretData, key: &str) -> Result<Option<SecretString>, Error> {
    let Some(value) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(value.expose_secret());
    let text = text.map_err(|_| Error::Spec(format!("key {key} of the Secret is not UTF-8")))?;
    Ok(Some(SecretString::from(text.trim_end_matches(['\r', '\n']))))
}

fn parsed<T: std::str::FromStr<Err = crate::names::InvalidName>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: crate::names::InvalidName| Error::Spec(error.to_string()))
}
