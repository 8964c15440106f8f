//! Before a run starts, its name is in the ledger.

use std::time::Duration;

use futures::StreamExt;
use ostler::{
    kinds::{ConfigRepository, Phase, Reason, condition},
    ledger::{self, ClaimEntry, File},
    ports::objects,
};
use serde_json::json;

use super::stage::{Stage, asked, has_result, is_claimed, path};
use crate::cluster::PAUSE;

#[tokio::test]
async fn a_claim_is_a_signed_commit_and_the_first_one_begins_the_branch() {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.claiming("fix").await;
    let claim = run.status.unwrap().claim.unwrap();
    assert_eq!(claim.holder.as_deref(), Some("holder-1"));
    assert_eq!(claim.commit.unwrap(), stage.tip());
    let files = stage.files();
    assert_eq!(files, ["README.md".to_owned(), path("fix", File::Claim)]);
    let entry = ClaimEntry::from_yaml(&stage.show(&path("fix", File::Claim))).unwrap();
    assert_eq!((entry.holder.as_str(), entry.digest.as_str()), ("holder-1", "v1:aa"));
    assert_eq!(Some(entry.uid.to_string()), run.metadata.uid);
    let signers = format!("gpg.ssh.allowedSignersFile={}", stage.signers().display());
    stage.repo.bare_git(&["-c", &signers, "verify-commit", "ostler/results"]);
    let trailers = stage.repo.bare_git(&[
        "log",
        "-1",
        "--format=%(trailers:key=Ostler-Run,valueonly)",
        "ostler/results",
    ]);
    assert_eq!(trailers.trim(), "team/fix");
    let known = stage.ledger(&running, |s| s.view().is_some_and(|view| view.len() == 1)).await;
    let ledger::State::Ready { tip, .. } = known else { panic!("{known:?}") };
    assert_eq!(tip.unwrap().as_str(), stage.tip());
    assert_eq!(stage.config().await.status.unwrap().ledger_tip, Some(stage.tip()));
    running.stop().await;
}

#[tokio::test]
async fn fifty_claims_share_a_few_commits() {
    let stage = Stage::new().await;
    for number in 0..50 {
        stage.asking(&format!("r{number}")).await;
    }
    let running = stage.start();
    for number in 0..50 {
        stage.until(&format!("r{number}"), is_claimed).await;
    }
    let commits: u32 = stage.repo.bare_git(&["rev-list", "--count", "ostler/results"]).parse().unwrap();
    assert_eq!(commits, 2, "the beginning, and one for all");
    running.stop().await;
}

#[tokio::test]
async fn a_restart_finds_its_own_claim() {
    let stage = Stage::new().await;
    stage.asking("fix").await;
    let running = stage.start();
    stage.until("fix", is_claimed).await;
    running.stop().await;
    let tip = stage.tip();
    // As if the process had died between the push and the status.
    let run = stage.get("fix").await;
    let at = ostler::ports::objects::At::of(&run).unwrap();
    let forgotten = json!({"claim": {"holder": null, "commit": null}, "conditions": []});
    stage.store.write_status(&super::stage::id("fix"), &at, &forgotten, "test").await.unwrap();
    let running = stage.start();
    let run = stage.until("fix", is_claimed).await;
    assert_eq!(stage.tip(), tip, "nothing is written twice");
    assert_eq!(run.status.unwrap().claim.unwrap().commit, Some(tip));
    running.stop().await;
}

