//! Places that are pods, on a real API server. There is no kubelet: tests write the status that it would.

mod attached;
mod controlled;
mod life;
mod refused;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use ostler::{
    kubernetes::{
        client::{Target, connect},
        secrets::KubeSecrets,
        workloads::{KubeWorkloads, PodSettings, PullPolicy},
    },
    names::Namespace,
    ports::{
        Workloads,
        workloads::{Place, PlaceSpec},
    },
    proxy::tunnel::Endpoint,
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, eventually, shared},
    harness::world::shell,
};

/// A namespace that enforces the Pod Security Standard *restricted*, and the adapter for it.
struct Ground {
    cluster: &'static Cluster,
    client: Client,
    namespace: Namespace,
    workloads: Arc<KubeWorkloads>,
}

/// For pods that nothing runs; whoever has a node says more.
pub(crate) fn settings(scope: &Namespace) -> PodSettings {
    PodSettings {
        image: "registry.test/ostler:1".to_owned(),
        pull_policy: Some(PullPolicy::IfNotPresent),
        pull_secrets: vec!["registry".parse().unwrap()],
        proxy: Endpoint {
            address: "10.0.0.9:8443".parse().unwrap(),
            canary: "10.0.0.9:8444".parse().unwrap(),
            server_name: "proxy".to_owned(),
            recorder_name: "recorder".to_owned(),
            authorities: String::new(),
        },
        api_server: None,
        allow_unenforced: false,
        allow_node_reach: false,
        proof_seconds: 60,
        stall: Duration::from_secs(1),
        scope: Some(scope.clone()),
        network: None,
    }
}

async fn adapter(client: &Client, scope: &Namespace) -> Arc<KubeWorkloads> {
    let secrets = Arc::new(KubeSecrets::new(client.clone()));
    KubeWorkloads::start(client.clone(), settings(scope), secrets).await.unwrap()
}

impl Ground {
    async fn new(prefix: &str) -> Self {
        let cluster = shared().await;
        let client = cluster.client().await;
        let namespace: Namespace = cluster.namespace(prefix).await.parse().unwrap();
        let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let namespaces: Api<NamespaceObject> = Api::all(client.clone());
        let params = PatchParams::default();
        namespaces.patch(namespace.as_str(), &params, &Patch::Merge(enforce)).await.unwrap();
        let workloads = adapter(&client, &namespace).await;
        Self { cluster, client, namespace, workloads }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), self.namespace.as_str())
    }

    /// A run of this namespace.
    fn spec(&self) -> PlaceSpec {
        let mut spec = shell("true");
        spec.run.namespace = self.namespace.clone();
        PlaceSpec { image: Some("registry.test/agent:1".to_owned()), ..spec }
    }

    async fn count(&self) -> usize {
        self.pods().list(&ListParams::default()).await.unwrap().items.len()
    }

    /// Writes what a scheduler and a kubelet would write.
    async fn says(&self, pod: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until the place is seen to be so.
    async fn sees(&self, spec: &PlaceSpec, what: &str, is: impl Fn(&Option<Place>) -> bool) -> Option<Place> {
        eventually(what, async || {
            Some(self.workloads.observe(&spec.run.uid).await.unwrap()).filter(|place| is(place))
        })
        .await
    }
}

/// The status of a pod whose sidecar runs.
fn running() -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({
        "phase": "Running",
        "initContainerStatuses": [
            {"name": "install", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": time}}},
            {"name": "sidecar", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": time}}},
        ],
        "containerStatuses": [
            {"name": "agent", "image": "a", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": time}}},
        ],
    })
}
