//! The baselines: what somebody would do by hand, with `git` and `bwrap` alone, on the same repositories.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ostler::harness::bubblewrap::{self, AgentView, Host};

use crate::stage::{Stage, checked, git, git_command};

/// Fetches what was pushed into a clone that had everything before.
pub(crate) fn fetch(stage: &Stage) -> Result<Duration> {
    let clone = stage.path("by-hand");
    let began = Instant::now();
    git(&clone, &["fetch", "--quiet", "origin", "main"])?;
    Ok(began.elapsed())
}

/// The clone that [`fetch`] fetches into, up to date.
pub(crate) fn clone(stage: &Stage) -> Result<()> {
    git(&stage.path(""), &["clone", "--quiet", "config.git", "by-hand"])?;
    Ok(())
}

/// Reads all files of the commit that was fetched last.
pub(crate) fn read_all(stage: &Stage) -> Result<Duration> {
    let clone = stage.path("by-hand");
    let began = Instant::now();
    let listed = git(&clone, &["ls-tree", "-r", "--format=%(objectname)", "origin/main"])?;
    let list = stage.path("objects.txt");
    fs::write(&list, listed + "\n")?;
    let mut read = git_command(&clone);
    read.args(["cat-file", "--batch"]).stdin(fs::File::open(&list)?).stdout(Stdio::null());
    checked("git cat-file", &read.output()?)?;
    Ok(began.elapsed())
}

/// Asks the repository for its references.
pub(crate) fn ls_remote(stage: &Stage) -> Result<Duration> {
    let config = stage.config().display().to_string();
    let began = Instant::now();
    git(&stage.path(""), &["ls-remote", &config])?;
    Ok(began.elapsed())
}

/// Starts `true` in the container that a run's agent gets: the very arguments of ostler, but for the program.
pub(crate) fn container(stage: &Stage) -> Result<Duration> {
    let host = Host::look()?;
    let folder = stage.path("container");
    let parts = ["shared", "workspace", "home", "tmp", "etc"].map(|part| folder.join(part));
    for part in &parts {
        fs::create_dir_all(part)?;
    }
    let [shared, workspace, home, tmp, etc] = &parts;
    // the mount point of the program, in a folder that is shown read-only
    fs::write(shared.join("ostler"), "")?;
    let passwd = etc.join("passwd");
    fs::write(&passwd, "agent:x:1000:1000:agent:/home/agent:/bin/sh\n")?;
    let program = Path::new(env!("CARGO_BIN_EXE_ostler"));
    let mut args = bubblewrap::agent(&AgentView {
        host: &host,
        program,
        shared,
        etc: &[passwd],
        workspace: (workspace, "/workspace"),
        home,
        tmp,
        binds: &[],
    });
    let end = args.iter().position(|arg| arg == "--").context("bwrap's options end with --")?;
    args.truncate(end + 1);
    args.push("/usr/bin/true".into());
    let began = Instant::now();
    let output = Command::new("bwrap").args(&args).stdin(Stdio::null()).output().context("run bwrap")?;
    checked("bwrap", &output)?;
    Ok(began.elapsed())
}

/// Commits one file, signed with the same key, and pushes it to a branch of the config repository.
pub(crate) fn signed_commit(stage: &Stage, number: usize) -> Result<Duration> {
    let clone = stage.path("signer");
    if !clone.exists() {
        git(&stage.path(""), &["clone", "--quiet", "config.git", "signer"])?;
        git(&clone, &["switch", "--quiet", "--create", "by-hand"])?;
        git(&clone, &["config", "gpg.format", "ssh"])?;
        git(&clone, &["config", "user.signingkey", &stage.key().display().to_string()])?;
    }
    let began = Instant::now();
    fs::write(clone.join(format!("result-{number}.yaml")), "outcome: Succeeded\n")?;
    git(&clone, &["add", "-A"])?;
    git(&clone, &["commit", "--quiet", "-S", "-m", "a result"])?;
    git(&clone, &["push", "--quiet", "origin", "by-hand"])?;
    Ok(began.elapsed())
}
