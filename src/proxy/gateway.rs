//! The egress proxy of a cluster: the one destination that a run's pod may reach, which knows each caller and judges once more.
//!
//! Every connection is one tunnel of [`super::tunnel`]. A caller is a pod that shows a token of its own for the target's audience and comes from that
//! pod's address. The agent's own proxy, in its pod, answers it with reasons; this one is what holds when that one does not.

mod addresses;
mod canary;
mod clones;
mod counts;
mod session;
mod tls;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::{Resolver, hosts};
use crate::{
    egress::Ruleset,
    names::Namespace,
    ports::{Secrets, workloads::Checkout},
};

pub use counts::Counts;
pub use tls::{Certificate, CertificateError};

/// Who calls: a pod of a run.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The pod's namespace; Secrets are resolved there.
    pub namespace: Namespace,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// No later than the pod came into being, by this machine's clock.
    pub since: Timestamp,
    /// The policies of the run.
    pub rules: Arc<Ruleset>,
    /// What the run may clone.
    pub checkouts: Arc<[Checkout]>,
    /// Whether it may still clone, or why not.
    pub cloning: Result<(), String>,
}

/// Why a caller is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Trying again changes nothing.
    #[error("{0}")]
    Stranger(String),
    /// It may be known in a moment.
    #[error("{0}")]
    NotYet(String),
}

/// Knows the pods of the runs.
#[async_trait]
pub trait Callers: Send + Sync + 'static {
    /// The pod that the token is of, if it was made for `audience` and the pod has the address.
    ///
    /// # Errors
    /// [`Refusal`], within a bounded time.
    async fn identify(
        &self,
        token: &SecretString,
        audience: &'static str,
        from: IpAddr,
    ) -> Result<Caller, Refusal>;
}

/// What callers together and each alone may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time, of all callers; one more is closed.
    pub connections: usize,
    /// Connections at one time from one address, which is one run; one more is closed.
    pub connections_each: usize,
    /// From accepting a connection to the end of its first line.
    pub preamble_time: Duration,
    /// How targets are dialled, and how long a connection may be idle.
    pub dial: super::Limits,
    /// Bytes of one clone, over all answers.
    pub clone_bytes: u64,
    /// Bytes of one request of a clone.
    pub clone_request_bytes: usize,
    /// How long a clone, or the delivery of a result, may take.
    pub transfer_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            // The agent's proxy has 256; clones and deliveries are the rest.
            connections_each: 288,
            preamble_time: Duration::from_secs(10),
            dial: super::Limits::default(),
            clone_bytes: 8 << 30,
            clone_request_bytes: 16 << 20,
            transfer_time: Duration::from_mins(30),
        }
    }
}

/// What a gateway is made of.
pub struct Parts {
    /// Knows the pods.
    pub callers: Arc<dyn Callers>,
    /// Holds the credentials of clones.
    pub secrets: Arc<dyn Secrets>,
    /// Resolves the names of targets.
    pub resolver: Resolver,
    /// `HOST:PORT` of the recorder.
    pub recorder: String,
    /// Limits.
    pub limits: Limits,
}

/// The proxy. Cloning it gives another handle on the same proxy.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    callers: Arc<dyn Callers>,
    secrets: Arc<dyn Secrets>,
    resolver: hosts::Resolver,
    recorder: String,
    limits: Limits,
    canary: canary::Canary,
    counts: Counts,
    places: Arc<Semaphore>,
    addresses: Arc<addresses::Addresses>,
}

impl Gateway {
    /// A gateway of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { callers, secrets, resolver, recorder, limits } = parts;
        let places = Arc::new(Semaphore::new(limits.connections));
        let addresses = Arc::new(addresses::Addresses::new(limits.connections_each));
        let (canary, counts) = (canary::Canary::default(), Counts::default());
        let shared =
            Shared { callers, secrets, resolver, recorder, limits, canary, counts, places, addresses };
        Self { shared: Arc::new(shared) }
    }

    /// What it has seen.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Takes tunnels until `stop` is ready; then waits for those that are open. Dropping the future ends them.
    pub async fn serve(
        &self,
        listener: TcpListener,
        certificate: &Certificate,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = open.join_next() => continue,
                () = &mut stop => break,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let (shared, from) = (Arc::clone(&self.shared), peer.ip().to_canonical());
            let place = Arc::clone(&shared.places).try_acquire_owned().ok();
            let Some(place) = place.zip(shared.addresses.enter(from)) else {
                shared.counts.overloaded();
                continue;
            };
            let tls = certificate.acceptor();
            open.spawn(async move {
                session::serve(shared, tls, tcp, from).await;
                drop(place);
            });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// Counts who reaches the canary, which no policy allows. Never ends.
    pub async fn serve_canary(&self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((_, peer)) => {
                    self.shared.counts.canary();
                    self.shared.canary.reached(peer.ip().to_canonical(), Timestamp::now());
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

/// A listener fails for a connection that is gone already, or for want of descriptors: neither is cured by asking at once.
async fn pause(error: &io::Error) {
    tracing::warn!(target: "ostler::egress", error = error as &dyn std::error::Error, "failed to accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
