//! A life with the charts: installed, upgraded, tested, removed.

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use ostler::kinds::Kind;
use serde_json::{Value, json};

use super::{IMAGE, helm::Helm, objects, of_kind, render::EVERYTHING};
use crate::cluster::{Cluster, eventually, shared};

const OLDER: &str = "tests/charts/fixtures/ostler-0.0.1";
const OLDER_CRDS: &str = "tests/charts/fixtures/ostler-crds-0.0.1";

/// A namespace in which every pod must pass `PodSecurity` *restricted*.
async fn restricted(cluster: &Cluster, prefix: &str) -> String {
    let name = cluster.namespace(prefix).await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let api: Api<Namespace> = Api::all(cluster.client().await);
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    name
}

#[tokio::test]
async fn a_restricted_namespace_takes_everything() {
    let cluster = shared().await;
    let namespace = restricted(cluster, "charts").await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    let template =
        ["template", "ostler", "charts/ostler", "--namespace", &namespace, "--set", IMAGE, "--skip-tests"];
    let manifests = helm.run(&template).await.succeeded();
    let dry = ["apply", "--dry-run=server", "--namespace", &namespace, "-f", "-"];
    let said = helm.kubectl(&dry, &manifests).await.succeeded();
    assert_eq!(said.lines().count(), objects(&manifests).len(), "{said}");

    // A Deployment is only warned about; its pods are what is refused, so they are tried themselves.
    helm.run(&["install", "ostler", "charts/ostler", "--namespace", &namespace, "--set", IMAGE])
        .await
        .succeeded();
    let client = cluster.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let all = pods_of(&client, &namespace).await;
    assert_eq!(all.len(), 4);
    for mut pod in all {
        pods.create(&dry, &serde_json::from_value(pod.clone()).unwrap()).await.unwrap();
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
        let refused = pods.create(&dry, &serde_json::from_value(pod).unwrap()).await.unwrap_err();
        assert!(refused.to_string().contains("restricted"), "the namespace is one that refuses: {refused}");
    }
}

/// The pods that the Deployments of a namespace would have, each with the name of its Deployment.
pub(super) async fn pods_of(client: &Client, namespace: &str) -> Vec<Value> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployments = deployments.list(&ListParams::default()).await.unwrap();
    let pod = |deployment: Deployment| {
        let template = serde_json::to_value(deployment.spec.unwrap().template).unwrap();
        let mut pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
        pod["metadata"]["name"] = deployment.metadata.name.into();
        pod
    };
    deployments.into_iter().map(pod).collect()
}

