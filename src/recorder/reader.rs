//! A ledger for those who may not write it: the controller plans with what was recorded, and holds no key.
//!
//! It has a mirror of its own and verifies each entry itself. When to fetch it learns from the recorder, which notes the
//! tip that it has verified in the repository's status, within a while; a run of the repository that has a result says it
//! at once.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Error, branch::LedgerBranch, settings::Settings};
use crate::{
    cache::Cache,
    git::{CommitId, Remote, secret},
    kinds::{ConfigRepository, HarnessRun, config_repository::ConfigRepositorySpec, meta},
    ledger::State,
    names::{Namespace, ObjectName},
    ports::Secrets,
    telemetry::Chain,
};

/// First wait after a failure; doubled each time, up to [`LONGEST`].
const RETRY: Duration = Duration::from_millis(500);
/// Longest wait after a failure.
const LONGEST: Duration = Duration::from_mins(1);

/// What readers share.
pub struct ReaderContext {
    /// The repositories.
    pub repositories: Cache<ConfigRepository>,
    /// The runs: one that has its result says that the ledger has moved.
    pub runs: Cache<HarnessRun>,
    /// Credentials.
    pub secrets: Arc<dyn Secrets>,
    /// A folder of our own, for mirrors.
    pub folder: PathBuf,
    /// `allowed_signers` lines: whose entries prove something where a repository names nobody.
    pub signers: Vec<String>,
}

/// What the mirror was made of, and what was asked for when it was last brought up to date.
#[derive(PartialEq)]
struct Seen {
    spec: ConfigRepositorySpec,
    tip: Option<String>,
}

/// The commit with the result of a run that came from this repository.
fn recorded(run: &HarnessRun, repository: &ConfigRepository) -> Option<CommitId> {
    let source = run.annotations().get(meta::SOURCE_UID);
    if source.is_none() || source != repository.metadata.uid.as_ref() {
        return None;
    }
    run.status.as_ref()?.result.as_ref()?.commit.as_ref()?.parse().ok()
}

/// Reads the ledger of a repository until `stop`, and says what it says.
pub async fn read(
    context: Arc<ReaderContext>,
    repository: (Namespace, ObjectName),
    says: watch::Sender<Arc<State>>,
    stop: CancellationToken,
) {
    let interrupt = Arc::new(AtomicBool::new(false));
    let work = follow(&context, &repository, &says, &interrupt);
    tokio::select! { () = work => {}, () = stop.cancelled() => interrupt.store(true, Ordering::Relaxed) }
}

async fn follow(
    context: &ReaderContext,
    (namespace, name): &(Namespace, ObjectName),
    says: &watch::Sender<Arc<State>>,
    interrupt: &Arc<AtomicBool>,
) {
    let mut touched = context.repositories.touched().boxed();
    let mut runs = context.runs.touched().boxed();
    let (mut branch, mut seen, mut failures) = (None::<LedgerBranch>, None, 0_u32);
    let mut behind = false;
    loop {
        let repository = context.repositories.get(namespace.as_str(), name.as_str());
        if let Some(repository) = &repository {
            let now = Seen {
                spec: repository.spec.clone(),
                tip: repository.status.as_ref().and_then(|status| status.ledger_tip.clone()),
            };
            if seen.as_ref().is_none_or(|seen: &Seen| seen.spec != now.spec) {
                branch = None;
            }
            if behind || failures > 0 || seen.as_ref() != Some(&now) {
                behind = false;
                let (back, state) = look(context, repository, branch.take(), interrupt).await;
                failures = if state.view().is_some() { 0 } else { failures.saturating_add(1) };
                (branch, seen) = (back, Some(now));
                publish(says, state);
            }
        } else {
            (branch, seen, failures) = (None, None, 0);
            publish(says, State::None);
        }
        let again = async {
            match failures {
                0 => std::future::pending().await,
                n => tokio::time::sleep((RETRY * 2_u32.saturating_pow(n.min(8) - 1)).min(LONGEST)).await,
            }
        };
        tokio::select! {
            () = again => {}
            Some(_) = touched.next() => {}
            // After a failure the pause counts, and what comes then shows all of them.
            Some(run) = runs.next(), if failures == 0 => {
                let mut next = Some(run);
                // Whatever else has been said by now belongs to the same look.
                while let Some(run) = next {
                    let run = context.runs.get(run.namespace.as_deref().unwrap_or_default(), &run.name);
                    let commit = run.zip(repository.as_ref()).and_then(|(run, of)| recorded(&run, of));
                    behind |= commit.is_some_and(|commit| branch.as_ref().is_some_and(|b| !b.holds(commit)));
                    next = runs.next().now_or_never().flatten();
                }
            }
        }
    }
}

/// Fetches and verifies; the branch is kept for the next time, unless it broke.
async fn look(
    context: &ReaderContext,
    repository: &ConfigRepository,
    branch: Option<LedgerBranch>,
    interrupt: &Arc<AtomicBool>,
) -> (Option<LedgerBranch>, State) {
    match fetch(context, repository, branch, interrupt).await {
        Ok(branch) => {
            let tip = branch.tip().and_then(|tip| tip.to_string().parse().ok());
            let state = State::Ready { view: branch.view().clone(), tip };
            (Some(branch), state)
        }
        Err(error) => {
            let text = Chain(&error).to_string();
            tracing::warn!(repository = repository.metadata.name, error = text, "the ledger cannot be read");
            let state = match error {
                Error::Rewritten(_) => State::Rewritten(text),
                _ => State::Unavailable(text),
            };
            (None, state)
        }
    }
}

async fn fetch(
    context: &ReaderContext,
    repository: &ConfigRepository,
    branch: Option<LedgerBranch>,
    interrupt: &Arc<AtomicBool>,
) -> Result<LedgerBranch, Error> {
    let settings = Settings::of(repository)?;
    let signers = settings.readers_signers(&context.signers)?;
    let remote = remote_of(context.secrets.as_ref(), &settings).await?;
    let name = repository.metadata.name.as_deref().unwrap_or_default();
    let folder = context.folder.join("read").join(settings.namespace.as_str()).join(name);
    let remembered = repository.status.as_ref().and_then(|status| status.ledger_tip.as_deref());
    let remembered = remembered.map(str::parse).transpose()?.into_iter().collect();
    let interrupt = interrupt.clone();
    let fetched = tokio::task::spawn_blocking(move || {
        let mut branch = match branch {
            Some(branch) => branch,
            None => LedgerBranch::open(&folder, settings.branch.to_ref(), signers, remembered)?,
        };
        branch.fetch(&remote, &interrupt).map(|()| branch)
    });
    fetched.await?
}

/// The repository that holds the ledger of a `ConfigRepository`, for reading: with the Secret that this names for it.
///
/// # Errors
/// When a field is wrong, or the Secret is not given out or cannot be used.
pub async fn remote(secrets: &dyn Secrets, repository: &ConfigRepository) -> Result<Remote, Error> {
    remote_of(secrets, &Settings::of(repository)?).await
}

async fn remote_of(secrets: &dyn Secrets, settings: &Settings) -> Result<Remote, Error> {
    let (pull, proxy) = (settings.pull.as_ref(), settings.proxy.as_ref());
    let location = settings.location.clone();
    Ok(secret::remote(secrets, &settings.namespace, location, pull, proxy, settings.timeout).await?)
}

fn publish(says: &watch::Sender<Arc<State>>, state: State) {
    says.send_if_modified(|current| {
        let changed = **current != state;
        if changed {
            *current = Arc::new(state);
        }
        changed
    });
}
