//! A namespace of the shared API server, a config repository, and `ostler` processes that look after them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use ostler::kinds::{Agent, ConfigRepository, Typed};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    cluster::{self, AuditLine, Cluster, eventually},
    scenarios::up::{self, Up},
    servers::repo::Repo,
};

/// One namespace and what is in it.
pub(super) struct Stage {
    pub(super) cluster: &'static Cluster,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) config: Repo,
    pub(super) folder: tempfile::TempDir,
}

impl Stage {
    /// With an empty config repository that nobody knows of yet.
    pub(super) async fn new(prefix: &str) -> Self {
        let cluster = cluster::shared().await;
        cluster.install_crds().await;
        let namespace = cluster.namespace(prefix).await;
        let client = cluster.client().await;
        Self { cluster, client, namespace, config: Repo::with_readme(), folder: tempfile::tempdir().unwrap() }
    }

    /// The name under which the API server knows a process of this stage.
    pub(super) fn user(&self, who: &str) -> String {
        format!("{who}-of-{}", self.namespace)
    }

    pub(super) fn kubeconfig(&self, who: &str) -> PathBuf {
        self.cluster.kubeconfig_for(&self.user(who), &["system:masters"])
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `ostler` without the machine's or the user's configuration.
    pub(super) fn ostler(&self) -> Command {
        up::ostler(self.folder.path())
    }

    /// A role of this namespace, under a name of its own.
    pub(super) fn role(&self, role: &str, who: &str) -> Command {
        let mut command = self.ostler();
        command
            .args([role, "--json", "--namespace", &self.namespace, "--health", "127.0.0.1:0", "--kubeconfig"])
            .arg(self.kubeconfig(who));
        if role != "api" {
            command.args(["--identity", who, "--state"]).arg(self.path(&format!("state-{who}")));
        }
        command
    }

    /// A controller, which may not lead yet.
    pub(super) fn controller(&self, who: &str) -> Up {
        let mut command = self.role("controller", who);
        command.args(["--places", "none"]);
        let up = Up::start(command);
        up.line("it stands by", |line| line["what"] == "standby");
        up
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes the repository's object, `agents`.
    pub(super) async fn follow(&self, more: Value) -> ConfigRepository {
        let mut spec = json!({"url": self.config.bare(), "interval": "1h"});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        self.create::<ConfigRepository>("agents", spec).await
    }

    pub(super) async fn create<K>(&self, name: &str, spec: Value) -> K
    where
        K: Typed
            + kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": K::KIND.as_str(),
            "metadata": {"name": name}, "spec": spec});
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Pushes an agent with this image.
    pub(super) fn push_agent(&self, name: &str, image: &str) -> String {
        let file = format!("agents/{name}.yaml");
        self.config.push(&[(&file, &agent(name, image))], &format!("{name} has {image}"))
    }

    /// Waits until an agent has an image.
    pub(super) async fn until_agent(&self, name: &str, image: &str) {
        let api: Api<Agent> = self.api();
        eventually(&format!("agent {name} has image {image}"), async || {
            let agent = api.get_opt(name).await.unwrap()?;
            (agent.spec.image.as_deref() == Some(image)).then_some(())
        })
        .await;
    }

    /// Changes an agent by hand.
    pub(super) async fn meddle(&self, name: &str, image: &str) {
        let patch = Patch::Merge(json!({"spec": {"image": image}}));
        self.api::<Agent>().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn lease(&self, name: &str) -> Option<Lease> {
        self.api::<Lease>().get_opt(name).await.unwrap()
    }

    /// Who holds a lease.
    pub(super) async fn holder(&self, name: &str) -> Option<String> {
        self.lease(name).await?.spec?.holder_identity
    }

    /// Waits until a lease is somebody's.
    pub(super) async fn until_holder(&self, name: &str, who: &str) {
        eventually(&format!("{who} holds {name}"), async || {
            (self.holder(name).await.as_deref() == Some(who)).then_some(())
        })
        .await;
    }

    /// The audit log with everything in it that was asked before this call.
    pub(super) async fn audit(&self) -> Vec<AuditLine> {
        let mark = format!("mark-{}", uuid::Uuid::new_v4().simple());
        // it does not exist, and that it was asked for is written down
        assert!(self.api::<Lease>().get_opt(&mark).await.unwrap().is_none());
        self.cluster.audit_until(|lines| lines.iter().any(|line| line.object_ref.name == mark)).await
    }
}

/// The manifest of an agent.
pub(super) fn agent(name: &str, image: &str) -> String {
    json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name},
        "spec": {"preset": "codex", "image": image}})
    .to_string()
        + "\n"
}

/// The address that a process announced, such as that of its health.
pub(super) fn address(up: &Up, what: &str) -> String {
    up.line(what, |line| line["what"] == what)["value"].as_str().unwrap().to_owned()
}

/// A private key and its public half, as files.
pub(super) fn signing_key(folder: &Path) -> (PathBuf, PathBuf) {
    let key = ostler::git::sign::SigningKey::generate("recorder").unwrap();
    let (secret, public) = (folder.join("signing_key"), folder.join("ledger_signers"));
    key.store(&secret).unwrap();
    std::fs::write(&public, key.allowed_signers_line("ostler").unwrap() + "\n").unwrap();
    (secret, public)
}
