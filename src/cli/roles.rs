//! The roles of a cluster as processes of their own: one syncs and reconciles, one records, any number answer.
//!
//! What they share: how they are told where the cluster is, how they become the one that works, and how they end.

pub mod api;
pub mod controller;
mod ground;
pub(in crate::cli) mod ledgers;
pub mod recorder;
mod serve;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use jiff::tz::TimeZone;
use tokio::{signal::unix, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    git::signers::AllowedSigners,
    kubernetes::client::Target,
    names::Namespace,
    telemetry::{self, AuditLog},
};

/// Where the cluster is, and what of it is looked after.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The cluster, by its kubeconfig; default: KUBECONFIG, the user's own, or the cluster in whose pod this runs
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Look after one namespace and ask for nothing outside of it; default: all of them
    #[arg(long, value_name = "NAME", env = "OSTLER_NAMESPACE")]
    pub namespace: Option<Namespace>,
    /// Serve /healthz, /readyz and /metrics there, without authentication: for probes and scrapers
    #[arg(long, value_name = "ADDR", env = "OSTLER_HEALTH")]
    pub health: Option<SocketAddr>,
    /// The audit trail as a file; default: standard error, between the log lines
    #[arg(long, value_name = "FILE", env = "OSTLER_AUDIT")]
    pub audit: Option<PathBuf>,
    /// What is logged: a list of target=level
    #[arg(long, value_name = "FILTER", env = "OSTLER_LOG", default_value = telemetry::init::DEFAULT_FILTER)]
    pub log: String,
    /// Log lines and progress as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a role becomes the one that works.
#[derive(Debug, Args)]
pub struct LeaderArgs {
    /// Our name in the lease; default: the host's name and a random part
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,
    /// The lease's namespace; default: --namespace, or the one of our own pod or kubeconfig
    #[arg(long, value_name = "NAME", env = "OSTLER_LEASE_NAMESPACE")]
    pub lease_namespace: Option<Namespace>,
    /// A folder for mirrors; all that is in it can be lost
    #[arg(long, value_name = "DIR", env = "OSTLER_STATE")]
    pub state: PathBuf,
}

/// Why a role ended.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}")]
pub struct Error {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    fn setup(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

impl RoleArgs {
    fn target(&self) -> Target {
        Target { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    fn logging(&self) -> Result<telemetry::Guard, Error> {
        let format = if self.json { telemetry::Format::Json } else { telemetry::Format::Text };
        telemetry::init(format, &self.log).map_err(|e| Error::setup("set up logging", e))
    }

    fn audit(&self) -> Result<Arc<AuditLog>, Error> {
        Ok(Arc::new(match &self.audit {
            Some(file) => AuditLog::file(file).map_err(|e| Error::setup("open the audit trail", e))?,
            None => AuditLog::stderr(),
        }))
    }

    /// One line of progress on standard output.
    fn announce(&self, what: &str, value: &str) {
        if self.json {
            println!("{}", serde_json::json!({"what": what, "value": value}));
        } else {
            println!("{what:10} {value}");
        }
    }
}

/// How a role came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was asked to.
    Asked,
    /// Another one leads.
    Displaced,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Asked => Self::SUCCESS,
            Ended::Displaced => {
                tracing::error!("another process leads now; this one ends");
                Self::from(2)
            }
        }
    }
}

/// A token that is cancelled when the process is asked to end. From its return on, a signal ends nothing by itself.
fn stop_signal(tasks: &mut JoinSet<()>) -> Result<CancellationToken, Error> {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let asked = signals().map_err(|e| Error::setup("wait for signals", e))?;
    tasks.spawn(async move {
        tokio::select! {
            () = asked => cancelled.cancel(),
            () = cancelled.cancelled() => {}
        }
    });
    Ok(stop)
}

/// Ends with the first SIGINT or SIGTERM from now on.
fn signals() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Waits for SIGINT or SIGTERM. Agents go on: the next process adopts them.
pub(in crate::cli) async fn asked_to_end() {
    match signals() {
        Ok(asked) => asked.await,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot wait for signals");
            std::future::pending::<()>().await;
        }
    }
}

/// Reads an `allowed_signers` file.
pub(in crate::cli) fn signers(path: &Path) -> Result<AllowedSigners, Error> {
    let named = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Error::setup(format!("read {named}"), e))?;
    AllowedSigners::parse(&text, &TimeZone::system()).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(|e| format!("{named}:{e}")).collect();
        Error::setup(format!("read the signers in {named}"), errors.join("\n"))
    })
}

/// The time, as everybody in this process gets it.
fn clock() -> crate::clock::Clock {
    Arc::new(jiff::Timestamp::now)
}
