//! What an object must be before it is stored.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::{
    kinds::{Kind, ObjectId},
    ports::objects::Error,
    schema,
};

/// The most bytes of a stored object as JSON, as etcd has it by default.
pub(super) const MAX_OBJECT_BYTES: usize = 1_572_864;
/// The most bytes of a ConfigMap's data, as Kubernetes has it.
const MAX_CONFIG_MAP_BYTES: usize = 1_048_576;
/// The most bytes of all annotations together, as Kubernetes has it.
const MAX_ANNOTATION_BYTES: usize = 262_144;
/// The most characters of a manager's name, as Kubernetes has it.
const MAX_MANAGER_CHARS: usize = 128;

/// Takes out fields that the kind does not have, and logs them.
pub(super) fn prune(id: &ObjectId, object: &mut Value) {
    for pointer in schema::prune(id.kind, object) {
        tracing::warn!(object = %id, field = pointer, "unknown field dropped");
    }
}

/// Checks an object against its schema, its CEL rules and the rules of metadata.
pub(super) fn object(id: &ObjectId, object: &Value, old: Option<&Value>) -> Result<(), Error> {
    let mut causes = metadata(&object["metadata"]);
    if id.kind == Kind::ConfigMap {
        causes.extend(config_map(object, old));
    } else {
        let violations = schema::check(id.kind, object, old).err().unwrap_or_default();
        causes.extend(violations.iter().map(ToString::to_string));
    }
    if causes.is_empty() { Ok(()) } else { Err(Error::Invalid { id: id.clone(), causes }) }
}

/// Checks the size of what would be stored.
pub(super) fn size(id: &ObjectId, bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_OBJECT_BYTES {
        return Ok(());
    }
    let cause = format!("object: {bytes} bytes are more than the {MAX_OBJECT_BYTES} that can be stored");
    Err(Error::Invalid { id: id.clone(), causes: vec![cause] })
}

/// Checks the name of a field manager.
pub(super) fn manager(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.chars().count() > MAX_MANAGER_CHARS || name.chars().any(char::is_control) {
        return Err(Error::Forbidden(format!(
            "a field manager's name has 1 to {MAX_MANAGER_CHARS} printable characters"
        )));
    }
    Ok(())
}

fn metadata(metadata: &Value) -> Vec<String> {
    let mut causes = Vec::new();
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_qualified_name(key) {
            causes.push(format!("metadata.labels: {key:?} is not a qualified name"));
        }
        match value.as_str() {
            Some(text) if text.is_empty() || is_name_part(text) => {}
            _ => causes.push(format!(
                "metadata.labels.{key}: up to 63 letters, digits, '-', '_' and '.' are needed, starting and ending with a letter or digit"
            )),
        }
    }
    let mut annotation_bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if !is_qualified_name(&key.to_ascii_lowercase()) {
            causes.push(format!("metadata.annotations: {key:?} is not a qualified name"));
        }
        match value.as_str() {
            Some(text) => annotation_bytes += key.len() + text.len(),
            None => causes.push(format!("metadata.annotations.{key}: a text is needed")),
        }
    }
    if annotation_bytes > MAX_ANNOTATION_BYTES {
        causes.push(format!("metadata.annotations: more than {MAX_ANNOTATION_BYTES} bytes together"));
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        if !finalizer.as_str().is_some_and(is_qualified_name) {
            causes.push(format!("metadata.finalizers: {finalizer} is not a qualified name"));
        }
    }
    for field in ["labels", "annotations"] {
        if metadata.get(field).is_some_and(|value| !value.is_object()) {
            causes.push(format!("metadata.{field}: a map is needed"));
        }
    }
    for field in ["finalizers", "ownerReferences"] {
        if metadata.get(field).is_some_and(|value| !value.is_array()) {
            causes.push(format!("metadata.{field}: a list is needed"));
        }
    }
    causes
}

/// `name` or `prefix/name`, where the prefix is a DNS subdomain.
fn is_qualified_name(text: &str) -> bool {
    let is_domain = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|label| {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                !label.is_empty()
                    && label.bytes().all(inner)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    };
    match text.split_once('/') {
        Some((prefix, name)) => is_domain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn config_map(object: &Value, old: Option<&Value>) -> Vec<String> {
    let map: ConfigMap = match serde_json::from_value(object.clone()) {
        Ok(map) => map,
        Err(error) => return vec![format!("object: {error}")],
    };
    let mut causes = Vec::new();
    let (data, binary) = (map.data.unwrap_or_default(), map.binary_data.unwrap_or_default());
    for key in data.keys().chain(binary.keys()) {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.len() > 253 || !key.chars().all(inner) || matches!(key.as_str(), "." | "..")
        {
            causes.push(format!("data: {key:?} is not a key: letters, digits, '-', '_' and '.' are allowed"));
        }
    }
    for key in data.keys().filter(|key| binary.contains_key(*key)) {
        causes.push(format!("binaryData: {key:?} is in data, too"));
    }
    let bytes: usize = data.values().map(String::len).sum::<usize>()
        + binary.values().map(|bytes| bytes.0.len()).sum::<usize>();
    if bytes > MAX_CONFIG_MAP_BYTES {
        causes.push(format!("data: {bytes} bytes are more than {MAX_CONFIG_MAP_BYTES}"));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == Value::Bool(true)) {
        for field in ["immutable", "data", "binaryData"] {
            if old.get(field) != object.get(field) {
                causes.push(format!("{field}: the ConfigMap is immutable"));
            }
        }
    }
    causes
}
