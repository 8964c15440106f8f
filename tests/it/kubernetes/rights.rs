//! The rights that docs/operations.md asks for, given to a user and taken away.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use ostler::names::Namespace;
use serde_json::{Value, json};

use crate::contract::rbac::eventually;

const PAGE: &str = include_str!("../../../docs/operations.md");
const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of the documented role of this kind and name.
pub(super) fn documented(kind: &str, name: &str) -> Vec<PolicyRule> {
    let blocks = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let roles = blocks.flat_map(|(block, _)| block.split("---\n")).filter_map(|text| {
        let value: Value = serde_saphyr::from_str(text).ok()?;
        (value["kind"] == kind && value["metadata"]["name"] == name).then_some(value)
    });
    let role = roles.into_iter().next().unwrap_or_else(|| panic!("docs/operations.md has no {kind} {name}"));
    serde_json::from_value(role["rules"].clone()).unwrap()
}

/// The same without a resource of a group.
pub(super) fn without(mut rules: Vec<PolicyRule>, resource: &str) -> Vec<PolicyRule> {
    for rule in &mut rules {
        rule.resources.iter_mut().for_each(|resources| resources.retain(|one| one != resource));
    }
    rules.retain(|rule| rule.resources.as_ref().is_some_and(|left| !left.is_empty()));
    rules
}

/// Who gives and takes rights, to one user in one namespace.
#[derive(Clone)]
pub(super) struct Rights {
    pub(super) admin: Client,
    pub(super) namespace: Namespace,
    pub(super) user: String,
}

impl Rights {
    /// Gives the rights of a role in the namespace, and waits until they are in force.
    pub(super) async fn give(&self, name: &str, rules: &[PolicyRule]) {
        let role: Role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap();
        let roles: Api<Role> = self.api();
        roles.create(&PostParams::default(), &role).await.unwrap();
        self.give_again(name, rules).await;
    }

    /// Gives back what [`Rights::take`] took.
    pub(super) async fn give_again(&self, name: &str, rules: &[PolicyRule]) {
        let binding: RoleBinding = serde_json::from_value(self.binding("Role", name)).unwrap();
        self.api().create(&PostParams::default(), &binding).await.unwrap();
        self.in_force(true, Some(self.namespace.as_str()), rules).await;
    }

    /// Takes the rights of a role in the namespace, and waits until they are gone.
    pub(super) async fn take(&self, name: &str, rules: &[PolicyRule]) {
        self.api::<RoleBinding>().delete(name, &DeleteParams::default()).await.unwrap();
        // what may be read everywhere can still be read here
        let writes = |rule: &PolicyRule| {
            let verbs = rule.verbs.iter().filter(|verb| !["list", "watch"].contains(&verb.as_str()));
            PolicyRule { verbs: verbs.cloned().collect(), ..rule.clone() }
        };
        let writes: Vec<PolicyRule> = rules.iter().map(writes).collect();
        self.in_force(false, Some(self.namespace.as_str()), &writes).await;
    }

    /// Gives rights that are not of one namespace.
    pub(super) async fn give_everywhere(&self, rules: &[PolicyRule]) {
        let name = format!("{}-{}", self.namespace, self.user);
        let role: ClusterRole =
            serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap();
        Api::all(self.admin.clone()).create(&PostParams::default(), &role).await.unwrap();
        let binding: ClusterRoleBinding = serde_json::from_value(self.binding("ClusterRole", &name)).unwrap();
        Api::all(self.admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
        self.in_force(true, None, rules).await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), self.namespace.as_str())
    }

    fn binding(&self, kind: &str, role: &str) -> Value {
        json!({"metadata": {"name": role}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": self.user}]})
    }

    async fn in_force(&self, wanted: bool, namespace: Option<&str>, rules: &[PolicyRule]) {
        let api: Api<SubjectAccessReview> = Api::all(self.admin.clone());
        for attributes in rules.iter().flat_map(|rule| questions(namespace, rule)) {
            let spec = SubjectAccessReviewSpec {
                user: Some(self.user.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            eventually("the authorizer knows", || async {
                let answer = api.create(&PostParams::default(), &review).await.unwrap();
                answer.status.is_some_and(|status| status.allowed) == wanted
            })
            .await;
        }
    }
}

/// One question for each verb on each resource.
fn questions(namespace: Option<&str>, rule: &PolicyRule) -> Vec<ResourceAttributes> {
    let one = |verb: &String, resource: &String| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        ResourceAttributes {
            group: rule.api_groups.as_ref().and_then(|groups| groups.first().cloned()),
            resource: Some(resource.to_owned()),
            subresource: (!subresource.is_empty()).then(|| subresource.to_owned()),
            verb: Some(verb.clone()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        }
    };
    let resources = rule.resources.iter().flatten();
    resources.flat_map(|resource| rule.verbs.iter().map(move |verb| one(verb, resource))).collect()
}
