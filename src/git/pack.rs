//! Which objects another repository lacks, and a pack of just these.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    io::Write,
};

use gix::{ObjectId, Repository, objs::Kind};
use gix_pack::data::{Version, output};

/// Caps of one outgoing pack.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Commits looked at, sent or not.
    pub commits: usize,
    /// Objects sent.
    pub objects: usize,
    /// Bytes of all objects before compression.
    pub bytes: u64,
}

impl Default for Limits {
    /// Far above one run's work, far below what would fill a server.
    fn default() -> Self {
        Self { commits: 1_000_000, objects: 500_000, bytes: 2 << 30 }
    }
}

/// Why a pack cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The history below this commit was never fetched, so what the other side lacks is unknown.
    #[error("commit {commit} is at the end of a shallow history: fetch deeper first")]
    ShallowBoundary {
        /// The commit whose parents are not here.
        commit: ObjectId,
    },
    /// One of [`Limits`].
    #[error("more than {limit} {what} in one pack")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An object is missing or broken.
    #[error("object {id}")]
    Object {
        /// Which.
        id: ObjectId,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
    /// The list of shallow commits cannot be read.
    #[error("reading the shallow boundary")]
    Shallow(#[source] gix::Error),
    /// The pack could not be written out.
    #[error("writing the pack")]
    Write(#[source] gix::Error),
}

fn object(id: ObjectId) -> impl FnOnce(gix::Error) -> Error {
    move |source| Error::Object { id, source }
}

/// What a receiver that has `known` lacks of `tips`.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Commits, newest first.
    pub(super) commits: Vec<ObjectId>,
    /// All objects, the commits included.
    pub(super) objects: Vec<ObjectId>,
}

/// Walks from `tips` down to `known` and compares each new commit's tree with its parents' only where they differ,
/// so that the work follows the size of the change and not of the repository.
pub(super) fn missing(
    repository: &Repository,
    tips: &[ObjectId],
    known: &HashSet<ObjectId>,
    limits: &Limits,
) -> Result<Missing, Error> {
    let commits = new_commits(repository, tips, known, limits)?;
    let mut trees =
        Trees { repository, seen: commits.iter().copied().collect(), found: commits.clone(), limits };
    for id in &commits {
        let commit = repository.find_commit(*id).map_err(object(*id))?;
        let tree = commit.tree_id().map_err(object(*id))?.detach();
        let parents = commit
            .parent_ids()
            .filter_map(|parent| repository.find_commit(parent).ok()?.tree_id().ok().map(gix::Id::detach))
            .collect();
        trees.add(tree, parents)?;
    }
    Ok(Missing { commits, objects: trees.found })
}

/// True when `ancestor` is reachable from `commit`. A history that ends (shallow) before it counts as not.
/// Nothing is cut off by time: a clock that ran backwards must not turn into a refused push.
pub(super) fn descends(
    repository: &Repository,
    commit: ObjectId,
    ancestor: ObjectId,
    limits: &Limits,
) -> Result<bool, Error> {
    let mut seen = HashSet::from([commit]);
    let mut queue = BinaryHeap::from([(i64::MAX, commit)]);
    while let Some((_, id)) = queue.pop() {
        if id == ancestor {
            return Ok(true);
        }
        for parent in parents(repository, id)? {
            if parent == ancestor {
                return Ok(true);
            }
            if let (true, Some(time)) = (seen.insert(parent), time(repository, parent)) {
                queue.push((time, parent));
            }
        }
        cap("commits", seen.len(), limits.commits)?;
    }
    Ok(false)
}

fn cap(what: &'static str, have: usize, limit: usize) -> Result<(), Error> {
    if have > limit { Err(Error::Limit { what, limit: limit as u64 }) } else { Ok(()) }
}

fn time(repository: &Repository, id: ObjectId) -> Option<i64> {
    repository.find_commit(id).ok()?.time().ok().map(|time| time.seconds)
}

fn parents(repository: &Repository, id: ObjectId) -> Result<Vec<ObjectId>, Error> {
    let commit = repository.find_commit(id).map_err(object(id))?;
    Ok(commit.parent_ids().map(gix::Id::detach).collect())
}

/// Commits reachable from `tips` and not from `known`, newest first: both colours walk down by commit time together,
/// until only known ones are left.
fn new_commits(
    repository: &Repository,
    tips: &[ObjectId],
    known: &HashSet<ObjectId>,
    limits: &Limits,
) -> Result<Vec<ObjectId>, Error> {
    let shallow: HashSet<ObjectId> = repository
        .shallow_commits()
        .map_err(Error::Shallow)?
        .map(|list| list.iter().copied().collect())
        .unwrap_or_default();
    let mut walk = Walk::default();
    for id in known {
        walk.reach(repository, *id, true)?;
    }
    for id in tips {
        walk.reach(repository, *id, false)?;
    }
    let mut order = Vec::new();
    while let Some((id, is_known)) = walk.next() {
        if !is_known {
            order.push(id);
        }
        if !shallow.contains(&id) {
            for parent in parents(repository, id)? {
                walk.reach(repository, parent, is_known)?;
            }
        }
        cap("commits", walk.known.len(), limits.commits)?;
    }
    order.retain(|id| !walk.known[id]);
    match order.iter().find(|id| shallow.contains(*id)) {
        Some(commit) => Err(Error::ShallowBoundary { commit: *commit }),
        None => Ok(order),
    }
}

/// Commits met so far, and those still to be looked at.
#[derive(Default)]
struct Walk {
    /// True when the receiver has it.
    known: HashMap<ObjectId, bool>,
    queue: BinaryHeap<(i64, ObjectId, bool)>,
    /// Entries of the queue that were new when they were met.
    open: usize,
}

impl Walk {
    /// Queues a commit when it is met first, and once more when a new one turns out to be known.
    /// A known commit that is not here needs no looking at; a new one must be here.
    fn reach(&mut self, repository: &Repository, id: ObjectId, known: bool) -> Result<(), Error> {
        if matches!(self.known.get(&id), Some(before) if *before || !known) {
            return Ok(());
        }
        let time = match repository.find_commit(id).and_then(|commit| commit.time()) {
            Ok(time) => time.seconds,
            Err(_) if known => i64::MIN,
            Err(source) => return Err(Error::Object { id, source }),
        };
        self.known.insert(id, known);
        if time > i64::MIN {
            self.queue.push((time, id, known));
            self.open += usize::from(!known);
        }
        Ok(())
    }

    /// The next commit, newest first; none when only known ones are left.
    fn next(&mut self) -> Option<(ObjectId, bool)> {
        while self.open > 0 {
            let (_, id, known) = self.queue.pop()?;
            self.open -= usize::from(!known);
            // What was recoloured while it waited is in the queue a second time, as known.
            if known || !self.known[&id] {
                return Some((id, known));
            }
        }
        None
    }
}

struct Trees<'a> {
    repository: &'a Repository,
    seen: HashSet<ObjectId>,
    found: Vec<ObjectId>,
    limits: &'a Limits,
}

