//! The Objects port.

use std::sync::Arc;

use futures::StreamExt;
use kube::{Api, ResourceExt, runtime::watcher::Event};
use ostler::{
    class::Class,
    kinds::Kind,
    kubernetes::{
        client::{CrdError, check_crds},
        objects::KubeObjects,
    },
    ports::objects::{At, Error},
};
use serde_json::{Map, Value, json};

use super::{agent, ground, id, object, store_of};
use crate::{
    cluster::{Cluster, shared},
    contract::objects::{Ground, all},
};

#[tokio::test]
async fn an_api_server_keeps_the_contract() {
    let cluster = shared().await;
    cluster.install_crds().await;
    let store = store_of(cluster.kubeconfig()).await;
    // a namespace of another test would do no harm, and has no such name
    all(async |case| Ground {
        store: Arc::clone(&store),
        namespace: cluster.namespace(&case[..case.len().min(50)]).await.parse().unwrap(),
    })
    .await;
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole() {
    let (_, store, namespace) = ground("pages").await;
    let made = futures::stream::iter(0..1_050).map(|n| {
        let map = object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("m{n:04}"), "namespace": namespace}}));
        let store = Arc::clone(&store);
        async move { store.create(&map, "m").await }
    });
    assert!(made.buffer_unordered(20).all(async |made| made.is_ok()).await);
    let listed = store.list(Kind::ConfigMap, Some(&namespace)).await.unwrap();
    let names: Vec<String> = listed.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, (0..1_050).map(|n| format!("m{n:04}")).collect::<Vec<_>>());
    assert!(listed.iter().all(|map| map.types.as_ref().is_some_and(|types| types.kind == "ConfigMap")));
}

#[tokio::test]
async fn an_object_of_a_megabyte_and_a_half_is_refused_clearly() {
    let (_, store, namespace) = ground("big").await;
    let map = |data: Map<String, Value>| {
        object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "big", "namespace": namespace}, "data": data}))
    };
    let of_keys = |count: usize, length: usize| -> Map<String, Value> {
        (0..count).map(|n| (format!("{n:0>length$}"), json!(""))).collect()
    };
    // the keys are stored twice: in the data, and in the fields of the one who wrote them
    for data in [
        Map::from_iter([("a".to_owned(), json!("x".repeat(1_500_000)))]),
        of_keys(7_000, 220),
        Map::from_iter([("a".to_owned(), json!("x".repeat(4_000_000)))]),
    ] {
        let (map, bytes) = (map(data.clone()), json!(data).to_string().len());
        for error in [
            store.create(&map, "m").await.unwrap_err(),
            store.apply(&map, "m", true, None).await.unwrap_err(),
        ] {
            println!("{bytes}: {error}");
            assert!(matches!(error, Error::Invalid { .. }), "{bytes} bytes: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_namespace_and_taken_rights_are_told_apart() {
    let (cluster, store, namespace) = ground("rights").await;
    let nowhere = "nobody-made-this".parse().unwrap();
    let error = store.create(&agent(&nowhere, "a", "i1"), "m").await.unwrap_err();
    assert!(
        matches!(&error, Error::Invalid { causes, .. } if causes[0].contains("nobody-made-this")),
        "{error:?}"
    );
    assert_eq!(store.get(&id(Kind::Agent, &nowhere, "a")).await.unwrap(), None);
    let made = store.create(&agent(&namespace, "a", "i1"), "m").await.unwrap();

    let nobody = store_of(&cluster.kubeconfig_for("nobody", &[])).await;
    let (id, at) = (id(Kind::Agent, &namespace, "a"), At::of(&made).unwrap());
    for error in [
        nobody.get(&id).await.map(drop),
        nobody.list(Kind::Agent, None).await.map(drop),
        nobody.create(&agent(&namespace, "b", "i1"), "m").await.map(drop),
        nobody.merge(&id, &at, &json!({}), "m").await.map(drop),
        nobody.delete(&id, &at).await,
    ] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Forbidden(text) if text.contains("nobody")), "{error:?}");
    }
}

#[tokio::test]
async fn crds_come_and_a_watch_survives_a_restart() {
    let cluster = Cluster::start_own().await;
    let client = cluster.client().await;
    let store = Arc::new(KubeObjects::new(client.clone())) as ostler::ports::objects::Store;
    let missing = check_crds(&client).await.unwrap_err();
    assert!(matches!(&missing, CrdError::Missing(names) if names.len() == 5), "{missing}");
    let namespace = cluster.namespace("restart").await.parse().unwrap();
    let error = store.get(&id(Kind::Agent, &namespace, "a")).await.unwrap_err();
    assert_eq!(
        error.class(),
        Class::Transient,
        "a kind that is not served is not a missing object: {error:?}"
    );
    cluster.install_crds().await;
    check_crds(&client).await.unwrap();

    store.create(&agent(&namespace, "before", "i1"), "m").await.unwrap();
    let mut watch = store.watch(Kind::Agent, Some(namespace.clone()));
    while !matches!(watch.next().await, Some(Ok(Event::InitDone))) {}
    cluster.stop_api_server().await;
    let error = store.list(Kind::Agent, None).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error:?}");
    cluster.start_api_server().await;
    store.create(&agent(&namespace, "after", "i1"), "m").await.unwrap();
    let seen = async {
        loop {
            match watch.next().await.expect("a watch does not end") {
                Ok(Event::Apply(object) | Event::InitApply(object)) if object.name_any() == "after" => {
                    return object;
                }
                _ => {}
            }
        }
    };
    let seen =
        tokio::time::timeout(std::time::Duration::from_mins(2), seen).await.expect("the watch goes on");
    assert!(seen.managed_fields().is_empty(), "they would fill the caches");

    let crds: Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = Api::all(client.clone());
    let mut crd = crds.get("agents.ostler.dev").await.unwrap();
    let schema = crd.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
    let spec = schema.properties.as_mut().unwrap().get_mut("spec").unwrap();
    spec.properties.as_mut().unwrap().remove("image").unwrap();
    crds.replace("agents.ostler.dev", &kube::api::PostParams::default(), &crd).await.unwrap();
    let older = check_crds(&client).await.unwrap_err();
    assert!(matches!(&older, CrdError::Older(fields) if fields == &["Agent.spec.image"]), "{older}");
}
