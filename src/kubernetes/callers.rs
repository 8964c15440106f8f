//! Who calls the egress proxy: the pod that a token is bound to, by a `TokenReview`, and the pods of runs, by one watch.
//!
//! Needs `create` on `tokenreviews` (group `authentication.k8s.io`) and `list` and `watch` on `pods`, both without a namespace. The annotations of a pod
//! say what its run may reach, and clone with which Secret: who may write pods with the label of an agent decides that.

mod pods;
mod tokens;

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use kube::Client;
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::{
    pods::{Judged, Pods},
    tokens::Tokens,
};
use crate::{
    egress::OwnService,
    proxy::gateway::{Caller, Callers, Refusal},
};

/// The label of an agent's pod, and its value.
pub const ROLE: (&str, &str) = ("ostler.dev/role", "agent");
/// The annotation with the policies that count now, a JSON list of [`crate::ports::workloads::NamedPolicy`]; without it, those of the place count.
pub const EGRESS: &str = "ostler.dev/egress";
/// The annotation with the place: that of [`crate::harness::pod`], of which a part is read.
const PLACE: &str = "ostler.dev/place";

/// How long a caller may be ahead of our watch: a pod runs before the API server has its address.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pods of the runs of a cluster. Dropped, it no longer watches.
pub struct KubeCallers {
    tokens: Tokens,
    pods: Arc<Pods>,
    _watch: AbortOnDropHandle<()>,
}

impl KubeCallers {
    /// Begins to watch. No policy opens one of `own_services`.
    #[must_use]
    pub fn new(client: Client, own_services: Vec<OwnService>) -> Self {
        let pods = Arc::new(Pods::new(own_services));
        let watch = tokio::spawn(pods::watch(client.clone(), Arc::clone(&pods)));
        Self { tokens: Tokens::new(client), pods, _watch: AbortOnDropHandle::new(watch) }
    }

    /// Whether the pods are known: all of them were listed once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pods.is_ready()
    }
}

#[async_trait]
impl Callers for KubeCallers {
    async fn identify(
        &self,
        token: &SecretString,
        audience: &'static str,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let until = Instant::now() + PATIENCE;
        // Who has no address of a pod has the API server asked nothing.
        self.pods.settled(until, |pods| pods.has(from)).await?;
        let claim = self.tokens.claim(token, audience).await?;
        self.pods.settled(until, |pods| pods.judge(&claim, from)).await
    }
}

impl Pods {
    /// What is true now, or becomes true in time: what is not known yet may be in a moment.
    async fn settled<T>(&self, until: Instant, look: impl Fn(&Self) -> Judged<T>) -> Result<T, Refusal> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            match look(self) {
                Judged::Known(found) => return Ok(found),
                Judged::Never(message) => return Err(Refusal::Stranger(message)),
                Judged::NotYet(message) => {
                    if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                        return Err(Refusal::NotYet(message));
                    }
                }
            }
        }
    }
}
