//! The agent's container, and the shim in it.

mod bubblewrap;
mod kubelet;

use std::{io, os::fd::OwnedFd, thread, time::Duration};

use tokio::{
    net::{TcpListener, UnixStream},
    process::Child,
    sync::{mpsc, watch},
};

use crate::{
    harness::{process::Process, sidecar::Sidecar, usage::Meter},
    shim::wire::{Collect, FromShim, Link, ToShim, Used},
};

/// How long bubblewrap and shim may take to come up; 0.13 s is usual.
const UP_TIME: Duration = Duration::from_secs(30);
/// How long the container may take to end after its release.
const DOWN_TIME: Duration = Duration::from_secs(10);
/// Messages of the shim that wait; it says little.
const EVENTS: usize = 8;

/// A message of the shim with the descriptors that it brought.
pub(super) type Event = (FromShim, Vec<OwnedFd>);

/// How the agent ended, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By PID 1.
    Seen { code: i32, left_behind: u32, out_of_memory: bool },
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

/// The agent's container. All of it ends when this is dropped, but in a pod its PID 1.
#[derive(Debug)]
pub(in crate::harness) struct Cage {
    container: Container,
    wire: Wire,
    seen: Option<Exit>,
}

/// Who made it.
#[derive(Debug)]
enum Container {
    /// We did; its PID 1, as this machine counts.
    Bubblewrap { bwrap: Box<Child>, shim: Process },
    /// A kubelet.
    Pod,
}

impl Drop for Cage {
    fn drop(&mut self) {
        // The shim ends the agent when its sidecar goes; and if it does not, it is ended, and its namespace with it.
        self.wire.link.close();
        if let Container::Bubblewrap { shim, .. } = &self.container {
            shim.kill();
        }
    }
}

impl Cage {
    /// Waits for a shim, and gives the listening socket of the forwarder.
    pub(super) async fn build(sidecar: &Sidecar) -> io::Result<(Self, TcpListener)> {
        match sidecar.place.pod() {
            Some(surroundings) => kubelet::build(sidecar, surroundings).await,
            None => bubblewrap::build(sidecar).await,
        }
    }

    /// Waits for the shim of a pod whose agent was never started, or has ended: to be released, at last.
    pub(in crate::harness) async fn join(sidecar: &Sidecar) -> io::Result<Self> {
        kubelet::join(sidecar).await
    }

    /// The PID 1 inside, as this machine counts; of a pod it cannot be seen.
    pub(super) fn shim(&self) -> Option<Process> {
        match &self.container {
            Container::Bubblewrap { shim, .. } => Some(*shim),
            Container::Pod => None,
        }
    }

    /// Who says what the processes inside use.
    pub(super) fn meter(&self) -> Meter {
        match &self.container {
            Container::Bubblewrap { shim, .. } => Meter::Below(shim.pid),
            Container::Pod => Meter::Shim(self.wire.used.clone()),
        }
    }

    /// Tells the shim.
    pub(in crate::harness) fn tell(&self, order: &ToShim) -> io::Result<()> {
        self.wire.link.send(order, &[])
    }

    /// What the shim says next; `None` when it is gone.
    pub(in crate::harness) async fn next(&mut self) -> Option<Event> {
        self.wire.events.recv().await
    }

    /// Waits for the agent's end.
    pub(super) async fn exited(&mut self) -> Exit {
        if let Some(seen) = self.seen {
            return seen;
        }
        let seen = loop {
            match self.next().await {
                Some((FromShim::Exited { code, left_behind, out_of_memory }, _)) => {
                    break Exit::Seen { code, left_behind, out_of_memory };
                }
                Some(_) => {}
                None => break Exit::Unseen,
            }
        };
        *self.seen.insert(seen)
    }

    /// Has what the agent left read by a process of its own container, where there is nothing to be found.
    pub(in crate::harness) async fn collect(&mut self, collect: Collect) -> io::Result<()> {
        self.tell(&ToShim::Collect(collect))?;
        loop {
            match self.next().await {
                Some((FromShim::Collected(collected), _)) => return collected.map_err(io::Error::other),
                Some(_) => {}
                None => return Err(io::Error::other("the agent's container is gone")),
            }
        }
    }

    /// Lets the container end, with the agent's exit code.
    pub(in crate::harness) async fn release(mut self) {
        let released = self.tell(&ToShim::Release);
        match &mut self.container {
            Container::Bubblewrap { bwrap, .. } => {
                let status = tokio::time::timeout(DOWN_TIME, bwrap.wait()).await;
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
            // The kubelet sees how it ends. Until it has read that it is released, the connection stays.
            Container::Pod => {
                let gone = async { while self.wire.events.recv().await.is_some() {} };
                let _ = tokio::time::timeout(DOWN_TIME, gone).await;
            }
        }
    }
}

/// The connection to the shim.
#[derive(Debug)]
struct Wire {
    link: Link,
    events: mpsc::Receiver<Event>,
    used: watch::Receiver<Used>,
}

impl Wire {
    /// Reads the shim's messages in a thread of its own: descriptors come by blocking calls.
    fn listen(link: Link, sidecar: &Sidecar) -> io::Result<Self> {
        let (to, events) = mpsc::channel(EVENTS);
        let (use_of, used) = watch::channel(Used::default());
        let (ear, drain) = (link.try_clone()?, sidecar.drain());
        let listen = move || {
            while let Ok(Some((message, descriptors))) = ear.receive() {
                match message {
                    // These two come at any time, and nobody waits for them in turn.
                    FromShim::Used(now) => drop(use_of.send_replace(now)),
                    FromShim::Terminating => drop(drain.send_replace(true)),
                    message => {
                        if to.blocking_send((message, descriptors)).is_err() {
                            return;
                        }
                    }
                }
            }
        };
        thread::Builder::new().name("shim".to_owned()).spawn(listen)?;
        Ok(Self { link, events, used })
    }
}

/// The shim's connection, for blocking calls.
fn link(stream: UnixStream) -> io::Result<Link> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(Link::new(stream))
}
