//! The recorder's part of a status, in one write a step.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, core::object::HasStatus};

use super::{Error, write::Verdict};
use crate::{
    kinds::{
        ConfigRepository, ObjectId, Phase, Reason, Typed,
        condition::{self, State, types},
        config_repository::ConfigRepositoryStatus,
        harness_run::{AgentSession, Changes, EgressSeen, HarnessRunStatus, ResultRef},
        meta,
        standing::{Standing, stand},
    },
    ledger::{File, ResultEntry},
    names::Uid,
    ports::objects::{self, At, Objects},
};

/// How often another writer may be first.
const ATTEMPTS: u32 = 16;

/// A status that stands.
pub(super) struct Stands<S> {
    /// What it was before; the same as after when nothing was written.
    pub(super) before: S,
    /// What it is.
    pub(super) after: S,
    /// The object's state with it.
    pub(super) version: Option<String>,
}

/// Changes a status by change and guarded write, until nobody else came between. The first attempt is on the object at
/// hand, unless that is known to be `behind`; it is read for the next ones. Nothing is written when nothing changes.
/// `None`: the object is gone, or another one of the same name is there.
pub(super) async fn change<K, S>(
    store: &dyn Objects,
    object: &K,
    behind: bool,
    change: impl Fn(&mut S),
) -> Result<Option<Stands<S>>, Error>
where
    K: Typed + HasStatus<Status = S>,
    S: serde::Serialize + Clone + Default,
{
    let Some(id) = objects::id_of(K::KIND, object) else { return Ok(None) };
    if !behind && let Some(stands) = attempt(store, &id, object, &change).await? {
        return Ok(Some(stands));
    }
    for _ in 0..ATTEMPTS {
        let current = objects::get::<K>(store, &id.namespace, &id.name).await?;
        let Some(current) = current.filter(|current| current.uid() == object.uid()) else { return Ok(None) };
        if let Some(stands) = attempt(store, &id, &current, &change).await? {
            return Ok(Some(stands));
        }
    }
    Err(Error::Contended(ATTEMPTS))
}

/// One attempt on this state of the object. `None`: it is in that state no more.
async fn attempt<K, S>(
    store: &dyn Objects,
    id: &ObjectId,
    current: &K,
    change: impl Fn(&mut S),
) -> Result<Option<Stands<S>>, Error>
where
    K: Typed + HasStatus<Status = S>,
    S: serde::Serialize + Clone + Default,
{
    let Some(at) = At::of(current) else { return Ok(None) };
    let before = current.status().cloned().unwrap_or_default();
    let mut after = before.clone();
    change(&mut after);
    let value = |status: &S| serde_json::to_value(status).expect("our statuses are JSON");
    let Some(patch) = objects::merge_patch(&value(&before), &value(&after)) else {
        return Ok(Some(Stands { before, after, version: at.resource_version }));
    };
    match store.write_status(id, &at, &patch, meta::RECORDER).await {
        Err(objects::Error::Conflict { .. } | objects::Error::NotFound(_)) => Ok(None),
        written => Ok(Some(Stands { before, after, version: written?.resource_version() })),
    }
}

/// Says what the ledger is, in its repository's status.
///
/// The tip comes with it when there is something else to say, or none was noted: `LedgerReady` has its last transition no
/// later than the tip beside it, so that what was told of runs before that is behind the tip ([`super::memory`]).
pub(super) async fn of_repository(
    store: &dyn Objects,
    (repository, behind): (&ConfigRepository, bool),
    tip: Option<&str>,
    (state, reason, message): (State, Reason, &str),
    now: Timestamp,
) -> Result<Option<Stands<ConfigRepositoryStatus>>, Error> {
    let generation = repository.metadata.generation;
    let changed = change(store, repository, behind, |status: &mut ConfigRepositoryStatus| {
        let conditions = &mut status.conditions;
        let before = conditions.clone();
        let begins = status.ledger_tip.is_none() && tip.is_some();
        if begins {
            // What was told before this is of another ledger, or of one that somebody meant to be another.
            condition::clear(conditions, types::LEDGER_READY);
        }
        condition::set(conditions, types::LEDGER_READY, state, reason, message, generation, now);
        if let Some(tip) = tip.filter(|_| begins || before != *conditions) {
            status.ledger_tip = Some(tip.to_owned());
        }
    });
    changed.await
}

/// Notes the tip of the ledger, and nothing else.
pub(super) async fn of_tip(
    store: &dyn Objects,
    (repository, behind): (&ConfigRepository, bool),
    tip: &str,
) -> Result<Option<Stands<ConfigRepositoryStatus>>, Error> {
    let note = |status: &mut ConfigRepositoryStatus| status.ledger_tip = Some(tip.to_owned());
    change(store, repository, behind, note).await
}

