//! The files of a work tree as a Git tree: tracked ones as they are now, new ones unless ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use gix::{
    ObjectId, Repository,
    bstr::{BString, ByteSlice},
    objs::tree::{EntryKind, EntryMode},
};

use super::{collect::Limits, filter::Clean, ignore::Rules, view};
use crate::git::changes::{self, Leaf};

/// Longest `.gitignore` or `.gitattributes` that is read, bytes.
const MAX_RULES: u64 = 1 << 20;

/// Longest list of what was left out.
const MAX_SKIPPED: usize = 100;

/// A file that is not in the result, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// Its path; bytes outside UTF-8 replaced.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A work tree as a Git tree.
pub(super) struct Snapshot {
    pub(super) tree: ObjectId,
    pub(super) skipped: Vec<Skipped>,
}

/// Reads the work tree at `root`; `head` is the tree that tells which files are tracked. Blobs and trees go to `repository`.
pub(super) fn take(
    repository: &Repository,
    root: &Path,
    head: Option<ObjectId>,
    exclude: &[String],
    limits: &Limits,
) -> Result<Snapshot, super::CollectError> {
    let tracked = changes::between(repository, None, head, limits.files)?;
    let tracked: BTreeMap<BString, Leaf> =
        tracked.into_iter().filter_map(|file| Some((file.path, file.new?))).collect();
    let mut walk = Walk {
        repository,
        limits,
        rules: Rules::new(exclude),
        clean: Clean::new(),
        tracked: &tracked,
        found: BTreeMap::new(),
        kept: BTreeSet::new(),
        skipped: Vec::new(),
        files: 0,
        bytes: 0,
    };
    walk.folder(root, &BString::default(), false, 0)?;
    let (found, kept, skipped) = (walk.found, walk.kept, walk.skipped);
    let tree = write(repository, head, &tracked, &found, &kept)?;
    Ok(Snapshot { tree, skipped })
}

/// Starts from the old tree, so that the work follows the number of changes.
fn write(
    repository: &Repository,
    head: Option<ObjectId>,
    tracked: &BTreeMap<BString, Leaf>,
    found: &BTreeMap<BString, Leaf>,
    kept: &BTreeSet<BString>,
) -> Result<ObjectId, super::CollectError> {
    let fail = |source| super::CollectError::Store { doing: "writing the work tree's files", source };
    let start = head.unwrap_or_else(|| ObjectId::empty_tree(gix::hash::Kind::Sha1));
    let mut editor = repository.edit_tree(start).map_err(fail)?;
    for path in tracked.keys().filter(|path| !found.contains_key(*path) && !kept.contains(*path)) {
        editor.remove(path.as_bstr()).map_err(fail)?;
    }
    for (path, leaf) in found.iter().filter(|(path, leaf)| tracked.get(*path) != Some(leaf)) {
        editor.upsert(path.as_bstr(), leaf.mode.kind(), leaf.id).map_err(fail)?;
    }
    Ok(editor.write().map_err(fail)?.detach())
}

struct Walk<'a> {
    repository: &'a Repository,
    limits: &'a Limits,
    rules: Rules,
    clean: Clean,
    tracked: &'a BTreeMap<BString, Leaf>,
    found: BTreeMap<BString, Leaf>,
    /// Tracked files that stay as they were in the last commit.
    kept: BTreeSet<BString>,
    skipped: Vec<Skipped>,
    files: usize,
    bytes: u64,
}

