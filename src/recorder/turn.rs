//! One turn of the recorder: look at what is needed, write one commit, say what became of it.

mod flush;
mod jobs;
mod look;
mod tell;
mod told;

pub(super) use told::Told;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Context, Letter,
    branch::LedgerBranch,
    code,
    entries::Subject,
    memory::Unnoted,
    prepare::{self, Outgoing, Prepared},
    settings::Settings,
    world::World,
};
use crate::{
    git::sign::SigningKey,
    kinds::{HarnessRun, config_repository::ConfigRepositorySpec},
    ledger::{self, ResultEntry},
    names::{Namespace, ObjectName, Uid},
    ports::objects::id_of,
    report::{Delivery, Receipt},
    telemetry::Chain,
};

/// Entries in one commit; each may bring a reference of its own, and a push holds at most 256.
const BATCH: usize = 100;
/// Bytes of bulk in one commit: it is packed and pushed as a whole. One delivery may have more.
const BATCH_BYTES: u64 = 64 << 20;
/// Code branches that are pushed at once.
const PUSHES: usize = 4;
/// Deliveries on the desk; more wait with whoever brought them.
const HELD: usize = 1024;
/// First wait after a failure; doubled each time, up to the repository's interval.
const RETRY: Duration = Duration::from_millis(500);

/// What lies on the recorder's desk.
pub(super) struct Desk {
    context: Arc<Context>,
    own: (Namespace, ObjectName),
    /// Who we are in claims of this repository.
    holder: String,
    ledger: watch::Sender<Arc<ledger::State>>,
    interrupt: Arc<AtomicBool>,
    /// Deliveries that nobody has looked at.
    new: VecDeque<Delivery>,
    preparing: JoinSet<Prepared>,
    /// Results that are ready for the ledger.
    outgoing: BTreeMap<Uid, Outgoing>,
    /// Who waits for which run's answer, and since when.
    waiting: BTreeMap<Uid, Vec<(oneshot::Sender<Receipt>, Instant)>>,
    book: Option<Open>,
    /// What the remote said when it refused our push; until it takes one, or nobody asks.
    refusal: Option<String>,
    told: Told,
    /// What the store says to the repository's status, while it takes none.
    unsaid: Option<told::Refused>,
    unnoted: Unnoted,
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
    run: Arc<HarnessRun>,
    subject: Subject,
    /// `None`: a claim.
    result: Option<(Box<ResultEntry>, String)>,
    /// True: the result stands beside one that says `Lost`.
    late: bool,
    delivery: Option<Delivery>,
}

impl Job {
    fn bulk_bytes(&self) -> u64 {
        let files = self.delivery.iter().flat_map(|delivery| &delivery.files);
        files.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// How many jobs, by the bytes of their bulk, make one commit: at least one.
fn fitting(jobs: impl Iterator<Item = u64>) -> usize {
    let mut total: u64 = 0;
    let fits = |bytes: &u64| {
        total = total.saturating_add(*bytes);
        total <= BATCH_BYTES
    };
    jobs.take(BATCH).take_while(fits).count().max(1)
}

impl Desk {
    pub(super) fn new(
        context: Arc<Context>,
        own: (Namespace, ObjectName),
        ledger: watch::Sender<Arc<ledger::State>>,
        interrupt: Arc<AtomicBool>,
    ) -> Self {
        Self {
            holder: context.holder.clone().unwrap_or_default(),
            context,
            own,
            ledger,
            interrupt,
            new: VecDeque::new(),
            preparing: JoinSet::new(),
            outgoing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            book: None,
            refusal: None,
            told: Told::default(),
            unsaid: None,
            unnoted: Unnoted::default(),
            last_flush: None,
            next_look: Instant::now(),
            failures: 0,
            more: false,
        }
    }

    /// When to look again though nothing happens.
    pub(super) fn wake(&self) -> Instant {
        let window = self.book.as_ref().map_or(RETRY, |book| book.settings.window);
        let next = match self.last_flush {
            Some(last) if self.more => last + window,
            _ => self.next_look,
        };
        let others = [self.unnoted.due(), self.told.next().map(Into::into)];
        others.into_iter().flatten().fold(next, Instant::min)
    }

    /// True when another delivery may come.
    pub(super) fn has_room(&self) -> bool {
        self.new.len() + self.outgoing.len() < HELD
    }

    /// Takes a delivery. The same one again waits for the same answer.
    pub(super) fn take(&mut self, Letter { delivery, reply }: Letter) {
        let waiting = self.waiting.entry(delivery.report.run.uid.clone()).or_default();
        let first = waiting.is_empty();
        waiting.push((reply, Instant::now()));
        if first && !self.outgoing.contains_key(&delivery.report.run.uid) {
            self.new.push_back(delivery);
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
                for uid in &uids {
                    self.answer(uid, Receipt::Waiting);
                }
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
        self.told.begin(Instant::now().into_std());
        self.sort_mail(world).await;
        let repository = world.repository(&self.own.0, &self.own.1);
        if let Some(repository) = &repository {
            if self.context.holder.is_none() {
                self.holder = repository.metadata.uid.clone().unwrap_or_default();
            }
            self.look(repository, world).await;
            self.note_in_time(world).await;
        } else {
            self.book = None;
            self.publish(ledger::State::None);
        }
        let jobs = self.jobs(world, repository.is_some()).await;
        if jobs.is_empty() {
            // Nobody waits for the remote to change its mind: the next claim finds out.
            if let (Some(_), Some(repository)) = (self.refusal.take(), &repository) {
                self.ready(repository, false).await;
            }
            return;
        }
        if let Some(repository) = repository {
            self.flush(&repository, jobs).await;
        }
    }

    /// Looks at deliveries. Those with commits to push are pushed, a few at a time; the others are ready.
    async fn sort_mail(&mut self, world: &World) {
        let give_up = self.give_up_after();
        while self.preparing.len() < PUSHES
            && let Some(delivery) = self.new.pop_front()
        {
            let uid = delivery.report.run.uid.clone();
            let run = match prepare::current(&self.context, world, &self.told, &delivery, give_up).await {
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
            let (context, interrupt) = (self.context.clone(), self.interrupt.clone());
            match code::wanted(&run, world.session(&run).as_deref(), &delivery) {
                Err(push) => self.lay_out(prepare::ready(&context, run, delivery, push)),
                Ok(wanted) => {
                    self.preparing.spawn(prepare::pushed(context, run, wanted, delivery, give_up, interrupt));
                }
            }
        }
    }

    /// The end of a delivery's way.
    fn done(&mut self, uid: &Uid, told: bool, delivery: Option<&Delivery>) {
        self.outgoing.remove(uid);
        if told && let Some(delivery) = delivery {
            discard(delivery);
        }
        self.answer(uid, if told { Receipt::Recorded } else { Receipt::Waiting });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_takes_what_fits_and_at_least_one() {
        let half = BATCH_BYTES / 2;
        let cases: [(&[u64], usize); 5] = [
            (&[0; 3], 3),
            (&[half, half, 1], 2),
            (&[BATCH_BYTES + 1, 1], 1),
            (&[0, BATCH_BYTES, 1, 0], 2),
            (&[u64::MAX, u64::MAX], 1),
        ];
        for (jobs, expected) in cases {
            assert_eq!(fitting(jobs.iter().copied()), expected, "{jobs:?}");
        }
        assert_eq!(fitting(std::iter::repeat(0)), BATCH);
    }
}
