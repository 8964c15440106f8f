//! Telling of runs, in their status and as events.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{Desk, name};
use crate::{
    class::Class,
    kinds::{
        HarnessRun, Kind, Reason,
        harness_run::HarnessRunStatus,
        standing::{denials_since, turned},
    },
    names::Uid,
    ports::objects::{At, Happening, Severity, id_of},
    recorder::{
        Context, Error,
        entries::Subject,
        status::{self, News, Stands},
        write,
    },
    telemetry::{Chain, Decision, Verb, metrics},
};

/// Statuses that are written at once: a store that answers in 10 ms takes all of a commit in less than 0.1 s.
const AT_ONCE: usize = 16;

/// A run, what is to be said of it, and what that is about.
pub(super) type Telling<T> = (Arc<HarnessRun>, News, T);

impl Desk {
    /// What the holder of a name recorded meanwhile.
    pub(super) fn follow(&self, subject: &Subject) -> Option<News> {
        let branch = self.book.as_ref()?.branch.as_ref()?;
        match write::follow(branch, &subject.run) {
            Ok(found) => found.map(|(entry, commit)| News::RanBefore { entry, commit }),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), run = %subject.run, "cannot follow a run");
                None
            }
        }
    }

    pub(super) async fn abandon(&self, run: &HarnessRun, why: &str) -> News {
        self.context.metrics.recorded(metrics::Entry::Result, metrics::RecordResult::Abandoned);
        self.context.audit(Verb::Record, &name(run), Decision::Failed, &format!("Abandoned: {why}"));
        if let (Some(about), Some(at)) = (id_of(Kind::HarnessRun, run), At::of(run)) {
            let message = format!("the result is given up: {why}");
            let (severity, reason) = (Severity::Warning, Reason::Abandoned);
            self.context.store.tell(Happening { about, uid: at.uid, severity, reason, message }).await;
        }
        News::Unrecorded { reason: Reason::Abandoned, message: why.to_owned() }
    }

    /// Writes statuses, a few at once; a run is in this once. `then` is told of each what it was about, and whether it
    /// stands or there is no such run any more.
    pub(super) async fn tell<T>(
        &mut self,
        tellings: Vec<Telling<T>>,
        mut then: impl FnMut(&mut Self, T, bool),
    ) {
        let told: Vec<_> =
            tellings.into_iter().map(|(run, news, about)| self.telling(run, news, about)).collect();
        let mut told = stream::iter(told).buffer_unordered(AT_ONCE);
        while let Some((run, told, about)) = told.next().await {
            self.note_telling(&run, &told);
            then(self, about, told.is_ok());
        }
    }

    /// One of them, as something that needs nothing of the desk.
    fn telling<T>(
        &self,
        run: Arc<HarnessRun>,
        news: News,
        about: T,
    ) -> impl Future<Output = (Arc<HarnessRun>, Result<Option<Stands<HarnessRunStatus>>, Error>, T)> + use<T>
    {
        // A push took its time: what came meanwhile is seen.
        let runs = &self.context.caches.runs;
        let now = runs.get(
            run.metadata.namespace.as_deref().unwrap_or_default(),
            run.metadata.name.as_deref().unwrap_or_default(),
        );
        let run = now.filter(|now| now.metadata.uid == run.metadata.uid).unwrap_or(run);
        let (context, behind) = (self.context.clone(), self.told.is_ahead(&run));
        async move {
            let (now, generation) = ((context.clock)(), run.metadata.generation);
            let with = |status: &mut HarnessRunStatus| news.tell(status, generation, now);
            let told = status::change(context.store.as_ref(), run.as_ref(), behind, with).await;
            if let Ok(Some(Stands { before, after, .. })) = &told {
                announce(&context, &run, before, after).await;
            }
            (run, told, about)
        }
    }

    fn note_telling(&mut self, run: &HarnessRun, told: &Result<Option<Stands<HarnessRunStatus>>, Error>) {
        let now = Instant::now().into_std();
        let Some(Ok(uid)) = run.metadata.uid.as_ref().map(|uid| uid.parse::<Uid>()) else { return };
        let error = match told {
            Ok(stands) => {
                let version = stands.as_ref().and_then(|stands| stands.version.clone());
                return self.told.written(&uid, version, now);
            }
            Err(error) => error,
        };
        let why = Chain(error).to_string();
        let is_news = self.told.refused(&uid, why.clone(), now);
        let run = name(run);
        // that others write at the same time is nobody's concern: it is tried again
        if is_news && error.class() != Class::Conflict {
            tracing::warn!(run, error = why, "a status is not written yet");
        } else {
            tracing::debug!(run, error = why, "a status is still not written");
        }
    }
}

/// Tells of an end that was written with its result.
async fn announce(context: &Context, run: &HarnessRun, before: &HarnessRunStatus, after: &HarnessRunStatus) {
    context.metrics.egress_denied(denials_since(Some(before), after));
    let at = At::of(run).zip(id_of(Kind::HarnessRun, run));
    if let (Some(turned), Some((at, about))) = (turned(Some(before), after), at) {
        let severity = if turned.bad { Severity::Warning } else { Severity::Normal };
        let (reason, message) = (turned.reason, turned.message);
        context.store.tell(Happening { about, uid: at.uid, severity, reason, message }).await;
    }
}
