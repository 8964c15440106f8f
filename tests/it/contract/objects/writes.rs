//! Creating, changing and the versions they give.

use kube::ResourceExt;
use ostler::{
    class::Class,
    ports::objects::{At, Error},
};
use serde_json::json;

use super::{Ground, any, at, json_of, line, owned, version};

pub(super) async fn create_gives_an_identity(ground: Ground) {
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
    let spec = json!({"preset": "codex", "image": "i1"});
    assert_eq!(made.data, json!({"spec": spec}), "status is not the creator's");
    assert_eq!(made.types.as_ref().unwrap().kind, "Agent");
    assert_eq!(owned(&made, "maker", "Update")["f:spec"]["f:image"], json!({}));
    assert_eq!(ground.read("a").await.unwrap(), made);
    assert_eq!(ground.read("b").await, None);
}

pub(super) async fn create_refuses_a_second(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let error = ground.store.create(&ground.agent("a", "i2"), "other").await.unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists(id) if *id == ground.agent_id("a")), "{error:?}");
    assert_eq!(error.class(), Class::Conflict);
    assert_eq!(ground.read("a").await.unwrap(), made);
    ground.store.delete(&ground.agent_id("a"), &at(&made)).await.unwrap();
    assert_ne!(ground.create("a", "i1").await.uid(), made.uid(), "a new object has a new UID");
}

pub(super) async fn spec_raises_the_generation(ground: Ground) {
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

pub(super) async fn status_stands_apart(ground: Ground) {
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

pub(super) async fn nothing_changed_nothing_written(ground: Ground) {
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

pub(super) async fn preconditions_hold(ground: Ground) {
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
        for (verb, error) in ["merge", "status", "delete", "apply"].into_iter().zip(errors) {
            let error = error.expect_err(verb);
            assert!(matches!(error, Error::Conflict { .. }), "{verb} at {wrong:?}: {error:?}");
            assert_eq!(error.class(), Class::Conflict);
        }
    }
    assert_eq!(ground.read("a").await.unwrap(), newer);
    let last = ground.store.merge(&id, &at(&newer), &patch, "m").await.unwrap();
    assert_eq!(last.data["spec"]["image"], "i3");
    ground.store.delete(&id, &at(&last)).await.unwrap();
    assert_eq!(ground.read("a").await, None);
}

pub(super) async fn merge_takes_away(ground: Ground) {
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
