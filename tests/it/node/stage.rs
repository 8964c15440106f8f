//! A whole ostler around the test node: the proxy in a pod, the controller and the recorder as processes of this machine,
//! repositories, and a namespace for runs under `PodSecurity` *restricted*.

use std::{fmt::Write, net::IpAddr, path::PathBuf, process::Command};

use k8s_openapi::{
    api::{
        core::v1::{Pod, Secret, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, PostParams},
};
use ostler::kinds::{ConfigRepository, HarnessRun, Phase, Reason, harness_run::HarnessRunStatus};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Node, address_of, restricted_container, restricted_pod, shared};
use crate::{
    cluster::{MASTERS, eventually},
    report::Scenario,
    scenarios::{
        manifests, status,
        up::{PATIENCE, Up},
    },
    servers::{
        git_http::{Auth, GitHttp, Options},
        repo::Repo,
    },
};

/// The password of the code repository.
const PASSWORD: &str = "Canary7KxCode";
/// The proxy's ports: tunnels, canary, health.
const PORTS: [u16; 3] = [8443, 8444, 8081];
/// Our own image, as [`Node::ostler_image`] names it.
pub(super) const IMAGE: &str = "ostler.test/ostler:dev";
/// How long a policy may take to be in force: longer than that of an enforcer that is late.
const PROOF_SECONDS: u64 = 25;

/// Phase, reason and exit code.
pub(super) type End<'a> = (&'a str, &'a str, Option<i64>);

/// One ostler and what it looks after. Dropped, its processes end; its pods end with the node.
pub(super) struct Stage<'a> {
    pub(super) node: &'a Node,
    pub(super) client: Client,
    /// Where runs are.
    pub(super) namespace: String,
    /// The config repository, which is also the ledger's.
    pub(super) config: Repo,
    pub(super) code: Repo,
    pub(super) code_web: GitHttp,
    folder: tempfile::TempDir,
    system: String,
    /// Where the proxy is.
    proxy: Option<IpAddr>,
    controller: Option<Up>,
    recorder: Option<Up>,
    _scenario: Scenario,
}

impl Stage<'static> {
    /// With the agent `shell` in the image `debian`, and the session `work`. Nothing runs yet.
    pub(super) async fn new(prefix: &str) -> Self {
        Self::with_agent(prefix, &json!({})).await
    }

    /// The same with more in the agent's spec.
    pub(super) async fn with_agent(prefix: &str, agent: &Value) -> Self {
        Self::on(shared().await, prefix, agent).await
    }
}

impl<'a> Stage<'a> {
    /// The same on a node of one's own.
    pub(super) async fn on(node: &'a Node, prefix: &str, agent: &Value) -> Self {
        let cluster = node.cluster();
        let scenario = Scenario::begin("node", cluster.server_version().await.git_version);
        cluster.install_crds().await;
        let image = node.debian_image().await;
        let (namespace, system) =
            (node.namespace_restricted(prefix).await, node.namespace_restricted("system").await);
        let (config, code) = (Repo::with_readme(), Repo::with_readme());
        let auth = Some(Auth::Basic("ostler", PASSWORD));
        let code_web =
            GitHttp::start_at(node.world(), code.root(), Options { tls: true, auth, push: true, old: false });
        let mut spec = json!({"image": image});
        for (name, value) in agent.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let session = manifests::session_with(
            &code_web.url("origin.git"),
            &json!({"repository": {"secretRef": {"name": "code"}}, "maxConcurrentRuns": 16}),
        );
        config.push(
            &[("agents/shell.yaml", &manifests::agent("shell", &spec)), ("session.yaml", &session)],
            "an agent and a session",
        );
        let client = cluster.client().await;
        let folder = tempfile::tempdir().unwrap();
        let mut stage = Self {
            node,
            client,
            namespace,
            config,
            code,
            code_web,
            folder,
            system,
            proxy: None,
            controller: None,
            recorder: None,
            _scenario: scenario,
        };
        stage.start().await;
        stage
    }

