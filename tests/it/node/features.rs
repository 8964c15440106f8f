//! What a run may ask of its pod, on a node that has it or has not: scheduling, runtime class, service account, pull
//! secrets, limits, and a workspace that outlives the run.

use std::{fs, os::unix::fs::PermissionsExt, panic::AssertUnwindSafe};

use futures::{FutureExt, future::join_all};
use k8s_openapi::{
    api::{
        core::v1::{Node as NodeObject, PersistentVolume, Pod, ServiceAccount},
        node::v1::RuntimeClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use ostler::kinds::{Phase, Reason};
use serde_json::{Value, json};

use super::{Enforcer, shared, stage::Stage};
use crate::scenarios::manifests::{manifest, run_with, session_with};

/// The label and the taint of the node.
const POOL: &str = "ostler.test/pool";

fn tolerant(more: &Value) -> Value {
    let mut spec = json!({"tolerations": [{"key": POOL, "operator": "Exists", "effect": "NoSchedule"}]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_pod_is_as_its_run_asks() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("asks").await;
    let nodes: Api<NodeObject> = Api::all(stage.client.clone());
    let taint = |taints: Value| {
        Patch::Merge(json!({"metadata": {"labels": {POOL: "agents"}}, "spec": {"taints": taints}}))
    };
    let params = PatchParams::default();
    let taints = json!([{"key": POOL, "value": "agents", "effect": "NoSchedule"}]);
    nodes.patch(&node.name(), &params, &taint(taints)).await.unwrap();
    // Whatever becomes of them, the node is to be as it was for the next test.
    let ended = AssertUnwindSafe(ask(stage)).catch_unwind().await;
    nodes.patch(&node.name(), &params, &taint(Value::Null)).await.unwrap();
    if let Err(error) = ended {
        std::panic::resume_unwind(error);
    }
}

async fn ask(stage: Stage<'_>) {
    let class = json!({"metadata": {"name": stage.namespace}, "handler": "runc"});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(stage.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "coder"}})).unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), &stage.namespace);
    accounts.create(&PostParams::default(), &account).await.unwrap();

    let pools = |pool: &str| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": POOL, "operator": "In", "values": [pool]}]},
        ]}}})
    };
    let all = tolerant(&json!({
        "nodeSelector": {POOL: "agents"}, "affinity": pools("agents"), "runtimeClassName": stage.namespace,
        "serviceAccountName": "coder", "resources": {"cpu": "500m", "memory": "300Mi", "disk": "1Gi"},
    }));
    let mut agent: Value = serde_json::from_str(&crate::scenarios::manifests::shell()).unwrap();
    agent["metadata"]["name"] = "pulled".into();
    agent["spec"]["image"] = stage.node.debian_image().await.into();
    agent["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]);
    let run = |name: &str, spec: Value| (format!("runs/{name}.yaml"), run_with(name, "exit 0\n", &spec));
    let mut all_asked = all.clone();
    all_asked["agentRef"] = json!({"name": "pulled"});
    let files = [
        ("agents/pulled.yaml".to_owned(), agent.to_string()),
        run("all", all_asked),
        run("intolerant", json!({})),
        run("nowhere", tolerant(&json!({"nodeSelector": {POOL: "others"}}))),
        run("averse", tolerant(&json!({"affinity": pools("others")}))),
        run("classless", tolerant(&json!({"runtimeClassName": "no-such-class"}))),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    stage.config.push(&files, "runs that ask for a pod of their own");

    let pod = stage.until_pod("all").await;
    assert_as_asked(&pod, &stage.namespace);
    let status = stage.until_recorded("all").await;
    stage.assert_end("all", &status, ("Succeeded", "Completed", Some(0))).await;
    let stuck = [
        ("intolerant", Reason::Unschedulable, "taint"),
        ("nowhere", Reason::Unschedulable, "node affinity/selector"),
        ("averse", Reason::Unschedulable, "node affinity/selector"),
        ("classless", Reason::AdmissionRefused, "no-such-class"),
    ];
    join_all(stuck.iter().map(|(name, reason, says)| says_why(&stage, name, *reason, says))).await;
}

/// Waits until a run says why it gets no further, in the words of whoever is against it.
async fn says_why(stage: &Stage<'_>, name: &str, reason: Reason, says: &str) {
    let status = stage
        .until(name, &format!("{name} is {}", reason.as_str()), |status| status.reason == Some(reason))
        .await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains(says), "{name}: {message}");
    assert!(status.phase.is_none_or(|phase| phase != Phase::Running), "{name}");
}

fn assert_as_asked(pod: &Pod, class: &str) {
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.runtime_class_name.as_deref(), Some(class));
    assert_eq!(spec.service_account_name.as_deref(), Some("coder"));
    assert_eq!(spec.automount_service_account_token, Some(false));
    let pulls = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str());
    assert_eq!(pulls.collect::<Vec<_>>(), ["registry"]);
    let resources = spec.containers[0].resources.as_ref().unwrap();
    let limit = |name: &str| resources.limits.as_ref().unwrap()[name].clone();
    assert_eq!((limit("cpu"), limit("memory")), (Quantity("500m".into()), Quantity("314572800".into())));
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!((labels["ostler.dev/run"].as_str(), labels["ostler.dev/session"].as_str()), ("all", "work"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_session_keeps_its_workspace_on_a_claim() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("claim").await;
    // A folder of the node as a volume: nobody provisions one here.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let volume = json!({"metadata": {"name": stage.namespace}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": stage.namespace,
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder.path(), "type": "Directory"},
    }});
    let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    volumes.create(&PostParams::default(), &volume).await.unwrap();

    let workspace = json!({"type": "Persistent", "size": "1Gi", "storageClassName": stage.namespace});
    let mut session: Value =
        serde_json::from_str(&session_with(&stage.code_web.url("origin.git"), &json!({}))).unwrap();
    session["spec"]["repository"]["secretRef"] = json!({"name": "code"});
    session["spec"]["workspace"] = workspace;
    let kept = manifest("Session", "kept", &session["spec"]);
    stage.config.push(&[("kept.yaml", &kept)], "a session that keeps its workspace");
    let run = |name: &str, script: &str| run_with(name, script, &json!({"sessionRef": {"name": "kept"}}));
    stage.push("first", &run("first", "echo kept >.git/kept\n"));
    let status = stage.until_recorded("first").await;
    stage.assert_end("first", &status, ("Succeeded", "Completed", Some(0))).await;
    stage.push("second", &run("second", "cat .git/kept\n"));
    let status = stage.until_recorded("second").await;
    stage.assert_end("second", &status, ("Succeeded", "Completed", Some(0))).await;
    assert!(stage.output("second").contains("kept\n"));
    assert!(fs::read_dir(folder.path()).unwrap().next().is_some(), "it is on the volume");
}
