//! The steps of a run as a table, and a walk through its life.

mod end;
mod place;
mod start;

use serde_json::json;

use super::*;
use crate::{
    kinds::harness_run::{Claim, EgressSeen, ResultRef, Startup},
    ports::workloads::Stage,
};

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn run() -> HarnessRun {
    serde_json::from_value(json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
        "metadata": {
            "namespace": "team", "name": "fix", "uid": "u-1", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "1970-01-12T13:46:30Z"
        },
        "spec": {}
    }))
    .unwrap()
}

fn spec() -> PlaceSpec {
    crate::resolve::testing::place_spec()
}

fn observed(run: &HarnessRun) -> Observed<'_> {
    Observed {
        run,
        digest: "v1:a".into(),
        resolved: Ok(spec()),
        suspended: None,
        ledger: Ledger::Ready,
        turn: Turn::Now,
        place: None,
        ttl: None,
        now: at(NOW),
    }
}

fn place(stage: Stage) -> Place {
    Place {
        run: spec().run,
        uid: "p-1".parse().unwrap(),
        name: "p".into(),
        node: None,
        stage,
        begun: true,
        trouble: None,
        confirmed: false,
        started_at: (stage >= Stage::Running).then(|| at(NOW - 20)),
        ended_at: (stage >= Stage::Collecting).then(|| at(NOW - 10)),
        startup: Startup::default(),
        policies: vec![],
        egress_proven: None,
        limits_not_enforced: None,
        egress: EgressSeen::default(),
        base: None,
        delivery_error: None,
    }
}

fn claimed(run: &mut HarnessRun) -> &mut HarnessRunStatus {
    run.metadata.finalizers = Some(vec![meta::RECORD_FINALIZER.into()]);
    let status = run.status.get_or_insert_default();
    status.digest = Some("v1:a".into());
    status.claim =
        Some(Claim { requested_at: Some(Time(at(NOW - 2))), holder: Some("h".into()), commit: None });
    status
}

fn standing(step: &Step) -> (Phase, Reason) {
    (step.status.phase.unwrap(), step.status.reason.unwrap())
}
