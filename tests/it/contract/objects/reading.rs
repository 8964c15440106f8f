//! Lists and watches.

use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use ostler::{
    kinds::{Kind, Object},
    names::Namespace,
    ports::objects::{Error, Page, Part},
};
use serde_json::json;

use super::{Ground, Watch, at, line, version};

pub(super) async fn lists_are_ordered_and_filtered(ground: Ground) {
    for name in ["b", "a-b", "a", "a.b"] {
        ground.create(name, "i1").await;
    }
    ground.store.create(&ground.config_map("z", json!({})), "m").await.unwrap();
    let names = |objects: Vec<Object>| objects.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let listed = ground.store.list(Kind::Agent, Some(&ground.namespace)).await.unwrap();
    assert_eq!(names(listed), ["a", "a-b", "a.b", "b"]);
    let all = ground.store.list(Kind::Agent, None).await.unwrap();
    let ours: Vec<Object> = all
        .into_iter()
        .filter(|object| object.namespace().as_deref() == Some(ground.namespace.as_str()))
        .collect();
    assert_eq!(names(ours).len(), 4);
    let elsewhere: Namespace = "nobody-is-here".parse().unwrap();
    assert!(ground.store.list(Kind::Agent, Some(&elsewhere)).await.unwrap().is_empty());
}

async fn page(ground: &Ground, labels: &str, limit: u32, after: Option<String>) -> Result<Page, Error> {
    let part = Part { labels: labels.parse().unwrap(), limit, after };
    ground.store.page(Kind::Agent, Some(&ground.namespace), &part).await
}

fn named(page: &Page) -> Vec<String> {
    page.objects.iter().map(ResourceExt::name_any).collect()
}

pub(super) async fn pages_make_a_whole(ground: Ground) {
    for (name, tier) in [("b", "x"), ("a-b", "y"), ("a", "x"), ("a.b", "x"), ("c", "y")] {
        let body = json!({"metadata": {"labels": {"tier": tier}}, "spec": {"preset": "codex", "image": "i"}});
        ground.store.create(&ground.object(name, body), "m").await.unwrap();
    }
    for (labels, whole) in [
        ("", &["a", "a-b", "a.b", "b", "c"][..]),
        ("tier=x", &["a", "a.b", "b"]),
        ("tier!=x", &["a-b", "c"]),
        ("tier,!other", &["a", "a-b", "a.b", "b", "c"]),
        ("other", &[]),
    ] {
        for limit in [1, 2, 3, 100] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = page(&ground, labels, limit, after).await.unwrap();
                assert!(page.objects.len() <= limit as usize, "{labels:?}: more than {limit}");
                found.extend(named(&page));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, whole, "{labels:?} in pages of {limit}");
        }
    }
}

pub(super) async fn pages_begin_where_one_ended(ground: Ground) {
    for name in ["a", "b", "c", "d"] {
        ground.create(name, "i1").await;
    }
    let first = page(&ground, "", 2, None).await.unwrap();
    assert_eq!(named(&first), ["a", "b"]);
    // the object at which the page ended may go, and the next page is there
    for (name, object) in ["a", "b"].iter().zip(&first.objects) {
        ground.store.delete(&ground.agent_id(name), &at(object)).await.unwrap();
    }
    let second = page(&ground, "", 2, first.next).await.unwrap();
    assert_eq!((named(&second), second.next), (vec!["c".to_owned(), "d".to_owned()], None));
    for bad in ["?", "/", "a", "../../x"] {
        let error = page(&ground, "", 2, Some(bad.to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::NoSuchPage), "{bad}: {error:?}");
    }
}

pub(super) async fn watch_begins_with_what_is(ground: Ground) {
    assert!(ground.watch().listed().await.is_empty());
    for name in ["a", "b"] {
        ground.create(name, "i1").await;
    }
    let mut names = ground.watch().listed().await;
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

pub(super) async fn watch_tells_every_state(ground: Ground) {
    let mut watch = ground.watch();
    watch.listed().await;
    let made = ground.create("a", "i1").await;
    let mut last = made.clone();
    for image in ["i2", "i3"] {
        last = ground.patch(&last, json!({"spec": {"image": image}}), "m").await.unwrap();
    }
    ground.store.delete(&ground.agent_id("a"), &at(&last)).await.unwrap();
    ground.create("a", "i4").await;
    let mut lines = Vec::new();
    let mut versions = Vec::new();
    for _ in 0..5 {
        let event = watch.next().await;
        lines.push(line(&event));
        let (Event::Apply(object) | Event::Delete(object)) = event else { panic!("a change was expected") };
        versions.push(version(&object));
    }
    assert_eq!(lines, ["apply a 1", "apply a 2", "apply a 3", "delete a 3", "apply a 1"]);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

pub(super) async fn watch_sees_one_namespace(ground: Ground) {
    let elsewhere: Namespace = "nobody-is-here".parse().unwrap();
    let mut other = Watch(ground.store.watch(Kind::Agent, Some(elsewhere)));
    let mut other_kind = Watch(ground.store.watch(Kind::Session, Some(ground.namespace.clone())));
    other.listed().await;
    other_kind.listed().await;
    let mut here = ground.watch();
    here.listed().await;
    ground.create("a", "i1").await;
    assert_eq!(line(&here.next().await), "apply a 1");
    for silent in [&mut other, &mut other_kind] {
        assert!(futures::poll!(silent.0.next()).is_pending());
    }
}
