//! What the store holds.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::Policy;
use crate::{
    kinds::{Kind, Object, ObjectId, Phase, meta},
    ledger::digest,
    manifest::{Desired, Item},
    ports::objects::{At, id_of},
};

/// What of a status plans look at: whether a run has begun, and with which digest.
const STATUS: [&str; 3] = ["phase", "claim", "digest"];

/// The objects of the namespaces that a repository may write to.
#[derive(Debug, Clone, Default)]
pub struct Live {
    objects: BTreeMap<ObjectId, Object>,
}

impl Live {
    /// Takes objects as the store lists them. `ConfigRepository` objects and names that are none of ours are left out.
    #[must_use]
    pub fn new(objects: impl IntoIterator<Item = (Kind, Object)>) -> Self {
        let known = objects.into_iter().filter(|(kind, _)| *kind != Kind::ConfigRepository);
        Self { objects: known.filter_map(|(kind, object)| Some((id_of(kind, &object)?, object))).collect() }
    }

    /// An object without the parts of its status at which no plan looks.
    #[must_use]
    pub fn trimmed(mut object: Object) -> Object {
        if let Some(Value::Object(status)) = object.data.get_mut("status") {
            status.retain(|field, _| STATUS.contains(&field.as_str()));
        }
        object
    }

    /// What the store would hold had it just applied `desired`: the left side of a plan between two revisions.
    ///
    /// # Panics
    /// Never: a manifest that was read is an object.
    #[must_use]
    pub fn assumed(desired: &Desired, policy: &Policy) -> Self {
        let object = |(id, item): (&ObjectId, &Item)| {
            let mut body = super::decide::body(item, policy);
            let fields = super::difference::owned_by(&body);
            let managed = json!([{"manager": meta::SYNCER, "operation": "Apply", "fieldsV1": fields}]);
            // any stable UID does: nothing is written
            let uid = digest::hex(id.to_string().as_bytes()).chars().take(64).collect::<String>();
            body["metadata"]["uid"] = uid.into();
            body["metadata"]["managedFields"] = managed;
            let object = serde_json::from_value(body).expect("a manifest that was read is an object");
            (id.clone(), object)
        };
        Self { objects: desired.objects.iter().map(object).collect() }
    }

    /// The object, if it is there.
    #[must_use]
    pub fn get(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.get(id)
    }

    /// All objects, by id.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectId, &Object)> {
        self.objects.iter()
    }
}

pub(super) fn annotation<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.annotations().get(key).map(String::as_str)
}

/// True when the object says that it comes from this very source, and our manager wrote it.
pub(super) fn is_ours(object: &Object, policy: &Policy) -> bool {
    let managed = object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(meta::SYNCER));
    managed && annotation(object, meta::SOURCE_UID) == Some(policy.uid.as_str())
}

pub(super) fn at(object: &Object) -> Option<At> {
    At::of(object)
}

/// True when people asked to leave the object alone.
pub(super) fn left_alone(object: &Object) -> bool {
    annotation(object, meta::RECONCILE) == Some("disabled")
}

pub(super) fn phase(object: &Object) -> Option<Phase> {
    serde_json::from_value(object.data.pointer("/status/phase")?.clone()).ok()
}

/// True when the controller has asked for the run's claim: from then on the digest counts.
pub(super) fn is_claimed(object: &Object) -> bool {
    object.data.pointer("/status/claim").is_some() || phase(object).is_some_and(Phase::is_terminal)
}

pub(super) fn spec(object: &Object) -> Option<&Value> {
    object.data.get("spec")
}
