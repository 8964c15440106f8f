//! Which files of a tree count.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Error;

/// A subtree and globs. All paths and globs are relative to the top of the repository; `*` does not cross a slash.
#[derive(Debug, Clone)]
pub struct Selection {
    under: Vec<String>,
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Default for Selection {
    fn default() -> Self {
        Self { under: Vec::new(), include: None, exclude: GlobSet::empty() }
    }
}

impl Selection {
    /// All files below `under` (`""`, `"."` and `"./"` are the top) that match an `include` glob, when there are any, and
    /// no `exclude` glob.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a bad glob, or an `under` that is absolute or climbs up.
    pub fn new<S: AsRef<str>>(under: &str, include: &[S], exclude: &[S]) -> Result<Self, Error> {
        let malformed =
            || Error::Malformed { text: under.to_owned(), wanted: "a path inside the repository" };
        if under.starts_with('/') {
            return Err(malformed());
        }
        let mut parts = Vec::new();
        for part in under.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." || part.chars().any(char::is_control) {
                return Err(malformed());
            }
            parts.push(part.to_owned());
        }
        let include = if include.is_empty() { None } else { Some(globs(include)?) };
        Ok(Self { under: parts, include, exclude: globs(exclude)? })
    }

    /// The parts of the subtree's path.
    pub(super) fn under(&self) -> &[String] {
        &self.under
    }

    /// The subtree's path, `.` for the top.
    pub(super) fn under_text(&self) -> String {
        if self.under.is_empty() { ".".to_owned() } else { self.under.join("/") }
    }

    /// Whether the globs select a path that is known to be below the subtree.
    pub(super) fn selects(&self, path: &str) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.is_match(path)) && !self.exclude.is_match(path)
    }
}

fn globs<S: AsRef<str>>(texts: &[S]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        let text = text.as_ref();
        let malformed = |_| Error::Malformed { text: text.to_owned(), wanted: "a glob" };
        set.add(GlobBuilder::new(text).literal_separator(true).build().map_err(malformed)?);
    }
    set.build().map_err(|_| Error::Malformed { text: String::new(), wanted: "a set of globs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_relative_to_the_top_and_stars_stop_at_slashes() {
        let selection =
            Selection::new("./teams/", &["teams/*/run.yaml", "**/*.yml"], &["teams/old/**"]).unwrap();
        assert_eq!(selection.under(), ["teams"]);
        assert!(selection.selects("teams/a/run.yaml"));
        assert!(selection.selects("teams/a/b/c.yml"));
        assert!(!selection.selects("teams/a/b/run.yaml"));
        assert!(!selection.selects("teams/old/c.yml"));
        assert!(Selection::default().selects("anything"));
    }

    #[test]
    fn a_subtree_stays_inside() {
        for under in ["/etc", "../up", "a/../..", "a\nb"] {
            assert!(Selection::new::<&str>(under, &[], &[]).is_err(), "{under:?}");
        }
        assert!(Selection::new("", &["["], &[]).is_err());
    }
}
