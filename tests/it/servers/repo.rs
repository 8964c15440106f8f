//! Fixture repositories, made by the git program without the machine's or the user's configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A checkout and the bare repository that it pushes to, in a temporary folder.
pub(crate) struct Repo {
    root: tempfile::TempDir,
}

impl Repo {
    /// `origin.git` (bare, empty) and `work` (a checkout on the unborn branch `main`).
    pub(crate) fn new() -> Self {
        let repo = Self { root: tempfile::tempdir().unwrap() };
        git(repo.root(), &["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"]);
        git(repo.root(), &["init", "--quiet", "--initial-branch=main", "work"]);
        repo.git(&["remote", "add", "origin", "../origin.git"]);
        repo
    }

    /// With one commit, pushed: `README.md`.
    pub(crate) fn with_readme() -> Self {
        let repo = Self::new();
        repo.push(&[("README.md", "hello\n")], "first");
        repo
    }

    /// The folder that holds both.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The bare repository.
    pub(crate) fn bare(&self) -> PathBuf {
        self.root().join("origin.git")
    }

    /// The checkout.
    pub(crate) fn work(&self) -> PathBuf {
        self.root().join("work")
    }

    /// Runs git in the checkout and gives what it prints.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    /// Runs git in the bare repository.
    pub(crate) fn bare_git(&self, arguments: &[&str]) -> String {
        git(&self.bare(), arguments)
    }

    /// Writes a file of the checkout, with its folders.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let file = self.work().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }

    /// Writes files and commits everything that differs; gives the commit's name.
    pub(crate) fn commit(&self, files: &[(&str, &str)], message: &str) -> String {
        for (path, content) in files {
            self.write(path, content);
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Commits and pushes the current branch.
    pub(crate) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        let commit = self.commit(files, message);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
        commit
    }
}

/// Runs git in `folder`, hermetically; panics with its words when it fails.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A git command that sees no configuration but the repository's own, and always the same person and time.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_AUTHOR_DATE", "1700000000 +0100")
        .env("GIT_COMMITTER_NAME", "Cora")
        .env("GIT_COMMITTER_EMAIL", "cora@example.com")
        .env("GIT_COMMITTER_DATE", "1700000001 +0100");
    command
}
