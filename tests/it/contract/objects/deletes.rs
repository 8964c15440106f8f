//! Deleting, and finalizers.

use kube::{ResourceExt, runtime::watcher::Event};
use ostler::ports::objects::Error;
use serde_json::json;

use super::{Ground, any, at, line, version};

pub(super) async fn finalizers_hold_an_object(ground: Ground) {
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

pub(super) async fn no_finalizer_after_the_mark(ground: Ground) {
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

pub(super) async fn delete_of_a_missing_object(ground: Ground) {
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