/// An entry of a parent's tree: what it is called, and whether it is a folder.
type Entries = HashMap<Vec<u8>, (ObjectId, bool)>;

impl Trees<'_> {
    /// Adds `tree` and what is below it and in none of the `parents` at the same path. The stack is on the heap:
    /// how deep a tree goes is not ours to decide.
    fn add(&mut self, tree: ObjectId, parents: Vec<ObjectId>) -> Result<(), Error> {
        let mut stack = vec![(tree, parents)];
        while let Some((tree, parents)) = stack.pop() {
            if parents.contains(&tree) || !self.seen.insert(tree) {
                continue;
            }
            self.take(tree)?;
            let parents = parents.iter().map(|id| self.entries(*id)).collect::<Result<Vec<Entries>, _>>()?;
            for (name, (id, is_tree)) in self.entries(tree)? {
                let same: Vec<_> = parents.iter().filter_map(|entries| entries.get(&name)).copied().collect();
                if same.iter().any(|(other, _)| *other == id) {
                    continue;
                }
                if is_tree {
                    stack.push((id, same.into_iter().filter(|(_, tree)| *tree).map(|(id, _)| id).collect()));
                } else if self.seen.insert(id) {
                    self.take(id)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, id: ObjectId) -> Result<(), Error> {
        self.found.push(id);
        cap("objects", self.found.len(), self.limits.objects)
    }

    /// Submodule commits are left out: they live in another repository.
    fn entries(&self, id: ObjectId) -> Result<Entries, Error> {
        let tree = self.repository.find_tree(id).map_err(object(id))?;
        let mut entries = Entries::new();
        for entry in tree.iter() {
            let entry = entry.map_err(object(id))?;
            if !entry.mode().is_commit() {
                entries.insert(entry.filename().to_vec(), (entry.object_id(), entry.mode().is_tree()));
            }
        }
        Ok(entries)
    }
}

/// Writes a version 2 pack of whole objects (no deltas: what a run changes is small). Returns the bytes before compression.
pub(super) fn write(
    repository: &Repository,
    objects: &[ObjectId],
    out: &mut dyn Write,
    limits: &Limits,
) -> Result<u64, Error> {
    let count = u32::try_from(objects.len())
        .map_err(|_| Error::Limit { what: "objects", limit: u64::from(u32::MAX) })?;
    measure(repository, objects, limits)?;
    let mut total = 0_u64;
    let entries = objects.iter().map(|id| {
        let object = repository.find_object(*id)?;
        total += object.data.len() as u64;
        entry(*id, object.kind, &object.data).map(|entry| vec![entry])
    });
    let mut pack =
        output::bytes::FromEntriesIter::new(entries, out, count, Version::V2, gix::hash::Kind::Sha1);
    for written in pack.by_ref() {
        written.map_err(Error::Write)?;
    }
    drop(pack);
    Ok(total)
}

/// Refuses before the first byte goes out, because a half-sent pack is a broken connection to the other side.
fn measure(repository: &Repository, objects: &[ObjectId], limits: &Limits) -> Result<(), Error> {
    let mut total = 0_u64;
    for id in objects {
        total = total.saturating_add(repository.find_header(*id).map_err(object(*id))?.size());
        if total > limits.bytes {
            return Err(Error::Limit { what: "bytes", limit: limits.bytes });
        }
    }
    Ok(())
}

fn entry(id: ObjectId, kind: Kind, data: &[u8]) -> gix::Result<output::Entry> {
    let count = output::Count { id, entry_pack_location: output::count::PackLocation::NotLookedUp };
    let data = gix::objs::Data { kind, object_hash: gix::hash::Kind::Sha1, data };
    output::Entry::from_data(&count, &data, gix::zlib::Compression::DEFAULT)
}