impl Walk<'_> {
    /// `ignored`: the folder itself is ignored, so that only tracked files count in it.
    fn folder(
        &mut self,
        folder: &Path,
        path: &BString,
        ignored: bool,
        depth: usize,
    ) -> Result<(), super::CollectError> {
        if depth > self.limits.depth {
            self.skip(path, "folders nested too deep");
            return Ok(());
        }
        let Ok(entries) = fs::read_dir(folder) else {
            self.skip(path, "the folder cannot be read");
            return Ok(());
        };
        let here = Path::new(OsStr::from_bytes(path));
        self.rules.enter(&small(&folder.join(".gitignore")), here);
        self.clean.enter(&small(&folder.join(".gitattributes")), here);
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            self.files += 1;
            if self.files > self.limits.files {
                return Err(super::CollectError::TooManyFiles { limit: self.limits.files });
            }
            self.entry(folder, path, &name, ignored, depth)?;
        }
        self.clean.leave();
        self.rules.leave();
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &Path,
        parent: &BString,
        name: &OsStr,
        ignored: bool,
        depth: usize,
    ) -> Result<(), super::CollectError> {
        if parent.is_empty() && name == ".git" {
            return Ok(());
        }
        let mut path = parent.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let file = folder.join(name);
        let Ok(found) = fs::symlink_metadata(&file) else { return Ok(()) };
        let tracked = self.tracked.get(&path).copied();
        let mode = found.is_symlink().then_some(gix::validate::path::component::Mode::Symlink);
        let options =
            gix::validate::path::component::Options { protect_windows: false, ..Default::default() };
        if gix::validate::path::component(name.as_bytes().as_bstr(), mode, options).is_err() {
            self.skip(&path, "not a safe file name");
            return Ok(());
        }
        let ignored = ignored || self.rules.excluded(path.as_bstr(), found.is_dir());
        if found.is_dir() {
            return self.subfolder(&file, &path, tracked, ignored, depth);
        }
        if ignored && tracked.is_none() {
            return Ok(());
        }
        if found.is_symlink() {
            return self.symlink(&file, path);
        }
        if !found.is_file() {
            self.skip(&path, "neither a file nor a symlink");
            return Ok(());
        }
        self.file(&file, path, tracked, found.permissions().mode() & 0o100 != 0)
    }

    fn subfolder(
        &mut self,
        folder: &Path,
        path: &BString,
        tracked: Option<Leaf>,
        ignored: bool,
        depth: usize,
    ) -> Result<(), super::CollectError> {
        if tracked.is_some_and(|leaf| leaf.mode.is_commit()) {
            self.kept.insert(path.clone());
            return Ok(());
        }
        let mut below = path.clone();
        below.push(b'/');
        let has_tracked =
            self.tracked.range(below.clone()..).next().is_some_and(|(first, _)| first.starts_with(&below));
        if ignored && !has_tracked {
            return Ok(());
        }
        if fs::symlink_metadata(folder.join(".git")).is_ok() && !has_tracked {
            self.skip(path, "a repository of its own");
            return Ok(());
        }
        self.folder(folder, path, ignored, depth + 1)
    }

    fn symlink(&mut self, file: &Path, path: BString) -> Result<(), super::CollectError> {
        if let Ok(target) = fs::read_link(file) {
            return self.add(path, EntryKind::Link.into(), target.as_os_str().as_bytes());
        }
        self.skip(&path, "the symlink cannot be read");
        Ok(())
    }

    fn file(
        &mut self,
        file: &Path,
        path: BString,
        tracked: Option<Leaf>,
        executable: bool,
    ) -> Result<(), super::CollectError> {
        let mut content = Vec::new();
        let limit = self.limits.file_bytes.min(self.limits.total_bytes.saturating_sub(self.bytes));
        let read = view::open(file).and_then(|file| file.take(limit + 1).read_to_end(&mut content));
        if read.is_err() {
            self.skip(&path, "the file cannot be read");
            return Ok(());
        }
        if content.len() as u64 > limit {
            self.skip(&path, "too large");
            return Ok(());
        }
        self.bytes += content.len() as u64;
        let stored = tracked.filter(|leaf| leaf.mode.is_blob() && content.contains(&b'\r'));
        let stored = stored.and_then(|leaf| Some(self.repository.find_blob(leaf.id).ok()?.detach().data));
        let fail = |source| super::CollectError::Store { doing: "converting a file", source };
        let content = self.clean.clean(path.as_bstr(), content, stored).map_err(fail)?;
        let kind = if executable { EntryKind::BlobExecutable } else { EntryKind::Blob };
        self.add(path, kind.into(), &content)
    }

    /// Writes only what the repository does not have.
    fn add(&mut self, path: BString, mode: EntryMode, content: &[u8]) -> Result<(), super::CollectError> {
        let fail = |source| super::CollectError::Store { doing: "writing a file", source };
        let id = self.repository.write_blob(content).map_err(fail)?.detach();
        self.found.insert(path, Leaf { mode, id });
        Ok(())
    }

    /// A tracked file that cannot be taken stays as it was: leaving it out would say that the agent removed it.
    fn skip(&mut self, path: &BString, reason: &str) {
        let mut below = path.clone();
        below.push(b'/');
        let inside = self.tracked.range(below.clone()..).take_while(|(other, _)| other.starts_with(&below));
        self.kept.extend(inside.map(|(other, _)| other.clone()));
        if self.tracked.contains_key(path) {
            self.kept.insert(path.clone());
        }
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(Skipped { path: path.to_str_lossy().into_owned(), reason: reason.to_owned() });
        }
    }
}

fn small(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    match view::open(path).and_then(|file| file.take(MAX_RULES).read_to_end(&mut content)) {
        Ok(_) => content,
        Err(_) => Vec::new(),
    }
}
