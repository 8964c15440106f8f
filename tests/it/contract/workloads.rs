//! The contract of the Workloads port. An adapter brings its [`Ground`]; nothing here knows which one it is.

use async_trait::async_trait;
use ostler::{
    ports::{
        Workloads,
        workloads::{Error, PlaceSpec, Stage, StopReason},
    },
    report::{End, Report},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::world::{sees, shell};

/// What the suite needs of an adapter's surroundings.
#[async_trait]
pub(crate) trait Ground: Send + Sync {
    /// The adapter.
    fn workloads(&self) -> &dyn Workloads;
    /// A run that it can give a place.
    async fn spec(&self, script: &str) -> PlaceSpec;
    /// Whether the sidecar of a run whose result is acknowledged is sure to be there, and tells its output.
    fn tells_after_release(&self) -> bool;
    /// Waits for the report of a run, which the recorder acknowledges.
    async fn report(&self, spec: &PlaceSpec) -> Report;
}

async fn reaches(ground: &dyn Ground, spec: &PlaceSpec, stage: Stage) {
    let seen = sees(ground.workloads(), &spec.run.uid, |place| place.stage == stage).await;
    assert!(seen.is_some(), "{} never was {stage:?}", spec.run);
}

/// A run that says that it runs, then waits to be stopped.
async fn waiting(ground: &dyn Ground) -> PlaceSpec {
    ground.spec("trap 'exit 9' TERM; echo running; while :; do sleep 0.05; done").await
}

async fn runs(ground: &dyn Ground, spec: &PlaceSpec) {
    ground.workloads().ensure(spec).await.unwrap();
    let seen = sees(ground.workloads(), &spec.run.uid, |place| place.startup.first_output_ms.is_some()).await;
    assert_eq!(seen.expect("it runs").stage, Stage::Running);
}

/// A run that never had a place has none, and most operations on it say so.
pub(crate) async fn absent_places(ground: &dyn Ground) {
    let (workloads, run) = (ground.workloads(), shell("").run.uid);
    assert!(workloads.observe(&run).await.unwrap().is_none());
    assert!(matches!(workloads.confirm(&run).await, Err(Error::NotFound(_))));
    assert!(matches!(workloads.stop(&run, StopReason::Removed).await, Err(Error::NotFound(_))));
    assert!(matches!(workloads.update_egress(&run, &[]).await, Err(Error::NotFound(_))));
    assert!(matches!(workloads.open(&run).await, Err(Error::NotFound(_))));
    workloads.remove(&run).await.unwrap();
    workloads.remove_workspace(&run).await.unwrap();
}

/// One place per run UID, from the first call to the removal.
pub(crate) async fn one_place_per_run(ground: &dyn Ground) {
    let (workloads, spec) = (ground.workloads(), ground.spec("exit 3").await);
    let first = workloads.ensure(&spec).await.unwrap();
    assert_eq!(workloads.ensure(&spec).await.unwrap().uid, first.uid);
    assert!(!first.confirmed);
    assert_eq!(ground.report(&spec).await.end, End::Exited { code: 3 });
    reaches(ground, &spec, Stage::Released).await;
    assert_eq!(workloads.ensure(&spec).await.unwrap().stage, Stage::Released, "it is not started again");
    workloads.confirm(&spec.run.uid).await.unwrap();
    workloads.confirm(&spec.run.uid).await.unwrap();
    let place = workloads.observe(&spec.run.uid).await.unwrap().unwrap();
    assert!(place.confirmed && place.ended_at >= place.started_at && place.egress_proven.is_some());
    assert!(workloads.list().await.unwrap().contains(&place));
    workloads.remove(&spec.run.uid).await.unwrap();
    assert!(workloads.observe(&spec.run.uid).await.unwrap().is_none());
}

/// A stop ends the agent, its result is delivered, and a second stop changes nothing.
pub(crate) async fn stops(ground: &dyn Ground) {
    let spec = waiting(ground).await;
    runs(ground, &spec).await;
    ground.workloads().stop(&spec.run.uid, StopReason::StopRequested).await.unwrap();
    ground.workloads().stop(&spec.run.uid, StopReason::Removed).await.unwrap();
    let end = ground.report(&spec).await.end;
    assert_eq!(end, End::Stopped { by: StopReason::StopRequested, code: 9 });
    reaches(ground, &spec, Stage::Released).await;
    ground.workloads().stop(&spec.run.uid, StopReason::Removed).await.unwrap();
}

/// The output can be read while the agent runs, and where its sidecar stays, after its end.
pub(crate) async fn streams(ground: &dyn Ground) {
    let spec = waiting(ground).await;
    runs(ground, &spec).await;
    let logs = |follow: bool| format!("{{\"logs\":{{\"since\":0,\"follow\":{follow}}}}}\n");
    let mut stream = ground.workloads().open(&spec.run.uid).await.unwrap();
    stream.write_all(logs(true).as_bytes()).await.unwrap();
    let mut line = [0; 8];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"running\n");
    ground.workloads().stop(&spec.run.uid, StopReason::StopRequested).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    ground.report(&spec).await;
    reaches(ground, &spec, Stage::Released).await;
    if !ground.tells_after_release() {
        return;
    }
    let mut stream = ground.workloads().open(&spec.run.uid).await.unwrap();
    stream.write_all(logs(false).as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("running\n"), "{all}");
}

/// Removal ends what still runs, without a trace.
pub(crate) async fn removes(ground: &dyn Ground) {
    let spec = waiting(ground).await;
    runs(ground, &spec).await;
    ground.workloads().remove(&spec.run.uid).await.unwrap();
    assert!(ground.workloads().observe(&spec.run.uid).await.unwrap().is_none());
    assert!(ground.workloads().list().await.unwrap().iter().all(|place| place.run.uid != spec.run.uid));
}

mod node;

mod embedded {
    use super::{Ground, PlaceSpec, Report, Workloads, async_trait, shell};
    use crate::harness::world::{PATIENCE, World};

    #[async_trait]
    impl Ground for World {
        fn workloads(&self) -> &dyn Workloads {
            &self.workloads
        }

        async fn spec(&self, script: &str) -> PlaceSpec {
            shell(script)
        }

        fn tells_after_release(&self) -> bool {
            true
        }

        async fn report(&self, spec: &PlaceSpec) -> Report {
            let found = async {
                for count in 1.. {
                    let came = self.delivered(count).await;
                    let found = came.into_iter().find(|delivery| delivery.report.run.uid == spec.run.uid);
                    if let Some(found) = found {
                        return found.report;
                    }
                }
                unreachable!("it waits until it is found")
            };
            tokio::time::timeout(PATIENCE, found).await.expect("its report comes")
        }
    }

    macro_rules! suite {
        ($($name:ident),*) => { $(
            #[tokio::test]
            async fn $name() {
                super::$name(&World::new()).await;
            }
        )* };
    }

    suite!(absent_places, one_place_per_run, stops, streams, removes);
}
