//! A repository that shares nothing with an untrusted `.git` but its objects: our configuration, our references.

use std::{
    fs,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use gix::ObjectId;

/// Files and folders below `.git/objects` that are looked at.
const MAX_ENTRIES: usize = 2_000_000;

/// Longest file other than objects that is read, bytes (`packed-refs` of 100,000 references).
const MAX_FILE: u64 = 16 << 20;

/// Symbolic references that are followed.
const MAX_HOPS: usize = 5;

/// Why a `.git` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none.
    Missing,
    /// It is there, and this is wrong with it.
    Broken(String),
}

fn broken<T>(reason: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable::Broken(reason.into()))
}

/// What is taken from an untrusted `.git`.
pub(super) struct View {
    /// A bare repository of ours that borrows the objects.
    pub(super) repository: crate::git::Repository,
    /// The commit that `HEAD` stands for; none for a branch without commits.
    pub(super) head: Option<ObjectId>,
}

impl View {
    /// Looks at `git_dir` and makes the view in the empty folder `scratch`.
    pub(super) fn open(git_dir: &Path, scratch: &Path) -> Result<Self, Unusable> {
        match fs::symlink_metadata(git_dir) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => return broken(".git is a symlink"),
            Ok(_) => return broken(".git is not a folder"),
            Err(_) => return Err(Unusable::Missing),
        }
        for absent in ["commondir", "objects/info/alternates", "objects/info/http-alternates", "reftable"] {
            if fs::symlink_metadata(git_dir.join(absent)).is_ok() {
                return broken(format!(".git/{absent} points elsewhere or is not supported"));
            }
        }
        only_files_and_folders(&git_dir.join("objects"))?;
        let head = head(git_dir)?;
        let shallow = read(git_dir, "shallow")?.unwrap_or_default();
        if !shallow.lines().all(|line| ObjectId::from_hex(line.trim_end().as_bytes()).is_ok()) {
            return broken(".git/shallow is malformed");
        }
        let repository = borrow(git_dir, scratch, &shallow)
            .or_else(|error| broken(format!("its objects cannot be opened: {error}")))?;
        Ok(Self { repository, head })
    }
}

fn borrow(
    git_dir: &Path,
    scratch: &Path,
    shallow: &str,
) -> Result<crate::git::Repository, Box<dyn std::error::Error>> {
    let objects = git_dir.canonicalize()?.join("objects");
    gix::init_bare(scratch)?;
    let mut alternates = objects.into_os_string().into_encoded_bytes();
    alternates.push(b'\n');
    fs::write(scratch.join("objects/info/alternates"), alternates)?;
    if !shallow.is_empty() {
        fs::write(scratch.join("shallow"), shallow)?;
    }
    Ok(crate::git::Repository::open_git_dir(scratch, "the agent's repository".to_owned())?)
}

/// Symlinks would lead out of the work tree, and opening a FIFO would wait for ever.
fn only_files_and_folders(root: &Path) -> Result<(), Unusable> {
    let mut stack = vec![root.to_owned()];
    let mut count = 0;
    while let Some(folder) = stack.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { return broken(".git/objects cannot be listed") };
        for entry in entries {
            let Ok((entry, kind)) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))
            else {
                return broken(".git/objects cannot be listed");
            };
            count += 1;
            if count > MAX_ENTRIES {
                return broken(format!(".git/objects has more than {MAX_ENTRIES} files"));
            }
            if kind.is_dir() {
                stack.push(entry.path());
            } else if !kind.is_file() {
                return broken(format!("{} is neither a file nor a folder", shown(&entry.path(), root)));
            }
        }
    }
    Ok(())
}

fn shown(path: &Path, root: &Path) -> String {
    format!(".git/objects/{}", path.strip_prefix(root).unwrap_or(path).display())
}

fn head(git_dir: &Path) -> Result<Option<ObjectId>, Unusable> {
    let Some(mut text) = read(git_dir, "HEAD")? else { return broken(".git/HEAD is missing") };
    for _ in 0..MAX_HOPS {
        let line = text.trim_end();
        let Some(name) = line.strip_prefix("ref:").map(str::trim) else {
            return match ObjectId::from_hex(line.as_bytes()) {
                Ok(id) => Ok(Some(id)),
                Err(_) => broken(".git/HEAD is malformed"),
            };
        };
        if !name.starts_with("refs/") || gix::validate::reference::name(name.into()).is_err() {
            return broken(".git/HEAD names no reference");
        }
        text = match read(git_dir, name)? {
            Some(text) => text,
            None => match packed(git_dir, name)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
    }
    broken(".git/HEAD is a chain of references")
}

fn packed(git_dir: &Path, name: &str) -> Result<Option<String>, Unusable> {
    let text = read(git_dir, "packed-refs")?.unwrap_or_default();
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(_, other)| *other == name);
    Ok(found.map(|(id, _)| id.to_owned()))
}

/// Reads a small text file; no part of its path may be a symlink.
fn read(git_dir: &Path, name: &str) -> Result<Option<String>, Unusable> {
    let mut path = PathBuf::from(git_dir);
    for part in Path::new(name) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => return broken(format!(".git/{name} is a symlink")),
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
    if path.is_dir() {
        return Ok(None);
    }
    let mut text = String::new();
    match open(&path).map(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
        Ok(Ok(_)) => Ok(Some(text)),
        _ => broken(format!(".git/{name} cannot be read")),
    }
}

/// Opens a regular file for reading: never through a symlink, never waiting for the other end of a FIFO.
pub(super) fn open(path: &Path) -> std::io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open flags are small numbers");
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}
