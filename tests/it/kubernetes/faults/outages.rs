//! An API server that is slow, away, restarted, or has forgotten what was.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::watcher::{self, Event},
};
use ostler::{
    kinds::{Kind, Phase},
    ports::objects::{At, Store},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, shared},
    kubernetes::{agent as object, id, proxy::Proxy, stage::Stage, store_of},
    scenarios::manifests::{GATE, agent, commits, run},
};

const PATIENCE: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_compaction_hides_from_a_watch_is_seen_by_listing_again() {
    let cluster = Cluster::start_own().await;
    cluster.install_crds().await;
    let namespace = cluster.namespace("compact").await.parse().unwrap();
    let direct = store_of(cluster.kubeconfig()).await;
    let proxy = Proxy::start(cluster.client().await).await;
    let watching: Store = store_of(&proxy.kubeconfig()).await;
    let mut made = Vec::new();
    for name in ["goes", "changes", "stays"] {
        made.push(direct.create(&object(&namespace, name, "i1"), "m").await.unwrap());
    }
    let mut events = watching.watch(Kind::Agent, Some(namespace.clone()));
    let mut next = async || {
        tokio::time::timeout(PATIENCE, events.next())
            .await
            .expect("it goes on")
            .expect("a watch does not end")
    };
    while !matches!(next().await, Ok(Event::InitDone)) {}

    proxy.go_away();
    direct.delete(&id(Kind::Agent, &namespace, "goes"), &At::of(&made[0]).unwrap()).await.unwrap();
    let patch = json!({"spec": {"image": "i2"}});
    let changed = id(Kind::Agent, &namespace, "changes");
    direct.merge(&changed, &At::of(&made[1]).unwrap(), &patch, "m").await.unwrap();
    direct.create(&object(&namespace, "comes", "i1"), "m").await.unwrap();
    // etcd forgets, and a new API server has no memory of its own
    cluster.compact().await;
    cluster.restart_api_server().await;
    proxy.come_back();

    let (mut gone, mut listed) = (false, Vec::new());
    loop {
        match next().await {
            Err(watcher::Error::WatchError(status)) => gone |= status.code == 410,
            Err(_) => {}
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(agent)) => {
                listed.push(format!(
                    "{} {}",
                    agent.name_any(),
                    agent.data["spec"]["image"].as_str().unwrap()
                ));
            }
            Ok(Event::InitDone) => break,
            Ok(Event::Apply(object) | Event::Delete(object)) => {
                panic!("the watch cannot go on where it was: {}", object.name_any())
            }
        }
    }
    assert!(gone, "the API server says that what was is gone");
    listed.sort();
    assert_eq!(listed, ["changes i2", "comes i1", "stays i1"]);
    direct.create(&object(&namespace, "later", "i1"), "m").await.unwrap();
    let later = next().await;
    assert!(matches!(&later, Ok(Event::Apply(agent)) if agent.name_any() == "later"), "{later:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_api_server_makes_nothing_wrong() {
    let stage = Stage::new(shared().await, "slow").await;
    let user = stage.cluster.user(&stage.rights.user, &[]).await;
    let proxy = Proxy::start(user).await;
    let up = stage.up_by(&proxy.kubeconfig());
    proxy.be_late(Duration::from_millis(150));
    stage.push("agents/more.yaml", &agent("more", &json!({})));
    let last = stage.push("runs/one.yaml", &run("one", &commits("WORK", "done")));
    stage.in_force(&last).await;
    stage.recorded("one", Phase::Succeeded).await;
    proxy.be_late(Duration::ZERO);
    assert_eq!(starts(&stage, "one"), 1, "it was started once");
    assert_eq!(up.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_outlives_a_restart_of_the_api_server() {
    let cluster = Arc::new(Cluster::start_own().await);
    let stage = Stage::new(&cluster, "restart").await;
    let up = stage.up();
    stage.push("runs/one.yaml", &run("one", &format!("{GATE}{}", commits("WORK", "done"))));
    let running = stage.run("one", "it runs", |status| status.phase == Some(Phase::Running)).await;
    cluster.stop_api_server().await;
    // the agent ends, and a commit comes, while nobody can be told
    stage.open_gate(&running).await;
    let last = stage.push("agents/more.yaml", &agent("more", &json!({})));
    up.line("the outage is told", |line| line["level"] == "WARN");
    cluster.start_api_server().await;
    stage.recorded("one", Phase::Succeeded).await;
    assert_eq!(starts(&stage, "one"), 1, "it was started once");
    stage.in_force(&last).await;
    assert_eq!(up.stop().code, Some(0));
}

/// How often the agent of a run was started.
fn starts(stage: &Stage<'_>, run: &str) -> usize {
    let file = format!("ostler/{}/{run}:STARTS", stage.namespace);
    stage.code.bare_git(&["show", &file]).lines().count()
}
