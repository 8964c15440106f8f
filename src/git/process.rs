//! The Git protocol with a `git upload-pack` or `git receive-pack` of this machine, over pipes.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gix::bstr::BString;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use gix::protocol::transport::{Protocol, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Error;
use super::budget::Budget;

/// Variables that would point the child at another repository: `git rev-parse --local-env-vars`.
const REPOSITORY_VARIABLES: [&str; 15] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
];

/// A pipe holds at least this much when poll says that it takes more (`PIPE_BUF` of Linux).
const PIPE_CHUNK: usize = 4096;

/// How much of the child's own words goes into an error.
const WORDS: u64 = 512;

/// Starts `service` for the repository at `path`.
pub(super) fn connect<'a>(
    path: &Path,
    service: Service,
    version: Protocol,
    budget: &'a Budget<'a>,
) -> Result<Box<dyn Transport + 'a>, Error> {
    if gix::discover::is_git(path).is_err() && gix::discover::is_git(&path.join(".git")).is_err() {
        return Err(Error::NotFound {
            what: "a Git repository".to_owned(),
            place: budget.location().to_string(),
        });
    }
    let words =
        tempfile::tempfile().map_err(Error::io("create a temporary file in", std::env::temp_dir()))?;
    let stderr = words.try_clone().map_err(Error::io("copy the handle of", "a temporary file"))?;
    let mut command = Command::new("git");
    for variable in REPOSITORY_VARIABLES {
        command.env_remove(variable);
    }
    if version != Protocol::V1 {
        command.env("GIT_PROTOCOL", format!("version={}", version as usize));
    }
    command
        .env("LC_ALL", "C")
        .arg(match service {
            Service::UploadPack => "upload-pack",
            Service::ReceivePack => "receive-pack",
        })
        .arg("--")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    let mut child = command.spawn().map_err(Error::io("start the program", "git"))?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let reader = Answers { stdout, words, child, budget };
    let writer = Requests { stdin, budget };
    let path: BString = path.as_os_str().as_encoded_bytes().into();
    let no_host = None::<(String, Option<u16>)>;
    Ok(Box::new(Connection::new(reader, writer, version, path, no_host, ConnectMode::Process, false)))
}

/// What the child says. Owns the child: dropped, it ends it.
struct Answers<'a> {
    stdout: Option<ChildStdout>,
    words: File,
    child: Child,
    budget: &'a Budget<'a>,
}

impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = self.stdout.as_mut() else { return Ok(0) };
        wait_for(stdout.as_fd(), PollFlags::IN, self.budget)?;
        let count = stdout.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            return self.ended();
        }
        self.budget.receive(count)?;
        Ok(count)
    }
}

impl Answers<'_> {
    /// The end of output is fine after a finished exchange; before that, the child's own words say what failed.
    fn ended(&mut self) -> io::Result<usize> {
        self.words.rewind()?;
        let mut said = Vec::new();
        (&self.words).take(WORDS).read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let Some(fatal) = said.lines().find_map(|line| line.strip_prefix("fatal: ")) else { return Ok(0) };
        let location = self.budget.location().clone();
        Err(self.budget.fail(Error::Refused { location, answer: format!("{fatal:?}"), retry: false }))
    }
}

impl Drop for Answers<'_> {
    /// Gives the child (a hook after a push, say) the rest of the budget to end by itself.
    fn drop(&mut self) {
        drop(self.stdout.take());
        while let Ok(None) = self.child.try_wait() {
            if self.budget.wait().is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// What we say to the child.
struct Requests<'a> {
    stdin: Option<ChildStdin>,
    budget: &'a Budget<'a>,
}

impl Write for Requests<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        wait_for(stdin.as_fd(), PollFlags::OUT, self.budget)?;
        match stdin.write(&buffer[..buffer.len().min(PIPE_CHUNK)]) {
            // The child has given up. Its answer says why: let the exchange go on to it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(buffer.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks until the pipe is ready (or broken, which the following call reports), the budget permitting.
fn wait_for(fd: BorrowedFd<'_>, what: PollFlags, budget: &Budget<'_>) -> io::Result<()> {
    loop {
        let patience = Timespec::try_from(budget.wait()?).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd, what)], Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
