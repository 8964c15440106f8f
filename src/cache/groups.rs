//! Objects of a cache that belong together, such as the runs of a session: found without a look at all others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

/// Objects by name.
type Group<K> = BTreeMap<String, Arc<K>>;
/// A namespace, and what the objects have in common.
type Key = (String, String);

/// The groups of a cache, as it is after each event.
pub(super) struct Groups<K: Resource> {
    of: fn(&K) -> Option<&str>,
    held: RwLock<Held<K>>,
}

struct Held<K: Resource> {
    groups: HashMap<Key, Group<K>>,
    /// Where each object is, to find it when it changes its group or is gone.
    places: HashMap<ObjectRef<K>, Key>,
}

impl<K: Resource<DynamicType = ()> + Clone> Groups<K> {
    /// Of objects for which there is `Some`.
    pub(super) fn new(of: fn(&K) -> Option<&str>) -> Self {
        Self { of, held: RwLock::new(Held { groups: HashMap::new(), places: HashMap::new() }) }
    }

    /// The objects of a group, by name.
    pub(super) fn get(&self, namespace: &str, group: &str) -> Vec<Arc<K>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let group = held.groups.get(&(namespace.to_owned(), group.to_owned()));
        group.map(|group| group.values().cloned().collect()).unwrap_or_default()
    }

    /// Does as `store` did with an event.
    pub(super) fn follow(&self, event: &Event<K>, store: &Store<K>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) | Event::Delete(object) => {
                let reference = ObjectRef::from_obj(object);
                let now = store.get(&reference);
                held.put(
                    reference,
                    now.as_ref().and_then(|object| Some((self.key(object)?, Arc::clone(object)))),
                );
            }
            Event::InitDone => {
                *held = Held { groups: HashMap::new(), places: HashMap::new() };
                for object in store.state() {
                    if let Some(key) = self.key(&object) {
                        held.put(ObjectRef::from_obj(object.as_ref()), Some((key, object)));
                    }
                }
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }

    fn key(&self, object: &K) -> Option<Key> {
        Some((object.namespace().unwrap_or_default(), (self.of)(object)?.to_owned()))
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Held<K> {
    /// The object belongs there now, or nowhere.
    fn put(&mut self, reference: ObjectRef<K>, now: Option<(Key, Arc<K>)>) {
        let before = self.places.remove(&reference);
        if let Some(key) = before.filter(|key| now.as_ref().is_none_or(|(now, _)| now != key))
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.remove(&reference.name);
            if group.is_empty() {
                self.groups.remove(&key);
            }
        }
        if let Some((key, object)) = now {
            self.groups.entry(key.clone()).or_default().insert(reference.name.clone(), object);
            self.places.insert(reference, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;
    use crate::kinds::HarnessRun;

    fn run(name: &str, session: Option<&str>) -> HarnessRun {
        let spec = session.map_or_else(|| json!({}), |name| json!({"sessionRef": {"name": name}}));
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": name}, "spec": spec
        }))
        .unwrap()
    }

    #[test]
    fn groups_are_what_the_store_has() {
        let (store, mut writer) = reflector::store::<HarnessRun>();
        let groups = Groups::new(|run: &HarnessRun| run.spec.session_ref.as_ref().map(|s| s.name.as_str()));
        let steps = vec![
            (Event::Apply(run("a", Some("s"))), ["a", "", ""]),
            (Event::Apply(run("b", Some("s"))), ["a b", "", ""]),
            (Event::Apply(run("c", None)), ["a b", "", ""]),
            (Event::Apply(run("a", Some("t"))), ["b", "a", ""]),
            (Event::Delete(run("b", Some("s"))), ["", "a", ""]),
            (Event::Init, ["", "a", ""]),
            (Event::InitApply(run("d", Some("u"))), ["", "a", ""]),
            (Event::InitApply(run("b", Some("s"))), ["", "a", ""]),
            (Event::InitDone, ["b", "", "d"]),
        ];
        for (number, (event, expected)) in steps.into_iter().enumerate() {
            writer.apply_watcher_event(&event);
            groups.follow(&event, &store);
            let names = |session| {
                let group = groups.get("team", session);
                group.iter().map(|run| run.name_any()).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(["s", "t", "u"].map(names), expected, "step {number}");
            assert!(groups.get("other", "s").is_empty());
        }
    }
}
