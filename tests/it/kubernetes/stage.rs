//! `ostler up` on an API server, as a user with the documented rights and no others, in a namespace of its own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use futures::StreamExt;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::{Client, ResourceExt, runtime::watcher::Event};
use ostler::{
    kinds::{ConfigRepository, HarnessRun, Phase, Typed, condition, harness_run::HarnessRunStatus},
    names::{Namespace, ObjectName},
    ports::objects::{self as port, Store},
};

use super::{
    rights::{Rights, documented},
    store_of,
};
use crate::{
    cluster::Cluster,
    scenarios::{
        manifests,
        up::{self, Ended, PATIENCE, Up},
    },
    servers::repo::Repo,
};

/// The role that the user has in the namespace.
pub(super) const ROLE: &str = "ostler-up";

/// A namespace, a user, repositories and folders for one `ostler up` at a time.
pub(super) struct Stage<'a> {
    root: tempfile::TempDir,
    pub(super) cluster: &'a Cluster,
    pub(super) namespace: Namespace,
    /// The administrator's.
    pub(super) store: Store,
    pub(super) admin: Client,
    pub(super) rights: Rights,
    pub(super) config: Repo,
    pub(super) code: Repo,
}

/// The rights in the namespace.
pub(super) fn role() -> Vec<PolicyRule> {
    documented("Role", ROLE)
}

impl<'a> Stage<'a> {
    /// With our kinds installed. The config repository has the agent `shell` and the session `work`, and looks at itself
    /// every second.
    pub(super) async fn new(cluster: &'a Cluster, prefix: &str) -> Self {
        cluster.install_crds().await;
        let namespace: Namespace = cluster.namespace(prefix).await.parse().unwrap();
        let admin = cluster.client().await;
        let user = format!("ostler-of-{namespace}");
        let rights = Rights { admin: admin.clone(), namespace: namespace.clone(), user };
        rights.give(ROLE, &role()).await;
        rights.give_everywhere(&documented("ClusterRole", ROLE)).await;
        let root = tempfile::tempdir().unwrap();
        let (config, code) = (Repo::new(), Repo::with_readme());
        let session = manifests::session(&code.bare().display().to_string());
        config.push(&[("agents/shell.yaml", &manifests::shell()), ("session.yaml", &session)], "begin");
        let repository = manifests::manifest(
            "ConfigRepository",
            "config",
            &serde_json::json!({"url": config.bare(), "interval": "1s"}),
        );
        std::fs::write(root.path().join("config.yaml"), repository).unwrap();
        let store = store_of(cluster.kubeconfig()).await;
        Self { root, cluster, namespace, store, admin, rights, config, code }
    }

    /// The kubeconfig of the user.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig_for(&self.rights.user, &[])
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// `ostler` without the machine's or the user's configuration.
    pub(super) fn ostler(&self, arguments: &[OsString]) -> Command {
        let mut command = up::ostler(self.root.path());
        command.args(arguments);
        command
    }

    fn command(&self, kubeconfig: &Path) -> Command {
        let mut command = self.ostler(&[]);
        command
            .args(["up", "--config", "config.yaml", "--places", "machine", "--json"])
            .args(["--namespace", self.namespace.as_str()])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--state")
            .arg(self.state());
        command
    }

    /// Starts `ostler up` as the user, and waits until it serves.
    pub(super) fn up(&self) -> Up {
        self.up_by(&self.kubeconfig())
    }

    /// The same with another kubeconfig.
    pub(super) fn up_by(&self, kubeconfig: &Path) -> Up {
        let up = Up::start(self.command(kubeconfig));
        up.line("it serves", |line| line["what"] == "listening");
        up
    }

    /// Starts `ostler up` and waits for its end.
    pub(super) fn up_to_its_end(&self) -> Ended {
        Up::start(self.command(&self.kubeconfig())).end()
    }

