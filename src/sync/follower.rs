//! What a repository's loop remembers, and one round of it: observe, validate, plan, apply, status.

use std::sync::{Arc, atomic::AtomicBool};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;

use super::{
    Context, Error, account, apply,
    drift::Enforced,
    fight::Fights,
    observe,
    source::{Fetched, Reading, Source},
    status::{self, Standing},
    store,
    trigger::{Asked, Wanted},
};
use crate::{
    class::Class,
    git::{CommitId, sign::Verdict},
    kinds::{
        ConfigRepository, Phase, Reason,
        condition::{self, State, types},
        config_repository::ConfigRepositoryStatus,
    },
    ledger,
    manifest::{Desired, Diagnostic, Scope},
    names::Namespace,
    plan::{self, Action, PlanReport, Policy},
    repositories::Allowed,
    telemetry::Chain,
};

/// How a round ended.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    /// True: something is left that may pass by itself.
    pub(super) again: bool,
    /// True: a file has errors, or the round could not do its work.
    pub(super) failed: bool,
    /// Objects that were written.
    pub(super) written: usize,
    /// Runs that are asked for and that only the ledger knows.
    pub(super) recorded: Vec<(String, Phase)>,
}

/// What the loop remembers. All of it can be lost: a restart reads everything again and writes nothing new.
pub(super) struct Follower {
    source: Source,
    pub(super) ledger: watch::Receiver<Arc<ledger::State>>,
    /// What the repository's object asked for when it was last looked at.
    pub(super) asked: Option<Asked>,
    /// The last plan that was made, which the objects are held against when they change.
    pub(super) enforced: Option<Enforced>,
    pub(super) fights: Fights,
    /// The commit in force, once verified.
    verified: Option<CommitId>,
    /// The last plan that was carried out, as long as nothing of it is left to do.
    settled: Option<Settled>,
    pub(super) view: ledger::View,
    /// The status after the last round: the cache may not show it yet when the next one begins.
    said: Option<ConfigRepositoryStatus>,
}

/// A plan that was carried out: what it was made of, and what it said.
struct Settled {
    commit: CommitId,
    reading: Reading,
    standing: Standing,
    end: End,
}

/// What one round works on.
struct Round<'a> {
    repository: &'a ConfigRepository,
    status: &'a mut ConfigRepositoryStatus,
    context: &'a Context,
    now: Timestamp,
}

impl Round<'_> {
    fn stand(&mut self, standing: &Standing) {
        status::stand(self.status, standing, self.repository.metadata.generation, self.now);
    }

    fn verified(&mut self, state: State, reason: Reason, message: &str) {
        let generation = self.repository.metadata.generation;
        let conditions = &mut self.status.conditions;
        condition::set(conditions, types::VERIFIED, state, reason, message, generation, self.now);
    }
}

impl Follower {
    pub(super) fn open(repository: &ConfigRepository, context: &Context) -> Result<Self, Error> {
        let folder = context.mirrors.join(format!("config-{}", repository.uid().unwrap_or_default()));
        let source =
            Source::open(&folder).map_err(|source| Error::Git { what: "open the mirror", source })?;
        let ledger = (context.ledgers)(repository);
        Ok(Self {
            source,
            ledger,
            asked: None,
            enforced: None,
            fights: Fights::default(),
            verified: None,
            settled: None,
            view: ledger::View::default(),
            said: None,
        })
    }

    /// One round; its outcome is in the repository's status in any case.
    pub(super) async fn round(
        &mut self,
        repository: &ConfigRepository,
        wanted: Wanted,
        context: &Context,
    ) -> Result<End, Error> {
        let before = self.said.take().or_else(|| repository.status.clone()).unwrap_or_default();
        let mut status = before.clone();
        let mut round = Round { repository, status: &mut status, context, now: (context.clock)() };
        let outcome = self.work(wanted, &mut round).await;
        if let Err(error) = &outcome {
            round.stand(&Standing {
                ready: State::False,
                reason: error.reason(),
                message: Chain(error).to_string(),
                reconciling: error.class() != Class::Invalid,
            });
        }
        if let Some(asked) = self.asked.as_ref().and_then(|asked| asked.requested_at.clone()) {
            status.last_handled_reconcile_at = Some(asked);
        }
        if status != before {
            store::write_status(repository, status.clone(), context).await?;
        }
        self.said = Some(status);
        outcome
    }

    async fn work(&mut self, wanted: Wanted, round: &mut Round<'_>) -> Result<End, Error> {
        if round.repository.spec.suspend == Some(true) {
            (self.settled, self.enforced) = (None, None);
            round.stand(&Standing::suspended());
            return Ok(End::default());
        }
        if wanted.fetch || self.verified.is_none() {
            self.observe(round).await?;
        }
        let Some(commit) = self.verified else { return Ok(End { failed: true, ..End::default() }) };
        let reading = Reading::of(&round.repository.spec);
        let former =
            self.settled.take().filter(|settled| settled.commit == commit && settled.reading == reading);
        if let (Some(former), false) = (former, wanted.plan) {
            // what a failed fetch said in between no longer holds
            round.stand(&former.standing);
            let end = End { written: 0, ..former.end.clone() };
            self.settled = Some(former);
            return Ok(end);
        }
        self.learn_ledger().await;
        let scope = scope(round.repository)?.limited_to(round.context.scope.clone());
        let desired = self.source.read(commit, &reading, scope.clone()).await;
        let desired = desired.map_err(|source| Error::Git { what: "read the repository", source })?;
        self.enforce(commit, reading, desired, &scope, round).await
    }

