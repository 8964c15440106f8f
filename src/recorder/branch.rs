//! The ledger branch: a mirror of it, what it proves, and how to add to it. Blocking.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use jiff::Timestamp;

use super::Error;
use crate::{
    git::{
        Change, CommitId, EntryKind, FetchRequest, Limits, Mirror, Remote, Repository, Selection,
        commit::{self, Draft, Identity, Message},
        sign::{self, SigningKey, Verdict},
        signers::AllowedSigners,
    },
    ledger::{
        Book, ClaimEntry, Commit, CommitPlan, Entry, File, Kept, ResultEntry, RunName, Touch, View,
        entry::MAX_ENTRY,
        path::{INDEX, RUNS},
    },
};

/// Longest index file that is read, bytes; at about 150 bytes a result, some 200,000 results a month.
const MAX_INDEX: u64 = 32 << 20;

/// What the ledger says of a run's name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lookup {
    /// The name is unused.
    Absent,
    /// There is an entry that proves nothing.
    Doubt {
        /// Its path.
        path: String,
        /// Why it proves nothing.
        why: String,
    },
    /// It was claimed and has no result.
    Claimed {
        /// The claim.
        entry: ClaimEntry,
        /// The commit that holds it.
        commit: String,
    },
    /// It has a result.
    Ended {
        /// The result.
        entry: Box<ResultEntry>,
        /// The commit that holds it.
        commit: String,
    },
}

/// The ledger branch as of its last verified commit.
#[derive(Debug)]
pub(super) struct LedgerBranch {
    mirror: Mirror,
    reference: String,
    signers: AllowedSigners,
    /// Commits that were seen before this process, until the first read has passed them.
    remembered: Vec<CommitId>,
    tip: Option<CommitId>,
    book: Book,
    view: View,
}

impl LedgerBranch {
    /// Opens the mirror in `folder`. Nothing is read from the remote yet; what is read first has to hold `remembered`.
    pub(super) fn open(
        folder: &Path,
        reference: String,
        signers: AllowedSigners,
        remembered: Vec<CommitId>,
    ) -> Result<Self, Error> {
        let mirror = Mirror::open_or_init(folder)?;
        Ok(Self {
            mirror,
            reference,
            signers,
            remembered,
            tip: None,
            book: Book::default(),
            view: View::default(),
        })
    }

    /// The last verified commit; `None`: the branch does not exist.
    pub(super) fn tip(&self) -> Option<CommitId> {
        self.tip
    }

    /// True when this commit was fetched.
    pub(super) fn holds(&self, commit: CommitId) -> bool {
        self.mirror.repository().has_commit(commit)
    }

    /// The entries.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The repository that new commits are made in.
    pub(super) fn repository(&self) -> &Repository {
        self.mirror.repository()
    }

    /// Brings what others pushed, and verifies it.
    ///
    /// # Errors
    /// [`Error::Rewritten`] when the branch does not descend from what was seen before; nothing has changed then.
    pub(super) fn fetch(&mut self, remote: &Remote, interrupt: &AtomicBool) -> Result<(), Error> {
        let request = FetchRequest::new().reference(&self.reference, true)?.depth(None);
        let fetched = self.mirror.fetch(remote, &request, &Limits::default(), interrupt)?;
        let new = fetched.tips.get(&self.reference).map(|tip| tip.commit);
        let known = self.tip.map_or_else(|| self.remembered.clone(), |tip| vec![tip]);
        let Some(new) = new else {
            return known
                .first()
                .map_or(Ok(()), |old| Err(Error::Rewritten(format!("the branch is gone; it was at {old}"))));
        };
        if let Some(lost) = self.lost(&known, new)? {
            return Err(Error::Rewritten(format!(
                "{new} does not descend from {lost}, which was seen before"
            )));
        }
        self.advance(new)
    }

    /// The first of these commits that `new` does not descend from.
    fn lost(&self, known: &[CommitId], new: CommitId) -> Result<Option<CommitId>, Error> {
        // One walk answers for many: nearly all of them are on the line of first parents.
        let line = match known {
            [] | [_] => BTreeSet::new(),
            _ => first_parents(self.repository(), None, new)?.0.into_iter().map(|(id, _)| id).collect(),
        };
        for old in known.iter().filter(|old| !line.contains(old)) {
            let repository = self.repository();
            if !repository.has_commit(*old) || repository.is_ancestor(*old, new)? != Some(true) {
                return Ok(Some(*old));
            }
        }
        Ok(None)
    }

