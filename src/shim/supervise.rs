//! The shim's conversation with its sidecar.

use std::{
    io::{self, Read},
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use clap::Args;
use rustix::process::{DumpableBehavior, Pid, Signal};

use super::{
    launch, probe, reaper,
    wire::{FromShim, Link, Start, ToShim},
};

/// Most bytes of a nonce.
const NONCE_BYTES: u64 = 256;

/// Arguments of `ostler shim supervise`.
#[derive(Debug, Args)]
pub(super) struct SuperviseArgs {
    /// The sidecar's socket.
    #[arg(long)]
    socket: PathBuf,
}

/// Serves the sidecar until it releases the shim; the exit code is the agent's.
pub(super) fn run(args: &SuperviseArgs) -> io::Result<ExitCode> {
    // One uid can read another process' memory, environment and descriptors, unless that process says no (prctl(2)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut nonce = String::new();
    io::stdin().take(NONCE_BYTES).read_to_string(&mut nonce)?;
    let link = Arc::new(Link::new(UnixStream::connect(&args.socket)?));
    let forwarder = TcpListener::bind(probe::FORWARDER)?;
    link.send(&FromShim::Hello { nonce }, &[forwarder.as_fd()])?;
    Shim { link, agent: None, ended: Arc::default(), handed_over: vec![forwarder.into()] }.serve()
}

/// The shim's state. The descriptors are duplicates of those that were handed over.
struct Shim {
    link: Arc<Link>,
    agent: Option<Pid>,
    ended: Arc<Mutex<Option<i32>>>,
    handed_over: Vec<OwnedFd>,
}

impl Shim {
    /// When the sidecar is gone there is nobody to whom anything could be reported: PID 1 ends, and all with it.
    fn serve(mut self) -> io::Result<ExitCode> {
        while let Some((order, _)) = self.link.receive()? {
            match order {
                ToShim::Probe(probe) => self.link.send(&FromShim::Seen(probe::look(&probe)?), &[])?,
                ToShim::Start(start) => self.start(&start)?,
                ToShim::Terminate => self.terminate(),
                ToShim::Kill => reaper::kill_others()?,
                ToShim::Release => return Ok(self.exit_code()),
            }
        }
        Err(io::Error::other("the sidecar is gone"))
    }

    fn start(&mut self, start: &Start) -> io::Result<()> {
        if self.agent.is_some() {
            return self.link.send(&FromShim::NotStarted("it was started before".to_owned()), &[]);
        }
        match launch::start(start) {
            Err(error) => self.link.send(&FromShim::NotStarted(error.to_string()), &[]),
            Ok(agent) => {
                let ends: Vec<_> = agent.ends.iter().map(AsFd::as_fd).collect();
                self.link.send(&FromShim::Started, &ends)?;
                self.agent = Some(agent.pid);
                self.handed_over.extend(agent.ends);
                self.reap(agent.pid)
            }
        }
    }

    fn reap(&self, agent: Pid) -> io::Result<()> {
        let (link, ended) = (Arc::clone(&self.link), Arc::clone(&self.ended));
        let reaper = move || {
            let reaped = reaper::reap(agent);
            if let Ok(reaper::Ended { code, left_behind }) = reaped {
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
                if link.send(&FromShim::Exited { code, left_behind }, &[]).is_ok() {
                    return;
                }
            }
            // Without its reaper the shim is worth nothing; the other thread then ends the process.
            link.close();
        };
        thread::Builder::new().name("reaper".to_owned()).spawn(reaper).map(drop)
    }

    fn terminate(&self) {
        if let Some(group) = self.agent {
            // The group may have ended by itself.
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
        }
    }

    fn exit_code(&self) -> ExitCode {
        let code = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(u8::MAX))
    }
}
