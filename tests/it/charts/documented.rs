//! The commands of docs/install.md, as they stand there, on a cluster that has nothing of ours yet.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use ostler::{kinds::Agent, kubernetes::client::check_crds};

use super::{
    ROLES,
    helm::Helm,
    install::{play_kubelet, pods_of},
    name,
};
use crate::cluster::{Cluster, eventually};

const PAGE: &str = include_str!("../../../docs/install.md");
const NAMESPACE: &str = "ostler-system";

/// The first block of commands below a heading.
fn commands(heading: &str) -> &'static str {
    let section = PAGE.split(&format!("\n## {heading}\n")).nth(1).expect("the page has it");
    let section = section.split("\n## ").next().unwrap();
    section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it has commands")
}

/// Every role is there, and the namespace, which enforces *restricted*, takes its pods.
async fn assert_installed(cluster: &Cluster) {
    let client = cluster.client().await;
    check_crds(&client).await.unwrap();
    let mut all = pods_of(&client, NAMESPACE).await;
    all.sort_by_key(|pod| name(pod).to_owned());
    let mut wanted = ROLES.map(|role| format!("ostler-{role}"));
    wanted.sort();
    assert_eq!(all.iter().map(name).collect::<Vec<_>>(), wanted);
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for pod in all {
        let ours = concat!("registry.example.com/ostler:", env!("CARGO_PKG_VERSION"));
        assert_eq!(pod["spec"]["containers"][0]["image"], ours, "the image is the one that was named");
        pods.create(&dry, &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_it_as_written() {
    let cluster = Cluster::start_own().await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    let kubelet = async {
        let agents: Api<Agent> = Api::all(cluster.client().await);
        eventually("the kinds are served", async || agents.list(&ListParams::default()).await.ok()).await;
        play_kubelet(&cluster, NAMESPACE).await;
    };
    let (ended, ()) = tokio::join!(helm.script(commands("With Helm")), kubelet);
    let said = ended.succeeded();
    assert!(said.contains("Phase:") && said.contains("Succeeded"), "the test of the release: {said}");
    assert_installed(&cluster).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await, NAMESPACE);
    let key = secrets.get("ostler-signing-key").await.unwrap().data.unwrap().remove("signing_key").unwrap();
    assert!(key.0.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_installs_the_plain_manifests_as_written() {
    let cluster = Cluster::start_own().await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    helm.script(commands("Without Helm")).await.succeeded();
    assert_installed(&cluster).await;
}
