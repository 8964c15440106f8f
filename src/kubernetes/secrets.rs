//! The Secrets port on an API server.
//!
//! Needs the verb `get` on the Secrets that are referenced, and `watch` on them to hear of changes at once: as
//! `resourceNames` of a Role, or on all Secrets of a namespace. `list` is never used, and a Secret that nobody references
//! is never read.

mod read;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, Resource, api::GetParams};
use zeroize::Zeroizing;

use crate::{
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        secrets::{Error, SecretData, SecretUse, check_use},
    },
};
use watch::Watches;

/// How long one read may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Secrets of the cluster, each read anew whenever it is resolved.
///
/// The 256 names asked for last are watched by their metadata: no value comes with a change, and a name never asked for
/// is not watched. Where `watch` is not allowed, or the API server is out of reach, each is compared within a minute
/// instead. What this process holds of a value is wiped, but not what the buffers of the connection held.
pub struct KubeSecrets {
    client: Client,
    watches: Watches,
}

impl KubeSecrets {
    /// Reads through a client, with its identity.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { watches: Watches::new(client.clone()), client }
    }

    /// The text of a Secret; `None` when there is none.
    async fn text(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        let unavailable = |error: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable(error);
        let url = Secret::url_path(&(), Some(namespace.as_str()));
        let request = kube::core::Request::new(url).get(name.as_str(), &GetParams::default());
        let request = request.map_err(|error| unavailable(error.into()))?;
        // not Api::get, which logs a text that it cannot parse
        let asked = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        match asked.map_err(|error| unavailable(error.into()))? {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                Err(Error::Forbidden { namespace: namespace.clone(), name: name.clone(), source: status })
            }
            // that error would hold the bytes
            Err(kube::Error::FromUtf8(_)) => Err(unavailable("the answer is not UTF-8".into())),
            Err(error) => Err(unavailable(error.into())),
        }
    }
}

#[async_trait]
impl Secrets for KubeSecrets {
    async fn resolve(
        &self,
        namespace: &Namespace,
        name: &ObjectName,
        purpose: SecretUse,
        host: Option<&str>,
    ) -> Result<SecretData, Error> {
        let id = (namespace.clone(), name.clone());
        let Some(text) = self.text(namespace, name).await? else {
            self.watches.follow(id, None);
            return Err(Error::NotFound { namespace: namespace.clone(), name: name.clone() });
        };
        let unusable = |why| Error::Unusable { namespace: namespace.clone(), name: name.clone(), why };
        let head = read::head(&text).map_err(unusable)?;
        self.watches.follow(id, head.metadata.resource_version);
        check_use(&head.metadata.annotations, purpose, host).map_err(|why| Error::NotAllowed {
            namespace: namespace.clone(),
            name: name.clone(),
            why,
        })?;
        read::data(&text).map_err(unusable)
    }

    fn changes(&self) -> BoxStream<'static, (Namespace, ObjectName)> {
        self.watches.changes()
    }
}

#[cfg(test)]
mod tests;
