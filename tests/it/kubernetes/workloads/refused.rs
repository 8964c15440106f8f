//! Pods that the cluster, or we, do not want.

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::ResourceQuota,
};
use kube::api::{DeleteParams, PostParams};
use ostler::{kinds::Reason, ports::workloads::Error};

use super::*;
use crate::contract::rbac::{To, grant, rule, take_back};

/// Why the place of a run is refused; `None` when it is not.
async fn refusal(ground: &Ground, spec: &PlaceSpec) -> Option<(Reason, String)> {
    match ground.workloads.ensure(spec).await {
        Err(Error::Refused { reason, message, .. }) => Some((reason, message)),
        _ => None,
    }
}

#[tokio::test]
async fn a_foreign_pod_with_our_name_is_named_and_left_alone() {
    let ground = Ground::new("foreign").await;
    let spec = ground.spec();
    let place = ground.workloads.ensure(&spec).await.unwrap();
    ground.workloads.remove(&spec.run.uid).await.unwrap();
    eventually("the pod is gone", async || {
        ground.pods().get_opt(&place.name).await.unwrap().is_none().then_some(())
    })
    .await;
    let container = json!({"name": "a", "image": "a", "securityContext": {"allowPrivilegeEscalation": false,
        "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}});
    let labels = json!({"ostler.dev/role": "agent", "ostler.dev/run-uid": spec.run.uid});
    let theirs =
        json!({"metadata": {"name": place.name, "labels": labels}, "spec": {"containers": [container]}});
    let theirs = serde_json::from_value(theirs).unwrap();
    let theirs = ground.pods().create(&PostParams::default(), &theirs).await.unwrap();

    let (reason, message) = refusal(&ground, &spec).await.unwrap();
    assert_eq!(reason, Reason::PlaceFailed);
    assert!(message.contains(&place.name), "{message}");
    assert!(ground.workloads.find(&spec.run).await.unwrap().is_none());
    assert!(ground.workloads.observe(&spec.run.uid).await.unwrap().is_none());
    ground.workloads.remove(&spec.run.uid).await.unwrap();
    assert_eq!(ground.pods().get(&place.name).await.unwrap().uid(), theirs.uid());
}

#[tokio::test]
async fn what_no_pod_can_carry_is_refused_before_anything_is_made() {
    let ground = Ground::new("large").await;
    let mut spec = ground.spec();
    spec.instructions = Some(("AGENTS.md".to_owned(), "x".repeat(192 << 10)));
    let (reason, message) = refusal(&ground, &spec).await.unwrap();
    assert_eq!(reason, Reason::LimitExceeded);
    assert!(message.contains("bytes"), "{message}");
    assert_eq!(ground.count().await, 0);
    spec.instructions = Some(("AGENTS.md".to_owned(), "x".repeat(180 << 10)));
    ground.workloads.ensure(&spec).await.unwrap();
}

#[tokio::test]
async fn a_quota_is_told_in_the_words_of_the_cluster() {
    let ground = Ground::new("quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(ground.client.clone(), ground.namespace.as_str());
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    // as its controller would
    let status = json!({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}});
    quotas.patch_status("none", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let refused = async || refusal(&ground, &ground.spec()).await;
    let (reason, message) = eventually("the quota counts", refused).await;
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.contains("exceeded quota: none") && message.contains("pods=0"), "{message}");
}

#[tokio::test]
async fn a_policy_that_refuses_pods_is_told_in_its_own_words() {
    let ground = Ground::new("denied").await;
    let name = format!("deny-{}", ground.namespace);
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "validations": [{"expression": "false", "message": "no agents on Fridays"}]}});
    let only_here = json!({"matchLabels": {"kubernetes.io/metadata.name": ground.namespace}});
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name,
        "validationActions": ["Deny"], "matchResources": {"namespaceSelector": only_here}}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(ground.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(ground.client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();

    let refused = async || refusal(&ground, &ground.spec()).await;
    let (reason, message) = eventually("the policy counts", refused).await;
    assert_eq!(reason, Reason::AdmissionRefused);
    assert!(message.contains("no agents on Fridays"), "{message}");
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    policies.delete(&name, &DeleteParams::default()).await.unwrap();

    let mut spec = ground.spec();
    spec.pod.runtime_class = Some("nothing".to_owned());
    let refused =
        async || refusal(&ground, &spec).await.filter(|(_, message)| message.contains("RuntimeClass"));
    let (reason, message) = eventually("a class that does not exist", refused).await;
    assert_eq!(reason, Reason::AdmissionRefused);
    assert!(message.contains("\"nothing\" not found"), "{message}");
}

#[tokio::test]
async fn a_namespace_on_its_way_out_takes_nothing_in() {
    let ground = Ground::new("ending").await;
    let namespaces: Api<NamespaceObject> = Api::all(ground.client.clone());
    namespaces.delete(ground.namespace.as_str(), &DeleteParams::default()).await.unwrap();
    // the server's own cache of namespaces may be behind
    let refused = async || ground.workloads.ensure(&ground.spec()).await.err();
    let error = eventually("the end of the namespace counts", refused).await;
    assert!(matches!(error, Error::Unavailable { .. }), "its runs are deleted, too: {error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("being terminated"), "{source}");
}

#[tokio::test]
async fn rights_that_are_taken_away_in_flight_are_waited_for() {
    let ground = Ground::new("rights").await;
    let (namespace, user) = (ground.namespace.as_str(), format!("pods-of-{}", ground.namespace));
    let (to, make) = (To::User(&user), rule("", "pods", &["create"]));
    let look = rule("", "pods", &["get", "list", "watch", "patch", "delete"]);
    grant(&ground.client, namespace, "look", to, look).await;
    grant(&ground.client, namespace, "make", to, make.clone()).await;
    let workloads = adapter(&ground.cluster.user(&user, &[]).await, &ground.namespace).await;
    workloads.ensure(&ground.spec()).await.unwrap();

    take_back(&ground.client, namespace, "make", to, make.clone()).await;
    let next = ground.spec();
    let error = workloads.ensure(&next).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "it is no word on the run: {error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("cannot create resource \"pods\"") && source.contains(&user), "{source}");
    assert_eq!(ground.count().await, 1);
    grant(&ground.client, namespace, "make-again", to, make).await;
    workloads.ensure(&next).await.unwrap();
    assert_eq!(ground.count().await, 2);
}
