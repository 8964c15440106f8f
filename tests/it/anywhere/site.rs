//! ostler in a cluster, as `docs/install.md` has it, and what it looks after.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use ostler::kinds::harness_run::HarnessRunStatus;
use serde_json::json;

use super::{
    Ground,
    git::{Git, PORT},
};
use crate::{
    cluster::{PATIENCE, eventually},
    scenarios::{manifests, status},
};

/// The label of our namespaces, by which those of a suite that was killed are found.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "ostler-test-cluster");
/// The Secret with the credential of the Git server.
const SECRET: &str = "git";

/// What ostler looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All namespaces, as the chart has it.
    Everything,
    /// The one with the runs, with hardly a right outside of it.
    Namespace,
}

/// Namespaces, ostler, a Git server.
pub(crate) struct Site {
    pub(super) ground: Ground,
    pub(super) client: Client,
    /// Where ostler is.
    pub(super) system: String,
    /// Where runs are.
    pub(super) runs: String,
    /// Where the servers of the tests are.
    pub(super) servers: String,
    pub(super) git: Git,
    folder: tempfile::TempDir,
}

impl Site {
    /// Nothing is in the cluster yet.
    pub(super) async fn new(ground: Ground) -> Self {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let [system, runs, servers] =
            ["system", "runs", "servers"].map(|part| format!("ostler-test-{id}-{part}"));
        let (client, git) = (ground.client().await, Git::new(&ground, &servers));
        Self { ground, client, system, runs, servers, git, folder: tempfile::tempdir().unwrap() }
    }

    /// The namespaces, each of which refuses pods that are not *restricted*.
    pub(super) async fn make_namespaces(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        for name in [&self.system, &self.runs, &self.servers] {
            let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", MADE_BY.0: MADE_BY.1});
            let namespace = json!({"metadata": {"name": name, "labels": labels}});
            api.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
            let default = async || accounts.get_opt("default").await.unwrap();
            eventually("the namespace has its service account", default).await;
        }
    }

    /// Two ostlers would look after the same runs.
    pub(super) async fn assert_no_other_ostler(&self) {
        let api: Api<Deployment> = Api::all(self.client.clone());
        let ours = ListParams::default().labels("app.kubernetes.io/name=ostler");
        let others = api.list(&ours).await.unwrap();
        let names: Vec<_> = others.iter().filter_map(ResourceExt::namespace).collect();
        assert!(
            names.is_empty(),
            "there is an ostler in this cluster already, in {names:?}, and two would fight over the suite's runs: take \
             another cluster, or uninstall it; what a suite that was killed left is in the namespaces with the label {}={}",
            MADE_BY.0,
            MADE_BY.1
        );
    }

    /// As `docs/install.md` tells its reader.
    pub(super) async fn install(&mut self, scope: Scope) {
        self.assert_no_other_ostler().await;
        self.make_namespaces().await;
        self.git.start().await;
        let system = self.system.clone();
        // CRDs may be there: kubectl's, or kept from an earlier installation.
        let crds =
            ["install", "ostler-crds", "charts/ostler-crds", "--namespace", &system, "--take-ownership"];
        self.ground.helm(&crds).unwrap();
        let key = ostler::git::sign::SigningKey::generate("ostler").unwrap();
        key.store(&self.path("signing_key")).unwrap();
        std::fs::write(self.path("signers"), key.allowed_signers_line("ostler").unwrap() + "\n").unwrap();
        let from = format!("--from-file={}", self.path("signing_key").display());
        let secret = ["create", "secret", "generic", "ostler-signing-key", "--namespace", &system, &from];
        self.ground.kubectl(&secret, "").unwrap();
        let signers = format!("controller.ledgerSigners={}", self.path("signers").display());
        let values = self.values(scope);
        let mut install = vec!["install", "ostler", "charts/ostler", "--namespace", &system, "--wait"];
        install.extend(["--timeout", "5m", "--set-file", &signers]);
        install.extend(values.iter().flat_map(|value| ["--set", value]));
        let more = self.ground.values.as_ref().map(|file| file.display().to_string());
        install.extend(more.iter().flat_map(|file| ["--values", file]));
        self.ground.helm(&install).unwrap();
        self.look_after();
        self.git
            .push(&[
                ("agents/shell.yaml", &manifests::agent("shell", &json!({"image": self.ground.agent}))),
                ("session.yaml", &self.session()),
            ])
            .await;
    }

    fn values(&self, scope: Scope) -> Vec<String> {
        let (name, part, version) = self.ground.image();
        let image = [format!("image.repository={name}"), format!("image.{part}={version}")];
        let policy = &self.ground.pull_policy;
        let pull = [format!("image.pullPolicy={policy}"), format!("pods.pullPolicy={policy}")];
        let namespace = if scope == Scope::Namespace { &self.runs } else { "" };
        let rest = [format!("networkPolicy.gitPorts={{443,{PORT}}}"), format!("watchNamespace={namespace}")];
        [image, pull, rest].concat()
    }

    fn session(&self) -> String {
        let repository = json!({"repository": {"secretRef": {"name": SECRET}}});
        manifests::session_with(&self.git.url("code.git"), &repository)
    }

