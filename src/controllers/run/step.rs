//! The next step of a run. Pure: everything that was observed goes in, effects and the new status come out.
//!
//! Each step is decided from what is *stored*, so that a crash after any effect leads back to the same decision.

mod place;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use self::place::{observe_place, with_place};
use crate::{
    kinds::{
        HarnessRun, Phase, Reason,
        condition::{self, State, types},
        harness_run::{Claim, HarnessRunStatus},
        meta,
        standing::{Standing, stand},
    },
    ports::workloads::{NamedPolicy, Place, PlaceSpec, StopReason},
    resolve::Missing,
};

/// How old a run is at least that says of something that it does not exist; times of creation are whole seconds.
const SHOWS: Duration = Duration::from_secs(2);

/// Where the run is recorded, and whether that works.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ledger {
    /// A claim can be asked for.
    Ready,
    /// A doubt: no claim is asked for.
    Held { reason: Reason, message: String },
    /// Nothing is recorded in Git: the store alone makes the run start at most once.
    None,
}

/// Everything that a decision needs.
#[derive(Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) run: &'a HarnessRun,
    pub(crate) digest: String,
    pub(crate) resolved: Result<PlaceSpec, Missing>,
    pub(crate) suspended: Option<String>,
    pub(crate) ledger: Ledger,
    pub(crate) turn: Turn,
    pub(crate) place: Option<Place>,
    /// Seconds to keep a finished run; its own, or its session's.
    pub(crate) ttl: Option<i64>,
    pub(crate) now: Timestamp,
}

/// Whether it is the run's turn in its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is.
    Now,
    /// The session is busy; with whom, for people.
    Wait(String),
}

/// What to do to the world.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    AddFinalizer,
    RemoveFinalizer,
    Ensure(Box<PlaceSpec>),
    Confirm,
    Stop(StopReason),
    /// The policies changed while the agent runs.
    UpdateEgress(Vec<NamedPolicy>),
    RemovePlace,
    Delete,
}

/// One step: effects in order, then the status, then a time to look again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) effects: Vec<Effect>,
    pub(crate) status: HarnessRunStatus,
    pub(crate) again: Option<Duration>,
}

/// Decides the next step.
pub(crate) fn step(observed: &Observed<'_>) -> Step {
    let status = observed.run.status.clone().unwrap_or_default();
    let mut step = Step { effects: Vec::new(), status, again: None };
    match step.status.phase {
        Some(phase) if phase.is_terminal() => ended(observed, &mut step),
        _ => active(observed, &mut step),
    }
    step
}

fn active(observed: &Observed<'_>, step: &mut Step) {
    if let Some(result) = step.status.result.clone() {
        let standing = Standing::new(result.outcome, result.reason, result.message.unwrap_or_default());
        return finish(observed, step, &standing);
    }
    if let Some(place) = &observed.place {
        return with_place(observed, place, step);
    }
    if step.status.place.is_some() {
        let lost = Standing::new(
            Phase::Lost,
            Reason::ResultUnavailable,
            "the place vanished before its result was recorded",
        );
        return finish(observed, step, &lost);
    }
    let deleting = observed.run.metadata.deletion_timestamp.is_some();
    if deleting && has_finalizer(observed.run) && step.status.claim.is_none() {
        // made with it and never asked for: there is nothing to record, and the name stays unused
        return step.effects.push(Effect::RemoveFinalizer);
    }
    if let Some(reason) = stop_wanted(observed.run) {
        let stopped = Standing::new(Phase::Stopped, reason.reason(), "stopped before it started");
        return finish(observed, step, &stopped);
    }
    match claim_state(observed, &step.status) {
        ClaimState::Held => claimed(observed, step),
        ClaimState::Requested => requested(observed, step),
        ClaimState::None => waiting(observed, step),
    }
}

enum ClaimState {
    None,
    Requested,
    Held,
}

fn claim_state(observed: &Observed<'_>, status: &HarnessRunStatus) -> ClaimState {
    match &status.claim {
        Some(claim) if claim.holder.is_some() => ClaimState::Held,
        Some(claim) if claim.requested_at.is_some() && observed.ledger == Ledger::None => ClaimState::Held,
        Some(claim) if claim.requested_at.is_some() => ClaimState::Requested,
        _ => ClaimState::None,
    }
}

