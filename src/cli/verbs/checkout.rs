//! The user's own checkout of the config repository: read with care, committed to by the `git` program, under the user's
//! name and with the user's hooks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Most bytes of a file that is read; a longer one is no manifest.
const MAX_BYTES: u64 = crate::manifest::MAX_FILE_BYTES as u64;

/// Why the checkout is not changed.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The program cannot be started.
    #[error("git cannot be run; is it installed?")]
    NoGit(#[source] io::Error),
    /// The folder is none.
    #[error("{} is not in a checkout of a repository; name the config repository's with --checkout DIR", .0.display())]
    NotACheckout(PathBuf),
    /// Somebody prepares a commit there.
    #[error("{} has staged changes; commit or unstage them first", .0.display())]
    Staged(PathBuf),
    /// The file has changes that are nobody's business.
    #[error("{0} has changes that are not committed; commit or undo them first")]
    Dirty(String),
    /// The file is there already.
    #[error("{0} exists already")]
    Exists(String),
    /// The file is not in the checkout.
    #[error("{path} cannot be read in {}", top.display())]
    Read {
        /// The file, from the top.
        path: String,
        /// The checkout.
        top: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file, from the top.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program says no.
    #[error("git {verb} failed: {said}")]
    Failed {
        /// What it should do.
        verb: String,
        /// Its words.
        said: String,
    },
}

/// A checkout, by its top folder.
#[derive(Debug)]
pub(super) struct Checkout {
    top: PathBuf,
}

impl Checkout {
    /// The checkout that a folder is in.
    pub(super) fn find(folder: &Path) -> Result<Self, CheckoutError> {
        let found = git(folder, &["rev-parse", "--show-toplevel"])?;
        let top = String::from_utf8_lossy(&found.stdout).trim_end_matches('\n').to_owned();
        if !found.status.success() || top.is_empty() {
            return Err(CheckoutError::NotACheckout(folder.to_owned()));
        }
        Ok(Self { top: PathBuf::from(top) })
    }

    /// Its top folder.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    /// The branch that it is on; `None` on no branch.
    pub(super) fn branch(&self) -> Result<Option<String>, CheckoutError> {
        let found = git(&self.top, &["symbolic-ref", "--quiet", "--short", "HEAD"])?;
        let name = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        Ok((found.status.success() && !name.is_empty()).then_some(name))
    }

    /// The YAML files that Git knows, from the top.
    pub(super) fn manifests(&self) -> Result<Vec<String>, CheckoutError> {
        let listed = self.git(&["ls-files", "-z"])?;
        let text = String::from_utf8_lossy(&listed.stdout);
        let is_yaml = |path: &&str| {
            let extension = Path::new(path).extension();
            extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
        };
        Ok(text.split('\0').filter(is_yaml).map(str::to_owned).collect())
    }

    /// A file's text. Links are not followed.
    pub(super) fn read(&self, path: &str) -> Result<String, CheckoutError> {
        let file = self.top.join(path);
        let read = || {
            let found = fs::symlink_metadata(&file)?;
            if !found.is_file() || found.len() > MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file of at most 1 MiB"));
            }
            fs::read_to_string(&file)
        };
        read().map_err(|source| CheckoutError::Read { path: path.to_owned(), top: self.top.clone(), source })
    }

    /// Replaces a committed file and commits that. Gives the commit.
    pub(super) fn change(&self, path: &str, text: &str, message: &str) -> Result<String, CheckoutError> {
        self.nothing_staged()?;
        if !git(&self.top, &["diff", "--quiet", "HEAD", "--", path])?.status.success() {
            return Err(CheckoutError::Dirty(path.to_owned()));
        }
        let before = self.read(path)?;
        let write = |text: &str| {
            let written = fs::write(self.top.join(path), text);
            written.map_err(|source| CheckoutError::Write { path: path.to_owned(), source })
        };
        write(text)?;
        self.commit(path, message).inspect_err(|_| drop(write(&before)))
    }

    /// Adds a new file and commits that. Gives the commit.
    pub(super) fn add(&self, path: &str, text: &str, message: &str) -> Result<String, CheckoutError> {
        self.nothing_staged()?;
        let file = self.top.join(path);
        let write = || {
            fs::create_dir_all(file.parent().unwrap_or(&self.top))?;
            let mut new = fs::File::create_new(&file)?;
            io::Write::write_all(&mut new, text.as_bytes())
        };
        match write() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CheckoutError::Exists(path.to_owned()));
            }
            written => written.map_err(|source| CheckoutError::Write { path: path.to_owned(), source })?,
        }
        let committed =
            self.git(&["add", "--intent-to-add", "--", path]).and_then(|_| self.commit(path, message));
        committed.inspect_err(|_| {
            drop(git(&self.top, &["rm", "--cached", "--quiet", "--force", "--", path]));
            drop(fs::remove_file(&file));
        })
    }

    fn nothing_staged(&self) -> Result<(), CheckoutError> {
        let unborn = !git(&self.top, &["rev-parse", "--verify", "--quiet", "HEAD"])?.status.success();
        let staged = if unborn {
            !self.git(&["ls-files", "-z"])?.stdout.is_empty()
        } else {
            !git(&self.top, &["diff", "--cached", "--quiet"])?.status.success()
        };
        if staged { Err(CheckoutError::Staged(self.top.clone())) } else { Ok(()) }
    }

    fn commit(&self, path: &str, message: &str) -> Result<String, CheckoutError> {
        self.git(&["commit", "--quiet", "--only", "--message", message, "--", path])?;
        let head = self.git(&["rev-parse", "HEAD"])?;
        Ok(String::from_utf8_lossy(&head.stdout).trim().to_owned())
    }

    fn git(&self, arguments: &[&str]) -> Result<Output, CheckoutError> {
        let output = git(&self.top, arguments)?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(CheckoutError::Failed { verb: arguments[0].to_owned(), said: super::printable(&said) })
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<Output, CheckoutError> {
    // a path is a path, whatever characters it has
    let mut command = Command::new("git");
    command.arg("--literal-pathspecs").arg("-C").arg(folder).args(arguments);
    command.output().map_err(CheckoutError::NoGit)
}
