//! After a run's end, its result is in the ledger, and its commits on a branch.

use ostler::{
    kinds::{HarnessRun, Phase, Reason, condition},
    ledger::{File, ResultEntry},
    report::{BUNDLE, Receipt},
};
use serde_json::{Value, json};

use super::stage::{Stage, has_result, path};

pub(super) fn running_status() -> Value {
    json!({"phase": "Running", "digest": "v1:aa", "claim": {"requestedAt": "2026-11-21T10:00:00Z", "holder": "holder-1"}})
}

/// Two commits on top of the repository's `main`, as a bundle. Gives base and head.
pub(super) fn work(stage: &Stage, file: &str) -> (String, String, Vec<u8>) {
    let base = stage.repo.git(&["rev-parse", "HEAD"]);
    stage.repo.git(&["checkout", "--quiet", "-B", "agent"]);
    stage.repo.commit(&[(file, "one\n")], "first step");
    let head = stage.repo.commit(&[(file, "two\n")], "second step");
    let bundle = stage.folder.path().join("b.bundle");
    let range = format!("{base}..agent");
    stage.repo.git(&["bundle", "create", "--quiet", "--version=2", bundle.to_str().unwrap(), &range]);
    (base, head, std::fs::read(bundle).unwrap())
}

async fn pushing(stage: &Stage, name: &str) -> HarnessRun {
    let spec = json!({"command": ["true"], "repository": {"url": stage.repo.bare()}, "result": {"push": {}}});
    stage.run(name, &spec, &running_status()).await
}

pub(super) fn changes(base: &str, head: &str) -> Value {
    json!({"changes": {"base": base, "head": head, "commits": 2, "files": 1, "additions": 1, "deletions": 0}})
}

#[tokio::test]
async fn a_result_is_recorded_with_its_bulk_and_acknowledged_after_that() {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.run("fix", &json!({"command": ["true"]}), &running_status()).await;
    let delivery = stage.output(&run);
    assert_eq!(running.handle.deliver(delivery.clone()).await, Receipt::Recorded);
    assert!(!delivery.folder.exists(), "the spool is empty again");
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert_eq!(
        (entry.outcome, entry.reason, entry.exit_code),
        (Phase::Succeeded, Reason::Completed, Some(0))
    );
    assert_eq!(entry.egress.denials[0].host, "evil.example.com");
    assert_eq!(entry.agents_word.usage.unwrap().input_tokens, Some(5));
    assert_eq!(stage.show(&path("fix", File::Summary)), "did it");
    let bulk = entry.bulk.unwrap();
    assert_eq!(bulk.files["output.log"].bytes, 6);
    assert_eq!(stage.repo.bare_git(&["show", "refs/ostler/runs/team/fix:output.log"]), "hello");
    let status = stage.get("fix").await.status.unwrap();
    assert_eq!(status.result.unwrap().commit.unwrap(), stage.tip());
    assert_eq!(status.exit_code, Some(0));
    assert_eq!(status.phase, Some(Phase::Succeeded), "the end comes with the result");
    assert!(condition::is_true(&status.conditions, condition::types::RESULT_RECORDED));
    let index = stage.files().into_iter().find(|file| file.starts_with("index/")).unwrap();
    assert!(stage.show(&index).contains("team/fix"));
    // The same again is acknowledged again, and changes nothing.
    let tip = stage.tip();
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    assert_eq!(stage.tip(), tip);
    running.stop().await;
}

#[tokio::test]
async fn the_agents_commits_become_a_branch() {
    let stage = Stage::new().await;
    let (base, head, bundle) = work(&stage, "src/a.txt");
    let running = stage.start();
    let run = pushing(&stage, "fix").await;
    let delivery = stage.delivery(&run, &changes(&base, &head), &[(BUNDLE, bundle)]);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    assert_eq!(stage.repo.bare_git(&["rev-parse", "ostler/team/fix"]), head);
    let status = stage.get("fix").await.status.unwrap();
    assert_eq!(status.changes.unwrap().branch.as_deref(), Some("ostler/team/fix"));
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert!(entry.push.pushed, "{:?}", entry.push);
    assert_eq!(entry.bulk, None, "what was pushed is not kept twice");
    running.stop().await;
}

