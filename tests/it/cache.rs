//! Caches over a store that held objects before: a restart looks at each of them again.

use std::collections::BTreeSet;

use futures::StreamExt;
use ostler::{cache::Caches, embedded::objects::EmbeddedStore, kinds::Object, ports::Objects};
use serde_json::json;

#[tokio::test]
async fn whoever_asks_is_told_of_what_is_there_and_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let names = BTreeSet::from(["a", "b", "c"].map(str::to_owned));
    for name in &names {
        let object: Object =
            serde_json::from_value(json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"preset": "codex"}}))
            .unwrap();
        store.create(&object, "test").await.unwrap();
    }
    let (caches, fill) = Caches::new(&store, None);
    let early = caches.agents.touched().boxed();
    let fill = tokio::spawn(fill);
    caches.ready().await;
    let late = caches.agents.touched().boxed();
    for mut touched in [early, late] {
        let mut told = BTreeSet::new();
        while told != names {
            let next = tokio::time::timeout(std::time::Duration::from_mins(1), touched.next()).await;
            let object = next.expect("nobody was told").unwrap();
            let there = caches.agents.get("default", &object.name);
            assert!(there.is_some(), "{object} cannot be read yet");
            told.insert(object.name);
        }
    }
    fill.abort();
}
