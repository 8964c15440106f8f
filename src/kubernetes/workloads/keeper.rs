//! Attends to one pod: hears how far its sidecar is, and brings it the run's secrets.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Client;
use rand::Rng;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::watch,
    time::{sleep, timeout},
};

use super::{events, pods::Pods, seen::Seen, sidecar};
use crate::{
    harness::{
        control::{Notice, Request},
        secrets::{self, Sidecar},
    },
    ports::{Secrets, workloads::Stage},
};

/// The pause before another attempt; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The longest between two looks at the events about a pod that does not start.
const SELDOM: Duration = Duration::from_mins(5);
/// Most bytes of a notice: the state of a place with its policies.
const NOTICE_BYTES: u64 = 1 << 20;
/// A stream that says nothing for so long may be one to a node that is gone: a new one begins with a notice.
const SILENCE: Duration = Duration::from_mins(5);

/// What it takes to attend to pods.
#[derive(Clone)]
pub(super) struct Attending {
    pub(super) client: Client,
    pub(super) secrets: Arc<dyn Secrets>,
    /// How long a pod may get no further before the events about it are read.
    pub(super) stall: Duration,
}

/// Why a stream to a sidecar came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sidecar(#[from] sidecar::Error),
    #[error("the stream to the sidecar ended")]
    Stream(#[from] io::Error),
    #[error("the run's secrets cannot be had now")]
    Secrets(#[from] crate::ports::workloads::Error),
}

/// Goes on until the pod is gone or its result is acknowledged.
pub(super) async fn keep(attending: Attending, pods: Weak<Pods>, mut seen: watch::Receiver<Arc<Seen>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(pod) = until_attended(&attending, &pods, &mut seen).await else { return };
        let began = Instant::now();
        match attend(&attending, &pods, &pod).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(run = %pod.run(), error, "the sidecar is asked again");
            }
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let odd = rand::rng().random_range(0.5..1.5);
        sleep(pause.mul_f64(odd)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until the pod's sidecar runs. Meanwhile what is said about a pod that gets no further is read, ever more seldom.
/// `None`: the pod is gone.
async fn until_attended(
    attending: &Attending,
    pods: &Weak<Pods>,
    seen: &mut watch::Receiver<Arc<Seen>>,
) -> Option<Arc<Seen>> {
    let mut pause = attending.stall;
    loop {
        let attended = seen.wait_for(|seen| seen.look(Timestamp::now()).attended());
        if let Ok(attended) = timeout(pause, attended).await {
            return attended.ok().map(|pod| Arc::clone(&pod));
        }
        let pod = Arc::clone(&seen.borrow());
        if pod.look(Timestamp::now()).untouched() {
            match events::complaint(&attending.client, &pod).await {
                Ok(complaint) => pods.upgrade()?.complain(&pod, complaint),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(run = %pod.run(), error, "nobody knows why the pod does not start");
                }
            }
        }
        pause = (pause * 2).min(SELDOM);
    }
}

/// Listens to the sidecar for as long as it says something. True: nothing is left to hear.
async fn attend(attending: &Attending, pods: &Weak<Pods>, pod: &Seen) -> Result<bool, Failure> {
    let mut stream = sidecar::open(&attending.client, pod).await?;
    sidecar::send(&mut stream, &Request::Watch).await?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = async { (&mut reader).take(NOTICE_BYTES).read_until(b'\n', &mut line).await };
        match timeout(SILENCE, read).await {
            Ok(read) => read?,
            Err(_) => return Ok(false),
        };
        if line.is_empty() {
            return Ok(false);
        }
        let notice: Notice = serde_json::from_slice(&line).map_err(io::Error::other)?;
        let Some(pods) = pods.upgrade() else { return Ok(true) };
        let released = notice.state.as_ref().is_some_and(|state| state.stage == Stage::Released);
        if let Some(state) = notice.state {
            pods.hear(pod, state);
        }
        if released {
            return Ok(true);
        }
        drop(pods);
        if notice.needs_secrets {
            let request = secrets::request(&*attending.secrets, &pod.file.spec, Sidecar::InPod).await?;
            sidecar::ask(&attending.client, pod, &request).await?;
        }
    }
}
