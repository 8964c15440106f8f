//! The agent: its container, its start, its watch, its end.

mod cage;
mod launch;
mod reading;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_stream::wrappers::TcpListenerStream;

use super::{
    canary::Canary,
    enforcement::{self, Enforcement, NotEnforceable},
    place::{Ground, Machine, PlaceFile, Rooms},
    pod::{self, Surroundings},
    sidecar::{AbortOnDrop, Brought, NotStarted, Sidecar},
    usage::{self, Passed, Watched},
    workspace,
};
use crate::{
    kinds::Reason,
    ports::workloads::{Stage, StopReason},
    proxy::{self, Dial, HostsFile, PROOF_PATH, Proxy, Resolver, tunnel::Client},
    report::{End, FinalRecord},
    shim::{
        FORWARDER, Walls,
        wire::{FromShim, Probe, ToShim},
    },
};

pub(super) use cage::Cage;
use reading::Reading;

/// How long the kernel may take to end processes that were killed.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How often the count of the proxy goes into the state, at most.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);

/// What SIGTERM to a pod means.
const DRAINED: &str = "the pod was told to end: its node is drained, or it was evicted or deleted";

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
    Drained,
}

/// Brings the agent from nothing to its end.
pub(super) async fn run(sidecar: &Arc<Sidecar>) -> Ended {
    let mut built = None;
    let prepared = tokio::select! {
        prepared = prepare(sidecar, &mut built) => prepared,
        refused = called_off(sidecar) => Err(refused),
    };
    match (prepared, built) {
        (Ok(prepared), Some(cage)) => prepared.watch(sidecar, cage).await,
        (Err(refused), built) => {
            // A container of our own ends at once; a pod's stays until the report is acknowledged.
            let cage = built.filter(|_| sidecar.place.pod().is_some());
            Ended { end: refused.into(), record: FinalRecord::default(), notes: Vec::new(), cage }
        }
        (Ok(_), None) => unreachable!("what is prepared is in its container"),
    }
}

/// Waits until the agent need not be started any more.
async fn called_off(sidecar: &Sidecar) -> NotStarted {
    let because = |reason, message: &str| NotStarted { reason, message: message.to_owned() };
    tokio::select! {
        stop = sidecar.stopped() => because(stop.reason(), "it was stopped before the agent was started"),
        () = sidecar.forsaken() => because(Reason::ControllerGone, "no controller came back; the agent was not started"),
        () = sidecar.drained() => because(Reason::Drained, DRAINED),
    }
}

/// An agent that runs.
struct Running {
    reading: Reading,
    watched: Watched,
    proxy: RunProxy,
}

/// The proxy of this run, for as long as the agent may use it.
struct RunProxy {
    proxy: Proxy,
    _tasks: [AbortOnDrop; 2],
}

/// Brings everything up. The container is in `built` as soon as there is one.
async fn prepare(sidecar: &Arc<Sidecar>, built: &mut Option<Cage>) -> Result<Running, NotStarted> {
    let place = &sidecar.place;
    let failed = |what| NotStarted::because(Reason::PlaceFailed, what);
    let Enforcement { walls, missing } = enforce(place)?;
    let given = secrets(sidecar).await?;
    let (cage, forwarder) = Cage::build(sidecar).await.map_err(failed("the agent's container"))?;
    let cage = built.insert(cage);
    sidecar.update(|state| {
        state.limits_not_enforced = Some(missing);
        state.shim = cage.shim();
    });
    let nonce = uuid::Uuid::new_v4().to_string();
    let proxy = start_proxy(sidecar, forwarder, &nonce)?;
    tracing::info!("the proof of egress begins");
    let proof = match place.pod() {
        None => prove(cage, &nonce).await?,
        Some(surroundings) => pod::prove(cage, surroundings, &client(surroundings)?, &nonce).await?,
    };
    sidecar.update(|state| {
        state.stage = Stage::Preparing;
        state.egress_proven = Some(proof);
        state.startup.egress_proven_ms = Some(milliseconds(sidecar.began.elapsed()));
    });
    let proven = std::time::Instant::now();
    tracing::info!(ms = milliseconds(sidecar.began.elapsed()), "the way out is proven closed");
    let base = workspace::write(sidecar, Arc::clone(&given)).await?;
    sidecar.update(|state| {
        state.base = base;
        state.startup.cloned_ms = Some(milliseconds(proven.elapsed()));
    });
    tracing::info!(ms = milliseconds(proven.elapsed()), "the workspace is written");
    let reading = start(sidecar, cage, &given, walls).await?;
    tracing::info!("the agent runs");
    let Rooms { workspace, home, tmp, .. } = sidecar.folder.rooms(place);
    let (meter, limits) = (cage.meter(), place.spec.limits);
    Ok(Running { reading, watched: Watched { meter, folders: vec![workspace, home, tmp], limits }, proxy })
}

/// How the limits are enforced.
fn enforce(place: &PlaceFile) -> Result<Enforcement, NotStarted> {
    let limits = &place.spec.limits;
    if place.pod().is_some() {
        return Ok(enforcement::in_pod(limits));
    }
    let cpus = usage::cpus().map_err(NotStarted::because(Reason::PlaceFailed, "the CPUs of this machine"))?;
    enforcement::plan(limits, &cpus, place.allow_unenforced)
        .map_err(NotStarted::because(NotEnforceable::REASON, "a limit cannot be enforced"))
}

