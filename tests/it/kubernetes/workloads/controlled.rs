//! The controller of runs with places that are pods: what happens to a pod is told as the run's reason.

use std::sync::atomic::{AtomicUsize, Ordering};

use kube::api::{DeleteParams, PostParams};
use ostler::{
    cache::Caches,
    controllers::{self, Context},
    kinds::{HarnessRun, Phase, Reason},
    kubernetes::objects::KubeObjects,
    telemetry::{AuditLog, Metrics},
};
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A controller that looks after one namespace.
struct Controlled {
    ground: Ground,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Controlled {
    async fn new(prefix: &str) -> Self {
        let ground = Ground::new(prefix).await;
        ground.cluster.install_crds().await;
        let store = Arc::new(KubeObjects::new(ground.client.clone()));
        let (caches, fill) = Caches::new(store.as_ref(), Some(&ground.namespace));
        let fill = AbortOnDropHandle::new(tokio::spawn(fill));
        caches.ready().await;
        let context = Context::new(
            store,
            caches,
            ground.workloads.clone(),
            Arc::new(KubeSecrets::new(ground.client.clone())),
            Arc::new(AuditLog::writer(Box::new(std::io::sink()))),
            Arc::new(Metrics::new()),
            Arc::new(jiff::Timestamp::now),
        );
        let controller = tokio::spawn(controllers::run::control(context, std::future::pending()));
        Self { ground, _tasks: [fill, AbortOnDropHandle::new(controller)] }
    }

    fn runs(&self) -> Api<HarnessRun> {
        Api::namespaced(self.ground.client.clone(), self.ground.namespace.as_str())
    }

    /// A run, as soon as its pod is there and confirmed.
    async fn starts(&self, name: &str) -> Pod {
        let agents: Api<ostler::kinds::Agent> =
            Api::namespaced(self.ground.client.clone(), self.ground.namespace.as_str());
        let agent = json!({"metadata": {"name": name}, "spec": {"image": "a:1", "command": ["true"]}});
        agents
            .create(&PostParams::default(), &serde_json::from_value(typed("Agent", agent)).unwrap())
            .await
            .unwrap();
        let run = json!({"metadata": {"name": name}, "spec": {"agentRef": {"name": name}}});
        let run = serde_json::from_value(typed("HarnessRun", run)).unwrap();
        self.runs().create(&PostParams::default(), &run).await.unwrap();
        eventually("the run's pod, confirmed", async || {
            let pods = ListParams::default().labels(&format!("ostler.dev/run={name}"));
            let pods = self.ground.pods().list(&pods).await.unwrap().items;
            pods.into_iter().find(|pod| pod.finalizers().is_empty())
        })
        .await
    }

    async fn stands(&self, name: &str, phase: Phase, reason: Reason) -> HarnessRun {
        let seen = async || {
            let run = self.runs().get(name).await.unwrap();
            let status = run.status.clone().unwrap_or_default();
            ((status.phase, status.reason) == (Some(phase), Some(reason))).then_some(run)
        };
        eventually(&format!("{name} stands {phase} ({reason})"), seen).await
    }

    async fn no_pod(&self, name: &str) {
        let pods = ListParams::default().labels(&format!("ostler.dev/run={name}"));
        let gone = async || self.ground.pods().list(&pods).await.unwrap().items.is_empty().then_some(());
        eventually("the pod is removed", gone).await;
    }
}

fn typed(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = "ostler.dev/v1alpha1".into();
    object["kind"] = kind.into();
    object
}

#[tokio::test]
async fn what_happens_to_a_pod_is_told_as_the_runs_reason() {
    let world = Controlled::new("told").await;
    let pod = world.starts("evicted").await.name_any();
    let waits = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
    world.ground.says(&pod, waits).await;
    let run = world.stands("evicted", Phase::Starting, Reason::Unschedulable).await;
    let status = run.status.unwrap();
    assert!(status.message.as_deref().unwrap().contains("Insufficient cpu"), "{status:?}");
    assert_eq!(status.place.unwrap().name, pod);

    // it gets a node after all, and is evicted from there
    world
        .ground
        .says(
            &pod,
            json!({"conditions": [{"type": "PodScheduled", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        )
        .await;
    world.stands("evicted", Phase::Starting, Reason::PlaceRequested).await;
    let mut evicted = running();
    evicted["phase"] = "Failed".into();
    evicted["reason"] = "Evicted".into();
    evicted["message"] = "The node was low on resource: memory.".into();
    world.ground.says(&pod, evicted).await;
    let run = world.stands("evicted", Phase::Lost, Reason::Evicted).await;
    assert!(run.status.unwrap().message.unwrap().contains("low on resource"));
    world.no_pod("evicted").await;
}

#[tokio::test]
async fn a_pod_that_cannot_start_fails_the_run_and_one_that_went_loses_it() {
    let world = Controlled::new("ends").await;
    let image = world.starts("image").await.name_any();
    let waiting = json!({"reason": "InvalidImageName", "message": "couldn't parse image name"});
    let container = json!({"name": "agent", "image": "a:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting}});
    world.ground.says(&image, json!({"phase": "Pending", "containerStatuses": [container]})).await;
    world.stands("image", Phase::Failed, Reason::ImageUnavailable).await;
    world.no_pod("image").await;

    let gone = world.starts("gone").await.name_any();
    world.ground.says(&gone, running()).await;
    let params = DeleteParams::default().grace_period(0);
    world.ground.pods().delete(&gone, &params).await.unwrap();
    world.stands("gone", Phase::Lost, Reason::ResultUnavailable).await;
    assert_eq!(world.ground.count().await, 0, "it is not made again");
}

#[tokio::test]
async fn a_run_is_stopped_while_its_pod_waits_for_a_node() {
    let world = Controlled::new("waits").await;
    world.starts("stopped").await;
    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    world.runs().patch("stopped", &PatchParams::default(), &stop).await.unwrap();
    world.stands("stopped", Phase::Stopped, Reason::StopRequested).await;
    world.no_pod("stopped").await;
}

#[tokio::test]
async fn a_run_and_its_place_are_few_writes() {
    let world = Controlled::new("count").await;
    let pod = world.starts("few").await.name_any();
    let mut ended = running();
    ended["phase"] = "Failed".into();
    ended["reason"] = "Evicted".into();
    world.ground.says(&pod, ended).await;
    world.stands("few", Phase::Lost, Reason::Evicted).await;
    world.no_pod("few").await;
    let writes = |verb: &str, resource: &str| {
        let lines = world.ground.cluster.audit();
        let ours = lines.into_iter().filter(|line| {
            line.is_write()
                && line.object_ref.namespace == world.ground.namespace.as_str()
                && line.object_ref.resource == resource
                && line.verb == verb
        });
        ours.count()
    };
    let seen = AtomicUsize::new(0);
    eventually("the audit log has it all", async || {
        seen.store(writes("delete", "pods"), Ordering::Relaxed);
        (seen.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    // one patch of the status is the test's own
    let of_pod = [writes("create", "pods"), writes("patch", "pods"), writes("delete", "pods")];
    assert_eq!(of_pod, [1, 2, 1], "the pod is created, let go and deleted");
}
