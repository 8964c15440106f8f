//! What is left of this bench: numbers for machines, a section of the page for people.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::Result;

use crate::{
    figures::Figure,
    report::{self, CLUSTER, Machine},
};

/// Writes the numbers and the section, and returns the section. The rest of the page stays.
pub(crate) fn write(
    json: &Path,
    page: &Path,
    machine: &Machine,
    server: &str,
    figures: &[Figure],
    took: Duration,
) -> Result<String> {
    let mut numbers = report::numbers(machine, figures, took);
    numbers["server"] = server.into();
    fs::write(json, serde_json::to_string_pretty(&numbers)? + "\n")?;
    let mut text = format!("{CLUSTER}{BEFORE}");
    text.push_str("\n| what | figure | requests by verb |\n|---|---|---|\n");
    for Figure { what, value, .. } in figures {
        writeln!(text, "| {what} | {value} |")?;
    }
    let facts = machine.facts.iter().map(|(name, value)| format!("{name}: {value}"));
    let facts: Vec<String> = facts.filter(|fact| !fact.starts_with("bubblewrap")).collect();
    writeln!(
        text,
        "\nMeasured in {} s with Kubernetes {server}, without the build, on this machine: {}.",
        took.as_secs(),
        facts.join("; ")
    )?;
    text.push_str(AFTER);
    let old = fs::read_to_string(page)?;
    let first = old.find(CLUSTER).map_or(old.as_str(), |at| &old[..at]);
    fs::write(page, format!("{first}{text}"))?;
    Ok(text)
}

const BEFORE: &str = "
`make bench-cluster` wrote this section, and `target/bench-cluster.json` has each sample. The API server, its etcd (which
does not wait for the disk) and `ostler up` share the machine. Requests are those of `ostler up` in the API server's audit
log, from the push until all is at rest, so what controllers write afterwards is counted, too; renewals of its lease are not.
";

const AFTER: &str = "
For comparison, Flux on a machine of this kind: 1,000 objects cold in 4.8 to 5.6 s with 3 requests an object, one changed
file in 2.7 to 5.1 s with 2 requests an object, and 2 requests an object for a round that finds nothing new.
";
