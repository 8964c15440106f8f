//! After convergence, zero writes: counted by the API server, not by us.

use std::{collections::BTreeMap, time::Duration};

use kube::api::{Patch, PatchParams};
use ostler::kinds::{
    Agent, ConfigRepository, Session,
    condition::{self, types},
    meta,
};
use serde_json::json;

use super::stage::{Stage, address, agent, signing_key};
use crate::{
    cluster::{eventually, object_writes},
    scenarios::{manifests::manifest, up::Up},
};

const AGENTS: usize = 450;
const SESSIONS: usize = 50;
/// Rounds that are asked for.
const ROUNDS: usize = 3;
/// The time that is measured.
const QUIET: Duration = Duration::from_mins(1);

/// How often a repository's loop came to an end without a change, as the controller's metrics say.
async fn unchanged(controller: &Up) -> u64 {
    let metrics = reqwest::get(format!("{}/metrics", address(controller, "health"))).await.unwrap();
    let text = metrics.text().await.unwrap();
    let line =
        text.lines().find(|line| line.starts_with("ostler_syncs_total{") && line.contains("unchanged"));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// How often a role asked anything of the store.
async fn calls(role: &Up) -> u64 {
    let metrics = reqwest::get(format!("{}/metrics", address(role, "health"))).await.unwrap();
    let text = metrics.text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("ostler_object_calls_total{"));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

async fn converged(stage: &Stage, commit: &str) {
    eventually("500 objects are in force", async || {
        let repository = stage.api::<ConfigRepository>().get("agents").await.unwrap().status?;
        let applied = repository.last_applied.as_ref()?;
        let ready =
            [types::READY, types::LEDGER_READY].map(|t| condition::is_true(&repository.conditions, t));
        (applied.commit == commit && ready == [true; 2]).then_some(())
    })
    .await;
    eventually("every session has its status", async || {
        let sessions = stage.api::<Session>().list(&kube::api::ListParams::default()).await.unwrap();
        let done = |session: &Session| {
            session.status.as_ref().is_some_and(|s| s.observed_generation == session.metadata.generation)
        };
        (sessions.items.len() == SESSIONS && sessions.iter().all(done)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_objects_cost_no_write_once_they_are_in_force() {
    let stage = Stage::new("quiet").await;
    let (key, signers) = signing_key(stage.folder.path());
    let mut files: Vec<(String, String)> =
        (0..AGENTS).map(|n| (format!("agents/a{n}.yaml"), agent(&format!("a{n}"), "one"))).collect();
    files.extend((0..SESSIONS).map(|n| {
        let session = manifest("Session", &format!("s{n}"), &json!({"agentRef": {"name": "a0"}}));
        (format!("sessions/s{n}.yaml"), session)
    }));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let commit = stage.config.push(&files, "500 objects");
    stage.follow(json!({"interval": "5s"})).await;
    let mut command = stage.role("controller", "controller");
    command.args(["--places", "none", "--ledger-signers"]).arg(signers);
    let controller = Up::start(command);
    let mut command = stage.role("recorder", "recorder");
    command.args(["--listen", "127.0.0.1:0", "--signing-key"]).arg(key);
    let (certificate, key) = self_signed(&stage);
    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    let recorder = Up::start(command);
    converged(&stage, &commit).await;
    assert_eq!(
        stage.api::<Agent>().list(&kube::api::ListParams::default()).await.unwrap().items.len(),
        AGENTS
    );

    let (ours, theirs) = (stage.user("controller"), stage.user("recorder"));
    let users = [ours.as_str(), theirs.as_str()];
    let before = object_writes(&stage.audit().await, &users);
    let rounds = unchanged(&controller).await;
    let recorders = calls(&recorder).await;
    assert!(recorders > 0, "what it read to begin with is counted");
    tokio::time::sleep(QUIET).await;
    assert_eq!(calls(&recorder).await, recorders, "requests of the recorder, which looks every 5 s");
    assert!(unchanged(&controller).await > rounds, "it looked in that time");
    assert_eq!(object_writes(&stage.audit().await, &users), before, "writes in a minute of quiet");

    // Rounds that are asked for plan everything again. That they were handled is said, and nothing else.
    for round in 0..ROUNDS {
        let asked = format!("round-{round}");
        let patch = json!({"metadata": {"annotations": {meta::RECONCILE_REQUESTED_AT: asked}}});
        let api = stage.api::<ConfigRepository>();
        api.patch("agents", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        eventually("the request is handled", async || {
            let status = api.get("agents").await.unwrap().status?;
            (status.last_handled_reconcile_at.as_deref() == Some(&asked)).then_some(())
        })
        .await;
    }
    let mut expected: BTreeMap<String, usize> = before;
    *expected.entry("patch configrepositories/status".to_owned()).or_default() += ROUNDS;
    assert_eq!(object_writes(&stage.audit().await, &users), expected, "one line for each request");
    assert_eq!((controller.stop().code, recorder.stop().code), (Some(0), Some(0)));
}

fn self_signed(stage: &Stage) -> (std::path::PathBuf, std::path::PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = (stage.path("tls.crt"), stage.path("tls.key"));
    std::fs::write(&files.0, certificate.pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}
