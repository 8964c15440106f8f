//! A place that is a pod: what its maker and its sidecar agree on.
//!
//! ```text
//! init container `install`   ostler harness install BIN: copies this program to where the agent's container sees it
//! native sidecar `sidecar`   ostler harness pod: judges the agent; has the tokens
//! container `agent`          ostler shim supervise, as PID 1 of any image; has no token, no Secret and nothing of ours in its environment
//! ```

mod attach;
mod install;
mod proof;
mod recorder;
mod relay;
mod surroundings;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(super) use attach::attach;
pub(super) use install::{InstallArgs, install};
pub(super) use proof::prove;
pub(super) use recorder::reach_recorder;
pub(super) use relay::Relay;
pub(super) use surroundings::enter;
pub use surroundings::{Layout, PodArgs, Surroundings};

use crate::{ports::workloads::PlaceSpec, proxy::tunnel::Endpoint, shim::wire::Size};

/// The annotation with the [`PodFile`], which the downward API projects into the sidecar.
pub const ANNOTATION: &str = "ostler.dev/place";
/// Name of the container that judges.
pub const SIDECAR: &str = "sidecar";
/// Name of the container that is judged.
pub const AGENT: &str = "agent";
/// Name of the init container.
pub const INSTALL: &str = "install";
/// Where the program is in its own image.
pub const PROGRAM: &str = "/ostler";

/// Volume `bin`: the program. Written by `install`, read-only in the agent's container. The same path in both.
pub const BIN: &str = "/run/ostler-bin";
/// Volume `shared`: the shim's socket. Read-only in the agent's container. The same path in both.
pub const SHARED: &str = "/run/ostler";
/// Volume `place`, sidecar only: the annotation as file `place.json`, by the downward API.
pub const PLACE: &str = "/etc/ostler";
/// Volume `state`, sidecar only: the place's folder; see [`super::place`]. It outlives the container, not the pod.
pub const STATE: &str = "/var/lib/ostler";
/// Volume `tokens`, sidecar only: projected tokens in files [`TOKENS`].
pub const TOKEN_DIR: &str = "/var/run/secrets/ostler";
/// Token files, which are named as their audiences.
pub const TOKENS: [&str; 3] = ["ostler-egress", "ostler-clone", "ostler-result"];
/// Volumes `workspace`, `home` and `tmp` in the sidecar; the agent sees them at the workspace's directory, its home and `/tmp`.
pub const WORKSPACE: &str = "/place/workspace";
/// See [`WORKSPACE`].
pub const HOME: &str = "/place/home";
/// See [`WORKSPACE`].
pub const TMP: &str = "/place/tmp";

/// The sidecar's variables, all by the downward API: the pod's UID, its address, its node's address and name.
pub const UID_VARIABLE: &str = "OSTLER_POD_UID";
/// See [`UID_VARIABLE`].
pub const POD_ADDRESS_VARIABLE: &str = "OSTLER_POD_ADDRESS";
/// See [`UID_VARIABLE`].
pub const NODE_ADDRESS_VARIABLE: &str = "OSTLER_NODE_ADDRESS";
/// See [`UID_VARIABLE`].
pub const NODE_NAME_VARIABLE: &str = "OSTLER_NODE_NAME";

/// How long the proof of egress may take, unless somebody says otherwise, in seconds: network plugins that enforce a
/// policy do so some seconds after a pod has its address.
pub const PROOF_SECONDS: u64 = 60;

/// What was asked for: the content of [`ANNOTATION`]. No secret is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFile {
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What runs.
    pub spec: PlaceSpec,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<Size>,
    /// True: limits that an author wrote need not be enforced.
    pub allow_unenforced: bool,
    /// True: a node that can be reached in spite of the policy is told, and does not fail the run.
    pub allow_node_reach: bool,
    /// How long the proof of egress may take, in seconds.
    #[serde(default = "default_proof_seconds")]
    pub proof_seconds: u64,
    /// The only way out.
    pub proxy: Endpoint,
    /// The API server's address, which must not answer.
    pub api_server: Option<std::net::SocketAddr>,
}

/// Of pods that were made before it could be said.
fn default_proof_seconds() -> u64 {
    PROOF_SECONDS
}
