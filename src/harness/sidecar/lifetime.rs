//! The steps of a sidecar's life: the agent, the collection, the delivery, the release.

use std::{io, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{AbortOnDrop, Sidecar};
use crate::{
    harness::{
        agent::{self, Cage},
        collection, delivery,
    },
    kinds::Reason,
    ports::workloads::Stage,
    report::{End, FinalRecord},
};

/// How long the shim of a pod may take to notice that its sidecar came back.
const REJOIN_TIME: Duration = Duration::from_mins(1);

/// Bytes of an error that are logged.
const MESSAGE: usize = 1024;

/// What is left to do for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Everything.
    Fresh,
    /// An earlier sidecar of this pod began, and was killed: its agent ended with it. What that left is collected.
    Interrupted,
    /// To deliver what an earlier sidecar packed.
    Packed,
    /// Nothing; whoever asks is still told.
    Over,
}

/// Whoever wants this process to end wants the whole place to end.
pub(super) fn heed_sigterm(drain: watch::Sender<bool>) -> io::Result<AbortOnDrop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let heed = tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            tracing::info!("SIGTERM: the place is to end");
            drain.send_replace(true);
        }
    });
    Ok(AbortOnDrop(heed.abort_handle()))
}

/// Goes its course to the end.
pub(super) async fn live(sidecar: &Arc<Sidecar>, course: Course) -> anyhow::Result<()> {
    let cage = match course {
        Course::Fresh => run(sidecar).await?,
        Course::Interrupted => resume(sidecar).await?,
        Course::Packed | Course::Over => {
            sidecar.output.end().context("the agent's output")?;
            None
        }
    };
    if course != Course::Over {
        deliver(sidecar, cage).await?;
    }
    if sidecar.place.pod().is_some() {
        // A sidecar that ends before its pod would be started again.
        sidecar.drained().await;
    }
    Ok(())
}

async fn run(sidecar: &Arc<Sidecar>) -> anyhow::Result<Option<Cage>> {
    let ended = agent::run(sidecar).await;
    tell_end(&ended.end);
    sidecar.output.end().context("the agent's output")?;
    sidecar.update(|state| {
        state.stage = Stage::Collecting;
        state.ended_at = state.started_at.map(|_| Timestamp::now());
        state.end = Some(ended.end.clone());
    });
    let mut cage = ended.cage;
    let report = collection::gather(sidecar, cage.as_mut(), ended.end, ended.record, ended.notes).await;
    collection::pack(sidecar, report).await.context("the outbox")?;
    Ok(cage)
}

/// Collects for an earlier sidecar, through the shim, which waits for this one.
async fn resume(sidecar: &Arc<Sidecar>) -> anyhow::Result<Option<Cage>> {
    sidecar.output.end().context("the agent's output")?;
    sidecar.update(|state| {
        state.stage = Stage::Collecting;
        state.ended_at = state.ended_at.or_else(|| state.started_at.map(|_| Timestamp::now()));
        if state.end.is_none() {
            state.end = Some(interrupted(state.started_at.is_some()));
        }
    });
    let end = sidecar.state().borrow().end.clone().unwrap_or_else(|| interrupted(true));
    tell_end(&end);
    let mut cage = tokio::time::timeout(REJOIN_TIME, Cage::join(sidecar)).await.ok().and_then(Result::ok);
    let notes = vec!["the sidecar was killed and started again".to_owned()];
    let report = collection::gather(sidecar, cage.as_mut(), end, FinalRecord::default(), notes).await;
    collection::pack(sidecar, report).await.context("the outbox")?;
    Ok(cage)
}

/// Tells how it ended, with words of ours alone: the agent's are in its output.
fn tell_end(end: &End) {
    match end {
        End::NotStarted { reason, message } => {
            tracing::warn!(%reason, message = crate::ledger::entry::cut(message, MESSAGE), "the agent is not started");
        }
        End::Ended { reason, message, code } => {
            tracing::warn!(%reason, message = crate::ledger::entry::cut(message, MESSAGE), code, "the agent was ended");
        }
        End::Stopped { by, code } => tracing::info!(reason = %by.reason(), code, "the agent was stopped"),
        End::TimedOut { code } => tracing::info!(code, "the agent was ended by its time limit"),
        End::Exited { code } => tracing::info!(code, "the agent has ended"),
    }
}

fn interrupted(started: bool) -> End {
    let reason = Reason::PlaceFailed;
    if started {
        let message = "its sidecar was killed, and the agent was ended with it".to_owned();
        End::Ended { reason, message, code: 137 }
    } else {
        End::NotStarted { reason, message: "its sidecar was killed before the agent was started".to_owned() }
    }
}

/// Delivers, and lets the agent's container end.
async fn deliver(sidecar: &Arc<Sidecar>, cage: Option<Cage>) -> anyhow::Result<()> {
    sidecar.update(|state| state.stage = Stage::Delivering);
    // The shim of a pod waits for its release, and may come for it at any time: before that is due, or after.
    let mut waiting = None;
    if cage.is_none() && sidecar.place.pod().is_some() {
        let sidecar = Arc::clone(sidecar);
        waiting = Some(tokio::spawn(async move {
            let cage = Cage::join(&sidecar).await;
            let mut state = sidecar.state();
            let released = state.wait_for(|state| state.stage == Stage::Released).await.is_ok();
            match cage {
                Ok(cage) if released => cage.release().await,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the shim cannot be released"),
            }
        }));
    }
    delivery::deliver(sidecar).await?;
    tracing::info!("the result is acknowledged");
    if let Some(cage) = cage {
        cage.release().await;
    }
    sidecar.update(|state| state.stage = Stage::Released);
    if let Some(waiting) = waiting {
        tokio::select! {
            _ = waiting => {}
            () = sidecar.drained() => {}
        }
    }
    Ok(())
}
