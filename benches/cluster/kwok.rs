//! Runs at scale: the real controller and recorder on a real API server with 10,000 objects. kwok plays the nodes and the
//! bench the sidecars, so what is measured is the cost of the control plane.

mod ground;
mod latency;
mod nodes;
mod role;
mod sidecars;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams, PostParams};
use ostler::kinds::HarnessRun;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::{
    ground::{Ground, Roles, file, user},
    latency::{Quantiles, created_to_pod},
};
use crate::{
    cluster::{AuditLine, object_writes},
    figures::{Figure, Samples, show},
};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_mins(8);
/// Objects in the store once all runs are pushed: an agent, sessions, finished runs and new ones.
const OBJECTS: usize = 300;
/// New runs, all in one commit.
const RUNS: usize = 40;
const SESSIONS: usize = 20;
/// Runs that come one by one.
const PACED: usize = 20;
/// Between two of them.
const PACE: Duration = Duration::from_millis(100);
/// Requests of the bench at once while it stores what is there before.
const AT_ONCE: usize = 16;

fn session(number: usize) -> String {
    format!("session-{}", number % SESSIONS)
}

fn run(name: &str, number: usize) -> (String, String) {
    file("HarnessRun", name, &spec(number))
}

fn spec(number: usize) -> Value {
    json!({"sessionRef": {"name": session(number)}, "timeout": "5m", "task": {"prompt": "go"}})
}

pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Figure>> {
    let agent = json!({"preset": "command", "command": ["/bin/true"], "image": "played.test/agent:1"});
    let mut files = vec![file("Agent", "shell", &agent)];
    let sessions = json!({"agentRef": {"name": "shell"}, "maxConcurrentRuns": RUNS / SESSIONS});
    files.extend((0..SESSIONS).map(|number| file("Session", &session(number), &sessions)));
    let ground = Ground::new(runtime, &files)?;

    let roles = ground.roles()?;
    ground.push(&[run("first", 0)])?;
    ground.until(&roles, 1, 1)?;
    ground.quiet(&roles)?;
    drop(roles);
    let stored = OBJECTS - RUNS - files.len();
    runtime.block_on(store_finished(&ground, stored - 1))?;

    let began = Instant::now();
    let roles = ground.roles()?;
    let mut figures = vec![started(began.elapsed(), &roles)?];
    ground.quiet(&roles)?;
    figures.extend(burst(&ground, &roles, stored)?);
    figures.push(paced(&ground, &roles, stored + RUNS)?);
    Ok(figures)
}

/// Finished runs, each as the first one was left, and with that one's end.
async fn store_finished(ground: &Ground<'_>, count: usize) -> Result<()> {
    let api = ground.runs();
    let first = api.get("first").await?;
    let status = serde_json::to_value(first.status.context("the first run has a status")?)?;
    let store = |number: usize| {
        let (api, status) = (&api, &status);
        async move {
            let name = format!("stored-{number}");
            let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
                "metadata": {"name": name}, "spec": spec(number)});
            let object: HarnessRun = serde_json::from_value(object)?;
            api.create(&PostParams::default(), &object).await?;
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(&name, &PatchParams::default(), &patch).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..count).map(store).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

fn started(took: Duration, roles: &Roles) -> Result<Figure> {
    let (after, peak) = roles.controller.memory()?;
    let json = json!({"seconds": took.as_secs_f64(), "bytes": after, "peakBytes": peak});
    let text = format!("{} |", show(took.as_secs_f64() * 1000.0));
    let what =
        "start of recorder and controller, one after the other, with 9,000 objects stored → both ready";
    Ok(Figure::plain("runsStart", what, text, json))
}

