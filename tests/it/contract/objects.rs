//! The contract of the Objects port.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use kube::{
    ResourceExt,
    runtime::watcher::{self, Event},
};
use ostler::{
    class::Class,
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
    ($($case:ident),* $(,)?) => {
        /// Runs every case, each on ground of its own. The name of a case is a good name of a namespace.
        pub(crate) async fn all(make: impl AsyncFn(&str) -> Ground) {
            $(
                println!("case {}", stringify!($case));
                $case(make(&stringify!($case).replace('_', "-")).await).await;
            )*
        }
    };
}

cases![
    create_gives_an_identity,
    create_refuses_a_second,
    spec_raises_the_generation,
    status_stands_apart,
    nothing_changed_nothing_written,
    preconditions_hold,
    merge_takes_away,
    apply_creates_and_takes_back,
    apply_meets_other_owners,
    apply_leaves_what_others_own,
    apply_guards_against_recreation,
    update_takes_ownership,
    finalizers_hold_an_object,
    no_finalizer_after_the_mark,
    delete_of_a_missing_object,
    schema_and_rules_refuse,
    unknown_fields_are_dropped,
    config_maps_keep_their_rules,
    lists_are_ordered_and_filtered,
    watch_begins_with_what_is,
    watch_tells_every_state,
    watch_sees_one_namespace,
    versions_are_of_the_whole_store,
    of_many_writers_one_wins,
];

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

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

async fn create_gives_an_identity(ground: Ground) {
    let mut wanted = ground.agent("a", "i1");
    wanted.data["status"] = json!({"observedGeneration": 7});
    wanted.metadata.uid = Some("mine".to_owned());
    wanted.metadata.generation = Some(9);
    wanted.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    let made = ground.store.create(&wanted, "maker").await.unwrap();
    assert_ne!(made.uid().unwrap(), "mine");
    assert_eq!(made.metadata.generation, Some(1));
    assert!(made.metadata.creation_timestamp.is_some());
    assert_eq!(made.labels()["app"], "x");
    assert_eq!(made.data, json!({"spec": {"preset": "codex", "image": "i1"}}), "status is not the creator's");
    assert_eq!(made.types.as_ref().unwrap().kind, "Agent");
    assert_eq!(owned(&made, "maker", "Update")["f:spec"]["f:image"], json!({}));
    assert_eq!(ground.read("a").await.unwrap(), made);
    assert_eq!(ground.read("b").await, None);
}

async fn create_refuses_a_second(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let error = ground.store.create(&ground.agent("a", "i2"), "other").await.unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists(id) if *id == ground.agent_id("a")), "{error:?}");
    assert_eq!(error.class(), Class::Conflict);
    assert_eq!(ground.read("a").await.unwrap(), made);
    ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap();
    assert_ne!(ground.create("a", "i1").await.uid(), made.uid(), "a new object has a new UID");
}

async fn spec_raises_the_generation(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let labelled = ground.patch(&made, json!({"metadata": {"labels": {"l": "1"}}}), "m").await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(1));
    assert!(version(&labelled) > version(&made));
    let changed = ground.patch(&made, json!({"spec": {"image": "i2"}}), "m").await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    assert!(version(&changed) > version(&labelled));
    assert_eq!(changed.uid(), made.uid());
    assert_eq!(changed.metadata.creation_timestamp, made.metadata.creation_timestamp);
    let stubborn = ground.patch(&made, json!({"metadata": {"generation": 99}, "spec": {"image": "i3"}}), "m");
    assert_eq!(stubborn.await.unwrap().metadata.generation, Some(3));
}

