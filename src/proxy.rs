//! The egress proxy of one run: the only way out of its place.
//!
//! Whoever owns the run's place hands over accepted connections of any kind; each is an HTTP/1.1 proxy
//! connection of the agent. `CONNECT` opens a tunnel, an absolute-form `http://` request is forwarded, both
//! after [`crate::egress`] has judged the target, and the address judged is the address dialled. A refusal is
//! `403` with header `Ostler-Egress: denied` and a text that says what would open it.
//!
//! A new [`Ruleset`] counts from the next request or tunnel on; tunnels that are open stay open.

mod answer;
mod connection;
mod dial;
mod forward;
pub mod gateway;
mod hosts;
mod meter;
mod tally;
pub mod tunnel;

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::egress::Ruleset;

pub use answer::{EGRESS_HEADER, PROOF_PATH};
pub use dial::Dial;
pub use hosts::{HostsError, HostsFile, Resolver};
pub use tally::{Denial, Snapshot};

/// What one run may use of its proxy.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time; one more is answered 503.
    pub connections: usize,
    /// Bytes of one request's or answer's head (at least 8192, hyper's smallest buffer).
    pub header_bytes: usize,
    /// How long a client may take to send a request's head, counted from the end of the one before.
    pub header_time: Duration,
    /// How long a name may take to resolve.
    pub resolve_time: Duration,
    /// How long one address may take to accept.
    pub connect_time: Duration,
    /// A connection over which no byte has gone in or out for this long ends (at twice this at the latest).
    pub idle_time: Duration,
    /// Different denials kept in the [`Snapshot`]; further ones are only counted.
    pub denials: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header_bytes: 64 * 1024,
            header_time: Duration::from_secs(30),
            resolve_time: Duration::from_secs(10),
            connect_time: Duration::from_secs(10),
            // Models think for minutes before their first byte.
            idle_time: Duration::from_mins(15),
            denials: 64,
        }
    }
}

/// The proxy of one run. Cloning it gives another handle on the same proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    rules: watch::Receiver<Arc<Ruleset>>,
    dial: Dial,
    limits: Limits,
    proof: Option<String>,
    tally: tally::Tally,
    places: Arc<Semaphore>,
}

impl meter::Count for Shared {
    fn moved(&self, up: u64, down: u64) {
        self.tally.moved(up, down);
    }
}

impl Proxy {
    /// A proxy that obeys the newest of `rules`. If `proof` is given, `GET` [`PROOF_PATH`] in origin form
    /// answers it: whoever reads it has come through this proxy. A [`Resolver`] is a direct [`Dial`].
    #[must_use]
    pub fn new(
        rules: watch::Receiver<Arc<Ruleset>>,
        dial: impl Into<Dial>,
        limits: Limits,
        proof: Option<String>,
    ) -> Self {
        let tally = tally::Tally::new(limits.denials);
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { shared: Arc::new(Shared { rules, dial: dial.into(), limits, proof, tally, places }) }
    }

    /// What the proxy has seen so far. The channel wakes at every decision; bytes are there on every look.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.shared.tally.subscribe()
    }

    /// Serves connections until the stream of them ends or fails, then ends those still open. Dropping the
    /// future ends them, too.
    ///
    /// # Errors
    /// The first error of `incoming`. Errors of single connections end only these.
    pub async fn serve<C>(&self, incoming: impl Stream<Item = io::Result<C>>) -> io::Result<()>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut incoming = std::pin::pin!(incoming);
        let mut open = JoinSet::new();
        loop {
            let client = tokio::select! {
                next = incoming.next() => match next {
                    Some(client) => client?,
                    None => return Ok(()),
                },
                Some(_) = open.join_next() => continue,
            };
            if let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() {
                let shared = Arc::clone(&self.shared);
                open.spawn(async move {
                    connection::serve(shared, client).await;
                    drop(place);
                });
            } else {
                self.shared.tally.overloaded();
                open.spawn(turn_away(client));
            }
        }
    }
}

/// Says that there is no place, to a client whose request has not been read.
async fn turn_away<C: AsyncWrite + Unpin>(mut client: C) {
    let goodbye = async {
        client.write_all(answer::OVERLOADED.as_bytes()).await?;
        client.shutdown().await
    };
    // The client may be gone or not read; either way there is nobody left to tell.
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}
