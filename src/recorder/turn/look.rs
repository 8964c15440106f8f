//! Opening and reading the ledger, and saying what it is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{Desk, Open, RETRY, told::Refused};
use crate::{
    class::Class,
    git::sign::SigningKey,
    kinds::{
        ConfigRepository, Reason,
        condition::State,
        config_repository::{ClaimMode, ConfigRepositoryStatus},
    },
    ledger,
    names::ObjectName,
    ports::secrets::SecretUse,
    recorder::{
        Error,
        branch::LedgerBranch,
        memory::{self, Unnoted},
        settings::Settings,
        status,
        world::World,
    },
    telemetry::{Chain, metrics},
};

impl Desk {
    /// Opens the ledger when that is due, and brings what others pushed.
    pub(super) async fn look(&mut self, repository: &ConfigRepository, world: &World) {
        let fresh =
            self.book.as_ref().is_some_and(|book| book.spec == repository.spec && book.branch.is_some());
        let changed = self.book.as_ref().is_some_and(|book| book.spec != repository.spec);
        if Instant::now() < self.next_look && (fresh || (self.failures > 0 && !changed)) {
            return;
        }
        if !fresh {
            self.book = None;
            if changed {
                // It may be of another ledger. The runs say what this one has to hold.
                self.unnoted = Unnoted::default();
            }
            match self.open(repository, world).await {
                Ok(book) => self.book = Some(book),
                Err(error) => return self.failed(repository, &error).await,
            }
        }
        let looked = self.on_branch(|branch, work| {
            let before = branch.tip();
            branch.fetch(&work.remote, &work.interrupt).map(|()| before != branch.tip())
        });
        match looked.await {
            Ok(moved) => {
                self.failures = 0;
                let interval = self.book.as_ref().map_or(RETRY, |book| book.settings.interval);
                // Spread over a tenth, so that many recorders do not ask at once.
                self.next_look = Instant::now() + interval.mul_f64(rand::random_range(0.95..1.05));
                self.ready(repository, moved).await;
            }
            Err(error) => self.failed(repository, &error).await,
        }
    }

    pub(super) async fn open(&self, repository: &ConfigRepository, world: &World) -> Result<Open, Error> {
        let settings = Settings::of(repository)?;
        let key = self.key(&settings).await?;
        let signers = settings.signers(&key)?;
        let remembered = memory::of_store(world, &self.own, repository, &self.holder)?;
        let folder = self.context.folder.join("ledger").join(self.own.0.as_str()).join(self.own.1.as_str());
        let reference = settings.branch.to_ref();
        let branch =
            tokio::task::spawn_blocking(move || LedgerBranch::open(&folder, reference, signers, remembered));
        Ok(Open { spec: repository.spec.clone(), settings, key, branch: Some(branch.await??) })
    }

    pub(super) async fn key(&self, settings: &Settings) -> Result<Arc<SigningKey>, Error> {
        let Some(reference) = &settings.signing_key else { return Ok(self.context.key.clone()) };
        let invalid = |what: String| Error::Settings { field: "spec.writeBack.signingKeyRef", why: what };
        let name: ObjectName = reference.name.parse().map_err(|error| invalid(format!("{error}")))?;
        let data = self.context.secrets.resolve(&settings.namespace, &name, SecretUse::Sign, None).await?;
        let Some(text) = data.get(&reference.key).and_then(|v| std::str::from_utf8(v.expose_secret()).ok())
        else {
            return Err(Error::Credential { secret: name, what: "does not hold the signing key" });
        };
        let origin = format!("Secret {}/{name}", settings.namespace);
        Ok(Arc::new(SigningKey::from_openssh(text, std::path::Path::new(&origin))?))
    }

    /// Says that the ledger is read. `others`: the tip is not (only) of our own commits, so that no run of ours remembers it.
    pub(super) async fn ready(&mut self, repository: &ConfigRepository, others: bool) {
        let Some(branch) = self.book.as_ref().and_then(|book| book.branch.as_ref()) else { return };
        let tip = branch.tip().map(|tip| tip.to_string());
        if let Some(text) = self.refusal.clone() {
            // Reading works, writing does not: a claim that is asked for will find out whether that has changed.
            self.publish(ledger::State::NotPushable(text));
            return;
        }
        let known = tip.as_deref().and_then(|tip| tip.parse().ok());
        let state = ledger::State::Ready { view: branch.view().clone(), tip: known };
        // What others pushed is remembered first: whoever acts on the view can rely on it. Of our own commits nothing is
        // told to a run before its commit is, and until then nothing was done that a new commit would do again.
        self.say(repository, tip.as_deref(), (State::True, Reason::LedgerReady, "")).await;
        if others {
            self.note_of(repository).await;
        }
        self.publish(state);
    }

