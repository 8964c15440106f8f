//! From what is known of a run to its entries. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    kinds::{HarnessRun, Phase, Reason, meta},
    ledger::{
        ClaimEntry, ResultEntry, RunName,
        entry::{AgentsWord, Bulk, Push, VERSION},
    },
    names::{CommitId, Uid},
    ports::objects,
    report::{ArtifactSeen, ChangesSeen, Report, outcome},
};

/// Who a run is, for the ledger.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subject {
    pub(super) run: RunName,
    pub(super) uid: Uid,
    pub(super) digest: String,
    pub(super) config_commit: Option<CommitId>,
}

impl Subject {
    /// `None` for an object that no store made.
    pub(super) fn of(run: &HarnessRun) -> Option<Self> {
        let id = objects::id_of(crate::kinds::Kind::HarnessRun, run)?;
        let digest = run.status.as_ref().and_then(|status| status.digest.clone());
        let digest = digest.or_else(|| run.annotations().get(meta::DIGEST).cloned());
        Some(Self {
            run: RunName::new(id.namespace, id.name),
            uid: run.uid()?.parse().ok()?,
            digest: digest.unwrap_or_else(|| "unknown".to_owned()),
            config_commit: run.annotations().get(meta::SOURCE_COMMIT).and_then(|commit| commit.parse().ok()),
        })
    }

    /// Its claim.
    pub(super) fn claim(self, holder: &str, now: Timestamp) -> ClaimEntry {
        ClaimEntry {
            version: VERSION,
            run: self.run,
            uid: self.uid,
            holder: holder.to_owned(),
            digest: self.digest,
            config_commit: self.config_commit,
            claimed_at: now,
        }
    }

    /// Its result, by the sidecar's report.
    pub(super) fn result(
        self,
        report: &Report,
        holder: &str,
        push: Push,
        bulk: Option<Bulk>,
        now: Timestamp,
    ) -> ResultEntry {
        let outcome = outcome(report);
        ResultEntry {
            version: VERSION,
            run: self.run,
            uid: self.uid,
            holder: holder.to_owned(),
            digest: report.digest.clone(),
            config_commit: self.config_commit,
            outcome: outcome.phase,
            reason: outcome.reason,
            message: outcome.message,
            started_at: report.started_at,
            ended_at: report.ended_at,
            recorded_at: now,
            exit_code: report.end.code(),
            agents_word: AgentsWord {
                usage: report.record.usage.clone(),
                session: report.record.session.clone(),
            },
            egress: report.egress.clone(),
            egress_proof: report.egress_proof.clone(),
            limits_not_enforced: report.limits_not_enforced.clone(),
            changes: Some(report.changes.clone()).filter(|changes| *changes != ChangesSeen::default()),
            push,
            bulk,
            startup: report.startup.clone(),
            artifacts: report.artifacts.clone() as Vec<ArtifactSeen>,
            notes: report.notes.clone(),
            undelivered: report.undelivered.clone(),
        }
    }

    /// Its result when there is no report: what the controller knows.
    pub(super) fn without_report(self, run: &HarnessRun, holder: &str, now: Timestamp) -> ResultEntry {
        let status = run.status.clone().unwrap_or_default();
        ResultEntry {
            version: VERSION,
            run: self.run,
            uid: self.uid,
            holder: holder.to_owned(),
            digest: self.digest,
            config_commit: self.config_commit,
            outcome: status.phase.filter(|phase| phase.is_terminal()).unwrap_or(Phase::Lost),
            reason: status.reason.unwrap_or(Reason::ResultUnavailable),
            message: status.message.unwrap_or_default(),
            started_at: status.start_time.map(|time| time.0),
            ended_at: status.completion_time.map(|time| time.0),
            recorded_at: now,
            exit_code: None,
            agents_word: AgentsWord::default(),
            egress: status.egress.unwrap_or_default(),
            egress_proof: None,
            limits_not_enforced: Vec::new(),
            changes: None,
            push: Push::withheld(Reason::PushNotRequested, None, "there is no report"),
            bulk: None,
            startup: status.startup.unwrap_or_default(),
            artifacts: Vec::new(),
            notes: vec!["the sidecar delivered no report".to_owned()],
            undelivered: Vec::new(),
        }
    }
}
