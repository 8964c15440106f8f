//! A repository's spec and Secrets make a remote.

use kube::ResourceExt;

use super::{Context, Error};
use crate::{
    git::{self, Location, Remote},
    kinds::{ConfigRepository, shared::NameRef},
    names::{Namespace, ObjectName},
};

/// The time of one operation when `spec.timeout` says nothing.
const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(1);

/// Resolves the credential for exactly this host, and puts the parts together.
pub(super) async fn remote(repository: &ConfigRepository, context: &Context) -> Result<Remote, Error> {
    let spec = &repository.spec;
    let location: Result<Location, _> = spec.url.parse();
    let location = location
        .map_err(|error| Error::Git { what: "read spec.url", source: git::Error::Location(error) })?;
    let namespace: Namespace = parsed(&repository.namespace().unwrap_or_default())?;
    let name = |reference: &Option<NameRef>| -> Result<Option<ObjectName>, Error> {
        reference.as_ref().map(|reference| parsed(&reference.name)).transpose()
    };
    let (secret, proxy) = (name(&spec.secret_ref)?, name(&spec.proxy_secret_ref)?);
    let timeout = spec.timeout.map_or(DEFAULT_TIMEOUT, Into::into);
    let secrets = context.secrets.as_ref();
    Ok(git::secret::remote(secrets, &namespace, location, secret.as_ref(), proxy.as_ref(), timeout).await?)
}

fn parsed<T: std::str::FromStr<Err = crate::names::InvalidName>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: crate::names::InvalidName| Error::Spec(error.to_string()))
}
