//! A lease of the cluster: of several that could look after the same objects, one does.
//!
//! The holder renews it; one that says nothing for 15 seconds has lost it. How long others heard nothing is measured by
//! their own clocks, so that no two machines need to agree on the time. What the holder writes goes through a [`Fence`],
//! which closes before others may take over.
//!
//! Needs the verbs `get`, `list`, `watch`, `create` and `update` on `leases` (group `coordination.k8s.io`).

mod fence;

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub use fence::{Behind, Fence, Fenced};

/// How long a holder that says nothing keeps a lease.
const DURATION: Duration = Duration::from_secs(15);
/// How long its own fence stays open: what went out last has arrived before others may take over.
const OURS: Duration = Duration::from_secs(13);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// The time between two attempts, when one failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a lease cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the lease {name} in namespace {namespace} cannot be used")]
pub struct Error {
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// Why.
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A lease that is held, and renewed until it is given back.
#[derive(Debug)]
pub struct Lease {
    lost: watch::Receiver<bool>,
    stop: CancellationToken,
    keeping: JoinHandle<Option<Object>>,
    claim: Claim,
}

/// Who wants which lease.
#[derive(Debug, Clone)]
struct Claim {
    api: Api<Object>,
    name: String,
    identity: String,
    fence: Fence,
}

impl Lease {
    /// Waits until the lease is ours; from then on `fence` is open. `identity` that comes back before the lease ran out
    /// has it at once.
    ///
    /// `client` must not be behind the fence.
    ///
    /// # Errors
    /// When the API server refuses, or cannot be reached at first.
    pub async fn take(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        fence: Fence,
    ) -> Result<Self, Error> {
        let api = Api::namespaced(client, namespace);
        let claim = Claim { api, name: name.to_owned(), identity: identity.to_owned(), fence };
        let held = claim.wait().await.map_err(|source| Error {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source,
        })?;
        let (say_lost, lost) = watch::channel(false);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(claim.clone().keep(held, say_lost, stop.clone()));
        Ok(Self { lost, stop, keeping, claim })
    }

