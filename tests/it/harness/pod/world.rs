//! A pod without a kubelet: the real sidecar and the real shim as two processes of this machine, which share its network as
//! containers of a pod do, the real gateway of a cluster, and a recorder of the test's own.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ostler::{
    egress::Ruleset,
    harness::{
        bubblewrap::Host,
        control::{self, Given, Notice, Request, Value},
        place::State,
        pod::{NODE_ADDRESS_VARIABLE, PodFile, TOKENS, UID_VARIABLE},
    },
    ports::workloads::{Checkout, PlaceSpec, Stage},
    proxy::{
        HostsFile, Resolver,
        gateway::{Caller, Callers, Certificate, Gateway, Limits, Parts, Refusal},
        tunnel::Endpoint,
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

pub(super) use crate::cluster::eventually;
use crate::{
    harness::world::{Delivery, FakeSecrets, PATIENCE, Recorder},
    servers::closed::Closed,
};

/// Knows the pod of this test by its tokens.
struct OnePod {
    rules: Arc<Ruleset>,
    checkouts: Arc<[Checkout]>,
}

#[async_trait]
impl Callers for OnePod {
    async fn identify(
        &self,
        token: &SecretString,
        audience: &'static str,
        _: IpAddr,
    ) -> Result<Caller, Refusal> {
        if token.expose_secret() != token_for(audience) {
            return Err(Refusal::Stranger("another token".to_owned()));
        }
        Ok(Caller {
            namespace: "team".parse().unwrap(),
            pod: "run".to_owned(),
            uid: "pod".to_owned(),
            since: jiff::Timestamp::UNIX_EPOCH,
            rules: Arc::clone(&self.rules),
            checkouts: Arc::clone(&self.checkouts),
            cloning: Ok(()),
        })
    }
}

fn token_for(audience: &str) -> String {
    format!("projected-for-{audience}")
}

/// TLS in front of the recorder.
pub(crate) struct Secured(pub(crate) TcpListener, pub(crate) TlsAcceptor);

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// What a test may have otherwise.
pub(super) struct Settings {
    /// True: the canary is where the pod can reach it.
    pub(super) leak: bool,
    /// The pod's node; an address that nobody has (RFC 5737).
    pub(super) node: IpAddr,
    pub(super) allow_node_reach: bool,
    pub(super) proof_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let node = IpAddr::from([192, 0, 2, 1]);
        Self { leak: false, node, allow_node_reach: false, proof_seconds: 120 }
    }
}

