//! The processes of the test cluster, and their ways of starting.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kube::Client;

use super::{authority::Authority, client_of, keeper::Keeper, write_kubeconfig};

/// The audit log's name in the cluster's folder.
pub(crate) const AUDIT_LOG: &str = "audit.log";

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";

/// How long anything may take to come: machines of CI are slow and loaded.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// The time between two looks at something that cannot be waited for otherwise.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// A port that was free may be taken when the program comes to it.
const ATTEMPTS: usize = 5;

/// What is asked of whom is written down; not what the server asks itself.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}]
}"#;

/// The address of the API server's own service, the first of the range.
const SERVICE: &str = "10.96.0.1";

/// etcd and an API server.
#[derive(Debug)]
pub(crate) struct Server {
    keeper: Keeper,
    assets: PathBuf,
    /// Where the API server is found: the loopback, or a node's own address.
    address: IpAddr,
    ports: Ports,
}

/// Free ones, when they were looked for.
#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peers: u16,
}

impl Server {
    /// Both are up when this returns.
    ///
    /// # Panics
    /// When they do not come up, with the last lines of their logs.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let assets = assets();
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            let address = IpAddr::from(Ipv4Addr::LOCALHOST);
            let mut server =
                Self { keeper: Keeper::new(), assets: assets.clone(), address, ports: Ports::free() };
            match server.bring_up(authority).await {
                Ok(()) => return server,
                Err(why) => said = why,
            }
        }
        panic!("the test API server did not start {ATTEMPTS} times, at last:\n{said}");
    }

    /// The same on a node, at this address of it, for kubelet and pods to reach.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub(crate) async fn start_on(keeper: Keeper, address: IpAddr, authority: &Authority) -> Self {
        let mut server = Self { keeper, assets: assets(), address, ports: Ports::USUAL };
        if let Err(said) = server.bring_up(authority).await {
            panic!("the API server of the test node did not start:\n{said}");
        }
        server
    }

    async fn bring_up(&mut self, authority: &Authority) -> Result<(), String> {
        self.write_files(authority);
        self.start_etcd();
        self.keeper.start(API_SERVER, &self.assets.join(API_SERVER), &self.api_server_arguments());
        self.ready(authority).await
    }

    /// Where the API server listens.
    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.api)
    }

    /// Where the programs are that a server without a node may have.
    pub(crate) fn assets(&self) -> &Path {
        &self.assets
    }

    /// What runs beside the server, in its place and for its time.
    pub(crate) fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    pub(crate) fn folder(&self) -> &Path {
        self.keeper.folder()
    }

    /// Where etcd answers.
    pub(crate) fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    pub(crate) fn stop_api_server(&mut self) {
        self.keeper.stop(API_SERVER);
    }

    /// # Panics
    /// When it does not come up on the port it had.
    pub(crate) async fn start_api_server(&mut self, authority: &Authority) {
        self.keeper.start(API_SERVER, &self.assets.join(API_SERVER), &self.api_server_arguments());
        if let Err(said) = self.ready(authority).await {
            panic!("the test API server did not start again:\n{said}");
        }
    }

    /// # Panics
    /// When `KUBEBUILDER_ASSETS` has no controller manager.
    pub(crate) fn start_controllers(&mut self, kubeconfig: &Path) {
        let program = self.assets.join(CONTROLLERS);
        assert!(
            program.is_file(),
            "{} is missing; without KUBEBUILDER_ASSETS it is built",
            program.display()
        );
        if self.keeper.alive(CONTROLLERS) {
            return;
        }
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            "--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller"
                .to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        self.keeper.start(CONTROLLERS, &program, &arguments);
    }

    fn write_files(&self, authority: &Authority) {
        let address = self.address.to_string();
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let server = authority.server(API_SERVER, &[&names[..], &[SERVICE, &address]].concat());
        let client = authority.user("kube-apiserver-kubelet-client", &[super::MASTERS]);
        let write = |name: &str, content: &str| std::fs::write(self.folder().join(name), content).unwrap();
        write("authority.crt", &authority.certificate);
        write("server.crt", &server.certificate);
        write("server.key", &server.key);
        write("kubelet-client.crt", &client.certificate);
        write("kubelet-client.key", &client.key);
        write("tokens.key", &authority.service_account_key);
        write("tokens.pub", &authority.service_account_public_key);
        write("audit.json", AUDIT_POLICY);
    }

    fn start_etcd(&mut self) {
        let (clients, peers) = (
            format!("http://127.0.0.1:{}", self.ports.etcd),
            format!("http://127.0.0.1:{}", self.ports.etcd_peers),
        );
        let arguments = [
            format!("--data-dir={}", self.folder().join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            // Nothing here has to outlive the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.keeper.start(ETCD, &self.assets.join(ETCD), &arguments);
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let file = |name: &str| self.folder().join(name).display().to_string();
        let reconciler = if self.address.is_loopback() {
            // It may not be a loopback address in an Endpoints object, and nobody here looks for one.
            "--endpoint-reconciler-type=none"
        } else {
            "--endpoint-reconciler-type=lease"
        };
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            reconciler.to_owned(),
            format!("--secure-port={}", self.ports.api),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("authority.crt")),
            format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("kubelet-client.key")),
            format!("--kubelet-certificate-authority={}", file("authority.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("tokens.pub")),
            format!("--service-account-signing-key-file={}", file("tokens.key")),
            format!("--audit-log-path={}", file(AUDIT_LOG)),
            format!("--audit-policy-file={}", file("audit.json")),
            // In MB; so much that it is not cut off in a run of the tests.
            "--audit-log-maxsize=1024".to_owned(),
        ]
    }

    /// Waits for the API server to say that it is ready; says why, if one of the programs ended instead.
    async fn ready(&mut self, authority: &Authority) -> Result<(), String> {
        let kubeconfig = write_kubeconfig(self.folder(), authority, &self.url(), "admin", &[super::MASTERS]);
        let client = client_of(&kubeconfig).await;
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            if is_ready(&client).await {
                return Ok(());
            }
            if !(self.keeper.alive(ETCD) && self.keeper.alive(API_SERVER)) {
                return Err(self.last_words());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("not ready after {PATIENCE:?}\n{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        [ETCD, API_SERVER].map(|name| self.keeper.last_words(name)).concat()
    }
}

impl Ports {
    /// Those that everybody knows; nobody else is on a node.
    const USUAL: Self = Self { api: 6443, etcd: 2379, etcd_peers: 2380 };

    fn free() -> Self {
        // All are held until all are known, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [api, etcd, etcd_peers] = held.map(|listener| listener.local_addr().unwrap().port());
        Self { api, etcd, etcd_peers }
    }
}

async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

/// The folder of the programs; they are built, if need be.
fn assets() -> PathBuf {
    path_printed_by("tests/cluster/build.sh", &[])
}

/// The path that one of our scripts prints, which makes what is there, if need be.
///
/// # Panics
/// When it fails; it says why itself.
pub(crate) fn path_printed_by(script: &str, arguments: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} {} failed; it says above why", arguments.join(" "));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Looks again and again until there is something.
///
/// # Panics
/// When patience is at its end.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