#[tokio::test]
async fn what_was_not_delivered_stands_in_the_status_and_the_record() {
    let stage = Stage::new().await;
    let (base, head, _) = work(&stage, "src/a.txt");
    let running = stage.start();
    let run = pushing(&stage, "fix").await;
    let mut delivery = stage.delivery(&run, &changes(&base, &head), &[]);
    let why = format!("{BUNDLE}: 300 MiB is over the limit of 256 MiB");
    delivery.report.undelivered = vec![why.clone(); 200];
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    let status = stage.get("fix").await.status.unwrap();
    let recorded = status.conditions.iter().find(|c| c.type_ == "ResultRecorded").unwrap();
    assert_eq!(recorded.status, "True");
    assert!(recorded.message.contains(&format!("but not delivered: {why}; ")), "{}", recorded.message);
    assert_eq!(recorded.message.len(), 1024, "it is bounded");
    let pushed = status.conditions.iter().find(|c| c.type_ == "Pushed").unwrap();
    assert_eq!((pushed.reason.as_str(), pushed.message.as_str()), ("BundleRefused", why.as_str()));
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert_eq!(entry.undelivered[0], why);
    running.stop().await;
}

#[tokio::test]
async fn a_branch_that_was_pushed_before_a_crash_counts_as_pushed() {
    let stage = Stage::new().await;
    let (base, head, bundle) = work(&stage, "src/a.txt");
    stage.repo.git(&["push", "--quiet", "origin", "agent:refs/heads/ostler/team/fix"]);
    let running = stage.start();
    let run = pushing(&stage, "fix").await;
    let delivery = stage.delivery(&run, &changes(&base, &head), &[(BUNDLE, bundle)]);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert!(entry.push.pushed);
    running.stop().await;
}

#[tokio::test]
async fn what_may_not_be_pushed_is_kept_in_the_record() {
    let stage = Stage::new().await;
    let (base, head, bundle) = work(&stage, ".github/workflows/ci.yml");
    let running = stage.start();
    let run = pushing(&stage, "fix").await;
    let delivery = stage.delivery(&run, &changes(&base, &head), &[(BUNDLE, bundle.clone())]);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    assert_eq!(stage.repo.bare_git(&["branch", "--list", "ostler/team/*"]), "");
    let status = stage.get("fix").await.status.unwrap();
    let pushed = condition::get(&status.conditions, condition::types::PUSHED).unwrap();
    assert_eq!((pushed.status.as_str(), pushed.reason.as_str()), ("False", "ProtectedPath"));
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert_eq!(entry.bulk.unwrap().files[BUNDLE].bytes, bundle.len() as u64);

    let run = pushing(&stage, "broken").await;
    let broken = bundle[..bundle.len() - 30].to_vec();
    let delivery = stage.delivery(&run, &changes(&base, &head), &[(BUNDLE, broken)]);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    let status = stage.get("broken").await.status.unwrap();
    assert_eq!(condition::get(&status.conditions, condition::types::PUSHED).unwrap().reason, "BundleRefused");
    running.stop().await;
}

