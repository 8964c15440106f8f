//! One repository's loop: wait for a trigger, then one round of observe, validate, plan, apply, status.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::StreamExt;
use kube::ResourceExt;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{
    Context, Error, apply, observe,
    source::{Fetched, Reading, Source},
    status::{self, Standing},
    trigger::{Asked, Trigger, Wanted},
};
use crate::{
    class::Class,
    git::{self, CommitId, poll_delay, sign::Verdict},
    kinds::{
        ConfigRepository, Kind, Object, Phase, Reason, Typed,
        condition::{self, State, types},
        config_repository::ConfigRepositoryStatus,
        meta,
    },
    ledger,
    manifest::{Desired, Scope},
    names::Namespace,
    plan::{self, Action, Live, PlanReport, Policy},
    ports::objects::{At, id_of, merge_patch},
    telemetry::metrics::SyncResult,
};

/// How often to look where no notice comes, when `spec.interval` says nothing.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
/// First delay after a failure that may pass; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_millis(750);

/// Follows a repository until the task is aborted.
pub(super) async fn follow(repository: ConfigRepository, context: Arc<Context>) {
    let uid = repository.uid().unwrap_or_default();
    let (namespace, name) = (repository.namespace().unwrap_or_default(), repository.name_any());
    let mut loop_ = match Loop::open(&repository, &context) {
        Ok(loop_) => loop_,
        Err(error) => {
            tracing::error!(controller = "sync", %namespace, %name, error = %error.chain(), "cannot follow the repository");
            context.progress.update(&uid, |settled| settled.failed = true);
            return;
        }
    };
    let mut trigger = triggers(&repository, &context, loop_.ledger.clone());
    let mut wanted = Wanted::EVERYTHING;
    let mut failures = 0_u32;
    loop {
        context.progress.update(&uid, |settled| settled.busy = true);
        let Some(current) = context.caches.repositories.get(&namespace, &name) else { return };
        let asked = Asked::of(&current);
        if loop_.asked.as_ref() != Some(&asked) {
            wanted = Wanted::EVERYTHING;
            loop_.asked = Some(asked);
        }
        let began = Instant::now();
        let outcome = loop_.round(&current, wanted, &context).await;
        count(&current, &outcome, began.elapsed(), &context);
        let retry = match &outcome {
            Ok(end) => end.again,
            Err(error) => {
                tracing::warn!(controller = "sync", %namespace, %name, error = %error.chain(), "round failed");
                error.class() != Class::Invalid
            }
        };
        failures = if retry { failures + 1 } else { 0 };
        context.progress.update(&uid, |settled| {
            settled.rounds += 1;
            settled.busy = retry;
            match &outcome {
                Ok(end) => {
                    settled.failed = end.failed;
                    settled.recorded.clone_from(&end.recorded);
                }
                Err(_) => settled.failed = true,
            }
        });
        wanted = trigger.next(delay(&current, failures, settled_seed(&uid, &context))).await;
        if retry {
            wanted = Wanted::EVERYTHING;
        }
    }
}

fn count(repository: &ConfigRepository, outcome: &Result<End, Error>, took: Duration, context: &Context) {
    if let Some(id) = id_of(ConfigRepository::KIND, repository) {
        context.metrics.synced(&id.namespace, &id.name, result(outcome), took);
    }
}

