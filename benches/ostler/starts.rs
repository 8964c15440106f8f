//! From a push to the agent's first output, and to its result in the ledger.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    by_hand,
    figures::{Figure, Samples},
    ledger::Onlooker,
    manifests::{agent, run, session},
    stage::Stage,
    up::Up,
};

const REPETITIONS: usize = 9;
/// Steps of a start that the place itself timed, as `status.startup` names them. The steps before are told from times in
/// whole seconds, which is too coarse here.
const STEPS: [&str; 3] = ["egressProvenMs", "clonedMs", "firstOutputMs"];

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let stage = Stage::new(&[agent("shell", "echo ready", None)])?;
    let code = stage.path("code").display().to_string();
    let begin = stage.commit(&[session("work", "shell", 1, Some(&code))], "a session")?;
    stage.push()?;
    by_hand::clone(&stage)?;
    let up = Up::start(&stage, &begin)?;
    let onlooker = Onlooker::start(&stage);
    let (mut pushes, mut outputs, mut results, mut starts) = (vec![], vec![], vec![], vec![]);
    let (mut hand_starts, mut hand_results) = (vec![], vec![]);
    for number in 0..REPETITIONS {
        let name = format!("run-{number}");
        stage.commit(&[run(&name, "work")], "a run")?;
        let (pushed, push) = stage.push()?;
        let output = first_output(up.state(), &name)?;
        up.until(|line| line.recorded() == Some(&name))?;
        pushes.push(push);
        outputs.push(output - pushed);
        results.push(onlooker.result(&stage, &name)? - pushed);
        starts.push(steps(&up, &name)?);
        let start = by_hand::fetch(&stage)? + by_hand::container(&stage)?;
        hand_starts.push(start);
        hand_results.push(start + by_hand::signed_commit(&stage, number)?);
    }
    let by_hand_start = Samples::new(hand_starts)?;
    let by_hand_result = Samples::new(hand_results)?;
    Ok(vec![
        Figure::timed(
            "push",
            "`git push` of one new file, which the next two figures include",
            &Samples::new(pushes)?,
            None,
        ),
        Figure::timed(
            "firstOutput",
            "begin of the push of a run → first byte of its agent's output",
            &Samples::new(outputs)?,
            Some(("`git fetch` of the commit + the same `bwrap` start of `true`", &by_hand_start)),
        ),
        Figure::timed(
            "result",
            "begin of the push of a run → its signed result on the ledger branch",
            &Samples::new(results)?,
            Some(("the same + `git commit -S` and `git push` of one file", &by_hand_result)),
        ),
        in_steps(&starts),
    ])
}

/// Waits for a byte in the output of the run's place.
fn first_output(state: &Path, run: &str) -> Result<Instant> {
    let last = Instant::now() + Duration::from_mins(1);
    let mut place = None;
    while Instant::now() < last {
        if place.is_none() {
            place = place_of(state, run);
        }
        let output = place.as_ref().and_then(|place| fs::metadata(place.join("outbox/output.log")).ok());
        if output.is_some_and(|output| output.len() > 0) {
            return Ok(Instant::now());
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("{run} said nothing")
}

/// The place of a run. One that is still being made has a name with a dot, and gets another.
fn place_of(state: &Path, run: &str) -> Option<PathBuf> {
    let places = fs::read_dir(state.join("places")).ok()?.filter_map(Result::ok);
    let made = places.filter(|place| !place.file_name().as_encoded_bytes().starts_with(b"."));
    made.map(|place| place.path()).find(|place| {
        let asked = fs::read(place.join("place.json")).ok();
        let asked = asked.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        asked.is_some_and(|asked| asked["spec"]["run"]["name"] == run)
    })
}

fn steps(up: &Up, run: &str) -> Result<Value> {
    let answer: Value = serde_json::from_str(&up.ask(&format!("/api/v1/runs/default/{run}"))?)?;
    answer["object"]["status"].get("startup").cloned().context("a run without status.startup")
}

/// Where the time goes, as the runs' status says.
fn in_steps(starts: &[Value]) -> Figure {
    let median = |step: &str| {
        let mut all: Vec<i64> = starts.iter().filter_map(|start| start[step].as_i64()).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let medians: Vec<(&str, i64)> = STEPS.iter().filter_map(|step| Some((*step, median(step)?))).collect();
    let text: Vec<String> =
        medians.iter().map(|(step, ms)| format!("{} {ms}", step.trim_end_matches("Ms"))).collect();
    let what = "of that, the steps in the place: medians of `status.startup`, in ms";
    let json = medians.iter().map(|(step, ms)| ((*step).to_owned(), json!(ms))).collect();
    Figure::plain("startup", what, text.join(", "), Value::Object(json))
}
