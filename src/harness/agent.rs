//! The agent: its container, its start, its watch, its end.

mod cage;
mod launch;
mod reading;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_stream::wrappers::TcpListenerStream;

use super::{
    canary::Canary,
    enforcement::{self, NotEnforceable},
    sidecar::{AbortOnDrop, Brought, NotStarted, Sidecar},
    usage::{self, Passed, Watched},
    workspace,
};
use crate::{
    kinds::Reason,
    ports::workloads::{Stage, StopReason},
    proxy::{self, HostsFile, PROOF_PATH, Proxy, Resolver},
    report::{End, FinalRecord},
    shim::{
        Walls,
        wire::{FromShim, Probe, ToShim},
    },
};

pub(super) use cage::Cage;
use reading::Reading;

/// How long the kernel may take to end processes that were killed.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How often the count of the proxy goes into the state, at most.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);

/// How an agent ended.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) record: FinalRecord,
    pub(super) notes: Vec<String>,
    /// Its container, if there is one: it waits for its release.
    pub(super) cage: Option<Cage>,
}

/// Why somebody ended the agent.
enum Cause {
    Itself,
    Stop(StopReason),
    TimeLimit,
    Limit(Passed),
    Forsaken,
}

/// Brings the agent from nothing to its end.
pub(super) async fn run(sidecar: &Arc<Sidecar>) -> Ended {
    let prepared = tokio::select! {
        prepared = prepare(sidecar) => prepared,
        refused = called_off(sidecar) => Err(refused),
    };
    match prepared {
        Ok(prepared) => prepared.watch(sidecar).await,
        Err(refused) => {
            let record = FinalRecord::default();
            Ended { end: refused.into(), record, notes: Vec::new(), cage: None }
        }
    }
}

/// Waits until the agent need not be started any more.
async fn called_off(sidecar: &Sidecar) -> NotStarted {
    let because = |reason, message: &str| NotStarted { reason, message: message.to_owned() };
    tokio::select! {
        stop = sidecar.stopped() => because(stop.reason(), "it was stopped before the agent was started"),
        () = sidecar.forsaken() => because(Reason::ControllerGone, "no controller came back; the agent was not started"),
    }
}

/// An agent that runs.
struct Running {
    cage: Cage,
    reading: Reading,
    watched: Watched,
    proxy: RunProxy,
}

/// The proxy of this run, for as long as the agent may use it.
struct RunProxy {
    proxy: Proxy,
    _tasks: [AbortOnDrop; 2],
}

async fn prepare(sidecar: &Arc<Sidecar>) -> Result<Running, NotStarted> {
    let place = &sidecar.place;
    let failed = |what| NotStarted::because(Reason::PlaceFailed, what);
    let cpus = usage::cpus().map_err(failed("the CPUs of this machine"))?;
    let enforcement = enforcement::plan(&place.spec.limits, &cpus, place.allow_unenforced)
        .map_err(NotStarted::because(NotEnforceable::REASON, "a limit cannot be enforced"))?;
    let given = secrets(sidecar).await?;
    let (mut cage, forwarder) = Cage::build(sidecar).await.map_err(failed("the agent's container"))?;
    sidecar.update(|state| {
        state.limits_not_enforced = Some(enforcement.missing);
        state.shim = Some(cage.shim());
    });
    let nonce = uuid::Uuid::new_v4().to_string();
    let proxy = start_proxy(sidecar, forwarder, &nonce)?;
    let proof = prove(&mut cage, &nonce).await?;
    sidecar.update(|state| {
        state.stage = Stage::Preparing;
        state.egress_proven = Some(proof);
        state.startup.egress_proven_ms = Some(milliseconds(sidecar.began.elapsed()));
    });
    let proven = std::time::Instant::now();
    let base = workspace::write(sidecar, Arc::clone(&given)).await?;
    sidecar.update(|state| {
        state.base = base;
        state.startup.cloned_ms = Some(milliseconds(proven.elapsed()));
    });
    let reading = start(sidecar, &mut cage, &given, enforcement.walls).await?;
    let folders = vec![sidecar.folder.workspace(place), sidecar.folder.home(), sidecar.folder.tmp()];
    let watched = Watched { shim: cage.shim().pid, folders, limits: place.spec.limits };
    Ok(Running { cage, reading, watched, proxy })
}

/// Waits for the secrets, or for the news that there are none.
async fn secrets(sidecar: &Sidecar) -> Result<Brought, NotStarted> {
    let mut given = sidecar.given();
    let given = given.wait_for(Option::is_some).await.ok().and_then(|given| given.clone());
    let Some(given) = given else { return std::future::pending().await };
    match given.as_ref() {
        Ok(_) => Ok(given),
        Err(denied) => Err(denied.into()),
    }
}

