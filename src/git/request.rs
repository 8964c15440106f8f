//! What to ask a remote for.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use gix::ObjectId;

use super::Error;
use super::id::CommitId;

/// Which references to bring, and how much of their history.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    wants: BTreeSet<Want>,
    depth: Option<NonZeroU32>,
}

/// One line of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// One reference by its full name.
    Reference { name: String, optional: bool },
    /// All references that start so.
    Below { prefix: String },
    /// One commit by name, for servers that allow it.
    Commit(CommitId),
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self { wants: BTreeSet::new(), depth: Some(NonZeroU32::MIN) }
    }
}

impl FetchRequest {
    /// Nothing yet; references new to the mirror come with one commit of history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants a branch, such as `main`. The fetch fails when the remote does not have it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what cannot be a branch name.
    pub fn branch(self, name: &str) -> Result<Self, Error> {
        self.reference(&format!("refs/heads/{name}"), false)
    }

    /// Wants a tag, such as `v1`. The fetch fails when the remote does not have it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what cannot be a tag name.
    pub fn tag(self, name: &str) -> Result<Self, Error> {
        self.reference(&format!("refs/tags/{name}"), false)
    }

    /// Wants what the remote's `HEAD` points to: its default branch. The tip is named `HEAD`.
    #[must_use]
    pub fn head(mut self) -> Self {
        self.wants.insert(Want::Reference { name: "HEAD".to_owned(), optional: false });
        self
    }

    /// Wants a reference by its full name; an `optional` one may be absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no full name.
    pub fn reference(mut self, name: &str, optional: bool) -> Result<Self, Error> {
        let valid = name.starts_with("refs/") && gix::validate::reference::name(name.into()).is_ok();
        if !valid {
            return Err(Error::Malformed { text: name.to_owned(), wanted: "the name of a reference" });
        }
        self.wants.insert(Want::Reference { name: name.to_owned(), optional });
        Ok(self)
    }

    /// Wants all references below a folder, such as `refs/heads`; there may be none.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no such folder.
    pub fn below(mut self, folder: &str) -> Result<Self, Error> {
        let folder = folder.trim_end_matches('/');
        if !folder.starts_with("refs/") || gix::validate::reference::name(folder.into()).is_err() {
            return Err(Error::Malformed { text: folder.to_owned(), wanted: "a folder of references" });
        }
        self.wants.insert(Want::Below { prefix: format!("{folder}/") });
        Ok(self)
    }

    /// Wants one commit by its name.
    #[must_use]
    pub fn commit(mut self, id: CommitId) -> Self {
        self.wants.insert(Want::Commit(id));
        self
    }

    /// How many commits of a reference that is new to the mirror to bring; `None` for all.
    #[must_use]
    pub fn depth(mut self, commits: Option<NonZeroU32>) -> Self {
        self.depth = commits;
        self
    }

    pub(super) fn wants(&self) -> impl Iterator<Item = &Want> {
        self.wants.iter()
    }

    /// How much history a new reference comes with.
    pub(super) fn commits(&self) -> Option<NonZeroU32> {
        self.depth
    }

    /// What the names that the server lists must start with.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let prefix = |want: &Want| match want {
            Want::Reference { name, .. } => Some(name.clone()),
            Want::Below { prefix } => Some(prefix.clone()),
            Want::Commit(_) => None,
        };
        self.wants.iter().filter_map(prefix).collect()
    }

    /// The wanted ones among the remote's references, and the wanted commits under their own names.
    pub(super) fn choose(
        &self,
        remote: &BTreeMap<String, ObjectId>,
        place: &str,
    ) -> Result<BTreeMap<String, ObjectId>, Error> {
        let mut chosen = BTreeMap::new();
        for want in &self.wants {
            match want {
                Want::Reference { name, optional } => match remote.get(name) {
                    Some(id) => drop(chosen.insert(name.clone(), *id)),
                    None if *optional => {}
                    None => return Err(Error::NotFound { what: name.clone(), place: place.to_owned() }),
                },
                Want::Below { prefix } => {
                    let below = remote.iter().filter(|(name, _)| name.starts_with(prefix));
                    chosen.extend(below.map(|(name, id)| (name.clone(), *id)));
                }
                Want::Commit(id) => drop(chosen.insert(id.to_string(), id.get())),
            }
        }
        Ok(chosen)
    }
}
