//! A leader that was frozen past its lease and wakes up with work in its hands.

use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::stage::Stage;
use crate::cluster::AuditLine;

const LEASE: &str = "ostler-controller";

/// Writes of one user from a line of the log on that the API server took, leases too.
fn landed<'a>(lines: &'a [AuditLine], user: &str) -> Vec<&'a AuditLine> {
    lines.iter().filter(|line| line.is_of(&[user]) && line.is_write() && line.code() < 400).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_leader_lands_no_write_after_another_took_over() {
    let stage = Stage::new("thaw").await;
    stage.push_agent("coder", "one");
    stage.follow(json!({})).await;
    let first = stage.controller("first");
    stage.until_agent("coder", "one").await;

    // Frozen for a moment, within its lease, it goes on: what was meddled with is put back.
    kill_process(first.pid(), Signal::STOP).unwrap();
    stage.meddle("coder", "meddled").await;
    kill_process(first.pid(), Signal::CONT).unwrap();
    stage.until_agent("coder", "one").await;

    // Now until the second one has taken over and worked.
    kill_process(first.pid(), Signal::STOP).unwrap();
    let second = stage.controller("second");
    stage.until_holder(LEASE, "second").await;
    stage.push_agent("coder", "two");
    stage.until_agent("coder", "two").await;
    let before = stage.audit().await;

    // The second one stands still, too, so that the same work waits for the first one as before.
    kill_process(second.pid(), Signal::STOP).unwrap();
    stage.meddle("coder", "meddled again").await;
    kill_process(first.pid(), Signal::CONT).unwrap();
    let ended = first.end();
    assert_eq!(ended.code, Some(2), "it ends by itself, and says why: {}", ended.text);
    assert!(ended.text.contains("another process leads now"), "{}", ended.text);
    let after = stage.audit().await;
    let user = stage.user("first");
    let new = &landed(&after, &user)[landed(&before, &user).len()..];
    assert!(new.is_empty(), "it wrote after the takeover: {new:#?}");
    let takeover = after.iter().position(|l| l.is_of(&[&stage.user("second")]) && l.is_write());
    let late: Vec<_> =
        after[takeover.unwrap()..].iter().filter(|l| l.is_of(&[&user]) && l.is_write()).collect();
    assert!(late.iter().all(|line| line.code() >= 400), "{late:#?}");
    let agent: ostler::kinds::Agent = stage.api().get("coder").await.unwrap();
    assert_eq!(agent.spec.image.as_deref(), Some("meddled again"), "nobody put it back");

    // Whoever works next does: the second one, if its own lease has not run out meanwhile, or a third.
    kill_process(second.pid(), Signal::CONT).unwrap();
    let third = stage.controller("third");
    stage.until_agent("coder", "two").await;
    drop((second, third));
}