    /// Reads the commits up to `new`, which descends from the tip.
    pub(super) fn advance(&mut self, new: CommitId) -> Result<(), Error> {
        if self.tip == Some(new) {
            return Ok(());
        }
        let (commits, complete) = first_parents(self.repository(), self.tip, new)?;
        let mut book = if complete { Book::default() } else { self.book.clone() };
        let mut touched = BTreeSet::new();
        for (id, parent) in commits.into_iter().rev() {
            let commit = read_commit(self.repository(), id, parent, &self.signers)?;
            for touch in &commit.touched {
                if let crate::ledger::Place::Run(run, _) = crate::ledger::Place::of(&touch.path) {
                    touched.insert(run);
                }
            }
            book.read(&commit);
        }
        self.book = book;
        self.refresh(complete, touched)?;
        self.tip = Some(new);
        self.remembered = Vec::new();
        Ok(())
    }

    fn refresh(&mut self, complete: bool, touched: BTreeSet<RunName>) -> Result<(), Error> {
        let gone = touched.iter().any(|run| self.book.run(run).is_none());
        let mut view = if complete || gone { View::default() } else { std::mem::take(&mut self.view) };
        let runs =
            if complete || gone { self.book.runs().map(|(run, _)| run.clone()).collect() } else { touched };
        for run in runs {
            if let Some(entry) = entry(&self.lookup(&run)?) {
                view.insert(run.namespace, run.name, entry);
            }
        }
        self.view = view;
        Ok(())
    }

    /// What the ledger says of a run's name.
    pub(super) fn lookup(&self, run: &RunName) -> Result<Lookup, Error> {
        let Some((file, kept)) = self.book.run(run).and_then(|files| files.speaker()) else {
            let summary = self.book.run(run).and_then(|files| files.summary.as_ref());
            return Ok(
                summary.map_or(Lookup::Absent, |kept| doubt(run, File::Summary, kept, "it has no result"))
            );
        };
        if !kept.is_trusted() {
            return Ok(doubt(run, file, kept, "it was removed"));
        }
        let blob = kept.blob.as_deref().unwrap_or_default().parse()?;
        let text = self.repository().blob(blob, MAX_ENTRY)?;
        let text = String::from_utf8_lossy(&text);
        let commit = kept.commit.clone();
        let read = match file {
            File::Claim => ClaimEntry::from_yaml(&text).map(|entry| Lookup::Claimed { entry, commit }),
            _ => ResultEntry::from_yaml(&text).map(|entry| Lookup::Ended { entry: Box::new(entry), commit }),
        };
        Ok(read.unwrap_or_else(|error| doubt(run, file, kept, &error.to_string())))
    }

    /// The late result of a run, if there is one.
    pub(super) fn late(&self, run: &RunName) -> Option<&Kept> {
        self.book.run(run).and_then(|files| files.late.as_ref())
    }

    /// Makes the commits of a plan on top of the tip; the branch's first one also begins it. Nothing is pushed.
    pub(super) fn commit(
        &self,
        plan: &CommitPlan,
        author: &Identity,
        key: &SigningKey,
        time: Timestamp,
    ) -> Result<Option<CommitId>, Error> {
        let parent = match self.tip {
            Some(tip) => Some(tip),
            None => self.draft(None, &crate::ledger::compose::first(), author, key, time)?,
        };
        self.draft(parent, plan, author, key, time)
    }

    fn draft(
        &self,
        parent: Option<CommitId>,
        plan: &CommitPlan,
        author: &Identity,
        key: &SigningKey,
        time: Timestamp,
    ) -> Result<Option<CommitId>, Error> {
        let trailers: Vec<(&str, &str)> = plan.trailers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let write = |(path, text): &(String, String)| commit::Change::Write {
            path: path.clone(),
            content: text.clone().into_bytes(),
        };
        let draft = Draft {
            parent,
            changes: plan.writes.iter().map(write).collect(),
            author: author.clone(),
            committer: author.clone(),
            time,
            message: Message::new(&plan.subject, &plan.body, &trailers)?,
        };
        match draft.write(self.repository(), Some(key))? {
            commit::Outcome::Written(id) => Ok(Some(id)),
            commit::Outcome::Unchanged => Ok(None),
        }
    }

