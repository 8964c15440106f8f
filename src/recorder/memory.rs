//! What the ledger has to hold, from what the store says: the memory against a ledger that is rewritten.
//!
//! `status.ledgerTip` of the repository is noted within [`WITHIN`], not with each commit. What is newer is in the runs:
//! each says which commits hold its claim and its result.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{Side, World};
use crate::{
    git::CommitId,
    kinds::{
        ConfigRepository, HarnessRun,
        condition::{self, types},
        config_repository::ConfigRepositoryStatus,
    },
    names::{Namespace, ObjectName},
};

/// How long a tip may stand that is not noted, in a repository where nothing else is to be said.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// The tip that is not noted yet.
#[derive(Debug, Default)]
pub(super) struct Unnoted(Option<(String, Instant)>);

impl Unnoted {
    /// Takes in where the ledger is and what the repository's status says of that.
    pub(super) fn see(&mut self, tip: Option<&str>, status: Option<&ConfigRepositoryStatus>) {
        let Some(tip) = tip else { return };
        if status.and_then(|status| status.ledger_tip.as_deref()) == Some(tip) {
            self.0 = None;
        } else {
            let since = self.0.take().map_or_else(Instant::now, |(_, since)| since);
            self.0 = Some((tip.to_owned(), since));
        }
    }

    /// The tip.
    pub(super) fn tip(&self) -> Option<&str> {
        self.0.as_ref().map(|(tip, _)| tip.as_str())
    }

    /// When it has to be noted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.as_ref().map(|(_, since)| *since + WITHIN)
    }

    /// It cannot be noted now.
    pub(super) fn put_off(&mut self) {
        if let Some((_, since)) = &mut self.0 {
            *since = Instant::now();
        }
    }
}

/// The commits that the ledger of `own` has to hold: the tip that was noted, and those of runs that were told of theirs
/// since. Where no tip is noted nothing is demanded: that is how somebody says that another ledger is meant.
pub(super) fn of_store(
    world: &World,
    own: &(Namespace, ObjectName),
    repository: &ConfigRepository,
    holder: &str,
) -> Result<Vec<CommitId>, crate::git::Error> {
    let Some(status) = &repository.status else { return Ok(Vec::new()) };
    let Some(tip) = &status.ledger_tip else { return Ok(Vec::new()) };
    let mut commits = vec![tip.parse()?];
    let Some(since) = condition::get(&status.conditions, types::LEDGER_READY) else { return Ok(commits) };
    let runs = world.runs();
    let told = runs.iter().map(|run| (run, told_since(run, holder, since.last_transition_time.0)));
    // nearly all were told before, and whose they are is asked only of the others
    let ours = told.filter(|(run, told)| !told.is_empty() && world.side(run, own) == Side::Ours);
    let mut told: Vec<CommitId> = ours.flat_map(|(_, told)| told).collect();
    told.sort_unstable();
    told.dedup();
    commits.extend(told);
    Ok(commits)
}

/// The commits of a run that it was told of since then: the claim's, and the result's.
fn told_since(run: &HarnessRun, holder: &str, since: jiff::Timestamp) -> Vec<CommitId> {
    let status = run.status.as_ref();
    let told = |type_: &str| {
        let condition = condition::get(&status?.conditions, type_)?;
        (condition.status == "True" && condition.last_transition_time.0 >= since).then_some(())
    };
    let claim = status.and_then(|status| status.claim.as_ref());
    let claim =
        claim.filter(|claim| claim.holder.as_deref() == Some(holder) && told(types::CLAIMED).is_some());
    let result = status.and_then(|status| status.result.as_ref());
    let result = result.filter(|_| told(types::RESULT_RECORDED).is_some());
    let commits = [claim.and_then(|c| c.commit.as_deref()), result.and_then(|r| r.commit.as_deref())];
    commits.into_iter().flatten().filter_map(|commit| commit.parse().ok()).collect()
}