#[tokio::test]
async fn an_upgrade_keeps_objects_and_certificates_and_an_uninstallation_keeps_crds_and_objects() {
    let cluster = Cluster::start_own().await;
    let namespace = restricted(&cluster, "charts").await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    let client = cluster.client().await;
    let (crds, ostler) = (["ostler-crds", "charts/ostler-crds"], ["ostler", "charts/ostler", "--set", IMAGE]);
    let run = async |verb: &str, release: &[&str]| {
        helm.run(&[&[verb, "--namespace", &namespace], release].concat()).await
    };

    run("install", &["ostler-crds", OLDER_CRDS]).await.succeeded();
    run("install", &["ostler", OLDER, "--set", IMAGE]).await.succeeded();
    let made = async |manifest: Value| {
        // A kind is established a moment before it is served.
        eventually("the kind is served", async || {
            let arguments = ["apply", "--server-side", "--namespace", &namespace, "-f", "-"];
            let ended = helm.kubectl(&arguments, &manifest.to_string()).await;
            if ended.success {
                return Some(());
            }
            let soon = ["no matches for kind", "could not find the requested resource"];
            assert!(soon.iter().any(|text| ended.complaints.contains(text)), "{}", ended.complaints);
            None
        })
        .await;
    };
    let head = |kind: &str, name: &str| json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
    let mut session = head("Session", "payments");
    session["spec"] = json!({"agentRef": {"name": "shell"}});
    let mut harness_run = head("HarnessRun", "first");
    harness_run["spec"] = json!({"sessionRef": {"name": "payments"}, "task": {"prompt": "Fix the login."}});
    made(session).await;
    made(harness_run.clone()).await;
    let before = uids(&client, &namespace).await;
    let certificates = tls(&client, &namespace).await;

    run("upgrade", &crds).await.succeeded();
    run("upgrade", &ostler).await.succeeded();
    assert_eq!(uids(&client, &namespace).await, before, "objects are kept");
    assert_eq!(tls(&client, &namespace).await, certificates, "pods that run know these certificates");
    // What the older kind did not have is there, and so is the kind that it did not know.
    harness_run["spec"]["result"] = json!({"artifacts": [{"path": "report.html"}]});
    harness_run["metadata"]["name"] = "second".into();
    made(harness_run).await;
    let mut policy = head("EgressPolicy", "default");
    policy["spec"] = json!({"mode": "Enforce"});
    made(policy).await;

    // Back, and forth again: the program first, so that no two write that do not fit.
    let with_new = uids(&client, &namespace).await;
    run("rollback", &["ostler", "1"]).await.succeeded();
    run("rollback", &["ostler-crds", "1"]).await.succeeded();
    assert_eq!(uids(&client, &namespace).await, with_new, "objects are kept");
    assert_eq!(tls(&client, &namespace).await, certificates);
    let policies: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &Kind::EgressPolicy.api_resource());
    policies.get("default").await.expect("a kind that the older one does not know is kept with its objects");
    let shown = async |known: bool| (artifacts(&client, &namespace).await?.is_array() == known).then_some(());
    eventually("what the older kind does not know is not shown", async || shown(false).await).await;
    run("upgrade", &crds).await.succeeded();
    run("upgrade", &ostler).await.succeeded();
    eventually("what nobody wrote meanwhile is all there", async || shown(true).await).await;

    // One of the two is gone: both are made anew, as one authority must have made them.
    Api::<Secret>::namespaced(client.clone(), &namespace)
        .delete("ostler-proxy-tls", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    run("upgrade", &ostler).await.succeeded();
    let [proxy, recorder] = tls(&client, &namespace).await;
    assert!(proxy["ca.crt"] == recorder["ca.crt"] && proxy != certificates[0] && recorder != certificates[1]);

    run("uninstall", &["ostler", "--wait"]).await.succeeded();
    let said = run("uninstall", &["ostler-crds"]).await.succeeded();
    assert!(said.contains("kept"), "Helm names what it keeps: {said}");
    let after = uids(&client, &namespace).await;
    assert!(before.iter().all(|uid| after.contains(uid)), "objects outlive ostler: {after:?}");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    assert!(deployments.list(&ListParams::default()).await.unwrap().items.is_empty());
    // And ostler comes back to them.
    run("install", &crds).await.succeeded();
    run("install", &ostler).await.succeeded();
    let again = uids(&client, &namespace).await;
    assert_eq!(again, after);
}

#[tokio::test]
async fn an_api_server_takes_everything_that_can_be_switched_on() {
    let cluster = shared().await;
    let (namespace, watched) = (restricted(cluster, "charts").await, cluster.namespace("watched").await);
    let helm = Helm::of(cluster.kubeconfig()).await;
    let values = EVERYTHING.join(",");
    // the API server of the tests has addresses of one family
    let values =
        values.replace("watchNamespace=team-a", &format!("watchNamespace={watched}")).replace("IPv6", "IPv4");
    let template =
        ["template", "ostler", "charts/ostler", "--namespace", &namespace, "--set", &values, "--skip-tests"];
    let rendered = objects(&helm.run(&template).await.succeeded());
    // the only kind that is not Kubernetes' own
    let (monitors, manifests): (Vec<_>, Vec<_>) =
        rendered.into_iter().partition(|object| object["kind"] == "ServiceMonitor");
    assert_eq!(monitors.len(), 1);
    assert!(manifests.iter().any(|object| object["kind"] == "Ingress"));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
    let dry = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let said = helm.kubectl(&dry, &list.to_string()).await.succeeded();
    assert_eq!(said.lines().count(), manifests.len(), "{said}");
}

/// The UIDs of all sessions and runs, sorted.
async fn uids(client: &Client, namespace: &str) -> Vec<String> {
    let mut all = Vec::new();
    for kind in [Kind::Session, Kind::HarnessRun] {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.api_resource());
        let some = api.list(&ListParams::default()).await.unwrap();
        all.extend(some.items.into_iter().filter_map(|object| object.metadata.uid));
    }
    all.sort();
    assert!(all.len() >= 2, "the session and its run: {all:?}");
    all
}

/// A field of the second run that the older kind does not have, or null; none, while no kind is served.
async fn artifacts(client: &Client, namespace: &str) -> Option<Value> {
    let runs: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &Kind::HarnessRun.api_resource());
    let run = runs.get("second").await.ok()?;
    Some(run.data["spec"]["result"]["artifacts"].clone())
}

