//! From the end on.

use super::*;

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
