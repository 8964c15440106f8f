//! Pods as places, as the command line says.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::{
    cli::roles::Error,
    harness::pod::PROOF_SECONDS,
    kubernetes::{
        network::ProxySelector,
        workloads::{PodSettings, PullPolicy, STALL},
    },
    names::{Namespace, ObjectName},
    proxy::tunnel::Endpoint,
};

/// What pods need to be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --places pods")]
pub(super) struct PodArgs {
    /// Our own image, whose program is copied into each pod
    #[arg(long, value_name = "IMAGE", env = "OSTLER_IMAGE", required_if_eq("places", "pods"))]
    image: Option<String>,
    /// When images are pulled; default: as the cluster does
    #[arg(long, value_enum, env = "OSTLER_PULL_POLICY")]
    pull_policy: Option<Pull>,
    /// A Secret of the run's namespace with which images are pulled; may be given again
    #[arg(long = "pull-secret", value_name = "NAME")]
    pull_secrets: Vec<ObjectName>,
    /// Where the egress proxy takes tunnels: its Service's address, because pods have no DNS
    #[arg(long, value_name = "ADDR", env = "OSTLER_PROXY", required_if_eq("places", "pods"))]
    proxy: Option<SocketAddr>,
    /// Its port that no policy allows
    #[arg(long, value_name = "ADDR", env = "OSTLER_PROXY_CANARY", required_if_eq("places", "pods"))]
    proxy_canary: Option<SocketAddr>,
    /// The name in its certificate
    #[arg(long, value_name = "NAME", env = "OSTLER_PROXY_NAME", required_if_eq("places", "pods"))]
    proxy_name: Option<String>,
    /// The name in the recorder's certificate
    #[arg(long, value_name = "NAME", env = "OSTLER_RECORDER_NAME", required_if_eq("places", "pods"))]
    recorder_name: Option<String>,
    /// The authorities of both certificates, PEM
    #[arg(long, value_name = "FILE", env = "OSTLER_PROXY_CA", required_if_eq("places", "pods"))]
    proxy_ca: Option<PathBuf>,
    /// The namespace of the proxy's pods: with this, the network policy of each namespace with runs is written and kept;
    /// without, somebody else does that
    #[arg(long, value_name = "NAME", env = "OSTLER_PROXY_NAMESPACE", requires_all = ["proxy_labels", "proxy_port"])]
    proxy_namespace: Option<Namespace>,
    /// A label of the proxy's pods; may be given again
    #[arg(long = "proxy-label", value_name = "KEY=VALUE", value_parser = label, requires = "proxy_namespace")]
    proxy_labels: Vec<(String, String)>,
    /// The port of the proxy's pods that takes tunnels, which may not be that of their Service
    #[arg(long, value_name = "PORT", env = "OSTLER_PROXY_PORT")]
    proxy_port: Option<u16>,
    /// The API server as pods would reach it, for the proof that they do not
    #[arg(long, value_name = "ADDR", env = "OSTLER_API_SERVER")]
    api_server: Option<SocketAddr>,
    /// Start runs whose written limits a pod cannot enforce
    #[arg(long)]
    allow_unenforced_limits: bool,
    /// Start runs though their own node can be reached, as Kubernetes says it always can; their status says so
    #[arg(long)]
    allow_node_reach: bool,
    /// Seconds that a pod's network policy may take to be in force; a run whose way out is open then fails
    #[arg(long, value_name = "N", default_value_t = PROOF_SECONDS, env = "OSTLER_PROOF_SECONDS",
        value_parser = clap::value_parser!(u64).range(5..=600))]
    proof_seconds: u64,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Pull {
    /// Before each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl PodArgs {
    /// The settings of the pods of a scope.
    pub(super) fn settings(&self, scope: Option<Namespace>) -> Result<PodSettings, Error> {
        // the parser has seen to it that all are there
        let missing = |flag: &str| Error::setup("make places", format!("--places pods needs --{flag}"));
        let authorities = self.proxy_ca.as_ref().ok_or_else(|| missing("proxy-ca"))?;
        let authorities = std::fs::read_to_string(authorities)
            .map_err(|e| Error::setup(format!("read {}", authorities.display()), e))?;
        Ok(PodSettings {
            image: self.image.clone().ok_or_else(|| missing("image"))?,
            pull_policy: self.pull_policy.map(|pull| match pull {
                Pull::Always => PullPolicy::Always,
                Pull::IfNotPresent => PullPolicy::IfNotPresent,
                Pull::Never => PullPolicy::Never,
            }),
            pull_secrets: self.pull_secrets.clone(),
            proxy: Endpoint {
                address: self.proxy.ok_or_else(|| missing("proxy"))?,
                canary: self.proxy_canary.ok_or_else(|| missing("proxy-canary"))?,
                server_name: self.proxy_name.clone().ok_or_else(|| missing("proxy-name"))?,
                recorder_name: self.recorder_name.clone().ok_or_else(|| missing("recorder-name"))?,
                authorities,
            },
            network: self.proxy_namespace.clone().zip(self.proxy_port).map(|(namespace, port)| {
                ProxySelector { namespace, labels: self.proxy_labels.iter().cloned().collect(), port }
            }),
            api_server: self.api_server,
            allow_unenforced: self.allow_unenforced_limits,
            allow_node_reach: self.allow_node_reach,
            proof_seconds: self.proof_seconds,
            stall: STALL,
            scope,
        })
    }
}
