//! The files of a commit, and what changed between two commits. Trees are read, blobs are not.

use std::collections::{BTreeMap, HashMap};

use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryMode;

use super::id::{BlobId, CommitId};
use super::{Error, LimitKind, Limits, Repository, Selection};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link. Never followed; its content is its target.
    Symlink,
    /// A commit of another repository. There is no content here.
    Submodule,
    /// A file whose name is not UTF-8, has control characters, or would leave its folder in a checkout (`..`, `.git`).
    /// The path shown is made printable.
    BadName,
}

/// A path and its content in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top of the repository, with slashes.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its content; of a submodule, the other repository's commit.
    pub blob: BlobId,
    /// Bytes of the content; 0 for a submodule.
    pub size: u64,
}

/// A difference between two commits, from the old one's point of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The path is new.
    Added(Entry),
    /// The content or kind differs.
    Modified {
        /// Before.
        old: Entry,
        /// After.
        new: Entry,
    },
    /// The path is gone.
    Removed(Entry),
    /// The same content moved from one path to another.
    Renamed {
        /// Before.
        old: Entry,
        /// After.
        new: Entry,
    },
}

impl Change {
    /// The path after the change; of a removed file, the path it had.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Added(entry)
            | Self::Removed(entry)
            | Self::Modified { new: entry, .. }
            | Self::Renamed { new: entry, .. } => &entry.path,
        }
    }
}

impl Repository {
    /// All selected files of a commit, by path.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the commit or the selection's subtree, [`Error::LimitExceeded`].
    pub fn files(
        &self,
        commit: CommitId,
        selection: &Selection,
        limits: &Limits,
    ) -> Result<Vec<Entry>, Error> {
        let mut walk = Walk::new(self, selection, limits);
        let tree = walk.subtree(commit)?.ok_or_else(|| walk.no_subtree())?;
        walk.compare(&mut BString::default(), None, Some(tree), 0)?;
        Ok(walk.found.into_values().filter_map(|(_, new)| new).collect())
    }

    /// What differs between two commits among the selected files, by path. Files that are equal cost nothing.
    ///
    /// # Errors
    /// As [`Self::files`]; the subtree may be missing on one side.
    pub fn diff(
        &self,
        from: CommitId,
        to: CommitId,
        selection: &Selection,
        limits: &Limits,
    ) -> Result<Vec<Change>, Error> {
        let mut walk = Walk::new(self, selection, limits);
        let (old, new) = (walk.subtree(from)?, walk.subtree(to)?);
        if old.is_none() && new.is_none() {
            return Err(walk.no_subtree());
        }
        walk.compare(&mut BString::default(), old, new, 0)?;
        Ok(changes(walk.found))
    }

    /// The file at `path` in a commit, if there is one.
    ///
    /// # Errors
    /// When the commit or a tree on the way cannot be read.
    pub fn file(&self, commit: CommitId, path: &str, limits: &Limits) -> Result<Option<Entry>, Error> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let selection = Selection::new::<&str>(folder, &[], &[])?;
        let walk = Walk::new(self, &selection, limits);
        let Some(tree) = walk.subtree(commit)? else { return Ok(None) };
        match walk.read(Some(tree))?.get(name.as_bytes().as_bstr()) {
            Some((mode, id)) if !mode.is_tree() => {
                walk.entry(path.as_bytes().as_bstr(), *mode, *id).map(Some)
            }
            _ => Ok(None),
        }
    }
}

type Tree = BTreeMap<BString, (EntryMode, gix::ObjectId)>;

/// Compares two trees; a listing is a comparison with nothing.
struct Walk<'a> {
    repository: &'a Repository,
    local: gix::Repository,
    selection: &'a Selection,
    limits: &'a Limits,
    /// What differs, old and new, by path.
    found: BTreeMap<String, (Option<Entry>, Option<Entry>)>,
}

impl<'a> Walk<'a> {
    fn new(repository: &'a Repository, selection: &'a Selection, limits: &'a Limits) -> Self {
        Self { repository, local: repository.local(), selection, limits, found: BTreeMap::new() }
    }

    /// The tree below which files count, if the commit has it.
    fn subtree(&self, commit: CommitId) -> Result<Option<gix::ObjectId>, Error> {
        let mut id = self.repository.commit(commit)?.tree.get();
        for part in self.selection.under() {
            match self.read(Some(id))?.get(part.as_bytes().as_bstr()) {
                Some((mode, below)) if mode.is_tree() => id = *below,
                _ => return Ok(None),
            }
        }
        Ok(Some(id))
    }

    fn no_subtree(&self) -> Error {
        let what = format!("folder {:?}", self.selection.under_text());
        Error::NotFound { what, place: self.repository.place().to_owned() }
    }

