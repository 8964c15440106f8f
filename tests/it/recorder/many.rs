//! What the recorder asks of the store: for many runs, with a watch that is behind, and when nothing happens.

use std::cell::Cell;

use ostler::{
    kinds::{
        Kind,
        condition::{self, types},
    },
    report::{Delivery, Receipt},
};
use serde_json::json;

use super::{
    results::running_status,
    stage::{Running, Stage, has_result, is_claimed},
};
use crate::{
    cluster::eventually,
    faults::Faulty,
    servers::{
        git_http::{Fault, GitHttp, Options},
        repo::Repo,
    },
};

/// Reads and writes that are about the repository and its tip: there are few, however many runs there are.
const FEW: u64 = 6;

fn asked(faulty: &Faulty, verb: &str) -> u64 {
    faulty.calls().get(verb).copied().unwrap_or_default()
}

/// Another turn begins, so all before it are over.
async fn a_turn(running: &Running, nobodys: &Delivery) {
    assert_eq!(running.handle.deliver(nobodys.clone()).await, Receipt::OtherRun);
}

#[tokio::test]
async fn a_claim_is_one_write_and_nothing_is_read_for_it() {
    const RUNS: u64 = 250;
    let stage = Stage::new().await;
    let names: Vec<String> = (0..RUNS).map(|number| format!("r-{number}")).collect();
    for name in &names {
        stage.asking(name).await;
    }
    let faulty = Faulty::new(stage.store.clone());
    let running = stage.start_on(faulty.clone());
    stage.ledger(&running, |state| state.view().is_some_and(|view| view.len() == names.len())).await;
    running.stop().await;
    for name in &names {
        let run = stage.get(name).await;
        assert!(is_claimed(&run), "{name}: {:?}", run.status);
    }
    assert_eq!(stage.audited("claim").len(), names.len());
    let commits = stage.repo.bare_git(&["rev-list", "--count", "ostler/results"]);
    assert_eq!(commits, "4", "the beginning, and a hundred in each");
    let (read, written) = (asked(&faulty, "get"), asked(&faulty, "write_status"));
    assert!(read <= FEW && (RUNS..=RUNS + FEW).contains(&written), "{:?}", faulty.calls());
}

#[tokio::test]
async fn results_that_come_at_once_share_commits_and_are_one_write_each() {
    const RUNS: u64 = 60;
    let stage = Stage::new().await;
    let mut deliveries = Vec::new();
    for number in 0..RUNS {
        let run = stage.run(&format!("r-{number}"), &json!({"command": ["true"]}), &running_status()).await;
        deliveries.push(stage.delivery(&run, &json!({}), &[]));
    }
    let faulty = Faulty::new(stage.store.clone());
    let running = stage.start_on(faulty.clone());
    let receipts =
        futures::future::join_all(deliveries.into_iter().map(|one| running.handle.deliver(one))).await;
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Recorded), "{receipts:?}");
    running.stop().await;
    for number in 0..RUNS {
        assert!(has_result(&stage.get(&format!("r-{number}")).await), "r-{number}");
    }
    let commits: u64 = stage.repo.bare_git(&["rev-list", "--count", "ostler/results"]).parse().unwrap();
    assert!(commits <= RUNS / 6, "{commits} commits");
    let (read, written) = (asked(&faulty, "get"), asked(&faulty, "write_status"));
    assert!(read <= FEW && (RUNS..=RUNS + FEW).contains(&written), "{:?}", faulty.calls());
}

#[tokio::test]
async fn what_was_said_is_not_said_again_while_the_watch_is_behind() {
    let stage = Stage::new().await;
    let run = stage.asking("fix").await;
    let mut gone = run.clone();
    gone.metadata.name = Some("gone".to_owned());
    let nobodys = stage.delivery(&gone, &json!({}), &[]);
    let faulty = Faulty::new(stage.store.clone());
    faulty.hold_changes(Kind::HarnessRun);
    let running = stage.start_on(faulty.clone());
    stage.until("fix", is_claimed).await;
    for _ in 0..5 {
        a_turn(&running, &nobodys).await;
    }
    assert_eq!(stage.audited("claim"), ["HarnessRun team/fix"]);
    // It ends, and we do not hear of it either.
    stage.end("fix").await;
    a_turn(&running, &nobodys).await;
    assert!(!has_result(&stage.get("fix").await));
    faulty.let_go(Kind::HarnessRun);
    stage.until("fix", has_result).await;
    running.stop().await;
    assert_eq!(stage.audited("claim").len(), 1);
    assert_eq!(stage.audited("record").len(), 1);
}

/// A stage whose ledger is looked at each second, over HTTP.
async fn over_http() -> (Stage, GitHttp) {
    let stage = Stage::beside(Repo::with_readme(), "holder-1");
    let web = GitHttp::start(stage.repo.root(), Options { push: true, ..Options::default() });
    stage.repository_of(&json!({"url": web.url("origin.git"), "interval": "1s"})).await;
    (stage, web)
}

fn says_ready(stage_of: Option<&ostler::kinds::ConfigRepository>) -> bool {
    let status = stage_of.and_then(|repository| repository.status.as_ref());
    status.is_some_and(|status| condition::is_true(&status.conditions, types::LEDGER_READY))
}

#[tokio::test]
async fn an_idle_ledger_asks_nothing_of_the_store() {
    let (stage, web) = over_http().await;
    let faulty = Faulty::new(stage.store.clone());
    let running = stage.start_on(faulty.clone());
    stage.asking("fix").await;
    stage.until("fix", is_claimed).await;
    eventually("the tip is noted, and everything has come back", async || {
        let noted = running.caches.repositories.get("team", "agents")?;
        let tip = noted.status.as_ref()?.ledger_tip.clone()?;
        (tip == stage.tip() && says_ready(Some(&noted))).then_some(())
    })
    .await;
    // One more look, so that the one after the last write is over.
    let looks = async |count: usize| {
        web.seen();
        let seen = Cell::new(0);
        eventually("the ledger is looked at", async || {
            let new = web.seen().iter().filter(|request| request.path.contains("info/refs")).count();
            seen.set(seen.get() + new);
            (seen.get() >= count).then_some(())
        })
        .await;
    };
    looks(2).await;
    faulty.take_calls();
    looks(4).await;
    assert_eq!(faulty.take_calls(), 0, "requests to the store while nothing happens");
    running.stop().await;
}

#[tokio::test]
async fn that_the_ledger_is_back_is_said_though_the_watch_still_shows_what_was_before() {
    let (stage, web) = over_http().await;
    let faulty = Faulty::new(stage.store.clone());
    let running = stage.start_on(faulty.clone());
    eventually("the ledger is ready, and we have heard", async || {
        says_ready(running.caches.repositories.get("team", "agents").as_deref()).then_some(())
    })
    .await;
    faulty.hold_changes(Kind::ConfigRepository);
    web.fault(Fault::Status(500));
    eventually("it is away", async || (!says_ready(Some(&stage.config().await))).then_some(())).await;
    web.fault(Fault::None);
    eventually("it is back", async || says_ready(Some(&stage.config().await)).then_some(())).await;
    let shown = running.caches.repositories.get("team", "agents").unwrap();
    assert_ne!(shown.metadata.resource_version, stage.config().await.metadata.resource_version);
    running.stop().await;
}
