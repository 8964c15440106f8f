//! The ledger, read by the git program alone.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::servers::repo::{command, git};

/// Its branch.
pub(super) const BRANCH: &str = "ostler/results";

/// The ledger branch of a repository.
pub(super) struct Ledger<'a> {
    repository: &'a Path,
    signers: PathBuf,
}

/// A commit of it.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) trailers: Vec<(String, String)>,
}

impl Commit {
    /// The values of a trailer.
    pub(super) fn trailer(&self, token: &str) -> Vec<&str> {
        let values = self.trailers.iter().filter(|(name, _)| name == token);
        values.map(|(_, value)| value.as_str()).collect()
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn new(repository: &'a Path, signers: PathBuf) -> Self {
        Self { repository, signers }
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(self.repository, arguments)
    }

    /// Its last commit.
    pub(super) fn tip(&self) -> String {
        self.git(&["rev-parse", &format!("refs/heads/{BRANCH}")])
    }

    /// All paths.
    pub(super) fn paths(&self) -> Vec<String> {
        let names = self.git(&["ls-tree", "-r", "--name-only", BRANCH]);
        names.lines().map(str::to_owned).collect()
    }

    /// The path of one file of a run of namespace `default`.
    pub(super) fn path(&self, run: &str, file: &str) -> Option<String> {
        let end = format!("/{run}/{file}");
        self.paths().into_iter().find(|path| path.starts_with("runs/default/") && path.ends_with(&end))
    }

    /// The text of one file of a run.
    pub(super) fn text(&self, run: &str, file: &str) -> Option<String> {
        let path = self.path(run, file)?;
        Some(self.git(&["show", &format!("{BRANCH}:{path}")]))
    }

    fn entry(&self, run: &str, file: &str) -> Option<Value> {
        self.text(run, file).map(|text| serde_saphyr::from_str(&text).unwrap())
    }

    /// The claim of a run.
    pub(super) fn claim(&self, run: &str) -> Option<Value> {
        self.entry(run, "claim.yaml")
    }

    /// The result of a run.
    pub(super) fn result(&self, run: &str) -> Option<Value> {
        self.entry(run, "result.yaml")
    }

    /// Every commit, the last one first.
    pub(super) fn commits(&self) -> Vec<Commit> {
        self.log(&[BRANCH])
    }

    /// The commits that touched a path, the last one first.
    pub(super) fn commits_of(&self, path: &str) -> Vec<Commit> {
        self.log(&[BRANCH, "--", path])
    }

    fn log(&self, what: &[&str]) -> Vec<Commit> {
        let format = "--format=%H%x09%s%x09%(trailers:only,unfold,separator=%x0A)%x00";
        let log = self.git(&[&["log", format], what].concat());
        let records = log.split('\0').map(str::trim_start).filter(|record| !record.is_empty());
        let commit = |record: &str| {
            let mut parts = record.splitn(3, '\t');
            let (id, subject) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
            let trailers = parts.next().unwrap_or_default().lines().filter_map(|line| line.split_once(": "));
            let trailers = trailers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Commit { id, subject, trailers }
        };
        records.map(commit).collect()
    }

    /// Asserts that `git verify-commit` accepts every commit, with our key as the only allowed signer.
    pub(super) fn assert_signed(&self) {
        for commit in self.commits() {
            let allowed = format!("gpg.ssh.allowedSignersFile={}", self.signers.display());
            let verified = command(self.repository)
                .args(["-c", &allowed, "verify-commit", &commit.id])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success(), "{} {:?}: {said}", commit.id, commit.subject);
        }
    }
}
