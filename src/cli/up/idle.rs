//! When is there nothing left to do, and how did it all end? Pure.

use kube::ResourceExt;

use crate::kinds::{
    HarnessRun, Phase, Reason,
    condition::{self, types},
};

/// Why a run is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It ended and is recorded, or says why it never will be.
    Done(Phase),
    /// Only a commit or a person can move it.
    External(Reason),
    /// It may move by itself.
    Moving,
}

/// Where one run stands.
pub(crate) fn standing(run: &HarnessRun) -> Standing {
    let Some(status) = &run.status else { return Standing::Moving };
    let (Some(phase), Some(reason)) = (status.phase, status.reason) else { return Standing::Moving };
    if status.observed_generation != run.metadata.generation && !phase.is_terminal() {
        return Standing::Moving;
    }
    if phase.is_terminal() {
        let settled = condition::get(&status.conditions, types::RESULT_RECORDED).is_some_and(|recorded| {
            let never = [Reason::Abandoned, Reason::NoRepository, Reason::ClaimedElsewhere];
            recorded.status == "True" || never.iter().any(|r| recorded.reason == r.as_str())
        });
        let leaving = run.metadata.deletion_timestamp.is_some();
        return if settled && !leaving { Standing::Done(phase) } else { Standing::Moving };
    }
    match phase {
        Phase::Pending | Phase::Held if external(reason) => Standing::External(reason),
        _ => Standing::Moving,
    }
}

/// Reasons that only a commit or a person ends. A ledger that is out of reach may come back by itself, so it is waited
/// for.
fn external(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SessionNotFound
            | Reason::AgentNotFound
            | Reason::EgressPolicyNotFound
            | Reason::ConfigMapNotFound
            | Reason::SecretNotFound
            | Reason::SecretNotAllowed
            | Reason::PromptNeedsSyncer
            | Reason::Suspended
            | Reason::InvalidSpec
            | Reason::LedgerUntrusted
            | Reason::LedgerRewritten
    )
}

/// How it all ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Runs that succeeded, here or in the ledger.
    pub(crate) succeeded: usize,
    /// Runs that ended otherwise: name and phase.
    pub(crate) other: Vec<(String, Phase)>,
    /// Runs that wait for a commit or a person: name and reason.
    pub(crate) waiting: Vec<(String, Reason)>,
}

impl Tally {
    /// True when every run succeeded.
    pub(crate) fn all_succeeded(&self) -> bool {
        self.other.is_empty() && self.waiting.is_empty()
    }
}

/// Counts; `None` while a run may move by itself. `recorded` are runs that only the ledger knows.
pub(crate) fn tally<'a>(
    runs: impl IntoIterator<Item = &'a HarnessRun>,
    recorded: impl IntoIterator<Item = (String, Phase)>,
) -> Option<Tally> {
    let mut tally = Tally::default();
    let mut ended = |name: String, phase| match phase {
        Phase::Succeeded => tally.succeeded += 1,
        other => tally.other.push((name, other)),
    };
    let mut waiting = Vec::new();
    for run in runs {
        let name = format!("{}/{}", run.namespace().unwrap_or_default(), run.name_any());
        match standing(run) {
            Standing::Done(phase) => ended(name, phase),
            Standing::External(reason) => waiting.push((name, reason)),
            Standing::Moving => return None,
        }
    }
    for (name, phase) in recorded {
        ended(name, phase);
    }
    tally.waiting = waiting;
    Some(tally)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(phase: &str, reason: &str, recorded: Option<(&str, &str)>) -> HarnessRun {
        let conditions: Vec<_> = recorded
            .iter()
            .map(|(status, reason)| {
                json!({"type": "ResultRecorded", "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "n", "name": "r", "generation": 1}, "spec": {},
            "status": {"phase": phase, "reason": reason, "observedGeneration": 1, "conditions": conditions}
        }))
        .unwrap()
    }

    #[test]
    fn each_standing_is_told_apart() {
        let cases = [
            (run("Succeeded", "Completed", Some(("True", "Recorded"))), Standing::Done(Phase::Succeeded)),
            (run("Succeeded", "Completed", None), Standing::Moving),
            (run("Succeeded", "Completed", Some(("False", "LedgerUnavailable"))), Standing::Moving),
            (
                run("Lost", "ClaimedElsewhere", Some(("False", "ClaimedElsewhere"))),
                Standing::Done(Phase::Lost),
            ),
            (run("Failed", "NonZeroExit", Some(("False", "NoRepository"))), Standing::Done(Phase::Failed)),
            (run("Pending", "AgentNotFound", None), Standing::External(Reason::AgentNotFound)),
            (run("Held", "LedgerUntrusted", None), Standing::External(Reason::LedgerUntrusted)),
            (run("Held", "LedgerUnavailable", None), Standing::Moving),
            (run("Running", "AgentRunning", None), Standing::Moving),
        ];
        for (run, expected) in cases {
            assert_eq!(standing(&run), expected, "{:?}", run.status);
        }
    }

    #[test]
    fn outcomes_in_the_ledger_count() {
        let done = run("Succeeded", "Completed", Some(("True", "Recorded")));
        let tally = tally([&done], [("n/old".to_owned(), Phase::Failed)]).unwrap();
        assert_eq!((tally.succeeded, tally.other.len(), tally.all_succeeded()), (1, 1, false));
        assert_eq!(super::tally([&run("Running", "AgentRunning", None)], []), None);
    }
}