/// All runs at once.
fn burst(ground: &Ground<'_>, roles: &Roles, stored: usize) -> Result<Vec<Figure>> {
    let (_, mark) = ground.cluster.audit_from(0);
    let before = Cost::now(roles)?;
    let files: Vec<_> = (0..RUNS).map(|number| run(&format!("new-{number}"), number)).collect();
    let pushed = ground.push(&files)?;
    let done = ground.until(roles, stored + RUNS, RUNS)?;
    let cost = Cost::now(roles)?;
    ground.quiet(roles)?;
    let (lines, _) = ground.cluster.audit_from(mark);
    let took = (done - pushed).as_secs_f64();
    let per_second = f64::from(u32::try_from(RUNS)?) / took;
    let waited = Samples::new(created_to_pod(&lines))?;
    let first = "1,000 runs in one push, 9,000 objects stored";
    let throughput = Figure::plain(
        "runsPerSecond",
        &format!("{first}: begin of the push → all results recorded and all runs Succeeded"),
        format!("{took:.1} s: **{per_second:.1} runs a second** | {}", per_run(&lines)),
        json!({"seconds": took, "runsPerSecond": per_second, "writes": writes(&lines)}),
    );
    let queued = Figure::plain(
        "burstCreatedToPod",
        "of these: run created → its pod created, which is mostly waiting for others",
        percentiles(&waited),
        waited.json(),
    );
    Ok(vec![throughput, queued, before.reconciled(&cost)?, before.spent(&cost, roles)?])
}

/// One after the other, as people and machines bring them.
fn paced(ground: &Ground<'_>, roles: &Roles, stored: usize) -> Result<Figure> {
    let (_, mark) = ground.cluster.audit_from(0);
    let api = ground.runs();
    let mut next = Instant::now();
    for number in 0..PACED {
        let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"name": format!("paced-{number}")}, "spec": spec(number)});
        let object: HarnessRun = serde_json::from_value(object)?;
        ground.runtime.block_on(api.create(&PostParams::default(), &object))?;
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    ground.until(roles, stored + PACED, RUNS + PACED)?;
    ground.quiet(roles)?;
    let (lines, _) = ground.cluster.audit_from(mark);
    let waited = Samples::new(created_to_pod(&lines))?;
    let what = "200 runs, one every 100 ms, 10,000 objects stored: run created → its pod created";
    Ok(Figure::plain("createdToPod", what, percentiles(&waited), waited.json()))
}

fn percentiles(samples: &Samples) -> String {
    format!("p50 {}, p99 {} |", show(samples.median()), show(samples.percentile(99)))
}

/// Writes by what was written; of both roles.
fn writes(lines: &[AuditLine]) -> BTreeMap<String, usize> {
    object_writes(lines, &[&user("controller"), &user("recorder")])
}

/// How many writes of objects each run took.
fn per_run(lines: &[AuditLine]) -> String {
    let writes = writes(lines);
    let all: usize = writes.values().sum();
    let each: Vec<String> = writes.iter().map(|(what, count)| format!("{count} {what}")).collect();
    format!("{}.{:02} writes a run: {}", all / RUNS, all % RUNS * 100 / RUNS, each.join(", "))
}

/// What the roles had cost at a moment.
struct Cost {
    cpu: [Duration; 2],
    reconciles: String,
}

impl Cost {
    fn now(roles: &Roles) -> Result<Self> {
        let cpu = [roles.controller.cpu()?, roles.recorder.cpu()?];
        Ok(Self { cpu, reconciles: roles.controller.metrics()? })
    }

    fn reconciled(&self, after: &Self) -> Result<Figure> {
        let of = |controller: &str| {
            Quantiles::between(&self.reconciles, &after.reconciles, "ostler_reconcile_seconds", controller)
        };
        let (run, session) = (of("run")?, of("session")?);
        let text = format!("runs: {}; sessions: {} |", run.text(), session.text());
        let json = json!({"run": run.json(), "session": session.json()});
        let what = "of these: one reconciliation, its writes included (`ostler_reconcile_seconds`)";
        Ok(Figure::plain("reconcile", what, text, json))
    }

    fn spent(&self, after: &Self, roles: &Roles) -> Result<Figure> {
        let [controller, recorder] = [0, 1].map(|role| (after.cpu[role] - self.cpu[role]).as_secs_f64());
        let [held, recording] = [roles.controller.memory()?, roles.recorder.memory()?];
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let text = format!(
            "controller {controller:.1} s, {} (peak {}); recorder {recorder:.1} s, {} (peak {}) |",
            mib(held.0),
            mib(held.1),
            mib(recording.0),
            mib(recording.1)
        );
        let of = |cpu: f64, (bytes, peak): (u64, u64)| json!({"cpuSeconds": cpu, "bytes": bytes, "peakBytes": peak});
        let json = json!({"controller": of(controller, held), "recorder": of(recorder, recording)});
        let what = "of these: time on a processor, and resident memory with 10,000 objects";
        Ok(Figure::plain("runsCost", what, text, json))
    }
}
