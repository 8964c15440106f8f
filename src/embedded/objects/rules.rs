//! What a write does to an object: the rules of an API server, as a pure function.

use serde_json::{Map, Value, json};

use super::{
    check,
    ownership::{Operation, Owners, Writer, merge_patch, without_nulls},
};
use crate::{
    kinds::{API_VERSION, Kind, ObjectId},
    ports::objects::{At, Error},
    schema,
};

/// A write that somebody wants.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Create { object: Value, manager: String },
    Apply { object: Value, manager: String, force: bool, at: Option<At> },
    Merge { at: At, patch: Value, manager: String },
    Status { at: At, patch: Value, manager: String },
    Delete { at: At },
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// The object is as it was: nothing is written and nobody is told.
    Unchanged,
    /// It is stored like this, once it has its resourceVersion.
    Stored(Value),
    /// It is gone; this was its last state.
    Removed(Value),
}

/// What a write takes from outside.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    /// Now, in RFC 3339 with whole seconds.
    pub(super) now: String,
    /// The UID of an object that comes to be.
    pub(super) uid: String,
}

/// The metadata that clients write; all else is the store's.
const CLIENT_METADATA: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// Decides what a write does.
///
/// # Errors
/// As the port says of each operation.
pub(super) fn decide(
    id: &ObjectId,
    old: Option<&Value>,
    write: &Write,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    match write {
        Write::Create { object, manager } => create(id, old, object, manager, stamp),
        Write::Apply { object, manager, force, at } => {
            check_presence(id, old, at.as_ref())?;
            apply(id, old, object, &writer(id, Operation::Apply, manager), *force, stamp)
        }
        Write::Merge { at, patch, manager } => {
            let old = existing(id, old, at)?;
            if !patch.is_object() {
                let causes = vec!["patch: an object is needed".to_owned()];
                return Err(Error::Invalid { id: id.clone(), causes });
            }
            let patched = without_store_fields(id, &merge_patch(old, patch));
            update(id, old, Part::Main, &patched, manager, stamp)
        }
        Write::Status { at, patch, manager } => {
            let old = existing(id, old, at)?;
            write_status(id, old, patch, manager, stamp)
        }
        Write::Delete { at } => Ok(delete(id, existing(id, old, at)?, stamp)),
    }
}

fn create(
    id: &ObjectId,
    old: Option<&Value>,
    object: &Value,
    manager: &str,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    let new = without_nulls(&without_store_fields(id, object));
    let made = update(id, &newborn(id, stamp), Part::Main, &new, manager, stamp)?;
    if old.is_some() { Err(Error::AlreadyExists(id.clone())) } else { Ok(made) }
}

fn apply(
    id: &ObjectId,
    old: Option<&Value>,
    object: &Value,
    writer: &Writer,
    force: bool,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    let newborn = newborn(id, stamp);
    let base = old.unwrap_or(&newborn);
    let config = Part::Main.of(&without_nulls(&without_store_fields(id, object)));
    let mut owners = Owners::of(base);
    let content =
        owners.apply(&Part::Main.of(base), &config, writer, force, &stamp.now).map_err(|clashes| {
            let texts = clashes.iter().map(|clash| format!("{} is owned by {}", clash.field, clash.manager));
            Error::Conflict { id: id.clone(), message: texts.collect::<Vec<_>>().join("; ") }
        })?;
    finish(id, base, Part::Main.put(base, content), &owners)
}

fn write_status(
    id: &ObjectId,
    old: &Value,
    patch: &Value,
    manager: &str,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    if id.kind == Kind::ConfigMap || !patch.is_object() {
        return Err(Error::Invalid {
            id: id.clone(),
            causes: vec!["status: an object is needed".to_owned()],
        });
    }
    let status = merge_patch(&old["status"], patch);
    let mut new = old.clone();
    new["status"] = status;
    check::prune(id, &mut new);
    update(id, old, Part::Status, &new, manager, stamp)
}

