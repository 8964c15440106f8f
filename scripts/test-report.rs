//! Puts together what the scenarios of `make test`, `make test-node` and `make test-cluster` noted: `ostler-test-report FOLDER ENGINE...`.
//!
//! Reads the lines in `FOLDER`, writes `FOLDER.json` and says in words what is in it. It fails when one of the engines has
//! no scenario, when a scenario failed or ran on some of the engines only without being named in
//! `tests/known-differences.yaml`, and when one that is named there ran on all.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};

/// A line that a scenario leaves when it ends; `tests/it/report.rs` writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    scenario: String,
    engine: String,
    server_version: String,
    seconds: f64,
    passed: bool,
}

/// A test that failed at first and passed when it was run alone; `scripts/test.sh` writes it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Flaky {
    part: String,
    test: String,
    output: String,
}

/// An entry of `tests/known-differences.yaml`.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Difference {
    /// Both do it, each in its way.
    Behaviour {
        what: String,
        embedded: String,
        #[serde(rename = "apiServer")]
        api_server: String,
        reason: String,
    },
    /// A scenario that is tried on one engine only.
    Scenario { scenario: String, only: String, reason: String },
}

/// How a scenario went on one engine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ran {
    seconds: f64,
    /// `passed`, `failed`, or `flaky`: it failed and then passed.
    outcome: &'static str,
    #[serde(skip)]
    server_version: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    engine: String,
    server_version: String,
    scenarios: usize,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    engines: Vec<Total>,
    /// By its name, then by engine.
    scenarios: BTreeMap<String, BTreeMap<String, Ran>>,
    flaky: Vec<Flaky>,
    problems: Vec<String>,
}

impl Report {
    fn of(lines: &[Line], flaky: Vec<Flaky>, known: &[Difference], engines: &[String]) -> Self {
        let scenarios = by_scenario(lines);
        let mut report = Self { engines: totals(&scenarios), scenarios, flaky, problems: Vec::new() };
        report.problems = problems(&report, known, engines);
        report
    }
}

fn by_scenario(lines: &[Line]) -> BTreeMap<String, BTreeMap<String, Ran>> {
    let mut found: BTreeMap<String, BTreeMap<String, Ran>> = BTreeMap::new();
    for line in lines {
        let ran = found.entry(line.scenario.clone()).or_default();
        let outcome = if line.passed { "passed" } else { "failed" };
        let server_version = line.server_version.clone();
        let ran = ran.entry(line.engine.clone()).or_insert(Ran { seconds: 0.0, outcome, server_version });
        ran.seconds += line.seconds;
        if ran.outcome != outcome {
            ran.outcome = "flaky";
        }
    }
    found
}

fn totals(scenarios: &BTreeMap<String, BTreeMap<String, Ran>>) -> Vec<Total> {
    let mut found: BTreeMap<&String, Total> = BTreeMap::new();
    for (engine, ran) in scenarios.values().flatten() {
        let total = found.entry(engine).or_insert_with(|| Total {
            engine: engine.clone(),
            server_version: ran.server_version.clone(),
            scenarios: 0,
            seconds: 0.0,
        });
        total.scenarios += 1;
        total.seconds += ran.seconds;
    }
    found.into_values().collect()
}

fn problems(report: &Report, known: &[Difference], engines: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let ran_on = |scenario: &String| -> BTreeSet<&String> {
        report.scenarios.get(scenario).into_iter().flat_map(BTreeMap::keys).collect()
    };
    for engine in engines.iter().filter(|engine| report.engines.iter().all(|e| e.engine != **engine)) {
        problems.push(format!("no scenario ran on {engine}"));
    }
    let alone: BTreeMap<&String, &String> = known
        .iter()
        .filter_map(|entry| match entry {
            Difference::Scenario { scenario, only, .. } => Some((scenario, only)),
            Difference::Behaviour { .. } => None,
        })
        .collect();
    for (scenario, ran) in &report.scenarios {
        let its_own = engines.iter().filter(|engine| has_scenarios(engine, scenario));
        let wanted = its_own.filter(|_| !alone.contains_key(scenario));
        for engine in wanted.filter(|engine| !ran.contains_key(*engine)) {
            problems.push(format!("{scenario} did not run on {engine}, and is not named as known"));
        }
        for (engine, _) in ran.iter().filter(|(_, ran)| ran.outcome == "failed") {
            problems.push(format!("{scenario} failed on {engine}"));
        }
    }
    for (scenario, only) in alone.into_iter().filter(|(_, only)| engines.contains(only)) {
        if ran_on(scenario) != BTreeSet::from([only]) {
            problems.push(format!(
                "{scenario} is named as one of {only} only, and ran on {:?}",
                ran_on(scenario)
            ));
        }
    }
    problems
}

/// Whether a scenario is one of an engine: what needs a node, or somebody's cluster, runs on nothing else.
fn has_scenarios(engine: &str, scenario: &str) -> bool {
    let own = [("node", "node::"), ("cluster", "anywhere::cluster::")];
    match own.iter().find(|(_, prefix)| scenario.starts_with(prefix)) {
        Some((only, _)) => engine == *only,
        None => own.iter().all(|(special, _)| engine != *special),
    }
}

