//! Is a ledger what it says? Everything is checked offline, from the first commit on. Blocking.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use sha2::{Digest, Sha256};

use super::{Error, branch::read_commit};
use crate::{
    git::{
        CommitId, EntryKind, FetchRequest, Limits, Location, Mirror, Remote, Repository, Selection,
        signers::AllowedSigners,
    },
    ledger::{
        Book, ClaimEntry, Commit, File, Place, ResultEntry, RunFiles, RunName,
        compose::indexed,
        digest,
        entry::{Bulk, MAX_ENTRY},
        trailers::{self, Group},
    },
    names::BranchName,
};

/// Longest bulk file that is read, bytes: the cap of a bundle.
const MAX_BULK: u64 = 256 << 20;

/// A path that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The path, or the reference of a run's bulk.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The last commit.
    pub tip: String,
    /// Commits that were read.
    pub commits: usize,
    /// Runs with entries.
    pub runs: usize,
    /// What is wrong, by path.
    pub findings: Vec<Finding>,
}

/// Checks a ledger branch: each commit that touches `runs/` or `index/`, its signature and trailers, the entries, the
/// index and the digests of the bulk.
///
/// # Errors
/// When the ledger cannot be read at all. What is wrong in it is in the answer.
pub fn verify(
    location: &Location,
    branch: &BranchName,
    signers: &AllowedSigners,
    scratch: &Path,
) -> Result<Verified, Error> {
    let interrupt = AtomicBool::new(false);
    let remote = Remote::builder(location.clone()).build()?;
    let mirror = Mirror::open_or_init(scratch)?;
    let reference = branch.to_ref();
    let request = FetchRequest::new().reference(&reference, false)?.below("refs/ostler/runs")?.depth(None);
    let fetched = mirror.fetch(&remote, &request, &Limits::default(), &interrupt)?;
    let tip = fetched
        .tips
        .get(&reference)
        .ok_or_else(|| Error::Refused(format!("{reference} does not exist")))?
        .commit;
    let bulk = fetched.tips.iter().map(|(name, tip)| (name.clone(), tip.commit)).collect();
    let mut check = Check { repository: mirror.repository(), bulk, findings: BTreeSet::new() };
    let (book, commits) = check.history(tip, signers)?;
    for (path, kept) in book.doubts() {
        let why = kept.doubt.clone().unwrap_or_else(|| "it was removed".to_owned());
        check.find(&path, format!("{why} (commit {})", kept.commit));
    }
    let mut ended = BTreeSet::new();
    for (run, files) in book.runs() {
        check.run(run, files)?;
        if files.result.is_some() {
            ended.insert(run.clone());
        }
    }
    check.index(&book, &ended)?;
    let findings = check.findings.into_iter().collect();
    Ok(Verified { tip: tip.to_string(), commits, runs: book.runs().count(), findings })
}

struct Check<'a> {
    repository: &'a Repository,
    bulk: BTreeMap<String, CommitId>,
    findings: BTreeSet<Finding>,
}

