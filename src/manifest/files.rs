//! What each file said, kept from commit to commit.

use std::collections::BTreeMap;

use super::{Desired, FileOutcome, Scope, desired, file};
use crate::names::RepoPath;

/// A difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file is new or has other content.
    Written {
        /// Which.
        path: RepoPath,
        /// The id of its content.
        blob: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// A file is gone.
    Removed(RepoPath),
}

/// What each file said, kept from commit to commit: only changed files are read.
#[derive(Debug, Clone)]
pub struct Files {
    scope: Scope,
    said: BTreeMap<RepoPath, (String, FileOutcome)>,
    parsed: u64,
}

impl Files {
    /// No files yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, said: BTreeMap::new(), parsed: 0 }
    }

    /// Takes in the difference to the next tree. A file whose blob is known already is not read again.
    pub fn update(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Removed(path) => {
                    self.said.remove(&path);
                }
                Change::Written { path, blob, bytes } => {
                    if self.blob(&path) != Some(&blob) {
                        let outcome = file::parse(&path, &bytes, &self.scope);
                        self.parsed += 1;
                        self.said.insert(path, (blob, outcome));
                    }
                }
            }
        }
    }

    /// The id of the content of a file as it was last read.
    #[must_use]
    pub fn blob(&self, path: &RepoPath) -> Option<&str> {
        self.said.get(path).map(|(blob, _)| blob.as_str())
    }

    /// The files that there are.
    pub fn paths(&self) -> impl Iterator<Item = &RepoPath> {
        self.said.keys()
    }

    /// What a file said.
    #[must_use]
    pub fn outcome(&self, path: &RepoPath) -> Option<&FileOutcome> {
        self.said.get(path).map(|(_, outcome)| outcome)
    }

    /// How many files were read since the beginning.
    #[must_use]
    pub fn parsed(&self) -> u64 {
        self.parsed
    }

    /// The prompt files that the objects name, for the caller to have them at hand.
    pub fn prompts(&self) -> impl Iterator<Item = &RepoPath> {
        let objects = self.said.values().flat_map(|(_, outcome)| &outcome.objects);
        objects.filter_map(|object| object.prompt())
    }

    /// What all files together ask for. `prompt` gives the content of a prompt file.
    #[must_use]
    pub fn desired(&self, prompt: impl Fn(&RepoPath) -> Option<Vec<u8>>) -> Desired {
        desired::join(self.said.iter().map(|(path, (_, outcome))| (path, outcome)), prompt)
    }
}