fn delete(id: &ObjectId, old: &Value, stamp: &Stamp) -> Outcome {
    if !has_finalizers(old) {
        return Outcome::Removed(old.clone());
    }
    if is_marked(old) {
        return Outcome::Unchanged;
    }
    let mut marked = old.clone();
    marked["metadata"]["deletionTimestamp"] = json!(stamp.now);
    marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    raise_generation(id, &mut marked);
    Outcome::Stored(marked)
}

/// Takes `new`'s part over into the object and books the change to the manager.
fn update(
    id: &ObjectId,
    old: &Value,
    part: Part,
    new: &Value,
    manager: &str,
    stamp: &Stamp,
) -> Result<Outcome, Error> {
    let mut owners = Owners::of(old);
    let mut content = part.of(new);
    if let Some(Value::Object(metadata)) = content.get_mut("metadata") {
        // nobody owns what is not stored
        metadata.retain(|_, value| !is_empty(value));
    }
    drop_empty_data(id, &mut content);
    let writer = Writer { subresource: part.subresource(), ..writer(id, Operation::Update, manager) };
    owners.update(&part.of(old), &content, &writer, &stamp.now);
    finish(id, old, part.put(old, content), &owners)
}

/// Checks the object that came out, and says what becomes of it.
fn finish(id: &ObjectId, old: &Value, new: Value, owners: &Owners) -> Result<Outcome, Error> {
    let mut new = schema::with_defaults(id.kind, &new);
    drop_empty_data(id, &mut new);
    let is_newborn = old["metadata"].get("resourceVersion").is_none();
    if !is_newborn && new == *old && *owners == Owners::of(old) {
        return Ok(Outcome::Unchanged);
    }
    if is_marked(old) {
        check_finalizers(id, old, &new)?;
    }
    let respecified = {
        let mut contents = [Part::Main.of(old), Part::Main.of(&new)];
        for content in &mut contents {
            content["metadata"] = Value::Null;
        }
        contents[0] != contents[1]
    };
    check::object(id, &new, (!is_newborn).then_some(old))?;
    if respecified && !is_newborn {
        raise_generation(id, &mut new);
    }
    new["metadata"]["managedFields"] = owners.to_json();
    let released = is_marked(&new) && !has_finalizers(&new);
    Ok(if released { Outcome::Removed(new) } else { Outcome::Stored(new) })
}

/// What one endpoint writes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Main,
    Status,
}

impl Part {
    fn subresource(self) -> Option<String> {
        (self == Self::Status).then(|| "status".to_owned())
    }

    /// This part of an object, without what only the store writes.
    fn of(self, object: &Value) -> Value {
        let fields = object.as_object().into_iter().flatten();
        let mut content: Map<String, Value> = match self {
            Self::Status => fields.filter(|(key, _)| *key == "status").map(clone_entry).collect(),
            Self::Main => fields
                .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
                .map(clone_entry)
                .collect(),
        };
        if self == Self::Main {
            let metadata = object["metadata"].as_object().into_iter().flatten();
            let written = metadata.filter(|(key, _)| CLIENT_METADATA.contains(&key.as_str()));
            content.insert("metadata".to_owned(), Value::Object(written.map(clone_entry).collect()));
        }
        Value::Object(content)
    }

    /// `object` with this part replaced.
    fn put(self, object: &Value, content: Value) -> Value {
        let other = match self {
            Self::Main => Self::Status,
            Self::Status => Self::Main,
        };
        let mut whole = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {}});
        let metadata = object["metadata"].as_object().into_iter().flatten();
        for (key, value) in metadata.filter(|(key, _)| !CLIENT_METADATA.contains(&key.as_str())) {
            whole["metadata"][key] = value.clone();
        }
        for part in [content, other.of(object)] {
            let Value::Object(part) = part else { continue };
            for (key, value) in part {
                match value {
                    Value::Object(metadata) if key == "metadata" => {
                        for (key, value) in metadata.into_iter().filter(|(_, value)| !is_empty(value)) {
                            whole["metadata"][key] = value;
                        }
                    }
                    value => whole[key] = value,
                }
            }
        }
        whole
    }
}

