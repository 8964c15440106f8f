//! Versions, and many writers.

use ostler::ports::objects::Error;
use serde_json::json;

use super::{Ground, at, version};

pub(super) async fn versions_are_of_the_whole_store(ground: Ground) {
    let agent = ground.create("a", "i1").await;
    let map = ground.store.create(&ground.config_map("a", json!({})), "m").await.unwrap();
    let again = ground.patch(&agent, json!({"spec": {"image": "i2"}}), "m").await.unwrap();
    assert!(version(&agent) < version(&map) && version(&map) < version(&again));
}

pub(super) async fn of_many_writers_one_wins(ground: Ground) {
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
