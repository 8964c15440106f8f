//! What the sidecar of a pod is told: by its volumes and its variables.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    HOME, NODE_ADDRESS_VARIABLE, PLACE, PodFile, SHARED, STATE, TMP, TOKEN_DIR, UID_VARIABLE, WORKSPACE,
};
use crate::{
    harness::place::{Folder, Ground, PlaceFile, Rooms},
    proxy::tunnel::{Client, ClientError, Endpoint},
    shim::FORWARDER,
};

/// The name of the annotation's file in [`PLACE`].
const PLACE_FILE: &str = "place.json";
/// What a kubelet tells every container of most clusters.
const API_SERVER_VARIABLES: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
/// How long a place that is asked for nothing more waits for its secrets. A run that was started is bounded by its own time limit.
const PATIENCE: Duration = Duration::from_hours(1);
/// Where the servers of names are listed: resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port of the DNS.
pub(super) const DNS: u16 = 53;

/// Arguments of `ostler harness pod` and `ostler harness attach`. In a pod none of them is given.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    /// A folder with all that is mounted, in place of the root.
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
    /// Where the agent finds its proxy.
    #[arg(long, hide = true, default_value_t = SocketAddr::from(FORWARDER))]
    forwarder: SocketAddr,
}

impl PodArgs {
    /// The folder of the place. `create` makes it, and not its parent.
    pub(super) fn folder(&self) -> Folder {
        Folder::new(below(&self.root, STATE).join("place"))
    }
}

/// Where a sidecar finds its volumes and offers its proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// What all paths are below.
    root: PathBuf,
    /// Where the agent finds its proxy.
    pub forwarder: SocketAddr,
    /// How long the proof of egress may take, in seconds.
    pub proof_seconds: u64,
}

impl Layout {
    /// What the agent sees, too.
    #[must_use]
    pub fn rooms(&self) -> Rooms {
        let at = |path| below(&self.root, path);
        Rooms { shared: at(SHARED), workspace: at(WORKSPACE), home: at(HOME), tmp: at(TMP) }
    }

    /// The projected tokens.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        below(&self.root, TOKEN_DIR)
    }

    /// The servers of names that programs of this pod would ask, but for those in the pod itself.
    pub(super) fn nameservers(&self) -> Vec<SocketAddr> {
        nameservers(&fs::read_to_string(below(&self.root, RESOLV_CONF)).unwrap_or_default())
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The pod around a place, as its sidecar knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Surroundings {
    /// Its volumes.
    pub layout: Layout,
    /// The only way out.
    pub proxy: Endpoint,
    /// The API server, which must not answer; `None`: nobody said where it is.
    pub api_server: Option<SocketAddr>,
    /// The pod's node.
    pub node: IpAddr,
    /// True: the node may be reached in spite of the policy.
    pub allow_node_reach: bool,
}

impl Surroundings {
    /// A client of the only way out, with this pod's tokens.
    ///
    /// # Errors
    /// When what the pod was told about it cannot be used.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.proxy, self.layout.tokens())
    }
}

/// Makes the folder of this pod's place, unless an earlier container of it did.
pub(in crate::harness) fn enter(args: &PodArgs) -> anyhow::Result<Folder> {
    let file = below(&args.root, PLACE).join(PLACE_FILE);
    let read = fs::read(&file).with_context(|| file.display().to_string())?;
    let asked: PodFile = serde_json::from_slice(&read).with_context(|| file.display().to_string())?;
    let place = place(args, asked, |name| std::env::var(name).ok())?;
    let folder = args.folder();
    folder.create(&place).with_context(|| folder.root().display().to_string())?;
    Ok(folder)
}

fn place(
    args: &PodArgs,
    asked: PodFile,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<PlaceFile> {
    let needed = |name: &'static str| variable(name).with_context(|| format!("variable {name} is missing"));
    let told = || {
        let [host, port] = API_SERVER_VARIABLES.map(&variable);
        Some(SocketAddr::new(host?.parse().ok()?, port?.parse().ok()?))
    };
    let surroundings = Surroundings {
        layout: Layout {
            root: args.root.clone(),
            forwarder: args.forwarder,
            proof_seconds: asked.proof_seconds,
        },
        proxy: asked.proxy,
        api_server: asked.api_server.or_else(told),
        node: needed(NODE_ADDRESS_VARIABLE)?.parse().context(NODE_ADDRESS_VARIABLE)?,
        allow_node_reach: asked.allow_node_reach,
    };
    Ok(PlaceFile {
        uid: needed(UID_VARIABLE)?.parse().context(UID_VARIABLE)?,
        created_at: asked.created_at,
        spec: asked.spec,
        terminal: asked.terminal,
        ground: Ground::Pod { pod: Box::new(surroundings) },
        allow_unenforced: asked.allow_unenforced,
        patience_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Reads a file as in resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else { return None };
        let address: IpAddr = address.parse().ok()?;
        (!address.is_loopback()).then(|| SocketAddr::new(address, DNS))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_names_outside_the_pod_are_found() {
        let text = "# by the kubelet\nsearch team.svc\nnameserver 10.96.0.10\nnameserver 127.0.0.1\noptions ndots:5\nnameserver x\n";
        assert_eq!(nameservers(text), ["10.96.0.10:53".parse().unwrap()]);
    }

    #[test]
    fn volumes_are_where_the_pod_has_them() {
        let at = |root: &str| Layout { root: root.into(), forwarder: FORWARDER.into(), proof_seconds: 60 };
        assert_eq!(at("/").tokens(), Path::new(TOKEN_DIR));
        assert_eq!(at("/t").rooms().workspace, Path::new("/t/place/workspace"));
    }
}
