//! Turns a derived schema into the one that everybody uses.
//!
//! An API server refuses CEL rules whose cost it cannot bound, and an unbounded list or text is a way to exhaust whoever
//! reads it: so everything gets a bound, the narrow one of its field or else the one here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

use super::rules;
use crate::kinds::Kind;

/// Most characters of a text that names no bound itself.
pub(super) const MAX_LENGTH: u64 = 4096;
/// Most entries of a list that names no bound itself.
pub(super) const MAX_ITEMS: u64 = 64;
/// Most entries of a map that names no bound itself.
pub(super) const MAX_PROPERTIES: u64 = 64;

/// The schema of one of our kinds.
pub(super) fn of(kind: Kind, crd: &CustomResourceDefinition) -> Value {
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema =
        schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).expect("a derived CRD has a schema");
    let mut schema = serde_json::to_value(schema).expect("a schema is plain data");
    for_each(&mut schema, &mut |name, node| {
        node.remove("nullable");
        conditions(name, node);
        bound(node);
    });
    describe(&mut schema);
    envelope(&mut schema);
    if is_observed(kind) {
        status(&mut schema);
    }
    if let Some(spec) = schema.pointer_mut("/properties/spec") {
        for_each(spec, &mut rules::of_field);
    }
    rules::of_kind(kind, &mut schema);
    schema
}

/// A ConfigMap as authors may write it. Total size is bounded by the file's.
pub(super) fn config_map() -> Value {
    let text = |max: u64| json!({"type": "string", "maxLength": max});
    let entries = |description: &str| {
        json!({
            "type": "object", "description": description, "maxProperties": 256, "additionalProperties": text(1_048_576)
        })
    };
    let mut schema = json!({
        "type": "object",
        "description": "Prompts and contexts.",
        "properties": {
            "metadata": {"type": "object"},
            "data": entries("Texts by key."),
            "binaryData": entries("Bytes by key, in base64."),
            "immutable": {"type": "boolean", "description": "True: the data never changes."}
        }
    });
    envelope(&mut schema);
    schema
}