    /// The text of an index file; empty when there is none.
    pub(super) fn index(&self, path: &str) -> Result<String, Error> {
        let Some(tip) = self.tip else { return Ok(String::new()) };
        let Some(file) = self.repository().file(tip, path, &Limits::default())? else {
            return Ok(String::new());
        };
        let text = self.repository().blob(file.blob, MAX_INDEX)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Where references of the remote stand now.
    pub(super) fn standing(
        remote: &Remote,
        references: &[String],
        interrupt: &AtomicBool,
    ) -> Result<BTreeMap<String, CommitId>, Error> {
        let mut request = FetchRequest::new();
        for reference in references {
            request = request.reference(reference, true)?;
        }
        let listed = Mirror::list(remote, &request, &Limits::default(), interrupt)?;
        listed.into_iter().map(|(name, id)| Ok((name, id.parse()?))).collect()
    }
}

fn doubt(run: &RunName, file: File, kept: &Kept, otherwise: &str) -> Lookup {
    let why = kept.doubt.clone().unwrap_or_else(|| otherwise.to_owned());
    Lookup::Doubt { path: run.path(file), why: format!("{why} (commit {})", kept.commit) }
}

fn entry(lookup: &Lookup) -> Option<Entry> {
    let unknown = || "unknown".parse().expect("letters make a UID");
    Some(match lookup {
        Lookup::Absent => return None,
        Lookup::Doubt { .. } => Entry {
            holder: String::new(),
            run_uid: unknown(),
            digest: String::new(),
            outcome: None,
            trusted: false,
        },
        Lookup::Claimed { entry, .. } => Entry {
            holder: entry.holder.clone(),
            run_uid: entry.uid.clone(),
            digest: entry.digest.clone(),
            outcome: None,
            trusted: true,
        },
        Lookup::Ended { entry, .. } => Entry {
            holder: entry.holder.clone(),
            run_uid: entry.uid.clone(),
            digest: entry.digest.clone(),
            outcome: Some(entry.outcome),
            trusted: true,
        },
    })
}

/// A commit with its first parent.
type Step = (CommitId, Option<CommitId>);

/// The commits from `new` back along first parents to `old`, newest first, and whether the root was met instead of `old`:
/// then everything before is to be read again, because `old` came in from the side.
fn first_parents(
    repository: &Repository,
    old: Option<CommitId>,
    new: CommitId,
) -> Result<(Vec<Step>, bool), Error> {
    let mut found = Vec::new();
    let mut next = Some(new);
    while let Some(id) = next {
        if Some(id) == old {
            return Ok((found, false));
        }
        next = repository.commit(id)?.parents.first().copied();
        found.push((id, next));
    }
    Ok((found, true))
}

/// Reads one commit as far as trust goes.
pub(super) fn read_commit(
    repository: &Repository,
    id: CommitId,
    parent: Option<CommitId>,
    signers: &AllowedSigners,
) -> Result<Commit, Error> {
    let selection = Selection::new("", &[format!("{RUNS}**"), format!("{INDEX}**")], &[] as &[String])?;
    let limits = Limits { files: 1_000_000, ..Limits::default() };
    let changes = match parent {
        Some(parent) => repository.diff(parent, id, &selection, &limits)?,
        None => repository.files(id, &selection, &limits)?.into_iter().map(Change::Added).collect(),
    };
    let touched: Vec<Touch> = changes.into_iter().flat_map(touches).collect();
    // Most foreign commits touch nothing of ours: their signature is nobody's business.
    let doubt = if touched.is_empty() {
        None
    } else {
        doubt_of(&sign::verify_commit(&repository.commit_bytes(id)?, signers))
    };
    Ok(Commit { id: id.to_string(), doubt, touched })
}

fn doubt_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Verified { .. } => None,
        Verdict::Unsigned => Some("unsigned".to_owned()),
        Verdict::UnknownKey { fingerprint } => Some(format!("unknown signer {fingerprint}")),
        Verdict::Bad => Some("bad signature".to_owned()),
    }
}

fn touches(change: Change) -> Vec<Touch> {
    // Only a plain file is an entry: a symlink or submodule in its place is as good as gone, and no one of ours put it there.
    let there = |entry: crate::git::Entry| {
        let blob = (entry.kind == EntryKind::File).then(|| entry.blob.to_string());
        Touch { path: entry.path, blob }
    };
    let gone = |entry: crate::git::Entry| Touch { path: entry.path, blob: None };
    match change {
        Change::Added(new) | Change::Modified { new, .. } => vec![there(new)],
        Change::Removed(old) => vec![gone(old)],
        Change::Renamed { old, new } => vec![gone(old), there(new)],
    }
}