fn clone_entry((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// Empty labels, annotations and lists of the metadata are the same as none.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    }
}

/// A ConfigMap without data has no field for it.
fn drop_empty_data(id: &ObjectId, object: &mut Value) {
    if let (Kind::ConfigMap, Value::Object(fields)) = (id.kind, object) {
        fields.retain(|key, value| !matches!(key.as_str(), "data" | "binaryData") || !is_empty(value));
    }
}

/// What a client sent, with the object's identity and without unknown fields and status.
fn without_store_fields(id: &ObjectId, object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(map) = &mut object {
        map.shift_remove("status");
        map.insert("apiVersion".to_owned(), json!(api_version(id.kind)));
        map.insert("kind".to_owned(), json!(id.kind.as_str()));
    }
    check::prune(id, &mut object);
    object
}

/// An object that is not stored yet.
fn newborn(id: &ObjectId, stamp: &Stamp) -> Value {
    let mut object = json!({
        "apiVersion": api_version(id.kind),
        "kind": id.kind.as_str(),
        "metadata": {
            "name": id.name,
            "namespace": id.namespace,
            "uid": stamp.uid,
            "creationTimestamp": stamp.now,
        }
    });
    if id.kind != Kind::ConfigMap {
        object["metadata"]["generation"] = json!(1);
    }
    object
}

/// `apiVersion` of a kind.
pub(super) fn api_version(kind: Kind) -> &'static str {
    if kind == Kind::ConfigMap { "v1" } else { API_VERSION }
}

fn writer(id: &ObjectId, operation: Operation, manager: &str) -> Writer {
    let api_version = api_version(id.kind).to_owned();
    Writer { operation, manager: manager.to_owned(), api_version, subresource: None }
}

fn raise_generation(id: &ObjectId, object: &mut Value) {
    if id.kind != Kind::ConfigMap {
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

/// True once the object is to be deleted.
pub(super) fn is_marked(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn finalizers(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten()
}

fn has_finalizers(object: &Value) -> bool {
    finalizers(object).next().is_some()
}

fn check_finalizers(id: &ObjectId, old: &Value, new: &Value) -> Result<(), Error> {
    let added: Vec<String> = finalizers(new)
        .filter(|added| finalizers(old).all(|old| old != *added))
        .map(ToString::to_string)
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let cause = format!(
        "metadata.finalizers: none can be added to an object that is being deleted, found {}",
        added.join(", ")
    );
    Err(Error::Invalid { id: id.clone(), causes: vec![cause] })
}

fn existing<'a>(id: &ObjectId, old: Option<&'a Value>, at: &At) -> Result<&'a Value, Error> {
    let old = old.ok_or_else(|| Error::NotFound(id.clone()))?;
    check_presence(id, Some(old), Some(at))?;
    Ok(old)
}

fn check_presence(id: &ObjectId, old: Option<&Value>, at: Option<&At>) -> Result<(), Error> {
    let Some(at) = at else { return Ok(()) };
    let conflict = |message: String| Err(Error::Conflict { id: id.clone(), message });
    let Some(old) = old else {
        return conflict(format!("the object with UID {} does not exist any more", at.uid));
    };
    let (uid, version) = (&old["metadata"]["uid"], &old["metadata"]["resourceVersion"]);
    if uid.as_str() != Some(at.uid.as_str()) {
        return conflict(format!("its UID is {uid}, not \"{}\"", at.uid));
    }
    match &at.resource_version {
        Some(seen) if version.as_str() != Some(seen) => {
            conflict(format!("its resourceVersion is {version}, not {seen:?}"))
        }
        _ => Ok(()),
    }
}
