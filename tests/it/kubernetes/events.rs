//! What is told becomes events of the cluster.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Event as CoreEvent, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::{WatchStreamExt, watcher},
};
use ostler::{
    kinds::{Kind, Reason},
    ports::objects::{Happening, Severity},
};

use super::{agent, ground, id};

#[tokio::test]
async fn repeats_are_counted_and_forgotten_events_told_again() {
    let (cluster, store, namespace) = ground("events").await;
    let made = store.create(&agent(&namespace, "a", "i1"), "m").await.unwrap();
    let happening = |message: &str| Happening {
        about: id(Kind::Agent, &namespace, "a"),
        uid: made.uid().unwrap().parse().unwrap(),
        severity: Severity::Warning,
        reason: Reason::ALL[0],
        message: message.to_owned(),
    };
    let api: Api<Event> = Api::namespaced(cluster.client().await, namespace.as_str());
    let mut changes = watcher(api.clone(), watcher::Config::default()).applied_objects().boxed();
    let mut seen = async |wanted: &dyn Fn(&Event) -> bool| {
        loop {
            let next = tokio::time::timeout(Duration::from_mins(1), changes.next()).await;
            let event = next.expect("it is told").expect("a watch does not end").unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    let counted = |count: i32| move |event: &Event| event.series.as_ref().is_some_and(|s| s.count == count);

    let long = "ä".repeat(600);
    for message in ["x", "x", &long, "x"] {
        store.tell(happening(message)).await;
    }
    let repeated = seen(&counted(3)).await;
    assert_eq!(repeated.note.as_deref(), Some("x"));
    let regarding = repeated.regarding.clone().unwrap();
    assert_eq!((regarding.kind.as_deref(), regarding.uid), (Some("Agent"), made.uid()));
    let events = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(events.len(), 2, "one event a message");
    assert!(events.iter().any(|event| event.note.as_ref().is_some_and(|note| note.len() == 1_024)));

    // `kubectl describe` looks here
    let core: Api<CoreEvent> = Api::namespaced(cluster.client().await, namespace.as_str());
    let fields = format!("involvedObject.uid={},reason={}", made.uid().unwrap(), Reason::ALL[0].as_str());
    assert_eq!(core.list(&ListParams::default().fields(&fields)).await.unwrap().items.len(), 2);

    api.delete(&repeated.name_any(), &DeleteParams::default()).await.unwrap();
    store.tell(happening("x")).await;
    let first = repeated.name_any();
    let again = seen(&|event| event.note.as_deref() == Some("x") && event.name_any() != first).await;
    assert!(again.series.is_none());
    store.tell(happening("x")).await;
    seen(&counted(2)).await;
}
