//! What a role really asks of the API server, with the identity that the chart gives it: its own process, as far as a
//! machine without a node lets it go, and the adapters that it is made of for the rest.

mod serving;

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event as CoreEvent, Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use ostler::{
    kinds::{Agent, ConfigRepository, EgressPolicy, HarnessRun, Kind, ObjectId, Reason, Session},
    kubernetes::{
        lease::{self, Fence},
        network::{NetworkPolicies, ProxySelector},
        objects::KubeObjects,
        secrets::KubeSecrets,
        workloads::KubeWorkloads,
    },
    names::Namespace,
    ports::{
        Objects, Secrets, Workloads,
        objects::{Happening, Severity},
        secrets::SecretUse,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    cluster::{AuditLine, Cluster},
    harness::world::shell,
    kubernetes::workloads::settings,
    scenarios::up::{Ended, Up},
    servers::repo::Repo,
};

/// The longest that a role may take for all of it; what is refused is seen far earlier.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// A role and its identity.
pub(super) struct Smoke<'a> {
    cluster: &'a Cluster,
    /// The namespace of the release.
    home: String,
    /// The one namespace that it looks after; none: any.
    watched: Option<String>,
    role: String,
    /// The service account, as the API server names it.
    pub(super) user: String,
    kubeconfig: PathBuf,
    client: Client,
    admin: Client,
}

/// One attempt: a namespace and a folder of its own.
struct Attempt<'a> {
    smoke: &'a Smoke<'a>,
    namespace: String,
    folder: tempfile::TempDir,
    /// Where the audit log ended when it began.
    since: u64,
}

impl<'a> Smoke<'a> {
    pub(super) async fn new(cluster: &'a Cluster, home: &str, role: &str) -> Self {
        let group = format!("system:serviceaccounts:{home}");
        let user = format!("system:serviceaccount:{home}:ostler-{role}");
        Self {
            cluster,
            home: home.to_owned(),
            watched: None,
            role: role.to_owned(),
            kubeconfig: cluster.kubeconfig_for(&user, &[&group]),
            client: cluster.user(&user, &[&group]).await,
            admin: cluster.client().await,
            user,
        }
    }

    /// The same, and it looks after that namespace alone. There can be only one attempt in it.
    pub(super) fn only_in(self, namespace: &str) -> Self {
        Self { watched: Some(namespace.to_owned()), ..self }
    }

    /// Where the audit log ends.
    pub(super) fn now(&self) -> u64 {
        self.cluster.audit_from(0).1
    }

    /// What this role asked for since then.
    pub(super) async fn asked(&self, since: u64) -> Vec<AuditLine> {
        self.lines_are_written(since).await;
        let (mut lines, _) = self.cluster.audit_from(since);
        lines.retain(|line| line.is_of(&[&self.user]));
        lines
    }

