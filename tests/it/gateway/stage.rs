//! A gateway on a real API server, and pods that a test says are running.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client as Kube, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use ostler::{
    egress::OwnService,
    harness::pod::{ANNOTATION, PodFile, TOKENS},
    kubernetes::{callers::KubeCallers, secrets::KubeSecrets},
    ports::workloads::{NamedPolicy, PlaceSpec},
    proxy::{
        HostsFile, Resolver,
        gateway::{Certificate, Gateway, Limits, Parts},
        tunnel::{Client, Endpoint},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::task::AbortOnDropHandle;

pub(super) use crate::cluster::eventually;
use crate::cluster::{self, Cluster};

/// Names that tests use: this machine, and a metadata service.
pub(super) const HOSTS: &str = "127.0.0.1 target.test other.test\n169.254.169.254 metadata.test\n";

/// An authority, and a certificate of it for `proxy.test` in two files.
pub(super) struct Certificates {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) authority: String,
    folder: TempDir,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let made = Self { issuer, authority, folder: tempfile::tempdir().unwrap() };
        made.renew("proxy.test");
        made
    }

    /// Writes another pair, for this name.
    pub(super) fn renew(&self, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let [certificate_file, key_file] = self.files();
        std::fs::write(key_file, key.serialize_pem()).unwrap();
        std::fs::write(certificate_file, certificate).unwrap();
    }

    pub(super) fn files(&self) -> [PathBuf; 2] {
        ["tls.crt", "tls.key"].map(|name| self.folder.path().join(name))
    }

    pub(super) fn read(&self) -> Certificate {
        let [certificate, key] = self.files();
        Certificate::read(&certificate, &key).unwrap()
    }
}

/// A gateway, a namespace for pods, and whoever ends with them.
pub(super) struct Stage {
    pub(super) cluster: &'static Cluster,
    pub(super) kube: Kube,
    pub(super) namespace: String,
    pub(super) gateway: Gateway,
    pub(super) certificates: Certificates,
    pub(super) certificate: Certificate,
    pub(super) address: SocketAddr,
    pub(super) canary: SocketAddr,
    _stop: oneshot::Sender<()>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Stage {
    pub(super) async fn start() -> Self {
        Self::with(Limits::default(), "127.0.0.1:9".to_owned()).await
    }

    pub(super) async fn with(limits: Limits, recorder: String) -> Self {
        let cluster = cluster::shared().await;
        let kube = cluster.client().await;
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let [address, canary] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let callers =
            KubeCallers::new(kube.clone(), vec![OwnService::Socket(address), OwnService::Socket(canary)]);
        let gateway = Gateway::new(Parts {
            callers: Arc::new(callers),
            secrets: Arc::new(KubeSecrets::new(kube.clone())),
            resolver: Resolver::new(HostsFile::parse(HOSTS).unwrap()),
            recorder,
            limits,
        });
        let certificates = Certificates::new();
        let certificate = certificates.read();
        let (stop, stopped) = oneshot::channel::<()>();
        let [tunnels, canaries] = listeners;
        let (serving, counting, used) = (gateway.clone(), gateway.clone(), certificate.clone());
        let tasks = [
            tokio::spawn(async move { serving.serve(tunnels, &used, async { drop(stopped.await) }).await }),
            tokio::spawn(async move { counting.serve_canary(canaries).await }),
        ];
        Self {
            cluster,
            kube,
            namespace: cluster.namespace("gateway").await,
            gateway,
            certificates,
            certificate,
            address,
            canary,
            _stop: stop,
            _tasks: tasks.map(AbortOnDropHandle::new),
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            canary: self.canary,
            server_name: "proxy.test".to_owned(),
            recorder_name: "recorder.test".to_owned(),
            authorities: self.certificates.authority.clone(),
        }
    }

    /// What a run of these policies runs.
    pub(super) fn spec(&self, egress: &[Value]) -> PlaceSpec {
        let mut spec = crate::harness::world::command(&["true"]);
        spec.run.namespace = self.namespace.parse().unwrap();
        spec.egress = policies(egress);
        spec
    }

    /// What a pod is given to know.
    pub(super) fn file(&self, spec: PlaceSpec) -> String {
        let file = PodFile {
            created_at: jiff::Timestamp::now(),
            spec,
            terminal: None,
            allow_unenforced: false,
            allow_node_reach: false,
            proof_seconds: 60,
            proxy: self.endpoint(),
            api_server: None,
        };
        serde_json::to_string(&file).unwrap()
    }

    /// A pod of an agent that runs at 127.0.0.1.
    pub(super) async fn agent(&self, spec: PlaceSpec) -> Agent {
        let agent = self.pod(true, &self.file(spec)).await;
        agent.runs_at("127.0.0.1").await;
        agent
    }

    /// A pod as it was just made.
    pub(super) async fn pod(&self, labelled: bool, file: &str) -> Agent {
        let name = format!("agent-{}", uuid::Uuid::new_v4());
        self.pod_named(&name, labelled, file).await
    }

    pub(super) async fn pod_named(&self, name: &str, labelled: bool, file: &str) -> Agent {
        let labels = if labelled { json!({"ostler.dev/role": "agent"}) } else { json!({}) };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": {ANNOTATION: file}},
            "spec": {"containers": [{"name": "agent", "image": "example.test/agent"}]},
        }))
        .unwrap();
        let pods: Api<Pod> = Api::namespaced(self.kube.clone(), &self.namespace);
        let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
        let agent = Agent {
            pods,
            accounts: Api::namespaced(self.kube.clone(), &self.namespace),
            name: name.to_owned(),
            uid: pod.uid().unwrap(),
            tokens: tempfile::tempdir().unwrap(),
            endpoint: self.endpoint(),
        };
        for audience in TOKENS {
            agent.has_token(audience, &agent.token(&[audience], true).await);
        }
        agent
    }
}

pub(super) fn policies(specs: &[Value]) -> Vec<NamedPolicy> {
    let named = |spec: &Value| json!({"name": "p", "spec": spec});
    specs.iter().map(|spec| serde_json::from_value(named(spec)).unwrap()).collect()
}

/// A pod, and the files of its sidecar.
pub(super) struct Agent {
    pods: Api<Pod>,
    accounts: Api<ServiceAccount>,
    pub(super) name: String,
    uid: String,
    tokens: TempDir,
    endpoint: Endpoint,
}

impl Agent {
    pub(super) fn client(&self) -> Client {
        Client::new(&self.endpoint, self.tokens.path().to_owned()).unwrap()
    }

    pub(super) fn tokens(&self) -> &Path {
        self.tokens.path()
    }

    /// A token of the pod's account for these audiences, bound to the pod or not.
    pub(super) async fn token(&self, audiences: &[&str], bound: bool) -> String {
        let reference = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
        };
        let spec = TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            bound_object_ref: bound.then_some(reference),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = self.accounts.create_token_request("default", &PostParams::default(), &request).await;
        made.unwrap().status.unwrap().token
    }

    /// What the kubelet writes.
    pub(super) fn has_token(&self, audience: &str, token: &str) {
        std::fs::write(self.tokens.path().join(audience), token).unwrap();
    }

    pub(super) async fn status(&self, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods.patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn runs_at(&self, address: &str) {
        self.status(json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]})).await;
    }

    pub(super) async fn annotate(&self, annotation: &str, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}));
        self.pods.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn delete(&self) {
        let now = kube::api::DeleteParams::default().grace_period(0);
        self.pods.delete(&self.name, &now).await.unwrap();
    }
}
