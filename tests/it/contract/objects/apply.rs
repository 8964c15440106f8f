//! Server-side apply: who owns a field.

use kube::ResourceExt;
use ostler::ports::objects::Error;
use serde_json::json;

use super::{Ground, any, at, owned};

pub(super) async fn apply_creates_and_takes_back(ground: Ground) {
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

pub(super) async fn apply_meets_other_owners(ground: Ground) {
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

pub(super) async fn apply_leaves_what_others_own(ground: Ground) {
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

pub(super) async fn apply_guards_against_recreation(ground: Ground) {
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

pub(super) async fn update_takes_ownership(ground: Ground) {
    let made = ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "s").await.unwrap();
    let patched = ground.patch(&made, json!({"spec": {"image": "i2"}}), "person").await.unwrap();
    assert_eq!(owned(&patched, "s", "Apply"), json!({"f:spec": {"f:preset": {}}}), "drift can be seen");
    assert_eq!(owned(&patched, "person", "Update"), json!({"f:spec": {"f:image": {}}}));
    let error =
        ground.apply("a", json!({"spec": {"preset": "codex", "image": "i1"}}), "s").await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { message, .. } if message.contains("\"person\"")), "{error:?}");
}
