//! What a run with a pod costs the API server: the writes of ostler's identities, from its push to its record.

use std::collections::BTreeMap;

use kube::Api;
use ostler::kinds::{
    ConfigRepository, HarnessRun, Phase, Session,
    condition::{self, types},
};

use super::{
    Enforcer, shared,
    stage::{End, Stage},
};
use crate::{
    cluster::{AuditLine, Cluster, eventually, object_writes},
    scenarios::manifests,
};

/// The most writes from a run's push to its record; events, leases and reviews are counted apart.
const MOST: usize = 10;
const DONE: End<'_> = ("Succeeded", "Completed", Some(0));

/// The audit log with everything in it that was asked before this call, if that was answered a while ago.
async fn audit_until_now(cluster: &Cluster, namespace: &str) -> Vec<AuditLine> {
    let mark = format!("mark-{}", uuid::Uuid::new_v4().simple());
    let sessions: Api<Session> = Api::namespaced(cluster.client().await, namespace);
    // it does not exist, and that it was asked for is written down
    assert!(sessions.get_opt(&mark).await.unwrap().is_none());
    cluster.audit_until(|lines| lines.iter().any(|line| line.object_ref.name == mark)).await
}

async fn until_ready(stage: &Stage<'_>) {
    eventually("the session and the ledger are ready", async || {
        let sessions: Api<Session> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let configs: Api<ConfigRepository> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let session = sessions.get_opt("work").await.unwrap()?.status?;
        let config = configs.get("agents").await.unwrap().status?;
        let ready = condition::is_true(&session.conditions, types::READY)
            && condition::is_true(&config.conditions, types::LEDGER_READY)
            && condition::is_true(&config.conditions, types::READY);
        ready.then_some(())
    })
    .await;
}

/// Waits until nothing of the run is left to do: its pod is gone, and its session is told so.
async fn until_over(stage: &Stage<'_>, run: &str) {
    eventually("the pod is gone and the session is free", async || {
        let sessions: Api<Session> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let status = sessions.get("work").await.unwrap().status?;
        let free = status.active_runs == Some(0) && status.last_run?.phase == Phase::Succeeded;
        (free && stage.pod(run).await.is_none()).then_some(())
    })
    .await;
}

/// Waits until the ledger's tip is noted, which comes a while after the commits: one write for all runs of that time.
async fn until_noted(stage: &Stage<'_>) {
    eventually("the ledger's tip is noted", async || {
        let configs: Api<ConfigRepository> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let noted = configs.get("agents").await.unwrap().status?.ledger_tip?;
        let runs: Api<HarnessRun> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let recorded = runs.get("first").await.unwrap().status?.result?.commit?;
        (noted == recorded).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_run_in_a_pod_costs_few_writes() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("writes").await;
    until_ready(&stage).await;
    // The first run of a namespace has its policy made, once for all.
    stage.push_run("first", &manifests::commits("FIRST", "done"));
    let status = stage.until_recorded("first").await;
    stage.assert_end("first", &status, DONE).await;
    until_over(&stage, "first").await;
    until_noted(&stage).await;

    let cluster = node.cluster();
    let before = audit_until_now(cluster, &stage.namespace).await.len();
    stage.push_run("second", &manifests::commits("SECOND", "done"));
    let status = stage.until_recorded("second").await;
    stage.assert_end("second", &status, DONE).await;
    until_over(&stage, "second").await;
    let namespace = stage.namespace.clone();
    // Nobody of this stage asks for anything any more when these are the last lines.
    drop(stage);
    let lines = audit_until_now(cluster, &namespace).await.split_off(before);
    let landed: Vec<AuditLine> = lines.into_iter().filter(|line| line.code() < 400).collect();
    let roles = ["controller", "recorder"].map(|role| format!("{role}-of-{namespace}"));
    let proxies = landed.iter().map(|line| line.user.username.as_str()).find(|user| user.ends_with(":proxy"));
    let users: Vec<&str> = roles.iter().map(String::as_str).chain(proxies).collect();
    let recorder = &roles[1];
    let told = |line: &AuditLine| line.is_of(&[recorder]) && line.what() == "patch harnessruns/status";
    let recorded = landed.iter().rposition(told).expect("the recorder tells of the record");
    let counts = object_writes(&landed[..=recorded], &users);
    let after = object_writes(&landed[recorded + 1..], &users);
    assert_all_is_told(&counts, &after);
    let total = counts.values().sum::<usize>();
    let words = format!("from apply to recorded, by verb and object: {counts:#?}\nafter that: {after:#?}");
    println!("{total} writes {words}");
    assert!(total <= MOST, "{total} writes of a run, at most {MOST}; {words}");
}

/// A count in which one of these is missing is not one of a whole run.
fn assert_all_is_told(counts: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) {
    let needed = ["patch harnessruns", "patch harnessruns/status", "create pods", "patch pods"];
    for needed in needed {
        assert!(counts.contains_key(needed), "no {needed}: {counts:#?}");
    }
    assert!(after.contains_key("delete pods"), "the pod is deleted after the record: {after:#?}");
}