#[tokio::test]
async fn another_control_plane_does_not_run_a_claimed_name() {
    let first = Stage::new().await;
    let running = first.start();
    first.claiming("fix").await;
    running.stop().await;

    let key = first.key.clone();
    let mut second = Stage::beside(first.repo, "holder-2");
    second.key = key;
    second.repository(&json!({})).await;
    let running = second.start();
    second.asking("fix").await;
    let run = second.until("fix", has_result).await;
    let status = run.status.unwrap();
    let result = status.result.unwrap();
    assert_eq!((result.outcome, result.reason), (Phase::Lost, Reason::ClaimedElsewhere));
    assert_eq!(result.commit, None);
    let recorded = condition::get(&status.conditions, condition::types::RESULT_RECORDED).unwrap();
    assert_eq!((recorded.status.as_str(), recorded.reason.as_str()), ("False", "ClaimedElsewhere"));
    assert!(status.claim.unwrap().holder.is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_name_that_another_run_of_ours_used_fails() {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.claiming("fix").await;
    let at = ostler::ports::objects::At::of(&run).unwrap().any_version();
    stage.store.delete(&super::stage::id("fix"), &at).await.unwrap();
    stage.asking("fix").await;
    let run = stage.until("fix", has_result).await;
    let result = run.status.unwrap().result.unwrap();
    assert_eq!((result.outcome, result.reason), (Phase::Failed, Reason::NameUsed));
    running.stop().await;
}

#[tokio::test]
async fn a_foreign_pusher_is_built_upon() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.claiming("a").await;
    let work = stage.checkout();
    std::fs::write(work.join("NOTES.md"), "ours too\n").unwrap();
    stage.repo.git(&["add", "--all"]);
    stage.repo.git(&["commit", "--quiet", "-m", "a note by people"]);
    stage.push();
    let foreign = stage.tip();
    stage.claiming("b").await;
    stage.repo.bare_git(&["merge-base", "--is-ancestor", &foreign, "ostler/results"]);
    assert!(stage.files().contains(&"NOTES.md".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn a_rewritten_ledger_is_not_believed() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.claiming("a").await;
    running.stop().await;
    stage.checkout();
    stage.repo.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    stage.push();
    let wound_back = stage.tip();
    let running = stage.start();
    stage.asking("b").await;
    stage.ledger(&running, |state| matches!(state, ledger::State::Rewritten(_))).await;
    let ready = stage.config().await.status.unwrap().conditions;
    running.stop().await;
    assert_eq!(stage.tip(), wound_back, "nothing is written");
    assert!(!is_claimed(&stage.get("b").await));
    // The state is published before the status is written, and stopping may come between.
    let reason = condition::get(&ready, condition::types::LEDGER_READY).map(|ready| ready.reason.clone());
    assert!(matches!(reason.as_deref(), Some("LedgerRewritten" | "LedgerReady")), "{reason:?}");
}

#[tokio::test]
async fn a_rewritten_ledger_is_not_believed_though_its_tip_was_never_noted() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.claiming("a").await;
    let noted = stage.tip();
    stage.claiming("b").await;
    running.kill().await;
    let status = stage.config().await.status.unwrap();
    assert_eq!(status.ledger_tip, Some(noted.clone()), "only the run says what came after");
    stage.checkout();
    stage.repo.git(&["reset", "--quiet", "--hard", &noted]);
    stage.push();
    let running = stage.start();
    stage.ledger(&running, |state| matches!(state, ledger::State::Rewritten(_))).await;
    running.stop().await;
    assert_eq!(stage.tip(), noted, "nothing is written");
    // Conditions count in seconds, and what a run was told in the same second is demanded: to be on the safe side.
    let second = jiff::Timestamp::now().as_second();
    while jiff::Timestamp::now().as_second() == second {
        tokio::time::sleep(PAUSE).await;
    }
    // Somebody means it: no tip is demanded, and none of those that runs remember.
    let config = stage.config().await;
    let id = ostler::ports::objects::id_of(ostler::kinds::Kind::ConfigRepository, &config).unwrap();
    let at = ostler::ports::objects::At::of(&config).unwrap();
    stage.store.write_status(&id, &at, &json!({"ledgerTip": null}), "test").await.unwrap();
    let running = stage.start();
    stage.ledger(&running, |state| state.view().is_some_and(|view| view.len() == 1)).await;
    running.stop().await;
    let running = stage.start();
    stage.claiming("c").await;
    running.stop().await;
    assert_eq!(stage.config().await.status.unwrap().ledger_tip, Some(stage.tip()), "it is noted at the end");
}

#[tokio::test]
async fn the_tip_is_noted_when_a_run_leaves_that_remembers_it() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.claiming("a").await;
    let noted = stage.tip();
    let run = stage.claiming("b").await;
    assert_eq!(stage.config().await.status.unwrap().ledger_tip, Some(noted));
    let at = ostler::ports::objects::At::of(&run).unwrap().any_version();
    let finalizer = json!({"metadata": {"finalizers": [ostler::kinds::meta::RECORD_FINALIZER]}});
    stage.store.merge(&super::stage::id("b"), &at, &finalizer, "test").await.unwrap();
    stage.store.delete(&super::stage::id("b"), &at).await.unwrap();
    let mut changes = objects::watch::<ConfigRepository>(stage.store.as_ref(), None);
    while stage.config().await.status.unwrap().ledger_tip != Some(stage.tip()) {
        let changed = tokio::time::timeout(Duration::from_mins(1), changes.next()).await;
        changed.expect("the tip is noted").expect("the watch goes on").unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn an_untrusted_entry_is_doubt_and_not_absence() {
    let stage = Stage::new().await;
    let running = stage.start();
    stage.claiming("a").await;
    running.stop().await;
    let work = stage.checkout();
    std::fs::remove_file(work.join(path("a", File::Claim))).unwrap();
    stage.repo.git(&["commit", "--quiet", "-a", "-m", "the claim was never there"]);
    stage.push();
    let run = stage.get("a").await;
    let at = ostler::ports::objects::At::of(&run).unwrap().any_version();
    stage.store.delete(&super::stage::id("a"), &at).await.unwrap();
    stage.asking("a").await;
    let running = stage.start();
    let doubted = |run: &ostler::kinds::HarnessRun| {
        let conditions = run.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        condition::get(&conditions, condition::types::CLAIMED).is_some_and(|c| c.reason == "LedgerUntrusted")
    };
    let run = stage.until("a", doubted).await;
    assert!(!is_claimed(&run) && !has_result(&run));
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_that_refuses_pushes_says_what_to_do() {
    let stage = Stage::new().await;
    let hook = stage.repo.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'results are closed' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let running = stage.start();
    stage.asking("a").await;
    let known = stage.ledger(&running, |state| matches!(state, ledger::State::NotPushable(_))).await;
    let ledger::State::NotPushable(text) = known else { panic!("{known:?}") };
    for part in ["results are closed", "--claim cluster", "--ledger-url"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!is_claimed(&stage.get("a").await));
    // The hook goes, and the claim comes without anybody asking again.
    std::fs::remove_file(&hook).unwrap();
    stage.until("a", is_claimed).await;
    running.stop().await;
}

#[tokio::test]
async fn a_claim_of_the_store_alone_needs_no_ledger_and_says_what_that_gives_up() {
    let stage = Stage::beside(crate::servers::repo::Repo::with_readme(), "holder-1");
    stage.repository(&json!({"claim": "Cluster"})).await;
    let running = stage.start();
    stage.run("a", &json!({"command": ["true"]}), &asked()).await;
    let held = |run: &ostler::kinds::HarnessRun| {
        run.status.as_ref().and_then(|s| s.claim.as_ref()).is_some_and(|claim| claim.holder.is_some())
    };
    let status = stage.until("a", held).await.status.unwrap();
    assert_eq!(status.claim.unwrap().commit, None);
    let claimed = condition::get(&status.conditions, condition::types::CLAIMED).unwrap();
    assert!(claimed.message.contains("may run it again"), "{}", claimed.message);
    assert_eq!(stage.repo.bare_git(&["branch", "--list", "ostler/*"]), "");
    running.stop().await;
}
