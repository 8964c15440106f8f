//! The fixture keeps its own promises.

use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use super::{Cluster, server::eventually, shared};

fn config_map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

/// Creates an `EgressPolicy` with this spec and gives the server's refusal.
async fn refusal(cluster: &Cluster, namespace: &str, spec: Value) -> String {
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("ostler.dev", "v1alpha1", "EgressPolicy"),
        "egresspolicies",
    );
    let policy = DynamicObject::new("strange", &resource).data(json!({ "spec": spec }));
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().await, namespace, &resource);
    match api.create(&PostParams::default(), &policy).await.unwrap_err() {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_answers_with_its_version() {
    let version = shared().await.server_version().await;
    assert_eq!(version.major, "1");
    assert!(version.minor.trim_end_matches('+').parse::<u32>().unwrap() >= 33, "{version:?}");
}

#[tokio::test]
async fn our_kinds_are_served_and_their_rules_hold() {
    let cluster = shared().await;
    cluster.install_crds().await;
    let namespace = cluster.namespace("rules").await;

    let said = refusal(cluster, &namespace, json!({"mode": "Perhaps", "rules": []})).await;
    assert!(said.contains("spec.mode: Unsupported value: \"Perhaps\""), "{said}");
    let said = refusal(cluster, &namespace, json!({"mode": "Enforce", "rules": [{"name": "nothing"}]})).await;
    assert!(said.contains("hosts or cidrs are needed"), "{said}");
}

#[tokio::test]
async fn who_has_no_rights_is_refused() {
    let cluster = shared().await;
    let namespace = cluster.namespace("rights").await;
    let theirs: Api<ConfigMap> = Api::namespaced(cluster.user("mallory", &["guests"]).await, &namespace);
    let error = theirs.create(&PostParams::default(), &config_map("mine")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 403), "{error}");
    assert!(error.to_string().contains("User \"mallory\" cannot create resource \"configmaps\""), "{error}");

    let ours: Api<ConfigMap> = Api::namespaced(cluster.client().await, &namespace);
    assert!(ours.get_opt("mine").await.unwrap().is_none());
}

#[tokio::test]
async fn the_audit_log_shows_who_wrote_what() {
    let cluster = shared().await;
    let namespace = cluster.namespace("audit").await;
    let api: Api<ConfigMap> =
        Api::namespaced(cluster.user("alice", &["team", "system:masters"]).await, &namespace);
    api.create(&PostParams::default(), &config_map("noted")).await.unwrap();

    let in_namespace = |line: &&super::AuditLine| line.object_ref.namespace == namespace;
    let lines = cluster
        .audit_until(|lines| lines.iter().filter(in_namespace).any(|line| line.object_ref.name == "noted"));
    let lines = lines.await;
    let line = lines.iter().filter(in_namespace).find(|line| line.object_ref.name == "noted").unwrap();
    assert_eq!(
        (line.verb.as_str(), line.object_ref.resource.as_str(), line.code()),
        ("create", "configmaps", 201)
    );
    assert_eq!(line.user.username, "alice");
    for group in ["team", "system:masters"] {
        assert!(line.user.groups.iter().any(|g| g == group), "{group} is not in {:?}", line.user.groups);
    }
    assert!(line.is_write());
}

#[tokio::test]
async fn a_server_of_ones_own_may_crash_collects_garbage_and_leaves_nothing() {
    let cluster = Cluster::start_own().await;
    let namespace = cluster.namespace("own").await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client().await, &namespace);
    let owner = api.create(&PostParams::default(), &config_map("owner")).await.unwrap();

    cluster.stop_api_server().await;
    assert!(api.get("owner").await.is_err(), "the server that was stopped answers");
    cluster.start_api_server().await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client().await, &namespace);
    assert_eq!(api.get("owner").await.unwrap().metadata.uid, owner.metadata.uid, "etcd lost it");

    cluster.start_controllers().await;
    let mut owned = config_map("owned");
    let reference =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid});
    owned.metadata.owner_references = Some(vec![serde_json::from_value(reference).unwrap()]);
    api.create(&PostParams::default(), &owned).await.unwrap();
    api.delete("owner", &kube::api::DeleteParams::default()).await.unwrap();
    let gone = async || api.get_opt("owned").await.unwrap().is_none().then_some(());
    eventually("what was owned goes with its owner", gone).await;

    let folder = cluster.folder.clone();
    let programs = programs_of(&folder);
    assert!(programs.len() >= 3, "etcd, API server and controller manager name their folder: {programs:?}");
    drop((cluster, api));
    assert!(!folder.exists());
    assert_eq!(programs_of(&folder), Vec::<u32>::new());
}

/// The processes with that folder in their command line.
fn programs_of(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().unwrap();
    let names = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(folder)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(names).collect()
}

#[tokio::test]
async fn the_kubeconfig_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let cluster = shared().await;
    let mode = cluster.kubeconfig().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let reads = super::client_of(cluster.kubeconfig()).await;
    Api::<ConfigMap>::all(reads).list(&ListParams::default()).await.unwrap();
}
