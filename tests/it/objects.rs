//! The embedded Objects port: its contract, and what is its own.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesUnordered};
use kube::{ResourceExt, runtime::watcher::Event};
use ostler::{
    embedded::objects::{EmbeddedStore, OpenError, RemoteStore, Server, connect, serve},
    kinds::{Kind, Object, ObjectId, Reason},
    ports::{
        Objects,
        objects::{At, Error, Happening, Severity, Store},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    contract::objects::{Ground, all},
    faults::{Fault, Faulty},
};

fn open(folder: &Path) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(folder).unwrap())
}

async fn serve_and_connect(store: &Arc<EmbeddedStore>, path: &Path) -> (Server, RemoteStore) {
    let server = serve(path, Arc::clone(store) as Store).unwrap();
    (server, connect(path).await.unwrap())
}

fn id(name: &str) -> ObjectId {
    ObjectId::new(Kind::Agent, "default".parse().unwrap(), name.parse().unwrap())
}

fn agent(name: &str, spec: &Value) -> Object {
    serde_json::from_value(json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    .unwrap()
}

fn codex(image: &str) -> Value {
    json!({"preset": "codex", "image": image})
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = open(folder.path());
    all(async |case| Ground { store: Arc::clone(&store), namespace: case.parse().unwrap() }).await;
}

#[tokio::test]
async fn the_socket_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (_server, remote) = serve_and_connect(&store, &folder.path().join("objects.sock")).await;
    let remote: Store = Arc::new(remote);
    all(async |case| Ground { store: Arc::clone(&remote), namespace: case.parse().unwrap() }).await;
}

#[tokio::test]
async fn the_wrapper_without_faults_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Faulty::new(open(folder.path()));
    all(async |case| Ground { store: Arc::clone(&store), namespace: case.parse().unwrap() }).await;
}

