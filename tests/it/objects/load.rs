//! Many writers, and a watcher that is too slow for them.

use std::collections::BTreeMap;

use futures::StreamExt;
use kube::runtime::watcher::Event;

use super::*;

#[tokio::test]
async fn a_slow_watcher_starts_over_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut watch = store.watch(Kind::Agent, None);
    assert!(matches!(watch.next().await, Some(Ok(Event::Init))));
    // more than wait for one watcher
    for round in 0..15 {
        let writes = (0..100).map(|n| {
            let (store, object) = (Arc::clone(&store), agent(&format!("a{n}"), &codex(&format!("i{round}"))));
            async move { store.apply(&object, "s", true, None).await.unwrap() }
        });
        futures::future::join_all(writes).await;
    }
    store.apply(&agent("last", &codex("i1")), "s", true, None).await.unwrap();
    let (mut seen, mut starts) = (BTreeMap::new(), 1);
    while !seen.contains_key("last") {
        match watch.next().await.unwrap().unwrap() {
            Event::Init => {
                starts += 1;
                seen.clear();
            }
            Event::InitApply(object) | Event::Apply(object) => {
                seen.insert(object.name_any(), object.data["spec"]["image"].clone());
            }
            Event::Delete(object) => drop(seen.remove(&object.name_any())),
            Event::InitDone => {}
        }
    }
    while let Some(Some(Ok(event))) = futures::FutureExt::now_or_never(watch.next()) {
        if let Event::InitApply(object) | Event::Apply(object) = event {
            seen.insert(object.name_any(), object.data["spec"]["image"].clone());
        }
    }
    assert_eq!(starts, 2);
    assert_eq!(seen.len(), 101);
    assert!((0..100).all(|n| seen[&format!("a{n}")] == "i14"));
}

#[tokio::test]
async fn many_writers_share_their_flushes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let started = std::time::Instant::now();
    let writes = (0..1_000).map(|n| {
        let (store, object) = (Arc::clone(&store), agent(&format!("a{n}"), &codex("i1")));
        async move { store.apply(&object, "s", false, None).await }
    });
    let written = futures::future::join_all(writes).await;
    println!("1,000 concurrent applies: {:?}", started.elapsed());
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(store.list(Kind::Agent, None).await.unwrap().len(), 1_000);
    let started = std::time::Instant::now();
    for n in 0..100 {
        store.apply(&agent(&format!("b{n}"), &codex("i1")), "s", false, None).await.unwrap();
    }
    println!("100 applies one after another: {:?}", started.elapsed());
    let started = std::time::Instant::now();
    for n in 0..1_000 {
        store.apply(&agent(&format!("a{n}"), &codex("i1")), "s", false, None).await.unwrap();
    }
    println!("1,000 applies that change nothing, one after another: {:?}", started.elapsed());
}
