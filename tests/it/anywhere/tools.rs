//! Helm and kubectl at the prompt of whoever runs the suite, and programs that are carried into pods.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use super::Ground;
use crate::{
    cluster::{Container, Output, eventually, exec, path_printed_by},
    node::{is_ready, restricted_container, restricted_pod},
};

/// Where a pod has what was carried into it.
const CARRIED: &str = "/carried";
/// The container of all pods here.
const MAIN: &str = "main";

impl Ground {
    /// Runs Helm, with the checkout as its folder.
    pub(super) fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.tool(&path_printed_by("tests/charts/build.sh", &[]), arguments, "")
    }

    /// Runs kubectl, which reads this.
    pub(super) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        self.tool(&path_printed_by("tests/cluster/build.sh", &[]).join("kubectl"), arguments, input)
    }

    /// The environment stays as it is: a kubeconfig may name programs that log in.
    fn tool(&self, program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever ends before reading says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let ended = child.wait_with_output().unwrap();
        let [out, complaints] =
            [ended.stdout, ended.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        if ended.status.success() {
            return Ok(out);
        }
        Err(format!("{} {}: {}\n{out}{complaints}", program.display(), arguments.join(" "), ended.status))
    }

    /// A program of ours, built for the machine of the tests.
    fn program(name: &str) -> PathBuf {
        path_printed_by("tests/cluster/build.sh", &["--pods"]).join(name)
    }

    /// A pod that passes *restricted*, and will run that program once it is carried there; it is ready when it answers at
    /// that port. Folders of its own are `/carried` and `/srv`.
    pub(super) fn carrier(&self, name: &str, program: &str, arguments: &[&str], port: u16) -> Value {
        let wait =
            format!("until [ -x {CARRIED}/{program} ]; do sleep 1; done; exec {CARRIED}/{program} \"$@\"");
        let command = [&["sh", "-c", &wait, program], arguments].concat();
        let mut container = restricted_container(MAIN, &self.agent, &command);
        container["imagePullPolicy"] = self.pull_policy.as_str().into();
        container["env"] = json!([{"name": "HOME", "value": "/srv"}]);
        container["readinessProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
        container["volumeMounts"] =
            json!([{"name": "carried", "mountPath": CARRIED}, {"name": "srv", "mountPath": "/srv"}]);
        let mut pod = serde_json::to_value(restricted_pod(name, &self.agent, &[])).unwrap();
        pod["metadata"]["labels"] = json!({"app": name});
        pod["spec"]["containers"] = json!([container]);
        pod["spec"]["volumes"] =
            json!([{"name": "carried", "emptyDir": {}}, {"name": "srv", "emptyDir": {}}]);
        pod
    }

    /// Makes such a pod, after that has the script run in it, and gives it when it is ready.
    pub(super) async fn carry(&self, namespace: &str, pod: Value, program: &str, script: &str) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client().await, namespace);
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        self.pod_until(namespace, &name, "runs", |pod| phase(pod) == "Running").await;
        let content = std::fs::read(Self::program(program)).unwrap();
        // The length says where it ends, in case the stream does not.
        let take = format!(
            "set -eu; {script}\ncd {CARRIED}; head -c {} >new; chmod 755 new; mv new {program}",
            content.len()
        );
        let taken = self.exec(namespace, &name, &["sh", "-c", &take], &content).await;
        assert_eq!(taken.code, 0, "{taken:?}");
        self.pod_until(namespace, &name, "is ready", is_ready).await
    }

    /// Runs a command in such a pod.
    pub(super) async fn exec(&self, namespace: &str, pod: &str, command: &[&str], input: &[u8]) -> Output {
        exec(self.client().await, Container { namespace, pod, name: MAIN }, command, input).await
    }

    /// Waits until a pod is as told.
    pub(super) async fn pod_until(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        reached: impl Fn(&Pod) -> bool,
    ) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client().await, namespace);
        eventually(&format!("pod {name} {what}"), async || pods.get(name).await.ok().filter(&reached)).await
    }

    /// What a pod of one container wrote.
    pub(super) async fn log(client: Client, namespace: &str, pod: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        pods.logs(pod, &kube::api::LogParams::default()).await.unwrap()
    }
}

/// The phase of a pod.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
