//! Places whose run is gone are ended, and no others.

use std::sync::Arc;

use ostler::{
    cache::Caches,
    controllers::{Context, sweep},
    embedded::{objects::EmbeddedStore, workloads::EmbeddedWorkloads},
    kinds::HarnessRun,
    ports::{
        Workloads,
        objects::{self, Store},
        workloads::{PlaceSpec, Stage},
    },
    telemetry::{AuditLog, Metrics},
};
use serde_json::json;

use crate::{
    cluster::eventually,
    harness::world::{World, shell},
};

async fn run(store: &Store, namespace: &str, name: &str) -> PlaceSpec {
    let object = json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"command": ["true"]}
    });
    let made = store.create(&serde_json::from_value(object).unwrap(), "test").await.unwrap();
    let made: HarnessRun = objects::typed(made).unwrap();
    let mut spec = shell("sleep 600");
    spec.run.namespace = namespace.parse().unwrap();
    spec.run.name = name.parse().unwrap();
    spec.run.uid = made.metadata.uid.unwrap().parse().unwrap();
    spec
}

#[tokio::test]
async fn a_place_ends_when_the_store_says_that_its_run_is_gone_and_never_by_the_cache_alone() {
    let mut world = World::new();
    let store: Store = Arc::new(EmbeddedStore::open(&world.folder.path().join("store")).unwrap());
    // The caches look at one namespace: the other one's run is in the store, and in no cache.
    let (looked_at, elsewhere) = ("team".parse().unwrap(), run(&store, "other", "fix").await);
    let here = run(&store, "team", "fix").await;
    let gone = shell("sleep 600");
    let mut again = run(&store, "team", "again").await;
    again.run.uid = shell("").run.uid;
    let all = [&elsewhere, &here, &gone, &again];
    for spec in all {
        world.workloads.ensure(spec).await.unwrap();
        world.reaches(&spec.run.uid, Stage::Running).await;
    }
    world.forsake();
    let workloads = Arc::new(EmbeddedWorkloads::open(world.options.clone()).unwrap());
    let (caches, fill) = Caches::new(store.as_ref(), Some(&looked_at));
    let filling = tokio::spawn(fill);
    let context = Context::new(
        store.clone(),
        caches,
        workloads.clone(),
        world.secrets.clone(),
        Arc::new(AuditLog::writer(Box::new(std::io::sink()))),
        Arc::new(Metrics::new()),
        Arc::new(jiff::Timestamp::now),
    );
    let sweeping = tokio::spawn(sweep::control(context, std::future::pending()));
    let there = async |spec: &PlaceSpec| workloads.observe(&spec.run.uid).await.unwrap().is_some();
    for spec in [&gone, &again] {
        eventually("the place of a run that is gone goes", async || (!there(spec).await).then_some(())).await;
    }
    // All are looked at together.
    assert!(there(&elsewhere).await && there(&here).await);

    // From here on a run goes while its place is watched.
    let id = objects::id_of(ostler::kinds::Kind::HarnessRun, &typed(&store, &here).await).unwrap();
    let at = objects::At::of(&typed(&store, &here).await).unwrap();
    store.delete(&id, &at.any_version()).await.unwrap();
    eventually("its place goes, too", async || (!there(&here).await).then_some(())).await;
    assert!(there(&elsewhere).await);
    sweeping.abort();
    filling.abort();
    for spec in all {
        workloads.remove(&spec.run.uid).await.unwrap();
    }
}

async fn typed(store: &Store, spec: &PlaceSpec) -> HarnessRun {
    objects::get(store.as_ref(), &spec.run.namespace, &spec.run.name).await.unwrap().unwrap()
}
