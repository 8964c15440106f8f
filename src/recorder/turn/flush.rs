//! One commit for what is needed, and what became of it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;

use super::{Desk, Job, fitting, name};
use crate::{
    git::sign::SigningKey,
    kinds::{ConfigRepository, config_repository::Bulk},
    ledger::Record,
    names::Uid,
    recorder::{
        Clock, Error,
        branch::LedgerBranch,
        bulk,
        settings::Settings,
        status::News,
        write::{self, Pen, Proposal},
    },
    report::{BUNDLE, Delivery, Receipt},
    telemetry::{Decision, Verb, metrics},
};

impl Desk {
    /// Works on the branch in a thread. When the thread breaks, the branch is opened again.
    pub(super) async fn on_branch<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut LedgerBranch, &Work) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let book = self.book.as_mut().ok_or_else(|| Error::Refused("the ledger is not open".to_owned()))?;
        let settings = book.settings.clone();
        let (secret, proxy) = (settings.secret.as_ref(), settings.proxy.as_ref());
        let secrets = self.context.secrets.as_ref();
        let location = settings.location.clone();
        let remote = crate::git::secret::remote(
            secrets,
            &settings.namespace,
            location,
            secret,
            proxy,
            settings.timeout,
        )
        .await?;
        let Some(mut branch) = book.branch.take() else {
            return Err(Error::Refused("the ledger is not open".to_owned()));
        };
        let tools = Work {
            remote,
            interrupt: self.interrupt.clone(),
            settings,
            key: book.key.clone(),
            clock: self.context.clock.clone(),
            holder: self.holder.clone(),
        };
        let (branch, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut branch, &tools);
            (branch, done)
        })
        .await?;
        book.branch = Some(branch);
        done
    }

    /// One commit for as much as fits; the rest has its turn after the window.
    pub(super) async fn flush(&mut self, repository: &ConfigRepository, mut jobs: Vec<Job>) {
        let window = self.book.as_ref().map_or(Duration::ZERO, |book| book.settings.window);
        let early = self.last_flush.is_some_and(|last| last.elapsed() < window);
        self.more = true;
        if early || self.failures > 0 && Instant::now() < self.next_look {
            self.more = early;
            return self.not_yet();
        }
        let fitting = fitting(jobs.iter().map(Job::bulk_bytes));
        self.more = jobs.len() > fitting;
        jobs.truncate(fitting);
        self.last_flush = Some(Instant::now());
        let written = self.on_branch(move |branch, work| write_jobs(branch, work, jobs)).await;
        match written {
            Ok(written) => {
                self.failures = 0;
                self.refusal = None;
                self.ready(repository, false).await;
                self.settle(written).await;
            }
            Err(error) => {
                self.failed(repository, &error).await;
                self.not_yet();
            }
        }
    }

    /// Sidecars are not kept waiting while the ledger is away: they ask again.
    pub(super) fn not_yet(&mut self) {
        if self.failures > 0 {
            let uids: Vec<Uid> = self.outgoing.keys().cloned().collect();
            for uid in &uids {
                self.answer(uid, Receipt::Waiting);
            }
        }
    }

    /// Says what became of each.
    async fn settle(&mut self, written: Vec<(Job, write::Verdict)>) {
        let mut tellings = Vec::with_capacity(written.len());
        for (job, verdict) in written {
            let doubt = matches!(verdict, write::Verdict::Doubt { .. });
            let news = self.news(&job, verdict);
            let end = End { uid: job.subject.uid, delivery: job.delivery, doubt };
            if job.late && doubt {
                // A late result in doubt does not take back what is recorded.
                self.end(end, true);
            } else {
                tellings.push((job.run, news, end));
            }
        }
        self.tell(tellings, Self::end).await;
    }

    /// What a verdict means for its run, which is counted and goes into the trail.
    fn news(&self, job: &Job, verdict: write::Verdict) -> News {
        let written = matches!(verdict, write::Verdict::Stands { .. });
        let (entry, verb) = match job.result {
            Some(_) => (metrics::Entry::Result, Verb::Record),
            None => (metrics::Entry::Claim, Verb::Claim),
        };
        let count = if written { metrics::RecordResult::Pushed } else { metrics::RecordResult::Refused };
        self.context.metrics.recorded(entry, count);
        let decision = if written { Decision::Allowed } else { Decision::Denied };
        let result = job.result.as_ref().map(|(entry, _)| entry.clone());
        let news = match (verdict, result) {
            (write::Verdict::Stands { commit }, Some(entry)) if job.late => News::Late { entry, commit },
            (verdict, result) => News::of(verdict, &job.subject.uid, &self.holder, result),
        };
        self.context.audit(verb, &name(&job.run), decision, &news.to_string());
        news
    }

    fn end(&mut self, End { uid, delivery, doubt }: End, told: bool) {
        match delivery {
            Some(_) if doubt => self.answer(&uid, Receipt::Waiting),
            Some(delivery) => self.done(&uid, told, Some(&delivery)),
            None => {}
        }
    }
}

/// What is left to do for a job whose status was written.
struct End {
    uid: Uid,
    delivery: Option<Delivery>,
    doubt: bool,
}

/// What a thread needs to work on the branch.
pub(super) struct Work {
    pub(super) remote: crate::git::Remote,
    pub(super) interrupt: Arc<AtomicBool>,
    settings: Settings,
    key: Arc<SigningKey>,
    clock: Clock,
    holder: String,
}

fn write_jobs(
    branch: &mut LedgerBranch,
    work: &Work,
    mut jobs: Vec<Job>,
) -> Result<Vec<(Job, write::Verdict)>, Error> {
    let now = || (work.clock)();
    let author = &work.settings.author;
    let mut proposals = Vec::with_capacity(jobs.len());
    for job in &mut jobs {
        let mut bulk = None;
        if let (Some((entry, _)), Some(delivery)) = (&mut job.result, &job.delivery) {
            if work.settings.bulk == Bulk::Refs {
                let skip = entry.push.pushed.then_some(BUNDLE);
                let made = bulk::commit(branch.repository(), delivery, skip, author, &work.key, now())?;
                (bulk, entry.bulk) = made.unzip();
            } else if !delivery.files.is_empty() {
                entry
                    .notes
                    .push("output, recording and patch were not kept (spec.writeBack.bulk: None)".to_owned());
            }
        }
        let record = match &job.result {
            Some((entry, summary)) if job.late => Record::Late(entry.clone(), summary.clone()),
            Some((entry, summary)) => Record::Result(entry.clone(), summary.clone()),
            None => Record::Claim(job.subject.clone().claim(&work.holder, now())),
        };
        proposals.push(Proposal { record, bulk });
    }
    let reference = work.settings.branch.to_ref();
    let pen = Pen {
        remote: &work.remote,
        author,
        key: &work.key,
        reference: &reference,
        interrupt: &work.interrupt,
    };
    let verdicts = write::write(branch, &pen, &proposals, &now)?;
    Ok(jobs.into_iter().zip(verdicts).collect())
}