    /// The repository, and how to get in there.
    fn look_after(&self) {
        let data = json!({"username": "git", "password": self.git.password, "ca.crt": self.git.authority});
        let secret = manifests::secret(SECRET, "git", Some(&self.git.host()), &data);
        let spec =
            json!({"url": self.git.url("config.git"), "interval": "1s", "secretRef": {"name": SECRET}});
        for object in [secret, manifests::manifest("ConfigRepository", "config", &spec)] {
            self.ground.kubectl(&["create", "--namespace", &self.runs, "-f", "-"], &object).unwrap();
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pushes a run by its manifest.
    pub(super) async fn push(&self, name: &str, manifest: &str) {
        self.git.push(&[(&format!("runs/{name}.yaml"), manifest)]).await;
    }

    /// Waits until a run's status is as told.
    pub(super) async fn until(
        &self,
        name: &str,
        what: &str,
        reached: impl Fn(&HarnessRunStatus) -> bool,
    ) -> HarnessRunStatus {
        let runs = Api::namespaced(self.client.clone(), &self.runs);
        let status = status::until(&runs, name, PATIENCE * 2, reached).await;
        status.unwrap_or_else(|last| panic!("never: run {name}: {what}: {last}"))
    }

    /// Waits until the result of a run is in the ledger.
    pub(super) async fn until_recorded(&self, name: &str) -> HarnessRunStatus {
        self.until(name, "its result is recorded", status::is_recorded).await
    }

    /// The pod of a run.
    pub(super) async fn pod(&self, run: &str) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.runs);
        let labels = ListParams::default().labels(&format!("ostler.dev/run={run}"));
        eventually("the run has a pod", async || pods.list(&labels).await.unwrap().items.pop()).await
    }

    /// What everybody said, for whoever wonders why a scenario failed.
    pub(super) async fn last_words(&self) -> String {
        let mut text = String::new();
        let objects =
            ["get", "configrepositories,harnessruns", "--namespace", &self.runs, "--output", "yaml"];
        let events = ["get", "events", "--all-namespaces", "--sort-by", "lastTimestamp"];
        for arguments in [&objects[..], &events] {
            let said = self.ground.kubectl(arguments, "").unwrap_or_else(|error| error);
            writeln!(text, "== kubectl {}\n{said}", arguments.join(" ")).unwrap();
        }
        for namespace in [&self.system, &self.runs, &self.servers] {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let Ok(pods) = api.list(&ListParams::default()).await else { continue };
            for pod in pods {
                let (name, spec) = (pod.name_any(), pod.spec.unwrap_or_default());
                writeln!(text, "== {name}: {}", serde_json::to_string(&pod.status).unwrap()).unwrap();
                for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
                    let container = Some(container.name.clone());
                    let parameters = LogParams { container, tail_lines: Some(60), ..LogParams::default() };
                    let log = api.logs(&name, &parameters).await.unwrap_or_else(|error| error.to_string());
                    writeln!(text, "== {name} {:?}\n{log}", parameters.container).unwrap();
                }
            }
        }
        text
    }

    /// Takes ostler away, but for the CRDs, which Helm keeps. It goes on where something is not there.
    pub(super) fn uninstall(&self) {
        // While there are controllers, they let go of what is theirs; without the repository, nothing comes back.
        for kinds in ["configrepositories", "harnessruns,sessions,pods"] {
            self.delete_all(kinds);
        }
        for release in ["ostler", "ostler-crds"] {
            let uninstall =
                ["uninstall", release, "--namespace", &self.system, "--ignore-not-found", "--wait"];
            self.complain(self.ground.helm(&uninstall));
        }
    }

    /// Takes the namespaces away, with all that is in them.
    pub(super) async fn remove_namespaces(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in [&self.system, &self.runs, &self.servers] {
            if let Err(error) = namespaces.delete(name, &DeleteParams::default()).await {
                eprintln!("namespace {name} cannot be deleted: {error}");
            }
        }
        for name in [&self.system, &self.runs, &self.servers] {
            let gone = async || matches!(namespaces.get_opt(name).await, Ok(None)).then_some(());
            eventually(&format!("namespace {name} is gone"), gone).await;
        }
    }

    /// Deletes all objects of these kinds where runs are. What nobody lets go of in a minute, because its controller is
    /// gone, would keep its namespace for good: its finalizers are taken away.
    fn delete_all(&self, kinds: &str) {
        let there = ["--namespace", &self.runs];
        let delete = [&["delete", kinds, "--all", "--timeout", "60s"], &there[..]].concat();
        let Err(why) = self.ground.kubectl(&delete, "") else { return };
        eprintln!("{}: {why}", self.runs);
        let left = self.ground.kubectl(&[&["get", kinds, "--output", "name"], &there[..]].concat(), "");
        for name in left.unwrap_or_default().lines() {
            let patch = ["patch", name, "--type", "merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
            self.complain(self.ground.kubectl(&[&patch, &there[..]].concat(), ""));
        }
    }

    fn complain<T, E: std::fmt::Display>(&self, done: Result<T, E>) {
        if let Err(error) = done {
            eprintln!("{}: {error}", self.system);
        }
    }

    /// The names of the pods of a role.
    pub(super) async fn pods_of_role(&self, role: &str) -> BTreeMap<String, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.system);
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/component={role}"));
        let list = pods.list(&labels).await.unwrap();
        list.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect()
    }
}
