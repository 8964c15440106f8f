//! `ostler recorder`: takes in results, and writes ledgers and code branches.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
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
    kinds::{HarnessRun, Kind, Phase},
    kubernetes::{
        access::{BoundPod, KubeAccess, PlaceOf},
        workloads::pod_name,
    },
    ports::{objects::id_of, workloads::RunKey},
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
    let caches = ground.caches.clone();
    let access = KubeAccess::new(ground.client.clone()).with_runs(Arc::new(move |pod| run_of(&caches, pod)));
    let spool = args.leader.state.join("spool");
    let (audit, metrics) = (ground.audit.clone(), ground.metrics.clone());
    let intake = api::Intake::new(Arc::new(access), ledgers.deliver_to(), spool, audit, metrics, clock());
    let router = api::intake(intake.map_err(|e| Error::setup("prepare the spool", e))?);
    let files = (args.tls_cert.clone(), args.tls_key.clone());
    serve::tls(args.listen, files, router, &ground.stop, tasks).await
}

/// The run whose status says that this pod is its place. Nothing is asked of the store, however many hand in at once.
///
/// A pod that waits for nothing may be done before the controller has told of it, or before we have heard: it has the name
/// that the place of its run will have.
fn run_of(caches: &Caches, pod: &BoundPod) -> PlaceOf {
    let runs = caches.runs.within(pod.namespace.as_str());
    if let Some(run) = runs.iter().find(|run| is_place(run, pod)).and_then(|run| key(run)) {
        return PlaceOf::Run(run);
    }
    let waits = |run: &HarnessRun| {
        let status = run.status.as_ref();
        status.is_some_and(|s| s.place.is_none() && !s.phase.is_some_and(Phase::is_terminal))
    };
    let mut waiting = runs.iter().filter(|run| waits(run)).filter_map(|run| key(run));
    if waiting.any(|run| pod_name(&run) == pod.name) { PlaceOf::NotYet } else { PlaceOf::Nobody }
}

fn is_place(run: &HarnessRun, pod: &BoundPod) -> bool {
    let place = run.status.as_ref().and_then(|status| status.place.as_ref());
    place.is_some_and(|place| place.uid == pod.uid.as_str())
}

fn key(run: &HarnessRun) -> Option<RunKey> {
    let id = id_of(Kind::HarnessRun, run)?;
    Some(RunKey { namespace: id.namespace, name: id.name, uid: run.uid()?.parse().ok()? })
}