/// The only way out of a pod.
fn client(surroundings: &Surroundings) -> Result<Client, NotStarted> {
    surroundings.client().map_err(NotStarted::because(Reason::PlaceFailed, "the egress proxy"))
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
    super::sidecar::rules(&sidecar.place.spec.egress)
        .map_err(|message| NotStarted { reason: Reason::InvalidSpec, message })?;
    let dial = match &sidecar.place.ground {
        Ground::Pod { pod } => Dial::Tunnel(client(pod)?),
        Ground::Machine(machine) => resolver(machine)?.into(),
    };
    let proxy = Proxy::new(sidecar.rules(), dial, proxy::Limits::default(), Some(nonce.to_owned()));
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

fn resolver(machine: &Machine) -> Result<Resolver, NotStarted> {
    const FILE: &str = "the file of egress hosts";
    let Some(path) = &machine.egress_hosts else { return Ok(Resolver::default()) };
    let text = std::fs::read_to_string(path).map_err(NotStarted::because(Reason::InvalidSpec, FILE))?;
    Ok(Resolver::new(HostsFile::parse(&text).map_err(NotStarted::because(Reason::InvalidSpec, FILE))?))
}

/// Has the shim try the ways out of a network namespace that has none.
async fn prove(cage: &mut Cage, nonce: &str) -> Result<String, NotStarted> {
    let failed = |what| NotStarted::because(Reason::EgressNotEnforced, what);
    let canary = Canary::listen().await.map_err(failed("the canary"))?;
    let probe = Probe {
        closed: canary.closed(),
        canary: None,
        silent: Vec::new(),
        dials: 1,
        pause_ms: 0,
        forwarder: FORWARDER.into(),
        proof_path: PROOF_PATH.to_owned(),
    };
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
    async fn watch(self, sidecar: &Arc<Sidecar>, mut cage: Cage) -> Ended {
        let spec = &sidecar.place.spec;
        let in_pod = sidecar.place.pod().is_some();
        let mut notes = Vec::new();
        let (cause, mut exit) = tokio::select! {
            exit = cage.exited() => (Cause::Itself, Some(exit)),
            stop = sidecar.stopped() => (Cause::Stop(stop), None),
            () = tokio::time::sleep(spec.timeout) => (Cause::TimeLimit, None),
            passed = self.watched.passed() => (Cause::Limit(passed), None),
            () = sidecar.forsaken(), if !in_pod => (Cause::Forsaken, None),
            () = sidecar.drained() => (Cause::Drained, None),
        };
        if exit.is_none() && !matches!(cause, Cause::Limit(_)) {
            let _ = cage.tell(&ToShim::Terminate);
            exit = tokio::time::timeout(spec.grace, cage.exited()).await.ok();
        }
        if exit.is_none() {
            let _ = cage.tell(&ToShim::Kill);
            exit = tokio::time::timeout(KILL_TIME, cage.exited()).await.ok();
        }
        let exit = exit.unwrap_or(cage::Exit::Unseen);
        notes.extend(exit.note());
        let (record, unread) = self.reading.finish(exit.code()).await;
        notes.extend(unread);
        let seen = (&*self.proxy.proxy.snapshots().borrow()).into();
        sidecar.update(|state| state.egress = seen);
        Ended { end: end(cause, exit, &self.watched), record, notes, cage: Some(cage) }
    }
}

fn end(cause: Cause, exit: cage::Exit, watched: &Watched) -> End {
    let code = exit.code();
    let ended = |reason, message: String| End::Ended { reason, message, code };
    match cause {
        Cause::Stop(by) => End::Stopped { by, code },
        Cause::TimeLimit => End::TimedOut { code },
        Cause::Limit(Passed { reason, message }) => ended(reason, message),
        Cause::Forsaken => ended(Reason::ControllerGone, "no controller came back in time".to_owned()),
        Cause::Drained => ended(Reason::Drained, DRAINED.to_owned()),
        Cause::Itself => match exit {
            cage::Exit::Unseen => killed_as_a_whole(watched, code),
            cage::Exit::Seen { out_of_memory: true, .. } if code != 0 => {
                let limit = watched.limits.memory_bytes.value;
                let message = format!(
                    "the kernel killed a process of the agent for want of memory; the limit is {limit} bytes"
                );
                ended(Reason::OutOfMemory, message)
            }
            // The wall of the file size may end a process before a look at the disk does.
            cage::Exit::Seen { .. } => match watched.disk().filter(|_| code != 0) {
                Some(Passed { reason, message }) => ended(reason, message),
                None => End::Exited { code },
            },
        },
    }
}

/// PID 1 is gone, too. A kernel that lacks memory for a container may be set to kill all of it, and nobody in there can say so.
fn killed_as_a_whole(watched: &Watched, code: i32) -> End {
    let (limit, last) = (watched.limits.memory_bytes.value, watched.meter.used().memory);
    let (reason, why) = if last > limit / 10 * 9 {
        (Reason::OutOfMemory, format!("it last used {last} bytes, the limit is {limit}"))
    } else {
        (Reason::PlaceFailed, "from outside".to_owned())
    };
    End::Ended { reason, message: format!("the agent's container was killed as a whole: {why}"), code }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
