//! The API server refuses some writes: those are named with its own words, and the others are done.

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace as Place, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use ostler::kinds::{Agent, Session};
use serde_json::{Value, json};

use crate::{
    cluster::shared,
    contract::rbac::eventually,
    kubernetes::stage::Stage,
    scenarios::manifests::{agent, manifest},
};

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Refuses agents in the namespace whose name begins with `bad`, once this returns.
async fn forbid_bad_agents(stage: &Stage<'_>) -> String {
    let name = format!("no-bad-agents-{}", stage.namespace);
    let policy: ValidatingAdmissionPolicy = from(json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["ostler.dev"], "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"], "resources": ["agents"]}]},
            "validations": [{"expression": "!object.metadata.name.startsWith('bad')",
                "message": "bad agents are not wanted here: ask the platform team"}],
        },
    }));
    Api::all(stage.admin.clone()).create(&PostParams::default(), &policy).await.unwrap();
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}});
    let binding: ValidatingAdmissionPolicyBinding = from(json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}},
    }));
    Api::all(stage.admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let agents: Api<Agent> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let try_one: Agent = serde_saphyr::from_str(&agent("bad-try", &json!({}))).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is in force", || async { agents.create(&dry, &try_one).await.is_err() }).await;
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_policy_that_refuses_an_object_is_quoted() {
    let stage = Stage::new(shared().await, "policy").await;
    let policy = forbid_bad_agents(&stage).await;
    stage.push("agents/bad.yaml", &agent("bad", &json!({})));
    let last = stage.push("agents/good.yaml", &agent("good", &json!({})));
    let up = stage.up();
    let said = stage.repository("the policy is quoted", |said, _| said.contains(&policy)).await;
    assert!(said.contains("1 objects could not be written: "), "{said}");
    assert!(said.contains(&format!("Agent {}/bad", stage.namespace)), "{said}");
    assert!(said.contains("bad agents are not wanted here: ask the platform team"), "{said}");
    assert!(stage.get::<Agent>("good").await.is_some());
    assert!(stage.get::<Agent>("bad").await.is_none());

    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.admin.clone());
    bindings.delete(&policy, &DeleteParams::default()).await.unwrap();
    stage.in_force(&last).await;
    assert!(stage.get::<Agent>("bad").await.is_some());
    assert_eq!(up.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_quota_is_told_and_what_fits_is_written() {
    let stage = Stage::new(shared().await, "quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let limits = |most: &str| json!({"count/sessions.ostler.dev": most});
    let quota: ResourceQuota = from(json!({"metadata": {"name": "few"}, "spec": {"hard": limits("1")}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    // what the controller manager does, which does not run here
    let allow = async |most: &str| {
        let status = json!({"status": {"hard": limits(most), "used": limits("0")}});
        quotas.patch_status("few", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    };
    allow("1").await;
    let sessions: Api<Session> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let spec = json!({"agentRef": {"name": "shell"}});
    let two = ["try-1", "try-2"]
        .map(|name| serde_json::from_str::<Session>(&manifest("Session", name, &spec)).unwrap());
    eventually("the quota is in force", || async {
        let mut refused = false;
        for session in &two {
            refused |= sessions.create(&PostParams::default(), session).await.is_err_and(is_forbidden);
        }
        for session in &two {
            let _ = sessions.delete(session.metadata.name.as_ref().unwrap(), &DeleteParams::default()).await;
        }
        allow("1").await;
        refused
    })
    .await;

    let more = manifest("Session", "more", &json!({"agentRef": {"name": "shell"}}));
    let last = stage.push("more.yaml", &more);
    let up = stage.up();
    let said = stage.repository("the quota is told", |said, _| said.contains("exceeded quota: few")).await;
    assert!(said.contains("1 objects could not be written: Session "), "{said}");
    assert!(said.contains("limited: count/sessions.ostler.dev=1"), "{said}");
    assert!(stage.get::<Agent>("shell").await.is_some());
    allow("9").await;
    stage.in_force(&last).await;
    assert_eq!(up.stop().code, Some(0));
}

fn is_forbidden(error: kube::Error) -> bool {
    matches!(&error, kube::Error::Api(status) if status.code == 403)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_namespace_that_ends_is_told() {
    let stage = Stage::new(shared().await, "ends").await;
    let first = stage.config.git(&["rev-parse", "HEAD"]);
    let up = stage.up();
    stage.in_force(&first).await;
    // nobody finishes it here, as the namespace controller does not run
    let places: Api<Place> = Api::all(stage.admin.clone());
    places.delete(stage.namespace.as_str(), &DeleteParams::default()).await.unwrap();
    stage.push("agents/late.yaml", &agent("late", &json!({})));
    let ends = format!("in namespace {} because it is being terminated", stage.namespace);
    let said = stage.repository("the end of the namespace is told", |said, _| said.contains(&ends)).await;
    assert!(said.contains("Agent ") && said.contains("/late"), "{said}");
    assert_eq!(up.stop().code, Some(0));
}