/// What the Secrets of proxy and recorder hold.
async fn tls(client: &Client, namespace: &str) -> [Value; 2] {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let proxy = api.get("ostler-proxy-tls").await.unwrap().data.unwrap();
    let recorder = api.get("ostler-recorder-tls").await.unwrap().data.unwrap();
    [proxy, recorder].map(|data| serde_json::to_value(data).unwrap())
}

#[tokio::test]
async fn its_certificates_are_good_for_the_names_that_the_controller_is_told() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let helm = Helm::alone().await;
    let all = objects(&helm.template("there", &[IMAGE]).await.succeeded());
    for role in ["proxy", "recorder"] {
        let secret =
            of_kind(&all, "Secret").find(|s| super::name(s) == format!("ostler-{role}-tls")).unwrap();
        let pem = |key: &str| BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
        let certificates = vec![CertificateDer::from_pem_slice(&pem("tls.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&pem("tls.key")).unwrap();
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("ca.crt")).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(server));
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
        let name = ServerName::try_from(format!("ostler-{role}.there.svc")).unwrap();
        let (served, connected) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        served.unwrap();
        connected.unwrap();
    }
    let controller = of_kind(&all, "Deployment").find(|d| super::name(d) == "ostler-controller").unwrap();
    let arguments = controller["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    for name in ["ostler-proxy.there.svc", "ostler-recorder.there.svc"] {
        assert!(arguments.contains(name), "{arguments}");
    }
}

#[tokio::test]
async fn helm_test_reads_our_kinds_with_the_rights_of_a_viewer() {
    let cluster = shared().await;
    cluster.install_crds().await;
    let namespace = restricted(cluster, "charts").await;
    let helm = Helm::of(cluster.kubeconfig()).await;
    helm.run(&["install", "ostler", "charts/ostler", "--namespace", &namespace, "--set", IMAGE])
        .await
        .succeeded();
    let arguments = ["test", "ostler", "--namespace", &namespace, "--timeout", "2m"];
    let (tested, ()) = tokio::join!(helm.run(&arguments), play_kubelet(cluster, &namespace));
    let said = tested.succeeded();
    assert!(said.contains("Phase:") && said.contains("Succeeded"), "{said}");
}

/// There is no node here: the command of the test's pod runs as a child of ours, with the pod's identity.
pub(super) async fn play_kubelet(cluster: &Cluster, namespace: &str) {
    let client = cluster.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = eventually("the test's pod is made", async || pods.get_opt("ostler-test").await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let there = |file: &str| folder.path().join(file).display().to_string();

    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(client.clone(), namespace);
    let account = pod.spec.as_ref().unwrap().service_account_name.clone().unwrap();
    let request = k8s_openapi::api::authentication::v1::TokenRequest::default();
    let token = accounts.create_token_request(&account, &PostParams::default(), &request).await.unwrap();
    std::fs::write(there("token"), token.status.unwrap().token).unwrap();
    std::fs::write(there("ca.crt"), authority(cluster)).unwrap();
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client, namespace);
    let kubeconfig = maps.get("ostler-test").await.unwrap().data.unwrap()["kubeconfig"]
        .replace("/var/run/secrets/kubernetes.io/serviceaccount/token", &there("token"))
        .replace("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", &there("ca.crt"))
        .replace("https://kubernetes.default.svc", cluster.url());
    std::fs::write(there("kubeconfig"), kubeconfig).unwrap();
    let arguments = pod.spec.unwrap().containers[0].args.clone().unwrap();
    let arguments = arguments.iter().map(|a| a.replace("/etc/ostler/kubeconfig", &there("kubeconfig")));
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_ostler"))
        .args(arguments)
        .env("HOME", folder.path())
        .output()
        .await
        .unwrap();
    let phase = if ran.status.success() { "Succeeded" } else { "Failed" };
    let status = json!({"status": {"phase": phase, "message": String::from_utf8_lossy(&ran.stderr)}});
    pods.patch_status("ostler-test", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The certificate of the API server's authority, PEM.
fn authority(cluster: &Cluster) -> Vec<u8> {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let named = kubeconfig.clusters[0].cluster.as_ref().unwrap();
    BASE64_STANDARD.decode(named.certificate_authority_data.as_ref().unwrap()).unwrap()
}
