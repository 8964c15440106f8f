//! The files that a verb looks at: those of a folder or of a commit.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    git::{self, EntryKind, Limits, Repository, Selection},
    manifest::{Change, Desired, Files, MAX_FILE_BYTES, MAX_PROMPT_BYTES, Scope},
    names::{CommitId, RepoPath},
    repositories::Allowed,
};

/// Most files of a folder.
const MAX_FILES: usize = 100_000;

/// Which files count, and for which namespaces.
#[derive(Debug, clap::Args)]
pub(super) struct Choice {
    /// The repository, or a folder in it.
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub(super) repository: PathBuf,
    /// Only files below this folder of the repository.
    #[arg(short, long, value_name = "PATH", default_value = "")]
    pub(super) path: String,
    /// The namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Namespaces that files may name, as patterns; default: any.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', default_value = "*")]
    pub(super) allowed_namespaces: Vec<String>,
    /// Code repositories that files may name, as the patterns of checks.allowedRepositories; default: any.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(super) allowed_repositories: Option<Vec<String>>,
}

impl Choice {
    /// The local repository.
    pub(super) fn open(&self) -> anyhow::Result<Repository> {
        Ok(Repository::open(&self.repository)?)
    }

    /// What a folder asks for. Names in it are not followed out of it.
    pub(super) fn folder(&self, top: &Path) -> anyhow::Result<Desired> {
        let mut files = Files::new(self.scope()?);
        let mut paths = Vec::new();
        walk(top, &top.join(&self.path), &mut paths)?;
        for path in paths {
            let bytes = read(top, &path, MAX_FILE_BYTES).with_context(|| format!("read {path}"))?;
            files.update([Change::Written { path, blob: String::new(), bytes }]);
        }
        Ok(files.desired(|path| read(top, path, MAX_PROMPT_BYTES).ok()))
    }

    /// What a commit asks for.
    pub(super) fn commit(&self, repository: &Repository, commit: git::CommitId) -> anyhow::Result<Desired> {
        let selection = Selection::new(&self.path, &["**/*.yaml", "**/*.yml"], &[])?;
        let limits = Limits::default();
        let mut files = Files::new(self.scope()?);
        for entry in repository.files(commit, &selection, &limits)? {
            if !matches!(entry.kind, EntryKind::File | EntryKind::Executable) {
                continue;
            }
            let path: RepoPath = entry.path.parse()?;
            let bytes = if entry.size > MAX_FILE_BYTES as u64 {
                // too large by one byte says the same as too large by a gigabyte
                vec![b' '; MAX_FILE_BYTES + 1]
            } else {
                repository.blob(entry.blob, MAX_FILE_BYTES as u64)?
            };
            files.update([Change::Written { path, blob: entry.blob.to_string(), bytes }]);
        }
        Ok(files.desired(|path| {
            let entry = repository.file(commit, path.as_str(), &limits).ok()??;
            let size = entry.size.min(MAX_PROMPT_BYTES as u64 + 1);
            if size > MAX_PROMPT_BYTES as u64 {
                return Some(vec![b' '; MAX_PROMPT_BYTES + 1]);
            }
            repository.blob(entry.blob, size).ok()
        }))
    }

    fn scope(&self) -> anyhow::Result<Scope> {
        let code = Allowed::new(self.allowed_repositories.as_deref())?;
        Ok(Scope::new(self.namespace.parse()?, &self.allowed_namespaces)?.with_code(code))
    }
}

/// The id as the core knows it.
pub(super) fn commit_id(id: git::CommitId) -> Option<CommitId> {
    id.to_string().parse().ok()
}

/// Finds manifests below `folder`, in the order of their paths. Links are not followed, `.git` is not entered.
fn walk(top: &Path, folder: &Path, found: &mut Vec<RepoPath>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.with_context(|| format!("read the folder {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && entry.file_name() != ".git" {
            walk(top, &path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            anyhow::ensure!(found.len() < MAX_FILES, "more than {MAX_FILES} files below {}", top.display());
            let inside = path.strip_prefix(top).unwrap_or(&path).to_str();
            let inside = inside.with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
            found.push(inside.trim_start_matches("./").parse()?);
        }
    }
    Ok(())
}

/// Reads a file, and one byte more than `limit` if it is longer. A link on the way is refused.
fn read(top: &Path, path: &RepoPath, limit: usize) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut place = top.to_owned();
    for segment in path.as_str().split('/') {
        place.push(segment);
        if fs::symlink_metadata(&place)?.is_symlink() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "links are not followed"));
        }
    }
    let mut bytes = Vec::new();
    fs::File::open(place)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
