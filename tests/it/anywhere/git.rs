//! A Git server in a pod, over HTTPS, with a password.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tar::{Builder, Header};

use super::Ground;
use crate::cluster::Authority;

/// Its pod and Service.
const NAME: &str = "git";
/// Where the server listens: what policies of pods see, whatever the Service says.
pub(super) const PORT: u16 = 8443;
const REPOSITORIES: &str = "/srv/repositories";

/// Two repositories, each with one commit on `main`: `config.git`, which everybody may read, and `code.git`.
pub(super) struct Git {
    ground: Ground,
    namespace: String,
    pub(super) password: String,
    /// Whom its certificate is of.
    pub(super) authority: String,
}

impl Git {
    /// Nothing is in the cluster yet.
    pub(super) fn new(ground: &Ground, namespace: &str) -> Self {
        let password = uuid::Uuid::new_v4().simple().to_string();
        Self { ground: ground.clone(), namespace: namespace.to_owned(), password, authority: String::new() }
    }

    /// Its name in the cluster.
    pub(super) fn host(&self) -> String {
        format!("{NAME}.{}.svc", self.namespace)
    }

    pub(super) fn url(&self, repository: &str) -> String {
        format!("https://{}/{repository}", self.host())
    }

    /// Starts it, and waits until it answers.
    pub(super) async fn start(&mut self) {
        let authority = Authority::new();
        let identity = authority.server(NAME, &[&self.host()]);
        self.authority.clone_from(&authority.certificate);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME},
            "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key, "password": self.password},
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": 443, "targetPort": PORT}]},
        });
        for object in [secret, service] {
            let create = ["create", "--namespace", &self.namespace, "-f", "-"];
            self.ground.kubectl(&create, &object.to_string()).unwrap();
        }
        let arguments =
            ["-root", REPOSITORIES, "-cert", "/tls/tls.crt", "-key", "/tls/tls.key", "-open", "config.git"];
        let mut pod = self.ground.carrier(NAME, "gitserver", &arguments, PORT);
        let container = &mut pod["spec"]["containers"][0];
        let password = json!({"secretKeyRef": {"name": NAME, "key": "password"}});
        container["env"].as_array_mut().unwrap().push(json!({"name": "GIT_PASSWORD", "valueFrom": password}));
        container["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "tls", "mountPath": "/tls"}));
        let tls = json!({"name": "tls", "secret": {"secretName": NAME}});
        pod["spec"]["volumes"].as_array_mut().unwrap().push(tls);
        let _: Pod = self.ground.carry(&self.namespace, pod, "gitserver", &self.repositories()).await;
    }

    /// The script that makes them, and a checkout of each.
    fn repositories(&self) -> String {
        let person = "git config --global user.name test; git config --global user.email test@example.com";
        let make = |name: &str| {
            format!(
                "git init --quiet --bare --initial-branch=main {REPOSITORIES}/{name}.git
                git clone --quiet {REPOSITORIES}/{name}.git /srv/{name} 2>/dev/null
                cd /srv/{name}; git checkout --quiet -B main
                git commit --quiet --allow-empty -m first; git push --quiet origin main"
            )
        };
        format!("{person}\n{}\n{}", make("config"), make("code"))
    }

    /// Pushes files to the config repository, beside what is there.
    pub(super) async fn push(&self, files: &[(&str, &str)]) {
        let mut archive = Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let script = "cd /srv/config; tar -x; git add --all; git commit --quiet -m change; git push --quiet origin main";
        self.shell(script, &archive.into_inner().unwrap()).await;
    }

    /// What git says of a bare repository.
    pub(super) async fn git(&self, repository: &str, arguments: &str) -> String {
        self.shell(&format!("git -C {REPOSITORIES}/{repository} {arguments}"), b"")
            .await
            .trim_end()
            .to_owned()
    }

    async fn shell(&self, script: &str, input: &[u8]) -> String {
        let script = format!("set -eu; {script}");
        let ended = self.ground.exec(&self.namespace, NAME, &["sh", "-c", &script], input).await;
        assert_eq!(ended.code, 0, "{script}: {ended:?}");
        ended.stdout
    }
}
