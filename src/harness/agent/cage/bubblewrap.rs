//! A container that the sidecar makes itself, by bubblewrap.

use std::{
    fs, io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    process::{Child, Command},
};

use super::{Cage, Container, UP_TIME, Wire};
use crate::{
    harness::{
        bubblewrap::{self, AgentView, Host},
        place::private_dir,
        process::{self, Process},
        sidecar::Sidecar,
    },
    shim::wire::{FromShim, Link, SOCKET},
};

/// Bytes of bubblewrap's complaint that are repeated.
const COMPLAINT: usize = 1024;

/// Who the agent is, inside. The numbers are those that bubblewrap maps.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\n";
const HOSTS: &str = "127.0.0.1 localhost ostler\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files\n";

/// Starts bubblewrap and waits for its shim, which brings the listening socket of the forwarder.
pub(super) async fn build(sidecar: &Sidecar) -> io::Result<(Cage, TcpListener)> {
    let folder = &sidecar.folder;
    let socket = folder.rooms(&sidecar.place).shared.join(SOCKET);
    let listener = crate::harness::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let complaints = folder.root().join("bwrap.log");
    let mut bwrap = spawn(sidecar, fs::File::create(&complaints)?)?;
    let nonce = uuid::Uuid::new_v4().to_string();
    let mut stdin = bwrap.stdin.take().ok_or_else(|| io::Error::other("bubblewrap has no standard input"))?;
    stdin.write_all(nonce.as_bytes()).await?;
    drop(stdin);
    let stream = tokio::select! {
        connected = tokio::time::timeout(UP_TIME, listener.accept()) => connected??.0,
        status = bwrap.wait() => return Err(complaint(&complaints, status?)),
    };
    // One shim per run: nobody can come after it.
    drop(listener);
    fs::remove_file(socket)?;
    let link = super::link(stream)?;
    let shim = child_of(&bwrap, &link)?;
    let wire = Wire::listen(link, sidecar)?;
    let mut cage =
        Cage { container: Container::Bubblewrap { bwrap: Box::new(bwrap), shim }, wire, seen: None };
    match tokio::time::timeout(UP_TIME, cage.next()).await? {
        Some((FromShim::Hello { nonce: Some(said) }, descriptors)) if said == nonce => {
            let forwarder = descriptors.into_iter().next();
            let forwarder = forwarder.ok_or_else(|| io::Error::other("the shim brought no forwarder"))?;
            let forwarder = std::net::TcpListener::from(forwarder);
            forwarder.set_nonblocking(true)?;
            Ok((cage, TcpListener::from_std(forwarder)?))
        }
        _ => Err(io::Error::other("what connected is not the shim of this run")),
    }
}

fn spawn(sidecar: &Sidecar, complaints: fs::File) -> io::Result<Child> {
    let (folder, place) = (&sidecar.folder, &sidecar.place);
    let program = std::env::current_exe()?;
    let rooms = folder.rooms(place);
    fs::write(rooms.shared.join("ostler"), "")?;
    private_dir(&rooms.workspace)?;
    let view = AgentView {
        host: &Host::look()?,
        program: &program,
        shared: &rooms.shared,
        etc: &own_etc(&folder.etc())?,
        workspace: (&rooms.workspace, &place.spec.workspace_dir),
        home: &rooms.home,
        tmp: &rooms.tmp,
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