impl Check<'_> {
    fn find(&mut self, path: &str, why: impl Into<String>) {
        self.findings.insert(Finding { path: path.to_owned(), why: why.into() });
    }

    /// Reads all commits along first parents, and their trailers.
    fn history(&mut self, tip: CommitId, signers: &AllowedSigners) -> Result<(Book, usize), Error> {
        let mut line = Vec::new();
        let mut next = Some(tip);
        while let Some(id) = next {
            next = self.repository.commit(id)?.parents.first().copied();
            line.push((id, next));
        }
        let mut book = Book::default();
        for (id, parent) in line.iter().rev() {
            let commit = read_commit(self.repository, *id, *parent, signers)?;
            if commit.doubt.is_none() {
                self.trailers(&commit, *id)?;
            }
            book.read(&commit);
        }
        Ok((book, line.len()))
    }

    /// A signed commit speaks of exactly the runs whose files it touches.
    fn trailers(&mut self, commit: &Commit, id: CommitId) -> Result<(), Error> {
        if commit.touched.is_empty() {
            return Ok(());
        }
        let said: BTreeMap<RunName, Group> = trailers::parse(&self.repository.commit(id)?.message)
            .into_iter()
            .map(|g| (g.run.clone(), g))
            .collect();
        let mut touched = BTreeSet::new();
        for touch in &commit.touched {
            let Place::Run(run, file) = Place::of(&touch.path) else { continue };
            touched.insert(run.clone());
            let Some(group) = said.get(&run) else {
                self.find(&touch.path, format!("commit {id} has no trailers for it"));
                continue;
            };
            let entry = match (&touch.blob, file) {
                (Some(blob), File::Claim | File::Result | File::Late) => self.read(blob, file)?,
                _ => continue,
            };
            if let Some((_, uid, digest)) =
                entry.ok().filter(|(_, uid, digest)| *uid != group.uid || *digest != group.digest)
            {
                let why = format!(
                    "commit {id} says UID {} and digest {}, the entry {uid} and {digest}",
                    group.uid, group.digest
                );
                self.find(&touch.path, why);
            }
        }
        for run in said.keys().filter(|run| !touched.contains(run)) {
            self.find(&run.folder(), format!("commit {id} speaks of it but does not touch it"));
        }
        Ok(())
    }

    /// The run, UID and digest that an entry names.
    fn read(&self, blob: &str, file: File) -> Result<Result<(RunName, String, String), String>, Error> {
        let text = self.repository.blob(blob.parse()?, MAX_ENTRY)?;
        let text = String::from_utf8_lossy(&text);
        let read = match file {
            File::Claim => ClaimEntry::from_yaml(&text).map(|e| (e.run, e.uid.to_string(), e.digest)),
            _ => ResultEntry::from_yaml(&text).map(|e| (e.run, e.uid.to_string(), e.digest)),
        };
        Ok(read.map_err(|error| crate::telemetry::Chain(&error).to_string()))
    }

    fn run(&mut self, run: &RunName, files: &RunFiles) -> Result<(), Error> {
        let mut said = Vec::new();
        for (file, kept) in
            [(File::Claim, &files.claim), (File::Result, &files.result), (File::Late, &files.late)]
        {
            let Some(blob) = kept.as_ref().and_then(|kept| kept.blob.as_ref()) else { continue };
            match self.read(blob, file)? {
                Ok((named, _, _)) if named != *run => {
                    self.find(&run.path(file), format!("it speaks of run {named}"));
                }
                Ok((_, uid, digest)) => said.push((file, uid, digest)),
                Err(why) => self.find(&run.path(file), why),
            }
        }
        for pair in said.windows(2) {
            let [(_, uid, digest), (file, other, changed)] = pair else { continue };
            if (uid, digest) != (other, changed) {
                let why = format!("digest mismatch: it was {uid} {digest}, and ended as {other} {changed}");
                self.find(&run.path(*file), why);
            }
        }
        if files.late.is_some() && files.result.is_none() {
            self.find(&run.path(File::Late), "it is late, but nothing says that the run was lost");
        }
        for kept in [&files.result, &files.late].into_iter().flatten().filter(|kept| kept.is_trusted()) {
            let Some(blob) = &kept.blob else { continue };
            let text = self.repository.blob(blob.parse()?, MAX_ENTRY)?;
            if let Ok(Some(bulk)) =
                ResultEntry::from_yaml(&String::from_utf8_lossy(&text)).map(|entry| entry.bulk)
            {
                self.bulk(&bulk)?;
            }
        }
        Ok(())
    }

    /// The bulk is what the signed entry says, to the byte.
    fn bulk(&mut self, bulk: &Bulk) -> Result<(), Error> {
        let Some(commit) = self.bulk.get(&bulk.reference).copied() else {
            self.find(&bulk.reference, "it does not exist");
            return Ok(());
        };
        let none: [&str; 0] = [];
        let there = self.repository.files(commit, &Selection::new("", &none, &none)?, &Limits::default())?;
        let mut missing: BTreeSet<&String> = bulk.files.keys().collect();
        for file in there {
            let path = format!("{}:{}", bulk.reference, file.path);
            let Some(expected) = bulk.files.get(&file.path).filter(|_| file.kind == EntryKind::File) else {
                self.find(&path, "no entry speaks of it");
                continue;
            };
            missing.remove(&file.path);
            let content = self.repository.blob(file.blob, MAX_BULK)?;
            if digest::hex(&Sha256::digest(&content)) != expected.sha256
                || content.len() as u64 != expected.bytes
            {
                self.find(&path, "bulk digest mismatch");
            }
        }
        for name in missing {
            self.find(&format!("{}:{name}", bulk.reference), "it is missing");
        }
        Ok(())
    }

    /// The index lists each result once, and nothing else.
    fn index(&mut self, book: &Book, ended: &BTreeSet<RunName>) -> Result<(), Error> {
        let mut listed = BTreeSet::new();
        for (path, kept) in book.others() {
            if Place::of(path) == Place::Stray {
                self.find(path, "ostler writes no such file");
                continue;
            }
            let Some(blob) = &kept.blob else { continue };
            let text = self.repository.blob(blob.parse()?, Limits::default().file_bytes * 8)?;
            for run in indexed(&String::from_utf8_lossy(&text)) {
                if !ended.contains(&run) {
                    self.find(path, format!("it lists {run}, which has no result"));
                } else if !listed.insert(run.clone()) {
                    self.find(path, format!("it lists {run} again"));
                }
            }
        }
        for run in ended.difference(&listed) {
            self.find(&run.path(File::Result), "no index lists it");
        }
        Ok(())
    }
}
