//! One turn of the recorder: look at what is needed, write one commit, say what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use secrecy::ExposeSecret;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Context, Error,
    branch::LedgerBranch,
    bulk,
    entries::Subject,
    prepare::{self, Outgoing, Prepared},
    queue::{self, Need},
    settings::Settings,
    status::{self, News},
    world::{Side, World},
    write::{self, Pen, Proposal},
};
use crate::{
    class::Class,
    git::sign::SigningKey,
    kinds::{
        ConfigRepository, HarnessRun, Reason,
        condition::State,
        config_repository::{Bulk, ClaimMode, ConfigRepositorySpec},
    },
    ledger::{self, Record, ResultEntry},
    names::{Namespace, ObjectName, Uid},
    ports::{
        objects::{Happening, Severity, id_of},
        secrets::SecretUse,
    },
    report::{BUNDLE, Delivery, Receipt},
    telemetry::{Chain, Decision, Verb, metrics},
};

/// Entries in one commit; each may bring a reference of its own, and a push holds at most 256.
const BATCH: usize = 100;
/// Code branches that are pushed at once.
const PUSHES: usize = 4;
/// First wait after a failure; doubled each time, up to the repository's interval.
const RETRY: Duration = Duration::from_millis(500);

/// What lies on the recorder's desk.
pub(super) struct Desk {
    context: Arc<Context>,
    own: (Namespace, ObjectName),
    ledger: watch::Sender<Arc<ledger::State>>,
    interrupt: Arc<AtomicBool>,
    /// Deliveries that nobody has looked at.
    new: Vec<Delivery>,
    preparing: JoinSet<Prepared>,
    /// Results that are ready for the ledger.
    outgoing: BTreeMap<Uid, Outgoing>,
    /// Who waits for which run's answer, and since when.
    waiting: BTreeMap<Uid, Vec<(oneshot::Sender<Receipt>, Instant)>>,
    book: Option<Open>,
    /// What the remote said when it refused our push; until it takes one, or nobody asks.
    refusal: Option<String>,
    last_flush: Option<Instant>,
    next_look: Instant,
    failures: u32,
    more: bool,
}

/// An open ledger.
struct Open {
    spec: ConfigRepositorySpec,
    settings: Settings,
    key: Arc<SigningKey>,
    /// `None` while a thread works on it, and after one broke.
    branch: Option<LedgerBranch>,
}

/// Something to write and what it is for.
struct Job {
    run: HarnessRun,
    subject: Subject,
    /// `None`: a claim.
    result: Option<(Box<ResultEntry>, String)>,
    delivery: Option<Delivery>,
}

impl Desk {
    pub(super) fn new(
        context: Arc<Context>,
        own: (Namespace, ObjectName),
        ledger: watch::Sender<Arc<ledger::State>>,
        interrupt: Arc<AtomicBool>,
    ) -> Self {
        Self {
            context,
            own,
            ledger,
            interrupt,
            new: Vec::new(),
            preparing: JoinSet::new(),
            outgoing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            book: None,
            refusal: None,
            last_flush: None,
            next_look: Instant::now(),
            failures: 0,
            more: false,
        }
    }

    /// When to look again though nothing happens.
    pub(super) fn wake(&self) -> Instant {
        let window = self.book.as_ref().map_or(RETRY, |book| book.settings.window);
        match self.last_flush {
            Some(last) if self.more => last + window,
            _ => self.next_look,
        }
    }

    /// Takes a delivery. The same one again waits for the same answer.
    pub(super) fn take(&mut self, delivery: Delivery, reply: oneshot::Sender<Receipt>) {
        let waiting = self.waiting.entry(delivery.report.run.uid.clone()).or_default();
        let first = waiting.is_empty();
        waiting.push((reply, Instant::now()));
        if first && !self.outgoing.contains_key(&delivery.report.run.uid) {
            self.new.push(delivery);
        }
    }

