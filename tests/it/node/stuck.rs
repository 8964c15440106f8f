//! Runs whose pods do not get going: why that is, is told, and what can be mended is waited for.

use std::path::Path;

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{PersistentVolume, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use ostler::kinds::{Phase, Reason, harness_run::HarnessRunStatus};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Enforcer, Layer, restricted_pod, shared, stage::Stage};
use crate::{cluster::eventually, scenarios::manifests};

/// What the policy says to those that it refuses.
const NO: &str = "no agents on Fridays";

async fn create<K>(api: Api<K>, object: Value) -> K
where
    K: kube::Resource + DeserializeOwned + Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn until(stage: &Stage<'_>, run: &str, phase: Phase, reason: Reason) -> HarnessRunStatus {
    let stands = |status: &HarnessRunStatus| (status.phase, status.reason) == (Some(phase), Some(reason));
    stage.until(run, &format!("{run} is {phase} ({reason})"), stands).await
}

/// No pod is let in once this returns.
async fn close(stage: &Stage<'_>) -> Api<ResourceQuota> {
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    create(quotas.clone(), json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).await;
    eventually("the quota is counted", async || {
        let status = quotas.get("none").await.unwrap().status?;
        status.hard.filter(|hard| hard.contains_key("pods")).map(drop)
    })
    .await;
    quotas
}

/// The pod of the run `refused` is refused once this returns.
async fn refuse(stage: &Stage<'_>) {
    let name = format!("refuses-in-{}", stage.namespace);
    let is_another = "!('ostler.dev/run' in object.metadata.?labels.orValue({})) \
        || object.metadata.labels['ostler.dev/run'] != 'refused'";
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.client.clone());
    create(
        policies,
        json!({"metadata": {"name": name}, "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
            "validations": [{"expression": is_another, "message": NO}]}}),
    )
    .await;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}});
    create(
        bindings,
        json!({"metadata": {"name": name}, "spec": {"policyName": name,
            "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}}}),
    )
    .await;
    let mut pod = restricted_pod("tried", "nowhere.test/none:1", &[]);
    pod.metadata.labels = Some([("ostler.dev/run".to_owned(), "refused".to_owned())].into());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pods = stage.node.pods_of(&stage.namespace).await;
    eventually("the policy is in force", async || {
        let refused = pods.create(&dry, &pod).await.err()?;
        refused.to_string().contains(NO).then_some(())
    })
    .await;
}

/// A session whose workspace is on a volume that its node cannot mount; gives its manifest.
async fn unmountable(stage: &Stage<'_>) -> String {
    let class = format!("unmountable-{}", stage.namespace);
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    create(
        volumes,
        json!({"metadata": {"name": class}, "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "hostPath": {"path": format!("/nowhere/{class}"), "type": "Directory"}}}),
    )
    .await;
    let workspace = json!({"type": "Persistent", "size": "1Gi", "storageClassName": class});
    manifests::manifest("Session", "kept", &json!({"agentRef": {"name": "shell"}, "workspace": workspace}))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn what_keeps_a_pod_from_starting_is_told() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("stuck").await;

    let quota = close(&stage).await;
    stage.push_run("waits", "exit 0");
    let waits = until(&stage, "waits", Phase::Pending, Reason::QuotaExceeded).await;
    let told = waits.message.unwrap();
    assert!(told.contains("exceeded quota: none") && told.contains("limited: pods=0"), "{told}");
    refuse(&stage).await;
    let session = unmountable(&stage).await;
    quota.delete("none", &DeleteParams::default()).await.unwrap();

    let mounts = json!({"sessionRef": {"name": "kept"}, "result": null});
    let files = [
        ("kept.yaml", session.as_str()),
        ("runs/refused.yaml", &manifests::run("refused", "exit 0")),
        ("runs/mounts.yaml", &manifests::run_with("mounts", "exit 0", &mounts)),
    ];
    stage.config.push(&files, "one that is refused, and one that cannot start");
    let ends = async |run: &str, end| {
        let status = stage.until_recorded(run).await;
        stage.assert_end(run, &status, end).await;
        status.message.unwrap_or_default()
    };
    let stuck = async {
        let stuck = until(&stage, "mounts", Phase::Starting, Reason::PlaceFailed).await;
        let stop = Patch::Merge(json!({"spec": {"stop": true}}));
        stage.runs().patch("mounts", &PatchParams::default(), &stop).await.unwrap();
        ends("mounts", ("Stopped", "StopRequested", None)).await;
        stuck.message.unwrap()
    };
    let (_, refused, stuck) = tokio::join!(
        ends("waits", ("Succeeded", "Completed", Some(0))),
        ends("refused", ("Failed", "AdmissionRefused", None)),
        stuck,
    );
    assert!(refused.contains(NO), "{refused}");
    assert!(stuck.contains("(FailedMount)") && stuck.contains("/nowhere/"), "{stuck}");
}

/// Images in place of ours: what is wrong with them, and what is told.
const BROKEN: [(&str, &str); 2] = [("empty", "/ostler"), ("alien", "exit code 127")];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_program_that_cannot_be_put_into_the_pod_fails_the_run() {
    let node = shared().await;
    let mut stage = Stage::new("install").await;
    for (name, told) in BROKEN {
        let image = format!("ostler.test/{name}:1");
        let mut layer = Layer::new();
        match name {
            "empty" => layer.folder("etc", 0o755),
            _ => layer.program(Path::new("/bin/busybox"), "ostler"),
        }
        node.import_image(&image, layer, json!({})).await;
        stage.restart_controller(&image);
        stage.push_run(name, "exit 0");
        let status = stage.until_recorded(name).await;
        stage.assert_end(name, &status, ("Failed", "InstallFailed", None)).await;
        let message = status.message.unwrap();
        assert!(message.contains("could not be copied") && message.contains(told), "{name}: {message}");
        eventually("its pod is gone", async || stage.pod(name).await.is_none().then_some(())).await;
    }
}
