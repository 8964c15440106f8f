//! Entries become one signed commit, and the commit becomes the branch: compare-and-swap, never force. Blocking.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use rand::Rng;

use super::{
    Error,
    branch::{LedgerBranch, Lookup},
};
use crate::{
    git::{
        self, CommitId, Remote,
        commit::Identity,
        push::{self, Outcome, Push, Rejection, Update},
        sign::SigningKey,
    },
    kinds::Phase,
    ledger::{ClaimEntry, File, Record, ResultEntry, RunName, compose, path},
};

/// How often others may be first before we give the turn back.
const ATTEMPTS: u32 = 8;
/// First wait after somebody was faster; doubled each time, half of it random.
const BACKOFF: Duration = Duration::from_millis(25);

/// What somebody wants in the ledger.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    /// The entry.
    pub(super) record: Record,
    /// The commit with its bulk.
    pub(super) bulk: Option<CommitId>,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It is in the ledger, now or since a crash before.
    Stands {
        /// The commit that holds it.
        commit: String,
    },
    /// The name has a result, which counts instead.
    Recorded {
        /// The result.
        entry: Box<ResultEntry>,
        /// The commit that holds it.
        commit: String,
    },
    /// Another run of this control plane used the name.
    NameUsed(ClaimEntry),
    /// Another control plane claimed the name and has no result yet.
    Elsewhere(ClaimEntry),
    /// The name has an entry that proves nothing.
    Doubt {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
}

/// Decides from what stands there already; `None`: write it.
fn judge(record: &Record, found: Lookup) -> Option<Verdict> {
    let (uid, holder) = match record {
        Record::Claim(entry) => (&entry.uid, &entry.holder),
        Record::Result(entry, _) | Record::Late(entry, _) => (&entry.uid, &entry.holder),
    };
    match found {
        Lookup::Absent => None,
        Lookup::Doubt { path, why } => Some(Verdict::Doubt { path, why }),
        Lookup::Ended { entry, commit } => Some(Verdict::Recorded { entry, commit }),
        Lookup::Claimed { entry, .. } if entry.holder != *holder => Some(Verdict::Elsewhere(entry)),
        Lookup::Claimed { entry, .. } if entry.uid != *uid => Some(Verdict::NameUsed(entry)),
        Lookup::Claimed { commit, .. } => {
            matches!(record, Record::Claim(_)).then_some(Verdict::Stands { commit })
        }
    }
}

/// The same for a late result, which is written though the name has one that says `Lost`, if that is the same run's.
fn judge_in(branch: &LedgerBranch, record: &Record) -> Result<Option<Verdict>, Error> {
    let found = judge(record, branch.lookup(record.run())?);
    let (Record::Late(late, _), Some(Verdict::Recorded { entry, .. })) = (record, &found) else {
        return Ok(found);
    };
    if entry.outcome != Phase::Lost || entry.uid != late.uid || entry.holder != late.holder {
        return Ok(found);
    }
    Ok(branch.late(&late.run).map(|kept| {
        if kept.is_trusted() {
            return Verdict::Stands { commit: kept.commit.clone() };
        }
        let why = kept.doubt.clone().unwrap_or_else(|| "it was removed".to_owned());
        Verdict::Doubt { path: late.run.path(File::Late), why: format!("{why} (commit {})", kept.commit) }
    }))
}

/// With what entries are written.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    pub(super) remote: &'a Remote,
    pub(super) author: &'a Identity,
    pub(super) key: &'a SigningKey,
    pub(super) reference: &'a str,
    pub(super) interrupt: &'a AtomicBool,
}

/// Writes what is to be written as one commit; the verdicts are in the order of the proposals.
///
/// # Errors
/// After an error nothing is known of any of them: the next call finds out from the ledger itself.
pub(super) fn write(
    branch: &mut LedgerBranch,
    pen: &Pen<'_>,
    proposals: &[Proposal],
    now: &dyn Fn() -> Timestamp,
) -> Result<Vec<Verdict>, Error> {
    for attempt in 0..ATTEMPTS {
        let mut verdicts = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            verdicts.push(judge_in(branch, &proposal.record)?);
        }
        let open: Vec<&Proposal> = proposals
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(p, _)| p)
            .collect();
        if open.is_empty() {
            return Ok(verdicts.into_iter().flatten().collect());
        }
        if let Some(commit) = try_once(branch, pen, &open, now(), attempt > 0)? {
            let stands = || Verdict::Stands { commit: commit.to_string() };
            return Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(stands)).collect());
        }
        rest(attempt, pen.interrupt);
        branch.fetch(pen.remote, pen.interrupt)?;
    }
    Err(Error::Contended(ATTEMPTS))
}

