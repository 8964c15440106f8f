//! The suite for any cluster, on a node where nobody enforces policies. `make test-node` runs it whole beside one where
//! somebody does, as `make test-cluster` does on a cluster of anybody's.

use super::{Enforcer, shared};
use crate::anywhere::{Ground, Scope, a_run_reaches_what_it_may, ended_on_ostler};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn where_nobody_enforces_policies_the_suite_says_so() {
    let node = shared().await;
    node.enforcer(Enforcer::Off).await;
    let ground = Ground {
        kubeconfig: node.cluster().kubeconfig().to_owned(),
        ostler: node.ostler_image().await.to_owned(),
        agent: node.debian_image().await.to_owned(),
        pull_policy: "Never".to_owned(),
        values: None,
        engine: "node",
    };
    let _reported = ground.reported().await;
    let why = ended_on_ostler(ground, Scope::Everything, a_run_reaches_what_it_may).await.unwrap_err();
    let why = why.downcast_ref::<String>().map_or("", String::as_str);
    assert!(why.starts_with("the network plugin of this cluster does not enforce NetworkPolicies"), "{why}");
    node.enforcer(Enforcer::Correct).await;
}
