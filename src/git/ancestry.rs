//! Who descends from whom, as far as a shallow repository can tell.

use std::collections::{BinaryHeap, HashSet};

use gix::ObjectId;

use super::id::CommitId;
use super::{Error, Repository};

/// How many commits one question may look at (the Linux kernel has about 1.4 million).
const WALK: usize = 2_000_000;

/// How the new tip of a reference relates to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ancestry {
    /// The new one descends from the old one.
    FastForward,
    /// It does not: history was rewritten or wound back.
    Rewritten,
    /// The way back ends at a shallow boundary before it meets the old one: [`super::Mirror::deepen`], or hold.
    Unknown,
}

impl Repository {
    /// Whether `ancestor` is `descendant` or is reached from it by parents. `None`: the answer lies behind a shallow
    /// boundary.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `descendant` is not here.
    pub fn is_ancestor(&self, ancestor: CommitId, descendant: CommitId) -> Result<Option<bool>, Error> {
        let repository = self.local();
        let boundary: HashSet<ObjectId> = repository
            .shallow_commits()
            .map_err(Error::gix("read the shallow boundary"))?
            .map(|commits| commits.iter().copied().collect())
            .unwrap_or_default();
        let mut complete = true;
        let mut seen = HashSet::from([descendant.get()]);
        // Newest first, so that the usual answer (a few commits back) is found at once.
        let mut queue = BinaryHeap::from([(i64::MAX, descendant.get())]);
        while let Some((_, id)) = queue.pop() {
            if id == ancestor.get() {
                return Ok(Some(true));
            }
            let known = repository.try_find_object(id).map_err(Error::gix("read a commit"))?;
            let Some(object) = known else {
                if id == descendant.get() {
                    let place = self.place().to_owned();
                    return Err(Error::NotFound { what: format!("commit {id}"), place });
                }
                complete = false;
                continue;
            };
            if boundary.contains(&id) || seen.len() > WALK {
                complete = false;
                continue;
            }
            let commit = object.try_into_commit().map_err(Error::gix("read a commit"))?;
            let time = commit.time().map_or(0, |time| time.seconds);
            for parent in commit.parent_ids() {
                if seen.insert(parent.detach()) {
                    queue.push((time, parent.detach()));
                }
            }
        }
        Ok(complete.then_some(false))
    }

    /// Judges a move of a reference from `old` to `new`.
    ///
    /// # Errors
    /// As [`Self::is_ancestor`].
    pub fn ancestry(&self, old: CommitId, new: CommitId) -> Result<Ancestry, Error> {
        match self.is_ancestor(old, new)? {
            Some(true) => Ok(Ancestry::FastForward),
            Some(false) => Ok(Ancestry::Rewritten),
            // Wound back: certain even when the rest of history is not here.
            None if self.has_commit(old) && self.is_ancestor(new, old)? == Some(true) => {
                Ok(Ancestry::Rewritten)
            }
            None => Ok(Ancestry::Unknown),
        }
    }
}