async fn status_stands_apart(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let id = ground.agent_id("a");
    let written = ground
        .store
        .write_status(&id, &at(&made), &json!({"observedGeneration": 1}), "controller")
        .await
        .unwrap();
    assert_eq!(written.data["status"], json!({"observedGeneration": 1}));
    assert_eq!(written.data["spec"], made.data["spec"]);
    assert_eq!(written.metadata.generation, Some(1), "status does not raise the generation");
    assert!(version(&written) > version(&made));
    let entry = json_of(&written)["metadata"]["managedFields"].clone();
    let entry =
        entry.as_array().unwrap().iter().find(|entry| entry["manager"] == "controller").unwrap().clone();
    assert_eq!(entry["subresource"], "status");

    let merged = ground.patch(&made, json!({"status": null, "spec": {"image": "i2"}}), "m").await.unwrap();
    assert_eq!(merged.data["status"], json!({"observedGeneration": 1}), "merge does not reach the status");
    let applied =
        ground.apply("a", json!({"status": {"observedGeneration": 5}, "spec": {"image": "i2"}}), "s");
    assert_eq!(applied.await.unwrap().data["status"], json!({"observedGeneration": 1}));

    let again = json!({"observedGeneration": 2});
    let stale = ground.store.write_status(&id, &at(&made), &again, "controller").await.unwrap_err();
    assert!(matches!(stale, Error::Conflict { .. }), "{stale:?}");
    let condition = |status: &str| {
        json!({"conditions": [{"type": "Ready", "status": status, "reason": "Ok", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    };
    for status in ["False", "True"] {
        let written =
            ground.store.write_status(&id, &any(&made), &condition(status), "controller").await.unwrap();
        assert_eq!(written.data["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(written.data["status"]["conditions"][0]["status"], status);
        assert_eq!(written.data["status"]["observedGeneration"], 1);
    }
}

async fn nothing_changed_nothing_written(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let id = ground.agent_id("a");
    let applied = ground.apply("a", json!({"spec": {"image": "i1"}}), "s").await.unwrap();
    assert_ne!(applied.resource_version(), made.resource_version(), "a new owner is a change");
    let status = json!({"observedGeneration": 1});
    let before = ground.store.write_status(&id, &any(&made), &status, "controller").await.unwrap();
    let mut watch = ground.watch();
    assert_eq!(watch.listed().await, ["a"]);

    let same = ground.apply("a", json!({"spec": {"image": "i1"}}), "s").await.unwrap();
    assert_eq!(same, before);
    assert_eq!(ground.patch(&made, json!({"spec": {"image": "i1"}}), "m").await.unwrap(), before);
    assert_eq!(ground.patch(&made, json!({}), "m").await.unwrap(), before);
    let same = ground.store.write_status(&id, &any(&made), &status, "other").await.unwrap();
    assert_eq!(same, before);
    assert_eq!(ground.read("a").await.unwrap(), before);

    ground.create("b", "i1").await;
    assert_eq!(line(&watch.next().await), "apply b 1", "the watch heard nothing of them");
}

async fn preconditions_hold(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let id = ground.agent_id("a");
    let newer = ground.patch(&made, json!({"spec": {"image": "i2"}}), "m").await.unwrap();
    let patch = json!({"spec": {"image": "i3"}});
    let stale = at(&made);
    let stranger =
        At { uid: "00000000-0000-4000-8000-000000000000".parse().unwrap(), resource_version: None };
    for wrong in [&stale, &stranger] {
        let errors = [
            ground.store.merge(&id, wrong, &patch, "m").await.map(drop),
            ground.store.write_status(&id, wrong, &json!({"observedGeneration": 1}), "m").await.map(drop),
            ground.store.delete(&id, wrong).await,
            ground.store.apply(&ground.agent("a", "i2"), "s", true, Some(wrong)).await.map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
            assert_eq!(error.class(), Class::Conflict);
        }
    }
    assert_eq!(ground.read("a").await.unwrap(), newer);
    let last = ground.store.merge(&id, &at(&newer), &patch, "m").await.unwrap();
    assert_eq!(last.data["spec"]["image"], "i3");
    ground.store.delete(&id, &at(&last)).await.unwrap();
    assert_eq!(ground.read("a").await, None);
}

async fn merge_takes_away(ground: Ground) {
    let body = json!({"metadata": {"annotations": {"example.com/a": "1", "example.com/b": "2"}},
        "spec": {"preset": "codex", "model": {"id": "m", "baseUrl": "https://m.example.com"}, "args": ["a", "b"]}});
    let made = ground.store.create(&ground.object("a", body), "maker").await.unwrap();
    let patch = json!({"metadata": {"annotations": {"example.com/a": null}},
        "spec": {"model": {"id": null}, "args": ["c"]}});
    let merged = ground.patch(&made, patch, "m").await.unwrap();
    assert_eq!(merged.annotations().keys().collect::<Vec<_>>(), ["example.com/b"]);
    assert_eq!(merged.data["spec"]["model"], json!({"baseUrl": "https://m.example.com"}));
    assert_eq!(merged.data["spec"]["args"], json!(["c"]), "a list is replaced");
    let missing =
        ground.store.merge(&ground.agent_id("none"), &at(&made), &json!({}), "m").await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing:?}");
}

async fn apply_creates_and_takes_back(ground: Ground) {
    let first = json!({"metadata": {"labels": {"l": "1"}},
        "spec": {"preset": "codex", "image": "i1", "model": {"id": "m"}, "args": ["x"]}});
    let made = ground.apply("a", first, "s").await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(
        owned(&made, "s", "Apply"),
        json!({"f:metadata": {"f:labels": {"f:l": {}}},
            "f:spec": {"f:preset": {}, "f:image": {}, "f:model": {"f:id": {}}, "f:args": {}}})
    );
    let second = ground.apply("a", json!({"spec": {"preset": "codex", "args": ["y"]}}), "s").await.unwrap();
    assert_eq!(second.data["spec"], json!({"preset": "codex", "args": ["y"]}));
    assert!(second.labels().is_empty());
    assert_eq!(second.metadata.generation, Some(2));
    assert_eq!(second.uid(), made.uid());
}

async fn apply_meets_other_owners(ground: Ground) {
    ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "first").await.unwrap();
    let wanted = json!({"spec": {"preset": "codex", "image": "i2"}});
    let error = ground.apply("a", wanted.clone(), "second").await.unwrap_err();
    let Error::Conflict { id, message } = &error else { panic!("{error:?}") };
    assert_eq!(*id, ground.agent_id("a"));
    assert!(message.contains("\"first\"") && message.contains(".spec.image"), "{message}");
    assert!(!message.contains(".spec.preset"), "the same value is no conflict: {message}");
    let forced = ground.store.apply(&ground.object("a", wanted), "second", true, None).await.unwrap();
    assert_eq!(forced.data["spec"]["image"], "i2");
    assert_eq!(owned(&forced, "first", "Apply"), json!({"f:spec": {"f:preset": {}}}));
}

async fn apply_leaves_what_others_own(ground: Ground) {
    let made = ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "s").await.unwrap();
    ground
        .patch(
            &made,
            json!({"metadata": {"annotations": {"example.com/by": "m"}}, "spec": {"timeout": "5m"}}),
            "m",
        )
        .await
        .unwrap();
    ground.apply("a", json!({"spec": {"image": "i1"}}), "other").await.unwrap();
    let left = ground.apply("a", json!({"spec": {"preset": "codex"}}), "s").await.unwrap();
    assert_eq!(left.data["spec"], json!({"preset": "codex", "image": "i1", "timeout": "5m"}));
    assert_eq!(left.annotations()["example.com/by"], "m");
}

async fn apply_guards_against_recreation(ground: Ground) {
    let made = ground.create("a", "i1").await;
    ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap();
    let error = ground.store.apply(&ground.agent("a", "i2"), "s", true, Some(&any(&made))).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert_eq!(ground.read("a").await, None, "nothing was created");
    let again = ground.create("a", "i3").await;
    let error = ground.store.apply(&ground.agent("a", "i2"), "s", true, Some(&any(&made))).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    let applied = ground.store.apply(&ground.agent("a", "i2"), "s", true, Some(&any(&again))).await.unwrap();
    assert_eq!(applied.data["spec"]["image"], "i2");
}

async fn update_takes_ownership(ground: Ground) {
    let made = ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "s").await.unwrap();
    let patched = ground.patch(&made, json!({"spec": {"image": "i2"}}), "person").await.unwrap();
    assert_eq!(owned(&patched, "s", "Apply"), json!({"f:spec": {"f:preset": {}}}), "drift can be seen");
    assert_eq!(owned(&patched, "person", "Update"), json!({"f:spec": {"f:image": {}}}));
    let error =
        ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "s").await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { message, .. } if message.contains("\"person\"")), "{error:?}");
}

