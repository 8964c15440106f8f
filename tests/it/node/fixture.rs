//! The programs of the node, and their ways of starting.

use std::{fs, net::IpAddr, path::Path, sync::atomic::AtomicU32, time::Instant};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use serde_json::{Value, json};

use super::{Node, images::Imported};
use crate::cluster::{Cluster, Keeper, MASTERS, PATIENCE, PAUSE, path_printed_by};

/// Its socket, in the node's own `/run`.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd.sock";

pub(super) const CONTAINERD: &str = "containerd";
const CONTROLLERS: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
pub(super) const KUBELET: &str = "kubelet";
const PROXY: &str = "kube-proxy";
const NAMES: &str = "names";
const PROGRAMS: [&str; 6] = [CONTAINERD, CONTROLLERS, SCHEDULER, KUBELET, PROXY, NAMES];

impl Node {
    /// A node for one test, which may break it.
    ///
    /// # Panics
    /// When it does not start, with the last lines of its logs.
    pub(crate) async fn start_own() -> Self {
        assert!(rustix::process::getuid().is_root(), "only root can run the test node: sudo make test-node");
        let begun = Instant::now();
        let programs = path_printed_by("tests/cluster/build.sh", &["--node"]);
        let mut keeper = Keeper::new_node();
        // The first answer says that its place is made.
        assert!(!keeper.alive(CONTAINERD), "nothing runs there yet");
        let number = fs::read_to_string(keeper.folder().join("network")).unwrap().trim().parse().unwrap();
        start_containerd(&mut keeper, &programs, number);
        let address = IpAddr::from([10, 214, number, 2]);
        let cluster = Cluster::start_on(keeper, address).await;
        let node =
            Self { cluster, programs, number, images: Imported::default(), enforcers: AtomicU32::new(0) };
        node.import_pause().await;
        node.start_programs().await;
        node.until_ready().await;
        eprintln!("the test node {number} is ready after {:?}", begun.elapsed());
        node
    }

    async fn start_programs(&self) {
        let cluster = &self.cluster;
        let controllers = cluster.kubeconfig_for("system:kube-controller-manager", &[MASTERS]);
        let scheduler = cluster.kubeconfig_for("system:kube-scheduler", &[]);
        let kubelet = cluster.kubeconfig_for(&format!("system:node:{}", self.name()), &["system:nodes"]);
        let proxy = cluster.kubeconfig_for("system:kube-proxy", &[]);
        let names = cluster.kubeconfig_for("system:names", &[MASTERS]);
        let folder = cluster.folder();
        let file = |name: &str| folder.join(name).display().to_string();
        let identity = cluster.authority().server(KUBELET, &[&self.address().to_string()]);
        fs::write(folder.join("kubelet.crt"), identity.certificate).unwrap();
        fs::write(folder.join("kubelet.key"), identity.key).unwrap();
        fs::write(folder.join("kubelet.json"), self.kubelet_configuration().to_string()).unwrap();
        fs::write(folder.join("kube-proxy.json"), self.proxy_configuration(&proxy).to_string()).unwrap();

        let mut server = cluster.server().await;
        let manager = server.assets().join(CONTROLLERS);
        let keeper = server.keeper();
        keeper.start(
            CONTROLLERS,
            &manager,
            &[
                format!("--kubeconfig={}", controllers.display()),
                format!("--root-ca-file={}", file("authority.crt")),
                format!("--service-account-private-key-file={}", file("tokens.key")),
                "--allocate-node-cidrs=false".to_owned(),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        );
        keeper.start(
            SCHEDULER,
            &self.programs.join(SCHEDULER),
            &[
                format!("--kubeconfig={}", scheduler.display()),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        );
        keeper.start(
            KUBELET,
            &self.programs.join(KUBELET),
            &[
                format!("--kubeconfig={}", kubelet.display()),
                format!("--config={}", file("kubelet.json")),
                format!("--root-dir={}", file("kubelet")),
                format!("--hostname-override={}", self.name()),
                format!("--node-ip={}", self.address()),
            ],
        );
        keeper.start(PROXY, &self.programs.join(PROXY), &[format!("--config={}", file("kube-proxy.json"))]);
        keeper.start(
            NAMES,
            &self.programs.join(NAMES),
            &[format!("--kubeconfig={}", names.display()), format!("--listen={}:53", self.address())],
        );
    }

    /// Pods are scheduled to it from now on.
    async fn until_ready(&self) {
        let api: Api<NodeObject> = Api::all(self.cluster.client().await);
        let begun = Instant::now();
        while !is_ready(api.get_opt(&self.name()).await.ok().flatten()) {
            let patient = begun.elapsed() < PATIENCE && self.all_run().await;
            assert!(patient, "the test node did not start:\n{}", self.last_words().await);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn all_run(&self) -> bool {
        let mut server = self.cluster.server().await;
        PROGRAMS.iter().all(|program| server.keeper().alive(program))
    }

    /// What its programs said at last.
    pub(crate) async fn last_words(&self) -> String {
        let mut server = self.cluster.server().await;
        PROGRAMS.map(|name| server.keeper().last_words(name)).concat()
    }

    fn kubelet_configuration(&self) -> Value {
        let folder = self.cluster.folder();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/ostler-node-{}/kube", self.number),
            "failCgroupV1": false,
            "failSwapOn": false,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": folder.join("authority.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": folder.join("kubelet.crt"),
            "tlsPrivateKeyFile": folder.join("kubelet.key"),
            "clusterDNS": [self.address()],
            "clusterDomain": "cluster.local",
            "resolvConf": folder.join("resolv.conf"),
            "podLogsDir": folder.join("pods"),
            // Images cannot be had again, and a full disk of the machine is not the node's business.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
        })
    }

    fn proxy_configuration(&self, kubeconfig: &Path) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": kubeconfig},
            "hostnameOverride": self.name(),
            "clusterCIDR": self.pods(),
            "bindAddress": self.address(),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            // These are settings of the whole machine, which cannot be set from here.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            // Services come and go here faster than elsewhere.
            "nftables": {"minSyncPeriod": "100ms"},
        })
    }
}

fn is_ready(node: Option<NodeObject>) -> bool {
    let conditions =
        node.iter().flat_map(|node| node.status.iter()).flat_map(|status| status.conditions.iter());
    let ready =
        conditions.flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && node.and_then(|node| node.spec?.taints).unwrap_or_default().is_empty()
}

fn start_containerd(keeper: &mut Keeper, programs: &Path, number: u8) {
    let folder = keeper.folder().to_owned();
    fs::create_dir(folder.join("cni")).unwrap();
    let network = network(&folder, number);
    fs::write(folder.join("cni/10-ostler.conflist"), network.to_string()).unwrap();
    let (folder_text, programs) = (folder.display(), programs.display());
    let configuration = format!(
        r#"
version = 2
root = "{folder_text}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "ostler.test/pause:1"
  disable_apparmor = true
  # Where root lacks CAP_SYS_RESOURCE, nothing may ask to be killed later than containerd itself.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      # Nobody runs systemd in here.
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs}/cni"
    conf_dir = "{folder_text}/cni"
"#
    );
    fs::write(folder.join("containerd.toml"), configuration).unwrap();
    let arguments = ["--config".to_owned(), folder.join("containerd.toml").display().to_string()];
    keeper.start(CONTAINERD, Path::new("containerd"), &arguments);
}

/// Each pod has a wire to the node, which routes: so all that a pod sends passes the node's rules.
fn network(folder: &Path, number: u8) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "ostler",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("addresses"),
                "ranges": [[{"subnet": format!("10.215.{number}.0/24")}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}