/// The lines of the JSON Lines files of a folder that are, or are not, the list of flaky tests.
fn lines<T: serde::de::DeserializeOwned>(folder: &Path, flaky: bool) -> Result<Vec<T>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_lines = path.extension() == Some(OsStr::new("jsonl"));
        if !is_lines || (path.file_stem() == Some(OsStr::new("flaky"))) != flaky {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            let line = serde_json::from_str(line).map_err(|error| format!("{}: {error}", path.display()))?;
            found.push(line);
        }
    }
    Ok(found)
}

fn known() -> Result<Vec<Difference>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/known-differences.yaml");
    let entries: Vec<Difference> = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    for entry in &entries {
        let words = match entry {
            Difference::Behaviour { what, embedded, api_server, reason } => {
                vec![what, embedded, api_server, reason]
            }
            Difference::Scenario { scenario, only, reason } => vec![scenario, only, reason],
        };
        if words.iter().any(|word| word.trim().is_empty()) {
            return Err(format!("known-differences.yaml: something is left out of {entry:?}").into());
        }
    }
    Ok(entries)
}

fn tell(report: &Report) {
    for Total { engine, server_version, scenarios, seconds } in &report.engines {
        println!("{engine} ({server_version}): {scenarios} scenarios, {seconds:.0} s");
    }
    for Flaky { part, test, output } in &report.flaky {
        println!(
            "\n{:!<80}\n!! FLAKY: {test} ({part}) failed, and passed alone. It said first:\n{output}",
            ""
        );
    }
    if !report.flaky.is_empty() {
        println!("{:!<80}", "");
        println!("!! {} flaky tests, see above: they pass, and are to be repaired", report.flaky.len());
    }
    for problem in &report.problems {
        eprintln!("test report: {problem}");
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: ostler-test-report FOLDER ENGINE...")?);
    let engines: Vec<String> = arguments.collect();
    let report = Report::of(&lines(&folder, false)?, lines(&folder, true)?, &known()?, &engines);
    fs::write(folder.with_extension("json"), serde_json::to_string_pretty(&report)? + "\n")?;
    tell(&report);
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(scenario: &str, engine: &str, passed: bool) -> Line {
        Line {
            scenario: scenario.to_owned(),
            engine: engine.to_owned(),
            server_version: "v1".to_owned(),
            seconds: 1.5,
            passed,
        }
    }

    fn report(lines: &[Line], known: &[Difference]) -> Report {
        Report::of(lines, Vec::new(), known, &["a".to_owned(), "b".to_owned()])
    }

    fn alone(scenario: &str, only: &str) -> Difference {
        Difference::Scenario { scenario: scenario.to_owned(), only: only.to_owned(), reason: "r".to_owned() }
    }

    #[test]
    fn what_ran_on_both_engines_is_fine() {
        let done = report(&[line("x", "a", true), line("x", "b", true), line("x", "b", true)], &[]);
        assert_eq!(done.problems, Vec::<String>::new());
        let totals: Vec<_> =
            done.engines.iter().map(|e| (e.engine.as_str(), e.scenarios, e.seconds)).collect();
        assert_eq!(totals, [("a", 1, 1.5), ("b", 1, 3.0)]);
    }

    #[test]
    fn one_engine_alone_must_be_known() {
        let lines = [line("x", "a", true), line("x", "b", true), line("y", "a", true)];
        assert_eq!(report(&lines, &[]).problems, ["y did not run on b, and is not named as known"]);
        assert_eq!(report(&lines, &[alone("y", "a")]).problems, Vec::<String>::new());
        assert_eq!(report(&lines, &[alone("y", "b")]).problems.len(), 1, "it is the other one");
        assert_eq!(report(&lines, &[alone("y", "a"), alone("x", "a")]).problems.len(), 1, "x ran on both");
        assert_eq!(report(&lines, &[alone("y", "a"), alone("z", "a")]).problems.len(), 1, "z is forgotten");
    }

    #[test]
    fn a_node_and_a_cluster_have_scenarios_of_their_own() {
        let lines = [
            line("x", "a", true),
            line("node::y", "node", true),
            line("anywhere::cluster::z", "cluster", true),
        ];
        for engine in ["a", "node", "cluster"] {
            let done = Report::of(&lines, Vec::new(), &[], &[engine.to_owned()]);
            assert_eq!(done.problems, Vec::<String>::new(), "{engine}");
        }
    }

    #[test]
    fn nothing_and_failures_are_problems() {
        assert_eq!(report(&[], &[]).problems, ["no scenario ran on a", "no scenario ran on b"]);
        let failed = report(&[line("x", "a", false), line("x", "b", true)], &[]);
        assert_eq!(failed.problems, ["x failed on a"]);
        let flaky = report(&[line("x", "a", false), line("x", "a", true), line("x", "b", true)], &[]);
        assert_eq!(flaky.problems, Vec::<String>::new());
        assert_eq!(flaky.scenarios["x"]["a"].outcome, "flaky");
    }

    #[test]
    fn the_known_differences_are_whole() {
        assert!(known().unwrap().len() > 5);
    }
}
