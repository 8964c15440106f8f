//! The wrapper that injects faults.

use futures::StreamExt;
use kube::runtime::watcher::Event;
use ostler::ports::objects::At;

use super::*;
use crate::faults::Fault;

#[tokio::test]
async fn faults_are_injected_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::new(open(folder.path()));
    store.fail_write(1, Fault::Before);
    store.fail_write(2, Fault::After);
    assert!(store.create(&agent("a", &codex("i1")), "m").await.is_err());
    assert_eq!(store.get(&id("a")).await.unwrap(), None);
    assert!(store.create(&agent("a", &codex("i1")), "m").await.is_err());
    let made = store.get(&id("a")).await.unwrap().expect("it failed after it was done");
    assert_eq!(store.calls(), [("create", 2), ("get", 2)].into());
    assert_eq!((store.take_calls(), store.take_calls()), (4, 0));

    store.go_stale();
    let seen = store.get(&id("a")).await.unwrap();
    let mut watch = store.watch(Kind::Agent, None);
    for _ in 0..3 {
        watch.next().await.unwrap().unwrap();
    }
    store.swallow_changes(1);
    store.merge_changes(1);
    for image in ["i2", "i3", "i4"] {
        let at = At::of(&made).unwrap().any_version();
        store.merge(&id("a"), &at, &json!({"spec": {"image": image}}), "m").await.unwrap();
    }
    assert_eq!(store.get(&id("a")).await.unwrap(), seen, "stale");
    store.catch_up();
    assert_eq!(store.get(&id("a")).await.unwrap().unwrap().data["spec"]["image"], "i4");
    let Some(Ok(Event::Apply(object))) = watch.next().await else { panic!("a change was expected") };
    assert_eq!(
        object.data["spec"]["image"], "i4",
        "the first was swallowed, the second merged into the third"
    );
}
