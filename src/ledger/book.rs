//! The trust rule: an entry proves something only when the commit that last touched its path is signed by a ledger signer.
//!
//! Commits are read along first parents, oldest first. A merge counts as touching whatever differs from its first
//! parent, so that nothing comes in from the side without a signature of its own.

use std::collections::BTreeMap;

use super::{File, Place, RunName};

/// A commit of the branch as far as trust goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// Why it proves nothing; `None`: a ledger signer signed it.
    pub doubt: Option<String>,
    /// What differs from its first parent.
    pub touched: Vec<Touch>,
}

/// A path that a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The path.
    pub path: String,
    /// The content's object id; `None`: the path is gone.
    pub blob: Option<String>,
}

/// What stands at a path, and who put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The content's object id; `None`: somebody untrusted removed it, which is not absence.
    pub blob: Option<String>,
    /// The commit that last touched it.
    pub commit: String,
    /// Why it proves nothing.
    pub doubt: Option<String>,
}

impl Kept {
    /// True when it proves what it says.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.doubt.is_none() && self.blob.is_some()
    }
}

/// The files of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFiles {
    /// `claim.yaml`.
    pub claim: Option<Kept>,
    /// `result.yaml`.
    pub result: Option<Kept>,
    /// `late-result.yaml`.
    pub late: Option<Kept>,
    /// `summary.md`.
    pub summary: Option<Kept>,
}

impl RunFiles {
    fn slot(&mut self, file: File) -> &mut Option<Kept> {
        match file {
            File::Claim => &mut self.claim,
            File::Result => &mut self.result,
            File::Late => &mut self.late,
            File::Summary => &mut self.summary,
        }
    }

    /// The file that speaks for the run: its result, else its claim.
    #[must_use]
    pub fn speaker(&self) -> Option<(File, &Kept)> {
        let result = self.result.as_ref().map(|kept| (File::Result, kept));
        result.or_else(|| self.claim.as_ref().map(|kept| (File::Claim, kept)))
    }
}

/// Everything that the branch holds, as of the last commit that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    runs: BTreeMap<RunName, RunFiles>,
    others: BTreeMap<String, Kept>,
}

impl Book {
    /// Reads the next commit. Paths outside of `runs/` and `index/` are nobody's business.
    pub fn read(&mut self, commit: &Commit) {
        for touch in &commit.touched {
            let kept =
                Kept { blob: touch.blob.clone(), commit: commit.id.clone(), doubt: commit.doubt.clone() };
            // What a trusted signer removes was never there.
            let kept = (kept.blob.is_some() || kept.doubt.is_some()).then_some(kept);
            match Place::of(&touch.path) {
                Place::Foreign => {}
                Place::Run(run, file) => *self.runs.entry(run).or_default().slot(file) = kept,
                Place::Index | Place::Stray => match kept {
                    Some(kept) => {
                        self.others.insert(touch.path.clone(), kept);
                    }
                    None => {
                        self.others.remove(&touch.path);
                    }
                },
            }
        }
    }

    /// The files of a run that has any.
    #[must_use]
    pub fn run(&self, run: &RunName) -> Option<&RunFiles> {
        self.runs.get(run).filter(|files| **files != RunFiles::default())
    }

    /// All runs that have files, by name.
    pub fn runs(&self) -> impl Iterator<Item = (&RunName, &RunFiles)> {
        self.runs.iter().filter(|(_, files)| **files != RunFiles::default())
    }

    /// The index files, and whatever else is below `runs/` and `index/`.
    pub fn others(&self) -> impl Iterator<Item = (&String, &Kept)> {
        self.others.iter()
    }

    /// Every path that proves nothing, with the reason, by path.
    #[must_use]
    pub fn doubts(&self) -> Vec<(String, &Kept)> {
        let files = self.runs.iter().flat_map(|(run, files)| {
            let each = [
                (File::Claim, &files.claim),
                (File::Result, &files.result),
                (File::Late, &files.late),
                (File::Summary, &files.summary),
            ];
            each.into_iter().filter_map(move |(file, kept)| Some((run.path(file), kept.as_ref()?)))
        });
        let others = self.others.iter().map(|(path, kept)| (path.clone(), kept));
        let mut doubts: Vec<_> = files.chain(others).filter(|(_, kept)| !kept.is_trusted()).collect();
        doubts.sort_by(|a, b| a.0.cmp(&b.0));
        doubts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run() -> RunName {
        "team/a".parse().unwrap()
    }

    fn commit(id: &str, doubt: Option<&str>, file: File, blob: Option<&str>) -> Commit {
        let touched = vec![Touch { path: run().path(file), blob: blob.map(str::to_owned) }];
        Commit { id: id.into(), doubt: doubt.map(str::to_owned), touched }
    }

    fn book(commits: &[Commit]) -> Book {
        let mut book = Book::default();
        for commit in commits {
            book.read(commit);
        }
        book
    }

    #[test]
    fn the_last_toucher_decides() {
        let signed = commit("1", None, File::Claim, Some("b1"));
        let forged = commit("2", Some("unsigned"), File::Claim, Some("b2"));
        assert!(book(std::slice::from_ref(&signed)).doubts().is_empty());
        let book = book(&[signed, forged]);
        assert_eq!(book.doubts()[0].0, run().path(File::Claim));
        assert!(!book.run(&run()).unwrap().speaker().unwrap().1.is_trusted());
    }

    #[test]
    fn an_untrusted_removal_is_not_absence() {
        let signed = commit("1", None, File::Claim, Some("b1"));
        let forged = book(&[signed.clone(), commit("2", Some("unsigned"), File::Claim, None)]);
        assert!(!forged.run(&run()).unwrap().claim.as_ref().unwrap().is_trusted());
        let removed = book(&[signed, commit("2", None, File::Claim, None)]);
        assert_eq!(removed.run(&run()), None);
    }

    #[test]
    fn a_result_speaks_before_a_claim() {
        let book = book(&[
            commit("1", None, File::Claim, Some("b1")),
            commit("2", Some("unknown key"), File::Result, Some("b2")),
        ]);
        let (file, kept) = book.run(&run()).unwrap().speaker().unwrap();
        assert_eq!((file, kept.is_trusted()), (File::Result, false));
    }

    #[test]
    fn other_peoples_files_are_left_alone() {
        let touched = vec![
            Touch { path: "notes.md".into(), blob: Some("b".into()) },
            Touch { path: "runs/evil".into(), blob: Some("b".into()) },
        ];
        let book = book(&[Commit { id: "1".into(), doubt: Some("unsigned".into()), touched }]);
        assert_eq!(book.doubts().iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["runs/evil"]);
    }

    proptest! {
        /// Whatever happens, a path is trusted exactly when its last toucher is trusted and left it there.
        #[test]
        fn trust_follows_the_last_commit(history in prop::collection::vec((any::<bool>(), any::<bool>()), 1..20)) {
            let commits: Vec<Commit> = history.iter().enumerate().map(|(at, (signed, there))| {
                commit(&at.to_string(), (!signed).then_some("unsigned"), File::Result, there.then_some("b"))
            }).collect();
            let (signed, there) = *history.last().unwrap();
            let book = book(&commits);
            let kept = book.run(&run()).and_then(|files| files.result.as_ref());
            prop_assert_eq!(kept.is_some_and(Kept::is_trusted), signed && there);
            prop_assert_eq!(kept.is_none(), signed && !there);
        }
    }
}