async fn finalizers_hold_an_object(ground: Ground) {
    let body =
        json!({"metadata": {"finalizers": ["ostler.dev/x", "ostler.dev/y"]}, "spec": {"preset": "codex"}});
    let made = ground.store.create(&ground.object("a", body), "maker").await.unwrap();
    let id = ground.agent_id("a");
    let mut watch = ground.watch();
    watch.listed().await;
    ground.store.delete(&id, &at(&made)).await.unwrap();
    let marked = ground.read("a").await.unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.generation, Some(2));
    ground.store.delete(&id, &any(&made)).await.unwrap();
    assert_eq!(ground.read("a").await.unwrap(), marked, "a second delete changes nothing");
    let error = ground.store.create(&ground.agent("a", "i1"), "maker").await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");

    let half = ground.patch(&made, json!({"metadata": {"finalizers": ["ostler.dev/y"]}}), "m").await.unwrap();
    assert_eq!(half.finalizers(), ["ostler.dev/y"]);
    ground.store.write_status(&id, &any(&made), &json!({"observedGeneration": 2}), "c").await.unwrap();
    ground.patch(&made, json!({"metadata": {"finalizers": null}}), "m").await.unwrap();
    assert_eq!(ground.read("a").await, None);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.starts_with("delete")) {
        lines.push(line(&watch.next().await));
    }
    assert_eq!(lines, ["apply a 2", "apply a 2", "apply a 2", "delete a 2"]);
    let gone = ground.store.delete(&id, &any(&made)).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound(_)), "{gone:?}");
}