fn rest(attempt: u32, interrupt: &AtomicBool) {
    if !interrupt.load(Ordering::Relaxed) {
        let most = BACKOFF * 2_u32.pow(attempt.min(6));
        std::thread::sleep(most / 2 + most.mul_f64(rand::rng().random_range(0.0..0.5)));
    }
}

/// One commit and one push; `None`: somebody was faster.
fn try_once(
    branch: &mut LedgerBranch,
    pen: &Pen<'_>,
    open: &[&Proposal],
    now: Timestamp,
    again: bool,
) -> Result<Option<CommitId>, Error> {
    let records: Vec<Record> = open.iter().map(|proposal| proposal.record.clone()).collect();
    let mut index = BTreeMap::new();
    for record in &records {
        if let Record::Result(entry, _) = record {
            let path = path::index_path(entry.recorded_at);
            if !index.contains_key(&path) {
                index.insert(path.clone(), branch.index(&path)?);
            }
        }
    }
    let plan = compose(&records, &index)?;
    let Some(new) = branch.commit(&plan, pen.author, pen.key, now)? else {
        return Ok(branch.tip());
    };
    let bulk: Vec<(String, CommitId)> =
        open.iter().filter_map(|p| Some((p.record.run().bulk_ref(), p.bulk?))).collect();
    let names: Vec<String> = bulk.iter().map(|(name, _)| name.clone()).collect();
    // A bulk reference exists already only when a push was cut in half, which a server without atomic pushes may do.
    let standing = if again && !names.is_empty() {
        LedgerBranch::standing(pen.remote, &names, pen.interrupt)?
    } else {
        BTreeMap::new()
    };
    let mut updates = vec![Update::new(pen.reference, branch.tip(), new)?];
    for (name, id) in &bulk {
        updates.push(Update::new(name, standing.get(name).copied(), *id)?);
    }
    if !send(branch, pen, updates)? {
        return Ok(None);
    }
    branch.advance(new)?;
    Ok(Some(new))
}

/// False: somebody was faster.
fn send(branch: &LedgerBranch, pen: &Pen<'_>, updates: Vec<Update>) -> Result<bool, Error> {
    match Push::new(updates.clone())?.send(branch.repository(), pen.remote, pen.interrupt) {
        Ok(report) => settled(&report),
        Err(push::Error::Unsupported("atomic pushes")) => {
            // The branch goes last: what it speaks of is there before it does.
            for update in updates.into_iter().rev() {
                let report = Push::new(vec![update])?.send(branch.repository(), pen.remote, pen.interrupt)?;
                if !settled(&report)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        // It may have taken effect: fetching shows whether.
        Err(push::Error::Unknown(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "a push was not answered");
            Ok(false)
        }
        Err(push::Error::Remote(error)) if refuses(&error) => Err(Error::Refused(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn settled(report: &push::Report) -> Result<bool, Error> {
    if report.done() {
        return Ok(true);
    }
    if report.stale() {
        return Ok(false);
    }
    let rejected = report.refs.iter().find_map(|(name, outcome)| match outcome {
        Outcome::Rejected(Rejection::Aborted) | Outcome::Done => None,
        Outcome::Rejected(rejection) => Some(format!("{name}: {rejection}")),
    });
    Err(Error::Refused(rejected.unwrap_or_else(|| report.text.clone())))
}

/// True when trying again changes nothing until somebody gives us the right to push.
pub(super) fn refuses(error: &git::Error) -> bool {
    matches!(
        error,
        git::Error::Unauthenticated { .. }
            | git::Error::Forbidden { .. }
            | git::Error::Moved { .. }
            | git::Error::Refused { retry: false, .. }
    )
}

/// What the ledger says of a name that is not ours to write.
pub(super) fn follow(
    branch: &LedgerBranch,
    run: &RunName,
) -> Result<Option<(Box<ResultEntry>, String)>, Error> {
    match branch.lookup(run)? {
        Lookup::Ended { entry, commit } => Ok(Some((entry, commit))),
        _ => Ok(None),
    }
}
