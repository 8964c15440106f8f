//! The steps of a run as a table, and a walk through its life.

use serde_json::json;

use super::*;
use crate::{
    kinds::harness_run::{Claim, PlaceRef, ResultRef},
    ports::workloads::{Stage, Trouble},
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
        startup: crate::kinds::harness_run::Startup::default(),
        policies: vec![],
        egress_proven: None,
        limits_not_enforced: None,
        egress: crate::kinds::harness_run::EgressSeen::default(),
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

#[test]
fn a_result_that_is_not_acknowledged_says_why() {
    let mut run = run();
    claimed(&mut run).phase = Some(Phase::Collecting);
    let why = "the recorder answered 413: too much";
    let waiting = Place { delivery_error: Some(why.to_owned()), ..place(Stage::Delivering) };
    let step = step(&Observed { place: Some(waiting), ..observed(&run) });
    assert_eq!(standing(&step), (Phase::Collecting, Reason::RecordingResult));
    assert_eq!(step.status.message, Some(format!("not delivered yet: {why}")));
}

#[test]
fn a_run_that_may_not_start_says_why() {
    let run = run();
    let missing = || Err(Missing { reason: Reason::SessionNotFound, message: "m".into() });
    let held = || Ledger::Held { reason: Reason::LedgerUnavailable, message: "m".into() };
    let cases = [
        (
            Observed { suspended: Some("s".into()), resolved: missing(), ..observed(&run) },
            (Phase::Pending, Reason::Suspended),
        ),
        (
            Observed { resolved: missing(), ledger: held(), ..observed(&run) },
            (Phase::Pending, Reason::SessionNotFound),
        ),
        (Observed { ledger: held(), ..observed(&run) }, (Phase::Held, Reason::LedgerUnavailable)),
        (Observed { turn: Turn::Wait("x".into()), ..observed(&run) }, (Phase::Queued, Reason::SessionBusy)),
    ];
    for (observed, expected) in cases {
        let step = step(&observed);
        assert_eq!(standing(&step), expected);
        assert!(step.effects.is_empty() && step.status.claim.is_none(), "nothing is asked for: {expected:?}");
    }
}

#[test]
fn what_a_new_run_refers_to_may_not_show_yet() {
    let mut run = run();
    let missing = |reason| Err(Missing { reason, message: "m".into() });
    let mut age = |seconds: i64, reason| {
        run.metadata.creation_timestamp = Some(Time(at(NOW - seconds)));
        let step = step(&Observed { resolved: missing(reason), ..observed(&run) });
        (step.status.phase, step.again.map(|again| again.as_secs()))
    };
    assert_eq!(age(1, Reason::SessionNotFound), (None, Some(1)));
    assert_eq!(age(2, Reason::SessionNotFound), (Some(Phase::Pending), None));
    assert_eq!(age(-9, Reason::SessionNotFound), (Some(Phase::Pending), None), "another clock");
    assert_eq!(age(0, Reason::InvalidSpec), (Some(Phase::Pending), None), "that will not change by itself");
    run.status.get_or_insert_default().phase = Some(Phase::Queued);
    let step = step(&Observed { resolved: missing(Reason::AgentNotFound), ..observed(&run) });
    assert_eq!(standing(&step), (Phase::Pending, Reason::AgentNotFound), "it was there before");
}

#[test]
fn the_finalizer_comes_before_the_claim_and_the_claim_before_the_place() {
    let mut run = run();
    let first = step(&observed(&run));
    assert_eq!(first.effects, [Effect::AddFinalizer]);
    assert_eq!(standing(&first), (Phase::Queued, Reason::ClaimRequested));
    assert_eq!(first.status.startup.as_ref().unwrap().queued_ms, Some(10_000));

    run.metadata.finalizers = Some(vec![meta::RECORD_FINALIZER.into()]);
    run.status = Some(first.status);
    let second = step(&observed(&run));
    assert!(second.effects.is_empty(), "no claim, no start");
    assert_eq!(Some(&second.status), run.status.as_ref(), "waiting writes nothing");

    claimed(&mut run);
    assert_eq!(step(&observed(&run)).effects, [Effect::Ensure(Box::new(spec()))]);
}

#[test]
fn a_run_that_was_made_with_the_finalizer_and_never_asked_for_a_claim_leaves_no_record() {
    let mut run = run();
    run.metadata.finalizers = Some(vec![meta::RECORD_FINALIZER.into()]);
    let first = step(&observed(&run));
    assert!(first.effects.is_empty(), "it has it already");
    assert_eq!(standing(&first), (Phase::Queued, Reason::ClaimRequested));
    let mut deleted = run.clone();
    deleted.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(step(&observed(&deleted)).effects, [Effect::RemoveFinalizer]);
    deleted.status = Some(first.status);
    let asked = step(&observed(&deleted));
    assert!(asked.effects.is_empty(), "what may be claimed is recorded first");
    assert_eq!(asked.status.phase, Some(Phase::Stopped));
}

#[test]
fn without_a_repository_the_request_alone_is_the_claim() {
    let mut run = run();
    let first = step(&Observed { ledger: Ledger::None, ..observed(&run) });
    let recorded = condition::get(&first.status.conditions, types::RESULT_RECORDED).unwrap();
    assert_eq!((recorded.status.as_str(), recorded.reason.as_str()), ("False", "NoRepository"));
    run.status = Some(first.status);
    let second = step(&Observed { ledger: Ledger::None, ..observed(&run) });
    assert!(matches!(second.effects[..], [Effect::AddFinalizer | Effect::Ensure(_)]));
}

#[test]
fn a_place_is_confirmed_only_once_its_uid_is_stored() {
    let mut run = run();
    claimed(&mut run);
    let seen = step(&Observed { place: Some(place(Stage::Created)), ..observed(&run) });
    assert!(seen.effects.is_empty());
    run.status = Some(seen.status);
    let stored = step(&Observed { place: Some(place(Stage::Created)), ..observed(&run) });
    assert_eq!(stored.effects, [Effect::Confirm]);
}

#[test]
fn never_made_and_vanished_are_told_apart() {
    let mut run = run();
    claimed(&mut run);
    assert!(matches!(step(&observed(&run)).effects[..], [Effect::Ensure(_)]), "never made: made now");
    claimed(&mut run).place = Some(PlaceRef { uid: "p-1".into(), ..PlaceRef::default() });
    assert_eq!(standing(&step(&observed(&run))), (Phase::Lost, Reason::ResultUnavailable));
    let vanished = Observed { place: Some(place(Stage::Vanished)), ..observed(&run) };
    assert_eq!(standing(&step(&vanished)), (Phase::Lost, Reason::ResultUnavailable));
}

#[test]
fn stages_become_phases() {
    let mut run = run();
    claimed(&mut run);
    for (stage, expected) in [
        (Stage::Created, Phase::Starting),
        (Stage::Preparing, Phase::Starting),
        (Stage::Running, Phase::Running),
        (Stage::Collecting, Phase::Collecting),
        (Stage::Delivering, Phase::Collecting),
        (Stage::Released, Phase::Collecting),
    ] {
        let step = step(&Observed { place: Some(place(stage)), ..observed(&run) });
        assert_eq!(step.status.phase, Some(expected), "{stage:?}");
    }
}

#[test]
fn stop_and_deletion_reach_the_agent_or_the_standing() {
    let mut stopped = run();
    stopped.spec.stop = Some(true);
    assert_eq!(standing(&step(&observed(&stopped))), (Phase::Stopped, Reason::StopRequested));
    claimed(&mut stopped);
    let running = step(&Observed { place: Some(place(Stage::Running)), ..observed(&stopped) });
    assert!(running.effects.contains(&Effect::Stop(StopReason::StopRequested)));
    assert_eq!(running.status.phase, Some(Phase::Running), "the phase follows the agent, not the wish");
    let collecting = step(&Observed { place: Some(place(Stage::Collecting)), ..observed(&stopped) });
    assert!(!collecting.effects.iter().any(|e| matches!(e, Effect::Stop(_))));

    let mut deleted = run();
    claimed(&mut deleted);
    deleted.metadata.deletion_timestamp = Some(Time(at(NOW)));
    let running = step(&Observed { place: Some(place(Stage::Running)), ..observed(&deleted) });
    assert!(running.effects.contains(&Effect::Stop(StopReason::Removed)));
}

#[test]
fn trouble_is_told_and_ends_a_run_only_when_no_result_will_come() {
    let mut run = run();
    claimed(&mut run);
    let troubled = |stage, ends| {
        let message = "0/3 nodes".to_owned();
        let trouble = Some(Trouble { reason: Reason::Unschedulable, message, ends });
        Some(Place { trouble, ..place(stage) })
    };
    let waits = step(&Observed { place: troubled(Stage::Created, None), ..observed(&run) });
    assert_eq!(standing(&waits), (Phase::Starting, Reason::Unschedulable));
    assert_eq!(waits.status.message.as_deref(), Some("0/3 nodes"));
    assert!(waits.again.is_some(), "how long it lasts may decide");
    let runs = step(&Observed { place: troubled(Stage::Running, None), ..observed(&run) });
    assert_eq!(standing(&runs), (Phase::Running, Reason::AgentRunning));
    assert_eq!(runs.status.message.as_deref(), Some("0/3 nodes"));

    for phase in [Phase::Failed, Phase::Lost] {
        let ends = step(&Observed { place: troubled(Stage::Vanished, Some(phase)), ..observed(&run) });
        assert_eq!(standing(&ends), (phase, Reason::Unschedulable));
    }
    claimed(&mut run).result = Some(ResultRef {
        commit: None,
        path: None,
        outcome: Phase::Failed,
        reason: Reason::OutOfMemory,
        message: None,
    });
    let recorded = step(&Observed { place: troubled(Stage::Vanished, Some(Phase::Lost)), ..observed(&run) });
    assert_eq!(standing(&recorded), (Phase::Failed, Reason::OutOfMemory), "the result is worth more");
}

#[test]
fn a_place_that_never_began_is_stopped_without_its_sidecar() {
    let mut stopped = run();
    stopped.spec.stop = Some(true);
    claimed(&mut stopped);
    let waiting = Some(Place { begun: false, ..place(Stage::Created) });
    let first = step(&Observed { place: waiting.clone(), ..observed(&stopped) });
    assert_eq!(standing(&first), (Phase::Stopped, Reason::StopRequested));
    assert!(first.effects.is_empty(), "the place stays until the phase is stored");
    stopped.status = Some(first.status);
    assert_eq!(step(&Observed { place: waiting, ..observed(&stopped) }).effects, [Effect::RemovePlace]);
}

#[test]
fn a_place_never_goes_back_in_the_eyes_of_who_has_just_begun_to_look() {
    let mut run = run();
    claimed(&mut run);
    let stages = [Stage::Created, Stage::Preparing, Stage::Running, Stage::Collecting, Stage::Delivering];
    for (told, known) in stages.iter().enumerate() {
        claimed(&mut run);
        run.status = Some(step(&Observed { place: Some(place(*known)), ..observed(&run) }).status);
        for earlier in &stages[..told] {
            let unheard = Place { policies: vec![], confirmed: true, ..place(*earlier) };
            let policy = NamedPolicy {
                name: "new".into(),
                spec: crate::kinds::egress_policy::EgressPolicySpec::default(),
            };
            let resolved = Ok(PlaceSpec { egress: vec![policy], ..spec() });
            let again = step(&Observed { place: Some(unheard), resolved, ..observed(&run) });
            assert_eq!(Some(&again.status), run.status.as_ref(), "{known:?}, then {earlier:?}");
            assert!(again.effects.is_empty(), "{known:?}, then {earlier:?}");
        }
    }
}

#[test]
fn a_run_that_is_collected_soon_is_told_with_its_end() {
    let mut run = run();
    claimed(&mut run);
    run.status = Some(step(&Observed { place: Some(place(Stage::Running)), ..observed(&run) }).status);
    let ended = |seconds: i64| Place {
        confirmed: true,
        ended_at: Some(at(NOW - seconds)),
        ..place(Stage::Collecting)
    };
    let cases = [
        (0, Phase::Running, Some(3)),
        (2, Phase::Running, Some(1)),
        (3, Phase::Collecting, None),
        // its clock is ahead
        (-60, Phase::Running, Some(3)),
    ];
    for (seconds, phase, again) in cases {
        let step = step(&Observed { place: Some(ended(seconds)), ..observed(&run) });
        assert_eq!((step.status.phase, step.again.map(|d| d.as_secs())), (Some(phase), again), "{seconds}");
    }
}

#[test]
fn a_spec_changed_between_claim_and_start_does_not_start() {
    let mut run = run();
    claimed(&mut run);
    let step = step(&Observed { digest: "v1:b".into(), ..observed(&run) });
    assert_eq!(standing(&step), (Phase::Failed, Reason::SpecChangedAfterRun));
    assert!(step.effects.is_empty());
}

fn finished(recorded: Option<(State, Reason)>) -> HarnessRun {
    let mut run = run();
    let status = claimed(&mut run);
    status.phase = Some(Phase::Succeeded);
    status.reason = Some(Reason::Completed);
    status.completion_time = Some(Time(at(NOW - 10)));
    if let Some((state, reason)) = recorded {
        condition::set(&mut status.conditions, types::RESULT_RECORDED, state, reason, "", None, at(NOW));
    }
    run
}

#[test]
fn the_object_goes_only_when_nothing_is_left_to_record() {
    let mut unrecorded = finished(None);
    unrecorded.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert!(step(&Observed { ttl: Some(0), ..observed(&unrecorded) }).effects.is_empty());

    let mut recorded = finished(Some((State::True, Reason::Recorded)));
    let due = step(&Observed { ttl: Some(10), ..observed(&recorded) });
    assert_eq!(due.effects, [Effect::Delete]);
    let later = step(&Observed { ttl: Some(11), ..observed(&recorded) });
    assert_eq!((later.effects.len(), later.again), (0, Some(Duration::from_secs(1))));
    recorded.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(step(&observed(&recorded)).effects, [Effect::RemoveFinalizer]);

    let mut abandoned = finished(Some((State::False, Reason::Abandoned)));
    abandoned.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(step(&observed(&abandoned)).effects, [Effect::RemoveFinalizer]);
}

#[test]
fn a_change_after_the_end_is_seen_and_does_nothing() {
    let mut run = finished(Some((State::True, Reason::Recorded)));
    run.metadata.generation = Some(7);
    run.spec.stop = Some(true);
    let step = step(&observed(&run));
    assert_eq!(step.status.observed_generation, Some(7));
    assert_eq!((step.effects, step.status.phase), (vec![], Some(Phase::Succeeded)));
}

#[test]
fn time_removes_nothing_that_another_engine_tracks() {
    let recorded = finished(Some((State::True, Reason::Recorded)));
    let after = |labels: &[&str], annotations: &[&str]| {
        let all = |keys: &[&str]| Some(keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect());
        let mut run = recorded.clone();
        (run.metadata.labels, run.metadata.annotations) = (all(labels), all(annotations));
        let step = step(&Observed { ttl: Some(0), ..observed(&run) });
        (step.effects, step.again)
    };
    let argo = "argocd.argoproj.io/tracking-id";
    assert_eq!(after(&["app.kubernetes.io/instance"], &[]), (vec![Effect::Delete], None), "Helm's label");
    assert_eq!(after(&["app.kubernetes.io/instance"], &[argo]), (vec![], None));
    assert_eq!(after(&["argocd.argoproj.io/instance"], &[]), (vec![], None));
    for of in ["kustomize", "helm"] {
        for key in ["name", "namespace"] {
            assert_eq!(after(&[&format!("{of}.toolkit.fluxcd.io/{key}")], &[]), (vec![], None), "{of} {key}");
        }
    }
}

#[test]
fn time_removes_nothing_that_git_would_bring_back() {
    let after = |recorded, from_git: bool| {
        let mut run = finished(Some(recorded));
        let annotations = from_git.then(|| [(meta::SOURCE_UID.to_owned(), "u".to_owned())].into());
        run.metadata.annotations = annotations;
        step(&Observed { ttl: Some(0), ..observed(&run) }).effects
    };
    let unrecorded = (State::False, Reason::Abandoned);
    assert_eq!(after((State::True, Reason::Recorded), true), [Effect::Delete], "the ledger knows it");
    assert_eq!(after(unrecorded, true), []);
    assert_eq!(
        after((State::False, Reason::NoRepository), true),
        [Effect::Delete],
        "there is no such Git any more"
    );
    assert_eq!(after(unrecorded, false), [Effect::Delete]);
}

#[test]
fn the_recorded_outcome_becomes_the_phase_and_the_place_goes_after() {
    let mut run = run();
    claimed(&mut run).result = Some(ResultRef {
        commit: None,
        path: None,
        outcome: Phase::Failed,
        reason: Reason::NonZeroExit,
        message: Some("code 3".into()),
    });
    let first = step(&Observed { place: Some(place(Stage::Released)), ..observed(&run) });
    assert_eq!(standing(&first), (Phase::Failed, Reason::NonZeroExit));
    assert!(first.effects.is_empty(), "the place stays until the phase is stored");
    assert_eq!(first.status.completion_time, Some(Time(at(NOW - 10))));
    run.status = Some(first.status);
    let second = step(&Observed { place: Some(place(Stage::Released)), ..observed(&run) });
    assert_eq!(second.effects, [Effect::RemovePlace]);
}