/// Starts the proxy behind the forwarder's socket, and the count of what it sees.
fn start_proxy(
    sidecar: &Arc<Sidecar>,
    forwarder: tokio::net::TcpListener,
    nonce: &str,
) -> Result<RunProxy, NotStarted> {
    const FILE: &str = "the file of egress hosts";
    super::sidecar::rules(&sidecar.place.spec.egress)
        .map_err(|message| NotStarted { reason: Reason::InvalidSpec, message })?;
    let resolver = match &sidecar.place.egress_hosts {
        None => Resolver::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(NotStarted::because(Reason::InvalidSpec, FILE))?;
            Resolver::new(HostsFile::parse(&text).map_err(NotStarted::because(Reason::InvalidSpec, FILE))?)
        }
    };
    let proxy = Proxy::new(sidecar.rules(), resolver, proxy::Limits::default(), Some(nonce.to_owned()));
    let mut snapshots = proxy.snapshots();
    let served = proxy.clone();
    let serving = tokio::spawn(async move { served.serve(TcpListenerStream::new(forwarder)).await });
    let counted = Arc::clone(sidecar);
    let counting = tokio::spawn(async move {
        while snapshots.changed().await.is_ok() {
            let seen = (&*snapshots.borrow_and_update()).into();
            counted.update(|state| state.egress = seen);
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    });
    let tasks = [AbortOnDrop(serving.abort_handle()), AbortOnDrop(counting.abort_handle())];
    Ok(RunProxy { proxy, _tasks: tasks })
}

/// Has the shim try the ways out.
async fn prove(cage: &mut Cage, nonce: &str) -> Result<String, NotStarted> {
    let failed = |what| NotStarted::because(Reason::EgressNotEnforced, what);
    let canary = Canary::listen().await.map_err(failed("the canary"))?;
    let probe = Probe { closed: canary.closed(), proof_path: PROOF_PATH.to_owned() };
    cage.tell(&ToShim::Probe(probe)).map_err(failed("the probe"))?;
    match cage.next().await {
        Some((FromShim::Seen(seen), _)) => canary
            .judge(&seen, nonce)
            .map_err(|message| NotStarted { reason: Reason::EgressNotEnforced, message }),
        _ => Err(NotStarted {
            reason: Reason::EgressNotEnforced,
            message: "the shim ended before it proved anything".to_owned(),
        }),
    }
}

/// Starts the agent. From here on it has run, whatever comes.
async fn start(
    sidecar: &Arc<Sidecar>,
    cage: &mut Cage,
    given: &Brought,
    walls: Walls,
) -> Result<Reading, NotStarted> {
    let failed = |message: String| NotStarted { reason: Reason::PlaceFailed, message };
    let given = given.as_ref().as_ref().map_err(NotStarted::from)?;
    let start = launch::describe(&sidecar.place, given, walls)?;
    sidecar.update(|state| {
        state.stage = Stage::Running;
        state.started_at = Some(Timestamp::now());
    });
    let result = match cage.tell(&ToShim::Start(start)) {
        Err(error) => Err(failed(format!("the shim is gone: {error}"))),
        Ok(()) => match cage.next().await {
            Some((FromShim::Started, ends)) => {
                Reading::start(sidecar, ends).map_err(|error| failed(error.to_string()))
            }
            Some((FromShim::NotStarted(why), _)) => {
                Err(failed(format!("the agent cannot be started: {why}")))
            }
            _ => Err(failed("the shim ended".to_owned())),
        },
    };
    if result.is_err() {
        sidecar.update(|state| state.started_at = None);
    }
    result
}

impl Running {
    /// Watches the agent to its end.
    async fn watch(mut self, sidecar: &Arc<Sidecar>) -> Ended {
        let spec = &sidecar.place.spec;
        let mut notes = Vec::new();
        let (cause, mut exit) = tokio::select! {
            exit = self.cage.exited() => (Cause::Itself, Some(exit)),
            stop = sidecar.stopped() => (Cause::Stop(stop), None),
            () = tokio::time::sleep(spec.timeout) => (Cause::TimeLimit, None),
            passed = self.watched.passed() => (Cause::Limit(passed), None),
            () = sidecar.forsaken() => (Cause::Forsaken, None),
        };
        if exit.is_none() && !matches!(cause, Cause::Limit(_)) {
            let _ = self.cage.tell(&ToShim::Terminate);
            exit = tokio::time::timeout(spec.grace, self.cage.exited()).await.ok();
        }
        if exit.is_none() {
            let _ = self.cage.tell(&ToShim::Kill);
            exit = tokio::time::timeout(KILL_TIME, self.cage.exited()).await.ok();
        }
        let exit = exit.unwrap_or(cage::Exit::Unseen);
        notes.extend(exit.note());
        let (record, unread) = self.reading.finish(exit.code()).await;
        notes.extend(unread);
        let seen = (&*self.proxy.proxy.snapshots().borrow()).into();
        sidecar.update(|state| state.egress = seen);
        Ended { end: end(cause, exit, &self.watched), record, notes, cage: Some(self.cage) }
    }
}

fn end(cause: Cause, exit: cage::Exit, watched: &Watched) -> End {
    let code = exit.code();
    match cause {
        Cause::Stop(by) => End::Stopped { by, code },
        Cause::TimeLimit => End::TimedOut { code },
        Cause::Limit(Passed { reason, message }) => End::Ended { reason, message, code },
        Cause::Forsaken => {
            let message = "no controller came back in time".to_owned();
            End::Ended { reason: Reason::ControllerGone, message, code }
        }
        Cause::Itself if exit == cage::Exit::Unseen => End::Ended {
            reason: Reason::PlaceFailed,
            message: "the agent's container was killed from outside".to_owned(),
            code,
        },
        // The wall of the file size may end a process before a look at the disk does.
        Cause::Itself => match watched.disk().filter(|_| code != 0) {
            Some(Passed { reason, message }) => End::Ended { reason, message, code },
            None => End::Exited { code },
        },
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
