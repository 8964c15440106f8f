//! `ostler up` on a cluster: one at a time, and what a run costs.

use ostler::kinds::{
    ConfigRepository, HarnessRun, Phase, Session,
    condition::{self, types},
};
use rustix::process::{Signal, kill_process};

use super::stage::Stage;
use crate::{
    cluster::{AuditLine, eventually, object_writes},
    scenarios::{manifests, up::Up},
    servers::repo::Repo,
};

const LEASE: &str = "ostler-up";
/// Writes of one run's object: it is made, with its finalizer; it asks for its claim, has it, has its place, runs, and
/// ends with its result. One more when the machine is slow: that it is collecting is told if it lasts.
const MOST: usize = 7;

impl Stage {
    /// An `up` for this stage's namespace, with a state folder of its own.
    fn up(&self, who: &str) -> Up {
        let mut command = self.ostler();
        command
            .arg("up")
            .arg(self.config.bare())
            .args(["--json", "--places", "machine", "--namespace", &self.namespace, "--state"])
            .arg(self.path(&format!("up-{who}")))
            .arg("--kubeconfig")
            .arg(self.kubeconfig(who));
        Up::start(command)
    }
}

fn serves(up: &Up) {
    up.line("it serves", |line| line["what"] == "listening");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_waits_for_the_lease() {
    let stage = Stage::new("ups").await;
    stage.push_agent("coder", "one");
    let first = stage.up("first");
    serves(&first);
    stage.until_agent("coder", "one").await;
    let second = stage.up("second");
    let (user, other) = (stage.user("second"), stage.user("first"));
    stage
        .cluster
        .audit_until(|lines| lines.iter().any(|l| l.is_of(&[&user]) && l.object_ref.resource == "leases"))
        .await;
    stage.push_agent("coder", "two");
    stage.until_agent("coder", "two").await;
    assert_eq!(object_writes(&stage.audit().await, &[&user]), [].into(), "it waits");
    assert_eq!(first.stop().code, Some(0));
    serves(&second);
    let before = object_writes(&stage.audit().await, &[&other]);
    stage.push_agent("coder", "three");
    stage.until_agent("coder", "three").await;
    assert_eq!(object_writes(&stage.audit().await, &[&other]), before);
    assert_eq!(second.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_up_that_wakes_writes_nothing_and_ends() {
    let stage = Stage::new("frozen").await;
    stage.push_agent("coder", "one");
    let first = stage.up("first");
    serves(&first);
    stage.until_agent("coder", "one").await;
    kill_process(first.pid(), Signal::STOP).unwrap();
    let second = stage.up("second");
    serves(&second);
    let lease = stage.lease(LEASE).await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(1));
    stage.push_agent("coder", "two");
    stage.until_agent("coder", "two").await;
    kill_process(second.pid(), Signal::STOP).unwrap();
    stage.meddle("coder", "meddled").await;
    let user = stage.user("first");
    let writes = async || stage.audit().await.iter().filter(|l| l.is_of(&[&user]) && l.is_write()).count();
    let before = writes().await;
    kill_process(first.pid(), Signal::CONT).unwrap();
    let ended = first.end();
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    assert!(ended.text.contains("another process looks after"), "{}", ended.text);
    assert_eq!(writes().await, before, "it wrote nothing any more, not even its lease");
    kill_process(second.pid(), Signal::CONT).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_costs_few_writes() {
    let stage = Stage::new("cost").await;
    let code = Repo::with_readme();
    let url = code.bare().display().to_string();
    stage.config.push(
        &[("agents/shell.yaml", &manifests::shell()), ("session.yaml", &manifests::session(&url))],
        "an agent and a session",
    );
    let up = stage.up("first");
    serves(&up);
    eventually("the session and the ledger are ready", async || {
        let session = stage.api::<Session>().get_opt("work").await.unwrap()?.status?;
        let config = stage.api::<ConfigRepository>().get("config").await.unwrap().status?;
        let ready = condition::is_true(&session.conditions, types::READY)
            && condition::is_true(&config.conditions, types::LEDGER_READY)
            && condition::is_true(&config.conditions, types::READY);
        ready.then_some(())
    })
    .await;
    let user = stage.user("first");
    let lines = stage.audit().await.len();
    stage
        .config
        .push(&[("runs/fix.yaml", &manifests::run("fix", &manifests::commits("fixed", "yes")))], "a run");
    let run = eventually("the run is recorded", async || {
        let run: HarnessRun = stage.api().get_opt("fix").await.unwrap()?;
        let status = run.status.as_ref()?;
        let recorded = condition::is_true(&status.conditions, types::RESULT_RECORDED);
        (recorded && status.phase.is_some_and(Phase::is_terminal)).then_some(run)
    })
    .await;
    assert_eq!(run.status.unwrap().phase, Some(Phase::Succeeded));
    eventually("the session is free", async || {
        let status = stage.api::<Session>().get("work").await.unwrap().status?;
        (status.active_runs == Some(0) && status.last_run?.phase == Phase::Succeeded).then_some(())
    })
    .await;
    assert_eq!(up.stop().code, Some(0));
    let landed: Vec<AuditLine> =
        stage.audit().await.split_off(lines).into_iter().filter(|line| line.code() < 400).collect();
    let on_run: Vec<AuditLine> =
        landed.iter().filter(|l| l.object_ref.resource == "harnessruns").cloned().collect();
    let counts = object_writes(&landed, &[&user]);
    let total: usize = object_writes(&on_run, &[&user]).values().sum();
    println!("writes from a run's push to its record, by verb and object: {counts:?}");
    assert!(total <= MOST, "{total} writes of the run: {counts:?}");
    let of_session = counts.get("patch sessions/status").copied().unwrap_or_default();
    assert_eq!(of_session, 2, "the session tells that it is busy, and that it is free: {counts:?}");
    assert!(total > 0, "nothing was counted");
}
