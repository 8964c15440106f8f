//! Controllers: one of two works, hands over, and ends.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use super::stage::{Stage, address, agent};
use crate::{
    cluster::{AuditLine, object_writes},
    scenarios::up::Up,
};

const LEASE: &str = "ostler-controller";

#[tokio::test(flavor = "multi_thread")]
async fn of_two_controllers_one_works_and_hands_over() {
    let stage = Stage::new("two").await;
    stage.push_agent("coder", "one");
    stage.follow(json!({})).await;
    let first = stage.controller("first");
    stage.until_agent("coder", "one").await;
    let second = stage.controller("second");
    stage.push_agent("coder", "two");
    stage.until_agent("coder", "two").await;
    assert_eq!(stage.holder(LEASE).await.as_deref(), Some("first"));
    let idle = stage.audit().await;
    assert_eq!(object_writes(&idle, &[&stage.user("second")]), [].into(), "it only waits");

    // Every state of the lease from now on.
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE}"));
    let holders = watcher(stage.api::<Lease>(), config)
        .applied_objects()
        .map_ok(|lease| lease.spec.unwrap_or_default().holder_identity);
    let mut holders = Box::pin(holders);
    assert_eq!(holders.next().await.unwrap().unwrap().as_deref(), Some("first"));
    let ended = first.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let mut seen = Vec::new();
    while seen.last().cloned().flatten().as_deref() != Some("second") {
        let next = tokio::time::timeout(std::time::Duration::from_mins(2), holders.next()).await;
        seen.push(next.expect("nobody took the lease").unwrap().unwrap());
    }
    assert!(seen.contains(&None), "it was given back, and did not run out: {seen:?}");
    second.line("it leads", |line| line["what"] == "leading");
    stage.push_agent("coder", "three");
    stage.until_agent("coder", "three").await;
    let lines = stage.audit().await;
    assert!(!object_writes(&lines, &[&stage.user("second")]).is_empty());
    assert_eq!(second.stop().code, Some(0));
    let ended = stage.lease(LEASE).await.unwrap().spec.unwrap();
    assert_eq!((ended.holder_identity, ended.lease_transitions), (None, Some(1)), "given back by the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_by_is_ready_and_ends_when_it_is_asked_to() {
    let stage = Stage::new("standby").await;
    let first = stage.controller("first");
    first.line("it leads", |line| line["what"] == "leading");
    let second = stage.controller("second");
    for up in [&first, &second] {
        let health = address(up, "health");
        for (path, words) in [("healthz", "ok"), ("metrics", "ostler_"), ("readyz", "\"ready\":true")] {
            crate::cluster::eventually(&format!("{path} says {words}"), async || {
                let text = reqwest::get(format!("{health}/{path}")).await.unwrap().text().await.unwrap();
                text.contains(words).then_some(())
            })
            .await;
        }
    }
    assert_eq!(second.stop().code, Some(0));
    assert_eq!(stage.holder(LEASE).await.as_deref(), Some("first"), "the other one's lease is left alone");
    assert_eq!(first.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_begin_gives_the_lease_back() {
    let stage = Stage::new("cannot").await;
    std::fs::write(stage.path("signers"), "no signer").unwrap();
    let mut command = stage.role("controller", "first");
    command.args(["--places", "none", "--signers"]).arg(stage.path("signers"));
    let ended = Up::start(command).end();
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    let lease = stage.lease(LEASE).await.expect("it led").spec.unwrap();
    assert_eq!(lease.holder_identity, None, "{}", ended.text);
}

#[test]
fn pods_need_to_know_their_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ostler"))
        .args(["controller", "--places", "pods", "--state"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for flag in ["--image", "--proxy ", "--proxy-canary", "--proxy-name", "--recorder-name", "--proxy-ca"] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_leaves_no_write_without_its_line() {
    const MANY: usize = 400;
    let stage = Stage::new("middle").await;
    let files: Vec<(String, String)> =
        (0..MANY).map(|n| (format!("a{n}.yaml"), agent(&format!("a{n}"), "one"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    stage.config.push(&files, "many agents");
    stage.follow(json!({})).await;
    let trail = stage.path("audit.jsonl");
    let mut command = stage.role("controller", "first");
    command.args(["--places", "none", "--audit"]).arg(&trail);
    let first = Up::start(command);
    let user = stage.user("first");
    let written = |lines: &[AuditLine]| {
        let agents =
            |l: &&AuditLine| l.is_of(&[&user]) && l.is_object_write() && l.object_ref.resource == "agents";
        lines.iter().filter(agents).filter(|l| l.code() < 300).count()
    };
    stage.cluster.audit_until(|lines| written(lines) > 0).await;
    assert_eq!(first.stop().code, Some(0));
    let landed = written(&stage.audit().await);
    let told = std::fs::read_to_string(&trail).unwrap();
    let told = told.lines().filter(|l| l.contains("Agent ") && l.contains("\"allowed\"")).count();
    println!("stopped after {landed} of {MANY}");
    assert_eq!(told, landed, "each write that landed has its line");
}
