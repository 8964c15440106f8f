//! Lists in pages: what they cost, and how long they can be followed.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{Router, body::Body, http::Request};
use futures::StreamExt;
use http_body_util::BodyExt;
use ostler::{
    api,
    ports::{
        Access,
        access::{self, Audience, Identity, User},
        objects::Store,
    },
    telemetry::{AuditLog, Metrics},
};
use secrecy::SecretString;
use serde_json::Value;
use tower::ServiceExt;

use super::{agent, ground, proxy::Proxy, store_of};
use crate::cluster::Cluster;

/// Everybody is `ada` and may do anything: what may be seen is not the question here.
struct Open;

#[async_trait]
impl Access for Open {
    async fn authenticate(&self, _: &SecretString, _: Audience) -> Result<Identity, access::Error> {
        Ok(Identity::User(User::named("ada")))
    }

    async fn authorize(&self, _: &Identity, _: &access::Request<'_>) -> Result<bool, access::Error> {
        Ok(true)
    }
}

fn reader(store: Store) -> Router {
    api::router(api::State {
        store,
        access: Arc::new(Open),
        gates: Arc::new(Vec::new),
        metrics: Arc::new(Metrics::new()),
        audit: Arc::new(AuditLog::writer(Box::new(std::io::sink()))),
        clock: Arc::new(jiff::Timestamp::now),
    })
}

async fn get(router: &Router, path: &str) -> (u16, Value, usize) {
    let request = Request::get(path).header("authorization", "Bearer t").body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap(), bytes.len())
}

async fn fill(store: &Store, namespace: &ostler::names::Namespace, count: usize) {
    let made = futures::stream::iter(0..count).map(|n| {
        let (store, agent) = (Arc::clone(store), agent(namespace, &format!("a{n:04}"), "i1"));
        async move { store.create(&agent, "m").await }
    });
    assert!(made.buffer_unordered(20).all(async |made| made.is_ok()).await);
}

#[tokio::test]
async fn a_page_of_the_api_costs_a_page_of_the_server() {
    let (cluster, direct, namespace) = ground("paged").await;
    fill(&direct, &namespace, 600).await;
    let proxy = Proxy::start(cluster.client().await).await;
    let router = reader(store_of(&proxy.kubeconfig()).await);
    let path = format!("/api/v1/agents/{namespace}?limit=50");
    let (mut names, mut next, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, _) = (proxy.take_requests(), proxy.take_bytes());
        let (status, page, shown) = get(&router, &format!("{path}{next}")).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(proxy.take_requests(), 1, "a page is one request");
        // an API server also sends who owns which field
        let read = proxy.take_bytes();
        assert!(read < 4 * shown, "{read} bytes were read for {shown}");
        names.extend(page["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()));
        pages += 1;
        let Some(token) = page["continue"].as_str() else { break };
        next = format!("&continue={token}");
    }
    assert_eq!((pages, names.len()), (12, 600));
    assert!(names.is_sorted_by(|a, b| a.as_str() < b.as_str()), "one after another");
}

#[tokio::test]
async fn a_page_that_etcd_has_forgotten_is_gone() {
    let cluster = Cluster::start_own().await;
    cluster.install_crds().await;
    let namespace: ostler::names::Namespace = cluster.namespace("old").await.parse().unwrap();
    let store = store_of(cluster.kubeconfig()).await;
    fill(&store, &namespace, 4).await;
    let router = reader(Arc::clone(&store));
    let path = format!("/api/v1/agents/{namespace}?limit=2");
    let (_, page, _) = get(&router, &path).await;
    let next = format!("{path}&continue={}", page["continue"].as_str().unwrap());
    assert_eq!(get(&router, &next).await.0, 200);
    // the list is changed, and its old state thrown away
    store.create(&agent(&namespace, "b", "i1"), "m").await.unwrap();
    cluster.compact().await;
    // its cache has old states too, for a while
    cluster.restart_api_server().await;
    let (status, problem, _) = get(&router, &next).await;
    assert_eq!((status, problem["code"].as_str()), (410, Some("expired")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("begin anew"), "{problem}");
    assert_eq!(get(&router, &path).await.0, 200);
    // a server in front of the cluster's changes nothing: a token that is no API server's is refused
    let words = "x".repeat(100);
    let (status, problem, _) = get(&router, &format!("{path}&continue={words}")).await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("invalid-request")), "{problem}");
}
