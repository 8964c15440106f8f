//! What is left of this bench: numbers for machines, a section of the page for people.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::Result;
use serde_json::Value;

use crate::{
    figures::Figure,
    report::{self, CLUSTER, Machine},
};

/// What was measured.
pub(crate) struct Measured {
    /// The API server's version.
    pub(crate) server: String,
    /// Objects on an API server.
    pub(crate) objects: Vec<Figure>,
    /// Runs with played nodes.
    pub(crate) runs: Vec<Figure>,
    /// Runs on a real node; or why there are none.
    pub(crate) node: Result<Vec<Figure>, &'static str>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Writes the numbers and the section, and returns the section. The rest of the page stays.
pub(crate) fn write(json: &Path, page: &Path, machine: &Machine, measured: &Measured) -> Result<String> {
    let Measured { server, objects, runs, node, took } = measured;
    let of = |figures: &[Figure]| report::numbers(machine, figures, *took)["figures"].take();
    let mut numbers = report::numbers(machine, objects, *took);
    numbers["server"] = server.as_str().into();
    numbers["runs"] = of(runs);
    numbers["node"] = node.as_ref().map_or(Value::Null, |figures| of(figures));
    fs::write(json, serde_json::to_string_pretty(&numbers)? + "\n")?;
    let mut text = format!("{CLUSTER}{BEFORE}");
    table(&mut text, "requests by verb", objects)?;
    let facts = machine.facts.iter().map(|(name, value)| format!("{name}: {value}"));
    let facts: Vec<String> = facts.filter(|fact| !fact.starts_with("bubblewrap")).collect();
    writeln!(
        text,
        "\nMeasured in {} s, all of this section, with Kubernetes {server}, without the build, on this machine: {}.",
        took.as_secs(),
        facts.join("; ")
    )?;
    text.push_str(AFTER);
    text.push_str(RUNS);
    table(&mut text, "writes of objects", runs)?;
    text.push_str(AFTER_RUNS);
    text.push_str(NODE);
    match node {
        Ok(figures) => table(&mut text, "", figures)?,
        Err(why) => writeln!(text, "\nNot measured: {why}.")?,
    }
    let old = fs::read_to_string(page)?;
    let first = old.find(CLUSTER).map_or(old.as_str(), |at| &old[..at]);
    fs::write(page, format!("{first}{text}"))?;
    Ok(text)
}

fn table(text: &mut String, third: &str, figures: &[Figure]) -> Result<()> {
    write!(text, "\n| what | figure | {third} |\n|---|---|---|\n")?;
    for Figure { what, value, .. } in figures {
        writeln!(text, "| {what} | {value} |")?;
    }
    Ok(())
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

const RUNS: &str = "
### Runs, with played nodes

`ostler controller` and `ostler recorder` are the real ones, in processes of their own, and so are the API server, the exec
streams into pods, the tokens of pods, the claims and the signed results in Git. kwok plays ten nodes, and the bench
everything behind them: it gives each pod a node, and speaks for its sidecar, whose agent always works for one second and
ends well. Left out are what a node does (images, containers, the proof of egress, a checkout), the egress proxy between a
sidecar and the recorder, the scheduler, and the controller manager. All of it shares the machine, so runs per second are
those of everything together.
";

const AFTER_RUNS: &str = "
Times from run to pod are those of the API server's audit log, answer to answer; those of reconciliations are from the
buckets of a histogram. Writes are those of both roles until all is at rest, those refused for a conflict too; leases, events
and reviews are not counted.

For comparison, agent-sandbox: 23 to 24 writes for each claim of a sandbox, and its check with kwok, 100 nodes and 75 claims
a second for 10 s from a pool of 1,050 *warm* sandboxes wants a claim adopted in 300 ms at p50 and in 500 ms at p99. Here no
pod is made before its run, and each run is claimed in Git first.
";

const NODE: &str = "
### On a node

A run on the node of `make test-node`: the real scheduler, kubelet and containerd, images that are there already, a network
policy that is enforced, the proxy in a pod. Controller and recorder are beside it on the machine.
";