    fn read(&self, id: Option<gix::ObjectId>) -> Result<Tree, Error> {
        let Some(id) = id else { return Ok(Tree::new()) };
        let what = || format!("tree {id}");
        let tree = self.local.find_tree(id).map_err(|error| self.repository.missing(what(), error))?;
        let mut entries = Tree::new();
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.repository.corrupt(what(), Some(error)))?;
            // A name twice would let a reviewer see one file and us read the other.
            if entries.insert(entry.filename().to_owned(), (entry.mode(), entry.object_id())).is_some() {
                return Err(self.repository.corrupt(what(), None));
            }
            if entries.len() > self.limits.files {
                return Err(self.exceeded(LimitKind::Files, self.limits.files, &BString::default()));
            }
        }
        Ok(entries)
    }

    fn compare(
        &mut self,
        below: &mut BString,
        old: Option<gix::ObjectId>,
        new: Option<gix::ObjectId>,
        depth: usize,
    ) -> Result<(), Error> {
        if old == new {
            return Ok(());
        }
        if depth > self.limits.tree_depth {
            return Err(self.exceeded(LimitKind::TreeDepth, self.limits.tree_depth, below));
        }
        let (mut old, new) = (self.read(old)?, self.read(new)?);
        let mut pairs: Vec<_> =
            new.into_iter().map(|(name, new)| (old.remove(&name), Some(new), name)).collect();
        pairs.extend(old.into_iter().map(|(name, old)| (Some(old), None, name)));
        for (old, new, name) in pairs {
            if old == new {
                continue;
            }
            let length = below.len();
            if length > 0 {
                below.push(b'/');
            }
            below.extend_from_slice(&name);
            self.note(below, old, new)?;
            let tree = |side: Option<(EntryMode, gix::ObjectId)>| {
                side.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id)
            };
            self.compare(below, tree(old), tree(new), depth + 1)?;
            below.truncate(length);
        }
        Ok(())
    }

    /// Records a difference at one path, as far as it is not about folders.
    fn note(
        &mut self,
        below: &BString,
        old: Option<(EntryMode, gix::ObjectId)>,
        new: Option<(EntryMode, gix::ObjectId)>,
    ) -> Result<(), Error> {
        let mut path = BString::from(self.selection.under().join("/"));
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(below);
        if path.len() > self.limits.path_bytes {
            return Err(self.exceeded(LimitKind::PathBytes, self.limits.path_bytes, &path));
        }
        let shown = printable(path.as_bstr());
        let file = |side: Option<(EntryMode, gix::ObjectId)>| side.filter(|(mode, _)| !mode.is_tree());
        let (old, new) = (file(old), file(new));
        if (old.is_none() && new.is_none()) || !self.selection.selects(&shown) {
            return Ok(());
        }
        if self.found.len() >= self.limits.files {
            return Err(self.exceeded(LimitKind::Files, self.limits.files, &BString::default()));
        }
        let entry = |side: Option<(EntryMode, gix::ObjectId)>| {
            side.map(|(mode, id)| self.entry(path.as_bstr(), mode, id)).transpose()
        };
        let sides = (entry(old)?, entry(new)?);
        self.found.insert(shown, sides);
        Ok(())
    }

    fn entry(&self, path: &BStr, mode: EntryMode, id: gix::ObjectId) -> Result<Entry, Error> {
        let blob = BlobId::new(id);
        let kind = if mode.is_commit() {
            EntryKind::Submodule
        } else if path.split(|byte| *byte == b'/').any(bad_name) {
            EntryKind::BadName
        } else if mode.is_link() {
            EntryKind::Symlink
        } else if mode.is_executable() {
            EntryKind::Executable
        } else {
            EntryKind::File
        };
        let size = match kind {
            EntryKind::Submodule => 0,
            _ => self.repository.blob_size(&self.local, blob)?,
        };
        Ok(Entry { path: printable(path), kind, blob, size })
    }

    fn exceeded(&self, what: LimitKind, limit: usize, below: &BString) -> Error {
        let place = if below.is_empty() {
            self.repository.place().to_owned()
        } else {
            printable(below.as_bstr()).chars().take(120).collect()
        };
        Error::LimitExceeded { what, limit: limit as u64, place }
    }
}

fn bad_name(name: &[u8]) -> bool {
    name.is_empty()
        || matches!(name, b"." | b"..")
        || name.eq_ignore_ascii_case(b".git")
        || name.to_str().map_or(true, |name| name.chars().any(char::is_control))
}

fn printable(path: &BStr) -> String {
    path.to_str_lossy()
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Pairs what was removed with what was added under the same content: the first such path, by name.
fn changes(found: BTreeMap<String, (Option<Entry>, Option<Entry>)>) -> Vec<Change> {
    let mut gone: HashMap<BlobId, Vec<Entry>> = HashMap::new();
    for side in found.values().rev() {
        if let (Some(old), None) = side {
            gone.entry(old.blob).or_default().push(old.clone());
        }
    }
    let mut changes = Vec::with_capacity(found.len());
    let mut removed = Vec::new();
    for sides in found.into_values() {
        match sides {
            (None, Some(new)) => match gone.get_mut(&new.blob).and_then(Vec::pop) {
                Some(old) => changes.push(Change::Renamed { old, new }),
                None => changes.push(Change::Added(new)),
            },
            (Some(old), Some(new)) => changes.push(Change::Modified { old, new }),
            (Some(old), None) => removed.push(old),
            (None, None) => {}
        }
    }
    let left: std::collections::HashSet<String> =
        gone.into_values().flatten().map(|entry| entry.path).collect();
    changes.extend(removed.into_iter().filter(|entry| left.contains(&entry.path)).map(Change::Removed));
    changes.sort_by(|a, b| a.path().cmp(b.path()));
    changes
}
