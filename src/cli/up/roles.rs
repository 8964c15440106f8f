//! The roles of one process: store, controllers, syncers, recorders, API; started in the order in which they need one
//! another.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, UpArgs, clock, key,
    ledgers::Ledgers,
    places,
    state_folder::{Layout, StateFolder},
};
use crate::{
    api,
    cache::Caches,
    controllers,
    embedded::{
        access::EmbeddedAccess,
        objects::{self as embedded_objects, EmbeddedStore},
        secrets::SecretFolder,
    },
    kinds::{ConfigRepository, ObjectId, meta},
    ports::{
        Access, Secrets,
        objects::{Store, untyped},
    },
    recorder, sync,
    telemetry::{AuditLog, Counted, Metrics},
};

/// What runs, and what others need of it.
pub(super) struct Roles {
    pub(super) caches: Caches,
    pub(super) progress: sync::Progress,
    /// Where the API listens.
    pub(super) api: SocketAddr,
    ledgers: Arc<Ledgers>,
    tasks: JoinSet<()>,
    /// Whatever must go last.
    _socket: embedded_objects::Server,
}

impl Roles {
    /// Waits until every role has ended.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
        self.ledgers.ended().await;
    }
}

/// Parts that several roles share.
struct Shared {
    store: Store,
    secrets: Arc<dyn Secrets>,
    access: Arc<EmbeddedAccess>,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    caches: Caches,
    layout: Layout,
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
    let embedded = Arc::new(EmbeddedStore::open_with_clock(&layout.objects(), clock())?);
    let metrics = Arc::new(Metrics::new());
    let store: Store = Arc::new(Counted::new(embedded.clone(), metrics.clone()));
    store.apply(&untyped(&repository)?, meta::CLI, true, None).await?;
    let (caches, fill) = Caches::new(store.as_ref(), None);
    let mut tasks = JoinSet::new();
    tasks.spawn(until(stop.clone(), fill));
    caches.ready().await;

    let shared = Shared {
        secrets: secrets(args, &layout)?,
        access: Arc::new(
            EmbeddedAccess::open(layout.root()).map_err(|e| Error::setup("read the tokens", e))?,
        ),
        audit: Arc::new(AuditLog::file(&layout.audit()).map_err(|e| Error::setup("open the audit log", e))?),
        metrics,
        store: store.clone(),
        caches: caches.clone(),
        layout: layout.clone(),
        stop: stop.clone(),
    };
    let ledgers = ledgers(args, state, &shared)?;
    intake(&shared, &ledgers, &mut tasks)?;
    let api = api(args, &shared, &mut tasks).await?;
    let progress = syncers(args, &shared, &ledgers, &mut tasks)?;
    let workloads = places::open(args, &layout, &shared.secrets, &shared.access)?;
    let context =
        controllers::Context::new(store.clone(), caches.clone(), workloads, shared.secrets.clone(), clock());
    tasks.spawn(controllers::session::control(context.clone(), stop.clone().cancelled_owned()));
    tasks.spawn(controllers::run::control(context, stop.clone().cancelled_owned()));
    let told = embedded.clone();
    let events: embedded_objects::Events = Arc::new(move |id: &ObjectId| told.events(id));
    let socket = embedded_objects::serve(&layout.socket(), store, events);
    let socket = socket.map_err(|e| Error::setup("serve the store's socket", e))?;
    Ok(Roles { caches, progress, api, ledgers, tasks, _socket: socket })
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { () = work => {}, () = stop.cancelled() => {} }
}

/// The folder that was named, or an empty one of the state folder's own.
fn secrets(args: &UpArgs, layout: &Layout) -> Result<Arc<dyn Secrets>, Error> {
    let folder: PathBuf = if let Some(folder) = &args.secrets {
        folder.clone()
    } else {
        let own = layout.root().join("secrets");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .map_err(|e| Error::setup(format!("make {}", own.display()), e))?;
        own
    };
    let opened = SecretFolder::open(&folder);
    Ok(Arc::new(opened.map_err(|e| Error::setup(format!("open the secrets in {}", folder.display()), e))?))
}

fn ledgers(args: &UpArgs, state: &StateFolder, shared: &Shared) -> Result<Arc<Ledgers>, Error> {
    let context = recorder::Context {
        store: shared.store.clone(),
        secrets: shared.secrets.clone(),
        key: Arc::new(key::signing(args.signing_key.as_deref())?),
        holder: state.holder().to_string(),
        folder: shared.layout.mirrors(),
        clock: clock(),
        audit: shared.audit.clone(),
        metrics: shared.metrics.clone(),
    };
    Ok(Ledgers::new(Arc::new(context), shared.caches.clone(), shared.stop.clone()))
}

/// Takes results in, on a socket that only this user may reach.
fn intake(shared: &Shared, ledgers: &Arc<Ledgers>, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let ledgers = ledgers.clone();
    let deliver: api::Deliver = Arc::new(move |delivery| {
        let ledgers = ledgers.clone();
        Box::pin(async move { ledgers.deliver(delivery).await })
    });
    let access: Arc<dyn Access> = shared.access.clone();
    let intake = api::Intake::new(
        access,
        deliver,
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

async fn api(args: &UpArgs, shared: &Shared, tasks: &mut JoinSet<()>) -> Result<SocketAddr, Error> {
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
        access: shared.access.clone(),
        gates: Arc::new(gates),
        metrics: shared.metrics.clone(),
        audit: shared.audit.clone(),
        clock: clock(),
    };
    let address_file = shared.layout.api_address();
    std::fs::write(&address_file, format!("{address}\n"))
        .map_err(|e| Error::setup(format!("write {}", address_file.display()), e))?;
    let stop = shared.stop.clone();
    tasks.spawn(async move {
        let served =
            axum::serve(listener, api::router(state)).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the API ended");
        }
        // it is only a hint
        let _ = std::fs::remove_file(address_file);
    });
    Ok(address)
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
        caches: shared.caches.clone(),
        secrets: shared.secrets.clone(),
        mirrors: shared.layout.mirrors(),
        signers: args.signers.as_deref().map(key::signers).transpose()?,
        clock: clock(),
        ledgers: Arc::new(move |repository| ledgers.follow(repository)),
        progress: progress.clone(),
        metrics: shared.metrics.clone(),
    };
    tasks.spawn(sync::control(Arc::new(context), shared.stop.clone().cancelled_owned()));
    Ok(progress)
}
