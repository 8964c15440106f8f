//! The repository's status, from what a round found. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    kinds::{
        Reason,
        condition::{self, State, types},
        config_repository::{Applied, AppliedAt, ConfigRepositoryStatus, Diagnostic, Held},
    },
    plan::PlanReport,
};

/// Most diagnostics and held objects that a status lists.
const MOST: usize = 16;
/// Commits that the history keeps.
const HISTORY: usize = 5;

/// What a round found out about the repository as a whole.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) ready: State,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// True: it goes on by itself.
    pub(super) reconciling: bool,
}

impl Standing {
    /// The repository is suspended.
    pub(super) fn suspended() -> Self {
        let message = "nothing is fetched or applied".to_owned();
        Self { ready: State::False, reason: Reason::Suspended, message, reconciling: false }
    }
}

/// Writes the standing into the conditions.
pub(super) fn stand(
    status: &mut ConfigRepositoryStatus,
    standing: &Standing,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Standing { ready, reason, message, reconciling } = standing;
    let conditions = &mut status.conditions;
    condition::set(conditions, types::READY, *ready, *reason, message, generation, now);
    let stalled = *ready == State::False && !reconciling;
    for (type_, holds) in [(types::RECONCILING, *reconciling), (types::STALLED, stalled)] {
        if holds {
            condition::set(conditions, type_, State::True, *reason, message, generation, now);
        } else {
            condition::clear(conditions, type_);
        }
    }
    status.observed_generation = generation;
}

/// Writes what the plan said.
pub(super) fn report(status: &mut ConfigRepositoryStatus, report: &PlanReport) {
    let total = |n: usize| (n > 0).then(|| i64::try_from(n).unwrap_or(i64::MAX));
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    status.diagnostics = report
        .diagnostics
        .iter()
        .take(MOST)
        .map(|d| Diagnostic {
            path: d.path.to_string(),
            line: d.at.line.into(),
            column: d.at.column.into(),
            code: d.code.as_str().to_owned(),
            message: cut(&d.message, 500),
        })
        .collect();
    status.diagnostics_total = total(report.diagnostics.len());
    status.held = report
        .held
        .iter()
        .take(MOST)
        .map(|held| Held {
            object: held.object.to_string(),
            reason: cut(&format!("{}: {}", held.reason, held.message), 500),
        })
        .collect();
    status.held_total = total(report.held.len());
}

/// Notes that a commit is in force.
pub(super) fn applied(status: &mut ConfigRepositoryStatus, commit: &str, objects: usize, now: Timestamp) {
    let objects = i64::try_from(objects).unwrap_or(i64::MAX);
    status.last_applied = Some(Applied { commit: commit.to_owned(), objects });
    if status.history.first().is_none_or(|newest| newest.commit != commit) {
        status.history.insert(0, AppliedAt { commit: commit.to_owned(), time: Time(now) });
        status.history.truncate(HISTORY);
    }
}

/// The standing of a plan that was carried out.
pub(super) fn of_plan(report: &PlanReport, failed: &[String]) -> Standing {
    let errors = report.diagnostics.iter().filter(|d| d.is_error()).count();
    let not_ready =
        |reason, message: String| Standing { ready: State::False, reason, message, reconciling: false };
    if let [first, ..] = failed {
        let message = format!("{} objects could not be written: {first}", failed.len());
        return Standing { reconciling: true, ..not_ready(Reason::Progressing, message) };
    }
    if errors > 0 {
        let first =
            report.diagnostics.iter().find(|d| d.is_error()).map(crate::manifest::Diagnostic::headline);
        let message = format!("{errors} errors in files; the rest is applied: {}", first.unwrap_or_default());
        return not_ready(Reason::SomeFilesFailed, message);
    }
    if let [first, ..] = report.held.as_slice() {
        let message = format!("{} objects are held: {}: {}", report.held.len(), first.object, first.message);
        return not_ready(first.reason, message);
    }
    let message = format!("{} objects from {} files are in force", report.objects, report.files);
    Standing { ready: State::True, reason: Reason::Succeeded, message, reconciling: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_short_and_newest_first() {
        let mut status = ConfigRepositoryStatus::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for n in 0..7 {
            applied(&mut status, &format!("c{n}"), 1, at(n));
            applied(&mut status, &format!("c{n}"), 1, at(n + 100));
        }
        let commits: Vec<_> = status.history.iter().map(|h| h.commit.as_str()).collect();
        assert_eq!(commits, ["c6", "c5", "c4", "c3", "c2"]);
        assert_eq!(status.history[0].time.0, at(6), "the first time counts");
    }

    #[test]
    fn a_failure_that_may_pass_is_reconciling_and_not_stalled() {
        let mut status = ConfigRepositoryStatus::default();
        let at = Timestamp::from_second(1).unwrap();
        let standing = |reconciling| Standing {
            ready: State::False,
            reason: Reason::FetchFailed,
            message: "m".into(),
            reconciling,
        };
        stand(&mut status, &standing(true), Some(1), at);
        assert!(condition::is_true(&status.conditions, types::RECONCILING));
        assert!(!condition::is_true(&status.conditions, types::STALLED));
        stand(&mut status, &standing(false), Some(1), at);
        assert!(!condition::is_true(&status.conditions, types::RECONCILING));
        assert!(condition::is_true(&status.conditions, types::STALLED));
    }
}