/// Not asked for yet: is everything there, and is it its turn?
fn waiting(observed: &Observed<'_>, step: &mut Step) {
    let standing = if let Some(why) = &observed.suspended {
        Standing::new(Phase::Pending, Reason::Suspended, why)
    } else if let Err(missing) = &observed.resolved {
        if let Some(left) = may_not_show_yet(observed, missing.reason) {
            step.again = Some(left);
            return;
        }
        Standing::new(Phase::Pending, missing.reason, &missing.message)
    } else if let Ledger::Held { reason, message } = &observed.ledger {
        Standing::new(Phase::Held, *reason, message)
    } else if let Turn::Wait(why) = &observed.turn {
        Standing::new(Phase::Queued, Reason::SessionBusy, why)
    } else {
        return request(observed, step);
    };
    stand_now(observed, step, &standing);
}

/// How long it may take until what a new run refers to shows here, though it was there first: each kind has its own watch.
fn may_not_show_yet(observed: &Observed<'_>, reason: Reason) -> Option<Duration> {
    use Reason::{AgentNotFound, ConfigMapNotFound, EgressPolicyNotFound, SessionNotFound};
    let told = observed.run.status.as_ref().is_some_and(|status| status.phase.is_some());
    let missing =
        matches!(reason, AgentNotFound | ConfigMapNotFound | EgressPolicyNotFound | SessionNotFound);
    if told || !missing {
        return None;
    }
    let age = observed.now.duration_since(observed.run.creation_timestamp()?.0);
    // a clock that is behind that of the API server does not make it longer
    SHOWS.checked_sub(age.try_into().ok()?).filter(|left| !left.is_zero())
}

/// Asks for the claim. The finalizer comes first: from here on the run must not go unrecorded.
fn request(observed: &Observed<'_>, step: &mut Step) {
    if !has_finalizer(observed.run) {
        step.effects.push(Effect::AddFinalizer);
    }
    let created = observed.run.creation_timestamp().map_or(observed.now, |t| t.0);
    step.status.startup.get_or_insert_default().queued_ms = Some(millis(created, observed.now));
    step.status.digest = Some(observed.digest.clone());
    step.status.claim = Some(Claim { requested_at: Some(Time(observed.now)), ..Claim::default() });
    if observed.ledger == Ledger::None {
        set(
            observed,
            step,
            types::CLAIMED,
            State::False,
            Reason::NoRepository,
            "no repository records this run",
        );
        set(
            observed,
            step,
            types::RESULT_RECORDED,
            State::False,
            Reason::NoRepository,
            "no repository records this run",
        );
    }
    let standing =
        Standing::new(Phase::Queued, Reason::ClaimRequested, "waiting for the claim to be in the ledger");
    stand_now(observed, step, &standing);
}

fn requested(observed: &Observed<'_>, step: &mut Step) {
    let untrusted = condition::get(&step.status.conditions, types::CLAIMED)
        .filter(|claimed| claimed.reason == Reason::LedgerUntrusted.as_str());
    let standing = match &observed.ledger {
        _ if untrusted.is_some() => {
            let message = untrusted.map(|claimed| claimed.message.clone()).unwrap_or_default();
            Standing::new(Phase::Held, Reason::LedgerUntrusted, message)
        }
        Ledger::Held { reason, message } => Standing::new(Phase::Held, *reason, message),
        Ledger::Ready | Ledger::None => {
            Standing::new(Phase::Queued, Reason::ClaimRequested, "waiting for the claim to be in the ledger")
        }
    };
    stand_now(observed, step, &standing);
}

/// Claimed and no place: it was never made, because a place that was made stays visible until its UID is in the status.
fn claimed(observed: &Observed<'_>, step: &mut Step) {
    if step.status.digest.as_ref().is_some_and(|claimed| *claimed != observed.digest) {
        let message = "the spec was changed after the run was claimed and before it started; use a new name";
        return finish(observed, step, &Standing::new(Phase::Failed, Reason::SpecChangedAfterRun, message));
    }
    match &observed.resolved {
        Ok(spec) => {
            if let Some(requested) = step.status.claim.as_ref().and_then(|c| c.requested_at.as_ref()) {
                let waited = millis(requested.0, observed.now);
                step.status.startup.get_or_insert_default().claimed_ms.get_or_insert(waited);
            }
            step.effects.push(Effect::Ensure(Box::new(spec.clone())));
            stand_now(observed, step, &Standing::new(Phase::Starting, Reason::PlaceRequested, ""));
        }
        Err(missing) => {
            let standing = Standing::new(Phase::Pending, missing.reason, &missing.message);
            stand_now(observed, step, &standing);
        }
    }
}