    pub(super) async fn failed(&mut self, repository: &ConfigRepository, error: &Error) {
        if self.interrupt.load(Ordering::Relaxed) {
            // we broke it off ourselves: that says nothing of the ledger
            return;
        }
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
        let tip = self.unnoted.tip().map(str::to_owned);
        self.say(repository, tip.as_deref(), (State::False, reason, &message)).await;
    }

    pub(super) async fn say(
        &mut self,
        repository: &ConfigRepository,
        tip: Option<&str>,
        what: (State, Reason, &str),
    ) {
        let now = (self.context.clock)();
        let store = self.context.store.clone();
        let current = self.current(repository);
        let repository = current.as_deref().unwrap_or(repository);
        let at_hand = (repository, self.told.is_ahead_of(repository));
        let error = match status::of_repository(store.as_ref(), at_hand, tip, what, now).await {
            Ok(stands) => {
                let after = stands.as_ref().map(|stands| &stands.after).or(repository.status.as_ref());
                self.unnoted.see(tip, after);
                self.unsaid = None;
                return self.stands(stands);
            }
            Err(error) => error,
        };
        self.unnoted.see(tip, repository.status.as_ref());
        let conflict = error.class() == Class::Conflict;
        let error = Chain(&error).to_string();
        if Refused::note(&mut self.unsaid, error.clone(), Instant::now().into_std()) && !conflict {
            tracing::warn!(error, "the repository's status is not written yet");
        }
        if let Some(refused) = &self.unsaid {
            self.next_look = self.next_look.min(refused.again().into());
        }
    }

    /// The repository's object in the last state that we see.
    fn current(&self, repository: &ConfigRepository) -> Option<Arc<ConfigRepository>> {
        let (namespace, name) = &self.own;
        let current = self.context.caches.repositories.get(namespace.as_str(), name.as_str());
        current.filter(|current| current.metadata.uid == repository.metadata.uid)
    }

    fn stands(&mut self, stands: Option<status::Stands<ConfigRepositoryStatus>>) {
        let version = stands.and_then(|stands| stands.version);
        self.told.repository_written(version, Instant::now().into_std());
    }

    /// Notes the ledger's tip when that is due: in a while, or when a run goes away that remembers a part of it.
    pub(super) async fn note_in_time(&mut self, world: &World) {
        let Some(due) = self.unnoted.due() else { return };
        if due <= Instant::now() || world.open().any(|run| run.metadata.deletion_timestamp.is_some()) {
            self.note(world).await;
        }
    }

    /// Notes the ledger's tip, if that is not done.
    pub(in crate::recorder) async fn note(&mut self, world: &World) {
        if let Some(repository) = world.repository(&self.own.0, &self.own.1) {
            self.note_of(&repository).await;
        }
    }

    async fn note_of(&mut self, repository: &ConfigRepository) {
        let Some(tip) = self.unnoted.tip() else { return };
        let current = self.current(repository);
        let repository = current.as_deref().unwrap_or(repository);
        let at_hand = (repository, self.told.is_ahead_of(repository));
        match status::of_tip(self.context.store.as_ref(), at_hand, tip).await {
            Ok(stands) => {
                self.unnoted = Unnoted::default();
                self.stands(stands);
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the ledger's tip is not noted yet");
                self.unnoted.put_off();
            }
        }
    }

    pub(super) fn give_up_after(&self) -> Duration {
        self.book.as_ref().map_or(Duration::from_hours(24), |book| book.settings.give_up_after)
    }

    pub(super) fn claims_in_store(&self) -> bool {
        self.book.as_ref().is_some_and(|book| book.settings.claim == ClaimMode::Cluster)
    }

    pub(super) fn publish(&self, state: ledger::State) {
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
