//! The way of a run from its creation to the first thing its agent says, and how long each part of it takes.
//!
//! `make bench-cluster` runs this with [`FIGURES`] set, and writes what it finds to docs/benchmarks.md.

use jiff::Timestamp;
use serde_json::json;

use super::{Enforcer, shared, stage::Stage};
use crate::cluster::AuditLine;

/// How many runs, one after the other, after one that nobody looks at.
const RUNS: usize = 5;
/// The variable with the file that the figures are written to.
const FIGURES: &str = "OSTLER_BENCH_NODE";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_start_is_told_part_by_part_and_the_agent_speaks_after_the_proof() {
    shared().await.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("start").await;
    let mut figures = Vec::new();
    for number in 0..=RUNS {
        let name = format!("run-{number}");
        stage.push_run(&name, "date +%s%N");
        let status = stage.until_recorded(&name).await;
        stage.assert_end(&name, &status, ("Succeeded", "Completed", Some(0))).await;
        let spoke: i128 = stage.output(&name).trim().parse().unwrap();
        let created = |line: &&AuditLine| {
            line.object_ref.resource == "harnessruns" && line.object_ref.name == name && line.code() == 201
        };
        let lines = stage.node.cluster().audit_until(|lines| lines.iter().any(|line| created(&line))).await;
        let created = lines.iter().find(created).unwrap().stage_timestamp;
        let spoke = Timestamp::from_nanosecond(spoke).unwrap();
        assert!(spoke > created, "{name}: created at {created}, spoke at {spoke}");
        let startup = serde_json::to_value(status.startup).unwrap();
        for part in [
            "queuedMs",
            "claimedMs",
            "placedMs",
            "scheduledMs",
            "installedMs",
            "egressProvenMs",
            "firstOutputMs",
        ] {
            assert!(startup[part].is_i64(), "{name}: {part} is not told: {startup}");
        }
        figures.push(
            json!({"firstOutputMs": spoke.as_millisecond() - created.as_millisecond(), "startup": startup}),
        );
    }
    // the first finds nothing in any cache
    figures.remove(0);
    if let Some(file) = std::env::var_os(FIGURES) {
        std::fs::write(file, serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
    }
}
