//! A thousand objects: all at once, one of them, none of them; and what they weigh.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    by_hand,
    figures::{Figure, Samples},
    manifests::{agent, many, policy},
    stage::{Stage, git},
    up::{Up, metric},
};

const OBJECTS: usize = 1_000;
const COLD: usize = 3;
const REPETITIONS: usize = 15;
const NO_OPS: usize = 30;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let (mut applied, mut read) = (vec![], vec![]);
    for _ in 1..COLD {
        let (stage, up) = empty()?;
        all_at_once(&stage, &up, &mut applied, &mut read)?;
    }
    let (stage, up) = empty()?;
    let before = up.memory()?;
    all_at_once(&stage, &up, &mut applied, &mut read)?;
    let mut figures = vec![Figure::timed(
        "thousand",
        "begin of the push of 1,000 new files → all 1,000 objects applied",
        &Samples::new(applied)?,
        Some(("`git fetch` of the commit + `git cat-file --batch` of its files", &Samples::new(read)?)),
    )];
    figures.push(one_of_them(&stage, &up)?);
    figures.extend(none_of_them(&stage, &up)?);
    figures.push(memory(before, up.memory()?));
    Ok(figures)
}

/// A repository with one object, followed.
fn empty() -> Result<(Stage, Up)> {
    let stage = Stage::new(&[agent("shell", "echo ready", None)])?;
    by_hand::clone(&stage)?;
    let up = Up::start(&stage, &git(&stage.config(), &["rev-parse", "main"])?)?;
    Ok((stage, up))
}

fn all_at_once(stage: &Stage, up: &Up, applied: &mut Vec<Duration>, read: &mut Vec<Duration>) -> Result<()> {
    let commit = stage.commit(&many(OBJECTS), "a thousand objects")?;
    let (pushed, _) = stage.push()?;
    applied.push(up.until(|line| line.applied(&commit))?.at - pushed);
    quiet(up)?;
    read.push(by_hand::fetch(stage)? + by_hand::read_all(stage)?);
    Ok(())
}

fn one_of_them(stage: &Stage, up: &Up) -> Result<Figure> {
    let (mut applied, mut fetched) = (vec![], vec![]);
    for port in (0..).take(REPETITIONS) {
        let commit = stage.commit(&[policy(4, 8000 + port)], "another port")?;
        let (pushed, _) = stage.push()?;
        applied.push(up.until(|line| line.applied(&commit))?.at - pushed);
        fetched.push(by_hand::fetch(stage)?);
    }
    quiet(up)?;
    Ok(Figure::timed(
        "oneFile",
        "begin of the push of one changed file among 1,000 → applied",
        &Samples::new(applied)?,
        Some(("`git fetch` of the commit", &Samples::new(fetched)?)),
    ))
}

/// Rounds that a new reference of the repository brings about, and that find nothing to do.
fn none_of_them(stage: &Stage, up: &Up) -> Result<[Figure; 2]> {
    let (mut rounds, mut asked) = (vec![], vec![]);
    let calls = up.metric("ostler_object_calls_total")?;
    let before = up.metric(COUNT)?;
    for number in 0..NO_OPS {
        let before = syncs(up)?;
        git(&stage.config(), &["update-ref", &format!("refs/heads/other-{number}"), "main"])?;
        rounds.push(after(up, before)?);
        asked.push(by_hand::ls_remote(stage)?);
    }
    quiet(up)?;
    let made = up.metric("ostler_object_calls_total")? - calls;
    let syncs = up.metric(COUNT)? - before;
    Ok([
        Figure::timed(
            "noOp",
            "a sync of 1,000 objects that finds nothing new (`ostler_sync_seconds`)",
            &Samples::new(rounds)?,
            Some(("`git ls-remote` of the same repository", &Samples::new(asked)?)),
        ),
        Figure::plain(
            "noOpCalls",
            "calls to the object store in all these syncs (`ostler_object_calls_total`)",
            format!("{made} in {syncs} syncs"),
            json!({"calls": made, "syncs": syncs}),
        ),
    ])
}

const COUNT: &str = "ostler_sync_seconds_count";

/// How many syncs there were, and the seconds that they took: of one answer, so that they fit together.
fn syncs(up: &Up) -> Result<(f64, f64)> {
    let text = up.ask("/metrics")?;
    Ok((metric(&text, COUNT)?, metric(&text, "ostler_sync_seconds_sum")?))
}

/// Waits for a sync after `before`, and says how long it took; the mean, if there were several.
fn after(up: &Up, (count, sum): (f64, f64)) -> Result<Duration> {
    let last = Instant::now() + Duration::from_secs(30);
    while Instant::now() < last {
        let (count_now, sum_now) = syncs(up)?;
        if count_now > count {
            return Ok(Duration::from_secs_f64((sum_now - sum) / (count_now - count)));
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("a new reference brought no sync about")
}

/// Waits until nobody has called the store for half a second: controllers look at what was applied.
fn quiet(up: &Up) -> Result<()> {
    let last = Instant::now() + Duration::from_mins(1);
    let mut before = f64::NAN;
    while Instant::now() < last {
        let now = up.metric("ostler_object_calls_total")? + up.metric(COUNT)?;
        if now.to_bits() == before.to_bits() {
            return Ok(());
        }
        before = now;
        thread::sleep(Duration::from_millis(500));
    }
    bail!("ostler up does not come to rest")
}

fn memory((before, _): (u64, u64), (after, peak): (u64, u64)) -> Figure {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let what = "resident memory of `ostler up` with 1,000 objects, after all of the above";
    let json = json!({"bytes": after, "peakBytes": peak, "beforeBytes": before});
    let text = format!("{} (peak {}; {} with one object)", mib(after), mib(peak), mib(before));
    Figure::plain("memory", what, text, json)
}
