//! What is left of a bench: numbers for machines, a page for people.

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figures::Figure;

/// The machine that was measured.
pub(crate) struct Machine {
    pub(crate) facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks at this machine, before anything is measured: the load is the one that others make.
    pub(crate) fn look() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = field(&cpus, "model name").unwrap_or("unknown");
        let count = std::thread::available_parallelism()?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let memory = field(&memory, "MemTotal").context("MemTotal")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let load: Vec<&str> = load.split(' ').take(3).collect();
        let folder = std::env::temp_dir().display().to_string();
        let disk = said("stat", &["--file-system", "--format=%T", &folder])?;
        let facts = vec![
            ("processor", format!("{count} × {model}")),
            ("memory", memory.to_owned()),
            ("load before (1, 5, 15 min)", load.join(" ")),
            ("kernel", said("uname", &["-sr"])?),
            ("file system of the repositories", disk),
            ("git", said("git", &["version"])?),
            ("bubblewrap", said("bwrap", &["--version"])?),
            ("build", "Cargo profile `bench`: release without link-time optimisation".to_owned()),
        ];
        Ok(Self { facts })
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// What a program printed.
pub(crate) fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes `bench.json` and the page, and returns the page.
pub(crate) fn write(
    json: &Path,
    page: &Path,
    machine: &Machine,
    figures: &[Figure],
    took: Duration,
) -> Result<String> {
    fs::write(json, serde_json::to_string_pretty(&numbers(machine, figures, took))? + "\n")?;
    let text = markdown(machine, figures, took)?;
    // what `make bench-cluster` wrote stays
    let old = fs::read_to_string(page).unwrap_or_default();
    let rest = old.find(CLUSTER).map_or("", |at| &old[at..]);
    fs::write(page, format!("{text}{rest}"))?;
    Ok(text)
}

/// Where the part of the page begins that `make bench-cluster` writes.
pub(crate) const CLUSTER: &str = "\n## On a Kubernetes API server\n";

/// The report for machines.
pub(crate) fn numbers(machine: &Machine, figures: &[Figure], took: Duration) -> Value {
    let facts: serde_json::Map<String, Value> =
        machine.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let all: serde_json::Map<String, Value> = figures
        .iter()
        .map(|figure| {
            let mut value = figure.json.clone();
            value["what"] = json!(figure.what);
            value["ratio"] = figure.against.as_ref().map_or(Value::Null, |against| json!(against.ratio));
            (figure.id.to_owned(), value)
        })
        .collect();
    json!({"seconds": took.as_secs(), "machine": facts, "figures": all})
}

fn markdown(machine: &Machine, figures: &[Figure], took: Duration) -> Result<String> {
    let mut out = String::from(BEFORE);
    out.push_str("\n| what | figure | baseline | its figure | ratio |\n|---|---|---|---|---|\n");
    for Figure { what, value, against, .. } in figures {
        let (baseline, theirs, ratio) = against.as_ref().map_or_else(Default::default, |against| {
            (against.baseline, against.value.clone(), format!("**{:.2}**", against.ratio))
        });
        writeln!(out, "| {what} | {value} | {baseline} | {theirs} | {ratio} |")?;
    }
    write!(
        out,
        "\nMeasured in {} s, without the build, on this machine:\n\n| | |\n|---|---|\n",
        took.as_secs()
    )?;
    for (name, value) in &machine.facts {
        writeln!(out, "| {name} | {value} |")?;
    }
    out.push_str(AFTER);
    Ok(out)
}

const BEFORE: &str = "# Benchmarks

`make bench` wrote this page; every figure is of one run of it, and `target/bench.json` has each sample. Times are
medians, with the least, the most and the number of repetitions. A ratio is our median divided by the median of the
baseline, which was measured in the same run, in turns with ours: 1 means as fast as by hand, 3 three times as slow.
Compare ratios, not times, between machines. Nothing fails when a figure is bad; people read this page.
";

const AFTER: &str = "
How to read it:

* Everything is on one machine and one disk: there is no network in these figures. Each `git` command by hand is a
  process of its own, and its start is part of the baseline.
* The clock of a push starts before `git push` does. The program that is measured is the one that `ostler up` runs, told
  by nothing but the repository; results count when somebody who reads the branch each millisecond sees them.
* A start by hand proves no egress, has no shim, proxy or code checkout, claims no name in a ledger and survives nothing;
  a result by hand collects nothing and settles no race. The ratio is the price of all that.
* The runs of the first table rows have a code repository of 20 small files; the 50 runs have none.
* The container by hand is given the arguments that `src/harness/bubblewrap.rs` makes for an agent.
* Of the 1,000 objects 400 are agents, 400 sessions and 200 policies. What their controllers do afterwards is not in the
  time, but it happens at the same time.
* Git writes nothing for the 1,000 files but one pack; ostler checks each against its schema and rules and stores it so
  that it survives a crash. The baseline is what reading them costs at least.
* A first `make bench` builds the whole tree with optimisation, which takes far longer than the measures do.
* Percentiles of 50 samples: p99 is the slowest one.
";