/// What a step says of a run.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// The name is ours; without a commit when the store alone says so.
    Claimed { holder: String, commit: Option<String> },
    /// The name cannot be claimed for now.
    ClaimWaits { reason: Reason, message: String },
    /// It ended, and this is the record; without a commit when it is nowhere but here, with the reason.
    Ended { entry: Box<ResultEntry>, commit: Result<String, (Reason, String)> },
    /// It was recorded as lost and reported after all: this is recorded beside that.
    Late { entry: Box<ResultEntry>, commit: String },
    /// The name has run before, and this is the record of it.
    RanBefore { entry: Box<ResultEntry>, commit: String },
    /// It ends without a run.
    Refused { outcome: Phase, reason: Reason, message: String },
    /// It is not recorded, and will not be.
    Unrecorded { reason: Reason, message: String },
    /// It is not recorded yet.
    RecordWaits { reason: Reason, message: String },
}

impl News {
    /// What a verdict on a run's entry means for it.
    pub(super) fn of(verdict: Verdict, uid: &Uid, holder: &str, result: Option<Box<ResultEntry>>) -> Self {
        match (verdict, result) {
            (Verdict::Stands { commit }, None) => {
                Self::Claimed { holder: holder.to_owned(), commit: Some(commit) }
            }
            (Verdict::Stands { commit }, Some(entry)) => Self::Ended { entry, commit: Ok(commit) },
            (Verdict::Recorded { entry, commit }, _) if entry.uid == *uid && entry.holder == holder => {
                Self::Ended { entry, commit: Ok(commit) }
            }
            (Verdict::Recorded { entry, commit }, _) => Self::RanBefore { entry, commit },
            (Verdict::NameUsed(claim), _) => Self::Refused {
                outcome: Phase::Failed,
                reason: Reason::NameUsed,
                message: format!(
                    "the name was used by run {} on {}; use a new name",
                    claim.uid, claim.claimed_at
                ),
            },
            (Verdict::Elsewhere(claim), _) => Self::Refused {
                outcome: Phase::Lost,
                reason: Reason::ClaimedElsewhere,
                message: format!(
                    "control plane {} claimed this name on {} and has recorded no result yet",
                    claim.holder, claim.claimed_at
                ),
            },
            (Verdict::Doubt { path, why }, result) => {
                let message =
                    format!("{path} proves nothing: {why}; have it removed or signed by a ledger signer");
                match result {
                    None => Self::ClaimWaits { reason: Reason::LedgerUntrusted, message },
                    Some(_) => Self::RecordWaits { reason: Reason::LedgerUntrusted, message },
                }
            }
        }
    }

    /// Tells it.
    pub(super) fn tell(&self, status: &mut HarnessRunStatus, generation: Option<i64>, now: Timestamp) {
        let mut set = |type_, state, reason, message: &str| {
            condition::set(&mut status.conditions, type_, state, reason, message, generation, now);
        };
        match self {
            Self::Claimed { holder, commit } => {
                let message = match commit {
                    Some(commit) => format!("claimed in {commit}"),
                    None => "claimed in this store alone (claim: Cluster): a store that is made anew may run it again".to_owned(),
                };
                set(types::CLAIMED, State::True, Reason::LedgerReady, &message);
                let claim = status.claim.get_or_insert_default();
                claim.holder = Some(holder.clone());
                claim.commit.clone_from(commit);
            }
            Self::ClaimWaits { reason, message } => set(types::CLAIMED, State::False, *reason, message),
            Self::RecordWaits { reason, message } | Self::Unrecorded { reason, message } => {
                set(types::RESULT_RECORDED, State::False, *reason, message);
            }
            Self::Refused { outcome, reason, message } => {
                set(types::CLAIMED, State::False, *reason, message);
                set(types::RESULT_RECORDED, State::False, *reason, message);
                status.result.get_or_insert_with(|| ResultRef {
                    commit: None,
                    path: None,
                    outcome: *outcome,
                    reason: *reason,
                    message: Some(message.clone()),
                });
            }
            Self::Ended { entry, commit } => {
                match commit {
                    Ok(commit) => {
                        let message = recorded(commit, &entry.undelivered);
                        set(types::RESULT_RECORDED, State::True, Reason::Recorded, &message);
                    }
                    Err((reason, message)) => set(types::RESULT_RECORDED, State::False, *reason, message),
                }
                let pushed = if entry.push.pushed { State::True } else { State::False };
                set(types::PUSHED, pushed, entry.push.reason, &entry.push.message);
                let commit = commit.as_ref().ok();
                figures(status, entry, generation, now);
                ended(status, entry, commit, entry.reason, &entry.message);
                end(status, generation, now);
            }
            Self::Late { entry, commit } => {
                let lost =
                    status.result.as_ref().and_then(|result| result.commit.clone()).unwrap_or_default();
                let outcome = format!("{} ({})", entry.outcome, entry.reason);
                let message =
                    format!("recorded as lost in {lost}; it reported later, see {commit}: {outcome}");
                set(types::RESULT_RECORDED, State::True, Reason::Recorded, &message);
                let pushed = if entry.push.pushed { State::True } else { State::False };
                set(types::PUSHED, pushed, entry.push.reason, &entry.push.message);
                changed(status, entry);
            }
            Self::RanBefore { entry, commit } => {
                set(types::CLAIMED, State::False, Reason::Recorded, "this name has run before");
                set(types::RESULT_RECORDED, State::True, Reason::Recorded, &format!("recorded in {commit}"));
                let message = format!("this name has run before: {} ({})", entry.outcome, entry.reason);
                status.start_time = status.start_time.take().or_else(|| entry.started_at.map(Time));
                status.completion_time = status.completion_time.take().or_else(|| entry.ended_at.map(Time));
                ended(status, entry, Some(commit), Reason::Recorded, &message);
                end(status, generation, now);
            }
        }
    }
}

