//! Many runs that end in the same moment: how long until each result is in the ledger.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    by_hand,
    figures::{Against, Figure, Samples, show},
    ledger::{self, Onlooker},
    manifests::{agent, policy, run, session},
    stage::{LEDGER, Stage, checked, git},
    up::Up,
};

const RUNS: usize = 50;
/// They hold the gate open, say so, and end when its writer goes: all at once.
const SCRIPT: &str = "exec 3<GATE/fifo; echo ready; cat <&3";

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let stage = Stage::new(&[policy(0, 443)])?;
    let gate = stage.path("gate");
    fs::create_dir(&gate)?;
    checked("mkfifo", &Command::new("mkfifo").arg(gate.join("fifo")).output()?)?;
    // Opened for reading too, a FIFO opens without anybody at its other end.
    let writer = fs::File::options().read(true).write(true).open(gate.join("fifo"))?;
    let gate = gate.display().to_string();
    let script = SCRIPT.replace("GATE", &gate);
    let begin = stage.commit(
        &[agent("waiter", &script, Some(&gate)), session("many", "waiter", RUNS, None)],
        "a session of many",
    )?;
    stage.push()?;
    let up = Up::start(&stage, &begin)?;
    let onlooker = Onlooker::start(&stage);
    let runs: Vec<_> = (0..RUNS).map(|number| run(&format!("run-{number}"), "many")).collect();
    stage.commit(&runs, "many runs")?;
    let (pushed, _) = stage.push()?;
    let running = everyone_waits(&up)?;
    let claims = ledger::commits(&stage, "claim.yaml")?;

    let (ended, ended_wall) = (Instant::now(), Timestamp::now());
    drop(writer);
    let mut recorded = BTreeSet::new();
    up.until(|line| {
        recorded.extend(line.recorded().map(str::to_owned));
        recorded.len() == RUNS
    })?;
    let seen = onlooker.results(&stage)?;
    let from_end: Vec<Duration> = seen.values().map(|seen_at| *seen_at - ended).collect();
    anyhow::ensure!(from_end.len() == RUNS, "{} of {RUNS} results are in the ledger", from_end.len());
    let from_end = Samples::new(from_end)?;
    let results = ledger::commits(&stage, "result.yaml")?;
    let by_hand = (0..10).map(|number| by_hand::signed_commit(&stage, number)).collect::<Result<Vec<_>>>()?;
    let by_hand = Samples::new(by_hand)?;
    Ok(vec![
        Figure::plain(
            "fiftyStarts",
            "begin of the push of 50 runs → all 50 agents run side by side",
            format!("{}, {claims} claim commits", show((running - pushed).as_secs_f64() * 1000.0)),
            json!({"ms": (running - pushed).as_secs_f64() * 1000.0, "claimCommits": claims}),
        ),
        write_back(&from_end, &by_hand, results),
        collecting(&stage, ended_wall)?,
    ])
}

/// Waits until all agents hold the gate open.
fn everyone_waits(up: &Up) -> Result<Instant> {
    let mut running = BTreeSet::new();
    up.until(|line| {
        running.extend(line.running().map(str::to_owned));
        running.len() == RUNS
    })?;
    let last = Instant::now() + Duration::from_secs(30);
    loop {
        let places = fs::read_dir(up.state().join("places"))?.filter_map(Result::ok);
        let said = places.filter(|place| {
            fs::metadata(place.path().join("outbox/output.log")).is_ok_and(|output| output.len() > 0)
        });
        if said.count() == RUNS {
            return Ok(Instant::now());
        }
        anyhow::ensure!(Instant::now() < last, "not all agents came up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_back(from_end: &Samples, by_hand: &Samples, commits: usize) -> Figure {
    let (p50, p99) = (from_end.percentile(50), from_end.percentile(99));
    let mut json = from_end.json();
    json["commits"] = json!(commits);
    json["baseline"] = json!({"what": "a signed commit by hand", "times": by_hand.json()});
    Figure {
        id: "writeBack",
        what: "50 agents end at once → each result on the ledger branch".to_owned(),
        value: format!("p50 {}, p99 {}, {commits} commits", show(p50), show(p99)),
        against: Some(Against {
            baseline: "50 times `git commit -S` and `git push` of one file by hand, against p99",
            value: format!("50 × {}", show(by_hand.median())),
            ratio: p99 / (50.0 * by_hand.median()),
        }),
        json,
    }
}

/// The recorder's part and the sidecars' part: results say when they came to the recorder's desk.
fn collecting(stage: &Stage, ended: Timestamp) -> Result<Figure> {
    let listed = git(&stage.config(), &["ls-tree", "-r", "--name-only", LEDGER])?;
    let mut times = Vec::new();
    for path in listed.lines().filter(|path| path.ends_with("/result.yaml")) {
        let text = git(&stage.config(), &["show", &format!("{LEDGER}:{path}")])?;
        let entry: Value = serde_saphyr::from_str(&text)?;
        let at: Timestamp = entry["recordedAt"].as_str().context("recordedAt")?.parse()?;
        times.push(Duration::try_from(at.duration_since(ended)).unwrap_or_default());
    }
    let what = "of that, until the result was collected and the recorder wrote its entry (`recordedAt`)";
    Ok(Figure::timed("collecting", what, &Samples::new(times)?, None))
}
