//! A cluster of which everything above the kubelet is real: its API server, and the controller and the recorder of ostler.

use std::{
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use kube::{Api, Client, api::PostParams};
use ostler::{
    git::sign::SigningKey,
    kinds::{ConfigRepository, HarnessRun},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::watch};

use super::{PATIENCE, nodes, role::Role, sidecars::Sidecars};
use crate::{
    cluster::{Cluster, MASTERS},
    stage::Stage,
    up::metric,
};

/// The two processes that are measured.
pub(super) struct Roles {
    pub(super) controller: Role,
    pub(super) recorder: Role,
}

/// The cluster, the repository, and what is played.
pub(super) struct Ground<'a> {
    pub(super) cluster: Cluster,
    pub(super) runtime: &'a Runtime,
    pub(super) client: Client,
    pub(super) namespace: String,
    stage: Stage,
    recorder: watch::Sender<String>,
}

/// An object of ours as a file of the repository.
pub(super) fn file(kind: &str, name: &str, spec: &Value) -> (String, String) {
    let object =
        json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    (format!("{}/{name}.yaml", kind.to_lowercase()), object.to_string() + "\n")
}

impl<'a> Ground<'a> {
    /// With a repository of these files, which is followed once there are [`Ground::roles`].
    pub(super) fn new(runtime: &'a Runtime, files: &[(String, String)]) -> Result<Self> {
        let (cluster, client) = runtime.block_on(async {
            let cluster = Cluster::start_own().await;
            cluster.install_crds().await;
            let client = cluster.client().await;
            (cluster, client)
        });
        let namespace = runtime.block_on(cluster.namespace("runs"));
        let stage = Stage::new(files)?;
        let recorder = watch::Sender::default();
        let ground = Self { cluster, runtime, client, namespace, stage, recorder };
        ground.play()?;
        ground.prepare()?;
        Ok(ground)
    }

    /// Plays nodes, scheduler and sidecars from now on.
    fn play(&self) -> Result<()> {
        let socket = self.cluster.folder().join("sidecars.sock");
        let authority = &self.cluster.authority().certificate;
        let sidecars = Sidecars::new(self.client.clone(), authority, self.recorder.subscribe())?;
        let (all, at) = (sidecars.clone(), socket.clone());
        self.runtime.spawn(async move { complain("the sidecars", all.answer_at(&at).await) });
        self.runtime.block_on(nodes::start(&self.cluster, &socket))?;
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        self.runtime.spawn(async move {
            complain("the scheduler", nodes::schedule(client, &namespace, sidecars).await);
        });
        Ok(())
    }