    async fn start(&mut self) {
        let secret = manifests::secret(
            "code",
            "git",
            Some(&self.code_web.address().to_string()),
            &json!({"username": "ostler", "password": PASSWORD, "ca.crt": self.code_web.ca()}),
        );
        let _: Secret = self.create(&self.namespace, serde_json::from_str(&secret).unwrap()).await;
        let recorder = self.start_recorder();
        self.proxy = Some(address_of(&self.start_proxy(&recorder).await));
        self.start_controller(IMAGE);
        let repository = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository", "metadata": {"name": "agents"},
            "spec": {"url": self.config.bare(), "interval": "1s"},
        });
        let _: ConfigRepository = self.create(&self.namespace, repository).await;
    }

    /// Starts the recorder; where it listens.
    fn start_recorder(&mut self) -> String {
        let key = ostler::git::sign::SigningKey::generate("recorder").unwrap();
        key.store(&self.path("signing_key")).unwrap();
        std::fs::write(self.signers(), key.allowed_signers_line("ostler").unwrap() + "\n").unwrap();
        let identity = self.node.cluster().authority().server("recorder", &["recorder"]);
        std::fs::write(self.path("tls.crt"), identity.certificate).unwrap();
        std::fs::write(self.path("tls.key"), identity.key).unwrap();
        let mut command = self.role("recorder");
        command
            .args(["--listen", &format!("{}:0", self.node.world())])
            .arg("--signing-key")
            .arg(self.path("signing_key"))
            .arg("--tls-cert")
            .arg(self.path("tls.crt"))
            .arg("--tls-key")
            .arg(self.path("tls.key"));
        let recorder = Up::start(command);
        let line = recorder.line("the recorder listens", |line| line["what"] == "listening");
        let address = line["value"].as_str().unwrap().strip_prefix("https://").unwrap().to_owned();
        self.recorder = Some(recorder);
        address
    }

    /// Starts the proxy in a pod, with no more rights than it needs; gives the pod.
    async fn start_proxy(&self, recorder: &str) -> Pod {
        let cluster = self.node.cluster();
        let system = &self.system;
        let _: ServiceAccount = self
            .create(
                system,
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "proxy"}}),
            )
            .await;
        let name = format!("proxy-of-{system}");
        let role = json!({"metadata": {"name": name}, "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch"]},
        ]});
        let role: ClusterRole = serde_json::from_value(role).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &role).await.unwrap();
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "proxy", "namespace": system}],
        });
        let binding: ClusterRoleBinding = serde_json::from_value(binding).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        let identity = cluster.authority().server("proxy", &["proxy"]);
        let tls = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"},
            "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key}});
        let _: Secret = self.create(system, tls).await;

        let [tunnels, canary, health] = PORTS.map(|port| format!("0.0.0.0:{port}"));
        let command = [
            "/ostler",
            "proxy",
            "--listen",
            &tunnels,
            "--canary",
            &canary,
            "--health",
            &health,
            "--tls-cert",
            "/tls/tls.crt",
            "--tls-key",
            "/tls/tls.key",
            "--recorder",
            recorder,
        ];
        let image = self.node.ostler_image().await;
        let mut container = restricted_container("proxy", image, &command);
        container["volumeMounts"] = json!([{"name": "tls", "mountPath": "/tls"}]);
        container["readinessProbe"] =
            json!({"httpGet": {"path": "/readyz", "port": PORTS[2]}, "periodSeconds": 1});
        let mut pod = serde_json::to_value(restricted_pod("proxy", image, &[])).unwrap();
        pod["metadata"]["labels"] = json!({"role": "proxy"});
        pod["spec"]["serviceAccountName"] = "proxy".into();
        pod["spec"]["automountServiceAccountToken"] = true.into();
        pod["spec"]["containers"] = json!([container]);
        pod["spec"]["volumes"] = json!([{"name": "tls", "secret": {"secretName": "tls"}}]);
        self.node.run(system, &serde_json::from_value(pod).unwrap()).await
    }

    /// Starts the controller again, be it with another image of ours.
    pub(super) fn restart_controller(&mut self, image: &str) {
        let ended = self.controller.take().expect("it was started").stop();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        self.start_controller(image);
    }

    fn start_controller(&mut self, image: &str) {
        let address = self.proxy.expect("it was started");
        let authority = self.path("ca.crt");
        std::fs::write(&authority, &self.node.cluster().authority().certificate).unwrap();
        let mut command = self.role("controller");
        command
            .args(["--places", "pods", "--image", image, "--pull-policy", "Never"])
            .args(["--proxy", &format!("{address}:{}", PORTS[0])])
            .args(["--proxy-canary", &format!("{address}:{}", PORTS[1])])
            .args(["--proxy-name", "proxy", "--recorder-name", "recorder", "--proxy-ca"])
            .arg(authority)
            .args(["--proxy-namespace", &self.system, "--proxy-label", "role=proxy"])
            .args(["--proxy-port", &PORTS[0].to_string()])
            .args(["--proof-seconds", &PROOF_SECONDS.to_string()])
            .arg("--ledger-signers")
            .arg(self.signers());
        self.controller = Some(Up::start(command));
    }

    /// `ostler` without the machine's or the user's configuration.
    pub(super) fn ostler(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    fn role(&self, role: &str) -> Command {
        let mut command = self.ostler();
        let user = self.node.cluster().kubeconfig_for(&format!("{role}-of-{}", self.namespace), &[MASTERS]);
        command
            .args([role, "--json", "--namespace", &self.namespace, "--identity", role, "--kubeconfig"])
            .arg(user)
            .arg("--state")
            .arg(self.path(&format!("state-{role}")));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Who may sign the ledger.
    pub(super) fn signers(&self) -> PathBuf {
        self.path("ledger_signers")
    }

    pub(super) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        Api::namespaced(self.client.clone(), namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    /// Pushes a run of session `work` that executes a script.
    pub(super) fn push_run(&self, name: &str, script: &str) -> String {
        self.push(name, &manifests::run(name, script))
    }

    /// Pushes a run by its manifest.
    pub(super) fn push(&self, name: &str, manifest: &str) -> String {
        self.config.push(&[(&format!("runs/{name}.yaml"), manifest)], &format!("run {name}"))
    }

    pub(super) fn runs(&self) -> Api<HarnessRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a run's status is as told.
    pub(super) async fn until(
        &self,
        name: &str,
        what: &str,
        reached: impl Fn(&HarnessRunStatus) -> bool,
    ) -> HarnessRunStatus {
        match status::until(&self.runs(), name, PATIENCE, reached).await {
            Ok(status) => status,
            Err(last) => panic!("never: run {name}: {what}: {last}\n{}", self.last_words().await),
        }
    }

    /// Waits until the result of a run is in the ledger.
    pub(super) async fn until_recorded(&self, name: &str) -> HarnessRunStatus {
        self.until(name, "its result is recorded", status::is_recorded).await
    }

    /// The pod of a run.
    pub(super) async fn pod(&self, run: &str) -> Option<Pod> {
        let labels = ListParams::default().labels(&format!("ostler.dev/run={run}"));
        self.node.pods_of(&self.namespace).await.list(&labels).await.unwrap().items.pop()
    }

    /// Waits for the pod of a run.
    pub(super) async fn until_pod(&self, run: &str) -> Pod {
        eventually("the run has a pod", async || self.pod(run).await).await
    }

    /// Phase, reason and exit code of a run that has ended.
    pub(super) async fn assert_end(&self, name: &str, status: &HarnessRunStatus, expected: End<'_>) {
        let end = (
            status.phase.map_or("", Phase::as_str),
            status.reason.map_or("", Reason::as_str),
            status.exit_code,
        );
        if end != expected {
            let status = serde_json::to_string_pretty(status).unwrap();
            panic!("{name}: {end:?} in place of {expected:?}: {status}\n{}", self.last_words().await);
        }
    }

    /// What everybody said, for whoever wonders why a test failed.
    pub(super) async fn last_words(&self) -> String {
        let mut text = String::new();
        for (name, process) in [("controller", &self.controller), ("recorder", &self.recorder)] {
            writeln!(text, "== {name}\n{}", process.as_ref().map(Up::text).unwrap_or_default()).unwrap();
        }
        let pods = [(&self.namespace, &["install", "sidecar", "agent"][..]), (&self.system, &["proxy"][..])];
        for (namespace, containers) in pods {
            let api = self.node.pods_of(namespace).await;
            for pod in api.list(&ListParams::default()).await.unwrap() {
                let name = pod.name_any();
                writeln!(text, "== {name}: {}", serde_json::to_string(&pod.status).unwrap()).unwrap();
                for container in containers {
                    let parameters =
                        LogParams { container: Some((*container).to_owned()), ..LogParams::default() };
                    let log = api.logs(&name, &parameters).await.unwrap_or_else(|error| error.to_string());
                    writeln!(text, "== {name} {container}\n{log}").unwrap();
                }
            }
        }
        text
    }
}
