//! The Git protocol over ssh, one operation long, in this process: no `ssh` program, no agent, no files of the user.
//!
//! russh is asynchronous and the rest of Git here blocks: its connection lives in a runtime of its own, which works only
//! while somebody waits for bytes. So what is not read is not received either, and each wait ends with the budget.

mod error;
mod identity;
mod known_hosts;
mod login;
pub(super) mod upload;

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Read, Write},
    rc::Rc,
};

use bytes::{Buf, Bytes};
use gix::protocol::transport::{
    Protocol, Service,
    client::{
        blocking_io::Transport,
        git::{ConnectMode, blocking_io::Connection},
    },
};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::runtime::Runtime;

pub use error::SshError;
pub use identity::{InvalidIdentity, SshIdentity};

use super::{
    Error,
    budget::Budget,
    location::SshPlace,
    remote::{Credential, Remote},
};
use login::Fault;

/// How much of the server's own words goes into an error.
const WORDS: usize = 512;

/// Bytes that are sent at once: what any server takes in one packet (RFC 4253, 6.1).
const CHUNK: usize = 32 * 1024;

/// Bytes that are kept while we send; a server that says more then has to wait.
const KEPT: usize = 1 << 20;

/// Bytes that are thrown away at the end, before the connection is cut.
const LEFT: usize = 1 << 20;

/// Logs in and starts `service` for the repository at `place`.
pub(super) fn connect<'a>(
    remote: &'a Remote,
    place: &SshPlace,
    service: Service,
    version: Protocol,
    budget: &'a Budget<'a>,
) -> Result<Box<dyn Transport + 'a>, Error> {
    let location = remote.location();
    let Credential::Ssh(identity) = remote.credential() else {
        return Err(Error::unauthenticated(location.clone()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime for", location.to_string()))?;
    let program = match service {
        Service::UploadPack => "git-upload-pack",
        Service::ReceivePack => "git-receive-pack",
    };
    let command = format!("{program} {}", quoted(&place.path));
    let named = format!("version={}", version as usize);
    let (place, identity) = (place.clone(), identity.clone());
    let path = place.path.clone();
    let opened = wait(&runtime, budget, async {
        let connection = login::log_in(place, identity).await?;
        let named = (version != Protocol::V1).then_some(named.as_str());
        let (read, write) = login::run(&connection, command, named).await?.split();
        Ok((connection, read, write))
    });
    let (connection, read, write) =
        match opened.map_err(|error| budget.explain(gix::Error::from_error(error)))? {
            Ok(opened) => opened,
            Err(fault) => {
                runtime.shutdown_background();
                return Err(explain(remote, fault));
            }
        };
    let link = Rc::new(RefCell::new(Link {
        runtime: Some(runtime),
        connection,
        read,
        write,
        budget,
        program,
        heard: VecDeque::new(),
        kept: 0,
        words: Vec::new(),
        end: End::default(),
    }));
    let (reader, writer) = (Answers(Rc::clone(&link)), Requests(link));
    let no_host = None::<(String, Option<u16>)>;
    Ok(Box::new(Connection::new(reader, writer, version, path, no_host, ConnectMode::Process, false)))
}

/// As git quotes for any shell.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''").replace('!', r"'\!'"))
}

fn explain(remote: &Remote, fault: Fault) -> Error {
    let location = remote.location().clone();
    match fault {
        Fault::Ssh(source @ SshError::IdentityRefused { .. }) => {
            Error::Unauthenticated { location, sent: true, redirected: false, source: Some(Box::new(source)) }
        }
        Fault::Ssh(source) => Error::Ssh { location, source: Box::new(source) },
        Fault::Broken(source) => Error::Unreachable { location, source },
    }
}

/// Runs `work` until it is done, the time is up or the caller interrupts.
fn wait<T>(runtime: &Runtime, budget: &Budget<'_>, work: impl Future<Output = T>) -> io::Result<T> {
    runtime.block_on(async {
        tokio::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(budget.wait()?, &mut work).await {
                return Ok(done);
            }
        }
    })
}

/// A running command at the other end. Dropped, it is given the rest of the budget to end (a hook after a push, say).
struct Link<'a> {
    runtime: Option<Runtime>,
    connection: login::Connection,
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    budget: &'a Budget<'a>,
    program: &'static str,
    heard: VecDeque<Bytes>,
    /// Bytes in `heard`.
    kept: usize,
    words: Vec<u8>,
    end: End,
}

/// How the command ended.
#[derive(Default)]
struct End {
    /// No message comes any more.
    over: bool,
    /// The server said that nothing more comes.
    announced: bool,
    outcome: Outcome,
}

/// What became of the command.
#[derive(Default, PartialEq)]
enum Outcome {
    /// It runs, or its exit code is 0.
    #[default]
    Good,
    /// Another exit code, or a signal.
    Failed,
    /// It was never started.
    Refused,
}

