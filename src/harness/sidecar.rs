//! The way of a run, from its place to the acknowledged result.

mod lifetime;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{net::UnixListener, sync::watch, task::AbortHandle};

use super::{
    control::{self, Answer, Denied, Given, Request},
    delivery,
    output::Output,
    place::{Folder, PlaceFile, State},
    process::Process,
};
use crate::{
    egress::Ruleset,
    kinds::Reason,
    ports::workloads::{NamedPolicy, Stage, StopReason},
    report::End,
};
use lifetime::Course;

/// How often to look whether the folder is still there.
const FOLDER_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait for the lock: a look at it holds it for a moment.
const LOCK_TIME: Duration = Duration::from_secs(2);

/// Why the agent was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct NotStarted {
    /// As a reason of the run.
    pub(super) reason: Reason,
    /// For people: what to do.
    pub(super) message: String,
}

impl NotStarted {
    /// For `map_err`: the error and all its sources in one line.
    pub(super) fn because<E: std::error::Error>(
        reason: Reason,
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| {
            let mut message = format!("{what}: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                message = format!("{message}: {error}");
                source = error.source();
            }
            Self { reason, message }
        }
    }
}

impl From<NotStarted> for End {
    fn from(NotStarted { reason, message }: NotStarted) -> Self {
        Self::NotStarted { reason, message }
    }
}

impl From<&Denied> for NotStarted {
    fn from(Denied { reason, message, .. }: &Denied) -> Self {
        Self { reason: *reason, message: message.clone() }
    }
}

/// What a controller brought: the secrets, or why there are none.
pub(super) type Brought = Arc<Result<Given, Denied>>;

/// What the parts of a sidecar share.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) folder: Folder,
    pub(super) place: PlaceFile,
    pub(super) began: Instant,
    state: watch::Sender<State>,
    given: watch::Sender<Option<Brought>>,
    stop: watch::Sender<Option<StopReason>>,
    drain: watch::Sender<bool>,
    rules: watch::Sender<Arc<Ruleset>>,
    controllers: watch::Sender<usize>,
    output: Output,
}

/// Runs the sidecar of a place to its end.
pub(super) async fn run(folder: Folder) -> anyhow::Result<()> {
    let _lock = lock(&folder).await?;
    let place = folder.place().context("place.json")?;
    let Some((state, course)) = course(&folder, &place)? else { return Ok(()) };
    folder.write_state(&state)?;
    let output = match course {
        Course::Fresh => Output::create(&folder, place.terminal)?,
        _ => Output::open(&folder)?,
    };
    let rules = watch::Sender::new(Arc::new(rules(&place.spec.egress).unwrap_or_default()));
    let sidecar = Arc::new(Sidecar {
        folder,
        place,
        began: Instant::now(),
        state: watch::Sender::new(state),
        given: watch::Sender::default(),
        stop: watch::Sender::default(),
        drain: watch::Sender::default(),
        rules,
        controllers: watch::Sender::default(),
        output,
    });
    let (run, place) = (&sidecar.place.spec.run, &sidecar.place.uid);
    tracing::info!(%run, uid = %run.uid, %place, course = ?course, version = env!("CARGO_PKG_VERSION"), "the sidecar begins");
    let listener = super::bind(&sidecar.folder.control()).context("the control socket")?;
    listener.set_nonblocking(true)?;
    let serving = tokio::spawn(control::serve(UnixListener::from_std(listener)?, Arc::clone(&sidecar)));
    let _serving = AbortOnDrop(serving.abort_handle());
    let _ending = sidecar.place.pod().map(|_| lifetime::heed_sigterm(sidecar.drain())).transpose()?;
    tokio::select! {
        lived = lifetime::live(&sidecar, course) => lived,
        // Whatever ran ends with the future that is dropped here.
        () = sidecar.folder_gone() => Ok(()),
    }
}

/// What a sidecar finds of its place, and what is left to do; `None`: nothing.
fn course(folder: &Folder, place: &PlaceFile) -> anyhow::Result<Option<(State, Course)>> {
    let sidecar = Process::own()?;
    let Some(state) = folder.state().context("state.json")? else {
        return Ok(Some((State::new(sidecar), Course::Fresh)));
    };
    let state = State { sidecar, ..state };
    // It ran before: nothing is started twice.
    let course = match (place.pod().is_some(), state.stage) {
        (_, Stage::Delivering) if delivery::is_ready(folder) => Course::Packed,
        (false, _) => return Ok(None),
        (true, Stage::Released) => Course::Over,
        (true, _) if delivery::is_ready(folder) => Course::Packed,
        (true, _) => Course::Interrupted,
    };
    Ok(Some((state, course)))
}

