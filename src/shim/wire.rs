//! What shim and sidecar say to each other.
//!
//! A message is a length (4 bytes, big-endian), then JSON. Open descriptors travel with the length as `SCM_RIGHTS`
//! (unix(7)); Linux hands them out with the first byte they were sent with.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Walls;

/// Most bytes of a message: a command and an environment, far above what execve(2) takes.
const MESSAGE_BYTES: u32 = 8 << 20;
/// Most descriptors of a message: standard output and standard error.
const DESCRIPTORS: usize = 2;

/// The socket's name in the shared directory.
pub const SOCKET: &str = "shim.sock";

/// What the sidecar asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToShim {
    /// Try the ways out.
    Probe(Probe),
    /// Start the agent.
    Start(Start),
    /// SIGTERM to the agent's process group.
    Terminate,
    /// SIGKILL to every process but the shim.
    Kill,
    /// Read what the agent left; once it has ended.
    Collect(Collect),
    /// End with the agent's exit code.
    Release,
}

/// What the shim tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromShim {
    /// The first message. Under bubblewrap it brings the listening socket of the forwarder.
    Hello {
        /// What the sidecar put on the shim's standard input; in a pod there is no such way.
        nonce: Option<String>,
    },
    /// What a probe saw.
    Seen(Seen),
    /// The agent was started. It brings the reading ends of standard output and standard error, or the master of the
    /// terminal.
    Started,
    /// The agent could not be started.
    NotStarted(String),
    /// The agent and everything it left behind have ended.
    Exited {
        /// The exit code; 128 + n for signal n.
        code: i32,
        /// Processes that outlived the agent and were killed.
        left_behind: u32,
        /// True: since the shim began, the kernel killed a process of this container for want of memory.
        out_of_memory: bool,
    },
    /// What the processes use now.
    Used(Used),
    /// Somebody wants this container to end (SIGTERM to PID 1).
    Terminating,
    /// The collector ended; why, if it failed.
    Collected(Result<(), String>),
}

/// What all processes of a container but the shim use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processes and threads.
    pub threads: u64,
    /// Bytes of memory that are theirs alone.
    pub memory: u64,
}

/// What the collector reads and where it writes, as the shim sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// The workspace.
    pub workspace: String,
    /// The folder with its task, which is for its results, too.
    pub out: String,
}

/// Ways out to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Addresses that must not accept a connection.
    pub closed: Vec<SocketAddr>,
    /// One of them that counts who comes: once it was reached, nothing more is dialled, so that its count stays readable.
    pub canary: Option<SocketAddr>,
    /// Addresses that must not answer a question to the DNS by UDP.
    pub silent: Vec<SocketAddr>,
    /// How often each of them is dialled.
    pub dials: u32,
    /// Milliseconds between two dials.
    pub pause_ms: u64,
    /// The run's proxy.
    pub forwarder: SocketAddr,
    /// The path that it answers with its nonce.
    pub proof_path: String,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Names of the network interfaces.
    pub interfaces: Vec<String>,
    /// Addresses that answered although they must not.
    pub reached: Vec<SocketAddr>,
    /// What came through the forwarder; or why nothing did.
    pub proof: Result<String, String>,
}

/// How to start the agent.
#[derive(Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// True: that goes on top of what the container's image says, which is the shim's own environment. False: it is all.
    pub on_image: bool,
    /// True: tell what the processes use.
    pub measure: bool,
    /// Its working directory, absolute.
    pub directory: String,
    /// Limits that the kernel enforces on each process.
    pub walls: Walls,
    /// A terminal of this size; `None`: pipes, and nothing to read.
    pub terminal: Option<Size>,
}

impl std::fmt::Debug for Start {
    /// Without the environment, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start")
            .field("command", &self.command)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// One end of the connection. One thread may read and any number of them write.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    /// A message is two writes, which belong together.
    sending: Arc<Mutex<()>>,
}

impl Link {
    /// Speaks over this connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, sending: Arc::default() }
    }

    /// Another handle on the same connection.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, sending: Arc::clone(&self.sending) })
    }

    /// Ends the connection for both handles and for the peer.
    pub fn close(&self) {
        // An error means that it is closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Who is at the other end, as the kernel says. Only for a peer in our PID namespace or below it: any other has no id.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn peer(&self) -> io::Result<rustix::net::UCred> {
        Ok(rustix::net::sockopt::socket_peercred(&self.stream)?)
    }

    /// Sends a message and the descriptors that belong to it.
    ///
    /// # Errors
    /// When the peer is gone, or the message is larger than 8 MiB.
    pub fn send<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MESSAGE_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a message to or from the shim is too large"))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("more descriptors than a message carries"));
        }
        let head = length.to_be_bytes();
        let _alone = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        // Four bytes into an empty stream socket are never taken in part.
        rustix::net::sendmsg(&self.stream, &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL)?;
        (&self.stream).write_all(&body)
    }

    /// Waits for a message; `None` when the peer closed the connection between two messages.
    ///
    /// # Errors
    /// When the connection breaks, or the message is too large or not one.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut head = [0; 4];
        let mut descriptors = Vec::new();
        let got = self.receive_head(&mut head, &mut descriptors)?;
        if got == 0 {
            return Ok(None);
        }
        (&self.stream).read_exact(&mut head[got..])?;
        let length = u32::from_be_bytes(head);
        if length > MESSAGE_BYTES {
            return Err(io::Error::other("a message to or from the shim is too large"));
        }
        let mut body = vec![0; length as usize];
        (&self.stream).read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, descriptors)))
    }

    fn receive_head(&self, head: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(head)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let received = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_brings_its_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Link::new(a), Link::new(b));
        let (reader, writer) = std::io::pipe().unwrap();
        a.send(&FromShim::Started, &[reader.as_fd()]).unwrap();
        a.send(&FromShim::Exited { code: 3, left_behind: 1, out_of_memory: false }, &[]).unwrap();
        drop((a, reader));

        let (message, mut descriptors) = b.receive::<FromShim>().unwrap().unwrap();
        assert!(matches!(message, FromShim::Started));
        (&writer).write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(descriptors.pop().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        let (message, descriptors) = b.receive::<FromShim>().unwrap().unwrap();
        assert!(matches!(message, FromShim::Exited { code: 3, left_behind: 1, out_of_memory: false }));
        assert!(descriptors.is_empty());
        assert!(b.receive::<FromShim>().unwrap().is_none(), "the peer is gone");
    }

    #[test]
    fn a_message_that_announces_too_much_is_refused() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(Link::new(b).receive::<ToShim>().is_err());
    }

    #[test]
    fn debug_shows_no_environment() {
        let start = Start {
            command: vec!["true".into()],
            env: vec![("KEY".into(), "hunter2".into())],
            on_image: false,
            measure: false,
            directory: "/".into(),
            walls: Walls::default(),
            terminal: None,
        };
        assert!(!format!("{start:?}").contains("hunter2"));
    }
}
