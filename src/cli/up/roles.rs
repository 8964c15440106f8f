//! The roles of one process: store, controllers, syncers, recorders, API; started in the order in which they need one
//! another.

mod serve;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use futures::{Stream, StreamExt};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Error, UpArgs,
    callers::Callers,
    clock,
    engine::{self, Engine},
    key, places,
    state_folder::{Layout, StateFolder},
};
use crate::{
    cache::Caches,
    cli::roles::{
        controller::{accounts, control},
        ledgers::Ledgers,
        signers,
    },
    controllers,
    embedded::{access::EmbeddedAccess, objects as embedded_objects},
    kinds::{ConfigRepository, meta},
    kubernetes::lease::Lease,
    names::Namespace,
    ports::{
        Access, Secrets,
        objects::{Store, untyped},
    },
    recorder, sync,
    telemetry::{AuditLog, Counted, Metrics},
};

/// What runs, and what others need of it.
pub(super) struct Roles {
    pub(super) store: Store,
    pub(super) caches: Caches,
    pub(super) progress: sync::Progress,
    /// Where the API listens.
    pub(super) api: SocketAddr,
    /// Where the token for reading it is.
    pub(super) api_token: PathBuf,
    /// What the controllers share.
    controllers: Arc<controllers::Context>,
    ledgers: Arc<Ledgers>,
    /// The namespace that is looked after; `None`: all of them.
    pub(super) scope: Option<Namespace>,
    lease: Option<Lease>,
    tasks: JoinSet<()>,
    /// Whatever must go last.
    _socket: embedded_objects::Server,
}

impl Roles {
    /// Waits until every role has ended.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
        self.ledgers.ended().await;
        if let Some(lease) = self.lease {
            lease.release().await;
        }
    }

    /// Waits until somebody else looks after the objects; for ever, when they are on this machine.
    pub(super) async fn displaced(&self) {
        match &self.lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Objects or places changed.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + Unpin + use<> {
        let places = self.controllers.workloads.changes().map(drop);
        futures::stream::select(self.caches.touched().boxed(), places.boxed())
    }

    /// True when the caches show what the store holds, and the controllers have nothing to do for any run: what its
    /// status says is what they would say now.
    pub(super) async fn at_rest(&self) -> bool {
        match self.caches.are_current(self.store.as_ref()).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the store");
                return false;
            }
        }
        for run in self.caches.runs.all() {
            match controllers::run::is_at_rest(&run, &self.controllers).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot look at a run");
                    return false;
                }
            }
        }
        true
    }
}

/// Parts that several roles share.
struct Shared {
    store: Store,
    accounts: Option<sync::Accounts>,
    secrets: Arc<dyn Secrets>,
    /// Those whom this machine knows.
    access: Arc<EmbeddedAccess>,
    /// Those whom the API knows: them, and the cluster's if the objects are in one.
    callers: Arc<dyn Access>,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    caches: Caches,
    layout: Layout,
    scope: Option<Namespace>,
    stop: CancellationToken,
}

impl Shared {
    /// Stores the repository, and waits until the caches show what the store holds.
    async fn open(
        engine: Engine,
        repository: &ConfigRepository,
        layout: Layout,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new());
        let store: Store = Arc::new(Counted::new(engine.store, metrics.clone()));
        store.apply(&untyped(repository)?, meta::CLI, true, None).await?;
        let (caches, fill) = Caches::new(store.as_ref(), engine.scope.as_ref());
        tasks.spawn(until(stop.clone(), fill));
        caches.ready().await;

        let local = EmbeddedAccess::open(layout.root()).map_err(|e| Error::setup("read the tokens", e))?;
        let access = Arc::new(local);
        let local = access.clone();
        let callers: Arc<dyn Access> = match engine.access {
            Some(cluster) => Arc::new(Callers { local, cluster }),
            None => local,
        };
        let audit = AuditLog::file(&layout.audit()).map_err(|e| Error::setup("open the audit log", e))?;
        Ok(Self {
            store,
            accounts: engine.client.map(|client| accounts(client, metrics.clone())),
            secrets: engine.secrets,
            access,
            callers,
            audit: Arc::new(audit),
            metrics,
            caches,
            layout,
            scope: engine.scope,
            stop,
        })
    }
}

