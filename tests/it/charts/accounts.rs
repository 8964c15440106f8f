//! Whoever may make a `ConfigRepository` in one namespace gets no further by it: beyond that namespace the rights of a
//! service account count. With the rights that the chart gives.

use k8s_openapi::api::{
    core::v1::ConfigMap,
    rbac::v1::{ClusterRole, PolicyRule},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use ostler::kinds::{Agent, ConfigRepository, Reason, condition, condition::types, meta};
use serde_json::{Value, json};

use super::{IMAGE, helm::Helm};
use crate::{
    cluster::{AuditLine, Cluster, eventually},
    contract::rbac::{To, grant, in_force, rule},
    scenarios::up::{self, Up},
    servers::repo::Repo,
};

/// The service account that the chart is told of.
const APPLIER: &str = "applier";

/// A release that looks after the whole cluster, and two namespaces: one has a repository, which wants to write into both.
struct Stage {
    cluster: Cluster,
    admin: Client,
    release: String,
    home: String,
    other: String,
    config: Repo,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::start_own().await;
        cluster.install_crds().await;
        let release = cluster.namespace("release").await;
        let helm = Helm::of(cluster.kubeconfig()).await;
        let values = format!("{IMAGE},controller.applyAs={{{APPLIER}}}");
        helm.run(&["install", "ostler", "charts/ostler", "--namespace", &release, "--set", &values])
            .await
            .succeeded();
        let (home, other) = (cluster.namespace("home").await, cluster.namespace("other").await);
        let (admin, folder) = (cluster.client().await, tempfile::tempdir().unwrap());
        Self { admin, release, home, other, config: Repo::with_readme(), folder, cluster }
    }

    /// The controller, as the API server knows it.
    fn controller(&self) -> String {
        format!("system:serviceaccount:{}:ostler-controller", self.release)
    }

    /// The service account that the repository names.
    fn applier(&self) -> String {
        format!("system:serviceaccount:{}:{APPLIER}", self.home)
    }

    fn start(&self) -> Up {
        let group = format!("system:serviceaccounts:{}", self.release);
        let kubeconfig = self.cluster.kubeconfig_for(&self.controller(), &[&group]);
        let mut command = up::ostler(self.folder.path());
        command
            .args(["controller", "--json", "--places", "none", "--state", "state", "--identity", "one"])
            .args(["--lease-namespace", &self.release, "--kubeconfig"])
            .arg(kubeconfig);
        Up::start(command)
    }

    fn repositories(&self) -> Api<ConfigRepository> {
        Api::namespaced(self.admin.clone(), &self.home)
    }

    async fn change(&self, patch: Value) {
        let params = PatchParams::default();
        self.repositories().patch("files", &params, &Patch::Merge(patch)).await.unwrap();
    }

    /// Asks for a round, and waits until what the repository says of it is as wanted.
    async fn says(&self, what: &str, is_it: impl Fn(&str, &str) -> bool) {
        eventually(what, async || {
            let status = self.repositories().get("files").await.unwrap().status?;
            let ready = condition::get(&status.conditions, types::READY)?;
            is_it(&ready.reason, &ready.message).then_some(())
        })
        .await;
    }

    /// Writes of objects by the controller so far, in its own or another's name.
    fn written(&self) -> Vec<AuditLine> {
        let lines = self.cluster.audit();
        lines.into_iter().filter(|l| l.is_of(&[&self.controller()]) && l.is_object_write()).collect()
    }

    /// Takes the right to impersonate away from the controller.
    async fn without_impersonation(&self) {
        let roles: Api<ClusterRole> = Api::all(self.admin.clone());
        let name = format!("{}:ostler-controller", self.release);
        let mut role = roles.get(&name).await.unwrap();
        let is_it = |rule: &PolicyRule| rule.verbs == ["impersonate"];
        let rules = role.rules.take().unwrap();
        let (taken, left): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_it);
        assert_eq!(taken.len(), 1, "the chart gives one: {taken:?}");
        role.rules = Some(left);
        roles.replace(&name, &PostParams::default(), &role).await.unwrap();
        in_force(false, &self.admin, To::User(&self.controller()), Some(&self.home), &taken[0]).await;
    }

    /// The image of an agent, if there is one.
    async fn image(&self, namespace: &str, name: &str) -> Option<String> {
        Api::<Agent>::namespaced(self.admin.clone(), namespace).get_opt(name).await.unwrap()?.spec.image
    }
}

/// The manifest of an object of a namespace.
fn file(kind: &str, namespace: &str, name: &str, more: &Value) -> String {
    let version = if kind == "ConfigMap" { "v1" } else { "ostler.dev/v1alpha1" };
    let mut object = json!({"apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": namespace}});
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object.to_string() + "\n"
}

fn agent(namespace: &str, image: &str) -> String {
    file("Agent", namespace, "coder", &json!({"spec": {"preset": "codex", "image": image}}))
}

