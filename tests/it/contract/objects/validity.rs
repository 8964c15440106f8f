//! What no adapter takes.

use ostler::{
    class::Class,
    kinds::{Kind, Object},
    ports::objects::Error,
};
use serde_json::json;

use super::{Ground, any};

pub(super) async fn schema_and_rules_refuse(ground: Ground) {
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

pub(super) async fn unknown_fields_are_dropped(ground: Ground) {
    let made = ground.create("a", "i1").await;
    let patched = ground.patch(&made, json!({"spec": {"bogus": 1}, "top": 1}), "m").await.unwrap();
    // an API server gives it another version all the same
    let but_for_the_version = |mut object: Object| {
        object.metadata.resource_version = None;
        object
    };
    assert_eq!(but_for_the_version(patched), but_for_the_version(made), "nothing that is known changed");
}

pub(super) async fn config_maps_keep_their_rules(ground: Ground) {
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
