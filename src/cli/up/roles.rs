//! The roles of one process: store, controllers, syncers, recorders, API; started in the order in which they need one
//! another.

use std::{
    fs::Permissions,
    io::Write,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use futures::{Stream, StreamExt};
use secrecy::ExposeSecret;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
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
    api,
    cache::Caches,
    cli::roles::{
        controller::{accounts, control},
        ledgers::Ledgers,
        signers,
    },
    controllers,
    embedded::{
        access::{EmbeddedAccess, Scope},
        objects as embedded_objects,
    },
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
    access: Arc<EmbeddedAccess>,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    caches: Caches,
    layout: Layout,
    scope: Option<Namespace>,
    stop: CancellationToken,
}

/// Starts everything; it ends with `stop`.
pub(super) async fn start(
    args: &UpArgs,
    repository: ConfigRepository,
    state: &StateFolder,
    stop: CancellationToken,
) -> Result<Roles, Error> {
    let layout = state.layout().clone();
    let namespace = repository.metadata.namespace.as_deref().and_then(|name| name.parse().ok());
    let Engine { store, client, scope, secrets, access, lease } =
        engine::open(args, namespace.unwrap_or_else(|| args.namespace.clone()), state).await?;
    let metrics = Arc::new(Metrics::new());
    let store: Store = Arc::new(Counted::new(store, metrics.clone()));
    store.apply(&untyped(&repository)?, meta::CLI, true, None).await?;
    let (caches, fill) = Caches::new(store.as_ref(), scope.as_ref());
    let mut tasks = JoinSet::new();
    tasks.spawn(until(stop.clone(), fill));
    caches.ready().await;

    let shared = Shared {
        secrets,
        access: Arc::new(
            EmbeddedAccess::open(layout.root()).map_err(|e| Error::setup("read the tokens", e))?,
        ),
        audit: Arc::new(AuditLog::file(&layout.audit()).map_err(|e| Error::setup("open the audit log", e))?),
        accounts: client.map(|client| accounts(client, metrics.clone())),
        metrics,
        store: store.clone(),
        caches: caches.clone(),
        layout: layout.clone(),
        scope: scope.clone(),
        stop: stop.clone(),
    };
    let ledgers = ledgers(args, state, &shared)?;
    intake(&shared, &ledgers, &mut tasks)?;
    let local = shared.access.clone();
    let callers: Arc<dyn Access> = match access {
        Some(cluster) => Arc::new(Callers { local, cluster }),
        None => local,
    };
    let api = api(args, &shared, callers, &mut tasks).await?;
    let progress = syncers(args, &shared, &ledgers, &mut tasks)?;
    let workloads = places::open(args, &layout, &shared.secrets, &shared.access)?;
    let context = controllers::Context::new(
        store.clone(),
        caches.clone(),
        workloads,
        shared.secrets.clone(),
        shared.audit.clone(),
        shared.metrics.clone(),
        clock(),
    );
    control(&context, true, &stop, &mut tasks);
    let socket = embedded_objects::serve(&layout.socket(), store.clone());
    let socket = socket.map_err(|e| Error::setup("serve the store's socket", e))?;
    let api_token = layout.api_token();
    Ok(Roles {
        store,
        caches,
        progress,
        api,
        api_token,
        controllers: context,
        ledgers,
        scope,
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

/// Takes results in, on a socket that only this user may reach.
fn intake(shared: &Shared, ledgers: &Arc<Ledgers>, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let access: Arc<dyn Access> = shared.access.clone();
    let intake = api::Intake::new(
        access,
        ledgers.deliver_to(),
        shared.layout.spool(),
        shared.audit.clone(),
        shared.metrics.clone(),
        clock(),
    );
    let intake = intake.map_err(|e| Error::setup("prepare the spool", e))?;
    let path = shared.layout.recorder_socket();
    let listener = listen(&path).map_err(|e| Error::setup(format!("listen on {}", path.display()), e))?;
    let router: Router = api::intake(intake);
    let stop = shared.stop.clone();
    tasks.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the intake ended");
        }
        // nobody answers there any more
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

/// A Unix socket with mode 0600. One that a killed process left is replaced: the state folder's lock is ours.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn api(
    args: &UpArgs,
    shared: &Shared,
    access: Arc<dyn Access>,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|e| Error::setup(format!("listen on {}", args.listen), e))?;
    let address = listener.local_addr().map_err(|e| Error::setup("find the API's address", e))?;
    let caches = shared.caches.clone();
    let gates = move || {
        let repositories = caches.repositories.all();
        let gate = |repository: &Arc<ConfigRepository>| {
            let applied = repository.status.as_ref().is_some_and(|s| s.last_applied.is_some());
            api::Gate {
                name: format!("applied {}", kube::ResourceExt::name_any(repository.as_ref())),
                open: applied,
            }
        };
        repositories.iter().map(gate).collect()
    };
    let state = api::State {
        store: shared.store.clone(),
        access,
        gates: Arc::new(gates),
        metrics: shared.metrics.clone(),
        audit: shared.audit.clone(),
        clock: clock(),
    };
    let address_file = shared.layout.api_address();
    std::fs::write(&address_file, format!("{address}\n"))
        .map_err(|e| Error::setup(format!("write {}", address_file.display()), e))?;
    let token_file = local_token(shared)?;
    let stop = shared.stop.clone();
    tasks.spawn(async move {
        let served =
            axum::serve(listener, api::router(state)).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the API ended");
        }
        // the address is only a hint, and the token ends with the process: the next one makes its own
        let _ = std::fs::remove_file(address_file);
        let _ = std::fs::remove_file(token_file);
    });
    Ok(address)
}

/// Makes the token with which this user reads the API, and leaves it where only they can read it.
fn local_token(shared: &Shared) -> Result<PathBuf, Error> {
    const NAME: &str = "local";
    let path = shared.layout.api_token();
    let made = shared.access.revoke(NAME).and_then(|()| shared.access.mint(NAME, Scope::Read, None));
    let token = made.map_err(|e| Error::setup("make the API's token", e))?;
    let written = match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path),
    };
    written
        .and_then(|mut file| file.write_all(token.expose_secret().as_bytes()))
        .map_err(|e| Error::setup(format!("write {}", path.display()), e))?;
    Ok(path)
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
