//! The suite for any cluster, on the node: its roles run in pods, with the rights of the chart.

use super::{Enforcer, shared};
use crate::anywhere::{
    Ground, a_run_outlives_its_controller_and_recorder, a_run_reaches_what_it_may, a_stop_is_a_commit,
    ended_on_ostler, everything_is_in_pods, on_ostler, policies_hold,
};

/// The node's images, with that enforcer.
async fn ground(enforcer: Enforcer) -> Ground {
    let node = shared().await;
    node.enforcer(enforcer).await;
    Ground {
        kubeconfig: node.cluster().kubeconfig().to_owned(),
        ostler: node.ostler_image().await.to_owned(),
        agent: node.debian_image().await.to_owned(),
        pull_policy: "Never".to_owned(),
        values: None,
        engine: "node",
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn ostler_is_installed_and_a_push_becomes_a_result() {
    on_ostler(ground(Enforcer::Correct).await, everything_is_in_pods).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_run_is_stopped_by_a_commit() {
    on_ostler(ground(Enforcer::Correct).await, a_stop_is_a_commit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn an_agent_reaches_nothing_that_no_policy_allows() {
    on_ostler(ground(Enforcer::Correct).await, a_run_reaches_what_it_may).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_run_runs_once_though_its_controller_and_recorder_go() {
    on_ostler(ground(Enforcer::Correct).await, a_run_outlives_its_controller_and_recorder).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn the_enforcer_holds_the_truth_table_between_pods() {
    policies_hold(ground(Enforcer::Correct).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn where_nobody_enforces_policies_the_suite_says_so() {
    let ground = ground(Enforcer::Off).await;
    let _reported = ground.reported().await;
    let why = ended_on_ostler(ground, a_run_reaches_what_it_may).await.unwrap_err();
    let why = why.downcast_ref::<String>().map_or("", String::as_str);
    assert!(why.starts_with("the network plugin of this cluster does not enforce NetworkPolicies"), "{why}");
    shared().await.enforcer(Enforcer::Correct).await;
}