async fn no_finalizer_after_the_mark(ground: Ground) {
    let body = json!({"metadata": {"finalizers": ["ostler.dev/x"]}, "spec": {"preset": "codex"}});
    let made = ground.store.create(&ground.object("a", body), "maker").await.unwrap();
    ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap();
    let more = json!({"metadata": {"finalizers": ["ostler.dev/x", "ostler.dev/z"]}});
    let error = ground.patch(&made, more, "m").await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    let applied =
        ground.apply("a", json!({"metadata": {"finalizers": ["ostler.dev/z"]}, "spec": {}}), "s").await;
    assert!(matches!(applied, Err(Error::Invalid { .. })), "{applied:?}");
    let changed = ground.patch(&made, json!({"spec": {"image": "i9"}}), "m").await.unwrap();
    assert_eq!(changed.data["spec"]["image"], "i9", "the rest can still be written");
}

async fn delete_of_a_missing_object(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let mut watch = ground.watch();
    watch.listed().await;
    ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap();
    let Event::Delete(last) = watch.next().await else { panic!("a delete was expected") };
    assert_eq!(last.data, made.data, "the event has the last state");
    assert!(version(&last) > version(&made), "with a version of its own");
    let error = ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    let missing =
        ground.store.write_status(&ground.agent_id("a"), &any(&made), &json!({}), "m").await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing:?}");
}

async fn schema_and_rules_refuse(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let bad = [
        json!({"spec": {"preset": "nonsense"}}),
        json!({"spec": {"preset": "codex", "args": "not a list"}}),
        json!({"spec": {"preset": "command"}}),
        json!({"metadata": {"labels": {"bad key!": "x"}}, "spec": {"preset": "codex"}}),
    ];
    for body in bad {
        let object = ground.object("b", body.clone());
        for error in [
            ground.store.create(&object, "m").await.unwrap_err(),
            ground.store.apply(&object, "m", true, None).await.unwrap_err(),
            ground.patch(&made, body.clone(), "m").await.unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Invalid, "{error:?} of {body}");
        }
    }
    assert_eq!(ground.read("b").await, None);
    let error = ground.patch(&made, json!({"spec": {"timeout": 7}}), "m").await.unwrap_err();
    let Error::Invalid { id, causes } = &error else { panic!("{error:?}") };
    assert_eq!(*id, ground.agent_id("a"));
    assert!(causes.iter().any(|cause| cause.contains("spec.timeout")), "{causes:?}");
    let status = json!({"observedGeneration": "one"});
    let error =
        ground.store.write_status(&ground.agent_id("a"), &any(&made), &status, "m").await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert_eq!(ground.read("a").await.unwrap(), made);
}

async fn unknown_fields_are_dropped(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let patched = ground.patch(&made, json!({"spec": {"bogus": 1}, "top": 1}), "m").await.unwrap();
    assert_eq!(patched, made, "nothing that is known changed");
}

async fn config_maps_keep_their_rules(ground: Ground) {
    let id = ground.id(Kind::ConfigMap, "cm");
    let body = json!({"data": {"prompt": "do it"}, "immutable": true});
    let made = ground.store.create(&ground.config_map("cm", body.clone()), "m").await.unwrap();
    assert_eq!(made.data, body);
    assert_eq!(made.metadata.generation, None, "as on an API server");
    for patch in [json!({"data": {"prompt": "else"}}), json!({"immutable": null}), json!({"data": null})] {
        let error = ground.store.merge(&id, &any(&made), &patch, "m").await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?} of {patch}");
    }
    let labelled = json!({"metadata": {"labels": {"l": "1"}}});
    ground.store.merge(&id, &any(&made), &labelled, "m").await.unwrap();
    let big = json!({"data": {"a": "x".repeat(700_000), "b": "x".repeat(700_000)}});
    let error = ground.store.create(&ground.config_map("big", big), "m").await.unwrap_err();
    assert_eq!(error.class(), Class::Invalid, "{error:?}");
    let key = ground.config_map("key", json!({"data": {"a/b": "x"}}));
    let error = ground.store.create(&key, "m").await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
}

