//! The repositories that are measured: a bare config repository, the clone it is pushed from, a code repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// The branch of the ledger.
pub(crate) const LEDGER: &str = "refs/heads/ostler/results";

/// A folder with everything that one measure needs.
pub(crate) struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    /// Makes the repositories; the config repository has one commit with these files.
    pub(crate) fn new(files: &[(String, String)]) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("ostler-bench-").tempdir()?;
        let stage = Self { root };
        let key = stage.key();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
            .arg(&key)
            .output()
            .context("run ssh-keygen")?;
        checked("ssh-keygen", &made)?;
        stage.code_repository()?;
        git(stage.root.path(), &["init", "--quiet", "--bare", "-b", "main", "config.git"])?;
        git(stage.root.path(), &["clone", "--quiet", "config.git", "work"])?;
        stage.commit(files, "begin")?;
        stage.push()?;
        Ok(stage)
    }

    fn code_repository(&self) -> Result<()> {
        let code = self.path("code");
        fs::create_dir(&code)?;
        git(&code, &["init", "--quiet", "-b", "main"])?;
        for file in 0..20 {
            fs::write(code.join(format!("file-{file}.txt")), format!("line of file {file}\n").repeat(100))?;
        }
        git(&code, &["add", "-A"])?;
        git(&code, &["commit", "--quiet", "-m", "code"])?;
        Ok(())
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The config repository that is followed.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.git")
    }

    /// The key that signs.
    pub(crate) fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// Commits files in the clone; [`Stage::push`] makes them known.
    pub(crate) fn commit(&self, files: &[(String, String)], message: &str) -> Result<String> {
        let work = self.path("work");
        for (path, text) in files {
            let path = work.join(path);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(&path, text)?;
        }
        git(&work, &["add", "-A"])?;
        git(&work, &["commit", "--quiet", "-m", message])?;
        git(&work, &["rev-parse", "HEAD"])
    }

    /// Pushes what was committed; returns when the push began and how long it took.
    pub(crate) fn push(&self) -> Result<(Instant, Duration)> {
        let began = Instant::now();
        git(&self.path("work"), &["push", "--quiet", "origin", "main"])?;
        Ok((began, began.elapsed()))
    }
}

/// `git` in a folder, without the settings of whoever calls us. Returns its output.
pub(crate) fn git(folder: &Path, args: &[&str]) -> Result<String> {
    let output = git_command(folder).args(args).output().context("run git")?;
    checked(&format!("git {}", args.join(" ")), &output)?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// `git` in a folder, without the settings of whoever calls us.
pub(crate) fn git_command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).stdin(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "bench").env(format!("GIT_{who}_EMAIL"), "bench@localhost");
    }
    command
}

/// The output of a program that succeeded.
pub(crate) fn checked(what: &str, output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}: {}", output.status, said.trim());
    Ok(())
}
