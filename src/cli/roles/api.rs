//! `ostler api`: the status API; stateless, so any number of them.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::task::JoinSet;

use super::{Error, RoleArgs, clock, serve};
use crate::{
    api,
    kubernetes::{
        access::KubeAccess,
        client::{check_crds, connect},
        objects::KubeObjects,
    },
    telemetry::{Counted, Metrics},
};

/// Serve the state of a cluster's objects, read-only, to whom its RBAC allows it; any number of them work
#[derive(Debug, Args)]
pub struct ApiArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Serve there: over TLS with --tls-cert, else in the clear
    #[arg(long, value_name = "ADDR", env = "OSTLER_LISTEN")]
    listen: SocketAddr,
    /// The certificate chain, PEM; a renewed one is used for new connections
    #[arg(long, value_name = "FILE", env = "OSTLER_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "OSTLER_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Serves until it is asked to end.
///
/// # Errors
/// When the cluster or a file cannot be used.
pub async fn run(args: ApiArgs) -> Result<ExitCode, Error> {
    let _guard = args.role.logging()?;
    let mut tasks = JoinSet::new();
    let stop = super::stop_signal(&mut tasks)?;
    let client = connect(&args.role.target()).await.map_err(|e| Error::setup("reach the cluster", e))?;
    check_crds(&client).await.map_err(|e| Error::setup("use the cluster's CRDs", e))?;
    let metrics = Arc::new(Metrics::new());
    let gates: api::Gates = Arc::new(Vec::new);
    serve::health(&args.role, gates.clone(), &metrics, &stop, &mut tasks).await?;
    let store = Arc::new(KubeObjects::new(client.clone()));
    let router = api::router(api::State {
        store: Arc::new(Counted::new(store, metrics.clone())),
        access: Arc::new(KubeAccess::new(client)),
        gates,
        metrics,
        audit: args.role.audit()?,
        clock: clock(),
    });
    let (address, protocol) = match args.tls_cert.clone().zip(args.tls_key.clone()) {
        Some(files) => (serve::tls(args.listen, files, router, &stop, &mut tasks).await?, "https"),
        None => (serve::plain(args.listen, router, &stop, &mut tasks).await?, "http"),
    };
    args.role.announce("listening", &format!("{protocol}://{address}"));
    while tasks.join_next().await.is_some() {}
    Ok(ExitCode::SUCCESS)
}
