//! Gives and takes rights on a real API server, and waits until its authorizer knows.

use std::time::Duration;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    rbac::v1::{ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks: nothing tells when an authorizer has learned of a change.
const PAUSE: Duration = Duration::from_millis(50);

/// Who gets a right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'a> {
    User(&'a str),
    Group(&'a str),
}

impl To<'_> {
    fn subject(self) -> serde_json::Value {
        let (kind, name) = match self {
            Self::User(name) => ("User", name),
            Self::Group(name) => ("Group", name),
        };
        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}])
    }
}

/// Verbs on the resources of a group.
pub(crate) fn rule(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(&[resource])),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// Makes a Role and its binding, both of this name, and waits until they are in force.
pub(crate) async fn grant(admin: &Client, namespace: &str, name: &str, to: To<'_>, rule: PolicyRule) {
    let role = json!({"metadata": {"name": name}, "rules": [rule]});
    let role: Role = serde_json::from_value(role).unwrap();
    Api::namespaced(admin.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
    let binding = json!({
        "metadata": {"name": name}, "subjects": to.subject(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    });
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    Api::namespaced(admin.clone(), namespace).create(&PostParams::default(), &binding).await.unwrap();
    until(true, admin, to, attributes(Some(namespace), &rule)).await;
}

/// Binds a `ClusterRole` of the server's own, and waits until one right of it is in force.
pub(crate) async fn bind(admin: &Client, role: &str, name: &str, to: To<'_>, example: PolicyRule) {
    let binding = json!({
        "metadata": {"name": name}, "subjects": to.subject(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    let binding: ClusterRoleBinding = serde_json::from_value(binding).unwrap();
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    until(true, admin, to, attributes(None, &example)).await;
}

/// Takes back what [`grant`] gave, and waits until it is in force.
pub(crate) async fn take_back(admin: &Client, namespace: &str, name: &str, to: To<'_>, rule: PolicyRule) {
    let bindings = Api::<RoleBinding>::namespaced(admin.clone(), namespace);
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    until(false, admin, to, attributes(Some(namespace), &rule)).await;
}

/// Waits until the authorizer knows that the first right of a rule is given, or is not.
pub(crate) async fn in_force(
    wanted: bool,
    admin: &Client,
    to: To<'_>,
    namespace: Option<&str>,
    rule: &PolicyRule,
) {
    until(wanted, admin, to, attributes(namespace, rule)).await;
}

fn attributes(namespace: Option<&str>, rule: &PolicyRule) -> ResourceAttributes {
    let first = |texts: &Option<Vec<String>>| texts.as_ref().and_then(|texts| texts.first().cloned());
    let resource = first(&rule.resources).unwrap();
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource.to_owned(), Some(subresource.to_owned())),
        None => (resource, None),
    };
    ResourceAttributes {
        group: first(&rule.api_groups),
        resource: Some(resource),
        subresource,
        name: first(&rule.resource_names),
        verb: rule.verbs.first().cloned(),
        namespace: namespace.map(ToOwned::to_owned),
        ..ResourceAttributes::default()
    }
}

async fn until(wanted: bool, admin: &Client, to: To<'_>, attributes: ResourceAttributes) {
    let mut spec = SubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    match to {
        To::User(name) => spec.user = Some(name.to_owned()),
        To::Group(name) => spec.groups = Some(vec![name.to_owned()]),
    }
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api = Api::<SubjectAccessReview>::all(admin.clone());
    eventually("the authorizer knows", || async {
        let answer = api.create(&PostParams::default(), &review).await.unwrap();
        answer.status.is_some_and(|status| status.allowed) == wanted
    })
    .await;
}

/// Looks until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let looks = async {
        while !look().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}
