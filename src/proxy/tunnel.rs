//! How a pod's sidecar reaches the egress proxy of a cluster, the only address that its pod may reach.
//!
//! One TLS connection is one tunnel. The sidecar writes one line of JSON, the [`Preamble`]; the proxy answers with one line, the [`Verdict`]; after
//! [`Verdict::Open`] the connection carries the target's bytes, both ways, until either side ends it.

mod client;

use std::net::{IpAddr, SocketAddr};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

pub use client::{Client, ClientError, OpenError, Stream};

/// Most bytes of a line, its end included. Projected tokens have about 1 KiB.
pub const LINE_BYTES: usize = 16 * 1024;

/// Where the proxy of a cluster is, as a pod must know it: nothing in a pod can resolve a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it takes tunnels.
    pub address: SocketAddr,
    /// A port of it that no policy allows: whoever reaches it is not confined.
    pub canary: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// The name in the recorder's certificate.
    pub recorder_name: String,
    /// The authorities of both certificates, as PEM. They are public.
    pub authorities: String,
}

/// What a sidecar asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// A connection of the agent, judged by the policies of its run. Token: audience `ostler-egress`.
    #[serde(rename_all = "camelCase")]
    Connect {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The recorder. Token: audience `ostler-result`.
    Recorder,
    /// Git's smart HTTP, read only, of one repository of the run until its agent starts; the proxy adds the credential. Token: audience `ostler-clone`.
    #[serde(rename_all = "camelCase")]
    Clone {
        /// The repository as the place names it.
        url: String,
    },
    /// Nothing but the answer, which shows that the proxy is alive and what its canary saw. Token: audience `ostler-egress`.
    Proof,
}

impl Target {
    /// The audience of the token that it asks for; the token's file has the same name.
    #[must_use]
    pub fn audience(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Proof => "ostler-egress",
            Self::Recorder => "ostler-result",
            Self::Clone { .. } => "ostler-clone",
        }
    }
}

/// The first line of a tunnel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preamble {
    /// A projected token of the pod, for the audience of the target.
    #[serde(serialize_with = "exposed")]
    pub token: SecretString,
    /// Where to.
    pub target: Target,
}

/// The proxy's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The target's bytes follow.
    Open,
    /// No, and trying again changes nothing.
    #[serde(rename_all = "camelCase")]
    Denied {
        /// For people: which rule, or what would open it.
        message: String,
    },
    /// Not now: the target does not answer.
    #[serde(rename_all = "camelCase")]
    Unreachable {
        /// Why.
        message: String,
    },
    /// The answer to [`Target::Proof`]; the connection ends.
    #[serde(rename_all = "camelCase")]
    Proof {
        /// The address that the proxy sees the caller at.
        address: IpAddr,
        /// Connections to the canary from that address, since the pod was made; each makes it larger.
        canary_saw: u64,
    },
}

fn exposed<S: Serializer>(token: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(token.expose_secret())
}
