//! Telling of runs, in their status and as events.

use tokio::time::Instant;

use super::{Desk, name};
use crate::{
    kinds::{
        HarnessRun, Reason,
        harness_run::HarnessRunStatus,
        standing::{denials_since, turned},
    },
    names::Uid,
    ports::objects::{At, Happening, Severity, id_of},
    recorder::{
        entries::Subject,
        queue,
        status::{self, News},
        write,
    },
    telemetry::{Chain, Decision, Verb, metrics},
};

impl Desk {
    /// Points to the result that the holder of a name recorded meanwhile.
    pub(super) async fn follow(&mut self, run: &HarnessRun, subject: &Subject) {
        let branch = self.book.as_ref().and_then(|book| book.branch.as_ref());
        match branch.map(|branch| write::follow(branch, &subject.run)) {
            Some(Ok(Some((entry, commit)))) => {
                self.tell(run, &News::RanBefore { entry, commit }).await;
            }
            Some(Err(error)) => {
                tracing::warn!(error = %Chain(&error), run = %subject.run, "cannot follow a run");
            }
            Some(Ok(None)) | None => {}
        }
    }

    pub(super) async fn abandon(&mut self, run: &HarnessRun, why: &str) {
        self.context.metrics.recorded(metrics::Entry::Result, metrics::RecordResult::Abandoned);
        self.context.audit(Verb::Record, &name(run), Decision::Failed, &format!("Abandoned: {why}"));
        if let (Some(about), Some(at)) = (id_of(crate::kinds::Kind::HarnessRun, run), At::of(run)) {
            let message = format!("the result is given up: {why}");
            let (severity, reason) = (Severity::Warning, Reason::Abandoned);
            self.context.store.tell(Happening { about, uid: at.uid, severity, reason, message }).await;
        }
        self.tell(run, &News::Unrecorded { reason: Reason::Abandoned, message: why.to_owned() }).await;
    }

    /// Writes the status. True: it stands, or there is no such run any more.
    pub(super) async fn tell(&mut self, run: &HarnessRun, news: &News) -> bool {
        let now = (self.context.clock)();
        let generation = run.metadata.generation;
        let told = status::of_run(self.context.store.as_ref(), run, |s| news.tell(s, generation, now)).await;
        if let Ok(Some((before, after))) = &told {
            self.announce(run, before, after).await;
        }
        let Some(Ok(uid)) = run.metadata.uid.as_ref().map(|uid| uid.parse::<Uid>()) else {
            return told.is_ok();
        };
        match &told {
            // A doubt stays a need: what it is about may change at any time.
            Ok(_) if matches!(news, News::ClaimWaits { .. } | News::RecordWaits { .. }) => {}
            Ok(_) => {
                let need = queue::need(run, self.give_up_after(), now);
                self.told.written(&uid, need, Instant::now().into_std());
            }
            Err(error) => {
                let why = Chain(error).to_string();
                let (run, error) = (name(run), why.as_str());
                if self.told.refused(&uid, why.clone(), Instant::now().into_std()) {
                    tracing::warn!(run, error, "a status is not written yet");
                } else {
                    tracing::debug!(run, error, "a status is still not written");
                }
            }
        }
        told.is_ok()
    }

    /// Tells of an end that was written with its result.
    async fn announce(&self, run: &HarnessRun, before: &HarnessRunStatus, after: &HarnessRunStatus) {
        self.context.metrics.egress_denied(denials_since(Some(before), after));
        let at = At::of(run).zip(id_of(crate::kinds::Kind::HarnessRun, run));
        if let (Some(turned), Some((at, about))) = (turned(Some(before), after), at) {
            let severity = if turned.bad { Severity::Warning } else { Severity::Normal };
            let (reason, message) = (turned.reason, turned.message);
            self.context.store.tell(Happening { about, uid: at.uid, severity, reason, message }).await;
        }
    }
}
