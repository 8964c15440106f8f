//! The pod that a token is bound to.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroize;

use crate::{kubernetes::access::KubeAccess, proxy::gateway::Refusal};

/// How long an answer counts. A pod that is gone is refused by the watch, whatever its token.
const FRESH: Duration = Duration::from_secs(30);
/// Answers that are kept.
const KEPT: usize = 4096;
/// Reviews at one time.
const AT_ONCE: usize = 16;

/// Where a bound token's review says what it is bound to (KEP-1205).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What a token says: which pod shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Asks the API server, and keeps its answers for a moment. A token is known by its digest.
pub(super) struct Tokens {
    access: KubeAccess,
    at_once: Semaphore,
    known: Mutex<HashMap<[u8; 32], (Instant, Claim)>>,
}

impl Tokens {
    pub(super) fn new(client: Client) -> Self {
        let access = KubeAccess::new(client);
        Self { access, at_once: Semaphore::new(AT_ONCE), known: Mutex::default() }
    }

    /// The pod that a token was made for, with this audience.
    pub(super) async fn claim(&self, token: &SecretString, audience: &str) -> Result<Claim, Refusal> {
        if token.expose_secret().is_empty() {
            return Err(Refusal::Stranger("There is no token.".to_owned()));
        }
        let digest = Sha256::new().chain_update(audience).chain_update([0]);
        let digest: [u8; 32] = digest.chain_update(token.expose_secret()).finalize().into();
        if let Some(claim) = self.kept(&digest) {
            return Ok(claim);
        }
        let Ok(_turn) = self.at_once.acquire().await else { return Err(unavailable()) };
        let spec = TokenReviewSpec {
            token: Some(token.expose_secret().to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        };
        let mut question = TokenReview { spec, ..TokenReview::default() };
        let reviewed: Result<TokenReviewStatus, _> = self.access.review(&question).await;
        question.spec.token.zeroize();
        let status = reviewed.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(target: "ostler::egress", error, "a token cannot be reviewed");
            unavailable()
        })?;
        let claim = claimed(status, audience)?;
        self.keep(digest, claim.clone());
        Ok(claim)
    }

    fn kept(&self, digest: &[u8; 32]) -> Option<Claim> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, claim)| claim.clone())
    }

    fn keep(&self, digest: [u8; 32], claim: Claim) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(digest, (Instant::now(), claim));
        }
    }
}

fn unavailable() -> Refusal {
    Refusal::NotYet("The API server cannot be asked who calls.".to_owned())
}

/// The pod in a review's answer.
fn claimed(status: TokenReviewStatus, audience: &str) -> Result<Claim, Refusal> {
    let ours = status.audiences.unwrap_or_default().iter().any(|named| named == audience);
    if !ours || status.authenticated != Some(true) {
        return Err(Refusal::Stranger(format!("The token is none of audience {audience} that counts.")));
    }
    let user = status.user.unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    let account = user.username.unwrap_or_default();
    let namespace = account.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split(':').next());
    match (namespace, one(POD_NAME), one(POD_UID)) {
        (Some(namespace), Some(name), Some(uid)) => Ok(Claim { namespace: namespace.to_owned(), name, uid }),
        _ => Err(Refusal::Stranger("The token is not bound to a pod.".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: serde_json::Value) -> TokenReviewStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_bound_token_of_the_audience_names_a_pod() {
        let extra = json!({(POD_NAME): ["p"], (POD_UID): ["u"]});
        let user = json!({"username": "system:serviceaccount:team:default", "extra": extra});
        let good = json!({"authenticated": true, "audiences": ["a"], "user": user});
        let claim = Claim { namespace: "team".into(), name: "p".into(), uid: "u".into() };
        assert_eq!(claimed(status(good.clone()), "a"), Ok(claim));
        assert!(claimed(status(good.clone()), "b").unwrap_err().to_string().contains("audience b"));
        for (field, value) in [
            ("authenticated", json!(false)),
            ("audiences", json!(null)),
            ("user", json!({"username": "system:serviceaccount:team:default"})),
            ("user", json!({"username": "alice", "extra": extra})),
        ] {
            let mut other = good.clone();
            other[field] = value;
            assert!(claimed(status(other.clone()), "a").is_err(), "{other}");
        }
    }
}