/// Calls `f` for a schema node and all below it, with the name of the property it stands under (that of the list for
/// its items).
fn for_each(node: &mut Value, f: &mut impl FnMut(&str, &mut Map<String, Value>)) {
    fn walk(name: &str, node: &mut Value, f: &mut impl FnMut(&str, &mut Map<String, Value>)) {
        let Some(node) = node.as_object_mut() else { return };
        f(name, node);
        if let Some(Value::Object(properties)) = node.get_mut("properties") {
            for (name, child) in properties {
                walk(name, child, f);
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(child) = node.get_mut(key) {
                walk(name, child, f);
            }
        }
    }
    walk("", node, f);
}

fn bound(node: &mut Map<String, Value>) {
    let limit = |node: &mut Map<String, Value>, key: &str, max: u64| {
        node.entry(key).or_insert_with(|| max.into());
    };
    match node.get("type").and_then(Value::as_str) {
        Some("string") if node.contains_key("enum") => {}
        // RFC 3339 with nanoseconds and offset has 35 characters
        Some("string") if node.get("format").is_some_and(|f| f == "date-time") => {
            limit(node, "maxLength", 64);
        }
        Some("string") => limit(node, "maxLength", MAX_LENGTH),
        Some("array") => limit(node, "maxItems", MAX_ITEMS),
        Some("object") if !node.contains_key("properties") => limit(node, "maxProperties", MAX_PROPERTIES),
        _ => {}
    }
}

/// Bounds of `metav1.Condition`, as Kubernetes itself declares them.
fn conditions(name: &str, node: &mut Map<String, Value>) {
    if name != "conditions" {
        return;
    }
    if node.get("type").is_some_and(|t| t == "array") {
        node.insert("maxItems".into(), 16.into());
        node.insert("x-kubernetes-list-type".into(), "map".into());
        node.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
        return;
    }
    let mut set = |field: &str, key: &str, value: Value| {
        let field = node.get_mut("properties").and_then(|properties| properties.get_mut(field));
        if let Some(Value::Object(field)) = field {
            field.insert(key.into(), value);
        }
    };
    set("type", "maxLength", 316.into());
    set("reason", "maxLength", 1024.into());
    set("message", "maxLength", 32_768.into());
    set("status", "enum", json!(["True", "False", "Unknown"]));
}

/// What stands around spec and status. The server checks the metadata.
fn envelope(schema: &mut Value) {
    let properties =
        schema.get_mut("properties").and_then(Value::as_object_mut).expect("an object has properties");
    properties.insert("apiVersion".into(), json!({"type": "string", "maxLength": 64}));
    properties.insert("kind".into(), json!({"type": "string", "maxLength": 64}));
    properties.insert("metadata".into(), json!({"type": "object"}));
}

/// The words of a kind are those of its spec's type; the derived ones say nothing.
fn describe(schema: &mut Value) {
    let Some(spec) = schema.pointer_mut("/properties/spec/description") else { return };
    let words = std::mem::replace(spec, "What its author asks for.".into());
    schema["description"] = words;
}

/// Is a kind that somebody looks at and says so in its status? Agents and policies are read by runs only.
fn is_observed(kind: Kind) -> bool {
    !matches!(kind, Kind::Agent | Kind::EgressPolicy)
}

/// `observedGeneration` is -1 until somebody has looked, so that nobody takes "no conditions" for "ready".
fn status(schema: &mut Value) {
    let Some(Value::Object(status)) = schema.pointer_mut("/properties/status") else { return };
    status.insert("default".into(), json!({"observedGeneration": -1}));
    if let Some(Value::Object(field)) =
        status.get_mut("properties").and_then(|p| p.get_mut("observedGeneration"))
    {
        field.insert("default".into(), (-1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{crds, structural};

    fn unbounded(at: &str, node: &Value, found: &mut Vec<String>) {
        let has = |key: &str| node.get(key).is_some();
        let ok = match node["type"].as_str() {
            Some("string") => has("maxLength") || has("enum"),
            Some("array") => has("maxItems") && has("items"),
            Some("object") => has("properties") || has("maxProperties"),
            Some("integer" | "number" | "boolean") => true,
            _ => false,
        };
        if !ok {
            found.push(at.to_owned());
        }
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{at}/{name}"), child, found);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(child) = node.get(key).filter(|child| child.is_object()) {
                unbounded(&format!("{at}/{key}"), child, found);
            }
        }
    }

    #[test]
    fn everything_has_a_type_and_a_bound() {
        let mut found = Vec::new();
        for crd in crds() {
            let kind = crd.spec.names.kind.clone();
            let value = serde_json::to_value(&crd).unwrap();
            let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for (name, child) in schema["properties"].as_object().unwrap() {
                if name != "metadata" {
                    unbounded(&format!("{kind}/{name}"), child, &mut found);
                }
            }
        }
        assert!(found.is_empty(), "without type or bound: {found:#?}");
    }

    #[test]
    fn a_kind_is_described_by_its_own_words() {
        for kind in Kind::OURS {
            let words = structural(kind)["description"].as_str().unwrap();
            assert!(!words.contains("derived") && words.ends_with('.'), "{kind}: {words}");
        }
    }

    #[test]
    fn only_status_has_defaults() {
        fn defaults(node: &Value) -> usize {
            match node {
                Value::Object(map) => {
                    usize::from(map.contains_key("default")) + map.values().map(defaults).sum::<usize>()
                }
                Value::Array(list) => list.iter().map(defaults).sum(),
                _ => 0,
            }
        }
        for kind in Kind::OURS {
            let schema = structural(kind);
            assert_eq!(defaults(&schema["properties"]["spec"]), 0, "{kind}");
            let status = &schema["properties"]["status"];
            if is_observed(kind) {
                assert_eq!(status["properties"]["observedGeneration"]["default"], -1, "{kind}");
                assert_eq!(status["default"]["observedGeneration"], -1, "{kind}");
            } else {
                assert_eq!(defaults(status), 0, "{kind}: kstatus would wait for ever");
            }
        }
    }

    #[test]
    fn conditions_are_merged_by_type() {
        for kind in Kind::OURS {
            let list = &structural(kind)["properties"]["status"]["properties"]["conditions"];
            assert_eq!(list["x-kubernetes-list-map-keys"], json!(["type"]), "{kind}");
            assert_eq!(
                list["items"]["properties"]["status"]["enum"],
                json!(["True", "False", "Unknown"]),
                "{kind}"
            );
        }
    }
}
