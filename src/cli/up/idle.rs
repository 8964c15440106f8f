//! When is there nothing left to do, and how did it all end?

use std::{fmt, process::ExitCode, time::Duration};

use futures::StreamExt;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::roles::Roles;
use crate::{
    cli::roles::asked_to_end,
    kinds::{
        HarnessRun, Kind, Phase, Reason,
        condition::{self, types},
    },
    ports::objects::typed,
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
            let never = [Reason::Abandoned, Reason::NoRepository, Reason::ClaimedElsewhere, Reason::NameUsed];
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
            | Reason::RepositoryNotAllowed
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

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { succeeded, other, waiting } = self;
        writeln!(f, "idle: {succeeded} succeeded, {} did not, {} wait", other.len(), waiting.len())?;
        for (name, phase) in other {
            writeln!(f, "  {name}: {phase}")?;
        }
        for (name, reason) in waiting {
            writeln!(f, "  {name}: waits for a commit or a person ({reason})")?;
        }
        Ok(())
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

/// How the wait ended: the exit code, and words for people.
pub(super) struct Ended {
    pub(super) code: ExitCode,
    pub(super) text: String,
}

/// Somebody else has the lease: nothing more is done here.
pub(super) fn displaced() -> Ended {
    Ended {
        code: ExitCode::from(2),
        text: "another process looks after the cluster's objects now\n".to_owned(),
    }
}

/// Waits until nothing can progress without a commit or a person: 0 when every run succeeded, 1 when some did not or a
/// file has errors, 2 when the time is over or the process is told to end.
pub(super) async fn wait(roles: &Roles, timeout: Duration, stop: &CancellationToken) -> Ended {
    let interrupted = || Ended { code: ExitCode::from(2), text: String::new() };
    let outcome = tokio::select! {
        ended = tokio::time::timeout(timeout, settled(roles)) => ended,
        () = asked_to_end() => return interrupted(),
        () = roles.displaced() => return displaced(),
        () = stop.cancelled() => return interrupted(),
    };
    match outcome {
        Ok((tally, failed)) => {
            let code = if tally.all_succeeded() && !failed { ExitCode::SUCCESS } else { ExitCode::from(1) };
            Ended { code, text: tally.to_string() }
        }
        Err(_) => Ended { code: ExitCode::from(2), text: still_moving(roles, timeout) },
    }
}

fn still_moving(roles: &Roles, timeout: Duration) -> String {
    let mut text = format!("not idle after {timeout:?}; what still moves:\n");
    for run in roles.caches.runs.all().iter().filter(|run| standing(run) == Standing::Moving) {
        let phase = run.status.as_ref().and_then(|s| s.phase).map_or("new", Phase::as_str);
        let name = format!("{}/{}", run.namespace().unwrap_or_default(), run.name_any());
        text.extend(["  run ", &name, ": ", phase, "\n"]);
    }
    text
}

async fn settled(roles: &Roles) -> (Tally, bool) {
    let mut progress = roles.progress.subscribe();
    let mut changes = roles.changes();
    loop {
        let seen = progress.borrow_and_update().clone();
        if let Some(done) = look(roles, &seen).await
            && roles.at_rest().await
            // a run that waited when it was counted may be on its way since, and at rest there
            && look(roles, &seen).await.as_ref() == Some(&done)
            && !progress.has_changed().unwrap_or(false)
        {
            return done;
        }
        tokio::select! {
            // the sender lives as long as the roles
            _ = progress.changed() => {}
            _ = changes.next() => {}
        }
    }
}

/// The tally, if every loop has settled and no run may move by itself. A loop that cannot do its work for a reason that
/// does not pass counts as settled.
///
/// Runs come from the store itself: a cache may not show yet what the last round has just written.
async fn look(
    roles: &Roles,
    progress: &std::collections::BTreeMap<String, crate::sync::Settled>,
) -> Option<(Tally, bool)> {
    let expected = roles.caches.repositories.all();
    let all =
        expected.iter().map(|r| progress.get(&r.uid().unwrap_or_default())).collect::<Option<Vec<_>>>()?;
    if all.is_empty() || all.iter().any(|settled| settled.busy || settled.rounds == 0) {
        return None;
    }
    let runs = match roles.store.list(Kind::HarnessRun, roles.scope.as_ref()).await {
        Ok(runs) => runs,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot list the runs");
            return None;
        }
    };
    let runs: Vec<HarnessRun> = runs.into_iter().filter_map(|run| typed(run).ok()).collect();
    let recorded = all.iter().flat_map(|settled| settled.recorded.iter().cloned());
    let tally = tally(&runs, recorded)?;
    Some((tally, all.iter().any(|settled| settled.failed)))
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
        let cases = vec![
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
