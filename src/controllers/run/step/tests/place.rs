//! While there is one.

use super::*;
use crate::{
    kinds::{egress_policy::EgressPolicySpec, harness_run::PlaceRef},
    ports::workloads::Trouble,
};

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
            let policy = NamedPolicy { name: "new".into(), spec: EgressPolicySpec::default() };
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
fn a_result_that_is_not_acknowledged_says_why() {
    let mut run = run();
    claimed(&mut run).phase = Some(Phase::Collecting);
    let why = "the recorder answered 413: too much";
    let waiting = Place { delivery_error: Some(why.to_owned()), ..place(Stage::Delivering) };
    let step = step(&Observed { place: Some(waiting), ..observed(&run) });
    assert_eq!(standing(&step), (Phase::Collecting, Reason::RecordingResult));
    assert_eq!(step.status.message, Some(format!("not delivered yet: {why}")));
}
