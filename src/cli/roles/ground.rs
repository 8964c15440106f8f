//! What a role that works alone stands on: a cluster, a lease, caches.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Ended, Error, LeaderArgs, RoleArgs, serve};
use crate::{
    api::{Gate, Gates},
    cache::Caches,
    kubernetes::{
        client::{check_crds, connect, connect_behind},
        lease::{Fence, Lease},
        objects::KubeObjects,
        secrets::KubeSecrets,
    },
    names::Namespace,
    ports::{Secrets, objects::Store},
    telemetry::{AuditLog, Counted, Metrics},
};

/// What a leading role stands on. Its writes end with its lease.
pub(super) struct Ground {
    /// A client behind the fence.
    pub(super) client: kube::Client,
    pub(super) store: Store,
    pub(super) secrets: Arc<dyn Secrets>,
    pub(super) caches: Caches,
    pub(super) audit: Arc<AuditLog>,
    pub(super) metrics: Arc<Metrics>,
    /// The namespace that is looked after; `None`: all of them.
    pub(super) scope: Option<Namespace>,
    pub(super) stop: CancellationToken,
    lease: Lease,
    /// What feeds the rest, so what ends last.
    feeding: JoinSet<()>,
}

/// What readiness says.
#[derive(Default)]
struct Progress {
    leads: AtomicBool,
    filled: AtomicBool,
}

/// Which role, by its lease.
pub(super) struct Role {
    /// The lease's name.
    pub(super) lease: &'static str,
    /// True: one that stands by is ready, because nobody sends it anything. False: only the leader is, so that a Service
    /// leads to it.
    pub(super) standby_is_ready: bool,
}

impl Ground {
    /// Waits until this process is the one that works and has read the cluster; or says why it ended before.
    ///
    /// # Errors
    /// When the cluster cannot be used.
    pub(super) async fn take(
        role: &Role,
        args: &RoleArgs,
        leader: &LeaderArgs,
        tasks: &mut JoinSet<()>,
    ) -> Result<Result<Self, Ended>, Error> {
        let stop = super::stop_signal(tasks)?;
        let metrics = Arc::new(Metrics::new());
        let progress = Arc::new(Progress::default());
        let gates = gates(&progress, role.standby_is_ready);
        serve::health(args, gates, &metrics, &stop, tasks).await?;
        let reach = |e| Error::setup("reach the cluster", e);
        let target = args.target();
        let direct = connect(&target).await.map_err(reach)?;
        check_crds(&direct).await.map_err(|e| Error::setup("use the cluster's CRDs", e))?;
        let namespace = leader.lease_namespace.clone().or_else(|| args.namespace.clone());
        let namespace = namespace.map_or_else(|| direct.default_namespace().to_owned(), |n| n.to_string());
        let identity = leader.identity.clone().unwrap_or_else(identity);
        args.announce("standby", &identity);
        let fence = Fence::default();
        // What can fail is tried before there is a lease that others would have to wait for.
        let client = connect_behind(&target, &fence).await.map_err(reach)?;
        let audit = args.audit()?;
        let lease = tokio::select! {
            lease = Lease::take(direct, &namespace, role.lease, &identity, fence.clone()) => lease,
            () = stop.cancelled() => return Ok(Err(Ended::Asked)),
        };
        let lease = lease.map_err(|e| Error::setup("become the only one", e))?;
        progress.leads.store(true, Ordering::Relaxed);
        args.announce("leading", &identity);
        let store: Store =
            Arc::new(Counted::new(Arc::new(KubeObjects::new(client.clone())), metrics.clone()));
        let (caches, fill) = Caches::new(store.as_ref(), args.namespace.as_ref());
        let mut feeding = JoinSet::new();
        feeding.spawn(fill);
        let ground = Self {
            secrets: Arc::new(KubeSecrets::new(client.clone())),
            client,
            store,
            caches,
            audit,
            metrics,
            scope: args.namespace.clone(),
            stop,
            lease,
            feeding,
        };
        // Nothing is begun before: kube's controllers, for one, do not end while they wait for a first list.
        let ended = tokio::select! {
            () = ground.caches.ready() => None,
            ended = ground.is_to_end() => Some(ended),
        };
        if let Some(ended) = ended {
            ground.give_back().await;
            return Ok(Err(ended));
        }
        progress.filled.store(true, Ordering::Relaxed);
        Ok(Ok(ground))
    }

    /// Waits until the role is to end.
    pub(super) async fn is_to_end(&self) -> Ended {
        tokio::select! {
            () = self.stop.cancelled() => Ended::Asked,
            () = self.lease.lost() => Ended::Displaced,
        }
    }

    /// Waits until the role is to end, then until its work has, and gives the lease back.
    pub(super) async fn until_the_end(self, mut tasks: JoinSet<()>, last: impl Future<Output = ()>) -> Ended {
        let ended = self.is_to_end().await;
        self.stop.cancel();
        while tasks.join_next().await.is_some() {}
        last.await;
        self.give_back().await;
        ended
    }

    /// Gives the lease back, for whoever can begin: nobody has to wait until it runs out.
    pub(super) async fn cannot_begin(self, ended: Result<Ended, Error>) -> Result<ExitCode, Error> {
        self.stop.cancel();
        self.give_back().await;
        ended.map(Into::into)
    }

    /// Gives the lease back; there is nothing that still works.
    async fn give_back(self) {
        drop(self.feeding);
        self.lease.release().await;
    }
}

fn gates(progress: &Arc<Progress>, standby_is_ready: bool) -> Gates {
    let progress = Arc::clone(progress);
    Arc::new(move || {
        let leads = progress.leads.load(Ordering::Relaxed);
        if !leads && standby_is_ready {
            return vec![Gate { name: "stands by".to_owned(), open: true }];
        }
        let filled = progress.filled.load(Ordering::Relaxed);
        vec![
            Gate { name: "leads".to_owned(), open: leads },
            Gate { name: "has read the cluster".to_owned(), open: filled },
        ]
    })
}

/// The host's name and a random part: two processes never have the same.
fn identity() -> String {
    let system = rustix::system::uname();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", system.nodename().to_string_lossy(), &random[..8])
}