#[tokio::test]
async fn somebody_elses_branch_is_never_overwritten() {
    let stage = Stage::new().await;
    let (base, head, bundle) = work(&stage, "src/a.txt");
    stage.repo.git(&["checkout", "--quiet", "--orphan", "other"]);
    let other = stage.repo.commit(&[("x", "x")], "theirs");
    stage.repo.git(&["push", "--quiet", "origin", "other:refs/heads/ostler/team/fix"]);
    let running = stage.start();
    let run = pushing(&stage, "fix").await;
    let delivery = stage.delivery(&run, &changes(&base, &head), &[(BUNDLE, bundle)]);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    assert_eq!(stage.repo.bare_git(&["rev-parse", "ostler/team/fix"]), other);
    let status = stage.get("fix").await.status.unwrap();
    assert_eq!(
        condition::get(&status.conditions, condition::types::PUSHED).unwrap().reason,
        "BranchDiverged"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_end_without_a_report_is_recorded_from_the_status() {
    let stage = Stage::new().await;
    let running = stage.start();
    let status = json!({
        "phase": "Lost", "reason": "ResultUnavailable", "message": "the place vanished", "digest": "v1:aa",
        "completionTime": jiff::Timestamp::now(),
        "claim": {"requestedAt": "2026-11-21T10:00:00Z", "holder": "holder-1"}
    });
    stage.run("fix", &json!({"command": ["true"]}), &status).await;
    stage.until("fix", has_result).await;
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert_eq!((entry.outcome, entry.reason), (Phase::Lost, Reason::ResultUnavailable));
    running.stop().await;
}

fn lost_status() -> Value {
    json!({
        "phase": "Lost", "reason": "ResultUnavailable", "message": "the place vanished", "digest": "v1:aa",
        "completionTime": jiff::Timestamp::now(),
        "claim": {"requestedAt": "2026-11-21T10:00:00Z", "holder": "holder-1"}
    })
}

#[tokio::test]
async fn a_lost_run_that_reports_after_all_has_a_late_result_beside_the_first() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.run("fix", &json!({"command": ["true"]}), &lost_status()).await;
    let run = stage.until("fix", has_result).await;
    let first = run.status.clone().unwrap().result;
    let delivery = stage.output(&run);
    assert_eq!(running.handle.deliver(delivery.clone()).await, Receipt::Recorded);
    assert!(!delivery.folder.exists(), "the spool is empty again");
    let late = ResultEntry::from_yaml(&stage.show(&path("fix", File::Late))).unwrap();
    assert_eq!((late.outcome, late.exit_code), (Phase::Succeeded, Some(0)));
    assert_eq!(late.bulk.unwrap().files["output.log"].bytes, 6);
    assert_eq!(stage.repo.bare_git(&["show", "refs/ostler/runs/team/fix:output.log"]), "hello");
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert_eq!((entry.outcome, entry.reason), (Phase::Lost, Reason::ResultUnavailable));
    let status = stage.get("fix").await.status.unwrap();
    assert_eq!((status.phase, status.result), (Some(Phase::Lost), first), "what was said stays");
    let said = condition::get(&status.conditions, condition::types::RESULT_RECORDED).unwrap();
    assert!(said.status == "True" && said.message.contains(&stage.tip()), "{said:?}");
    // The same again is acknowledged again, and changes nothing.
    let tip = stage.tip();
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    assert_eq!(stage.tip(), tip);
    running.stop().await;
    let (code, text) = super::verify::verify(&stage);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test]
async fn that_a_run_was_lost_is_recorded_before_its_late_result() {
    let stage = Stage::new().await;
    let run = stage.run("fix", &json!({"command": ["true"]}), &lost_status()).await;
    let running = stage.start();
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    let outcome = |file| ResultEntry::from_yaml(&stage.show(&path("fix", file))).unwrap().outcome;
    assert_eq!((outcome(File::Result), outcome(File::Late)), (Phase::Lost, Phase::Succeeded));
    running.stop().await;
}

#[tokio::test]
async fn an_old_end_is_given_up() {
    let stage = Stage::beside(crate::servers::repo::Repo::with_readme(), "holder-1");
    stage.repository(&json!({"giveUpAfter": "1h"})).await;
    let running = stage.start();
    let status =
        json!({"phase": "Lost", "reason": "ResultUnavailable", "completionTime": "2020-01-01T00:00:00Z"});
    stage.run("fix", &json!({"command": ["true"]}), &status).await;
    let given_up = |run: &HarnessRun| {
        let conditions = run.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        condition::get(&conditions, condition::types::RESULT_RECORDED)
            .is_some_and(|c| c.reason == "Abandoned")
    };
    stage.until("fix", given_up).await;
    running.stop().await;
}

#[tokio::test]
async fn a_name_with_a_result_takes_it_over_in_a_new_store() {
    let first = Stage::new().await;
    let running = first.start();
    let run = first.claiming("fix").await;
    assert_eq!(running.handle.deliver(first.output(&run)).await, Receipt::Recorded);
    running.stop().await;
    let tip = first.tip();

    let key = first.key.clone();
    let mut second = Stage::beside(first.repo, "holder-2");
    second.key = key;
    second.repository(&json!({})).await;
    second.asking("fix").await;
    let running = second.start();
    let status = second.until("fix", has_result).await.status.unwrap();
    let result = status.result.unwrap();
    assert_eq!((result.outcome, result.reason), (Phase::Succeeded, Reason::Recorded));
    assert_eq!(result.commit, Some(tip.clone()));
    assert!(status.start_time.is_some() && status.completion_time.is_some());
    assert_eq!(second.tip(), tip, "nothing is written");
    running.stop().await;
}

#[tokio::test]
async fn a_crash_between_record_and_status_ends_the_same() {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.run("fix", &json!({"command": ["true"]}), &running_status()).await;
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    let before = stage.get("fix").await.status.unwrap();
    running.kill().await;
    let tip = stage.tip();
    let at = ostler::ports::objects::At::of(&run).unwrap().any_version();
    let forgotten = json!({"result": null, "exitCode": null, "usage": null, "conditions": []});
    stage.store.write_status(&super::stage::id("fix"), &at, &forgotten, "test").await.unwrap();
    let running = stage.start();
    // The sidecar was not answered, and asks again.
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    assert_eq!(stage.tip(), tip, "at most one record");
    let after = stage.get("fix").await.status.unwrap();
    assert_eq!((after.result, after.exit_code, after.usage), (before.result, before.exit_code, before.usage));
    running.stop().await;
}

#[tokio::test]
async fn a_delivery_of_another_run_is_refused() {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.run("fix", &json!({"command": ["true"]}), &running_status()).await;
    let mut delivery = stage.output(&run);
    delivery.report.run.uid = "somebody-else".parse().unwrap();
    assert_eq!(running.handle.deliver(delivery).await, Receipt::OtherRun);
    running.stop().await;
}