impl std::fmt::Display for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Claimed { commit, .. } => {
                write!(f, "claimed in {}", commit.as_deref().unwrap_or("the store alone"))
            }
            Self::ClaimWaits { reason, message }
            | Self::RecordWaits { reason, message }
            | Self::Unrecorded { reason, message }
            | Self::Refused { reason, message, .. }
            | Self::Ended { commit: Err((reason, message)), .. } => write!(f, "{reason}: {message}"),
            Self::Ended { entry, commit: Ok(commit) } => {
                write!(f, "{} ({}) in {commit}", entry.outcome, entry.reason)
            }
            Self::Late { entry, commit } => {
                write!(f, "late: {} ({}) in {commit}", entry.outcome, entry.reason)
            }
            Self::RanBefore { commit, .. } => write!(f, "this name has run before: {commit}"),
        }
    }
}

/// Where it is recorded, and what of it is not, as far as a message may be long.
fn recorded(commit: &str, undelivered: &[String]) -> String {
    let mut message = format!("recorded in {commit}");
    if !undelivered.is_empty() {
        message.push_str(", but not delivered: ");
        message.push_str(&undelivered.join("; "));
    }
    crate::ledger::entry::cut(&message, 1024).to_owned()
}

fn ended(
    status: &mut HarnessRunStatus,
    entry: &ResultEntry,
    commit: Option<&String>,
    reason: Reason,
    message: &str,
) {
    status.result = Some(ResultRef {
        commit: commit.cloned(),
        path: commit.map(|_| entry.run.path(File::Result)),
        outcome: entry.outcome,
        reason,
        message: Some(crate::ledger::entry::cut(message, 1024).to_owned())
            .filter(|message| !message.is_empty()),
    });
    status.exit_code = entry.exit_code.map(i64::from).or(status.exit_code);
    status.usage = entry.agents_word.usage.clone().or_else(|| status.usage.take());
    let session = entry.agents_word.session.as_ref();
    let session = session.map(|id| AgentSession { id: crate::ledger::entry::cut(id, 253).to_owned() });
    status.agent_session = session.or_else(|| status.agent_session.take());
    changed(status, entry);
}

/// The run's end, in the same write as its result; a phase that was told stays.
fn end(status: &mut HarnessRunStatus, generation: Option<i64>, now: Timestamp) {
    let Some(result) = status.result.clone().filter(|_| !status.phase.is_some_and(Phase::is_terminal)) else {
        return;
    };
    status.completion_time.get_or_insert(Time(now));
    let standing = Standing::new(result.outcome, result.reason, result.message.unwrap_or_default());
    stand(status, &standing, generation, now);
}

/// What the sidecar's report says beside the result. Of a run that ended without a report, the status knows more.
fn figures(status: &mut HarnessRunStatus, entry: &ResultEntry, generation: Option<i64>, now: Timestamp) {
    if status.phase.is_some_and(Phase::is_terminal) {
        return;
    }
    let mut set = |type_, state, reason, message: &str| {
        condition::set(&mut status.conditions, type_, state, reason, message, generation, now);
    };
    if let Some(proof) = &entry.egress_proof {
        set(types::EGRESS_PROVEN, State::True, Reason::EgressProven, proof);
    }
    match entry.limits_not_enforced.as_slice() {
        [] if entry.started_at.is_none() => {}
        [] => set(types::LIMITS_ENFORCED, State::True, Reason::LimitsEnforced, ""),
        missing => {
            let message = format!("not enforced on this machine: {}", missing.join(", "));
            set(types::LIMITS_ENFORCED, State::False, Reason::LimitsNotEnforced, &message);
        }
    }
    status.start_time = entry.started_at.map(Time).or_else(|| status.start_time.take());
    status.completion_time = status.completion_time.take().or_else(|| entry.ended_at.map(Time));
    if entry.egress != EgressSeen::default() {
        status.egress = Some(entry.egress.clone());
    }
    let startup = status.startup.get_or_insert_default();
    startup.egress_proven_ms = entry.startup.egress_proven_ms.or(startup.egress_proven_ms);
    startup.cloned_ms = entry.startup.cloned_ms.or(startup.cloned_ms);
    startup.first_output_ms = entry.startup.first_output_ms.or(startup.first_output_ms);
}

fn changed(status: &mut HarnessRunStatus, entry: &ResultEntry) {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    if let Some(seen) = &entry.changes {
        status.changes = Some(Changes {
            base: seen.base.as_ref().map(ToString::to_string),
            head: seen.head.as_ref().map(ToString::to_string),
            branch: entry.push.branch.clone().filter(|_| entry.push.pushed),
            files: count(seen.files),
            additions: count(seen.additions),
            deletions: count(seen.deletions),
        });
    }
}