    async fn observe(&mut self, round: &mut Round<'_>) -> Result<(), Error> {
        let remote = observe::remote(round.repository, round.context).await?;
        let fetched =
            self.source.fetch(remote, &round.repository.spec, Arc::new(AtomicBool::new(false))).await;
        let fetched = fetched.map_err(|source| Error::Git { what: "fetch the repository", source })?;
        round.status.last_fetched = Some(fetched.commit.to_string());
        self.trust(fetched, round)
    }

    /// Takes the fetched commit as the one in force, if its signature counts; else the last one stays.
    fn trust(&mut self, fetched: Fetched, round: &mut Round<'_>) -> Result<(), Error> {
        let commit = fetched.commit;
        let Some(signers) = &round.context.signers else {
            round.verified(State::False, Reason::NotVerified, "no signers were given: every commit counts");
            self.verified = Some(commit);
            return Ok(());
        };
        let verdict = self.source.verify(commit, signers);
        match verdict.map_err(|source| Error::Git { what: "verify the commit", source })? {
            Verdict::Verified { principal, .. } => {
                round.verified(State::True, Reason::Succeeded, &format!("{commit} is signed by {principal}"));
                self.verified = Some(commit);
                Ok(())
            }
            Verdict::Unsigned | Verdict::UnknownKey { .. } | Verdict::Bad => {
                let message = format!("{commit} is not signed by anybody who may");
                round.verified(State::False, Reason::NotVerified, &message);
                Err(Error::Spec(format!("{message}; the last verified commit stays in force")))
            }
        }
    }

    /// Waits until the ledger was read, or is known not to be readable; then remembers the last view that counts.
    pub(super) async fn learn_ledger(&mut self) {
        let known = self.ledger.wait_for(|state| **state != ledger::State::Unread).await;
        // a sender that is gone leaves what was known
        if let Ok(state) = known
            && let Some(view) = state.view()
        {
            self.view = view.clone();
        }
    }

    /// Plans and applies.
    async fn enforce(
        &mut self,
        commit: CommitId,
        reading: Reading,
        desired: Desired,
        scope: &Scope,
        round: &mut Round<'_>,
    ) -> Result<End, Error> {
        let writer = account::writer(round.repository, scope, round.context)?;
        let policy = policy(round.repository, commit)?;
        let live = store::live(scope, round.context).await?;
        let (mut plan, mut report) = plan::plan(&desired, &live, &self.view, &policy, round.now);
        let corrects = self.begin(desired, policy.clone(), &reading, round.now);
        if corrects {
            self.referee(&mut plan, &mut report, &live, round.repository, round.context).await;
        }
        let applied = apply::apply(plan, policy.commit.as_ref(), writer, round.context).await?;
        if corrects {
            applied.written.iter().for_each(|id| self.fights.corrected(id, round.now));
        }
        let failed: Vec<String> = applied.failed.iter().map(|(id, error)| format!("{id}: {error}")).collect();
        status::report(round.status, &report);
        if failed.is_empty() {
            status::applied(round.status, &commit.to_string(), report.objects, round.now);
        }
        let standing = status::of_plan(&report, &failed);
        round.stand(&standing);
        let passes = |reason| matches!(reason, Reason::SessionInUse | Reason::Progressing);
        let again = !failed.is_empty() || report.held.iter().any(|held| passes(held.reason));
        let end = End {
            again,
            failed: report.diagnostics.iter().any(Diagnostic::is_error) || !failed.is_empty(),
            written: applied.done(),
            recorded: recorded(&report, &self.view),
        };
        self.settled = (!again).then(|| Settled { commit, reading, standing, end: end.clone() });
        Ok(end)
    }
}

fn policy(repository: &ConfigRepository, commit: CommitId) -> Result<Policy, Error> {
    let commit = commit.to_string().parse();
    let commit = commit.map_err(|error: crate::names::InvalidName| Error::Spec(error.to_string()))?;
    Policy::of(repository, commit)
        .ok_or_else(|| Error::Spec("the ConfigRepository was never stored".to_owned()))
}

fn scope(repository: &ConfigRepository) -> Result<Scope, Error> {
    let namespace = repository.namespace().unwrap_or_default().parse::<Namespace>();
    let namespace = namespace.map_err(|error| Error::Spec(error.to_string()))?;
    let code = Allowed::new(repository.spec.allowed_repositories())?;
    Ok(Scope::new(namespace, &repository.spec.allowed_namespaces)?.with_code(code))
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