impl Link<'_> {
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is taken only on drop")
    }

    /// Takes a message; `None` is the end.
    fn hear(&mut self, message: Option<ChannelMsg>) -> io::Result<()> {
        match message {
            Some(ChannelMsg::Data { data }) => {
                self.budget.receive(data.len())?;
                self.kept += data.len();
                self.heard.push_back(data);
            }
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                self.budget.receive(data.len())?;
                let room = WORDS - self.words.len();
                self.words.extend_from_slice(&data[..data.len().min(room)]);
            }
            Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::ExitStatus { exit_status: 0 }) => {
                self.end.announced = true;
            }
            Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }) => {
                (self.end.announced, self.end.outcome) = (true, Outcome::Failed);
            }
            Some(ChannelMsg::Failure) => (self.end.over, self.end.outcome) = (true, Outcome::Refused),
            Some(_) => {}
            None => self.end.over = true,
        }
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        let runtime = self.runtime.as_ref().expect("the runtime is taken only on drop");
        let message = wait(runtime, self.budget, self.read.wait())?;
        self.hear(message)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(front) = self.heard.front_mut() {
                let count = front.len().min(buffer.len());
                front.copy_to_slice(&mut buffer[..count]);
                self.kept -= count;
                if !front.has_remaining() {
                    self.heard.pop_front();
                }
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            } else if self.end.over {
                return self.ended();
            } else {
                self.listen()?;
            }
        }
    }

    /// Sends, and listens meanwhile: a server that cannot get rid of its words would not take ours.
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let chunk = &buffer[..buffer.len().min(CHUNK)];
        let mut messages = Vec::new();
        let mut left = KEPT.saturating_sub(self.kept);
        let over = self.end.over;
        let (read, write) = (&mut self.read, &self.write);
        let runtime = self.runtime.as_ref().expect("the runtime is taken only on drop");
        let sent = wait(runtime, self.budget, async {
            let sending = write.data_bytes(Bytes::copy_from_slice(chunk));
            tokio::pin!(sending);
            let mut over = over;
            loop {
                tokio::select! {
                    sent = &mut sending => return sent.is_ok(),
                    message = read.wait(), if left > 0 && !over => {
                        over = message.is_none();
                        if let Some(ChannelMsg::Data { data }) = &message {
                            left = left.saturating_sub(data.len());
                        }
                        messages.push(message);
                        if over {
                            return false;
                        }
                    }
                }
            }
        });
        for message in messages {
            self.hear(message)?;
        }
        // A server that has given up says why: let the exchange go on to that.
        sent.map(|_| chunk.len())
    }

    /// The end of output is fine after a finished exchange; before that, the server's own words say what failed.
    fn ended(&self) -> io::Result<usize> {
        let location = self.budget.location().clone();
        if self.end.outcome == Outcome::Refused {
            let source = Box::new(SshError::CommandRefused { service: self.program });
            return Err(self.budget.fail(Error::Ssh { location, source }));
        }
        if !self.end.announced {
            let source =
                Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed"));
            return Err(self.budget.fail(Error::Unreachable { location, source }));
        }
        let said = String::from_utf8_lossy(&self.words);
        let fatal = |line: &str| {
            ["fatal: ", "ERROR: "].iter().find_map(|mark| line.strip_prefix(mark).map(str::to_owned))
        };
        let Some(answer) = said.lines().find_map(fatal).or_else(|| {
            let first = said.lines().map(str::trim).find(|line| !line.is_empty());
            (self.end.outcome == Outcome::Failed)
                .then(|| first.unwrap_or("with an exit code and no word").to_owned())
        }) else {
            return Ok(0);
        };
        let absent = ["does not appear to be a git repository", "not found", "does not exist"];
        Err(self.budget.fail(if absent.iter().any(|text| answer.contains(text)) {
            Error::NotFound { what: "a Git repository".to_owned(), place: location.to_string() }
        } else {
            Error::Refused { location, answer: format!("{answer:?}"), retry: false }
        }))
    }

    /// Tells the command that nothing more comes, and waits for its end.
    fn finish(&mut self) -> io::Result<()> {
        wait(self.runtime(), self.budget, self.write.eof())?.map_err(io::Error::other)?;
        self.kept = 0;
        while !self.end.over && self.kept < LEFT {
            self.heard.clear();
            self.listen()?;
        }
        let goodbye = self.connection.disconnect(russh::Disconnect::ByApplication, "", "");
        wait(self.runtime(), self.budget, goodbye)?.map_err(io::Error::other)
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if !self.end.over && !self.budget.has_failed() {
            // Whatever goes wrong now, the exchange is done.
            let _ = self.finish();
        }
        if let Some(runtime) = self.runtime.take() {
            // The connection goes with it. A name look-up cannot be cancelled; do not wait for one beyond our time.
            runtime.shutdown_background();
        }
    }
}

/// What the command says.
struct Answers<'a>(Rc<RefCell<Link<'a>>>);

impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// What we say to it.
struct Requests<'a>(Rc<RefCell<Link<'a>>>);

impl Write for Requests<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
