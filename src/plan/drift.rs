//! Whether an object that changed needs a plan, and who changed it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde_json::Value;

use super::{Decisions, FieldChange, Policy, Step, decide};
use crate::{
    kinds::{
        Agent, ConfigRepository, EgressPolicy, HarnessRun, Kind, Object, ObjectId, Session, Typed, meta,
    },
    ledger,
    manifest::Item,
};

/// True when a plan would write the object as a cache of its kind has it: read into the kind's type and written again.
/// `None`: it is gone. In doubt it is true, and the plan that follows looks at what the store holds.
#[must_use]
pub fn calls_for_plan(
    id: &ObjectId,
    item: &Item,
    there: Option<&Object>,
    ledger: &ledger::View,
    policy: &Policy,
) -> bool {
    let Some(there) = there else {
        return decide::is_prompt(id) || !alone(id, item, None, ledger, policy).is_empty();
    };
    let mut there = there.clone();
    let mut written = item.value().clone();
    // what the type writes in other words, as a duration, is no difference
    if let Some(mut read) = through_type(id.kind, written.clone()) {
        keep_empty(&written, &mut read);
        keep_empty(&written, &mut there.data);
        written = read;
    }
    let mut item = item.clone();
    Arc::make_mut(&mut item.object).value = written;
    !alone(id, &item, Some(&there), ledger, policy).is_empty()
}

/// The writes that one object needs.
fn alone(
    id: &ObjectId,
    item: &Item,
    there: Option<&Object>,
    ledger: &ledger::View,
    policy: &Policy,
) -> Vec<Step> {
    let mut decisions = Decisions::default();
    decide::one(id, item, there, ledger, policy, &mut decisions);
    decisions.applies
}

fn through_type(kind: Kind, value: Value) -> Option<Value> {
    fn of<K: Typed>(value: Value) -> Option<Value> {
        serde_json::to_value(serde_json::from_value::<K>(value).ok()?).ok()
    }
    match kind {
        Kind::ConfigRepository => of::<ConfigRepository>(value),
        Kind::EgressPolicy => of::<EgressPolicy>(value),
        Kind::Agent => of::<Agent>(value),
        Kind::Session => of::<Session>(value),
        Kind::HarnessRun => of::<HarnessRun>(value),
        Kind::ConfigMap => of::<ConfigMap>(value),
    }
}

/// Types leave out what is empty: where an author wrote an empty list or map, one that is missing is as good.
fn keep_empty(written: &Value, read: &mut Value) {
    let (Value::Object(written), Value::Object(read)) = (written, read) else { return };
    for (key, value) in written {
        match (value, read.get_mut(key)) {
            (Value::Array(list), None) if list.is_empty() => {
                read.insert(key.clone(), value.clone());
            }
            (Value::Object(map), None) if map.is_empty() => {
                read.insert(key.clone(), value.clone());
            }
            (value, Some(read)) => keep_empty(value, read),
            _ => {}
        }
    }
}

/// Which field managers besides the syncer made these changes, as far as the object tells; empty: nobody knows.
#[must_use]
pub fn writers(there: &Object, changes: &[FieldChange]) -> Vec<String> {
    let others = there.managed_fields().iter().filter(|entry| {
        entry.subresource.is_none() && entry.manager.as_deref().is_some_and(|name| name != meta::SYNCER)
    });
    let others: Vec<_> = others.collect();
    let owning = others.iter().filter(|entry| {
        let mut fields = Vec::new();
        if let Some(owned) = &entry.fields_v1 {
            leaves(&mut Vec::new(), &owned.0, &mut fields);
        }
        changes.iter().any(|change| fields.iter().any(|field| overlap(field, &change.field)))
    });
    let mut names: Vec<String> = owning.filter_map(|entry| entry.manager.clone()).collect();
    // whoever took a field away owns none
    if names.is_empty() {
        let last = others.iter().max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
        names.extend(last.and_then(|entry| entry.manager.clone()));
    }
    names.sort();
    names.dedup();
    names
}

/// The paths of a set of fields in the notation of `managedFields`, written as those of a [`FieldChange`].
fn leaves(at: &mut Vec<String>, owned: &Value, found: &mut Vec<String>) {
    let below = owned.as_object().into_iter().flatten();
    let below: Vec<_> =
        below.filter_map(|(key, value)| Some((key.strip_prefix("f:")?.to_owned(), value))).collect();
    if below.is_empty() && !at.is_empty() {
        found.push(at.join("."));
    }
    for (name, value) in below {
        at.push(name);
        leaves(at, value, found);
        at.pop();
    }
}

/// True when one of two paths is the other one or lies below it.
fn overlap(a: &str, b: &str) -> bool {
    let below =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    below(a, b) || below(b, a)
}
