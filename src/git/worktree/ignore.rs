//! `.gitignore` files, read with care while a work tree is walked.

use std::path::Path;

use gix::{bstr::BStr, glob::pattern::Case, ignore::search::Ignore};

/// The ignore rules in force in a folder: those of its parents and its own.
pub(super) struct Rules {
    search: gix::ignore::Search,
}

const PARSE: Ignore = Ignore { support_precious: false };

impl Rules {
    /// `first` are patterns that hold for the whole tree and give way to any `.gitignore`.
    pub(super) fn new(first: &[String]) -> Self {
        let mut rules = Self { search: gix::ignore::Search::default() };
        rules.add(first.join("\n").as_bytes(), None);
        rules
    }

    /// Adds the `.gitignore` of `folder`, a path relative to the work tree.
    pub(super) fn enter(&mut self, content: &[u8], folder: &Path) {
        self.add(content, Some(folder));
    }

    /// Forgets what was added last.
    pub(super) fn leave(&mut self) {
        self.search.patterns.pop();
    }

    fn add(&mut self, content: &[u8], folder: Option<&Path>) {
        // Any non-empty root works: sources are made absolute with it and patterns relative to it again.
        let root = Path::new("/");
        let source = root.join(folder.unwrap_or_else(|| Path::new(""))).join(".gitignore");
        self.search
            .add_patterns_buffer(content, source, Some(root), PARSE)
            .expect("only the paths given here are used, and the source is below the root");
    }

    /// True when a path is ignored by a rule for itself. A folder's ignored content is the walker's business.
    pub(super) fn excluded(&self, path: &BStr, is_dir: bool) -> bool {
        self.search
            .pattern_matching_relative_path(path, Some(is_dir), Case::Sensitive)
            .is_some_and(|found| !found.pattern.is_negative())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_files_win_and_are_relative_to_their_folder() {
        let mut rules = Rules::new(&["AGENTS.md".into()]);
        rules.enter(b"*.log\n/build/\n!keep.log\n", Path::new(""));
        assert!(rules.excluded("AGENTS.md".into(), false));
        assert!(rules.excluded("a/b.log".into(), false));
        assert!(!rules.excluded("a/keep.log".into(), false));
        assert!(rules.excluded("build".into(), true));
        assert!(!rules.excluded("build".into(), false));
        assert!(!rules.excluded("a/build".into(), true));
        rules.enter(b"!b.log\n/c\n", Path::new("a"));
        assert!(!rules.excluded("a/b.log".into(), false));
        assert!(rules.excluded("a/c".into(), false));
        assert!(!rules.excluded("c".into(), false));
        rules.leave();
        assert!(rules.excluded("a/b.log".into(), false));
    }
}
