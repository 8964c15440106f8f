//! What was seen of objects last, to tell news from other writes.

use std::collections::HashMap;

use kube::{Resource, runtime::reflector::ObjectRef};

/// The part of each object, a `V`, that somebody acts on.
pub(super) struct News<K: Resource, V>(HashMap<ObjectRef<K>, V>);

impl<K: Resource, V> Default for News<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Resource<DynamicType = ()> + Clone, V: PartialEq> News<K, V> {
    /// What was seen of it last.
    pub(super) fn last(&self, reference: &ObjectRef<K>) -> Option<&V> {
        self.0.get(reference)
    }

    /// True when this is another than before; `None`: the object is gone.
    pub(super) fn is(&mut self, reference: &ObjectRef<K>, now: Option<V>) -> bool {
        match now {
            Some(now) if self.0.get(reference) == Some(&now) => false,
            Some(now) => {
                self.0.insert(reference.clone(), now);
                true
            }
            None => {
                self.0.remove(reference);
                true
            }
        }
    }
}