    /// The next delivery that is ready; `None` when none is being prepared.
    pub(super) async fn prepared(&mut self) -> Option<Prepared> {
        match self.preparing.join_next().await? {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a delivery could not be prepared");
                // Nobody knows whose it was: all ask again, and those that are still at work are found.
                let uids: Vec<Uid> = self.waiting.keys().cloned().collect();
                uids.iter().for_each(|uid| self.answer(uid, Receipt::Waiting));
                None
            }
        }
    }

    /// Puts a prepared delivery where the next turn finds it.
    pub(super) fn lay_out(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Ready(outgoing) => {
                self.outgoing.insert(outgoing.delivery.report.run.uid.clone(), *outgoing);
            }
            Prepared::Answered(uid, receipt) => self.answer(&uid, receipt),
        }
    }

    fn answer(&mut self, uid: &Uid, receipt: Receipt) {
        for (reply, since) in self.waiting.remove(uid).unwrap_or_default() {
            if receipt == Receipt::Recorded {
                self.context.metrics.written_back(since.elapsed());
            }
            // A sidecar that went away asks again.
            let _ = reply.send(receipt);
        }
    }

    /// One turn.
    pub(super) async fn turn(&mut self, world: &World) {
        self.sort_mail(world).await;
        let repository = world.repository(&self.own.0, &self.own.1).cloned();
        if let Some(repository) = &repository {
            self.look(repository).await;
        } else {
            self.book = None;
            self.publish(ledger::State::None);
        }
        let jobs = self.jobs(world, repository.is_some()).await;
        if jobs.is_empty() {
            return;
        }
        if let Some(repository) = repository {
            self.flush(&repository, jobs).await;
        }
    }

    /// Starts to prepare deliveries, a few at a time.
    async fn sort_mail(&mut self, world: &World) {
        while self.preparing.len() < PUSHES && !self.new.is_empty() {
            let delivery = self.new.remove(0);
            let uid = delivery.report.run.uid.clone();
            let run = match prepare::current(&self.context, &delivery).await {
                Ok(Ok(run)) => run,
                Ok(Err(receipt)) => {
                    if receipt == Receipt::Recorded {
                        discard(&delivery);
                    }
                    self.answer(&uid, receipt);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(run = %delivery.report.run, error = %Chain(&error), "a delivery waits");
                    self.answer(&uid, Receipt::Waiting);
                    continue;
                }
            };
            let give_up = self.give_up_after();
            let (context, interrupt) = (self.context.clone(), self.interrupt.clone());
            let session = world.session(&run).cloned();
            self.preparing.spawn(prepare::prepare(context, run, session, delivery, give_up, interrupt));
        }
    }

    fn give_up_after(&self) -> Duration {
        self.book.as_ref().map_or(Duration::from_hours(24), |book| book.settings.give_up_after)
    }

    /// What is to be written. What needs no ledger is done on the way.
    async fn jobs(&mut self, world: &World, exists: bool) -> Vec<Job> {
        let now = (self.context.clock)();
        let give_up = self.give_up_after();
        let mut jobs = Vec::new();
        for run in world.runs() {
            let need = queue::need(run, give_up, now);
            if need == Need::Nothing {
                continue;
            }
            let Some(subject) = Subject::of(run) else { continue };
            match (world.side(run, &self.own), need) {
                (Side::Ours, Need::Claim) if self.claims_in_store() => {
                    let news = News::Claimed { holder: self.context.holder.clone(), commit: None };
                    self.tell(run, &news).await;
                }
                (Side::Ours, Need::Claim) => {
                    jobs.push(Job { run: run.clone(), subject, result: None, delivery: None })
                }
                (Side::Ours, Need::Record) => {
                    let entry = subject.clone().without_report(run, &self.context.holder, now);
                    let result = Some((Box::new(entry), String::new()));
                    jobs.push(Job { run: run.clone(), subject, result, delivery: None });
                }
                (Side::Ours, Need::Follow) => self.follow(run, &subject).await,
                (Side::Ours, Need::GiveUp) => self.abandon(run, "it could not be recorded in time").await,
                (Side::Gone(name), Need::Record | Need::GiveUp) => {
                    self.abandon(run, &format!("ConfigRepository {name}, which was to record it, is gone"))
                        .await;
                }
                (Side::Nowhere, Need::Record | Need::GiveUp) => {
                    let message = "no repository records this run".to_owned();
                    self.tell(run, &News::Unrecorded { reason: Reason::NoRepository, message }).await;
                }
                _ => {}
            }
        }
        for (uid, outgoing) in std::mem::take(&mut self.outgoing) {
            let side = world.side(&outgoing.run, &self.own);
            let Some(subject) = Subject::of(&outgoing.run) else { continue };
            let ended = outgoing.delivery.report.ended_at.unwrap_or(now);
            let entry = subject.clone().result(
                &outgoing.delivery.report,
                &self.context.holder,
                outgoing.push.clone(),
                None,
                now,
            );
            let late = queue::past(ended, give_up, now) && self.failures > 0;
            let unrecorded = match side {
                Side::Ours if late => Some((Reason::Abandoned, "given up after giveUpAfter".to_owned())),
                Side::Ours if self.claims_in_store() && self.refusal.is_some() => {
                    self.refusal.clone().map(|text| (Reason::PushRefused, text))
                }
                Side::Ours if exists => None,
                Side::Ours | Side::Gone(_) => Some((Reason::Abandoned, "its repository is gone".to_owned())),
                Side::Nowhere => Some((Reason::NoRepository, "no repository records this run".to_owned())),
                Side::Theirs => {
                    self.answer(&uid, Receipt::Waiting);
                    continue;
                }
            };
            let run = outgoing.run.clone();
            if let Some(why) = unrecorded {
                let news = News::Ended { entry: Box::new(entry), commit: Err(why) };
                let told = self.tell(&run, &news).await;
                self.done(&uid, told, Some(&outgoing.delivery));
            } else {
                let summary = outgoing.delivery.report.record.summary.clone();
                let delivery = Some(outgoing.delivery.clone());
                jobs.push(Job { run, subject, result: Some((Box::new(entry), summary)), delivery });
                self.outgoing.insert(uid, outgoing);
            }
        }
        self.context.metrics.set_queue(metrics::Queue::Record, jobs.len());
        // A delivery speaks for its run; what the controller knows of it is less.
        let delivered: BTreeSet<Uid> =
            jobs.iter().filter(|job| job.delivery.is_some()).map(|job| job.subject.uid.clone()).collect();
        jobs.retain(|job| job.delivery.is_some() || !delivered.contains(&job.subject.uid));
        jobs
    }

    fn claims_in_store(&self) -> bool {
        self.book.as_ref().is_some_and(|book| book.settings.claim == ClaimMode::Cluster)
    }

    /// Points to the result that the holder of a name recorded meanwhile.
    async fn follow(&mut self, run: &HarnessRun, subject: &Subject) {
        let branch = self.book.as_ref().and_then(|book| book.branch.as_ref());
        match branch.map(|branch| write::follow(branch, &subject.run)) {
            Some(Ok(Some((entry, commit)))) => {
                self.tell(run, &News::RanBefore { entry, commit }).await;
            }
            Some(Err(error)) => {
                tracing::warn!(error = %Chain(&error), run = %subject.run, "cannot follow a run")
            }
            Some(Ok(None)) | None => {}
        }
    }

    async fn abandon(&mut self, run: &HarnessRun, why: &str) {
        self.context.metrics.recorded(metrics::Entry::Result, metrics::RecordResult::Abandoned);
        self.context.audit(Verb::Record, &name(run), Decision::Failed, &format!("Abandoned: {why}"));
        if let (Some(about), Some(at)) =
            (id_of(crate::kinds::Kind::HarnessRun, run), crate::ports::objects::At::of(run))
        {
            let message = format!("the result is given up: {why}");
            let (severity, reason) = (Severity::Warning, Reason::Abandoned);
            self.context.store.tell(Happening { about, uid: at.uid, severity, reason, message }).await;
        }
        self.tell(run, &News::Unrecorded { reason: Reason::Abandoned, message: why.to_owned() }).await;
    }

    /// Writes the status. True: it stands, or there is no such run any more.
    async fn tell(&mut self, run: &HarnessRun, news: &News) -> bool {
        let now = (self.context.clock)();
        let generation = run.metadata.generation;
        let told = status::of_run(self.context.store.as_ref(), run, |s| news.tell(s, generation, now)).await;
        if let Err(error) = &told {
            tracing::warn!(run = name(run), error = %Chain(error), "a status is not written yet");
            self.next_look = Instant::now() + RETRY;
        }
        told.is_ok()
    }

    /// The end of a delivery's way.
    fn done(&mut self, uid: &Uid, told: bool, delivery: Option<&Delivery>) {
        self.outgoing.remove(uid);
        if told && let Some(delivery) = delivery {
            discard(delivery);
        }
        self.answer(uid, if told { Receipt::Recorded } else { Receipt::Waiting });
    }

    /// Opens the ledger when that is due, and brings what others pushed.
    async fn look(&mut self, repository: &ConfigRepository) {
        let fresh =
            self.book.as_ref().is_some_and(|book| book.spec == repository.spec && book.branch.is_some());
        let changed = self.book.as_ref().is_some_and(|book| book.spec != repository.spec);
        if Instant::now() < self.next_look && (fresh || (self.failures > 0 && !changed)) {
            return;
        }
        if !fresh {
            self.book = None;
            match self.open(repository).await {
                Ok(book) => self.book = Some(book),
                Err(error) => return self.failed(repository, &error).await,
            }
        }
        let looked = self.on_branch(|branch, work| branch.fetch(&work.remote, &work.interrupt)).await;
        match looked {
            Ok(()) => {
                self.failures = 0;
                let interval = self.book.as_ref().map_or(RETRY, |book| book.settings.interval);
                // Spread over a tenth, so that many recorders do not ask at once.
                self.next_look = Instant::now() + interval.mul_f64(rand::random_range(0.95..1.05));
                self.ready(repository).await;
            }
            Err(error) => self.failed(repository, &error).await,
        }
    }

    async fn open(&self, repository: &ConfigRepository) -> Result<Open, Error> {
        let settings = Settings::of(repository)?;
        let key = self.key(&settings).await?;
        let signers = settings.signers(&key)?;
        let remembered = repository.status.as_ref().and_then(|status| status.ledger_tip.clone());
        let folder = self.context.folder.join("ledger").join(self.own.0.as_str()).join(self.own.1.as_str());
        let reference = settings.branch.to_ref();
        let branch = tokio::task::spawn_blocking(move || {
            LedgerBranch::open(&folder, reference, signers, remembered.as_deref())
        });
        Ok(Open { spec: repository.spec.clone(), settings, key, branch: Some(branch.await??) })
    }

    async fn key(&self, settings: &Settings) -> Result<Arc<SigningKey>, Error> {
        let Some(reference) = &settings.signing_key else { return Ok(self.context.key.clone()) };
        let invalid =
            |what| Error::Settings { field: "spec.writeBack.signingKeyRef", why: format!("{what}") };
        let name: ObjectName = reference.name.parse().map_err(|error| invalid(format!("{error}")))?;
        let data = self.context.secrets.resolve(&settings.namespace, &name, SecretUse::Sign, None).await?;
        let Some(text) = data.get(&reference.key).and_then(|v| std::str::from_utf8(v.expose_secret()).ok())
        else {
            return Err(Error::Credential { secret: name, what: "does not hold the signing key" });
        };
        let origin = format!("Secret {}/{name}", settings.namespace);
        Ok(Arc::new(SigningKey::from_openssh(text, std::path::Path::new(&origin))?))
    }

    /// Works on the branch in a thread. When the thread breaks, the branch is opened again.
    async fn on_branch<T: Send + 'static>(
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
            holder: self.context.holder.clone(),
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
    async fn flush(&mut self, repository: &ConfigRepository, mut jobs: Vec<Job>) {
        let window = self.book.as_ref().map_or(Duration::ZERO, |book| book.settings.window);
        let early = self.last_flush.is_some_and(|last| last.elapsed() < window);
        self.more = true;
        if early || self.failures > 0 && Instant::now() < self.next_look {
            self.more = early;
            return self.not_yet();
        }
        self.more = jobs.len() > BATCH;
        jobs.truncate(BATCH);
        self.last_flush = Some(Instant::now());
        let written = self.on_branch(move |branch, work| write_jobs(branch, work, jobs)).await;
        match written {
            Ok(written) => {
                self.failures = 0;
                self.refusal = None;
                self.ready(repository).await;
                for (job, verdict) in written {
                    self.settle(job, verdict).await;
                }
            }
            Err(error) => {
                self.failed(repository, &error).await;
                self.not_yet();
            }
        }
    }

    /// Sidecars are not kept waiting while the ledger is away: they ask again.
    fn not_yet(&mut self) {
        if self.failures > 0 {
            let uids: Vec<Uid> = self.outgoing.keys().cloned().collect();
            uids.iter().for_each(|uid| self.answer(uid, Receipt::Waiting));
        }
    }

    async fn settle(&mut self, job: Job, verdict: write::Verdict) {
        let written = matches!(verdict, write::Verdict::Stands { .. });
        let doubt = matches!(verdict, write::Verdict::Doubt { .. });
        let (entry, verb) = match job.result {
            Some(_) => (metrics::Entry::Result, Verb::Record),
            None => (metrics::Entry::Claim, Verb::Claim),
        };
        let count = if written { metrics::RecordResult::Pushed } else { metrics::RecordResult::Refused };
        self.context.metrics.recorded(entry, count);
        let decision = if written { Decision::Allowed } else { Decision::Denied };
        let delivered = job.delivery.is_some();
        let news =
            News::of(verdict, &job.subject.uid, &self.context.holder, job.result.map(|(entry, _)| entry));
        self.context.audit(verb, &name(&job.run), decision, &news.to_string());
        let told = self.tell(&job.run, &news).await;
        if delivered && doubt {
            self.answer(&job.subject.uid, Receipt::Waiting);
        } else if delivered {
            self.done(&job.subject.uid, told, job.delivery.as_ref());
        }
    }

    async fn ready(&mut self, repository: &ConfigRepository) {
        let Some(branch) = self.book.as_ref().and_then(|book| book.branch.as_ref()) else { return };
        let tip = branch.tip().map(|tip| tip.to_string());
        if let Some(text) = self.refusal.clone() {
            // Reading works, writing does not: a claim that is asked for will find out whether that has changed.
            self.publish(ledger::State::NotPushable(text));
            return;
        }
        let known = tip.as_deref().and_then(|tip| tip.parse().ok());
        let state = ledger::State::Ready { view: branch.view().clone(), tip: known };
        // The tip is remembered first: whoever acts on the view can rely on it.
        self.say(repository, tip.as_deref(), (State::True, Reason::LedgerReady, "")).await;
        self.publish(state);
    }

    async fn failed(&mut self, repository: &ConfigRepository, error: &Error) {
        let text = Chain(error).to_string();
        tracing::warn!(repository = %self.own.1, error = text, "the ledger cannot be read or written");
        self.failures = self.failures.saturating_add(1);
        self.context.metrics.recorded(metrics::Entry::Result, metrics::RecordResult::Retried);
        let interval = self.book.as_ref().map_or(Duration::from_mins(1), |book| book.settings.interval);
        let wait = (RETRY * 2_u32.pow(self.failures.min(8) - 1)).min(interval.max(RETRY));
        self.next_look = Instant::now() + wait.mul_f64(rand::random_range(0.8..1.2));
        let (state, reason) = match error {
            Error::Rewritten(_) => {
                let hint = "; if that is meant, clear status.ledgerTip of the ConfigRepository";
                (ledger::State::Rewritten(format!("{text}{hint}")), Reason::LedgerRewritten)
            }
            Error::Refused(_) => {
                let text = not_pushable(&text);
                self.refusal = Some(text.clone());
                (ledger::State::NotPushable(text), Reason::LedgerUnavailable)
            }
            error if error.class() == Class::Invalid => {
                (ledger::State::Unavailable(not_pushable(&text)), Reason::LedgerUnavailable)
            }
            _ => (ledger::State::Unavailable(text), Reason::LedgerUnavailable),
        };
        let message = match &state {
            ledger::State::Rewritten(text)
            | ledger::State::NotPushable(text)
            | ledger::State::Unavailable(text) => text.clone(),
            ledger::State::Ready { .. } | ledger::State::None | ledger::State::Unread => String::new(),
        };
        self.publish(state);
        self.say(repository, None, (State::False, reason, &message)).await;
    }

    async fn say(&mut self, repository: &ConfigRepository, tip: Option<&str>, what: (State, Reason, &str)) {
        let now = (self.context.clock)();
        let store = self.context.store.clone();
        if let Err(error) = status::of_repository(store.as_ref(), repository, tip, what, now).await {
            tracing::warn!(error = %Chain(&error), "the repository's status is not written yet");
            self.next_look = self.next_look.min(Instant::now() + RETRY);
        }
    }

    fn publish(&self, state: ledger::State) {
        self.ledger.send_if_modified(|current| {
            let changed = **current != state;
            if changed {
                *current = Arc::new(state);
            }
            changed
        });
    }
}

fn not_pushable(text: &str) -> String {
    format!(
        "{text}; give a push credential (spec.writeBack.secretRef), another repository for the ledger (--ledger-url), \
         or claim in the store alone (--claim cluster)"
    )
}

/// What a thread needs to work on the branch.
struct Work {
    remote: crate::git::Remote,
    interrupt: Arc<AtomicBool>,
    settings: Settings,
    key: Arc<SigningKey>,
    clock: super::Clock,
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

fn name(run: &HarnessRun) -> String {
    id_of(crate::kinds::Kind::HarnessRun, run).map_or_else(String::new, |id| id.to_string())
}

/// The spool's folder of a recorded delivery goes.
fn discard(delivery: &Delivery) {
    match std::fs::remove_dir_all(&delivery.folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a spooled delivery cannot be removed");
        }
        _ => {}
    }
}