async fn lists_are_ordered_and_filtered(ground: Ground) {
    for name in ["b", "a-b", "a", "a.b"] {
        ground.create(name, "i1").await;
    }
    ground.store.create(&ground.config_map("z", json!({})), "m").await.unwrap();
    let names = |objects: Vec<Object>| objects.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let listed = ground.store.list(Kind::Agent, Some(&ground.namespace)).await.unwrap();
    assert_eq!(names(listed), ["a", "a-b", "a.b", "b"]);
    let all = ground.store.list(Kind::Agent, None).await.unwrap();
    let ours: Vec<Object> = all
        .into_iter()
        .filter(|object| object.namespace().as_deref() == Some(ground.namespace.as_str()))
        .collect();
    assert_eq!(names(ours).len(), 4);
    let elsewhere: Namespace = "nobody-is-here".parse().unwrap();
    assert!(ground.store.list(Kind::Agent, Some(&elsewhere)).await.unwrap().is_empty());
}

async fn watch_begins_with_what_is(ground: Ground) {
    assert!(ground.watch().listed().await.is_empty());
    for name in ["a", "b"] {
        ground.create(name, "i1").await;
    }
    let mut names = ground.watch().listed().await;
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

async fn watch_tells_every_state(ground: Ground) {
    let mut watch = ground.watch();
    watch.listed().await;
    let made = ground.create("a", "i1").await;
    let mut last = made.clone();
    for image in ["i2", "i3"] {
        last = ground.patch(&last, json!({"spec": {"image": image}}), "m").await.unwrap();
    }
    ground.store.delete(&ground.agent_id("a"), &at(&last)).await.unwrap();
    ground.create("a", "i4").await;
    let mut lines = Vec::new();
    let mut versions = Vec::new();
    for _ in 0..5 {
        let event = watch.next().await;
        lines.push(line(&event));
        let (Event::Apply(object) | Event::Delete(object)) = event else { panic!("a change was expected") };
        versions.push(version(&object));
    }
    assert_eq!(lines, ["apply a 1", "apply a 2", "apply a 3", "delete a 3", "apply a 1"]);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

async fn watch_sees_one_namespace(ground: Ground) {
    let elsewhere: Namespace = "nobody-is-here".parse().unwrap();
    let mut other = Watch(ground.store.watch(Kind::Agent, Some(elsewhere)));
    let mut other_kind = Watch(ground.store.watch(Kind::Session, Some(ground.namespace.clone())));
    other.listed().await;
    other_kind.listed().await;
    let mut here = ground.watch();
    here.listed().await;
    ground.create("a", "i1").await;
    assert_eq!(line(&here.next().await), "apply a 1");
    for silent in [&mut other, &mut other_kind] {
        assert!(futures::poll!(silent.0.next()).is_pending());
    }
}

async fn versions_are_of_the_whole_store(ground: Ground) {
    let agent = ground.create("a", "i1").await;
    let map = ground.store.create(&ground.config_map("a", json!({})), "m").await.unwrap();
    let again = ground.patch(&agent, json!({"spec": {"image": "i2"}}), "m").await.unwrap();
    assert!(version(&agent) < version(&map) && version(&map) < version(&again));
}

async fn of_many_writers_one_wins(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let id = ground.agent_id("a");
    let (seen, patch) = (at(&made), |n: usize| json!({"spec": {"image": format!("from-{n}")}}));
    let tries = (0..16).map(|n| {
        let (store, id, seen) = (&ground.store, &id, &seen);
        async move { store.merge(id, seen, &patch(n), "m").await }
    });
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .all(|error| matches!(error, Error::Conflict { .. }))
    );
    let second = ground.agent("b", "i1");
    let tries = (0..16).map(|_| ground.store.create(&second, "m"));
    let made = futures::future::join_all(tries).await;
    assert_eq!(made.iter().filter(|result| result.is_ok()).count(), 1);
}
