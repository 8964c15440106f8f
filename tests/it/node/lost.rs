//! A node that is gone takes its runs along, once and for all.

use std::path::Path;

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, api::DeleteParams};
use ostler::kinds::{Phase, Reason};
use serde_json::json;

use super::{
    Enforcer, Node,
    fixture::{CONTAINERD, CONTAINERD_SOCKET, KUBELET},
    stage::{IMAGE, Stage},
};
use crate::cluster::AuditLine;

impl Node {
    /// Ends everything that makes it a node: what runs in its pods, kubelet and containerd. The cluster goes on.
    async fn die(&self) {
        let mut server = self.cluster().server().await;
        let keeper = server.keeper();
        // first, so that nobody tells how the pods end
        keeper.stop(KUBELET);
        let tasks = format!("ctr --address={CONTAINERD_SOCKET} --namespace=k8s.io tasks");
        let script = format!("{tasks} list --quiet | xargs --max-args=1 {tasks} kill --signal=KILL");
        let ended = keeper.run("die", Path::new("/bin/sh"), &["-c".to_owned(), script]);
        assert_eq!(ended, 0, "{}", keeper.last_words("die"));
        keeper.stop(CONTAINERD);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_run_whose_node_goes_is_lost_recorded_once_and_never_started_again() {
    let node = Node::start_own().await;
    node.enforcer(Enforcer::Correct).await;
    let mut stage = Stage::on(&node, "lost", &json!({})).await;
    stage.push_run("gone", "echo here; exec sleep 600");
    let at_work = "the agent is at work";
    stage
        .until("gone", at_work, |status| {
            status.phase == Some(Phase::Running)
                && status.startup.as_ref().is_some_and(|time| time.first_output_ms.is_some())
        })
        .await;

    node.die().await;
    // as whoever rents out machines tells a cluster that one is gone
    let nodes: Api<NodeObject> = Api::all(stage.client.clone());
    nodes.delete(&node.name(), &DeleteParams::default()).await.unwrap();
    let lost = stage.until("gone", "it is lost", |status| status.phase.is_some_and(Phase::is_terminal)).await;
    stage.assert_end("gone", &lost, ("Lost", "NodeLost", None)).await;
    assert!(lost.message.as_deref().unwrap().contains("the node is gone"), "{:?}", lost.message);
    let recorded = stage.until_recorded("gone").await;
    assert_eq!((recorded.phase, recorded.reason), (Some(Phase::Lost), Some(Reason::NodeLost)));

    // A controller that remembers nothing looks at all runs, and leaves this one as it is.
    stage.restart_controller(IMAGE);
    stage.push_run("later", "exit 0");
    stage
        .until("later", "there is no node", |status| {
            (status.phase, status.reason) == (Some(Phase::Starting), Some(Reason::Unschedulable))
        })
        .await;
    let still = stage.until_recorded("gone").await;
    assert_eq!(still.phase_history, recorded.phase_history);
    assert_eq!(still.completion_time, lost.completion_time);
    assert!(stage.pod("gone").await.is_none());
    let entries = stage.config.bare_git(&["log", "--all", "--format=%H", "--", "*/gone/result.yaml"]);
    assert_eq!(entries.lines().count(), 1, "{entries}");
    let user = format!("controller-of-{}", stage.namespace);
    let pods_made = |lines: &[AuditLine]| {
        let made =
            |line: &&AuditLine| line.is_of(&[&user]) && line.what() == "create pods" && line.code() == 201;
        lines.iter().filter(made).count()
    };
    let lines = node.cluster().audit_until(|lines| pods_made(lines) >= 2).await;
    assert_eq!(pods_made(&lines), 2, "one for each run");
}
