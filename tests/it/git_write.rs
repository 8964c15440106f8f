//! Writing Git: signatures, commits, pushes, bundles and work trees, with the `git` and `ssh-keygen` programs as second opinion.

mod bundles;
mod commits;
mod hostile;
mod pushes;
mod signatures;
mod web;
mod worktrees;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use ostler::git::{
    CommitId, Repository,
    commit::{Change, Draft, Identity, Message, Outcome},
    sign::SigningKey,
};

/// A folder with repositories in it, and programs that see no configuration of this machine.
struct Lab {
    root: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.root.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Ann Author")
                .env(format!("GIT_{who}_EMAIL"), "ann@example.com")
                .env(format!("GIT_{who}_DATE"), "2026-01-02T03:04:05Z");
        }
        command
    }

    fn try_git(&self, folder: &Path, args: &[&str]) -> Output {
        self.command("git", folder).args(args).output().unwrap()
    }

    fn git(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.try_git(folder, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        assert!(output.status.success(), "git {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn bare(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.git(self.root.path(), &["init", "-q", "--bare", "-b", "main", name]);
        path
    }

    /// A bare repository whose branch main has one commit with these files.
    fn seeded(&self, name: &str, files: &[(&str, &str)]) -> (PathBuf, CommitId) {
        let path = self.bare(name);
        let work = self.path(&format!("{name}-work"));
        self.git(self.root.path(), &["init", "-q", "-b", "main", work.to_str().unwrap()]);
        for (file, content) in files {
            write(&work.join(file), content);
        }
        self.git(&work, &["add", "-A"]);
        self.git(&work, &["commit", "-q", "--allow-empty", "-m", "seed"]);
        self.git(&work, &["push", "-q", path.to_str().unwrap(), "main"]);
        (path.clone(), self.head(&path, "main"))
    }

    fn head(&self, repository: &Path, name: &str) -> CommitId {
        self.git(repository, &["rev-parse", "--verify", name]).parse().unwrap()
    }

    fn fsck(&self, repository: &Path) {
        self.git(repository, &["fsck", "--full", "--strict", "--no-dangling"]);
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn ostler() -> Identity {
    Identity::new("ostler", "ostler@example.com").unwrap()
}

fn draft(parent: Option<CommitId>, files: &[(&str, &str)]) -> Draft {
    let change =
        |(path, content): &(&str, &str)| Change::Write { path: (*path).into(), content: (*content).into() };
    Draft {
        parent,
        changes: files.iter().map(change).collect(),
        author: ostler(),
        committer: ostler(),
        time: "2026-02-03T04:05:06Z".parse().unwrap(),
        message: Message::new("record a run", "What happened.", &[("Ostler-Run", "default/fix-login")])
            .unwrap(),
    }
}

fn commit(
    repository: &Path,
    parent: Option<CommitId>,
    files: &[(&str, &str)],
    key: Option<&SigningKey>,
) -> CommitId {
    match draft(parent, files).write(&Repository::open(repository).unwrap(), key).unwrap() {
        Outcome::Written(id) => id,
        Outcome::Unchanged => panic!("the files are as before"),
    }
}
