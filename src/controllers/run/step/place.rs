//! The next step of a run that has a place.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Effect, Observed, Step, finish, millis, set, stand_now, stop_wanted};
use crate::{
    kinds::{
        Phase, Reason,
        condition::{State, types},
        harness_run::HarnessRunStatus,
        standing::Standing,
    },
    ports::workloads::{Place, Stage, Trouble},
};

/// A result that is collected and recorded sooner comes with the run's end, in one write.
const SOON: Duration = Duration::from_secs(3);
/// How soon to look again at a place that something is in the way of: how long that lasts may decide.
const TROUBLE: Duration = Duration::from_secs(15);

pub(super) fn with_place(observed: &Observed<'_>, place: &Place, step: &mut Step) {
    let stop = stop_wanted(observed.run);
    if let (Some(reason), false) = (stop, place.begun) {
        let stopped = Standing::new(Phase::Stopped, reason.reason(), "stopped before it started");
        return finish(observed, step, &stopped);
    }
    let waits = match &place.trouble {
        Some(Trouble { reason, message, ends: Some(phase) }) => {
            return finish(observed, step, &Standing::new(*phase, *reason, message));
        }
        Some(Trouble { reason, message, ends: None }) => Some((*reason, message.as_str())),
        None => None,
    };
    if place.stage == Stage::Vanished {
        let lost = Standing::new(
            Phase::Lost,
            Reason::ResultUnavailable,
            "the place's processes are gone and left no result",
        );
        return finish(observed, step, &lost);
    }
    let stored = step.status.place.as_ref().is_some_and(|seen| seen.uid == place.uid.as_str());
    if stored && !place.confirmed {
        step.effects.push(Effect::Confirm);
    }
    if let Some(reason) = stop
        && place.stage < Stage::Collecting
    {
        step.effects.push(Effect::Stop(reason));
    }
    let behind = is_behind(place.stage, &step.status);
    if let Ok(spec) = &observed.resolved
        && place.begun
        && !behind
        && place.stage < Stage::Collecting
        && place.policies != spec.egress
    {
        step.effects.push(Effect::UpdateEgress(spec.egress.clone()));
    }
    if waits.is_some() {
        step.again = Some(TROUBLE);
    }
    if behind {
        return;
    }
    observe_place(observed, place, step);
    let words = match waits {
        Some((_, message)) => message.to_owned(),
        None => {
            place.delivery_error.as_ref().map_or_else(String::new, |why| format!("not delivered yet: {why}"))
        }
    };
    if let Some(left) = soon_over(observed, place, &step.status) {
        step.again = Some(left);
        return;
    }
    let (phase, reason) = match place.stage {
        Stage::Created => (Phase::Starting, waits.map_or(Reason::PlaceRequested, |(reason, _)| reason)),
        Stage::Preparing => (Phase::Starting, waits.map_or(Reason::PreparingWorkspace, |(reason, _)| reason)),
        Stage::Running => (Phase::Running, Reason::AgentRunning),
        Stage::Collecting => (Phase::Collecting, Reason::CollectingResult),
        Stage::Delivering | Stage::Released | Stage::Vanished => (Phase::Collecting, Reason::RecordingResult),
    };
    stand_now(observed, step, &Standing::new(phase, reason, words));
}

/// How long the end of an agent that just ran stays untold: its result may be there by then.
fn soon_over(observed: &Observed<'_>, place: &Place, status: &HarnessRunStatus) -> Option<Duration> {
    let collects = matches!(place.stage, Stage::Collecting | Stage::Delivering | Stage::Released);
    if !collects || status.phase != Some(Phase::Running) {
        return None;
    }
    let since = observed.now.duration_since(place.ended_at?);
    // a clock that is ahead of ours makes it no longer
    SOON.checked_sub(since.try_into().unwrap_or_default()).filter(|left| !left.is_zero())
}

/// True when less is seen of the place than the status tells: whoever looks has not heard of its sidecar yet.
fn is_behind(stage: Stage, status: &HarnessRunStatus) -> bool {
    let told = match (status.phase, status.reason) {
        (Some(Phase::Collecting), Some(Reason::RecordingResult)) => Stage::Delivering,
        (Some(Phase::Collecting), _) => Stage::Collecting,
        (Some(Phase::Running), _) => Stage::Running,
        (Some(Phase::Starting), Some(Reason::PreparingWorkspace)) => Stage::Preparing,
        _ => Stage::Created,
    };
    stage < told
}

/// Copies what the place knows into the status.
pub(super) fn observe_place(observed: &Observed<'_>, place: &Place, step: &mut Step) {
    let first = step.status.place.is_none();
    step.status.place = Some(crate::kinds::harness_run::PlaceRef {
        uid: place.uid.to_string(),
        name: place.name.clone(),
        node: place.node.clone(),
    });
    step.status.start_time = place.started_at.map(Time);
    let startup = step.status.startup.get_or_insert_default();
    if first {
        let since =
            step.status.claim.as_ref().and_then(|c| c.requested_at.as_ref()).map_or(observed.now, |t| t.0);
        let claimed = startup.claimed_ms.unwrap_or_default();
        startup.placed_ms = Some((millis(since, observed.now) - claimed).max(0));
    }
    startup.scheduled_ms = place.startup.scheduled_ms;
    startup.installed_ms = place.startup.installed_ms;
    startup.egress_proven_ms = place.startup.egress_proven_ms;
    startup.cloned_ms = place.startup.cloned_ms;
    startup.first_output_ms = place.startup.first_output_ms;
    if place.egress != crate::kinds::harness_run::EgressSeen::default() {
        step.status.egress = Some(place.egress.clone());
    }
    if let Some(proof) = &place.egress_proven {
        set(observed, step, types::EGRESS_PROVEN, State::True, Reason::EgressProven, proof);
    }
    match place.limits_not_enforced.as_deref() {
        None => {}
        Some([]) => set(observed, step, types::LIMITS_ENFORCED, State::True, Reason::LimitsEnforced, ""),
        Some(missing) => {
            let message = format!("not enforced on this machine: {}", missing.join(", "));
            set(observed, step, types::LIMITS_ENFORCED, State::False, Reason::LimitsNotEnforced, &message);
        }
    }
}
