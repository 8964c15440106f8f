//! The contract of the Objects port.

mod apply;
mod deletes;
mod reading;
mod validity;
mod versions;
mod writes;

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use kube::{
    ResourceExt,
    runtime::watcher::{self, Event},
};
use ostler::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::objects::{At, Error, Store},
};
use serde_json::{Value, json};

/// Where one case works: a store, and a namespace of it that nobody else uses.
pub(crate) struct Ground {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
}

macro_rules! cases {
    ($($module:ident: $($case:ident),*;)*) => {
        /// Runs every case, each on ground of its own. The name of a case is a good name of a namespace.
        pub(crate) async fn all(make: impl AsyncFn(&str) -> Ground) {
            $($(
                println!("case {}", stringify!($case));
                $module::$case(make(&stringify!($case).replace('_', "-")).await).await;
            )*)*
        }
    };
}

cases! {
    writes: create_gives_an_identity, create_refuses_a_second, spec_raises_the_generation,
        status_stands_apart, nothing_changed_nothing_written, preconditions_hold, merge_takes_away;
    apply: apply_creates_and_takes_back, apply_meets_other_owners, apply_leaves_what_others_own,
        apply_guards_against_recreation, update_takes_ownership;
    deletes: finalizers_hold_an_object, no_finalizer_after_the_mark, delete_of_a_missing_object;
    validity: schema_and_rules_refuse, unknown_fields_are_dropped, config_maps_keep_their_rules;
    reading: lists_are_ordered_and_filtered, pages_make_a_whole,
        pages_begin_where_one_ended, watch_begins_with_what_is, watch_tells_every_state,
        watch_sees_one_namespace;
    versions: versions_are_of_the_whole_store, of_many_writers_one_wins;
}

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

impl Ground {
    fn id(&self, kind: Kind, name: &str) -> ObjectId {
        ObjectId::new(kind, self.namespace.clone(), name.parse().unwrap())
    }

    fn agent_id(&self, name: &str) -> ObjectId {
        self.id(Kind::Agent, name)
    }

    fn object(&self, name: &str, body: Value) -> Object {
        let mut object = body;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(self.namespace);
        if object.get("kind").is_none() {
            object["apiVersion"] = json!("ostler.dev/v1alpha1");
            object["kind"] = json!("Agent");
        }
        serde_json::from_value(object).unwrap()
    }

    fn agent(&self, name: &str, image: &str) -> Object {
        self.object(name, json!({"spec": {"preset": "codex", "image": image}}))
    }

    fn config_map(&self, name: &str, body: Value) -> Object {
        let mut body = body;
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("ConfigMap");
        self.object(name, body)
    }

    async fn create(&self, name: &str, image: &str) -> Object {
        self.store.create(&self.agent(name, image), "maker").await.unwrap()
    }

    async fn apply(&self, name: &str, body: Value, manager: &str) -> Result<Object, Error> {
        self.store.apply(&self.object(name, body), manager, false, None).await
    }

    async fn patch(&self, object: &Object, patch: Value, manager: &str) -> Result<Object, Error> {
        let id = self.agent_id(&object.name_any());
        self.store.merge(&id, &any(object), &patch, manager).await
    }

    async fn read(&self, name: &str) -> Option<Object> {
        self.store.get(&self.agent_id(name)).await.unwrap()
    }

    fn watch(&self) -> Watch {
        Watch(self.store.watch(Kind::Agent, Some(self.namespace.clone())))
    }
}

struct Watch(BoxStream<'static, watcher::Result<Event<Object>>>);

impl Watch {
    async fn next(&mut self) -> Event<Object> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("the watch says something").expect("the watch goes on").expect("no error")
    }

    /// Reads to the end of the first part and returns the names.
    async fn listed(&mut self) -> Vec<String> {
        assert!(matches!(self.next().await, Event::Init));
        let mut names = Vec::new();
        loop {
            match self.next().await {
                Event::InitApply(object) => names.push(object.name_any()),
                Event::InitDone => return names,
                other => panic!("not part of a list: {other:?}"),
            }
        }
    }
}

/// A line for an event: what, who, which generation.
fn line(event: &Event<Object>) -> String {
    let line = |word: &str, object: &Object| {
        format!("{word} {} {}", object.name_any(), object.metadata.generation.unwrap_or_default())
    };
    match event {
        Event::Apply(object) => line("apply", object),
        Event::Delete(object) => line("delete", object),
        other => format!("{other:?}"),
    }
}

fn at(object: &Object) -> At {
    At::of(object).unwrap()
}

fn any(object: &Object) -> At {
    at(object).any_version()
}

fn json_of(object: &Object) -> Value {
    serde_json::to_value(object).unwrap()
}

fn version(object: &Object) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

fn owned(object: &Object, manager: &str, operation: &str) -> Value {
    let fields = json_of(object)["metadata"]["managedFields"].clone();
    let entries = fields.as_array().cloned().unwrap_or_default();
    let found = entries.iter().find(|entry| {
        entry["manager"] == manager && entry["operation"] == operation && entry.get("subresource").is_none()
    });
    found.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}
