//! From the shim to the agent: a process that puts up its own walls and then becomes the agent.
//!
//! Rlimits, affinity and the controlling terminal must be set between fork and exec. That needs a process of our own in
//! between, because the code of a forked child of a threaded process may do next to nothing.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, ExitCode, Stdio},
};

use clap::Args;
use rustix::{
    process::{Resource, Rlimit},
    pty::OpenptFlags,
    termios::Winsize,
    thread::CpuSet,
};
use serde::{Deserialize, Serialize};

use super::wire::{Size, Start};

/// Where programs are found, unless an image says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit code for a command that was not found (POSIX, Shell Command Language 2.8.2).
const NOT_FOUND: u8 = 127;
/// Exit code for a command that was found and cannot be executed (ibidem).
const NOT_EXECUTABLE: u8 = 126;

/// Limits of each single process, enforced by the kernel. They stop what grows faster than the sidecar looks; the limits
/// of the whole run are the sidecar's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// `RLIMIT_DATA`, in bytes.
    pub data: Option<u64>,
    /// `RLIMIT_NPROC`, of the user in this user namespace.
    pub processes: Option<u64>,
    /// `RLIMIT_FSIZE`, in bytes.
    pub file: Option<u64>,
    /// The CPUs it may run on; empty: all.
    pub cpus: Vec<usize>,
}

/// Arguments of `ostler shim exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Most bytes of data of each process.
    #[arg(long)]
    data: Option<u64>,
    /// Most processes and threads.
    #[arg(long)]
    processes: Option<u64>,
    /// Most bytes of a file.
    #[arg(long)]
    file: Option<u64>,
    /// CPUs to run on.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Make standard input the controlling terminal of a new session.
    #[arg(long)]
    terminal: bool,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl ExecArgs {
    fn of(walls: &Walls, terminal: bool) -> Vec<String> {
        let mut args = vec!["shim".to_owned(), "exec".to_owned()];
        let limits = [("data", walls.data), ("processes", walls.processes), ("file", walls.file)];
        args.extend(limits.iter().filter_map(|(name, value)| value.map(|value| format!("--{name}={value}"))));
        if !walls.cpus.is_empty() {
            let cpus: Vec<_> = walls.cpus.iter().map(usize::to_string).collect();
            args.push(format!("--cpus={}", cpus.join(",")));
        }
        if terminal {
            args.push("--terminal".to_owned());
        }
        args.push("--".to_owned());
        args
    }
}

/// An agent that was started.
pub(super) struct Agent {
    /// Its process, and the number of its process group.
    pub(super) pid: rustix::process::Pid,
    /// What the sidecar gets: both pipes, or the terminal's master.
    pub(super) ends: Vec<OwnedFd>,
}

/// Starts the agent as a process group of its own.
pub(super) fn start(start: &Start) -> io::Result<Agent> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(ExecArgs::of(&start.walls, start.terminal.is_some()))
        .args(&start.command)
        .env_clear()
        .envs(start.on_image.then(of_image).into_iter().flatten())
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&start.directory);
    let ends = match start.terminal {
        None => pipes(&mut command)?,
        Some(size) => terminal(&mut command, size)?,
    };
    let child = command.spawn()?;
    Ok(Agent { pid: rustix::process::Pid::from_child(&child), ends })
}

/// The environment that the image gives. What a kubelet adds to it is nothing to the agent.
fn of_image() -> Vec<(OsString, OsString)> {
    let added = |name: &OsString| name.as_encoded_bytes().starts_with(b"KUBERNETES_") || name == "HOSTNAME";
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| !added(name)).collect();
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), PATH.into()));
    }
    env
}

fn pipes(command: &mut Command) -> io::Result<Vec<OwnedFd>> {
    let (out, out_end) = io::pipe()?;
    let (err, err_end) = io::pipe()?;
    command.process_group(0).stdin(Stdio::null()).stdout(out_end).stderr(err_end);
    Ok(vec![out.into(), err.into()])
}

fn terminal(command: &mut Command, size: Size) -> io::Result<Vec<OwnedFd>> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    Ok(vec![master])
}

/// Puts up the walls and becomes the agent; comes back only when that fails.
pub(super) fn become_agent(args: &ExecArgs) -> ExitCode {
    if let Err(error) = walls(args) {
        eprintln!("ostler: the limits of the agent cannot be set: {error}");
        return ExitCode::from(NOT_EXECUTABLE);
    }
    let (program, rest) = args.command.split_first().expect("clap requires a command");
    let error = Command::new(program).args(rest).exec();
    eprintln!("ostler: {program} cannot be executed: {error}");
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}

fn walls(args: &ExecArgs) -> io::Result<()> {
    if args.terminal {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    if !args.cpus.is_empty() {
        let mut set = CpuSet::new();
        args.cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let limits =
        [(Resource::Data, args.data), (Resource::Nproc, args.processes), (Resource::Fsize, args.file)];
    for (resource, value) in
        limits.into_iter().filter_map(|(resource, value)| value.map(|value| (resource, value)))
    {
        // A lower limit that is in force already stays.
        let bound = rustix::process::getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
        rustix::process::setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ExecArgs,
    }

    #[test]
    fn walls_survive_the_command_line() {
        let walls = Walls { data: Some(1), processes: Some(2), file: Some(3), cpus: vec![0, 5] };
        let mut words = ExecArgs::of(&walls, true);
        words.extend(["sh", "-c", "--data=9"].map(str::to_owned));
        let args = Cli::try_parse_from(words.into_iter().skip(1)).unwrap().args;
        let read = Walls { data: args.data, processes: args.processes, file: args.file, cpus: args.cpus };
        assert_eq!(read, walls);
        assert!(args.terminal);
        assert_eq!(args.command, ["sh", "-c", "--data=9"]);
    }
}
