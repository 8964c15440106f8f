//! The shim's conversation with its sidecar.

use std::{
    io::{self, Read},
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Args;
use rustix::process::{DumpableBehavior, Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    launch, memory, meter, probe, reaper,
    wire::{Collect, FromShim, Link, SOCKET, Start, ToShim},
};

/// Most bytes of a nonce.
const NONCE_BYTES: u64 = 256;
/// How long to wait for the sidecar of a pod.
const SIDECAR_TIME: Duration = Duration::from_hours(1);
/// The first pause between two looks for it; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Exit code of a process that SIGTERM ended.
const TERMINATED: u8 = 128 + 15;
/// Bytes of the collector's complaint that are repeated.
const COMPLAINT: u64 = 1024;

/// Arguments of `ostler shim supervise`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SuperviseArgs {
    /// Under bubblewrap: the sidecar's socket; standard input brings the nonce.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// In a pod: the directory in which the sidecar's socket will be.
    #[arg(long)]
    shared: Option<PathBuf>,
}

/// Serves the sidecar until it releases the shim; the exit code is the agent's.
pub(super) fn run(args: &SuperviseArgs) -> io::Result<ExitCode> {
    // It will kill every process that it sees.
    if rustix::process::getpid() != Pid::INIT {
        return Err(io::Error::other("the shim must be PID 1 of its container"));
    }
    // One uid can read another process' memory, environment and descriptors, unless that process says no (prctl(2)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    match (&args.socket, &args.shared) {
        (Some(socket), _) => under_bubblewrap(socket),
        (None, Some(shared)) => in_pod(shared),
        (None, None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn under_bubblewrap(socket: &Path) -> io::Result<ExitCode> {
    let mut nonce = String::new();
    io::stdin().take(NONCE_BYTES).read_to_string(&mut nonce)?;
    let link = Arc::new(Link::new(UnixStream::connect(socket)?));
    let forwarder = TcpListener::bind(probe::FORWARDER)?;
    link.send(&FromShim::Hello { nonce: Some(nonce) }, &[forwarder.as_fd()])?;
    let mut shim = Shim::new(link);
    shim.handed_over.push(forwarder.into());
    match shim.obey()? {
        Some(code) => Ok(code),
        // There is nobody to whom anything could be reported: PID 1 ends, and all with it.
        None => Err(io::Error::other("the sidecar is gone")),
    }
}

fn in_pod(shared: &Path) -> io::Result<ExitCode> {
    let terminated = ExitCode::from(TERMINATED);
    let sigterm = Sigterm::heed()?;
    tracing::info!("the shim waits for its sidecar");
    let Some(link) = sigterm.join(shared)? else { return Ok(terminated) };
    tracing::info!("the sidecar is there");
    let mut shim = Shim::new(link);
    loop {
        // An error is a connection that broke: the same as one that ended.
        if let Ok(Some(code)) =
            shim.link.send(&FromShim::Hello { nonce: None }, &[]).and_then(|()| shim.obey())
        {
            tracing::info!("the result is acknowledged; the container ends");
            return Ok(code);
        }
        tracing::warn!(
            "the sidecar is gone: the agent is ended, if it runs, and the next sidecar waited for"
        );
        sigterm.tell(None);
        shim.end_agent()?;
        match sigterm.join(shared)? {
            Some(link) => {
                tracing::info!("the sidecar is back");
                shim.link = link;
            }
            None => return Ok(terminated),
        }
    }
}

/// SIGTERM is for the sidecar to decide on, which knows the agent's grace and collects its work; without one the container just ends.
#[derive(Clone, Default)]
struct Sigterm {
    sidecar: Arc<Mutex<Option<Arc<Link>>>>,
    came: Arc<AtomicBool>,
}

impl Sigterm {
    /// Heeds it from now on: PID 1 has no default for it.
    fn heed() -> io::Result<Self> {
        let this = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut terminate = {
            let _entered = runtime.enter();
            signal(SignalKind::terminate())?
        };
        let heed = this.clone();
        let pass_on = move || {
            while runtime.block_on(terminate.recv()).is_some() {
                tracing::info!("SIGTERM is passed on to the sidecar");
                heed.came.store(true, Ordering::SeqCst);
                let sidecar = heed.sidecar.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // One that breaks now is noticed by whoever reads from it.
                sidecar.map(|link| link.send(&FromShim::Terminating, &[]));
            }
        };
        thread::Builder::new().name("sigterm".to_owned()).spawn(pass_on)?;
        Ok(this)
    }

    /// Whom to tell.
    fn tell(&self, link: Option<&Arc<Link>>) {
        *self.sidecar.lock().unwrap_or_else(PoisonError::into_inner) = link.cloned();
    }

    /// Waits for the sidecar's socket, and connects; `None`: it is not worth waiting any more.
    fn join(&self, shared: &Path) -> io::Result<Option<Arc<Link>>> {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        while !self.came.load(Ordering::SeqCst) {
            match UnixStream::connect(shared.join(SOCKET)) {
                Ok(stream) => {
                    let link = Arc::new(Link::new(stream));
                    self.tell(Some(&link));
                    if self.came.load(Ordering::SeqCst) {
                        // It may have come when there was nobody to be told yet.
                        link.send(&FromShim::Terminating, &[])?;
                    }
                    return Ok(Some(link));
                }
                Err(error) if began.elapsed() > SIDECAR_TIME => return Err(error),
                Err(_) => thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(None)
    }
}

/// The shim's state. The descriptors are duplicates of those that were handed over.
struct Shim {
    link: Arc<Link>,
    agent: Option<Pid>,
    reaper: Option<JoinHandle<()>>,
    ended: Arc<Mutex<Option<i32>>>,
    handed_over: Vec<OwnedFd>,
    /// What the kernel had killed before.
    killed: Option<u64>,
}

impl Shim {
    fn new(link: Arc<Link>) -> Self {
        let (ended, killed) = (Arc::default(), memory::killed());
        Self { link, agent: None, reaper: None, ended, handed_over: Vec::new(), killed }
    }

    /// Does what the sidecar says until it releases the shim; `None`: it is gone.
    fn obey(&mut self) -> io::Result<Option<ExitCode>> {
        while let Some((order, _)) = self.link.receive()? {
            match order {
                ToShim::Probe(probe) => self.link.send(&FromShim::Seen(probe::look(&probe)?), &[])?,
                ToShim::Start(start) => self.start(&start)?,
                ToShim::Terminate => self.terminate(),
                ToShim::Kill => reaper::kill_others()?,
                ToShim::Collect(collect) => self.collect(collect)?,
                ToShim::Release => return Ok(Some(self.exit_code())),
            }
        }
        Ok(None)
    }

    fn start(&mut self, start: &Start) -> io::Result<()> {
        if self.agent.is_some() {
            return self.link.send(&FromShim::NotStarted("it was started before".to_owned()), &[]);
        }
        match launch::start(start) {
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the agent cannot be started");
                self.link.send(&FromShim::NotStarted(error.to_string()), &[])
            }
            Ok(agent) => {
                tracing::info!(pid = agent.pid.as_raw_nonzero(), "the agent is started");
                let ends: Vec<_> = agent.ends.iter().map(AsFd::as_fd).collect();
                let told = self.link.send(&FromShim::Started, &ends);
                self.agent = Some(agent.pid);
                self.handed_over.extend(agent.ends);
                // Even if nobody was told: it is to be ended then, and collected.
                self.reap(agent.pid)?;
                told?;
                if start.measure {
                    let ended = Arc::clone(&self.ended);
                    let alive = move || ended.lock().unwrap_or_else(PoisonError::into_inner).is_none();
                    meter::start(Arc::clone(&self.link), alive)?;
                }
                Ok(())
            }
        }
    }

    fn reap(&mut self, agent: Pid) -> io::Result<()> {
        let (link, ended, before) = (Arc::clone(&self.link), Arc::clone(&self.ended), self.killed);
        let reaper = move || {
            let reaped = reaper::reap(agent);
            if let Ok(reaper::Ended { code, left_behind }) = reaped {
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
                let out_of_memory = memory::killed() > before;
                tracing::info!(code, left_behind, out_of_memory, "the agent has ended");
                if link.send(&FromShim::Exited { code, left_behind, out_of_memory }, &[]).is_ok() {
                    return;
                }
            }
            // Without its reaper the shim is worth nothing; the other thread then ends the process.
            link.close();
        };
        self.reaper = Some(thread::Builder::new().name("reaper".to_owned()).spawn(reaper)?);
        Ok(())
    }

    fn terminate(&self) {
        if let Some(group) = self.agent {
            // The group may have ended by itself.
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
        }
    }

    /// Ends the agent and waits until nothing of it is left.
    fn end_agent(&mut self) -> io::Result<()> {
        reaper::kill_others()?;
        match self.reaper.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(io::Error::other("the reaper panicked")),
            _ => Ok(()),
        }
    }

    /// Has a process of its own read what the agent left: it is exposed to that, as nothing else of ours.
    fn collect(&self, collect: Collect) -> io::Result<()> {
        let link = Arc::clone(&self.link);
        let work = move || {
            let collected = collected(&collect).and_then(|()| reaper::kill_others());
            // A sidecar that is gone has nobody to be told.
            let _ = link.send(&FromShim::Collected(collected.map_err(|error| error.to_string())), &[]);
        };
        thread::Builder::new().name("collect".to_owned()).spawn(work).map(drop)
    }

    fn exit_code(&self) -> ExitCode {
        let code = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(u8::MAX))
    }
}

fn collected(collect: &Collect) -> io::Result<()> {
    let mut complaints = tempfile::tempfile_in(&collect.out)?;
    let status = Command::new(std::env::current_exe()?)
        .args(["harness", "collect", "--workspace", &collect.workspace, "--out", &collect.out])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints.try_clone()?)
        .status()?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    io::Seek::rewind(&mut complaints)?;
    // What is not text says nothing.
    let _ = complaints.take(COMPLAINT).read_to_string(&mut text);
    Err(io::Error::other(format!("the collector ended with {status}: {}", text.trim())))
}
