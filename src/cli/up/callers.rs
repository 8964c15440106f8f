//! Who may read the API of an `up` whose objects are in a cluster: this machine's own token, and the cluster's callers.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::{
    embedded::access::EmbeddedAccess,
    kubernetes::access::KubeAccess,
    ports::{
        Access,
        access::{Audience, Error, Identity, Request},
    },
};

/// The tokens of this machine, then those of the cluster.
///
/// A caller of the cluster is told by its groups: an API server puts everybody whom it knows into
/// `system:authenticated`, and tokens of this machine have none.
pub(super) struct Callers {
    pub(super) local: Arc<EmbeddedAccess>,
    pub(super) cluster: KubeAccess,
}

#[async_trait]
impl Access for Callers {
    async fn authenticate(&self, token: &SecretString, audience: Audience) -> Result<Identity, Error> {
        match self.local.authenticate(token, audience).await {
            Err(Error::Unauthenticated) => {}
            answered => return answered,
        }
        match self.cluster.authenticate(token, audience).await? {
            Identity::User(user) if user.groups.is_empty() => Err(Error::Unauthenticated),
            known => Ok(known),
        }
    }

    async fn authorize(&self, who: &Identity, request: &Request<'_>) -> Result<bool, Error> {
        match who {
            Identity::User(user) if !user.groups.is_empty() => self.cluster.authorize(who, request).await,
            _ => self.local.authorize(who, request).await,
        }
    }
}
