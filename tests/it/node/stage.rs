//! A whole ostler around the test node: the proxy in a pod, the controller and the recorder as processes of this machine,
//! repositories, and a namespace for runs under `PodSecurity` *restricted*.

mod roles;

use std::{fmt::Write, net::IpAddr, path::PathBuf, process::Command};

use k8s_openapi::{
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, PostParams},
};
use ostler::kinds::{ConfigRepository, HarnessRun, Phase, Reason, harness_run::HarnessRunStatus};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Node, address_of, shared};
use crate::{
    cluster::eventually,
    report::Scenario,
    scenarios::{
        manifests, status,
        up::{self, PATIENCE, Up},
    },
    servers::{
        git_http::{Auth, GitHttp, Options},
        repo::Repo,
    },
};

/// The password of the code repository.
const PASSWORD: &str = "Canary7KxCode";
/// Our own image, as [`Node::ostler_image`] names it.
pub(super) const IMAGE: &str = "ostler.test/ostler:dev";

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

    /// `ostler` without the machine's or the user's configuration.
    pub(super) fn ostler(&self) -> Command {
        up::ostler(self.folder.path())
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