/// Starts everything; it ends with `stop`.
pub(super) async fn start(
    args: &UpArgs,
    repository: ConfigRepository,
    state: &StateFolder,
    stop: CancellationToken,
) -> Result<Roles, Error> {
    let namespace = repository.metadata.namespace.as_deref().and_then(|name| name.parse().ok());
    let namespace = namespace.unwrap_or_else(|| args.namespace.clone());
    let mut engine = engine::open(args, namespace, state).await?;
    let lease = engine.lease.take();
    let mut tasks = JoinSet::new();
    let shared = Shared::open(engine, &repository, state.layout().clone(), stop, &mut tasks).await?;

    let ledgers = ledgers(args, state, &shared)?;
    serve::intake(&shared, &ledgers, &mut tasks)?;
    let api = serve::api(args, &shared, &mut tasks).await?;
    let progress = syncers(args, &shared, &ledgers, &mut tasks)?;
    let controllers = controllers(args, &shared, &mut tasks)?;
    let socket = embedded_objects::serve(&shared.layout.socket(), shared.store.clone());
    let socket = socket.map_err(|e| Error::setup("serve the store's socket", e))?;
    Ok(Roles {
        store: shared.store,
        caches: shared.caches,
        progress,
        api,
        api_token: shared.layout.api_token(),
        controllers,
        ledgers,
        scope: shared.scope,
        lease,
        tasks,
        _socket: socket,
    })
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { () = work => {}, () = stop.cancelled() => {} }
}

fn ledgers(args: &UpArgs, state: &StateFolder, shared: &Shared) -> Result<Arc<Ledgers>, Error> {
    let context = recorder::Context {
        store: shared.store.clone(),
        secrets: shared.secrets.clone(),
        key: Arc::new(key::signing(args.signing_key.as_deref())?),
        holder: Some(state.holder().to_string()),
        caches: shared.caches.clone(),
        folder: shared.layout.mirrors(),
        clock: clock(),
        audit: shared.audit.clone(),
        metrics: shared.metrics.clone(),
    };
    Ok(Ledgers::new(Arc::new(context), shared.stop.clone()))
}

fn syncers(
    args: &UpArgs,
    shared: &Shared,
    ledgers: &Arc<Ledgers>,
    tasks: &mut JoinSet<()>,
) -> Result<sync::Progress, Error> {
    let progress = sync::Progress::default();
    let ledgers = ledgers.clone();
    let context = sync::Context {
        store: shared.store.clone(),
        accounts: shared.accounts.clone(),
        caches: shared.caches.clone(),
        runs: true,
        scope: shared.scope.clone(),
        secrets: shared.secrets.clone(),
        mirrors: shared.layout.mirrors(),
        signers: args.signers.as_deref().map(signers).transpose()?,
        clock: clock(),
        ledgers: Arc::new(move |repository| ledgers.follow(repository)),
        audit: shared.audit.clone(),
        metrics: shared.metrics.clone(),
        progress: progress.clone(),
        writes: TaskTracker::new(),
    };
    tasks.spawn(sync::control(Arc::new(context), shared.stop.clone().cancelled_owned()));
    Ok(progress)
}

fn controllers(
    args: &UpArgs,
    shared: &Shared,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<controllers::Context>, Error> {
    let context = controllers::Context::new(
        shared.store.clone(),
        shared.caches.clone(),
        places::open(args, &shared.layout, &shared.secrets, &shared.access)?,
        shared.secrets.clone(),
        shared.audit.clone(),
        shared.metrics.clone(),
        clock(),
    );
    control(&context, true, &shared.stop, tasks);
    Ok(context)
}
