//! `ostler recorder`: takes in results, and writes ledgers and code branches.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use futures::{FutureExt, future::BoxFuture};
use kube::ResourceExt;
use tokio::task::JoinSet;

use super::{
    Error, LeaderArgs, RoleArgs, clock,
    ground::{Ground, Role},
    ledgers::Ledgers,
    serve,
};
use crate::{
    api,
    cache::Caches,
    git::sign::SigningKey,
    kinds::{HarnessRun, Kind},
    kubernetes::access::KubeAccess,
    names::{Namespace, Uid},
    ports::{
        objects::{self, Store, id_of},
        workloads::RunKey,
    },
    recorder,
};

/// The lease of the one that works.
const ROLE: Role = Role { lease: "ostler-recorder", standby_is_ready: false };

/// Take in the results of a cluster's runs, and write ledgers and code branches; of several, one works
///
/// It alone holds the signing key and uses push credentials. Sidecars hand in results with tokens of their pods.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it was asked to end, 2 it failed or another one leads.")]
pub struct RecorderArgs {
    #[command(flatten)]
    role: RoleArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    /// The OpenSSH key that signs results, where a ConfigRepository names none
    #[arg(long, value_name = "FILE", env = "OSTLER_SIGNING_KEY")]
    signing_key: PathBuf,
    /// Take results in there, over TLS
    #[arg(long, value_name = "ADDR", env = "OSTLER_LISTEN")]
    listen: SocketAddr,
    /// The certificate chain, PEM; a renewed one is used for new connections
    #[arg(long, value_name = "FILE", env = "OSTLER_TLS_CERT")]
    tls_cert: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "OSTLER_TLS_KEY")]
    tls_key: PathBuf,
}

/// Works until it is asked to end, or another one leads.
///
/// # Errors
/// When the cluster or a file cannot be used.
pub async fn run(args: RecorderArgs) -> Result<ExitCode, Error> {
    let _guard = args.role.logging()?;
    let key = SigningKey::load(&args.signing_key);
    let key =
        key.map_err(|e| Error::setup(format!("use the signing key {}", args.signing_key.display()), e))?;
    let mut tasks = JoinSet::new();
    let ground = match Ground::take(&ROLE, &args.role, &args.leader, &mut tasks).await? {
        Ok(ground) => ground,
        Err(ended) => return Ok(ended.into()),
    };
    let context = recorder::Context {
        store: ground.store.clone(),
        secrets: ground.secrets.clone(),
        key: Arc::new(key),
        holder: None,
        caches: ground.caches.clone(),
        folder: args.leader.state.clone(),
        clock: clock(),
        audit: ground.audit.clone(),
        metrics: ground.metrics.clone(),
    };
    let ledgers = Ledgers::new(Arc::new(context), ground.stop.clone());
    let address = match intake(&args, &ground, &ledgers, &mut tasks).await {
        Ok(address) => address,
        Err(error) => return ground.cannot_begin(Err(error)).await,
    };
    args.role.announce("listening", &format!("https://{address}"));
    tasks.spawn(follow_all(ground.caches.clone(), ledgers.clone(), ground.stop.clone().cancelled_owned()));
    let last = async move { ledgers.ended().await };
    Ok(ground.until_the_end(tasks, last).await.into())
}

/// Each repository has its recorder from the moment it is seen.
async fn follow_all(caches: Caches, ledgers: Arc<Ledgers>, stop: impl Future<Output = ()>) {
    let follow = async {
        let mut touched = Box::pin(caches.repositories.touched());
        while let Some(reference) = futures::StreamExt::next(&mut touched).await {
            let namespace = reference.namespace.as_deref().unwrap_or_default();
            if let Some(repository) = caches.repositories.get(namespace, &reference.name) {
                drop(ledgers.follow(&repository));
            }
        }
    };
    tokio::select! { () = follow => {}, () = stop => {} }
}

async fn intake(
    args: &RecorderArgs,
    ground: &Ground,
    ledgers: &Arc<Ledgers>,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let (caches, store) = (ground.caches.clone(), ground.store.clone());
    let access = KubeAccess::new(ground.client.clone())
        .with_runs(Arc::new(move |namespace, pod| run_of(caches.clone(), store.clone(), namespace, pod)));
    let spool = args.leader.state.join("spool");
    let (audit, metrics) = (ground.audit.clone(), ground.metrics.clone());
    let intake = api::Intake::new(Arc::new(access), ledgers.deliver_to(), spool, audit, metrics, clock());
    let router = api::intake(intake.map_err(|e| Error::setup("prepare the spool", e))?);
    let files = (args.tls_cert.clone(), args.tls_key.clone());
    serve::tls(args.listen, files, router, &ground.stop, tasks).await
}

/// The run whose status says that this pod is its place. The cache may be behind the controller, so a pod that it does
/// not know is looked for in the store.
fn run_of(
    caches: Caches,
    store: Store,
    namespace: Namespace,
    pod: Uid,
) -> BoxFuture<'static, Result<Option<RunKey>, objects::Error>> {
    async move {
        let cached = caches.runs.within(namespace.as_str());
        if let Some(known) = cached.iter().find_map(|run| placed(run, &pod)) {
            return Ok(Some(known));
        }
        let stored = store.list(Kind::HarnessRun, Some(&namespace)).await?;
        let mut runs = stored.into_iter().filter_map(|run| objects::typed::<HarnessRun>(run).ok());
        Ok(runs.find_map(|run| placed(&run, &pod)))
    }
    .boxed()
}

fn placed(run: &HarnessRun, pod: &Uid) -> Option<RunKey> {
    run.status.as_ref()?.place.as_ref().filter(|place| place.uid == pod.as_str())?;
    let id = id_of(Kind::HarnessRun, run)?;
    Some(RunKey { namespace: id.namespace, name: id.name, uid: run.uid()?.parse().ok()? })
}