async fn lock(folder: &Folder) -> anyhow::Result<fs::File> {
    let deadline = Instant::now() + LOCK_TIME;
    loop {
        match folder.lock().context("the lock of the place")? {
            Some(lock) => return Ok(lock),
            None if Instant::now() > deadline => anyhow::bail!("the place has a sidecar"),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Ends a task with whoever needs it.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The policies of a run as the proxy reads them; the faults as text.
pub(super) fn rules(policies: &[NamedPolicy]) -> Result<Ruleset, String> {
    let named = policies.iter().map(|policy| (policy.name.as_str(), &policy.spec));
    Ruleset::parse(named, Vec::new()).map_err(|faults| {
        let texts: Vec<_> = faults.iter().map(|fault| format!("{fault}: {}", fault.fault)).collect();
        texts.join("; ")
    })
}

impl Sidecar {
    async fn folder_gone(&self) {
        let inode = || fs::metadata(self.folder.root().join("place.json")).map(|found| found.ino()).ok();
        let first = inode();
        while first.is_some() && inode() == first {
            tokio::time::sleep(FOLDER_INTERVAL).await;
        }
    }

    /// Changes the state, for the file and then for whoever watches: who is told of a change looks at the file.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            if let Err(error) = self.folder.write_state(state) {
                tracing::error!(%error, "the state of the place cannot be written");
            }
        });
    }

    /// The state, and its changes.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The secrets once they are there.
    pub(super) fn given(&self) -> watch::Receiver<Option<Brought>> {
        self.given.subscribe()
    }

    /// Asks for other secrets in place of these, which are of no use.
    pub(super) fn forget(&self, useless: &Brought) {
        self.given.send_if_modified(|given| given.take_if(|given| Arc::ptr_eq(given, useless)).is_some());
    }

    /// The policies in force.
    pub(super) fn rules(&self) -> watch::Receiver<Arc<Ruleset>> {
        self.rules.subscribe()
    }

    /// What the agent wrote.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Carries out a request that needs no more than an answer.
    pub(super) fn carry_out(&self, request: Request) -> Answer {
        match request {
            Request::Provide(given) => {
                tracing::info!("the run's secrets are there");
                self.given.send_replace(Some(Arc::new(Ok(*given))));
            }
            Request::Deny(denied) => {
                tracing::warn!(reason = %denied.reason, "the run's secrets cannot be had");
                self.given.send_replace(Some(Arc::new(Err(*denied))));
            }
            Request::Stop(reason) => {
                if self.stop.send_if_modified(|stop| stop.is_none() && stop.replace(reason).is_none()) {
                    tracing::info!(reason = %reason.reason(), "the agent is to end");
                }
            }
            Request::Egress(policies) => match rules(&policies) {
                Ok(rules) => {
                    tracing::info!(policies = policies.len(), "other egress policies are in force");
                    self.rules.send_replace(Arc::new(rules));
                    self.update(|state| state.policies = Some(policies));
                }
                Err(faults) => return Answer::Refused(faults),
            },
            Request::Logs(_) | Request::Watch => return Answer::Refused("a stream is needed".to_owned()),
        }
        Answer::Done
    }

    /// By which the whole place is told to end.
    pub(super) fn drain(&self) -> watch::Sender<bool> {
        self.drain.clone()
    }

    /// Waits until the whole place is told to end.
    pub(super) async fn drained(&self) {
        if self.drain.subscribe().wait_for(|drained| *drained).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts a controller for as long as the guard lives.
    pub(super) fn controller_came(&self) -> impl Drop + '_ {
        struct Here<'a>(&'a watch::Sender<usize>);
        impl Drop for Here<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|count| *count -= 1);
            }
        }
        self.controllers.send_modify(|count| *count += 1);
        Here(&self.controllers)
    }

    /// Waits until somebody wants the agent to end.
    pub(super) async fn stopped(&self) -> StopReason {
        let mut stop = self.stop.subscribe();
        let stopped = stop.wait_for(Option::is_some).await.ok().and_then(|reason| *reason);
        match stopped {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Waits until no controller has been here for the place's patience.
    pub(super) async fn forsaken(&self) {
        let mut controllers = self.controllers.subscribe();
        loop {
            if controllers.wait_for(|count| *count == 0).await.is_err() {
                return std::future::pending().await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.place.patience()) => return,
                _ = controllers.wait_for(|count| *count > 0) => {}
            }
        }
    }
}
