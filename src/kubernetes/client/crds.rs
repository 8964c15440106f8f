//! Whether an API server knows the kinds as this binary does.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Crd;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::{kinds::VERSION, schema};

/// The command that creates and updates them.
const COMMAND: &str = "ostler crds | kubectl apply --server-side -f -";
/// The most fields that a message names.
const NAMED: usize = 5;

/// Why the CRDs of an API server cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It does not have all of them.
    #[error("the API server does not have the CRDs {}: create them with `{COMMAND}`", .0.join(", "))]
    Missing(Vec<String>),
    /// They were created a moment ago, or their names are taken by others.
    #[error("the API server does not serve {VERSION} of the CRDs {} yet: see `kubectl describe crd`", .0.join(", "))]
    NotServed(Vec<String>),
    /// They lack what this binary writes; it would be dropped silently.
    #[error("the API server's CRDs are older than this ostler, they lack {}: update them with `{COMMAND}`", some(.0))]
    Older(Vec<String>),
    /// They have what this binary does not know, and would silently not obey.
    #[error(
        "the API server's CRDs are newer than this ostler, which does not know {}: run the ostler that they came with",
        some(.0)
    )]
    Newer(Vec<String>),
    /// They cannot be read.
    #[error("the API server's CRDs cannot be read")]
    Unreadable(#[source] Box<kube::Error>),
}

fn some(fields: &[String]) -> String {
    let more = fields.len().saturating_sub(NAMED);
    let named = fields.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// Compares the CRDs of the API server with those of this binary: the fields, and the values that they may have.
///
/// # Errors
/// [`CrdError`], which says what to do. Fields that are known on one side each are [`CrdError::Newer`].
pub async fn check_crds(client: &Client) -> Result<(), CrdError> {
    let api: Api<Crd> = Api::all(client.clone());
    let ours = schema::crds();
    let names: Vec<String> = ours.iter().map(ResourceExt::name_any).collect();
    let served = join_all(names.iter().map(|name| api.get_opt(name))).await;
    let served: Result<Vec<_>, _> = served.into_iter().collect();
    compare(&ours, &served.map_err(|source| CrdError::Unreadable(Box::new(source)))?)
}

fn compare(ours: &[Crd], served: &[Option<Crd>]) -> Result<(), CrdError> {
    let pairs = || ours.iter().zip(served);
    let names = |wrong: &dyn Fn(&Option<Crd>) -> bool| {
        pairs().filter(|(_, served)| wrong(served)).map(|(ours, _)| ours.name_any()).collect::<Vec<_>>()
    };
    let missing = names(&|served| served.is_none());
    if !missing.is_empty() {
        return Err(CrdError::Missing(missing));
    }
    let not_served = names(&|served| !served.as_ref().is_some_and(is_served));
    if !not_served.is_empty() {
        return Err(CrdError::NotServed(not_served));
    }
    let (mut lacking, mut unknown) = (Vec::new(), Vec::new());
    for (ours, served) in pairs() {
        let (known, has) = (fields(ours), served.as_ref().map(fields).unwrap_or_default());
        lacking.extend(known.difference(&has).cloned());
        unknown.extend(has.difference(&known).cloned());
    }
    match (lacking.is_empty(), unknown.is_empty()) {
        (_, false) => Err(CrdError::Newer(unknown)),
        (false, true) => Err(CrdError::Older(lacking)),
        (true, true) => Ok(()),
    }
}

fn is_served(crd: &Crd) -> bool {
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True");
    established && crd.spec.versions.iter().any(|version| version.name == VERSION && version.served)
}

/// Every field of the schema, as `Agent.spec.image`, and every value of a closed list, as `Agent.spec.preset=codex`.
fn fields(crd: &Crd) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in crd.spec.versions.iter().filter(|version| version.name == VERSION) {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
        walk(&schema, &crd.spec.names.kind, &mut found);
    }
    found
}

fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for value in schema["enum"].as_array().into_iter().flatten() {
        found.insert(format!("{path}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        walk(property, &path, found);
        found.insert(path);
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if schema[below].is_object() {
            walk(&schema[below], &format!("{path}{mark}"), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served(change: impl Fn(&mut Value)) -> Vec<Option<Crd>> {
        let with_status = |crd: Crd| {
            let mut value = serde_json::to_value(crd).unwrap();
            value["status"] = json!({"conditions": [{"type": "Established", "status": "True"}],
                "acceptedNames": {"kind": "x", "plural": "x"}, "storedVersions": []});
            change(&mut value);
            Some(serde_json::from_value(value).unwrap())
        };
        schema::crds().into_iter().map(with_status).collect()
    }

    fn spec(crd: &mut Value) -> &mut Value {
        &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    }

    #[test]
    fn states_are_told_apart() {
        let ours = schema::crds();
        assert!(compare(&ours, &served(|_| ())).is_ok());
        let mut four = served(|_| ());
        four[2] = None;
        let error = compare(&ours, &four).unwrap_err();
        assert!(matches!(&error, CrdError::Missing(names) if names == &["agents.ostler.dev"]), "{error}");
        assert!(error.to_string().contains("ostler crds"), "{error}");
        let error = compare(&ours, &served(|crd| crd["status"]["conditions"][0]["status"] = json!("False")));
        assert!(matches!(&error, Err(CrdError::NotServed(names)) if names.len() == 5), "{error:?}");
    }

    #[test]
    fn fields_and_values_make_the_age() {
        let ours = schema::crds();
        let older =
            compare(&ours, &served(|crd| drop(spec(crd).as_object_mut().unwrap().shift_remove("image"))));
        assert!(
            matches!(&older, Err(CrdError::Older(f)) if f.contains(&"Agent.spec.image".to_owned())),
            "{older:?}"
        );
        let fewer_values = |crd: &mut Value| {
            if let Some(Value::Array(values)) = spec(crd).pointer_mut("/preset/enum") {
                values.retain(|value| value != "codex");
            }
        };
        let older = compare(&ours, &served(fewer_values));
        assert!(matches!(&older, Err(CrdError::Older(f)) if f == &["Agent.spec.preset=codex"]), "{older:?}");
        let newer = compare(&ours, &served(|crd| spec(crd)["warp"] = json!({"type": "string"}))).unwrap_err();
        assert!(matches!(&newer, CrdError::Newer(f) if f.len() == 5), "{newer}");
        assert!(newer.to_string().contains("Agent.spec.warp"), "{newer}");
    }
}
