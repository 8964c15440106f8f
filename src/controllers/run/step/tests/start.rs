//! Until there is a place.

use super::*;

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
fn a_spec_changed_between_claim_and_start_does_not_start() {
    let mut run = run();
    claimed(&mut run);
    let step = step(&Observed { digest: "v1:b".into(), ..observed(&run) });
    assert_eq!(standing(&step), (Phase::Failed, Reason::SpecChangedAfterRun));
    assert!(step.effects.is_empty());
}
