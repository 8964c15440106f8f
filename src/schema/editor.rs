//! JSON Schemas for editors: strict, so that a typing error shows while typing.

use serde_json::{Map, Value, json};

use super::structural;
use crate::kinds::{API_VERSION, Kind};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The JSON Schema (draft 2020-12) of what an author may write for `kind`.
#[must_use]
pub fn json_schema(kind: Kind) -> Value {
    let mut schema = body(kind);
    if let Value::Object(map) = &mut schema {
        map.shift_insert(0, "$schema".into(), DRAFT.into());
        map.shift_insert(1, "title".into(), kind.as_str().into());
    }
    schema
}

/// One JSON Schema for all kinds, chosen by `kind`.
#[must_use]
pub fn all_json_schemas() -> Value {
    let definitions: Map<String, Value> =
        Kind::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), body(kind))).collect();
    let choices: Vec<Value> =
        Kind::ALL.iter().map(|kind| json!({"$ref": format!("#/$defs/{kind}")})).collect();
    json!({
        "$schema": DRAFT,
        "title": "ostler",
        "description": "Any object of a config repository of ostler.",
        "oneOf": choices,
        "$defs": definitions
    })
}

fn body(kind: Kind) -> Value {
    let mut schema = structural(kind).clone();
    let api_version = if kind == Kind::ConfigMap { "v1" } else { API_VERSION };
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.shift_remove("status");
        properties.insert("apiVersion".into(), json!({"const": api_version}));
        properties.insert("kind".into(), json!({"const": kind.as_str()}));
        properties.insert("metadata".into(), metadata());
    }
    let required: Vec<&str> = match kind {
        Kind::ConfigMap => vec!["apiVersion", "kind", "metadata"],
        _ => vec!["apiVersion", "kind", "metadata", "spec"],
    };
    schema["required"] = json!(required);
    close(&mut schema);
    schema
}

fn metadata() -> Value {
    let texts = |description: &str| json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}});
    json!({
        "type": "object",
        "description": "Name, namespace, labels and annotations.",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string", "description": "The object's name.", "maxLength": 63,
                "pattern": r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
            },
            "namespace": {
                "type": "string", "description": "Its namespace; default: the config repository's.", "maxLength": 63,
                "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
            },
            "labels": texts("Labels."),
            "annotations": texts("Annotations."),
            "finalizers": {"type": "array", "description": "Finalizers.", "items": {"type": "string"}}
        }
    })
}

/// Refuses unknown fields and drops what only an API server understands.
fn close(node: &mut Value) {
    let Some(node) = node.as_object_mut() else { return };
    node.retain(|key, _| !key.starts_with("x-kubernetes-"));
    // formats such as int64 are OpenAPI's; the types say enough
    node.shift_remove("format");
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(close);
        node.entry("additionalProperties").or_insert(false.into());
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            close(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_sees_typing_errors_and_the_wrong_kind() {
        let run = |spec| json!({"apiVersion": API_VERSION, "kind": "HarnessRun", "metadata": {"name": "x"}, "spec": spec});
        let one = jsonschema::validator_for(&json_schema(Kind::HarnessRun)).unwrap();
        let all = jsonschema::validator_for(&all_json_schemas()).unwrap();
        for validator in [&one, &all] {
            assert!(validator.is_valid(&run(json!({"stop": true}))));
            assert!(!validator.is_valid(&run(json!({"stopp": true}))));
            assert!(!validator.is_valid(&run(json!({"task": {"promt": "x"}}))));
        }
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
        assert!(!one.is_valid(&map));
        assert!(all.is_valid(&map));
    }

    #[test]
    fn every_field_is_described() {
        fn walk(at: &str, node: &Value, found: &mut Vec<String>) {
            for (name, child) in node["properties"].as_object().into_iter().flatten() {
                let at = format!("{at}/{name}");
                if child.get("description").is_none() && child.get("const").is_none() {
                    found.push(at.clone());
                }
                walk(&at, child, found);
                walk(&at, &child["items"], found);
            }
        }
        let mut found = Vec::new();
        for kind in Kind::ALL {
            walk(kind.as_str(), &json_schema(kind), &mut found);
        }
        assert!(found.is_empty(), "without description: {found:?}");
    }
}