fn settled_seed(uid: &str, context: &Context) -> u64 {
    let rounds = context.progress.subscribe().borrow().get(uid).map_or(0, |settled| settled.rounds);
    uid.bytes().fold(rounds, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

fn delay(repository: &ConfigRepository, failures: u32, seed: u64) -> Duration {
    let interval =
        repository.spec.interval.map_or(DEFAULT_INTERVAL, Duration::from).max(Duration::from_secs(1));
    if failures == 0 {
        return poll_delay(interval, seed);
    }
    poll_delay((FIRST_RETRY * 2_u32.saturating_pow(failures.min(10) - 1)).min(interval), seed)
}

fn triggers(
    repository: &ConfigRepository,
    context: &Context,
    ledger: watch::Receiver<Arc<ledger::State>>,
) -> Trigger {
    let local =
        repository.spec.url.parse().ok().and_then(|l: git::Location| l.path().map(std::path::Path::to_owned));
    let notices = local.and_then(|path| match git::Watch::start(&path) {
        Ok(watch) => Some(watch),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(controller = "sync", path = %path.display(), error, "cannot watch; polling instead");
            None
        }
    });
    let (namespace, name) = (repository.namespace(), repository.name_any());
    let caches = context.caches.clone();
    let mut last = Some(Asked::of(repository));
    let touched = caches.repositories.touched();
    let asked = touched.filter_map(move |reference| {
        let ours = reference.name == name && reference.namespace == namespace;
        let namespace = reference.namespace.clone().unwrap_or_default();
        let asked = ours
            .then(|| caches.repositories.get(&namespace, &reference.name))
            .flatten()
            .map(|r| Asked::of(&r));
        let news = asked.is_some() && asked != last;
        if news {
            last = asked;
        }
        std::future::ready(news.then_some(()))
    });
    let notices = futures::stream::unfold(notices, |watch| async {
        let mut watch = watch?;
        watch.tick().await;
        Some(((), Some(watch)))
    });
    Trigger::new(notices.chain(futures::stream::pending()), asked, ledger)
}

/// How a round ended.
struct End {
    /// True: something failed that may pass.
    again: bool,
    /// True: a file has errors, or the round could not do its work.
    failed: bool,
    /// True: it changed an object.
    wrote: bool,
    recorded: Vec<(String, Phase)>,
}

/// How the round counts.
fn result(outcome: &Result<End, Error>) -> SyncResult {
    match outcome {
        Err(_) => SyncResult::Failed,
        Ok(end) if end.failed => SyncResult::Partial,
        Ok(end) if end.wrote => SyncResult::Applied,
        Ok(_) => SyncResult::Unchanged,
    }
}

/// What the loop remembers. All of it can be lost: a restart reads everything again and writes nothing new.
struct Loop {
    source: Source,
    ledger: watch::Receiver<Arc<ledger::State>>,
    asked: Option<Asked>,
    /// The commit in force, once verified.
    verified: Option<CommitId>,
    /// What the last plan was made of, if it left nothing to do.
    settled: Option<(CommitId, Reading)>,
    view: ledger::View,
    recorded: Vec<(String, Phase)>,
    failed: bool,
    /// True: this round changed an object.
    wrote: bool,
}

impl Loop {
    fn open(repository: &ConfigRepository, context: &Context) -> Result<Self, Error> {
        let folder = context.mirrors.join(format!("config-{}", repository.uid().unwrap_or_default()));
        let source =
            Source::open(&folder).map_err(|source| Error::Git { what: "open the mirror", source })?;
        Ok(Self {
            source,
            ledger: (context.ledgers)(repository),
            asked: None,
            verified: None,
            settled: None,
            view: ledger::View::default(),
            recorded: Vec::new(),
            failed: false,
            wrote: false,
        })
    }

    async fn round(
        &mut self,
        repository: &ConfigRepository,
        wanted: Wanted,
        context: &Context,
    ) -> Result<End, Error> {
        let now = (context.clock)();
        let mut status = repository.status.clone().unwrap_or_default();
        self.wrote = false;
        let outcome = self.work(repository, wanted, &mut status, context).await;
        if let Err(error) = &outcome {
            let standing = Standing {
                ready: State::False,
                reason: error.reason(),
                message: error.chain(),
                reconciling: error.class() != Class::Invalid,
            };
            status::stand(&mut status, &standing, repository.metadata.generation, now);
        }
        if let Some(asked) = self.asked.as_ref().and_then(|asked| asked.requested_at.clone()) {
            status.last_handled_reconcile_at = Some(asked);
        }
        // A round that found nothing new asks the store nothing.
        if repository.status.as_ref() != Some(&status) {
            write_status(repository, status, context).await?;
        }
        let again = outcome?;
        Ok(End { again, failed: self.failed, wrote: self.wrote, recorded: self.recorded.clone() })
    }

    /// The five words. True when something is left that may pass by itself.
    async fn work(
        &mut self,
        repository: &ConfigRepository,
        wanted: Wanted,
        status: &mut ConfigRepositoryStatus,
        context: &Context,
    ) -> Result<bool, Error> {
        let (now, generation) = ((context.clock)(), repository.metadata.generation);
        if repository.spec.suspend == Some(true) {
            let standing = Standing {
                ready: State::False,
                reason: Reason::Suspended,
                message: "nothing is fetched or applied".to_owned(),
                reconciling: false,
            };
            status::stand(status, &standing, generation, now);
            self.settled = None;
            return Ok(false);
        }
        if wanted.fetch || self.verified.is_none() {
            let remote = observe::remote(repository, context).await?;
            let fetched = self.source.fetch(remote, &repository.spec, Arc::new(AtomicBool::new(false))).await;
            let fetched = fetched.map_err(|source| Error::Git { what: "fetch the repository", source })?;
            status.last_fetched = Some(fetched.commit.to_string());
            self.trust(fetched, repository, status, context)?;
        }
        let Some(commit) = self.verified else {
            self.failed = true;
            return Ok(false);
        };
        let reading = Reading::of(&repository.spec);
        if !wanted.plan && self.settled.as_ref() == Some(&(commit, reading.clone())) {
            return Ok(false);
        }
        self.learn_ledger().await;
        let scope = scope(repository)?;
        let desired = self.source.read(commit, &reading, scope.clone()).await;
        let desired = desired.map_err(|source| Error::Git { what: "read the repository", source })?;
        self.enforce(commit, reading, &desired, repository, status, context).await
    }

    /// Takes the fetched commit as the one in force, if its signature counts; else the last one stays.
    fn trust(
        &mut self,
        fetched: Fetched,
        repository: &ConfigRepository,
        status: &mut ConfigRepositoryStatus,
        context: &Context,
    ) -> Result<(), Error> {
        let (now, generation) = ((context.clock)(), repository.metadata.generation);
        let mut set = |state, reason, message: &str| {
            condition::set(&mut status.conditions, types::VERIFIED, state, reason, message, generation, now);
        };
        let Some(signers) = &context.signers else {
            set(State::False, Reason::NotVerified, "no signers were given: every commit counts");
            self.verified = Some(fetched.commit);
            return Ok(());
        };
        let verdict = self.source.verify(fetched.commit, signers);
        if let Verdict::Verified { principal, .. } =
            verdict.map_err(|source| Error::Git { what: "verify the commit", source })?
        {
            let message = format!("{} is signed by {principal}", fetched.commit);
            set(State::True, Reason::Succeeded, &message);
            self.verified = Some(fetched.commit);
            Ok(())
        } else {
            let message = format!("{} is not signed by anybody who may", fetched.commit);
            set(State::False, Reason::NotVerified, &message);
            Err(Error::Spec(format!("{message}; the last verified commit stays in force")))
        }
    }

    /// Waits until the ledger was read, or is known not to be readable; then remembers the last view that counts.
    async fn learn_ledger(&mut self) {
        let known = self.ledger.wait_for(|state| **state != ledger::State::Unread).await;
        // a sender that is gone leaves what was known
        if let Ok(state) = known
            && let Some(view) = state.view()
        {
            self.view = view.clone();
        }
    }

    async fn enforce(
        &mut self,
        commit: CommitId,
        reading: Reading,
        desired: &Desired,
        repository: &ConfigRepository,
        status: &mut ConfigRepositoryStatus,
        context: &Context,
    ) -> Result<bool, Error> {
        let now = (context.clock)();
        let policy = policy(repository, commit)?;
        let live = live(&scope(repository)?, context).await?;
        let (plan, report) = plan::plan(desired, &live, &self.view, &policy, now);
        let nothing_to_do = plan.is_empty();
        let applied = apply::apply(plan, context).await?;
        self.wrote = applied.done > 0;
        let failed: Vec<String> = applied.failed.iter().map(|(id, error)| format!("{id}: {error}")).collect();
        for text in &failed {
            tracing::warn!(controller = "sync", repository = repository.name_any(), %commit, text, "not written");
        }
        if applied.done > 0 {
            tracing::info!(controller = "sync", repository = repository.name_any(), %commit, done = applied.done, "applied");
        }
        status::report(status, &report);
        if failed.is_empty() {
            status::applied(status, &commit.to_string(), report.objects, now);
        }
        status::stand(status, &status::of_plan(&report, &failed), repository.metadata.generation, now);
        self.recorded = recorded(&report, &self.view);
        self.failed =
            report.diagnostics.iter().any(crate::manifest::Diagnostic::is_error) || !failed.is_empty();
        let in_doubt = report
            .held
            .iter()
            .any(|held| held.reason == Reason::SessionInUse || held.reason == Reason::Progressing);
        self.settled = (failed.is_empty() && !in_doubt && nothing_to_do
            || applied.failed.is_empty() && !in_doubt)
            .then_some((commit, reading));
        Ok(!failed.is_empty() || in_doubt)
    }
}

fn policy(repository: &ConfigRepository, commit: CommitId) -> Result<Policy, Error> {
    let commit =
        commit.to_string().parse().map_err(|e: crate::names::InvalidName| Error::Spec(e.to_string()))?;
    Policy::of(repository, commit)
        .ok_or_else(|| Error::Spec("the ConfigRepository was never stored".to_owned()))
}

fn scope(repository: &ConfigRepository) -> Result<Scope, Error> {
    let namespace = repository.namespace().unwrap_or_default().parse::<Namespace>();
    let namespace = namespace.map_err(|error| Error::Spec(error.to_string()))?;
    Ok(Scope::new(namespace, &repository.spec.allowed_namespaces)?)
}

/// Runs that are asked for and that only the ledger knows.
fn recorded(report: &PlanReport, view: &ledger::View) -> Vec<(String, Phase)> {
    let items = report.items.iter().filter(|item| item.action == Action::Recorded);
    items
        .filter_map(|item| {
            let entry = view.entry(&item.id.namespace, &item.id.name)?;
            Some((format!("{}/{}", item.id.namespace, item.id.name), entry.outcome?))
        })
        .collect()
}

/// The objects of the namespaces that the repository may write to.
async fn live(scope: &Scope, context: &Context) -> Result<Live, Error> {
    let mut objects: Vec<(Kind, Object)> = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ConfigRepository) {
        let listed = context.store.list(kind, None).await;
        let listed =
            listed.map_err(|source| Error::Objects { what: format!("list {kind} objects"), source })?;
        let allowed = |object: &Object| {
            object
                .namespace()
                .and_then(|n| n.parse().ok())
                .is_some_and(|namespace: Namespace| scope.allows(&namespace))
        };
        objects.extend(listed.into_iter().filter(allowed).map(|object| (kind, object)));
    }
    Ok(Live::new(objects))
}

