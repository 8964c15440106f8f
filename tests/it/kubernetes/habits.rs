//! What people with kubectl do beside a running ostler: ask for a round, wait for an end, read what happened.

use ostler::kinds::meta;

use super::stage::Stage;
use crate::{
    cluster::{eventually, shared},
    kubectl::Prompt,
    scenarios::manifests::{commits, run},
};

/// The longest that kubectl waits.
const WAIT: &str = "--timeout=3m";

/// The part of a description that holds the events.
fn events(description: &str) -> &str {
    description.split_once("\nEvents:").map_or("", |(_, events)| events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_asked_for_and_ends_of_runs_are_waited_for_and_described() {
    let stage = Stage::new(shared().await, "habits").await;
    let kubectl = Prompt::at(stage.cluster, stage.namespace.as_str()).await;
    let up = stage.up();
    kubectl.run(&["wait", "--for=condition=Ready", WAIT, "cfgrepo/config"]).await;
    let asked = format!("{}=today", meta::RECONCILE_REQUESTED_AT);
    kubectl.run(&["annotate", "cfgrepo/config", &asked]).await;
    kubectl
        .run(&["wait", "--for=jsonpath={.status.lastHandledReconcileAt}=today", WAIT, "cfgrepo/config"])
        .await;

    stage.push("runs/good.yaml", &run("good", &commits("WORK", "done")));
    stage.push("runs/bad.yaml", &run("bad", "exit 3\n"));
    for (name, condition) in [("hrun/good", "Succeeded"), ("hrun/bad", "Succeeded=False")] {
        kubectl.run(&["wait", "--for=create", WAIT, name]).await;
        let [met, _] = kubectl.run(&["wait", &format!("--for=condition={condition}"), WAIT, name]).await;
        assert!(met.contains("condition met"), "{met}");
    }
    let [table, _] = kubectl.run(&["get", "hrun"]).await;
    for (name, phase, reason) in [("good", "Succeeded", "Completed"), ("bad", "Failed", "NonZeroExit")] {
        let row: Vec<&str> =
            table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect();
        assert_eq!(row[1..4], ["work", phase, reason], "{table}");
        // an event is sent after the status
        eventually("kubectl describe shows the end", async || {
            let [description, _] = kubectl.run(&["describe", "hrun", name]).await;
            events(&description).contains(reason).then_some(())
        })
        .await;
    }
    assert_eq!(up.stop().code, Some(0));
}
