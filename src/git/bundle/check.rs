//! Every object of an incoming pack, from its heads down to the base: kinds, names, modes, descent, sizes, nothing spare.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet},
};

use gix::{
    ObjectId, Repository,
    bstr::ByteSlice,
    objs::{CommitRef, Kind},
};

use super::{Error, Flaw, Limits, changes, store, tree};

/// A pack in quarantine. The repository sees the pack and, behind it, what we already have.
pub(super) struct Quarantined<'a> {
    pub(super) repository: &'a Repository,
    /// What we already have, alone.
    pub(super) ours: &'a Repository,
    pub(super) base: ObjectId,
    /// Objects of the pack.
    pub(super) pack: &'a HashSet<ObjectId>,
    pub(super) limits: &'a Limits,
    /// Bytes of the objects looked at so far.
    pub(super) bytes: Cell<u64>,
}

fn flaw(id: ObjectId, reason: Flaw) -> Error {
    Error::Object { id, reason }
}

impl Quarantined<'_> {
    /// Checks everything and gives the new commits with their trees.
    pub(super) fn check(&self, heads: &[(String, ObjectId)]) -> Result<Vec<(ObjectId, ObjectId)>, Error> {
        let commits = self.commits(heads)?;
        let mut seen: HashSet<ObjectId> = commits.iter().map(|(id, _)| *id).collect();
        self.trees(commits.iter().map(|(_, tree)| *tree).collect(), &mut seen)?;
        match self.pack.iter().find(|id| !seen.contains(*id) && !self.ours.has_object(**id)) {
            Some(spare) => Err(flaw(*spare, Flaw::Unreachable)),
            None => Ok(commits),
        }
    }

    /// Every path that a new commit has otherwise than the base: also what a later commit takes back.
    pub(super) fn paths(&self, commits: &[(ObjectId, ObjectId)]) -> Result<Vec<String>, Error> {
        let base =
            self.repository.find_commit(self.base).and_then(|commit| commit.tree_id().map(gix::Id::detach));
        let base = base.map_err(store("the base's tree"))?;
        let mut paths = BTreeSet::new();
        let trees: BTreeSet<ObjectId> = commits.iter().map(|(_, tree)| *tree).collect();
        for tree in trees {
            for changed in changes::between(self.repository, Some(base), Some(tree), self.limits.paths)? {
                paths.insert(changed.path.to_str_lossy().into_owned());
            }
            cap("changed paths", paths.len() as u64, self.limits.paths as u64)?;
        }
        Ok(paths.into_iter().collect())
    }

    fn commits(&self, heads: &[(String, ObjectId)]) -> Result<Vec<(ObjectId, ObjectId)>, Error> {
        let mut stack: Vec<ObjectId> = heads.iter().map(|(_, id)| *id).collect();
        let mut seen = HashSet::new();
        let mut commits = Vec::new();
        while let Some(id) = stack.pop() {
            if id == self.base || !seen.insert(id) {
                continue;
            }
            cap("commits", seen.len() as u64, self.limits.commits as u64)?;
            if !self.pack.contains(&id) {
                return Err(flaw(
                    id,
                    if self.ours.has_object(id) { Flaw::NotDescending } else { Flaw::Missing },
                ));
            }
            let data = self.object(id, Kind::Commit)?;
            let commit = CommitRef::from_bytes(&data.data, gix::hash::Kind::Sha1)
                .map_err(|_| flaw(id, Flaw::Malformed))?;
            let people = commit.author().is_ok() && commit.committer().is_ok();
            if !people || data.data.contains(&0) || commit.time().is_err() {
                return Err(flaw(id, Flaw::Malformed));
            }
            if commit.parents.is_empty() {
                return Err(flaw(id, Flaw::NotDescending));
            }
            stack.extend(commit.parents());
            commits.push((id, commit.tree()));
        }
        if commits.is_empty() { Err(Error::Empty) } else { Ok(commits) }
    }

    /// Level by level, so that a depth cap needs no recursion and shared folders are read once per level at most.
    fn trees(&self, roots: HashSet<ObjectId>, seen: &mut HashSet<ObjectId>) -> Result<(), Error> {
        let mut level = roots;
        for _ in 0..=self.limits.depth {
            let mut next = HashSet::new();
            for id in level {
                if !self.pack.contains(&id) {
                    self.already_ours(id, Kind::Tree)?;
                    continue;
                }
                seen.insert(id);
                let data = self.object(id, Kind::Tree)?;
                for (kind, id) in tree::entries(&data.data).map_err(|reason| flaw(id, reason))? {
                    match kind {
                        tree::Kind::Tree => _ = next.insert(id),
                        tree::Kind::Blob => self.blob(id, seen)?,
                        tree::Kind::Submodule => {}
                    }
                }
            }
            if next.is_empty() {
                return Ok(());
            }
            level = next;
        }
        Err(Error::Limit { what: "nested folders", limit: self.limits.depth as u64 })
    }

    fn blob(&self, id: ObjectId, seen: &mut HashSet<ObjectId>) -> Result<(), Error> {
        if !self.pack.contains(&id) {
            return self.already_ours(id, Kind::Blob);
        }
        if seen.insert(id) {
            self.object(id, Kind::Blob)?;
        }
        Ok(())
    }

    fn already_ours(&self, id: ObjectId, kind: Kind) -> Result<(), Error> {
        // Git knows the empty tree without storing it.
        if id == ObjectId::empty_tree(gix::hash::Kind::Sha1) && kind == Kind::Tree {
            return Ok(());
        }
        match self.ours.try_find_header(id).map_err(store("looking an object up"))? {
            Some(header) if header.kind() == kind => Ok(()),
            Some(_) => Err(flaw(id, Flaw::Kind(name(kind)))),
            None => Err(flaw(id, Flaw::Missing)),
        }
    }

    /// Reads an object of the pack after its size is known to be bearable.
    fn object(&self, id: ObjectId, kind: Kind) -> Result<gix::Object<'_>, Error> {
        let header = self.repository.find_header(id).map_err(|_| flaw(id, Flaw::Malformed))?;
        if header.kind() != kind {
            return Err(flaw(id, Flaw::Kind(name(kind))));
        }
        cap("bytes in one object", header.size(), self.limits.object_bytes)?;
        self.bytes.set(self.bytes.get().saturating_add(header.size()));
        cap("bytes unpacked", self.bytes.get(), self.limits.total_bytes)?;
        self.repository.find_object(id).map_err(|_| flaw(id, Flaw::Malformed))
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    }
}

fn cap(what: &'static str, have: u64, limit: u64) -> Result<(), Error> {
    if have > limit { Err(Error::Limit { what, limit }) } else { Ok(()) }
}