    /// Waits until the lease is not ours any more. No write has gone out since.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // it ends without a word only when it is given back
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives the lease back, so that nobody has to wait until it runs out. Writes behind the fence end first.
    pub async fn release(self) {
        let Self { stop, keeping, claim, .. } = self;
        stop.cancel();
        let held = keeping.await.unwrap_or_default();
        claim.fence.shut();
        let Some(mut held) = held else { return };
        let spec = held.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        if let Err(error) = claim.replace(&held).await {
            tracing::warn!(%error, "a lease was not given back; it runs out by itself");
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How an attempt to write the lease ended, if the API server could be asked.
enum Attempt {
    Held(Box<Object>),
    /// Somebody else was faster.
    Beaten,
}

impl Claim {
    /// Waits until it is ours. Only the first look may fail.
    async fn wait(&self) -> Result<Object, Failure> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = pin!(watcher(self.api.clone(), config).default_backoff());
        let mut seen: Option<(String, Duration)> = None;
        let mut first = true;
        loop {
            let looked =
                async { timeout(PATIENCE, self.api.get_opt(&self.name)).await?.map_err(Failure::from) };
            let wait = match looked.await {
                Ok(lease) => match self.look(lease, &mut seen).await {
                    Ok(Ok(held)) => return Ok(held),
                    Ok(Err(wait)) => wait,
                    Err(error) if first => return Err(error),
                    Err(error) => complain(&error),
                },
                Err(error) if first => return Err(error),
                Err(error) => complain(&error),
            };
            first = false;
            tokio::select! {
                _ = changes.next() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes the lease if that is our right; else says after which time it will be, if its holder says nothing.
    async fn look(
        &self,
        lease: Option<Object>,
        seen: &mut Option<(String, Duration)>,
    ) -> Result<Result<Object, Duration>, Failure> {
        let now = fence::now();
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let free = spec.holder_identity.as_deref().is_none_or(|h| h.is_empty() || h == self.identity);
        let version = lease.as_ref().and_then(|l| l.metadata.resource_version.clone()).unwrap_or_default();
        if seen.as_ref().is_none_or(|(known, _)| *known != version) {
            *seen = Some((version, now));
        }
        let since = seen.as_ref().map_or(now, |(_, since)| *since);
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let runs_out = since + seconds.map_or(DURATION, Duration::from_secs);
        if !free && now < runs_out {
            return Ok(Err(runs_out.saturating_sub(now)));
        }
        match self.write(lease).await? {
            Attempt::Held(held) => Ok(Ok(*held)),
            Attempt::Beaten => Ok(Err(Duration::ZERO)),
        }
    }

    /// Writes that it is ours now, upon what was seen.
    async fn write(&self, seen: Option<Object>) -> Result<Attempt, Failure> {
        let asked = fence::now();
        let stamp = MicroTime(Timestamp::now());
        let mut lease = seen.unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        let exists = lease.metadata.resource_version.is_some();
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(stamp.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(stamp);
        let written = if exists { self.replace(&lease).await } else { self.create(lease).await };
        match written {
            Ok(held) => {
                self.fence.open_until(asked + OURS);
                Ok(Attempt::Held(Box::new(held)))
            }
            Err(error) if is_code(&error, 409) || exists && is_code(&error, 404) => Ok(Attempt::Beaten),
            Err(error) => Err(error),
        }
    }

    /// Renews until it is lost or `stop`; gives it as it is then held.
    async fn keep(
        self,
        mut held: Object,
        lost: watch::Sender<bool>,
        stop: CancellationToken,
    ) -> Option<Object> {
        let mut wait = RENEW;
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.fence.is_open().then_some(held),
                () = tokio::time::sleep(wait) => {}
            }
            if !self.fence.is_open() {
                tracing::warn!(lease = self.name, "the lease ran out before it was renewed");
                break;
            }
            match self.renew(&held).await {
                Ok(Some(renewed)) => (held, wait) = (renewed, RENEW),
                Ok(None) => {
                    tracing::warn!(lease = self.name, "somebody else has the lease");
                    break;
                }
                Err(error) => wait = complain(&error),
            }
        }
        self.fence.shut();
        let _ = lost.send(true);
        None
    }

    /// Renews it; `None`: somebody else has it.
    async fn renew(&self, held: &Object) -> Result<Option<Object>, Failure> {
        if let Attempt::Held(renewed) = self.write(Some(held.clone())).await? {
            return Ok(Some(*renewed));
        }
        // an answer of ours that was lost, or an edit by hand, is no loss
        let current = timeout(PATIENCE, self.api.get_opt(&self.name)).await??;
        let holder = |lease: &Object| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        match current.filter(|lease| holder(lease).as_deref() == Some(&self.identity)) {
            Some(current) => match self.write(Some(current)).await? {
                Attempt::Held(renewed) => Ok(Some(*renewed)),
                Attempt::Beaten => Ok(None),
            },
            None => Ok(None),
        }
    }

    async fn replace(&self, lease: &Object) -> Result<Object, Failure> {
        Ok(timeout(PATIENCE, self.api.replace(&self.name, &PostParams::default(), lease)).await??)
    }

    async fn create(&self, lease: Object) -> Result<Object, Failure> {
        let metadata = ObjectMeta { name: lease.metadata.name, ..ObjectMeta::default() };
        let lease = Object { metadata, ..lease };
        Ok(timeout(PATIENCE, self.api.create(&PostParams::default(), &lease)).await??)
    }
}

fn is_code(error: &Failure, code: u16) -> bool {
    error
        .downcast_ref::<kube::Error>()
        .is_some_and(|error| matches!(error, kube::Error::Api(status) if status.code == code))
}

fn complain(error: &Failure) -> Duration {
    tracing::warn!(error = error.as_ref() as &dyn std::error::Error, "a lease cannot be read or written");
    RETRY
}
