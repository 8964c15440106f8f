//! What differs between what is asked for and what is there.

use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::kinds::{Object, meta};

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// The field, as `spec.env` or `metadata.labels.team`.
    pub field: String,
    /// What is there; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What is asked for; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What an apply of `body` would change in `live`: fields of the body that differ, and fields that our manager applied
/// before and the body no longer has. Maps are compared key by key, lists as a whole, as the store merges them.
#[must_use]
pub fn between(live: &Object, body: &Value) -> Vec<FieldChange> {
    let mut there = serde_json::to_value(live).unwrap_or_default();
    // comes and goes with what the controller knows, whoever applied it and whatever an author wrote
    let (mut body, finalizer) = (body.clone(), Value::from(meta::RECORD_FINALIZER));
    for object in [&mut there, &mut body] {
        if let Some(Value::Array(list)) = object.pointer_mut("/metadata/finalizers") {
            list.retain(|one| *one != finalizer);
        }
    }
    let body = &body;
    let mut changes = Vec::new();
    wanted(&mut Vec::new(), Some(&there), body, &mut changes);
    for entry in live.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(meta::SYNCER)) {
        let applied = entry.operation.as_deref() == Some("Apply") && entry.subresource.is_none();
        if let (true, Some(fields)) = (applied, &entry.fields_v1) {
            given_up(&mut Vec::new(), &there, Some(body), &fields.0, &mut changes);
        }
    }
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

fn wanted(at: &mut Vec<String>, there: Option<&Value>, body: &Value, changes: &mut Vec<FieldChange>) {
    match (body, there) {
        (Value::Object(body), _) if !body.is_empty() => {
            for (key, value) in body {
                if !counts(at, key) {
                    continue;
                }
                at.push(key.clone());
                wanted(at, there.and_then(|there| there.get(key)), value, changes);
                at.pop();
            }
        }
        (body, Some(there)) if same(body, there) => {}
        (body, there) => {
            changes.push(FieldChange { field: at.join("."), from: there.cloned(), to: Some(body.clone()) });
        }
    }
}

/// The commit of the last change is no change, and the identity cannot change.
fn counts(at: &[String], key: &str) -> bool {
    match at {
        [] => !matches!(key, "apiVersion" | "kind"),
        [metadata] if metadata == "metadata" => !matches!(key, "name" | "namespace"),
        [_, annotations] if annotations == "annotations" => key != meta::SOURCE_COMMIT,
        _ => true,
    }
}

/// Walks a set of fields in the notation of `managedFields`: `{"f:spec": {"f:stop": {}}}`.
fn given_up(
    at: &mut Vec<String>,
    there: &Value,
    body: Option<&Value>,
    owned: &Value,
    changes: &mut Vec<FieldChange>,
) {
    let fields: Map<String, Value> = owned.as_object().cloned().unwrap_or_default();
    for (key, below) in &fields {
        let Some(name) = key.strip_prefix("f:") else { continue };
        let Some(there) = there.get(name) else { continue };
        let body = body.and_then(|body| body.get(name));
        at.push(name.to_owned());
        let leaf = !below.as_object().is_some_and(|below| below.keys().any(|key| key.starts_with("f:")));
        if leaf && body.is_none() && !is_commit(at) && !only_holds(at, below) {
            changes.push(FieldChange { field: at.join("."), from: Some(there.clone()), to: None });
        } else if !leaf {
            given_up(at, there, body, below, changes);
        }
        at.pop();
    }
}

/// The set of fields that an apply of `body` owns, in the notation of `managedFields`.
pub(super) fn owned_by(body: &Value) -> Value {
    match body {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("f:{key}"), owned_by(value))).collect(),
        _ => Value::Object(Map::new()),
    }
}

/// True for finalizers of which only that of runs was applied.
fn only_holds(at: &[String], owned: &Value) -> bool {
    let ours = format!("v:\"{}\"", meta::RECORD_FINALIZER);
    let others = |owned: &Map<String, Value>| owned.keys().any(|key| key.starts_with("v:") && *key != ours);
    at == ["metadata", "finalizers"] && !owned.as_object().is_some_and(others)
}

fn is_commit(at: &[String]) -> bool {
    at.last().is_some_and(|last| last == meta::SOURCE_COMMIT)
}

/// Equal as JSON, where `1` and `1.0` are one number and the order of keys means nothing.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(finalizers: &[&str], applied: &[&str]) -> Object {
        let applied: Map<String, Value> =
            applied.iter().map(|one| (format!("v:\"{one}\""), json!({}))).collect();
        let fields = json!({"f:metadata": {"f:finalizers": applied}, "f:spec": {"f:stop": {}}});
        let managed = json!([{"manager": meta::SYNCER, "operation": "Apply", "fieldsV1": fields}]);
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "finalizers": finalizers, "managedFields": managed},
            "spec": {"stop": false}
        }))
        .unwrap()
    }

    fn fields(live: &Object, body: &Value) -> Vec<String> {
        between(live, body).into_iter().map(|change| change.field).collect()
    }

    #[test]
    fn the_finalizer_of_runs_is_no_change_whoever_applied_it_or_took_it_off() {
        let plain = json!({"spec": {"stop": false}});
        let ours = meta::RECORD_FINALIZER;
        for applied in [&[ours][..], &[]] {
            for there in [&[ours][..], &[], &["x/y"], &[ours, "x/y"]] {
                assert_eq!(fields(&live(there, applied), &plain), [""; 0], "{there:?} {applied:?}");
            }
        }
        let authored = json!({"metadata": {"finalizers": ["x/y"]}, "spec": {"stop": false}});
        assert_eq!(fields(&live(&["x/y", ours], &["x/y", ours]), &authored), [""; 0]);
        assert_eq!(fields(&live(&[ours], &[ours]), &authored), ["metadata.finalizers"]);
        assert_eq!(fields(&live(&["x/y", ours], &["x/y", ours]), &plain), ["metadata.finalizers"]);
    }
}
