//! A real node for tests: scheduler, kubelet and containerd beside the API server, in namespaces of their own, where
//! pods run. Its tests need root and Debian packages, so they are ignored but in `make test-node`; each says
//! `#[ignore = "needs root and a node: make test-node"]` and runs alone.
//!
//! What tests use:
//! * [`shared`]: the node, which starts with the first test (seconds) and ends with the process, however that ends;
//! * [`Node::cluster`]: its API server, as the tests without a node know it; pods reach it as the service `kubernetes`;
//! * [`Node::probe_image`], [`Node::busybox_image`], [`Node::debian_image`]: names of images to run, with nothing but
//!   one static program, with a shell, and with a whole Debian and git; [`Node::ostler_image`]: the program under test;
//!   [`Node::import_image`]: any other. No registry is known to the node;
//! * [`Node::namespace_restricted`], [`Node::run`], [`Node::exec`]: pods under `PodSecurity` *restricted*;
//! * [`Node::world`], [`Node::elsewhere`]: addresses of the machine where a test binds servers that pods reach. The
//!   tests reach pods at their own addresses, and servers see those of the pods: there is no translation between;
//! * [`Node::enforcer`]: who enforces network policies, and how badly. A test that depends on it says so first.

#![allow(clippy::unwrap_used, dead_code, unused_imports, reason = "for all tests, not each needs all")]

// of these tests/cluster/with-node.rs needs those that are no tests
#[cfg(test)]
mod agents;
#[cfg(test)]
mod anywhere;
#[cfg(test)]
mod breakouts;
#[cfg(test)]
mod endings;
mod enforcer;
#[cfg(test)]
mod enforcer_table;
#[cfg(test)]
mod features;
mod fixture;
mod images;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod names;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod smoke;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod start;
#[cfg(test)]
mod writes;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{LazyLock, atomic::AtomicU32},
    time::Instant,
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

#[cfg(test)]
pub(crate) use self::enforcer_table::{PORTS, TABLE, policies};
pub(crate) use self::{enforcer::Enforcer, images::Layer};
use crate::cluster::{Cluster, Container, Output, PATIENCE, PAUSE};

/// A node and what tests need around it. Dropped, it ends, and so do its pods.
#[derive(Debug)]
pub(crate) struct Node {
    cluster: Cluster,
    /// The folder of kubelet and the other programs.
    programs: PathBuf,
    /// Its addresses and names come from it.
    number: u8,
    images: images::Imported,
    /// How often who enforces policies was changed.
    enforcers: AtomicU32,
}

/// The node of all tests that do not break it.
///
/// # Panics
/// When it does not start; then every later call does so, too, at once.
pub(crate) async fn shared() -> &'static Node {
    static SHARED: LazyLock<Node> = LazyLock::new(|| {
        // Not the runtime of the test that happens to come first: it may end before the node is up.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Node::start_own())
    });
    tokio::task::spawn_blocking(|| &*SHARED)
        .await
        .expect("the test node did not start; its own panic says why")
}

impl Node {
    /// Its API server.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its name as a Kubernetes object.
    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its own address, which is the API server's.
    pub(crate) fn address(&self) -> IpAddr {
        self.link(2)
    }

    /// An address of this machine that pods reach, and where a test binds servers.
    pub(crate) fn world(&self) -> IpAddr {
        self.link(1)
    }

    /// Another one, to tell what is allowed from what is not.
    pub(crate) fn elsewhere(&self) -> IpAddr {
        self.link(3)
    }

    /// The range of its pods' addresses.
    pub(crate) fn pods(&self) -> String {
        format!("10.215.{}.0/24", self.number)
    }

    fn link(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 214, self.number, host))
    }

    /// A new namespace that refuses pods which are not *restricted*.
    pub(crate) async fn namespace_restricted(&self, prefix: &str) -> String {
        let name = self.cluster.namespace(prefix).await;
        let api: Api<Namespace> = Api::all(self.cluster.client().await);
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        name
    }

    /// Pods of a namespace.
    pub(crate) async fn pods_of(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client().await, namespace)
    }

    /// Creates a pod and waits until it is ready.
    pub(crate) async fn run(&self, namespace: &str, pod: &Pod) -> Pod {
        let created = self.create(namespace, pod).await;
        self.pod_until(namespace, &created.name_any(), "is ready", is_ready).await
    }

    /// Creates a pod.
    pub(crate) async fn create(&self, namespace: &str, pod: &Pod) -> Pod {
        self.pods_of(namespace).await.create(&PostParams::default(), pod).await.unwrap()
    }

    /// Waits until a pod is as told, and gives it.
    pub(crate) async fn pod_until(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        reached: impl Fn(&Pod) -> bool,
    ) -> Pod {
        let api = self.pods_of(namespace).await;
        let begun = Instant::now();
        loop {
            let pod = api.get(name).await.unwrap();
            if reached(&pod) {
                return pod;
            }
            let status = || serde_json::to_string_pretty(&pod.status).unwrap();
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: pod {name} {what}\n{}", status());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Runs a command in a container, gives it this input and waits for its end.
    pub(crate) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
        input: &[u8],
    ) -> Output {
        let client = self.cluster.client().await;
        let whose = Container { namespace, pod, name: container };
        crate::cluster::exec(client, whose, command, input).await
    }
}

/// A pod that passes *restricted*, with one container `main`. The rest is up to the caller.
pub(crate) fn restricted_pod(name: &str, image: &str, command: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [restricted_container("main", image, command)],
        },
    }))
    .unwrap()
}

/// A container of such a pod, as JSON.
pub(crate) fn restricted_container(name: &str, image: &str, command: &[&str]) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    })
}

/// Whether all containers of a pod that should run do so.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The address of a pod that has one.
pub(crate) fn address_of(pod: &Pod) -> IpAddr {
    pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap().parse().unwrap()
}
