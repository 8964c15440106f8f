//! Finds and reads the files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Name, manifest};
use crate::ports::secrets::SecretData;

const MAX_FILES: usize = 1_000;
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 8;

/// A Secret that was found.
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: SecretData,
    /// Relative to the folder.
    pub(super) file: PathBuf,
    /// Why it may not be given out, whatever its annotations say.
    pub(super) refusal: Option<String>,
}

/// What a folder holds.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) found: Vec<Found>,
    /// What could not be read; no text holds a value.
    pub(super) problems: Vec<String>,
}

/// Reads a folder, given by its canonical path.
pub(super) fn read(root: &Path) -> Contents {
    let mut contents = Contents::default();
    let mut files = BTreeSet::new();
    walk(root, root, 0, &mut files, &mut contents.problems);
    for path in files {
        let file = path.strip_prefix(root).unwrap_or(&path).to_owned();
        match read_file(&path) {
            Ok((text, refusal)) => take(&text, &file, refusal.as_deref(), &mut contents),
            Err(error) => contents.problems.push(format!("{}: {error}", file.display())),
        }
    }
    contents
}

fn take(text: &str, file: &Path, refusal: Option<&str>, contents: &mut Contents) {
    match manifest::parse(text) {
        Ok(secrets) => contents.found.extend(secrets.into_iter().map(|secret| Found {
            name: secret.name,
            annotations: secret.annotations,
            data: secret.data,
            file: file.to_owned(),
            refusal: refusal.map(|why| format!("{} {why}", file.display())),
        })),
        Err(why) => contents.problems.push(format!("{}: {why}", file.display())),
    }
}

/// Collects the canonical paths of all files. A folder is entered once, so that links in a circle end.
fn walk(root: &Path, folder: &Path, depth: usize, files: &mut BTreeSet<PathBuf>, problems: &mut Vec<String>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return problems.push(format!("{}: {error}", folder.display())),
    };
    for entry in entries.flatten() {
        let shown = entry.path();
        let Ok(path) = shown.canonicalize() else { continue };
        if !path.starts_with(root) {
            problems.push(format!("{} leads out of the folder", shown.display()));
        } else if path.is_dir() {
            if depth + 1 < MAX_DEPTH {
                walk(root, &path, depth + 1, files, problems);
            } else {
                problems.push(format!("{} is more than {MAX_DEPTH} folders deep", shown.display()));
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            if files.len() >= MAX_FILES {
                return problems.push(format!("there are more than {MAX_FILES} files"));
            }
            files.insert(path);
        }
    }
}

/// Reads a file, and says why its secrets may not be given out.
fn read_file(path: &Path) -> io::Result<(Zeroizing<String>, Option<String>)> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let non_block = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(no_follow | non_block).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    let ours = rustix::process::geteuid().as_raw();
    let refusal = if mode & 0o077 != 0 {
        Some(format!("has mode {mode:o}; it must be readable by its owner only (chmod 600)"))
    } else if metadata.uid() != ours && metadata.uid() != 0 {
        Some(format!("belongs to user {}", metadata.uid()))
    } else {
        None
    };
    // of the whole size from the start, so that growing leaves no copies behind
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or(0) + 1));
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok((text, refusal))
}
