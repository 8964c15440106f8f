//! What a cluster has besides an API server: kwok as its nodes, a program for the streams into their pods, and, in place of
//! the scheduler, a task that gives each pod a node.

use std::{net::TcpListener, path::Path, sync::Arc};

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::sidecars::Sidecars;
use crate::cluster::{Cluster, MASTERS, eventually, path_printed_by};

/// As many as 1,000 pods have with the 110 that a kubelet takes by default.
const NODES: usize = 10;

fn node(number: usize) -> String {
    format!("played-{number}")
}

/// Starts kwok and the program of streams, whose answers come from this socket; the nodes are ready when this returns.
pub(super) async fn start(cluster: &Cluster, socket: &Path) -> Result<()> {
    let programs = path_printed_by("tests/cluster/kwok/build.sh", &[]);
    let kubeconfig = cluster.kubeconfig_for("kwok", &[MASTERS]);
    let identity = cluster.authority().server("kubelet", &["127.0.0.1"]);
    let file = |name: &str| cluster.folder().join(name);
    std::fs::write(file("streams.crt"), identity.certificate)?;
    std::fs::write(file("streams.key"), identity.key)?;
    // Nobody else takes it: whoever wants any port gets another one.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut server = cluster.server().await;
    server.keeper().start(
        "streams",
        &programs.join("streams"),
        &[
            format!("--listen=127.0.0.1:{port}"),
            format!("--socket={}", socket.display()),
            format!("--cert={}", file("streams.crt").display()),
            format!("--key={}", file("streams.key").display()),
            format!("--client-ca={}", file("authority.crt").display()),
        ],
    );
    server.keeper().start(
        "kwok",
        &programs.join("kwok"),
        &[
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--config={}", programs.join("stages.yaml").display()),
            "--manage-all-nodes=true".to_owned(),
            "--node-lease-duration-seconds=40".to_owned(),
            "--cidr=10.128.0.0/14".to_owned(),
            // Whoever wants to reach a node finds the program of streams there; what kwok itself serves nobody asks for.
            "--node-ip=127.0.0.1".to_owned(),
            format!("--node-port={port}"),
            "--server-address=127.0.0.1:0".to_owned(),
        ],
    );
    drop(server);
    let nodes: Api<Node> = Api::all(cluster.client().await);
    for number in 0..NODES {
        let object = serde_json::from_value(json!({"metadata": {"name": node(number)}}))?;
        nodes.create(&PostParams::default(), &object).await?;
    }
    for number in 0..NODES {
        eventually("the played nodes are ready", async || {
            let node = nodes.get(&node(number)).await.ok()?;
            let mut conditions = node.status?.conditions.into_iter().flatten();
            conditions.any(|is| is.type_ == "Ready" && is.status == "True").then_some(())
        })
        .await;
    }
    Ok(())
}

/// Gives each pod of a namespace that has no node one, in turns, and its sidecar with it.
pub(super) async fn schedule(client: Client, namespace: &str, sidecars: Arc<Sidecars>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let without = watcher::Config::default().fields("spec.nodeName=");
    let new = watcher(pods, without).default_backoff().applied_objects();
    let bound = new.enumerate().map(|(number, pod)| Ok((number, pod?))).try_for_each_concurrent(
        8,
        |(number, pod)| {
            let (client, sidecars) = (client.clone(), Arc::clone(&sidecars));
            async move { bind(&client, pod, number, &sidecars).await }
        },
    );
    bound.await?;
    bail!("the watch of pods ended")
}

async fn bind(client: &Client, pod: Pod, number: usize, sidecars: &Arc<Sidecars>) -> Result<()> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    if !sidecars.begin(pod)? {
        return Ok(());
    }
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node(number % NODES)},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
    let request = http::Request::post(path).header("content-type", "application/json");
    client.request_text(request.body(serde_json::to_vec(&binding)?)?).await?;
    Ok(())
}
