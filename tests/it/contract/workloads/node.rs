//! Places that are pods, on a node: with a proxy and a recorder of the test's own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client, ResourceExt, api::PostParams};
use ostler::{
    egress::OwnService,
    kinds::HarnessRun,
    kubernetes::{
        callers::KubeCallers,
        workloads::{KubeWorkloads, PodSettings, PullPolicy},
    },
    names::Namespace,
    ports::{
        Workloads,
        workloads::{PlaceSpec, RunKey},
    },
    proxy::{
        Resolver,
        gateway::{Certificate, Gateway, Limits, Parts},
        tunnel::Endpoint,
    },
    report::Report,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::{Ground, absent_places, one_place_per_run, removes, stops, streams};
use crate::{
    harness::{
        pod::world::{Secured, acceptor},
        world::{FakeSecrets, PATIENCE, Recorder, shell},
    },
    kubernetes::workloads::settings,
    node::{Enforcer, Node, shared},
    scenarios::manifests::run_with,
};

struct Pods {
    client: Client,
    namespace: Namespace,
    image: &'static str,
    workloads: Arc<KubeWorkloads>,
    recorder: Arc<Recorder>,
    _folder: tempfile::TempDir,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Pods {
    async fn new(node: &'static Node) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        node.enforcer(Enforcer::Correct).await;
        node.cluster().install_crds().await;
        let client = node.cluster().client().await;
        let namespace: Namespace = node.namespace_restricted("contract").await.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
        let identity = node.cluster().authority().server("proxy", &["proxy", "recorder"]);
        std::fs::write(&certificate, identity.certificate).unwrap();
        std::fs::write(&key, identity.key).unwrap();

        let listen = async || TcpListener::bind((node.world(), 0)).await.unwrap();
        let (tunnels, canary, intake) = (listen().await, listen().await, listen().await);
        let [address, canary_address, recorder_address] =
            [&tunnels, &canary, &intake].map(|listener| listener.local_addr().unwrap());
        let own = vec![OwnService::Socket(address), OwnService::Socket(canary_address)];
        let secrets = Arc::new(FakeSecrets::default());
        let gateway = Gateway::new(Parts {
            callers: Arc::new(KubeCallers::new(client.clone(), own)),
            secrets: Arc::clone(&secrets) as _,
            resolver: Resolver::default(),
            recorder: recorder_address.to_string(),
            limits: Limits::default(),
        });
        let recorder: Arc<Recorder> = Arc::default();
        let (tls, acceptor) = (Certificate::read(&certificate, &key).unwrap(), acceptor(&certificate, &key));
        let (serving, app) = (gateway.clone(), recorder.app());
        let tasks = vec![
            tokio::spawn(async move { serving.serve(tunnels, &tls, std::future::pending()).await }),
            tokio::spawn(async move { gateway.serve_canary(canary).await }),
            tokio::spawn(async move { axum::serve(Secured(intake, acceptor), app).await.unwrap() }),
        ];
        let policy = json!({"metadata": {"name": "agents"}, "spec": {
            "podSelector": {"matchLabels": {"ostler.dev/role": "agent"}}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{
                "to": [{"ipBlock": {"cidr": format!("{}/32", address.ip())}}],
                "ports": [{"protocol": "TCP", "port": address.port()}],
            }],
        }});
        let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace.as_str());
        policies.create(&PostParams::default(), &policy).await.unwrap();
        let settings = PodSettings {
            image: node.ostler_image().await.to_owned(),
            pull_policy: Some(PullPolicy::Never),
            pull_secrets: vec![],
            proxy: Endpoint {
                address,
                canary: canary_address,
                server_name: "proxy".to_owned(),
                recorder_name: "recorder".to_owned(),
                authorities: node.cluster().authority().certificate.clone(),
            },
            stall: Duration::from_secs(20),
            ..settings(&namespace)
        };
        let workloads = KubeWorkloads::start(client.clone(), settings, secrets).await.unwrap();
        let image = node.debian_image().await;
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        Self { client, namespace, image, workloads, recorder, _folder: folder, _tasks: tasks }
    }
}

#[async_trait]
impl Ground for Pods {
    fn workloads(&self) -> &dyn Workloads {
        &*self.workloads
    }

    /// Of a run that exists: a pod without its owner is collected as garbage.
    async fn spec(&self, script: &str) -> PlaceSpec {
        let name = format!("run-{}", uuid::Uuid::new_v4().simple());
        let run: HarnessRun = serde_json::from_str(&run_with(&name, script, &json!({}))).unwrap();
        let runs: Api<HarnessRun> = Api::namespaced(self.client.clone(), self.namespace.as_str());
        let run = runs.create(&PostParams::default(), &run).await.unwrap();
        let key = RunKey {
            namespace: self.namespace.clone(),
            name: name.parse().unwrap(),
            uid: run.uid().unwrap().parse().unwrap(),
        };
        PlaceSpec { run: key, image: Some(self.image.to_owned()), ..shell(script) }
    }

    fn tells_after_release(&self) -> bool {
        false
    }

    async fn report(&self, spec: &PlaceSpec) -> Report {
        let mut came = self.recorder.came.subscribe();
        let is_it = |report: &Report| report.run.uid == spec.run.uid;
        let found = async {
            let came =
                came.wait_for(|came| came.iter().any(|delivery| is_it(&delivery.report))).await.unwrap();
            came.iter().find(|delivery| is_it(&delivery.report)).expect("it was waited for").report.clone()
        };
        tokio::time::timeout(PATIENCE, found).await.expect("its report comes")
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn pods_keep_the_contract() {
    let ground = Pods::new(shared().await).await;
    let ground: &dyn Ground = &ground;
    tokio::join!(
        absent_places(ground),
        one_place_per_run(ground),
        stops(ground),
        streams(ground),
        removes(ground),
    );
}
