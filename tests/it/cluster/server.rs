//! The processes of the test cluster, and their ways of starting.

use std::{
    net::TcpListener,
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
const PATIENCE: Duration = Duration::from_mins(2);
/// The time between two looks at something that cannot be waited for otherwise.
const PAUSE: Duration = Duration::from_millis(50);
/// A port that was free may be taken when the program comes to it.
const ATTEMPTS: usize = 5;

/// What is asked of whom is written down; not what the server asks itself.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}]
}"#;

/// etcd and an API server.
#[derive(Debug)]
pub(crate) struct Server {
    keeper: Keeper,
    assets: PathBuf,
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
            let mut server = Self { keeper: Keeper::new(), assets: assets.clone(), ports: Ports::free() };
            server.write_files(authority);
            server.start_etcd();
            server.keeper.start(API_SERVER, &server.assets.join(API_SERVER), &server.api_server_arguments());
            match server.ready(authority).await {
                Ok(()) => return server,
                Err(why) => said = why,
            }
        }
        panic!("the test API server did not start {ATTEMPTS} times, at last:\n{said}");
    }

    /// Where the API server listens.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
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
        let server = authority.server();
        let write = |name: &str, content: &str| std::fs::write(self.folder().join(name), content).unwrap();
        write("authority.crt", &authority.certificate);
        write("server.crt", &server.certificate);
        write("server.key", &server.key);
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
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // It may not be a loopback address in an Endpoints object, and nobody here looks for one.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.ports.api),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("authority.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
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
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build.sh");
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(
        output.status.success(),
        "no programs for the test API server; tests/cluster/build.sh says above why"
    );
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
