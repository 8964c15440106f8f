//! Each verb of each resource that the chart gives is needed, too. A smoke test ends with the first thing that is refused, so
//! it would fail without whatever the audit log shows that it asked for, if no other rule gives that as well. What does not
//! show there, because the API server checks it in the course of another request, is taken away and tried.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rights::Place;
use crate::cluster::AuditLine;

/// One verb of one resource, and of one name where the rule has names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    /// The namespace of its Role; none of a `ClusterRole`.
    namespace: Option<String>,
    group: String,
    /// With its subresource: `pods/exec`.
    resource: String,
    pub(super) verb: String,
    name: Option<String>,
}

/// Every right that a rule gives.
pub(super) fn rights(place: &Place) -> Vec<Right> {
    let PolicyRule { api_groups, resource_names, resources, verbs, .. } = &place.rule;
    let names: Vec<Option<String>> = match resource_names {
        Some(names) if !names.is_empty() => names.iter().cloned().map(Some).collect(),
        _ => vec![None],
    };
    let mut rights = Vec::new();
    for group in api_groups.iter().flatten() {
        for resource in resources.iter().flatten() {
            for verb in verbs {
                for name in &names {
                    rights.push(Right {
                        namespace: place.namespace.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    rights
}

/// Those that none of these requests needed: each was no request's only leave.
pub(super) fn unasked(rights: &[Right], asked: &[AuditLine]) -> BTreeSet<Right> {
    let mut unasked: BTreeSet<Right> = rights.iter().cloned().collect();
    // what it asks for may not be there, or may not work without a node
    for line in asked.iter().filter(|line| !matches!(line.code(), 0 | 401 | 403)) {
        // an object that an apply makes is created, and that is checked as well
        let made = (line.verb == "patch" && line.code() == 201).then_some("create");
        for verb in [line.verb.as_str()].into_iter().chain(made) {
            let mut leave = rights.iter().filter(|right| right.gives(verb, line));
            if let (Some(only), None) = (leave.next(), leave.next()) {
                unasked.remove(only);
            }
        }
    }
    unasked
}

impl Right {
    fn gives(&self, verb: &str, line: &AuditLine) -> bool {
        let object = &line.object_ref;
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        self.verb == verb
            && self.group == object.api_group
            && (resource, subresource) == (&object.resource, &object.subresource)
            && self.namespace.as_ref().is_none_or(|own| *own == object.namespace)
            && self.name.as_ref().is_none_or(|own| *own == object.name)
    }

    /// The same right, whatever the namespace is called.
    pub(super) fn words(&self) -> String {
        let Self { group, resource, verb, name, .. } = self;
        format!("{verb} {group}/{resource} {}", name.as_deref().unwrap_or("*"))
    }
}
