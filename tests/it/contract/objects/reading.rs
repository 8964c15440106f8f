//! Lists and watches.

use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use ostler::{
    kinds::{Kind, Object},
    names::Namespace,
};
use serde_json::json;

use super::{Ground, Watch, at, line, version};

pub(super) async fn lists_are_ordered_and_filtered(ground: Ground) {
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

pub(super) async fn watch_begins_with_what_is(ground: Ground) {
    assert!(ground.watch().listed().await.is_empty());
    for name in ["a", "b"] {
        ground.create(name, "i1").await;
    }
    let mut names = ground.watch().listed().await;
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

pub(super) async fn watch_tells_every_state(ground: Ground) {
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

pub(super) async fn watch_sees_one_namespace(ground: Ground) {
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
