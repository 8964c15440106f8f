//! The embedded Objects port: its contract, and what is its own.

mod faulty;
mod folder;
mod killed;
mod load;
mod model;
mod socket;

use std::{path::Path, sync::Arc};

use kube::ResourceExt;
use ostler::{
    embedded::objects::{EmbeddedStore, RemoteStore, Server, connect, serve},
    kinds::{Kind, Object, ObjectId},
    ports::{Objects, objects::Store},
};
use serde_json::{Value, json};

use crate::{
    contract::objects::{Ground, all},
    faults::Faulty,
};

fn open(folder: &Path) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(folder).unwrap())
}

async fn serve_and_connect(store: &Arc<EmbeddedStore>, path: &Path) -> (Server, RemoteStore) {
    let server = serve(path, Arc::clone(store) as Store).unwrap();
    (server, connect(path).await.unwrap())
}

fn id(name: &str) -> ObjectId {
    ObjectId::new(Kind::Agent, "default".parse().unwrap(), name.parse().unwrap())
}

fn agent(name: &str, spec: &Value) -> Object {
    serde_json::from_value(json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    .unwrap()
}

fn codex(image: &str) -> Value {
    json!({"preset": "codex", "image": image})
}

fn number(object: &Object) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = open(folder.path());
    all(async |case| Ground { store: Arc::clone(&store), namespace: case.parse().unwrap() }).await;
}

#[tokio::test]
async fn the_socket_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (_server, remote) = serve_and_connect(&store, &folder.path().join("objects.sock")).await;
    let remote: Store = Arc::new(remote);
    all(async |case| Ground { store: Arc::clone(&remote), namespace: case.parse().unwrap() }).await;
}

#[tokio::test]
async fn the_wrapper_without_faults_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Faulty::new(open(folder.path()));
    all(async |case| Ground { store: Arc::clone(&store), namespace: case.parse().unwrap() }).await;
}