    /// Commits a file and pushes.
    pub(super) fn push(&self, path: &str, content: &str) -> String {
        self.config.push(&[(path, content)], path)
    }

    /// Waits until a commit is in force as a whole.
    pub(super) async fn in_force(&self, commit: &str) {
        self.repository("the commit is in force", |_, status| {
            status.last_applied.as_ref().is_some_and(|applied| applied.commit == commit)
        })
        .await;
    }

    /// Waits until the repository is as told; gives what it says of itself.
    pub(super) async fn repository(
        &self,
        what: &str,
        until: impl Fn(&str, &ostler::kinds::config_repository::ConfigRepositoryStatus) -> bool,
    ) -> String {
        let message = |repository: &ConfigRepository| {
            let status = repository.status.clone().unwrap_or_default();
            let ready = condition::get(&status.conditions, condition::types::READY)?;
            Some((format!("{}: {}", ready.reason, ready.message), status))
        };
        let found = self
            .wait::<ConfigRepository>("config", what, |repository| {
                repository.and_then(message).is_some_and(|(message, status)| until(&message, &status))
            })
            .await;
        message(&found.unwrap()).unwrap().0
    }

    /// Waits until an object is as told; `None` is one that is not there.
    pub(super) async fn wait<K: Typed + ResourceExt>(
        &self,
        name: &str,
        what: &str,
        until: impl Fn(Option<&K>) -> bool,
    ) -> Option<K> {
        let mut seen: Option<K> = None;
        let watching = async {
            let mut events = port::watch::<K>(self.store.as_ref(), Some(self.namespace.clone()));
            let mut whole = false;
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => (seen, whole) = (None, false),
                    Ok(Event::InitDone) => whole = true,
                    Ok(Event::InitApply(object) | Event::Apply(object)) if object.name_any() == name => {
                        seen = Some(object);
                    }
                    Ok(Event::Delete(object)) if object.name_any() == name => seen = None,
                    // the server may be away for a while
                    Ok(_) | Err(_) => {}
                }
                if whole && until(seen.as_ref()) {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, watching).await;
        let last = serde_json::to_string_pretty(&seen).unwrap();
        assert!(waited.is_ok(), "never: {what}: {} {name} came so far: {last}", K::KIND);
        seen
    }

    /// Waits until the status of a run is as told.
    pub(super) async fn run(
        &self,
        name: &str,
        what: &str,
        until: impl Fn(&HarnessRunStatus) -> bool,
    ) -> HarnessRun {
        let so = |run: Option<&HarnessRun>| run.and_then(|run| run.status.as_ref()).is_some_and(&until);
        self.wait(name, what, so).await.unwrap()
    }

    /// Waits until a run has ended so and its result is in the ledger.
    pub(super) async fn recorded(&self, name: &str, phase: Phase) -> HarnessRun {
        self.run(name, "it is recorded", |status| {
            let recorded = status.result.as_ref().is_some_and(|result| result.commit.is_some());
            recorded && status.phase == Some(phase)
        })
        .await
    }

    pub(super) async fn get<K: Typed>(&self, name: &str) -> Option<K> {
        let name: ObjectName = name.parse().unwrap();
        port::get(self.store.as_ref(), &self.namespace, &name).await.unwrap()
    }

    /// Lets the agent of a run, whose script says [`manifests::GATE`], go on, once it stands there.
    pub(super) async fn open_gate(&self, run: &HarnessRun) {
        eventually("the agent reads at its gate", || self.try_gate(run)).await;
    }

    /// The same, if it stands there now.
    pub(super) fn try_gate(&self, run: &HarnessRun) -> Option<()> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let gate = self.state().join("places").join(run.uid()?).join("tmp/gate");
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let mut gate = std::fs::File::options().write(true).custom_flags(flags).open(gate).ok()?;
        gate.write_all(b"go\n").ok()
    }
}

/// Looks until there is something.
pub(super) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("never: {what}"))
}
