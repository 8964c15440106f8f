//! What a run still needs of the recorder, read from its status: that is the whole queue. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::kinds::{
    HarnessRun, Phase, Reason,
    condition::{self, types},
};

/// What a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Its name claimed.
    Claim,
    /// A record, though nobody reported.
    Record,
    /// Nothing but to be told when the holder of its name records a result.
    Follow,
    /// To be given up.
    GiveUp,
    /// Nothing.
    Nothing,
}

/// Decides.
pub(super) fn need(run: &HarnessRun, give_up_after: Duration, now: Timestamp) -> Need {
    let Some(status) = &run.status else { return Need::Nothing };
    let said = condition::get(&status.conditions, types::RESULT_RECORDED);
    let says = |reason: Reason| said.is_some_and(|said| said.reason == reason.as_str());
    if let Some(result) = &status.result {
        let elsewhere = result.reason == Reason::ClaimedElsewhere && result.commit.is_none();
        return if elsewhere { Need::Follow } else { Need::Nothing };
    }
    if says(Reason::Abandoned) || says(Reason::NoRepository) {
        return Need::Nothing;
    }
    if status.phase.is_some_and(Phase::is_terminal) {
        let ended = status.completion_time.as_ref().map_or(now, |time| time.0);
        return if past(ended, give_up_after, now) { Need::GiveUp } else { Need::Record };
    }
    let asked = status.claim.as_ref().is_some_and(|c| c.requested_at.is_some() && c.holder.is_none());
    if asked { Need::Claim } else { Need::Nothing }
}

/// What a delivery of a run becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Its result.
    Result,
    /// Nothing yet: that the run was lost is recorded first, because its phase says so and stays.
    LostFirst,
    /// A result beside the one that says `Lost`.
    Late,
    /// Nothing: it has its result.
    Nothing,
}

/// Decides.
pub(super) fn due(run: &HarnessRun, give_up_after: Duration, now: Timestamp) -> Due {
    let Some(status) = &run.status else { return Due::Result };
    match &status.result {
        // `Recorded` is the result of an earlier life of the name, which is not ours to add to.
        Some(result) if result.reason == Reason::Recorded || result.commit.is_none() => Due::Nothing,
        Some(result) if result.outcome == Phase::Lost => Due::Late,
        Some(_) => Due::Nothing,
        None if status.phase == Some(Phase::Lost) && need(run, give_up_after, now) == Need::Record => {
            Due::LostFirst
        }
        None => Due::Result,
    }
}

/// True when `moment` is longer ago than `after`.
pub(super) fn past(moment: Timestamp, after: Duration, now: Timestamp) -> bool {
    now.duration_since(moment).unsigned_abs() > after && now > moment
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked<T>(status: &serde_json::Value, of: impl Fn(&HarnessRun, Duration, Timestamp) -> T) -> T {
        let run = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": "r", "uid": "u"}, "spec": {}, "status": status
        });
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        of(&serde_json::from_value(run).unwrap(), Duration::from_hours(1), now)
    }

    fn needs(status: &serde_json::Value) -> Need {
        asked(status, need)
    }

    #[test]
    fn a_delivery_is_late_when_its_run_was_recorded_as_lost() {
        let result = |outcome: &str, reason: &str, commit: Option<&str>| json!({"phase": outcome, "result": {"outcome": outcome, "reason": reason, "commit": commit}});
        let cases = [
            (json!({"phase": "Running"}), Due::Result),
            (json!({"phase": "Failed"}), Due::Result),
            (json!({"phase": "Lost"}), Due::LostFirst),
            (json!({"phase": "Lost", "completionTime": "2026-11-21T08:00:00Z"}), Due::Result),
            (result("Lost", "ResultUnavailable", Some("c")), Due::Late),
            (result("Lost", "Recorded", Some("c")), Due::Nothing),
            (result("Lost", "ClaimedElsewhere", None), Due::Nothing),
            (result("Succeeded", "Completed", Some("c")), Due::Nothing),
        ];
        for (status, expected) in cases {
            assert_eq!(asked(&status, due), expected, "{status}");
        }
    }

    #[test]
    fn the_status_is_the_queue() {
        let asked = json!({"requestedAt": "2026-11-21T09:59:00Z"});
        let held = json!({"requestedAt": "2026-11-21T09:59:00Z", "holder": "h"});
        let said = |reason: &str| {
            json!([{"type": "ResultRecorded", "status": "False", "reason": reason, "message": "",
                    "lastTransitionTime": "2026-11-21T09:00:00Z"}])
        };
        let cases = [
            (json!({}), Need::Nothing),
            (json!({"phase": "Queued", "claim": asked}), Need::Claim),
            (json!({"phase": "Held", "claim": asked}), Need::Claim),
            (json!({"phase": "Running", "claim": held}), Need::Nothing),
            (json!({"phase": "Lost", "claim": held}), Need::Record),
            (json!({"phase": "Lost", "completionTime": "2026-11-21T09:30:00Z"}), Need::Record),
            (json!({"phase": "Lost", "completionTime": "2026-11-21T08:00:00Z"}), Need::GiveUp),
            (json!({"phase": "Lost", "conditions": said("Abandoned")}), Need::Nothing),
            (json!({"phase": "Failed", "conditions": said("NoRepository")}), Need::Nothing),
            (
                json!({"phase": "Failed", "result": {"outcome": "Failed", "reason": "NameUsed"}}),
                Need::Nothing,
            ),
            (
                json!({"phase": "Lost", "result": {"outcome": "Lost", "reason": "ClaimedElsewhere"}}),
                Need::Follow,
            ),
            (
                json!({"phase": "Failed", "result": {"outcome": "Failed", "reason": "NonZeroExit", "commit": "c"}}),
                Need::Nothing,
            ),
        ];
        for (status, expected) in cases {
            assert_eq!(needs(&status), expected, "{status}");
        }
    }
}