#[tokio::test]
async fn the_socket_is_private_fits_anywhere_and_its_watch_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (store, path) = (open(folder.path()), deep.join("objects.sock"));
    assert!(connect(&path).await.is_err(), "nobody serves yet");
    let (server, remote) = serve_and_connect(&store, &path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    remote.create(&agent("a", &codex("i1")), "m").await.unwrap();
    let mut watch = remote.watch(Kind::Agent, None);
    assert!(matches!(watch.next().await, Some(Ok(Event::Init))));
    assert!(matches!(watch.next().await, Some(Ok(Event::InitApply(_)))));
    assert!(matches!(watch.next().await, Some(Ok(Event::InitDone))));

    drop(server);
    assert!(watch.next().await.unwrap().is_err());
    let error = remote.list(Kind::Agent, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let (_server, _) = serve_and_connect(&store, &path).await;
    let begun = watch.filter(|event| std::future::ready(event.is_ok())).next().await;
    assert!(matches!(begun, Some(Ok(Event::Init))));
}

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

fn number(object: &Object) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
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

/// Random writes, beside a model that knows what an object's spec, generation and life must be.
#[tokio::test]
async fn random_writes_agree_with_a_simple_model() {
    for seed in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects");
        random_writes(seed, &path).await;
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Modelled {
    image: String,
    generation: i64,
    held: bool,
    marked: bool,
}

async fn random_writes(seed: u64, folder: &Path) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: BTreeMap<String, Modelled> = BTreeMap::new();
    let mut store = open(folder);
    let mut last = 0;
    for step in 0..120 {
        let name = format!("a{}", random.random_range(0..3));
        let image = format!("i{}", random.random_range(0..3));
        let now = store.get(&id(&name)).await.unwrap();
        let at = now.as_ref().map(|object| At::of(object).unwrap());
        let context = format!("seed {seed} step {step} {name}");
        match random.random_range(0..7) {
            0 => {
                let held = random.random_bool(0.5);
                let mut object = agent(&name, &codex(&image));
                object.metadata.finalizers = held.then(|| vec!["ostler.dev/x".to_owned()]);
                let result = store.create(&object, "maker").await;
                assert_eq!(result.is_ok(), !model.contains_key(&name), "{context}: {result:?}");
                model.entry(name).or_insert(Modelled { image, generation: 1, held, marked: false });
            }
            1 => {
                store.apply(&agent(&name, &codex(&image)), "s", true, None).await.expect(&context);
                let new = Modelled { image: image.clone(), generation: 1, held: false, marked: false };
                change(model.entry(name).or_insert(new), image);
            }
            kind @ 2..=5 => {
                let Some(at) = at else { continue };
                let modelled = model.get_mut(&name).expect(&context);
                match kind {
                    2 => {
                        let patch = json!({"spec": {"image": image}});
                        store.merge(&id(&name), &at, &patch, "m").await.expect(&context);
                        change(modelled, image);
                    }
                    3 => {
                        let status = json!({"observedGeneration": step});
                        store.write_status(&id(&name), &at, &status, "c").await.expect(&context);
                    }
                    4 => {
                        store.delete(&id(&name), &at).await.expect(&context);
                        if modelled.held {
                            modelled.generation += i64::from(!modelled.marked);
                            modelled.marked = true;
                        } else {
                            model.remove(&name);
                        }
                    }
                    _ => {
                        let patch = json!({"metadata": {"finalizers": null}});
                        store.merge(&id(&name), &at, &patch, "m").await.expect(&context);
                        modelled.held = false;
                        if modelled.marked {
                            model.remove(&name);
                        }
                    }
                }
            }
            _ => {
                drop(store);
                store = open(folder);
            }
        }
        let objects = store.list(Kind::Agent, None).await.unwrap();
        let stored: BTreeMap<String, Modelled> =
            objects.iter().map(|object| (object.name_any(), seen(object))).collect();
        assert_eq!(stored, model, "{context}");
        let newest = objects.iter().map(number).max().unwrap_or(last);
        assert!(newest >= last || objects.len() < 3, "{context}: versions never fall");
        last = newest.max(last);
    }
}

fn change(modelled: &mut Modelled, image: String) {
    if modelled.image != image {
        modelled.generation += 1;
        modelled.image = image;
    }
}

fn seen(object: &Object) -> Modelled {
    Modelled {
        image: object.data["spec"]["image"].as_str().unwrap().to_owned(),
        generation: object.metadata.generation.unwrap(),
        held: !object.finalizers().is_empty(),
        marked: object.metadata.deletion_timestamp.is_some(),
    }
}

const CRASH_FOLDER: &str = "OSTLER_TEST_CRASH_FOLDER";

/// The part of [`what_was_answered_survives_a_kill`] that is killed: this very binary, started by that test. On its own
/// it has nothing to do.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Some(folder) = std::env::var_os(CRASH_FOLDER) else { return };
    let store = open(Path::new(&folder));
    let mut writes = FuturesUnordered::new();
    for n in 0..100_000 {
        let (store, object) = (Arc::clone(&store), agent(&format!("a{}", n % 50), &codex(&format!("i{n}"))));
        writes.push(async move { store.apply(&object, "s", true, None).await.unwrap() });
        if writes.len() >= 8 {
            let written = writes.next().await.unwrap();
            println!("\nwritten {} {}", written.name_any(), number(&written));
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0_usize..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "objects::child_that_writes_until_killed", "--nocapture"])
            .env(CRASH_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let written = lines.filter(|line| line.starts_with("written "));
        for line in written.take(20 + 37 * round) {
            let mut words = line.split(' ').skip(1);
            let (name, version) =
                (words.next().unwrap().to_owned(), words.next().unwrap().parse::<u64>().unwrap());
            let newest = answered.entry(name).or_default();
            *newest = version.max(*newest);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshot = EmbeddedStore::open_read_only(folder.path()).unwrap();
        for (name, version) in &answered {
            let object = snapshot.get(&id(name)).await.unwrap().expect("it was answered");
            assert!(number(&object) >= *version, "{name}: {} is older than {version}", number(&object));
        }
    }
    assert!(answered.len() > 10, "the child wrote");
    let store = open(folder.path());
    let next = store.create(&agent("z", &codex("i1")), "m").await.unwrap();
    assert!(answered.values().all(|version| *version < number(&next)));
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
