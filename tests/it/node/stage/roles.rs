//! The roles of a stage: how each is started.

use std::process::Command;

use k8s_openapi::api::{
    core::v1::{Pod, Secret, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{Stage, Up};
use crate::{
    cluster::MASTERS,
    node::{restricted_container, restricted_pod},
};

/// The proxy's ports: tunnels, canary, health.
const PORTS: [u16; 3] = [8443, 8444, 8081];
/// How long a policy may take to be in force: longer than that of an enforcer that is late.
const PROOF_SECONDS: u64 = 25;

impl Stage<'_> {
    /// Starts the recorder; where it listens.
    pub(super) fn start_recorder(&mut self) -> String {
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
    pub(super) async fn start_proxy(&self, recorder: &str) -> Pod {
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
    pub(in super::super) fn restart_controller(&mut self, image: &str) {
        let controller = self.controller.take().expect("it was started");
        // before it listens to signals, one ends it
        controller.line("it leads", |said| said["what"] == "leading");
        let ended = controller.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        self.start_controller(image);
    }

    pub(super) fn start_controller(&mut self, image: &str) {
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
}