/// Writes the fields that this loop owns; the recorder's condition and tip are not among them.
async fn write_status(
    repository: &ConfigRepository,
    mut new: ConfigRepositoryStatus,
    context: &Context,
) -> Result<(), Error> {
    let what = || "write the status of the repository".to_owned();
    let Some(id) = id_of(ConfigRepository::KIND, repository) else { return Ok(()) };
    let failed = |source| Error::Objects { what: what(), source };
    // the recorder writes here, too: what it wrote meanwhile is kept
    let Some(current) = context.store.get(&id).await.map_err(failed)? else { return Ok(()) };
    let current: ConfigRepository = crate::ports::objects::typed(current).map_err(failed)?;
    let theirs = current.status.clone().unwrap_or_default();
    new.ledger_tip.clone_from(&theirs.ledger_tip);
    new.conditions.retain(|c| c.type_ != types::LEDGER_READY);
    new.conditions.extend(condition::get(&theirs.conditions, types::LEDGER_READY).cloned());
    let mut conditions = theirs.conditions.clone();
    conditions.retain(|old| new.conditions.iter().any(|c| c.type_ == old.type_));
    for condition in &new.conditions {
        match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
            Some(old) => *old = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    new.conditions = conditions;
    let json = |status: &ConfigRepositoryStatus| serde_json::to_value(status).map_err(Error::Status);
    let old = current.status.as_ref().map_or_else(|| Ok(Value::Object(serde_json::Map::new())), json)?;
    let Some(patch) = merge_patch(&old, &json(&new)?) else { return Ok(()) };
    let Some(at) = At::of(&current) else { return Ok(()) };
    context.store.write_status(&id, &at, &patch, meta::SYNCER).await.map(drop).map_err(failed)
}
