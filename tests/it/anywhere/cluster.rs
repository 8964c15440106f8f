//! The suite on the cluster of a kubeconfig: `make test-cluster`.

use super::{
    Ground, a_run_outlives_its_controller_and_recorder, a_run_reaches_what_it_may, a_stop_is_a_commit,
    everything_is_in_pods, on_ostler, policies_hold,
};

fn ground() -> Ground {
    Ground::of_environment(|name| std::env::var(name).ok()).unwrap_or_else(|refusal| panic!("{refusal}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make test-cluster"]
async fn ostler_is_installed_and_a_push_becomes_a_result() {
    on_ostler(ground(), everything_is_in_pods).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_run_is_stopped_by_a_commit() {
    on_ostler(ground(), a_stop_is_a_commit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make test-cluster"]
async fn an_agent_reaches_nothing_that_no_policy_allows() {
    on_ostler(ground(), a_run_reaches_what_it_may).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_run_runs_once_though_its_controller_and_recorder_go() {
    on_ostler(ground(), a_run_outlives_its_controller_and_recorder).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make test-cluster"]
async fn the_network_plugin_holds_the_truth_table() {
    policies_hold(ground()).await;
}
