//! Runs on a real node: the fixture is that of the tests, so a test of theirs measures them, built as this bench is.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::figures::{Figure, Samples};

const TEST: &str = "node::start::a_start_is_told_part_by_part_and_the_agent_speaks_after_the_proof";

/// Figures of a real node, or why there are none.
pub(crate) fn measure() -> Result<Result<Vec<Figure>, &'static str>> {
    if !rustix::process::getuid().is_root() {
        let why = "a node needs root, and `make bench-cluster` was run without";
        println!("left out: {why}");
        return Ok(Err(why));
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-node.json");
    let _ = fs::remove_file(&file);
    let test = Command::new(std::env::var_os("CARGO").context("this is run by cargo")?)
        .args(["test", "--locked", "--profile", "bench", "--test", "it", TEST])
        .args(["--", "--exact", "--ignored"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("OSTLER_BENCH_NODE", &file)
        .stdin(Stdio::null())
        .status()?;
    ensure!(test.success(), "the runs on the node failed; it says above why");
    let runs: Vec<Value> = serde_json::from_slice(&fs::read(&file).context("the test did not run")?)?;
    let whole = runs.iter().filter_map(|run| run["firstOutputMs"].as_u64()).map(Duration::from_millis);
    let whole = Samples::new(whole)?;
    let what = "run created → first byte of its agent's output, after the proof that its way out is closed";
    let first = Figure::plain("nodeFirstOutput", what, format!("{} |", whole.text()), whole.json());
    Ok(Ok(vec![first, parts(&runs)?]))
}

/// The parts of the start, as the status of a run tells them.
fn parts(runs: &[Value]) -> Result<Figure> {
    let mut parts: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for run in runs {
        for (part, ms) in run["startup"].as_object().into_iter().flatten() {
            let ms = ms.as_u64().with_context(|| format!("{part} is not a time"))?;
            parts.entry(part.trim_end_matches("Ms")).or_default().push(Duration::from_millis(ms));
        }
    }
    let (mut texts, mut all) = (Vec::new(), json!({}));
    for (part, times) in parts {
        let samples = Samples::new(times)?;
        texts.push(format!("{part} {:.0}", samples.median()));
        all[part] = samples.json();
    }
    let what =
        "of that, its parts: medians of `status.startup`, in ms; those of Kubernetes are whole seconds";
    Ok(Figure::plain("nodeStartup", what, format!("{} |", texts.join(", ")), all))
}
