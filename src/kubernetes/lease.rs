//! A lease of the cluster: of several that could look after the same objects, one does.

use kube::Client;
use kube_lease_manager::{DurationSeconds, LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, task::JoinHandle};

/// How long a holder that says nothing keeps a lease, in seconds.
const DURATION: DurationSeconds = 15;
/// How long before its end it is renewed, in seconds.
const GRACE: DurationSeconds = 5;

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
    source: Box<LeaseManagerError>,
}

/// A lease that is held, and renewed until it is given back.
///
/// It only keeps others from doing the same work twice. What a holder writes after its lease has run out cannot do harm,
/// because every write names the state that it has seen.
#[derive(Debug)]
pub struct Lease {
    held: watch::Receiver<bool>,
    keeping: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lease {
    /// Waits until the lease is ours. `identity` that comes back before the lease ran out has it at once.
    ///
    /// # Errors
    /// When the API server refuses, or cannot be reached at first.
    pub async fn take(client: Client, namespace: &str, name: &str, identity: &str) -> Result<Self, Error> {
        let failed = |source| Error {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        };
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION)
            .with_grace(GRACE)
            .build()
            .await
            .map_err(failed)?;
        let (mut held, keeping) = manager.watch().await;
        // It ends only after its receivers, so there is always an answer.
        let _ = held.wait_for(|held| *held).await;
        Ok(Self { held, keeping })
    }

    /// Waits until the lease is somebody else's.
    pub async fn lost(&self) {
        let mut held = self.held.clone();
        let _ = held.wait_for(|held| !*held).await;
    }

    /// Gives the lease back, so that nobody has to wait until it runs out.
    pub async fn release(self) {
        let Self { held, keeping } = self;
        drop(held);
        let error: Box<dyn std::error::Error + Send + Sync> = match keeping.await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        };
        tracing::warn!(%error, "a lease was not given back; it runs out by itself");
    }
}
