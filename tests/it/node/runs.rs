//! Runs in pods of the node, from a push to the signed result and the code branch.

use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Pod;

use super::{Enforcer, shared, stage::Stage};
use crate::scenarios::manifests::commits;

/// True of a pod whose agent has no Secret, no token and no environment of ours, and which has none of another container.
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
    let script = format!("echo here it is\n{}", commits("WORK", "done"));
    stage.push_run("hello", &script);
    let pod = stage.until_pod("hello").await;
    assert_bare(&pod);
    let status = stage.until_recorded("hello").await;
    stage.assert_end(&status, ("Succeeded", "Completed", Some(0))).await;

    let verified = stage
        .ostler()
        .args(["verify", "results", "--signers"])
        .arg(stage.signers())
        .arg(stage.config.bare())
        .output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let branch = format!("ostler/{}/hello", stage.namespace);
    assert_eq!(stage.code.bare_git(&["show", &format!("{branch}:WORK")]), "done");
    assert_eq!(stage.code.bare_git(&["log", "--format=%an", "-1", &branch]), "agent");
    assert_eq!(status.changes.unwrap().head.unwrap(), stage.code.bare_git(&["rev-parse", &branch]));
    assert!(stage.output("hello").contains("here it is\n"));
    assert!(stage.code_web.seen().iter().any(|request| request.path.contains("git-receive-pack")));
}

/// As somebody at a cluster would look.
fn assert_bare(pod: &Pod) {
    use std::io::Write;
    let mut jq =
        Command::new("jq").args(["-e", BARE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    jq.stdin.take().unwrap().write_all(serde_json::to_string(pod).unwrap().as_bytes()).unwrap();
    let said = jq.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", serde_json::to_string_pretty(&pod.spec).unwrap());
}
