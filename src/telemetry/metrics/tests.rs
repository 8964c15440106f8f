//! What is counted, as whoever scrapes it reads it.

use super::*;

fn has(metrics: &Metrics, line: &str) {
    let text = metrics.encode();
    assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
}

#[test]
fn what_happens_is_counted_under_its_words() {
    let metrics = Metrics::new();
    let (namespace, name) = ("default".parse().unwrap(), "agents".parse().unwrap());
    metrics.synced(&namespace, &name, SyncResult::Partial, Duration::from_millis(7));
    metrics.applied(Kind::HarnessRun, Action::Create);
    metrics.run_started();
    metrics.recorded(Entry::Claim, RecordResult::Pushed);
    metrics.written_back(Duration::from_secs(100));
    metrics.egress_denied(3);
    metrics.set_queue(Queue::Record, 2);
    metrics.reconciled(Reconciler::Run, Duration::from_micros(70));
    metrics.answered(Some("/api/v1/runs/{ns}/{name}"), 200);
    metrics.answered(None, 404);
    for line in [
        r#"ostler_syncs_total{repository="default/agents",result="partial"} 1"#,
        r#"ostler_sync_seconds_bucket{le="0.005"} 0"#,
        r#"ostler_sync_seconds_bucket{le="0.01"} 1"#,
        r#"ostler_objects_applied_total{kind="HarnessRun",action="create"} 1"#,
        "ostler_run_starts_total 1",
        r#"ostler_recorded_total{entry="claim",result="pushed"} 1"#,
        r#"ostler_write_back_seconds_bucket{le="+Inf"} 1"#,
        "ostler_egress_denials_total 3",
        r#"ostler_queue_length{queue="record"} 2"#,
        r#"ostler_reconcile_seconds_bucket{le="0.00005",controller="run"} 0"#,
        r#"ostler_reconcile_seconds_bucket{le="0.0001",controller="run"} 1"#,
        r#"ostler_api_requests_total{route="/api/v1/runs/{ns}/{name}",status="200"} 1"#,
        r#"ostler_api_requests_total{route="unmatched",status="404"} 1"#,
        "# EOF",
    ] {
        has(&metrics, line);
    }
}

#[test]
fn a_phase_without_runs_falls_back_to_zero() {
    let metrics = Metrics::new();
    metrics.set_runs([(Phase::Running, 2)]);
    has(&metrics, r#"ostler_runs{phase="Running"} 2"#);
    metrics.set_runs([(Phase::Succeeded, 2)]);
    has(&metrics, r#"ostler_runs{phase="Running"} 0"#);
    has(&metrics, r#"ostler_runs{phase="Succeeded"} 2"#);
}

#[test]
fn a_flood_of_names_does_not_grow_the_labels() {
    let metrics = Metrics::new();
    let namespace = "default".parse().unwrap();
    for number in 0..MAX_NAMES + 50 {
        let name = format!("r{number}").parse().unwrap();
        metrics.synced(&namespace, &name, SyncResult::Applied, Duration::ZERO);
    }
    has(&metrics, r#"ostler_syncs_total{repository="other",result="applied"} 50"#);
    assert_eq!(metrics.encode().matches("ostler_syncs_total{").count(), MAX_NAMES + 1);
}

#[test]
fn every_phase_has_its_gauge() {
    let metrics = Metrics::new();
    metrics.set_runs([]);
    let all = metrics.encode();
    for phase in Phase::ALL {
        assert!(all.contains(&format!("phase=\"{phase}\"")), "{phase}");
    }
    assert_eq!(all.matches("ostler_runs{").count(), Phase::ALL.len());
}
