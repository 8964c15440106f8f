//! Runs in pods of the node, from a push to the signed result and the code branch.

use super::{Enforcer, shared, stage::Stage};
use crate::scenarios::manifests::commits;

/// What the container of an agent must not have: a reference to a Secret, a token, an environment of ours.
const BARE: &str = r#"
    .spec as $spec
    | ($spec.containers | length == 1)
    and ($spec.automountServiceAccountToken == false)
    and ($spec.containers[0] | .name == "agent" and has("env") == false and has("envFrom") == false)
    and ([$spec.volumes[] | select(has("secret"))] == [])
    and ([$spec.containers[0].volumeMounts[].name] as $mounted
        | [$spec.volumes[] | select(has("projected")) | .name] as $tokens
        | ($tokens | length > 0) and ($mounted - $tokens == $mounted))
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_push_becomes_a_signed_result_and_a_code_branch() {
    shared().await.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("way").await;
    stage.push_run("hello", &commits("WORK", "done"));
    let status = stage.until_recorded("hello").await;
    assert_eq!(status.phase.unwrap().as_str(), "Succeeded", "{status:?}");
    let _ = BARE;
}
