//! Where the objects of a world are: in its state folder or, when `OSTLER_TEST_ENGINE` is `kubernetes`, on an API server.
//!
//! The scenarios are the same on both, so the whole suite is run once more for the second.

use std::{
    ffi::OsString,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use ostler::{
    embedded::objects::EmbeddedStore,
    kinds::{Kind, Typed},
    kubernetes::objects::KubeObjects,
    names::Namespace,
    ports::objects as port,
};
use serde_json::json;

use crate::{
    cluster::{self, Cluster},
    report::Scenario,
};

/// All worlds live in namespace `default`, so there is one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The engine of one world, and the note that its scenario leaves.
pub(super) enum Engine {
    Embedded { _scenario: Scenario },
    Cluster { cluster: &'static Cluster, _scenario: Scenario, _alone: MutexGuard<'static, ()> },
}

impl Engine {
    /// The engine that the environment names, with nothing in it.
    pub(super) fn new(runtime: &tokio::runtime::Runtime) -> Self {
        match std::env::var("OSTLER_TEST_ENGINE").as_deref() {
            Err(_) | Ok("embedded") => {
                let version = concat!("ostler ", env!("CARGO_PKG_VERSION")).to_owned();
                Self::Embedded { _scenario: Scenario::begin("embedded", version) }
            }
            Ok("kubernetes") => {
                let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
                let (cluster, version) = runtime.block_on(async {
                    let cluster = cluster::shared().await;
                    cluster.install_crds().await;
                    empty(cluster.client().await).await;
                    (cluster, cluster.server_version().await.git_version)
                });
                Self::Cluster { cluster, _scenario: Scenario::begin("kubernetes", version), _alone: alone }
            }
            Ok(other) => panic!("OSTLER_TEST_ENGINE is {other:?}; it is `embedded` or `kubernetes`"),
        }
    }

    /// What `ostler up` must be told.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Embedded { .. } => Vec::new(),
            Self::Cluster { cluster, .. } => {
                let kubeconfig = cluster.kubeconfig().as_os_str().to_owned();
                vec!["--kubeconfig".into(), kubeconfig, "--places".into(), "machine".into()]
            }
        }
    }

    /// What `ostler logs` must be told to read what an `up` recorded, which may have ended. Nobody puts the Secrets of a
    /// folder into a cluster.
    pub(super) fn of_logs(&self, state: &Path, secrets: &Path) -> Vec<OsString> {
        match self {
            Self::Embedded { .. } => vec!["--state".into(), state.into()],
            Self::Cluster { cluster, .. } => {
                let kubeconfig = cluster.kubeconfig().as_os_str().to_owned();
                vec!["--kubeconfig".into(), kubeconfig, "--secrets".into(), secrets.into()]
            }
        }
    }

    /// Reads an object of namespace `default` where no `up` runs.
    pub(super) async fn stored<K: Typed>(&self, state: &Path, name: &str) -> Option<K> {
        let namespace: Namespace = "default".parse().unwrap();
        let name = name.parse().unwrap();
        match self {
            Self::Embedded { .. } => {
                let store = EmbeddedStore::open_read_only(&state.join("objects")).unwrap();
                port::get(&store, &namespace, &name).await.unwrap()
            }
            Self::Cluster { cluster, .. } => {
                let store = KubeObjects::new(cluster.client().await);
                port::get(&store, &namespace, &name).await.unwrap()
            }
        }
    }

    /// Throws all objects away.
    pub(super) async fn forget(&self) {
        if let Self::Cluster { cluster, .. } = self {
            empty(cluster.client().await).await;
        }
    }
}

/// Deletes what an `up` may have left in namespace `default`, without asking its finalizers.
async fn empty(client: Client) {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ConfigMap) {
        let api: Api<ostler::kinds::Object> =
            Api::namespaced_with(client.clone(), "default", &kind.api_resource());
        api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        for held in api.list(&ListParams::default()).await.unwrap() {
            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            // It may have gone in between.
            let _ = api.patch(&held.name_any(), &PatchParams::default(), &free).await;
        }
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for map in maps.list(&ListParams::default()).await.unwrap() {
        if map.name_any() != "kube-root-ca.crt" {
            maps.delete(&map.name_any(), &DeleteParams::default()).await.unwrap();
        }
    }
    let leases: Api<Lease> = Api::namespaced(client, "default");
    leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
}
