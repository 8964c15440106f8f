//! `ostler proxy`: the egress proxy of a cluster.

mod health;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, signal::unix};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    egress::OwnService,
    kubernetes::{
        callers::KubeCallers,
        client::{Target, connect},
        secrets::KubeSecrets,
    },
    proxy::{
        HostsFile, Resolver,
        gateway::{Certificate, Gateway, Limits, Parts},
    },
    telemetry,
};

/// How long open tunnels may go on after a signal; a pod is given 30 s by default.
const GRACE: Duration = Duration::from_secs(25);
/// How often the certificate's files are looked at. The kubelet takes a minute or so to bring a Secret's change.
const LOOK: Duration = Duration::from_secs(10);
/// Where a pod learns the API server's address from.
const API_SERVER: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

/// The egress proxy of a cluster: takes the tunnels of the runs' pods
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Where tunnels are taken
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// A port that no policy allows: who reaches it is not confined
    #[arg(long, value_name = "ADDR")]
    pub canary: SocketAddr,
    /// Where /healthz, /readyz and /metrics are
    #[arg(long, value_name = "ADDR")]
    pub health: SocketAddr,
    /// The certificate, PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
    /// Where runs deliver their results
    #[arg(long, value_name = "HOST:PORT")]
    pub recorder: String,
    /// Addresses of names, as in /etc/hosts, before any name server
    #[arg(long, value_name = "FILE")]
    pub egress_hosts: Option<PathBuf>,
    /// A kubeconfig; default: that of the user, else the cluster in whose pod this runs
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Log lines as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs until a signal; then open tunnels have 25 s to end.
///
/// # Errors
/// When a part cannot be set up. An API server that is out of reach is waited for.
pub async fn run(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let format = if args.json { telemetry::Format::Json } else { telemetry::Format::Text };
    let _guard = telemetry::init(format, telemetry::init::DEFAULT_FILTER)?;
    let resolver = match &args.egress_hosts {
        None => Resolver::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Resolver::new(HostsFile::parse(&text).with_context(|| file.display().to_string())?)
        }
    };
    let certificate = Certificate::read(&args.tls_cert, &args.tls_key)?;
    let (tunnels, canary, health) =
        (bind(args.listen).await?, bind(args.canary).await?, bind(args.health).await?);
    let addresses = [tunnels.local_addr()?, canary.local_addr()?, health.local_addr()?];
    let client = connect(&Target { kubeconfig: args.kubeconfig, context: args.context }).await?;
    let callers = Arc::new(KubeCallers::new(client.clone(), own_services(&addresses)));
    let gateway = Gateway::new(Parts {
        callers: Arc::clone(&callers) as _,
        secrets: Arc::new(KubeSecrets::new(client)),
        resolver,
        recorder: args.recorder,
        limits: Limits::default(),
    });
    let mut registry = Registry::default();
    gateway.counts().register(&mut registry);
    let stop = CancellationToken::new();
    let router = health::router(registry, callers, stop.clone());
    // these end with the process
    let _health = AbortOnDropHandle::new(tokio::spawn(async { axum::serve(health, router).await }));
    let watched = gateway.clone();
    let _canary = AbortOnDropHandle::new(tokio::spawn(async move { watched.serve_canary(canary).await }));
    let followed = certificate.clone();
    let _certificate = AbortOnDropHandle::new(tokio::spawn(async move { followed.follow(LOOK).await }));
    let [listen, canary, health] = addresses;
    println!(
        "{}",
        serde_json::json!({"what": "listening", "listen": listen, "canary": canary, "health": health})
    );
    let ending = signal(stop.clone())?;
    tokio::select! {
        () = gateway.serve(tunnels, &certificate, stop.cancelled()) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("tunnels that were still open are cut");
        }
    }
    drop(ending);
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}

/// Ourselves, all else on our loopback, and the API server: no policy opens them. Where we listen on every address, our ports are closed on every inner address.
fn own_services(listening: &[SocketAddr]) -> Vec<OwnService> {
    let [host, port] = API_SERVER.map(|variable| std::env::var(variable).unwrap_or_default());
    let address = host.parse::<IpAddr>().ok().zip(port.parse::<u16>().ok());
    let api_server = address.map(SocketAddr::from);
    let sockets = listening.iter().copied().chain(api_server).map(OwnService::Socket);
    sockets.chain([OwnService::Loopback]).collect()
}

/// Has SIGINT or SIGTERM cancel the token.
fn signal(stop: CancellationToken) -> std::io::Result<AbortOnDropHandle<()>> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })))
}
