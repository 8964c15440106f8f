//! What the folder of a store keeps: one holder, objects and events.

use futures::StreamExt;
use ostler::{
    embedded::objects::OpenError,
    kinds::Reason,
    ports::objects::{Error, Happening, Severity},
};

use super::*;

#[tokio::test]
async fn a_folder_has_one_holder_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("objects");
    assert!(matches!(EmbeddedStore::open_read_only(&path), Err(OpenError::Missing { .. })));
    let store = open(&path);
    let made = store.create(&agent("a", &codex("i1")), "m").await.unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    for taken in [EmbeddedStore::open(&path).err(), EmbeddedStore::open_read_only(&path).err()] {
        let taken = taken.unwrap();
        assert!(matches!(&taken, OpenError::InUse { holder: Some(holder), .. } if *holder == pid), "{taken}");
    }
    let (holder, mut watch) = (store.id().clone(), store.watch(Kind::Agent, None));
    drop(store);
    let mut events = 0;
    while watch.next().await.is_some() {
        events += 1;
    }
    assert_eq!(events, 0, "a watch ends with its store");

    let snapshot = EmbeddedStore::open_read_only(&path).unwrap();
    assert_eq!(snapshot.get(&id("a")).await.unwrap(), Some(made.clone()));
    let refused = snapshot.create(&agent("b", &codex("i1")), "m").await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    let again = open(&path);
    assert_eq!(*again.id(), holder);
    assert_eq!(again.get(&id("a")).await.unwrap(), Some(made.clone()));
    let next = again.create(&agent("b", &codex("i1")), "m").await.unwrap();
    assert!(number(&next) > number(&made), "versions go on");
}

#[tokio::test]
async fn events_are_counted_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("objects"));
    let made = store.create(&agent("a", &codex("i1")), "m").await.unwrap();
    let happening = |message: &str| Happening {
        about: id("a"),
        uid: made.uid().unwrap().parse().unwrap(),
        severity: Severity::Warning,
        reason: Reason::ALL[0],
        message: message.to_owned(),
    };
    let (server, remote) = serve_and_connect(&store, &folder.path().join("s")).await;
    store.tell(happening("x")).await;
    store.tell(happening("x")).await;
    remote.tell(happening("y")).await;
    // a write is behind what was told before it, and flushes it
    store.create(&agent("b", &codex("i1")), "m").await.unwrap();
    let events = remote.events(&id("a")).await.unwrap();
    let counted: Vec<_> = events.iter().map(|told| (told.message.as_str(), told.count)).collect();
    assert_eq!(counted, [("x", 2), ("y", 1)]);
    assert!(remote.events(&id("b")).await.unwrap().is_empty());
    drop((server, remote, store));
    // the server's task held the store until it was gone
    let mut reopened = EmbeddedStore::open(&folder.path().join("objects"));
    while matches!(reopened, Err(OpenError::InUse { .. })) {
        tokio::task::yield_now().await;
        reopened = EmbeddedStore::open(&folder.path().join("objects"));
    }
    assert_eq!(reopened.unwrap().events(&id("a")).await.unwrap(), events);
}
