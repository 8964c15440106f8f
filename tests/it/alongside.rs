//! What `integrations` and `tests/alongside` know of our objects: that nothing of a run is left out there.
//!
//! What others make of each state is tried by `go test` in `tests/alongside`, with their own libraries.

use std::collections::BTreeSet;

use ostler::kinds::{Kind, Phase, Reason};
use serde_json::Value;

const TABLE: &str = include_str!("../alongside/health.yaml");

fn table() -> Vec<Value> {
    serde_saphyr::from_str(TABLE).unwrap()
}

fn reasons(entry: &Value) -> impl Iterator<Item = String> {
    let list = entry["reasons"].as_array().cloned().unwrap_or_default();
    list.into_iter().map(|reason| reason.as_str().unwrap().to_owned())
}

#[test]
fn every_kind_is_in_the_table() {
    let told: BTreeSet<String> =
        table().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, Kind::OURS.into_iter().map(|kind| kind.to_string()).collect());
}

#[test]
fn every_phase_is_in_the_table() {
    let schema = ostler::schema::structural(Kind::HarnessRun);
    let phases = schema.pointer("/properties/status/properties/phase/enum").unwrap().as_array().unwrap();
    assert!(phases.contains(&Phase::Lost.as_str().into()), "{phases:?}");
    let told: Vec<Value> = table().iter().map(|entry| entry["status"]["phase"].clone()).collect();
    let missing: Vec<_> = phases.iter().filter(|phase| !told.contains(phase)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_reason_of_a_run_is_in_the_table() {
    let told: BTreeSet<String> = table().iter().flat_map(reasons).collect();
    // the list has the reasons of recording, of repositories and of places behind those of a run's standing
    let of_runs = Reason::ALL.iter().filter(|reason| **reason <= Reason::SpecChangedAfterRun);
    let general = [Reason::Progressing, Reason::Ready];
    let missing: Vec<_> =
        of_runs.filter(|reason| !general.contains(reason) && !told.contains(reason.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unknown: Vec<_> =
        told.iter().filter(|word| Reason::ALL.iter().all(|reason| reason.as_str() != *word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
