//! What all pods of runs have in common.

use std::{net::SocketAddr, time::Duration};

use crate::{
    kubernetes::network::ProxySelector,
    names::{Namespace, ObjectName},
    proxy::tunnel::Endpoint,
};

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node has it, or the pod does not start.
    Never,
}

impl PullPolicy {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// What all pods have in common.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// Our own image, with the program at [`crate::harness::pod::PROGRAM`].
    pub image: String,
    /// When it is pulled; `None`: as the cluster does by default.
    pub pull_policy: Option<PullPolicy>,
    /// Secrets of the run's namespace with which images are pulled.
    pub pull_secrets: Vec<ObjectName>,
    /// The only way out.
    pub proxy: Endpoint,
    /// The API server's address, which no pod may reach; `None`: it is not tried.
    pub api_server: Option<SocketAddr>,
    /// True: limits that an author wrote need not be enforced.
    pub allow_unenforced: bool,
    /// True: a node that can be reached in spite of the policy does not fail the run.
    pub allow_node_reach: bool,
    /// How long the proof of egress may take, in seconds; then the run ends.
    pub proof_seconds: u64,
    /// How long a pod may get no further on its node before the events about it are read; [`super::STALL`] but in tests.
    pub stall: Duration,
    /// The only namespace that is looked at; `None`: all.
    pub scope: Option<Namespace>,
    /// The proxy's pods, which the network policy of each namespace lets through; `None`: somebody else writes the
    /// policies. Either way the agent starts only once its way out is proven closed.
    pub network: Option<ProxySelector>,
}
