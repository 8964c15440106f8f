//! `ostler controller`: follows repositories and reconciles sessions and runs.

mod nowhere;
mod pods;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, ValueEnum};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Error, LeaderArgs, RoleArgs, clock,
    ground::{Ground, Role},
};
use crate::{
    controllers,
    kinds::ConfigRepository,
    kubernetes::{
        client::as_account,
        objects::KubeObjects,
        workloads::{KubeWorkloads, PodSettings},
    },
    ledger,
    ports::Workloads,
    recorder, sync,
    telemetry::{Counted, Metrics},
};

/// The lease of the one that works.
const ROLE: Role = Role { lease: "ostler-controller", standby_is_ready: true };

/// Follow the config repositories of a cluster and reconcile their sessions and runs; of several, one works
///
/// It pulls and never pushes: claims and results are the recorder's. It holds no signing key.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it was asked to end, 2 it failed or another one leads.")]
pub struct ControllerArgs {
    #[command(flatten)]
    role: RoleArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    /// `allowed_signers`: only commits signed by one of them have an effect
    #[arg(long, value_name = "FILE", env = "OSTLER_SIGNERS")]
    signers: Option<PathBuf>,
    /// `allowed_signers`: whose entries in a ledger count, where its ConfigRepository names nobody: the recorder's key
    #[arg(long, value_name = "FILE", env = "OSTLER_LEDGER_SIGNERS")]
    ledger_signers: Option<PathBuf>,
    /// Where agents run
    #[arg(long, value_enum, env = "OSTLER_PLACES")]
    places: Places,
    #[command(flatten)]
    pods: pods::PodArgs,
}

/// Where agents run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Places {
    /// Nowhere: objects are synced, and runs are left to another controller.
    None,
    /// In pods of the cluster.
    Pods,
}

/// Works until it is asked to end, or another one leads.
///
/// # Errors
/// When the cluster or a file cannot be used.
pub async fn run(args: ControllerArgs) -> Result<ExitCode, Error> {
    let _guard = args.role.logging()?;
    // what the flags say is looked at before anybody waits for a lease
    let pods = match args.places {
        Places::None => None,
        Places::Pods => Some(args.pods.settings(args.role.namespace.clone())?),
    };
    let mut tasks = JoinSet::new();
    let ground = match Ground::take(&ROLE, &args.role, &args.leader, &mut tasks).await? {
        Ok(ground) => ground,
        Err(ended) => return Ok(ended.into()),
    };
    let begun = tokio::select! {
        begun = begin(&args, pods, &ground, &mut tasks) => begun.map_err(Err),
        ended = ground.is_to_end() => Err(Ok(ended)),
    };
    match begun {
        Ok(()) => Ok(ground.until_the_end(tasks, std::future::ready(())).await.into()),
        Err(ended) => ground.cannot_begin(ended).await,
    }
}

/// Starts everything, once there are places.
async fn begin(
    args: &ControllerArgs,
    pods: Option<PodSettings>,
    ground: &Ground,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let workloads = workloads(pods, ground).await?;
    syncer(args, ground, tasks)?;
    let context = controllers::Context::new(
        ground.store.clone(),
        ground.caches.clone(),
        workloads,
        ground.secrets.clone(),
        ground.audit.clone(),
        ground.metrics.clone(),
        clock(),
    );
    control(&context, args.places != Places::None, &ground.stop, tasks);
    Ok(())
}

/// The objects of a cluster in the name of service accounts; what is asked is counted as if it were in our own.
pub(in crate::cli) fn accounts(client: kube::Client, metrics: Arc<Metrics>) -> sync::Accounts {
    Arc::new(move |namespace, name| {
        let objects = KubeObjects::new(as_account(&client, namespace, name));
        Arc::new(Counted::new(Arc::new(objects), metrics.clone()))
    })
}

/// Starts the controllers; that of runs only where they have places.
pub(in crate::cli) fn control(
    context: &Arc<controllers::Context>,
    runs: bool,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(controllers::census::control(context.clone(), stop.clone().cancelled_owned()));
    tasks.spawn(controllers::session::control(context.clone(), stop.clone().cancelled_owned()));
    if runs {
        tasks.spawn(controllers::run::control(context.clone(), stop.clone().cancelled_owned()));
        tasks.spawn(controllers::sweep::control(context.clone(), stop.clone().cancelled_owned()));
    }
}

/// The places of runs.
async fn workloads(pods: Option<PodSettings>, ground: &Ground) -> Result<Arc<dyn Workloads>, Error> {
    let Some(settings) = pods else { return Ok(Arc::new(nowhere::Nowhere)) };
    let pods = KubeWorkloads::start(ground.client.clone(), settings, ground.secrets.clone()).await;
    Ok(pods.map_err(|e| Error::setup("look after the pods of runs", e))?)
}

fn syncer(args: &ControllerArgs, ground: &Ground, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let signers = args.signers.as_deref().map(super::signers).transpose()?;
    if let Some(path) = &args.ledger_signers {
        super::signers(path)?;
    }
    let lines = args.ledger_signers.as_deref().map(std::fs::read_to_string).transpose();
    let lines = lines.map_err(|e| Error::setup("read the signers of the ledger", e))?.unwrap_or_default();
    let readers = Arc::new(recorder::ReaderContext {
        repositories: ground.caches.repositories.clone(),
        runs: ground.caches.runs.clone(),
        secrets: ground.secrets.clone(),
        folder: args.leader.state.clone(),
        signers: lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect(),
    });
    let stop = ground.stop.clone();
    let context = sync::Context {
        store: ground.store.clone(),
        accounts: Some(accounts(ground.client.clone(), ground.metrics.clone())),
        caches: ground.caches.clone(),
        runs: args.places != Places::None,
        scope: ground.scope.clone(),
        secrets: ground.secrets.clone(),
        mirrors: args.leader.state.clone(),
        signers,
        clock: clock(),
        ledgers: Arc::new(move |repository| follow(repository, &readers, &stop)),
        audit: ground.audit.clone(),
        metrics: ground.metrics.clone(),
        progress: sync::Progress::default(),
        writes: TaskTracker::new(),
    };
    tasks.spawn(sync::control(Arc::new(context), ground.stop.clone().cancelled_owned()));
    Ok(())
}

/// Reads the ledger of a repository, for as long as somebody listens.
fn follow(
    repository: &ConfigRepository,
    readers: &Arc<recorder::ReaderContext>,
    stop: &CancellationToken,
) -> watch::Receiver<Arc<ledger::State>> {
    let (says, heard) = watch::channel(Arc::new(ledger::State::Unread));
    let namespace = repository.metadata.namespace.as_deref().and_then(|name| name.parse().ok());
    let name = repository.metadata.name.as_deref().and_then(|name| name.parse().ok());
    let (Some(namespace), Some(name)) = (namespace, name) else {
        says.send_replace(Arc::new(ledger::State::None));
        return heard;
    };
    let (readers, stop) = (Arc::clone(readers), stop.clone());
    tokio::spawn(async move {
        let listened_to = says.clone();
        tokio::select! {
            () = recorder::read(readers, (namespace, name), says, stop) => {}
            () = listened_to.closed() => {}
        }
    });
    heard
}