    /// Returns when the audit log has what was asked before.
    async fn lines_are_written(&self, since: u64) {
        let mark = format!("mark-{}", uuid::Uuid::new_v4().simple());
        let maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), &self.home);
        assert!(maps.get_opt(&mark).await.unwrap().is_none());
        let is_there = |line: &AuditLine| line.object_ref.name == mark;
        until(async || self.cluster.audit_from(since).0.iter().any(is_there)).await;
    }

    /// Waits until the API server has refused something to this role, from that byte of the audit log on.
    async fn refused(&self, mut from: u64) -> String {
        loop {
            let lines;
            (lines, from) = self.cluster.audit_from(from);
            if let Some(line) = lines.iter().find(|line| line.is_of(&[&self.user]) && line.code() == 403) {
                return line.what();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A new namespace for one attempt.
async fn attempt<'a>(smoke: &'a Smoke<'a>) -> Attempt<'a> {
    let namespace = match &smoke.watched {
        Some(namespace) => namespace.clone(),
        None => smoke.cluster.namespace("smoke").await,
    };
    // Whoever led before left its lease, and the next one must make it anew.
    let leases: Api<Lease> = Api::namespaced(smoke.admin.clone(), &smoke.home);
    // there may be none
    let _ = leases.delete(&format!("ostler-{}", smoke.role), &DeleteParams::default()).await;
    let from = smoke.cluster.audit_from(0).1;
    Attempt { smoke, namespace, folder: tempfile::tempdir().unwrap(), since: from }
}

/// How a process ends that is asked to after something was refused to it.
pub(super) async fn end_of_a_refused_one(smoke: &Smoke<'_>) -> Ended {
    let attempt = attempt(smoke).await;
    let mut process = match smoke.role.as_str() {
        "controller" => attempt.start_controller(),
        _ => attempt.start_recorder().0,
    };
    let refused = tokio::time::timeout(PATIENCE, smoke.refused(attempt.since)).await;
    println!("{}: refused: {}", smoke.role, refused.expect("nothing was refused"));
    let up = process.0.take().expect("it was started");
    tokio::task::spawn_blocking(|| up.stop()).await.unwrap()
}

/// Does everything once, in a new namespace.
///
/// # Errors
/// With what was refused, or what did not work.
pub(super) async fn smoke(smoke: &Smoke<'_>) -> Result<(), String> {
    let attempt = attempt(smoke).await;
    let all = async {
        match smoke.role.as_str() {
            "controller" => attempt.controller().await,
            "recorder" => attempt.recorder().await,
            "api" => attempt.api().await,
            "proxy" => attempt.proxy().await,
            other => Err(format!("there is no role {other}")),
        }
    };
    tokio::select! {
        refused = smoke.refused(attempt.since) => Err(format!("refused: {refused}")),
        done = tokio::time::timeout(PATIENCE, all) => done.unwrap_or_else(|_| panic!("{}: neither done nor refused", smoke.role)),
    }
}

/// A role's process. Dropped, it is killed: what it would still ask for in an orderly end may be refused to it.
struct Process(Option<Up>);

impl Process {
    fn text(&self) -> String {
        self.0.as_ref().map(Up::text).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(up) = self.0.take() {
            up.kill();
        }
    }
}

impl Attempt<'_> {
    /// The role's own process.
    fn process(&self, arguments: &[&[&str]]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.folder.path())
            .args([&self.smoke.role, "--json", "--health", "127.0.0.1:0", "--kubeconfig"])
            .arg(&self.smoke.kubeconfig)
            .args(arguments.concat());
        Process(Some(Up::start(command)))
    }

    /// The controller, with pods as its places, as the chart has it.
    fn start_controller(&self) -> Process {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        std::fs::write(file("ca.crt"), "").unwrap();
        self.process(&[
            &self.leading(),
            &["--places", "pods", "--image", "registry.example.com/ostler"],
            &["--proxy", "10.96.0.7:8443", "--proxy-canary", "10.96.0.7:8444", "--proxy-name", "proxy"],
            &["--recorder-name", "recorder", "--proxy-ca", &file("ca.crt"), "--proxy-port", "8443"],
            &["--proxy-namespace", &self.smoke.home, "--proxy-label", "app.kubernetes.io/component=proxy"],
        ])
    }

    /// The recorder, and the certificate that it shows.
    fn start_recorder(&self) -> (Process, String) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let key = ostler::git::sign::SigningKey::generate("recorder").unwrap();
        key.store(&self.folder.path().join("signing_key")).unwrap();
        let pair = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&pair).unwrap().pem();
        std::fs::write(file("tls.crt"), &certificate).unwrap();
        std::fs::write(file("tls.key"), pair.serialize_pem()).unwrap();
        let process = self.process(&[
            &self.leading(),
            &["--signing-key", &file("signing_key"), "--listen", "127.0.0.1:0"],
            &["--tls-cert", &file("tls.crt"), "--tls-key", &file("tls.key")],
        ]);
        (process, certificate)
    }

    /// What both that lead are told.
    fn leading(&self) -> [&str; 8] {
        let scope = ["--namespace", &self.namespace, "--lease-namespace", &self.smoke.home];
        let [a, b, c, d] = scope;
        [a, b, c, d, "--identity", "smoke", "--state", "state"]
    }

    fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.smoke.admin.clone(), &self.namespace)
    }

    /// Somebody makes an object.
    async fn make<K>(&self, kind: &str, name: &str, more: Value) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let mut object =
            json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
        for (field, value) in more.as_object().unwrap() {
            object[field] = value.clone();
        }
        let object: K = serde_json::from_value(object).unwrap();
        self.objects().create(&PostParams::default(), &object).await.unwrap()
    }

    fn namespace(&self) -> Namespace {
        self.namespace.parse().unwrap()
    }

    /// Reads a Secret as a manifest that names it would have it read.
    async fn secret(&self) -> Result<(), String> {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "token", "annotations": {"ostler.dev/use": "env"}}, "stringData": {"token": "t"},
        }))
        .unwrap();
        self.objects::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
        let secrets = KubeSecrets::new(self.smoke.client.clone());
        let mut changes = secrets.changes();
        let read = secrets.resolve(&self.namespace(), &"token".parse().unwrap(), SecretUse::Env, None).await;
        read.map_err(|error| error.to_string())?;
        let patch = kube::api::Patch::Merge(json!({"stringData": {"token": "u"}}));
        self.objects::<Secret>().patch("token", &PatchParams::default(), &patch).await.unwrap();
        changes.next().await.map(drop).ok_or_else(|| "nobody tells that a Secret changes".to_owned())
    }

    /// Another one of this role stands by until the first one has renewed its lease.
    async fn stand_by(&self) {
        let Smoke { client, home, role, .. } = self.smoke;
        let name = format!("ostler-{role}");
        let leases: Api<Lease> = Api::namespaced(self.smoke.admin.clone(), home);
        let renewed_at = async || Some(leases.get_opt(&name).await.unwrap()?.spec?.renew_time);
        let renewed = async {
            until(async || renewed_at().await.is_some()).await;
            let first = renewed_at().await;
            until(async || renewed_at().await != first).await;
        };
        tokio::select! {
            _ = lease::Lease::take(client.clone(), home, &name, "another", Fence::default()) => panic!("two lead"),
            () = renewed => {}
        }
    }

    /// Tells of something that happened to a repository.
    async fn event(&self, about: &ConfigRepository) {
        let id: ObjectId = ostler::ports::objects::id_of(Kind::ConfigRepository, about).unwrap();
        let uid = about.metadata.uid.clone().unwrap().parse().unwrap();
        let objects = KubeObjects::new(self.smoke.client.clone());
        let severity = Severity::Normal;
        let message = "smoke".to_owned();
        let happening = Happening { about: id, uid, severity, reason: Reason::Contested, message };
        // the second one counts the first one up
        objects.tell(happening.clone()).await;
        objects.tell(happening).await;
        until(async || {
            let events = self.objects::<Event>().list(&ListParams::default()).await.unwrap();
            let told = |event: &Event| {
                event.note.as_deref() == Some("smoke") && event.series.as_ref().is_some_and(|s| s.count == 2)
            };
            events.items.iter().any(told)
        })
        .await;
    }

    async fn follow(&self, repository: &Repo) -> ConfigRepository {
        self.make("ConfigRepository", "config", json!({"spec": {"url": repository.bare(), "interval": "1h"}}))
            .await
    }

    async fn controller(&self) -> Result<(), String> {
        let repository = Repo::with_readme();
        let agent = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "coder"},
            "spec": {"preset": "codex", "image": "registry.example.com/agent"}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompt"},
            "data": {"text": "Fix the login."}});
        let session = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Session", "metadata": {"name": "work"},
            "spec": {"agentRef": {"name": "coder"}}});
        let policy = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "EgressPolicy", "metadata": {"name": "out"},
            "spec": {"rules": [{"name": "git", "hosts": ["git.example.com"]}]}});
        let run = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun", "metadata": {"name": "fix"},
            "spec": {"sessionRef": {"name": "work"}, "task": {"prompt": "Fix the login."}}});
        let files = [
            ("agent.yaml", agent),
            ("map.yaml", map),
            ("session.yaml", session),
            ("policy.yaml", policy),
            ("run.yaml", run),
        ];
        let files = files.map(|(file, content)| (file, format!("{content}\n")));
        repository.push(&files.each_ref().map(|(file, content)| (*file, content.as_str())), "everything");
        let followed = self.follow(&repository).await;
        let _controller = self.start_controller();
        until(async || {
            let session = self.objects::<Session>().get_opt("work").await.unwrap();
            let run = self.objects::<HarnessRun>().get_opt("fix").await.unwrap();
            let applied = self.objects::<Agent>().get_opt("coder").await.unwrap().is_some()
                && self.objects::<ConfigMap>().get_opt("prompt").await.unwrap().is_some()
                && self.objects::<EgressPolicy>().get_opt("out").await.unwrap().is_some()
                && run.is_some_and(|run| run.status.is_some());
            let now = self.objects::<ConfigRepository>().get("config").await.unwrap();
            let told = now.status.is_some_and(|status| status.last_applied.is_some());
            applied && told && session.is_some_and(|session| session.status.is_some())
        })
        .await;
        for (file, _) in files {
            std::fs::remove_file(repository.work().join(file)).unwrap();
        }
        // from a tree without any object nothing would be pruned
        let stays = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stays"}});
        repository.push(&[("stays.yaml", &format!("{stays}\n"))], "less");
        until(async || {
            self.objects::<ConfigMap>().get_opt("prompt").await.unwrap().is_none()
                && self.objects::<Agent>().get_opt("coder").await.unwrap().is_none()
                && self.objects::<EgressPolicy>().get_opt("out").await.unwrap().is_none()
                && self.objects::<HarnessRun>().get_opt("fix").await.unwrap().is_none()
                && self.objects::<Session>().get_opt("work").await.unwrap().is_none()
        })
        .await;
        self.event(&followed).await;
        self.secret().await?;
        self.place().await?;
        // last, as it takes the time between two renewals
        self.stand_by().await;
        Ok(())
    }

    /// A run's place, from the policy that confines it to the end of its workspace.
    async fn place(&self) -> Result<(), String> {
        let client = self.smoke.client.clone();
        let text = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
        let labels = [("app.kubernetes.io/component".to_owned(), "proxy".to_owned())].into();
        let namespace = self.smoke.home.parse().unwrap();
        let policies = NetworkPolicies::new(client.clone(), &ProxySelector { namespace, labels, port: 8443 });
        policies.ensure(&self.namespace()).await.map_err(|error| text(&error))?;

        let secrets = Arc::new(KubeSecrets::new(client.clone()));
        let places = KubeWorkloads::start(client, settings(&self.namespace()), secrets)
            .await
            .map_err(|error| text(&error))?;
        let mut spec = shell("true");
        spec.run.namespace = self.namespace();
        spec.image = Some("registry.example.com/agent".to_owned());
        let session: ostler::names::Uid = uuid::Uuid::new_v4().to_string().parse().unwrap();
        spec.persistent_workspace = Some(session.clone());
        let uid = spec.run.uid.clone();
        places.ensure(&spec).await.map_err(|error| text(&error))?;
        let found = places.find(&spec.run).await.map_err(|error| text(&error))?;
        assert!(found.is_some(), "a place that was made is found");
        // the workspace of the session is there already
        let mut second = spec.clone();
        second.run.name = "again".parse().unwrap();
        second.run.uid = uuid::Uuid::new_v4().to_string().parse().unwrap();
        places.ensure(&second).await.map_err(|error| text(&error))?;
        places.confirm(&uid).await.map_err(|error| text(&error))?;
        self.complain(&places, &uid).await;
        // There is no node to open it: what RBAC refuses is in the audit log.
        assert!(places.open(&uid).await.is_err());
        self.lines_are_written().await;
        places.remove(&uid).await.map_err(|error| text(&error))?;
        places.remove(&second.run.uid).await.map_err(|error| text(&error))?;
        places.remove_workspace(&session).await.map_err(|error| text(&error))
    }

    /// A node takes the pod and cannot start it: the run's place tells what the cluster says about it.
    async fn complain(&self, places: &KubeWorkloads, run: &ostler::names::Uid) {
        let place = places.observe(run).await.unwrap().unwrap();
        let (pods, events) = (self.objects::<Pod>(), self.objects::<CoreEvent>());
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        let status = Patch::Strategic(json!({"status": {"conditions": [scheduled]}}));
        pods.patch_status(&place.name, &PatchParams::default(), &status).await.unwrap();
        let event = json!({"metadata": {"name": "complaint"}, "type": "Warning", "reason": "FailedMount",
            "message": "no such disk", "lastTimestamp": jiff::Timestamp::now(),
            "involvedObject": {"kind": "Pod", "namespace": self.namespace, "name": place.name, "uid": place.uid}});
        events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
        until(async || {
            let place = places.observe(run).await.unwrap().unwrap();
            place.trouble.is_some_and(|trouble| trouble.message.contains("(FailedMount): no such disk"))
        })
        .await;
    }

    /// Returns when the audit log has what was asked before.
    async fn lines_are_written(&self) {
        self.smoke.lines_are_written(self.since).await;
        // whoever waits for refusals reads it, too
        tokio::time::sleep(PAUSE * 3).await;
    }
}

/// The address in a line that says where a process listens.
fn listening(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["what"] == "listening").then(|| line["value"].as_str().map(str::to_owned))?
}

/// Looks until it is so; whoever calls this has a patience of their own.
async fn until(is_it: impl AsyncFn() -> bool) {
    while !is_it().await {
        tokio::time::sleep(PAUSE).await;
    }
}