/// Writes a terminal standing; what the place still knows is kept.
fn finish(observed: &Observed<'_>, step: &mut Step, standing: &Standing) {
    if let Some(place) = &observed.place {
        observe_place(observed, place, step);
    }
    let ended = observed.place.as_ref().and_then(|p| p.ended_at).unwrap_or(observed.now);
    step.status.completion_time.get_or_insert(Time(ended));
    stand_now(observed, step, standing);
}

/// Terminal: the place goes, and when nothing is left to record, the object may go.
fn ended(observed: &Observed<'_>, step: &mut Step) {
    if observed.run.metadata.deletion_timestamp.is_none() {
        // a spec that changes after the end changes nothing, and who waits for it to be seen must not wait for ever
        step.status.observed_generation = observed.run.metadata.generation;
    }
    if observed.place.is_some() {
        step.effects.push(Effect::RemovePlace);
    }
    if !settled(&step.status) {
        return;
    }
    let elsewhere = step.status.reason == Some(Reason::ClaimedElsewhere);
    let deleting = observed.run.metadata.deletion_timestamp.is_some();
    if has_finalizer(observed.run) && (deleting || elsewhere) {
        step.effects.push(Effect::RemoveFinalizer);
    }
    // another engine would make it again, as a run of the same name
    let tracked = meta::tracked_by(observed.run.labels(), observed.run.annotations()).is_some();
    // as Git would what the ledger does not know
    let recorded = condition::get(&step.status.conditions, types::RESULT_RECORDED);
    let unknown = recorded.is_some_and(|recorded| {
        recorded.status != "True" && recorded.reason != Reason::NoRepository.as_str()
    });
    let returns = unknown && observed.run.annotations().contains_key(meta::SOURCE_UID);
    let ttl = observed.ttl.filter(|_| !tracked && !returns);
    if let (false, Some(ttl), Some(ended)) = (deleting, ttl, &step.status.completion_time) {
        let due = ended.0.as_second().saturating_add(ttl);
        let left = due - observed.now.as_second();
        if left <= 0 {
            step.effects.push(Effect::Delete);
        } else {
            step.again = Some(Duration::from_secs(left.unsigned_abs()));
        }
    }
}

/// True when nothing is left to record: it is recorded, or said to stay unrecorded.
fn settled(status: &HarnessRunStatus) -> bool {
    condition::get(&status.conditions, types::RESULT_RECORDED).is_some_and(|recorded| {
        let given_up = [Reason::Abandoned, Reason::NoRepository, Reason::ClaimedElsewhere, Reason::NameUsed];
        recorded.status == "True" || given_up.iter().any(|reason| recorded.reason == reason.as_str())
    })
}

/// Does somebody want the run to end?
fn stop_wanted(run: &HarnessRun) -> Option<StopReason> {
    if run.metadata.deletion_timestamp.is_some() {
        Some(StopReason::Removed)
    } else if run.spec.stop == Some(true) {
        Some(StopReason::StopRequested)
    } else {
        None
    }
}

fn has_finalizer(run: &HarnessRun) -> bool {
    run.finalizers().iter().any(|f| f == meta::RECORD_FINALIZER)
}

fn stand_now(observed: &Observed<'_>, step: &mut Step, standing: &Standing) {
    stand(&mut step.status, standing, observed.run.metadata.generation, observed.now);
}

fn set(observed: &Observed<'_>, step: &mut Step, type_: &str, state: State, reason: Reason, message: &str) {
    let generation = observed.run.metadata.generation;
    condition::set(&mut step.status.conditions, type_, state, reason, message, generation, observed.now);
}

fn millis(from: Timestamp, to: Timestamp) -> i64 {
    (to.as_millisecond() - from.as_millisecond()).max(0)
}

#[cfg(test)]
mod tests;
