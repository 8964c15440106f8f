//! The agent's container: bubblewrap, and the shim in it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    process::{Child, Command},
    sync::mpsc,
};

use crate::{
    harness::{
        bubblewrap::{self, AgentView, Host},
        place::private_dir,
        process::{self, Process},
        sidecar::Sidecar,
    },
    shim::wire::{FromShim, Link, SOCKET, ToShim},
};

/// How long bubblewrap and shim may take to come up; 0.13 s is usual.
const UP_TIME: Duration = Duration::from_secs(30);
/// How long the container may take to end after its release.
const DOWN_TIME: Duration = Duration::from_secs(10);
/// Messages of the shim that wait; it says little.
const EVENTS: usize = 8;
/// Bytes of bubblewrap's complaint that are repeated.
const COMPLAINT: usize = 1024;

/// Who the agent is, inside. The numbers are those that bubblewrap maps.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\n";
const HOSTS: &str = "127.0.0.1 localhost ostler\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files\n";

/// A message of the shim with the descriptors that it brought.
pub(super) type Event = (FromShim, Vec<OwnedFd>);

/// How the agent ended, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By PID 1.
    Seen { code: i32, left_behind: u32 },
    /// PID 1 itself was killed: there is nobody to ask.
    Unseen,
}

impl Exit {
    /// The exit code; 137 (SIGKILL) for what nobody saw.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Seen { code, .. } => *code,
            Self::Unseen => 137,
        }
    }

    /// What people should know.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::Seen { left_behind: count @ 1.., .. } => {
                Some(format!("{count} processes outlived the agent and were killed"))
            }
            _ => None,
        }
    }
}

/// The agent's container. All of it ends when this is dropped.
#[derive(Debug)]
pub(in crate::harness) struct Cage {
    bwrap: Child,
    shim: Process,
    link: Link,
    events: mpsc::Receiver<Event>,
    seen: Option<Exit>,
}

impl Drop for Cage {
    fn drop(&mut self) {
        // PID 1 ends when its sidecar goes; and if it does not, it is ended, and its namespace with it.
        self.link.close();
        self.shim.kill();
    }
}

impl Cage {
    /// Starts bubblewrap and waits for its shim, which brings the listening socket of the forwarder.
    pub(super) async fn build(sidecar: &Sidecar) -> io::Result<(Self, TcpListener)> {
        let folder = &sidecar.folder;
        let listener = crate::harness::bind(&folder.shared().join(SOCKET))?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let complaints = folder.root().join("bwrap.log");
        let mut bwrap = spawn(sidecar, fs::File::create(&complaints)?)?;
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut stdin =
            bwrap.stdin.take().ok_or_else(|| io::Error::other("bubblewrap has no standard input"))?;
        stdin.write_all(nonce.as_bytes()).await?;
        drop(stdin);
        let stream = tokio::select! {
            connected = tokio::time::timeout(UP_TIME, listener.accept()) => connected??.0,
            status = bwrap.wait() => return Err(complaint(&complaints, status?)),
        };
        // One shim per run: nobody can come after it.
        drop(listener);
        fs::remove_file(folder.shared().join(SOCKET))?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let link = Link::new(stream);
        let shim = child_of(&bwrap, &link)?;
        let mut cage = Self { bwrap, shim, events: listen(link.try_clone()?)?, link, seen: None };
        match tokio::time::timeout(UP_TIME, cage.next()).await? {
            Some((FromShim::Hello { nonce: said }, descriptors)) if said == nonce => {
                let forwarder = descriptors.into_iter().next();
                let forwarder = forwarder.ok_or_else(|| io::Error::other("the shim brought no forwarder"))?;
                let forwarder = std::net::TcpListener::from(forwarder);
                forwarder.set_nonblocking(true)?;
                Ok((cage, TcpListener::from_std(forwarder)?))
            }
            _ => Err(io::Error::other("what connected is not the shim of this run")),
        }
    }

