//! Where a run stands, as its status says it. Pure. The controller tells it, and the recorder together with the result.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Phase, Reason,
    condition::{self, State, types},
    harness_run::{HarnessRunStatus, PhaseAt},
};

/// The longest list of phases that is kept.
const MAX_HISTORY: usize = 12;

/// Where a run stands: its phase, why, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Standing {
    pub(crate) fn new(phase: Phase, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into() }
    }
}

/// Writes a standing into a status: phase, reason, history and the conditions that follow from them.
///
/// A terminal phase is never left again.
pub(crate) fn stand(
    status: &mut HarnessRunStatus,
    standing: &Standing,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Standing { phase, reason, message } = standing;
    if status.phase.is_some_and(|old| old.is_terminal() && old != *phase) {
        return;
    }
    if status.phase != Some(*phase) && status.phase_history.len() < MAX_HISTORY {
        status.phase_history.push(PhaseAt { phase: *phase, reason: Some(*reason), time: Time(now) });
    }
    status.phase = Some(*phase);
    status.reason = Some(*reason);
    status.message = Some(message.clone()).filter(|m| !m.is_empty());
    status.observed_generation = generation;
    let mut set = |type_, state| {
        condition::set(&mut status.conditions, type_, state, *reason, message, generation, now);
    };
    let (ready, succeeded) = match phase {
        Phase::Succeeded => (State::True, State::True),
        terminal if terminal.is_terminal() => (State::False, State::False),
        _ => (State::False, State::Unknown),
    };
    set(types::READY, ready);
    set(types::SUCCEEDED, succeeded);
    let (reconciling, stalled) = progress(*phase);
    for (type_, holds) in [(types::RECONCILING, reconciling), (types::STALLED, stalled)] {
        if holds {
            condition::set(&mut status.conditions, type_, State::True, *reason, message, generation, now);
        } else {
            condition::clear(&mut status.conditions, type_);
        }
    }
}

/// What an event says of a status that was just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turned {
    /// True: somebody may want to act.
    pub(crate) bad: bool,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// What is to be told when a status follows another: nothing, when phase and reason are the same.
pub(crate) fn turned(before: Option<&HarnessRunStatus>, new: &HarnessRunStatus) -> Option<Turned> {
    let (phase, reason) = (new.phase?, new.reason?);
    if before.is_some_and(|old| (old.phase, old.reason) == (new.phase, new.reason)) {
        return None;
    }
    let bad = matches!(phase, Phase::Failed | Phase::Lost | Phase::TimedOut | Phase::Held)
        || (phase == Phase::Pending && reason != Reason::Suspended)
        || (phase == Phase::Starting
            && !matches!(reason, Reason::PlaceRequested | Reason::PreparingWorkspace));
    let message = match &new.message {
        Some(words) => format!("{phase}: {words}"),
        None => phase.to_string(),
    };
    Some(Turned { bad, reason, message })
}

/// Denials that came since an earlier status.
pub(crate) fn denials_since(before: Option<&HarnessRunStatus>, new: &HarnessRunStatus) -> u64 {
    let denied = |status: &HarnessRunStatus| status.egress.as_ref().map_or(0, |egress| egress.denied);
    denied(new).saturating_sub(before.map_or(0, denied)).try_into().unwrap_or_default()
}

/// By kstatus: is work going on, and does nothing happen until somebody acts? Both conditions exist only while true.
fn progress(phase: Phase) -> (bool, bool) {
    match phase {
        Phase::Queued
        | Phase::Starting
        | Phase::Running
        | Phase::Collecting
        | Phase::Pending
        | Phase::Held => (true, false),
        Phase::Succeeded => (false, false),
        Phase::Failed | Phase::Stopped | Phase::TimedOut | Phase::Lost => (false, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_terminal_phase_stays() {
        let mut status = HarnessRunStatus::default();
        stand(&mut status, &Standing::new(Phase::Lost, Reason::ResultUnavailable, "gone"), Some(1), at(1));
        let before = status.clone();
        stand(&mut status, &Standing::new(Phase::Running, Reason::AgentRunning, ""), Some(1), at(2));
        assert_eq!(status, before);
    }

    #[test]
    fn standing_still_changes_nothing() {
        let mut status = HarnessRunStatus::default();
        let standing = Standing::new(Phase::Running, Reason::AgentRunning, "");
        stand(&mut status, &standing, Some(1), at(1));
        let before = status.clone();
        stand(&mut status, &standing, Some(1), at(9));
        assert_eq!(status, before);
    }

    #[test]
    fn kstatus_reads_the_conditions() {
        let cases = [
            (Phase::Running, "False", true, false),
            (Phase::Succeeded, "True", false, false),
            (Phase::Failed, "False", false, true),
        ];
        for (phase, ready, reconciling, stalled) in cases {
            let mut status = HarnessRunStatus::default();
            stand(&mut status, &Standing::new(phase, Reason::Completed, ""), Some(3), at(1));
            assert_eq!(condition::get(&status.conditions, types::READY).unwrap().status, ready, "{phase}");
            assert_eq!(condition::is_true(&status.conditions, types::RECONCILING), reconciling, "{phase}");
            assert_eq!(condition::is_true(&status.conditions, types::STALLED), stalled, "{phase}");
        }
    }

    #[derive(serde::Deserialize)]
    struct Entry {
        kind: String,
        state: String,
        #[serde(default)]
        status: serde_json::Value,
        #[serde(default)]
        reasons: Vec<Reason>,
        #[serde(default)]
        conditions: std::collections::BTreeMap<String, String>,
    }

    /// The table of what others make of our status shows what we write.
    #[test]
    fn the_table_of_others_has_our_conditions() {
        let table = include_str!("../../tests/alongside/health.yaml");
        let table: Vec<Entry> = serde_saphyr::from_str(table).unwrap();
        let ours = [types::READY, types::SUCCEEDED, types::RECONCILING, types::STALLED];
        let mut compared = 0;
        for entry in table.iter().filter(|entry| entry.kind == "HarnessRun") {
            for reason in &entry.reasons {
                let phase: Phase = serde_json::from_value(entry.status["phase"].clone()).unwrap();
                let mut status = HarnessRunStatus::default();
                stand(&mut status, &Standing::new(phase, *reason, ""), Some(1), at(1));
                for type_ in ours {
                    let state = condition::get(&status.conditions, type_).map(|found| found.status.as_str());
                    let told = entry.conditions.get(type_).map(String::as_str);
                    assert_eq!(told, state, "{}: {type_} of {phase} ({reason})", entry.state);
                    compared += 1;
                }
            }
        }
        assert!(compared > 100, "{compared}");
    }
}
