//! The adapters on a real API server.

mod events;
mod faults;
mod habits;
mod objects;
mod pages;
mod proxy;
mod rights;
mod same;
mod stage;
mod verbs;
pub(crate) mod workloads;

use std::{path::Path, sync::Arc};

use ostler::{
    kinds::{Kind, Object, ObjectId},
    kubernetes::{
        client::{Target, connect},
        objects::KubeObjects,
    },
    names::Namespace,
    ports::objects::Store,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, shared};

/// The store of an API server that a kubeconfig names.
async fn store_of(kubeconfig: &Path) -> Store {
    let target = Target { kubeconfig: Some(kubeconfig.to_owned()), context: None };
    Arc::new(KubeObjects::new(connect(&target).await.unwrap()))
}

/// The shared API server with our kinds, its store, and a namespace of it for one test.
async fn ground(prefix: &str) -> (&'static Cluster, Store, Namespace) {
    let cluster = shared().await;
    cluster.install_crds().await;
    let namespace = cluster.namespace(prefix).await.parse().unwrap();
    (cluster, store_of(cluster.kubeconfig()).await, namespace)
}

fn id(kind: Kind, namespace: &Namespace, name: &str) -> ObjectId {
    ObjectId::new(kind, namespace.clone(), name.parse().unwrap())
}

fn agent(namespace: &Namespace, name: &str, image: &str) -> Object {
    object(json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"preset": "codex", "image": image}}))
}

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}
