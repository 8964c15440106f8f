//! Which files differ between two trees. Bounded, because a tree of ten objects can have a billion paths.

use std::collections::BTreeMap;

use gix::{
    ObjectId, Repository,
    bstr::{BString, ByteSlice},
    objs::tree::EntryMode,
};

/// Longest path that is followed, bytes (`PATH_MAX` of Linux).
const MAX_PATH: usize = 4096;

/// Why two trees cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More differences than asked for.
    #[error("more than {limit} changed files or folders")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// A path longer than 4096 bytes.
    #[error("a path of {0} bytes")]
    PathTooLong(usize),
    /// A tree is missing or broken.
    #[error("tree {id}")]
    Tree {
        /// Which.
        id: ObjectId,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
}

/// A blob, symlink or submodule in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Its mode.
    pub(super) mode: EntryMode,
    /// Its object.
    pub(super) id: ObjectId,
}

/// One file that differs; at least one side is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    /// Path with `/`, from the root of the tree. Any bytes but NUL.
    pub(super) path: BString,
    /// Before; none when it was added.
    pub(super) old: Option<Leaf>,
    /// After; none when it was removed.
    pub(super) new: Option<Leaf>,
}

/// Differences from tree `old` (none: the empty tree) to tree `new`, sorted by path. `limit` counts files and folders.
pub(super) fn between(
    repository: &Repository,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    limit: usize,
) -> Result<Vec<Changed>, Error> {
    let mut found = Vec::new();
    let mut stack = vec![(BString::default(), old, new)];
    let mut visited = 0;
    while let Some((folder, old, new)) = stack.pop() {
        if old == new {
            continue;
        }
        visited += 1;
        for (name, (old, new)) in paired(entries(repository, old)?, entries(repository, new)?) {
            if old == new {
                continue;
            }
            let path = join(&folder, &name)?;
            let tree = |side: Option<Leaf>| side.filter(|leaf| leaf.mode.is_tree()).map(|leaf| leaf.id);
            let leaf = |side: Option<Leaf>| side.filter(|leaf| !leaf.mode.is_tree());
            if tree(old).or_else(|| tree(new)).is_some() {
                stack.push((path.clone(), tree(old), tree(new)));
            }
            if leaf(old).or_else(|| leaf(new)).is_some() {
                found.push(Changed { path, old: leaf(old), new: leaf(new) });
            }
            if found.len() + stack.len() + visited > limit {
                return Err(Error::TooMany { limit });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn join(folder: &BString, name: &BString) -> Result<BString, Error> {
    let path = if folder.is_empty() {
        name.clone()
    } else {
        [folder.as_bytes(), b"/", name.as_bytes()].concat().into()
    };
    if path.len() > MAX_PATH { Err(Error::PathTooLong(path.len())) } else { Ok(path) }
}

type Entries = BTreeMap<BString, Leaf>;

fn paired(old: Entries, new: Entries) -> BTreeMap<BString, (Option<Leaf>, Option<Leaf>)> {
    let mut both: BTreeMap<_, _> = old.into_iter().map(|(name, leaf)| (name, (Some(leaf), None))).collect();
    for (name, leaf) in new {
        both.entry(name).or_default().1 = Some(leaf);
    }
    both
}

fn entries(repository: &Repository, tree: Option<ObjectId>) -> Result<Entries, Error> {
    let Some(id) = tree else { return Ok(Entries::new()) };
    let fail = |source| Error::Tree { id, source };
    let tree = repository.find_tree(id).map_err(fail)?;
    tree.iter()
        .map(|entry| {
            let entry = entry.map_err(fail)?;
            Ok((entry.filename().to_owned(), Leaf { mode: entry.mode(), id: entry.object_id() }))
        })
        .collect()
}