/// A pod and what is around it.
pub(super) struct Pod {
    pub(super) root: tempfile::TempDir,
    pub(super) forwarder: SocketAddr,
    settings: Settings,
    recorder: Arc<Recorder>,
    pub(super) sidecar: Option<Child>,
    pub(super) shim: Option<Child>,
    _closed: [Closed; 2],
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Pod {
    /// A pod that was made for `spec`, and of which nothing runs.
    pub(super) async fn make(spec: &PlaceSpec, secrets: FakeSecrets, settings: Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        let [authority, certificate, key] = certificates(root.path());
        let recorder: Arc<Recorder> = Arc::default();
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (tunnels, canary, intake) =
            (listen().await.unwrap(), listen().await.unwrap(), listen().await.unwrap());
        let rules = spec.egress.iter().map(|policy| (policy.name.as_str(), &policy.spec));
        let callers = OnePod {
            rules: Arc::new(Ruleset::parse(rules, Vec::new()).unwrap()),
            checkouts: spec.checkout.iter().cloned().collect(),
        };
        let gateway = Gateway::new(Parts {
            callers: Arc::new(callers),
            secrets: Arc::new(secrets),
            resolver: Resolver::new(HostsFile::parse("127.0.0.1 target.test other.test").unwrap()),
            recorder: intake.local_addr().unwrap().to_string(),
            limits: Limits::default(),
        });
        let closed = [Closed::new(), Closed::new()];
        let endpoint = Endpoint {
            address: tunnels.local_addr().unwrap(),
            canary: if settings.leak { canary.local_addr().unwrap() } else { closed[0].address() },
            server_name: "proxy.test".to_owned(),
            recorder_name: "recorder.test".to_owned(),
            authorities: fs::read_to_string(authority).unwrap(),
        };
        let file = PodFile {
            created_at: jiff::Timestamp::now(),
            spec: spec.clone(),
            terminal: None,
            allow_unenforced: false,
            allow_node_reach: settings.allow_node_reach,
            proof_seconds: settings.proof_seconds,
            proxy: endpoint,
            api_server: Some(closed[1].address()),
        };
        volumes(root.path(), &file);
        let acceptor = acceptor(&certificate, &key);
        let tls = Certificate::read(&certificate, &key).unwrap();
        let (serving, app) = (gateway.clone(), recorder.app());
        let tasks = vec![
            tokio::spawn(async move { serving.serve(tunnels, &tls, std::future::pending()).await }),
            tokio::spawn(async move { gateway.serve_canary(canary).await }),
            tokio::spawn(async move { axum::serve(Secured(intake, acceptor), app).await.unwrap() }),
        ];
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        // A loopback address of its own, as every pod has.
        let [a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
        let forwarder = SocketAddr::from(([127, a | 1, b, c | 1], 3128));
        let (sidecar, shim) = (None, None);
        Self { root, forwarder, settings, recorder, sidecar, shim, _closed: closed, _tasks: tasks }
    }

    /// A pod whose two containers run and which has its secrets.
    pub(super) async fn start(spec: &PlaceSpec) -> Self {
        Self::start_with(spec, FakeSecrets::default(), Settings::default()).await
    }

    pub(super) async fn start_with(spec: &PlaceSpec, secrets: FakeSecrets, settings: Settings) -> Self {
        let mut pod = Self::make(spec, secrets, settings).await;
        pod.start_sidecar();
        pod.shim = Some(pod.new_shim());
        pod.provide().await;
        pod
    }

    pub(super) fn start_sidecar(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.at("sidecar.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command.args(["harness", "pod", "--forwarder", &self.forwarder.to_string(), "--root"]);
        command.arg(self.root.path());
        command.env_clear().env(UID_VARIABLE, "pod-uid");
        command.env(NODE_ADDRESS_VARIABLE, self.settings.node.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.sidecar = Some(command.spawn().unwrap());
    }

    /// The agent's container, in which the shim is PID 1. Its network is that of the test, as the sidecar's.
    pub(super) fn new_shim(&self) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.at("shim.log")).unwrap();
        let host = Host::look().unwrap();
        let mut command = Command::new("bwrap");
        command.args(["--unshare-user", "--unshare-pid", "--as-pid-1", "--die-with-parent", "--clearenv"]);
        command.args(["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "OF_THE_IMAGE", "yes"]);
        command.args(["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/usr", "/usr"]);
        for (link, target) in &host.links {
            command.arg("--symlink").args([target, link]);
        }
        for folder in host.folders.iter().chain(&host.etc) {
            command.arg("--ro-bind").args([folder, folder]);
        }
        for (from, to) in
            [("place/tmp", "/tmp"), ("place/home", "/home/agent"), ("place/workspace", "/workspace")]
        {
            command.arg("--bind").arg(self.at(from)).arg(to);
        }
        command.arg("--ro-bind").arg(self.at("run/ostler")).arg("/run/ostler");
        command.args([
            "--ro-bind",
            env!("CARGO_BIN_EXE_ostler"),
            "/run/ostler-bin/ostler",
            "--chdir",
            "/",
            "--",
        ]);
        command.args(["/run/ostler-bin/ostler", "shim", "supervise", "--shared", "/run/ostler"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(super) fn control(&self) -> PathBuf {
        self.at("var/lib/ostler/place/control/sidecar.sock")
    }

    /// What a controller does once the sidecar asks for it.
    pub(super) async fn provide(&self) {
        let given = || Given { token: None, git: vec![], env: vec![("KEY".into(), value())], files: vec![] };
        eventually("the sidecar takes its secrets", async || {
            control::ask(&self.control(), &Request::Provide(Box::new(given()))).await.ok()
        })
        .await;
    }

    /// Waits until the sidecar says that it is as wanted.
    pub(super) async fn sees(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        eventually(&format!("{what}; {}", self.logs()), async || {
            let stream = control::open(&self.control(), &Request::Watch).await.ok()?;
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let notice: Notice = serde_json::from_str(&line).unwrap();
                if let Some(state) = notice.state.filter(&wanted) {
                    return Some(state);
                }
            }
            None
        })
        .await
    }

    pub(super) async fn reaches(&self, stage: Stage) -> State {
        self.sees(&format!("{stage:?}"), |state| state.stage >= stage).await
    }

    /// The next answers of the recorder, instead of 200.
    pub(super) fn answers(&self, answers: &[u16]) {
        self.recorder.answers.lock().unwrap().extend_from_slice(answers);
    }

    /// From now on it answers 200.
    pub(super) fn accept(&self) {
        self.recorder.answers.lock().unwrap().clear();
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        self.recorder.came.borrow().clone()
    }

    /// Waits for the acknowledged result.
    pub(super) async fn delivered(&self) -> Delivery {
        let mut came = self.recorder.came.subscribe();
        let waited = tokio::time::timeout(PATIENCE, came.wait_for(|came| !came.is_empty())).await;
        let last =
            waited.unwrap_or_else(|_| panic!("nothing came; {}", self.logs())).unwrap().last().cloned();
        self.reaches(Stage::Released).await;
        last.unwrap()
    }

    pub(super) fn logs(&self) -> String {
        let read = |name| format!("{name}: {}\n", fs::read_to_string(self.at(name)).unwrap_or_default());
        ["sidecar.log", "shim.log", "var/lib/ostler/place/state.json"].map(read).concat()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in [&mut self.sidecar, &mut self.shim].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) fn value() -> Value {
    Value::from(&SecretString::from("the-value"))
}

/// Waits for a process of the test's own.
pub(super) async fn ended(child: &mut Child) -> ExitStatus {
    let look = async {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it ends")
}

/// SIGTERM.
pub(super) fn terminate(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// The shim itself, below the bubblewrap that made its container.
pub(super) async fn inside(bwrap: &Child) -> u32 {
    let path = format!("/proc/{0}/task/{0}/children", bwrap.id());
    eventually("the shim is there", async || {
        fs::read_to_string(&path).unwrap().split_ascii_whitespace().next()?.parse().ok()
    })
    .await
}

/// What a kubelet mounts.
fn volumes(root: &Path, file: &PodFile) {
    for folder in ["run/ostler", "etc/ostler", "var/lib/ostler", "var/run/secrets/ostler"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for folder in ["workspace", "home", "tmp"] {
        fs::create_dir_all(root.join("place").join(folder)).unwrap();
    }
    fs::write(root.join("etc/ostler/place.json"), serde_json::to_vec(file).unwrap()).unwrap();
    for audience in TOKENS {
        fs::write(root.join("var/run/secrets/ostler").join(audience), token_for(audience)).unwrap();
    }
}

/// An authority, and a certificate of it with its key, for both names.
fn certificates(folder: &Path) -> [PathBuf; 3] {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["proxy.test", "recorder.test"].map(str::to_owned).to_vec();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().pem();
    let files = ["ca.crt", "tls.crt", "tls.key"].map(|name| folder.join(name));
    for (file, content) in files.iter().zip([authority, certificate, key.serialize_pem()]) {
        fs::write(file, content).unwrap();
    }
    files
}

pub(crate) fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}
