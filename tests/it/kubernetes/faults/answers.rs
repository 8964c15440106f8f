//! An API server that answers wrongly, late or not at all: the class of the error is right, and a repeat converges.

use kube::ResourceExt;
use ostler::{
    class::Class,
    kinds::Kind,
    ports::objects::{At, Error, Store},
};
use serde_json::json;

use crate::kubernetes::{
    agent, ground, id,
    proxy::{Proxy, Wrong},
    store_of,
};

async fn behind_a_proxy(prefix: &str) -> (Proxy, Store, ostler::names::Namespace) {
    let (cluster, _, namespace) = ground(prefix).await;
    let proxy = Proxy::start(cluster.client().await).await;
    let store = store_of(&proxy.kubeconfig()).await;
    (proxy, store, namespace)
}

#[tokio::test]
async fn what_was_done_in_spite_of_an_error_is_met_by_the_repeat() {
    let (proxy, store, namespace) = behind_a_proxy("after").await;
    let (a, id) = (agent(&namespace, "a", "i1"), id(Kind::Agent, &namespace, "a"));
    for wrong in [Wrong::ErrorAfter, Wrong::CloseAfter] {
        proxy.next([wrong]);
        let error = store.create(&a, "m").await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{wrong:?}: {error:?}");
        let error = store.create(&a, "m").await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists(_)), "{wrong:?}: it was done: {error:?}");

        let wanted = agent(&namespace, "a", "i2");
        proxy.next([wrong]);
        let error = store.apply(&wanted, "s", true, None).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{wrong:?}: {error:?}");
        let done = store.get(&id).await.unwrap().unwrap();
        assert_eq!(done.data["spec"]["image"], "i2", "{wrong:?}");
        let again = store.apply(&wanted, "s", true, None).await.unwrap();
        assert_eq!(again, done, "{wrong:?}: the repeat changes nothing");

        let (at, status) = (At::of(&again).unwrap(), json!({"observedGeneration": 2}));
        proxy.next([wrong]);
        let error = store.write_status(&id, &at, &status, "c").await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{wrong:?}: {error:?}");
        let error = store.write_status(&id, &at, &status, "c").await.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{wrong:?}: the state is another: {error:?}");

        proxy.next([wrong]);
        let at = at.any_version();
        let error = store.delete(&id, &at).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{wrong:?}: {error:?}");
        let error = store.delete(&id, &at).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{wrong:?}: it was done: {error:?}");
    }
}

#[tokio::test]
async fn what_was_not_done_is_done_by_the_repeat() {
    let (proxy, store, namespace) = behind_a_proxy("before").await;
    let (a, id) = (agent(&namespace, "a", "i1"), id(Kind::Agent, &namespace, "a"));
    // so that there is a connection which breaks, not one that cannot be made
    store.list(Kind::Agent, Some(&namespace)).await.unwrap();
    proxy.next([Wrong::CloseBefore]);
    let error = store.create(&a, "m").await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error:?}");
    assert_eq!(store.get(&id).await.unwrap(), None);
    store.create(&a, "m").await.unwrap();
    for read in [Wrong::CloseBefore, Wrong::CloseAfter, Wrong::ErrorAfter] {
        proxy.next([read]);
        let error = store.get(&id).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "nothing is known of the object: {error:?}");
    }
}

#[tokio::test]
async fn too_many_requests_wait_as_they_are_told() {
    let (proxy, store, namespace) = behind_a_proxy("many").await;
    proxy.next([Wrong::TooMany(1), Wrong::TooMany(0)]);
    let made = store.create(&agent(&namespace, "a", "i1"), "m").await.unwrap();
    assert_eq!((made.name_any().as_str(), proxy.take_requests()), ("a", 3));
}

#[tokio::test]
async fn nobody_waits_for_an_hour() {
    let (proxy, store, namespace) = behind_a_proxy("hour").await;
    proxy.next([Wrong::TooMany(3_600)]);
    let error = store.get(&id(Kind::Agent, &namespace, "a")).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error:?}");
}

#[tokio::test]
async fn every_write_is_one_request() {
    let (proxy, store, namespace) = behind_a_proxy("writes").await;
    let id = id(Kind::Agent, &namespace, "a");
    let made = store.create(&agent(&namespace, "a", "i1"), "m").await.unwrap();
    let at = At::of(&made).unwrap().any_version();
    store.apply(&agent(&namespace, "a", "i2"), "s", true, Some(&at)).await.unwrap();
    let merged = store.merge(&id, &at, &json!({"spec": {"image": "i3"}}), "m").await.unwrap();
    let seen = At::of(&merged).unwrap();
    store.write_status(&id, &seen, &json!({"observedGeneration": 1}), "c").await.unwrap();
    store.delete(&id, &at).await.unwrap();
    assert_eq!(proxy.take_requests(), 5, "nothing is read before a write");
}
