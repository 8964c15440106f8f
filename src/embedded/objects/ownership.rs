//! Who owns which field: server-side apply and the book-keeping of `metadata.managedFields`.
//!
//! The rules are those of Kubernetes' structured merge, for maps that are granular and lists that are atomic. A manager
//! that applies owns what it applied, and what it no longer applies goes with it unless somebody else owns it; a manager
//! that updates owns what it changed.

use serde_json::{Map, Value, json};

use super::fields::{Difference, Fields, ListType, Path, Step, applied, dotted, index, item_step, list_at};

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, as an entry of `managedFields` knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Writer {
    pub(super) operation: Operation,
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) subresource: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    writer: Writer,
    time: String,
    fields: Fields,
}

/// A field that an apply would take from somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clash {
    pub(super) manager: String,
    pub(super) field: String,
}

/// The owners of an object's fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Owners(Vec<Entry>);

impl Owners {
    /// Reads `metadata.managedFields` of a stored object.
    pub(super) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
        Self(entries.iter().filter_map(Entry::from_json).collect())
    }

    /// The same as `metadata.managedFields`.
    pub(super) fn to_json(&self) -> Value {
        Value::Array(self.0.iter().map(Entry::to_json).collect())
    }

    /// Merges what a manager applies into the live content, and takes away what it applied before and no longer does.
    ///
    /// Both contents are without what only the store writes; `config` has no nulls.
    ///
    /// # Errors
    /// The fields that others own with other values, unless `force`.
    pub(super) fn apply(
        &mut self,
        live: &Value,
        config: &Value,
        writer: &Writer,
        force: bool,
        now: &str,
    ) -> Result<Value, Vec<Clash>> {
        let mut merged = live.clone();
        overlay(&mut merged, config, &mut Vec::new());
        let taken = Difference::between(live, &merged).set;
        let clashes = self.clashes(&taken, writer);
        if !clashes.is_empty() && !force {
            return Err(clashes);
        }
        for entry in self.0.iter_mut().filter(|entry| entry.writer != *writer) {
            entry.fields.subtract(&taken);
        }
        let now_applied = applied(config);
        let before = self.replace(writer, now_applied.clone(), now);
        for path in before.iter().filter(|path| !now_applied.reaches(path)) {
            if !self.owned(path) {
                remove(&mut merged, path, &|container| self.owned(container));
            }
        }
        self.forget_missing(&merged, writer.subresource.as_deref());
        Ok(merged)
    }

    /// Books the difference between two contents to a manager that wrote it.
    pub(super) fn update(&mut self, old: &Value, new: &Value, writer: &Writer, now: &str) {
        let difference = Difference::between(old, new);
        if difference.is_empty() {
            return;
        }
        for entry in &mut self.0 {
            entry.fields.subtract(&difference.set);
            entry.fields.subtract(&difference.removed);
        }
        let mut own = self.fields(writer).cloned().unwrap_or_default();
        own.add(&difference.set);
        self.replace(writer, own, now);
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    fn clashes(&self, taken: &Fields, writer: &Writer) -> Vec<Clash> {
        let mut clashes = Vec::new();
        for entry in self.0.iter().filter(|entry| entry.writer != *writer) {
            let manager = match entry.writer.operation {
                Operation::Apply => format!("{:?}", entry.writer.manager),
                Operation::Update => {
                    format!("{:?} using {}", entry.writer.manager, entry.writer.api_version)
                }
            };
            clashes.extend(
                entry
                    .fields
                    .intersection(taken)
                    .iter()
                    .map(|path| Clash { manager: manager.clone(), field: dotted(path) }),
            );
        }
        clashes
    }

    fn fields(&self, writer: &Writer) -> Option<&Fields> {
        self.0.iter().find(|entry| entry.writer == *writer).map(|entry| &entry.fields)
    }

    fn owned(&self, path: &[Step]) -> bool {
        self.0.iter().any(|entry| entry.fields.reaches(path))
    }

    /// Gives a writer these fields and returns those it had. The time moves only when they differ.
    fn replace(&mut self, writer: &Writer, fields: Fields, now: &str) -> Fields {
        let at = self.0.iter().position(|entry| entry.writer == *writer);
        let before = match at {
            Some(at) if self.0[at].fields == fields => return fields,
            Some(at) => self.0.remove(at).fields,
            None => Fields::default(),
        };
        if !fields.is_empty() {
            self.0.push(Entry { writer: writer.clone(), time: now.to_owned(), fields });
            self.0.sort_by(|a, b| a.writer.cmp(&b.writer));
        }
        before
    }

    fn forget_missing(&mut self, content: &Value, subresource: Option<&str>) {
        let present = index(content);
        for entry in self.0.iter_mut().filter(|entry| entry.writer.subresource.as_deref() == subresource) {
            entry.fields.keep_only(|path| present.contains_key(path));
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }
}

impl Entry {
    fn to_json(&self) -> Value {
        let mut json = json!({
            "manager": self.writer.manager,
            "operation": self.writer.operation.as_str(),
            "apiVersion": self.writer.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if let Some(subresource) = &self.writer.subresource {
            json["subresource"] = json!(subresource);
        }
        json
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let operation = match json["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let (manager, api_version) = (text("manager")?, text("apiVersion")?);
        let writer = Writer { operation, manager, api_version, subresource: text("subresource") };
        Some(Self { writer, time: text("time")?, fields: Fields::from_json(&json["fieldsV1"]) })
    }
}

/// Lays `config` over `live`: maps are merged, sets and keyed lists joined with the applier's items first.
fn overlay(live: &mut Value, config: &Value, path: &mut Path) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) => {
            for (key, value) in config {
                path.push(format!("f:{key}"));
                match live.get_mut(key) {
                    Some(inner) => overlay(inner, value, path),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(config)) if list_at(path) != ListType::Atomic => {
            let list = list_at(path);
            let mut joined = Vec::new();
            for item in config {
                path.push(item_step(list, item));
                let same = live.iter().position(|live| item_step(list, live) == path[path.len() - 1]);
                let mut base = same.map_or(Value::Null, |at| live.remove(at));
                overlay(&mut base, item, path);
                joined.push(base);
                path.pop();
            }
            joined.append(live);
            *live = joined;
        }
        (live, config) => *live = config.clone(),
    }
}

/// Removes a field, and the containers that it leaves empty and nobody owns. A container with content stays.
fn remove(value: &mut Value, path: &[Step], owned: &dyn Fn(&[Step]) -> bool) {
    remove_below(value, path, 0, owned);
}

fn remove_below(value: &mut Value, path: &[Step], depth: usize, owned: &dyn Fn(&[Step]) -> bool) {
    let Some(child) = child(value, path, depth) else { return };
    let is_last = depth + 1 == path.len();
    if !is_last {
        remove_below(child, path, depth + 1, owned);
    }
    let gone = match child {
        Value::Object(map) => map.is_empty() && path[depth] != "f:metadata",
        Value::Array(items) => items.is_empty() || is_last,
        _ => is_last,
    };
    if gone && (is_last || !owned(&path[..=depth])) {
        detach(value, path, depth);
    }
}

fn child<'a>(value: &'a mut Value, path: &[Step], depth: usize) -> Option<&'a mut Value> {
    let step = &path[depth];
    match value {
        Value::Object(map) => map.get_mut(step.strip_prefix("f:")?),
        Value::Array(items) => {
            let list = list_at(&path[..depth]);
            items.iter_mut().find(|item| item_step(list, item) == *step)
        }
        _ => None,
    }
}

fn detach(value: &mut Value, path: &[Step], depth: usize) {
    let step = &path[depth];
    match value {
        Value::Object(map) => {
            step.strip_prefix("f:").and_then(|key| map.shift_remove(key));
        }
        Value::Array(items) => {
            let list = list_at(&path[..depth]);
            items.retain(|item| item_step(list, item) != *step);
        }
        _ => {}
    }
}

/// A copy without nulls in maps: in an apply a null says nothing.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// JSON merge patch, RFC 7386.
pub(super) fn merge_patch(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_else(Map::new);
    for (key, value) in patch {
        if value.is_null() {
            merged.shift_remove(key);
        } else {
            let inner = merge_patch(merged.get(key).unwrap_or(&Value::Null), value);
            merged.insert(key.clone(), inner);
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests;