    /// The PID 1 inside, as this machine counts.
    pub(super) fn shim(&self) -> Process {
        self.shim
    }

    /// Tells the shim.
    pub(super) fn tell(&self, order: &ToShim) -> io::Result<()> {
        self.link.send(order, &[])
    }

    /// What the shim says next; `None` when it is gone.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the agent's end.
    pub(super) async fn exited(&mut self) -> Exit {
        if let Some(seen) = self.seen {
            return seen;
        }
        let seen = loop {
            match self.next().await {
                Some((FromShim::Exited { code, left_behind }, _)) => break Exit::Seen { code, left_behind },
                Some(_) => {}
                None => break Exit::Unseen,
            }
        };
        *self.seen.insert(seen)
    }

    /// Lets the container end, with the agent's exit code.
    pub(in crate::harness) async fn release(mut self) {
        let released = self.tell(&ToShim::Release);
        let status = tokio::time::timeout(DOWN_TIME, self.bwrap.wait()).await;
        match (released, status) {
            (Ok(()), Ok(Ok(status))) => {
                let expected = self.seen.map(|exit| exit.code() & 0xFF);
                if status.code() != expected {
                    tracing::warn!(
                        ?status,
                        ?expected,
                        "the container's exit code is not what its PID 1 reported"
                    );
                }
            }
            (released, status) => {
                tracing::warn!(?released, ?status, "the container did not end when released");
            }
        }
    }
}

fn spawn(sidecar: &Sidecar, complaints: fs::File) -> io::Result<Child> {
    let (folder, place) = (&sidecar.folder, &sidecar.place);
    let program = std::env::current_exe()?;
    fs::write(folder.shared().join("ostler"), "")?;
    let workspace = folder.workspace(place);
    private_dir(&workspace)?;
    let view = AgentView {
        host: &Host::look()?,
        program: &program,
        shared: &folder.shared(),
        etc: &own_etc(&folder.etc())?,
        workspace: (&workspace, &place.spec.workspace_dir),
        home: &folder.home(),
        tmp: &folder.tmp(),
        binds: &place.spec.binds,
    };
    Command::new("bwrap")
        .args(bubblewrap::agent(&view))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(complaints)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("bubblewrap (bwrap) cannot be started: {error}"))
        })
}

/// Writes our files of `/etc`.
fn own_etc(etc: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let files = [("passwd", PASSWD), ("group", GROUP), ("hosts", HOSTS), ("nsswitch.conf", NSSWITCH)];
    let write = |(name, content)| {
        let path = etc.join(name);
        fs::write(&path, content).map(|()| path)
    };
    files.into_iter().map(write).collect()
}

/// What bubblewrap said before it ended.
fn complaint(path: &std::path::Path, status: ExitStatus) -> io::Error {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(COMPLAINT)]).trim().replace('\n', "; ");
    io::Error::other(format!("bubblewrap ended with {status}: {text}"))
}

/// The process at the other end, which must be one that bubblewrap started for this user.
fn child_of(bwrap: &Child, link: &Link) -> io::Result<Process> {
    let peer = link.peer()?;
    let pid = peer.pid.as_raw_nonzero().get();
    let parent = bwrap.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotConnected)?;
    let below = process::descendants(parent)?;
    let found = below.iter().map(|entry| entry.process).find(|process| process.pid == pid);
    let found = found.filter(|_| peer.uid == rustix::process::getuid());
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::PermissionDenied, "a stranger connected in place of the shim")
    })
}

/// Reads the shim's messages in a thread of its own: descriptors come by blocking calls.
fn listen(link: Link) -> io::Result<mpsc::Receiver<Event>> {
    let (to, events) = mpsc::channel(EVENTS);
    thread::Builder::new().name("shim".to_owned()).spawn(move || {
        while let Ok(Some(event)) = link.receive() {
            if to.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}
