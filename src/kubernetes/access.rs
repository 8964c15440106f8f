//! The Access port on an API server: it knows the callers, and its authorizers decide.
//!
//! Needs the verb `create` on `tokenreviews` (group `authentication.k8s.io`) and on `subjectaccessreviews` (group
//! `authorization.k8s.io`), both without a namespace: the `ClusterRole` `system:auth-delegator`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo},
    authorization::v1::{
        ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
    },
};
use kube::{Client, Resource, api::PostParams};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    kinds::GROUP,
    names::{Namespace, Uid},
    ports::{
        Access,
        access::{Audience, Error, Identity, Request, User},
        workloads::RunKey,
    },
};

/// How long one review may take. The API server's own authenticators and webhooks have 10 s at most by default.
const PATIENCE: Duration = Duration::from_secs(15);

/// Callers as the API server knows them: by a `TokenReview` for our audience, then a `SubjectAccessReview` with their
/// groups. Nothing is kept between two calls, so that a revoked token or role counts as soon as the API server says so.
///
/// A token for [`Audience::Result`] is good when it is bound to a pod that is the place of a run; without
/// [`KubeAccess::with_runs`] none is. Of a pod that is about to be one nothing is decided: it has to ask again.
pub struct KubeAccess {
    client: Client,
    runs: Option<RunOfPod>,
}

/// Finds the run whose place a pod is.
pub type RunOfPod = Arc<dyn Fn(&BoundPod) -> PlaceOf + Send + Sync>;

/// The pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundPod {
    /// Its namespace, which is that of its account.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
}

/// Whose place a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceOf {
    /// This run's.
    Run(RunKey),
    /// It will be a run's: nobody has said so yet.
    NotYet,
    /// No run's.
    Nobody,
}

/// What the API server says of a token that is bound to a pod, besides its user (KEP-1205).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What a review was answered. The rest of the answer repeats the question, token included, and is not read.
#[derive(Deserialize)]
struct Answer<S> {
    status: S,
}

impl KubeAccess {
    /// Asks through a client, with its identity.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, runs: None }
    }

    /// Knows the sidecars of runs, too.
    #[must_use]
    pub fn with_runs(self, runs: RunOfPod) -> Self {
        Self { runs: Some(runs), ..self }
    }

    /// The run whose sidecar holds a token.
    async fn run(&self, token: &SecretString) -> Result<Identity, Error> {
        let Some(runs) = &self.runs else { return Err(Error::Unauthenticated) };
        let user = self.token_review(token, Audience::Result).await?;
        match runs(&pod_of(&user).ok_or(Error::Unauthenticated)?) {
            PlaceOf::Run(RunKey { namespace, name, uid }) => Ok(Identity::Run { namespace, name, uid }),
            PlaceOf::NotYet => Err(unavailable("no run says yet that this pod is its place")),
            PlaceOf::Nobody => Err(Error::Unauthenticated),
        }
    }

    /// Asks. Text of the question and of the answer is wiped, and never logged.
    pub(super) async fn review<K, S>(&self, question: &K) -> Result<S, Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
        S: DeserializeOwned,
    {
        let body = serde_json::to_vec(question).map_err(unavailable)?;
        let url = K::url_path(&(), None);
        let request =
            kube::core::Request::new(url).create(&PostParams::default(), body).map_err(unavailable)?;
        let asked = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        let text = Zeroizing::new(asked.map_err(unavailable)?.map_err(unavailable)?);
        let answer: Answer<S> = serde_json::from_str(&text).map_err(unavailable)?;
        Ok(answer.status)
    }

    async fn token_review(&self, token: &SecretString, audience: Audience) -> Result<User, Error> {
        let spec = TokenReviewSpec {
            token: Some(token.expose_secret().to_owned()),
            audiences: Some(vec![audience.as_str().to_owned()]),
        };
        let mut question = TokenReview { spec, ..TokenReview::default() };
        let status = self.review(&question).await;
        question.spec.token.zeroize();
        known(status?, audience).ok_or(Error::Unauthenticated)
    }
}

/// Who the API server says it is. One that does not know audiences names none, and its word is not enough.
fn known(status: TokenReviewStatus, audience: Audience) -> Option<User> {
    let ours = status.audiences.unwrap_or_default().iter().any(|named| named == audience.as_str());
    if !ours || status.authenticated != Some(true) {
        return None;
    }
    let UserInfo { username, uid, groups, extra } = status.user?;
    let name = username.filter(|name| !name.is_empty())?;
    Some(User { name, uid, groups: groups.unwrap_or_default(), extra: extra.unwrap_or_default() })
}

/// The pod that a service account's token is bound to.
fn pod_of(user: &User) -> Option<BoundPod> {
    let (namespace, _) = user.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let one = |key: &str| match user.extra.get(key)?.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    Some(BoundPod {
        namespace: namespace.parse().ok()?,
        name: one(POD_NAME)?.clone(),
        uid: one(POD_UID)?.parse().ok()?,
    })
}

fn question(user: &User, request: &Request<'_>) -> SubjectAccessReview {
    let (resource, subresource) = match request.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (request.resource, None),
    };
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        verb: Some(request.verb.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        namespace: request.namespace.map(ToString::to_string),
        name: request.name.map(ToString::to_string),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: user.uid.clone(),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable(source.into())
}

#[async_trait]
impl Access for KubeAccess {
    async fn authenticate(&self, token: &SecretString, audience: Audience) -> Result<Identity, Error> {
        // the API server refuses to review an empty one
        if token.expose_secret().is_empty() {
            return Err(Error::Unauthenticated);
        }
        match audience {
            Audience::Ostler => self.token_review(token, audience).await.map(Identity::User),
            Audience::Result => self.run(token).await,
        }
    }

    async fn authorize(&self, who: &Identity, request: &Request<'_>) -> Result<bool, Error> {
        match who {
            Identity::User(user) => {
                let status: SubjectAccessReviewStatus = self.review(&question(user, request)).await?;
                Ok(status.allowed && status.denied != Some(true))
            }
            Identity::Run { namespace, name, .. } => Ok(request.delivers_result_of(namespace, name)),
        }
    }
}

#[cfg(test)]
mod tests;