/// A `ConfigMap` that somebody made in the other namespace, and the file that would take it over.
async fn somebodys(stage: &Stage) -> (Api<ConfigMap>, String) {
    let maps: Api<ConfigMap> = Api::namespaced(stage.admin.clone(), &stage.other);
    let theirs = json!({"metadata": {"name": "theirs"}, "data": {"key": "theirs"}});
    maps.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    let more = json!({"data": {"key": "ours"}});
    let mut taken: Value = serde_json::from_str(&file("ConfigMap", &stage.other, "theirs", &more)).unwrap();
    taken["metadata"]["annotations"] = json!({meta::ADOPT: "true"});
    (maps, taken.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_gets_as_far_as_its_service_account() {
    let stage = Stage::new().await;
    let (home, other) = (stage.home.as_str(), stage.other.as_str());
    let (maps, taken) = somebodys(&stage).await;
    stage.config.push(
        &[("here.yaml", &agent(home, "one")), ("there.yaml", &agent(other, "one")), ("map.yaml", &taken)],
        "two agents, and somebody else's ConfigMap",
    );
    let repository = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
        "metadata": {"name": "files"},
        "spec": {"url": stage.config.bare(), "interval": "1h", "allowedNamespaces": [home, other]}});
    let repository: ConfigRepository = serde_json::from_value(repository).unwrap();
    stage.repositories().create(&PostParams::default(), &repository).await.unwrap();
    let controller = stage.start();

    let as_it_is = |reason: &str, message: &str| {
        reason == Reason::InvalidSpec.as_str() && message.contains("spec.serviceAccountName")
    };
    stage.says("nothing is written beyond without an account", as_it_is).await;
    assert_eq!((stage.image(home, "coder").await, stage.image(other, "coder").await), (None, None));

    // An account that may write in its own namespace.
    let agents = rule("ostler.dev", "agents", &["patch", "create", "delete"]);
    grant(&stage.admin, home, "applier", To::User(&stage.applier()), agents.clone()).await;
    stage.change(json!({"spec": {"serviceAccountName": APPLIER}})).await;
    let refused =
        |_: &str, message: &str| message.contains("2 objects") && message.contains(&stage.applier());
    stage.says("what it may not is named with whose rights count", refused).await;
    assert_eq!(stage.image(home, "coder").await.as_deref(), Some("one"));
    assert_eq!(stage.image(other, "coder").await, None);

    // And in the other one, agents.
    grant(&stage.admin, other, "applier", To::User(&stage.applier()), agents).await;
    stage.change(json!({"metadata": {"annotations": {meta::RECONCILE_REQUESTED_AT: "now"}}})).await;
    let refused = |_: &str, message: &str| message.contains("1 objects") && message.contains("configmaps");
    stage.says("only the ConfigMap is left", refused).await;
    assert_eq!(stage.image(other, "coder").await.as_deref(), Some("one"));
    assert_eq!(maps.get("theirs").await.unwrap().data.unwrap()["key"], "theirs");

    // Its rights count for what is removed, too.
    stage.config.git(&["rm", "--quiet", "map.yaml", "there.yaml"]);
    stage.config.push(&[("here.yaml", &agent(home, "two"))], "the other namespace is left");
    stage.change(json!({"metadata": {"annotations": {meta::RECONCILE_REQUESTED_AT: "again"}}})).await;
    stage.says("all is as the commit says", |reason, _| reason == Reason::Succeeded.as_str()).await;
    assert_eq!((stage.image(other, "coder").await, maps.get("theirs").await.is_ok()), (None, true));
    assert_eq!(stage.image(home, "coder").await.as_deref(), Some("two"));

    assert_eq!(controller.stop().code, Some(0));
    let lines = stage.written();
    let by_hand = lines.iter().filter(|line| line.impersonated_user.is_none()).map(AuditLine::what);
    let by_hand: std::collections::BTreeSet<String> = by_hand.collect();
    assert_eq!(by_hand, ["patch configrepositories/status".to_owned()].into(), "the rest is the account's");
    let names = lines.iter().filter_map(|line| line.impersonated_user.as_ref());
    let names: std::collections::BTreeSet<&str> = names.map(|user| user.username.as_str()).collect();
    assert_eq!(names, [stage.applier().as_str()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_chart_was_not_told_of_is_nobodys() {
    let stage = Stage::new().await;
    let home = stage.home.as_str();
    let agents = rule("ostler.dev", "agents", &["patch", "create", "delete"]);
    grant(&stage.admin, home, "applier", To::User(&stage.applier()), agents).await;
    stage.without_impersonation().await;
    stage.config.push(&[("here.yaml", &agent(home, "one"))], "an agent");
    let repository = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
        "metadata": {"name": "files"},
        "spec": {"url": stage.config.bare(), "interval": "1h", "serviceAccountName": APPLIER}});
    let repository: ConfigRepository = serde_json::from_value(repository).unwrap();
    stage.repositories().create(&PostParams::default(), &repository).await.unwrap();
    let controller = stage.start();
    let refused = |_: &str, message: &str| message.contains("impersonate") && message.contains(APPLIER);
    stage.says("what is missing is named", refused).await;
    assert_eq!(stage.image(home, "coder").await, None);
    assert_eq!(controller.stop().code, Some(0));
}