    /// Keys, certificates, and the object that names the repository.
    fn prepare(&self) -> Result<()> {
        let key = SigningKey::load(&self.stage.key())?;
        std::fs::write(self.path("ledger_signers"), key.allowed_signers_line("ostler")? + "\n")?;
        let authority = self.cluster.authority();
        let identity = authority.server("recorder", &["127.0.0.1"]);
        std::fs::write(self.path("ca.crt"), &authority.certificate)?;
        std::fs::write(self.path("tls.crt"), identity.certificate)?;
        std::fs::write(self.path("tls.key"), identity.key)?;
        let repository = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository", "metadata": {"name": "agents"},
            "spec": {"url": self.stage.config(), "interval": "1s"},
        });
        let repository: ConfigRepository = serde_json::from_value(repository)?;
        let api = Api::namespaced(self.client.clone(), &self.namespace);
        self.runtime.block_on(api.create(&PostParams::default(), &repository))?;
        Ok(())
    }

    /// Starts the roles, and waits until they have read the cluster.
    pub(super) fn roles(&self) -> Result<Roles> {
        let mut recorder = self.role("recorder");
        recorder
            .args(["--listen", "127.0.0.1:0", "--signing-key"])
            .arg(self.stage.key())
            .arg("--tls-cert")
            .arg(self.path("tls.crt"))
            .arg("--tls-key")
            .arg(self.path("tls.key"));
        let recorder = Role::start(recorder, &self.path("recorder.log"))?;
        self.recorder.send_replace(recorder.says("listening")?);
        let mut controller = self.role("controller");
        // Nobody connects with a proxy that is played.
        controller
            .args(["--places", "pods", "--image", "ostler.test/ostler:dev", "--proxy", "127.0.0.1:1"])
            .args(["--proxy-canary", "127.0.0.1:2", "--proxy-name", "proxy", "--recorder-name", "recorder"])
            .args(["--proxy-namespace", &self.namespace, "--proxy-label", "role=proxy", "--proxy-port", "1"])
            .arg("--proxy-ca")
            .arg(self.path("ca.crt"))
            .arg("--ledger-signers")
            .arg(self.path("ledger_signers"));
        let controller = Role::start(controller, &self.path("controller.log"))?;
        controller.until_ready()?;
        recorder.until_ready()?;
        Ok(Roles { controller, recorder })
    }

    fn role(&self, role: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
        command
            .args([role, "--json", "--namespace", &self.namespace, "--identity", role])
            .args(["--health", "127.0.0.1:0", "--kubeconfig"])
            .arg(self.cluster.kubeconfig_for(&user(role), &[MASTERS]))
            .arg("--audit")
            .arg(self.path(&format!("{role}-audit.jsonl")))
            .arg("--state")
            .arg(self.path(&format!("state-{role}")));
        command
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    /// Commits and pushes files; when the push began.
    pub(super) fn push(&self, files: &[(String, String)]) -> Result<Instant> {
        self.stage.commit(files, "a commit")?;
        Ok(self.stage.push()?.0)
    }

    pub(super) fn runs(&self) -> Api<HarnessRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until so many runs have succeeded, and as many results are in the ledger of these roles' time.
    pub(super) fn until(&self, roles: &Roles, succeeded: usize, recorded: usize) -> Result<Instant> {
        let last = Instant::now() + PATIENCE;
        let mut seen = (0.0, 0.0);
        while Instant::now() < last {
            seen = (
                metric(&roles.controller.metrics()?, r#"ostler_runs{phase="Succeeded"}"#)?,
                metric(
                    &roles.recorder.metrics()?,
                    r#"ostler_recorded_total{entry="result",result="pushed"}"#,
                )?,
            );
            if seen.0 >= count(succeeded)? && seen.1 >= count(recorded)? {
                return Ok(Instant::now());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!(
            "{} of {succeeded} runs succeed and {} of {recorded} are recorded; the logs: {}",
            seen.0,
            seen.1,
            self.logs()
        )
    }

    /// Waits until neither role has called the store for a second.
    pub(super) fn quiet(&self, roles: &Roles) -> Result<()> {
        let last = Instant::now() + PATIENCE;
        let mut before = None;
        while Instant::now() < last {
            let calls = |role: &Role| metric(&role.metrics()?, "ostler_object_calls_total");
            let now = (calls(&roles.controller)?.to_bits(), calls(&roles.recorder)?.to_bits());
            if before.replace(now) == Some(now) {
                return Ok(());
            }
            thread::sleep(Duration::from_secs(1));
        }
        bail!("they do not come to rest; the logs: {}", self.logs())
    }

    /// The last that the roles logged.
    fn logs(&self) -> String {
        let last = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(10).collect();
            format!("\n== {name}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        last("controller.log") + &last("recorder.log")
    }
}

/// The name by which the API server knows a role.
pub(super) fn user(role: &str) -> String {
    format!("ostler-{role}")
}

/// A number of things, as metrics tell it.
fn count(number: usize) -> Result<f64> {
    Ok(u32::try_from(number)?.into())
}

fn complain(who: &str, ended: Result<()>) {
    if let Err(error) = ended {
        eprintln!("{who}: {error:#}");
    }
}
