//! Sidecars, adapters and folders that come and go.

use std::fs;

use futures::StreamExt;
use ostler::{
    harness::process::Process,
    ports::{
        Workloads,
        workloads::{Stage, StopReason},
    },
    report::End,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, appears, nothing_left, processes_with, shell};

fn processes(world: &World, run: &ostler::names::Uid) -> [Process; 2] {
    let state = fs::read(world.place(run).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    ["sidecar", "shim"].map(|name| serde_json::from_value(state[name].clone()).unwrap())
}

#[tokio::test]
async fn a_run_goes_on_without_its_adapter_and_is_adopted() {
    let mut world = World::new();
    let spec = shell("echo one >>starts; touch started; while [ ! -e go ]; do sleep 0.05; done; cat starts");
    world.workloads.ensure(&spec).await.unwrap();
    let workspace = world.place(&spec.run.uid).join("workspace");
    appears(&workspace.join("started")).await;
    let before = processes(&world, &spec.run.uid);
    world.restart();
    let place = world.workloads.ensure(&spec).await.unwrap();
    assert_eq!(place.stage, Stage::Running);
    fs::write(workspace.join("go"), "").unwrap();
    world.reaches(&spec.run.uid, Stage::Released).await;
    assert_eq!(processes(&world, &spec.run.uid), before, "the same sidecar, the same shim");
    let came = world.deliveries();
    assert_eq!((came.len(), came[0].output().as_str()), (1, "one\n"));
    assert_eq!(came[0].report.end, End::Exited { code: 0 });
}

#[tokio::test]
async fn ensure_makes_one_place_whoever_asks_and_however_often() {
    let world = World::new();
    let spec = shell("echo one >>starts; cat starts");
    let asked = futures::future::join_all((0..8).map(|_| world.workloads.ensure(&spec))).await;
    let uids: std::collections::BTreeSet<_> = asked.into_iter().map(|place| place.unwrap().uid).collect();
    assert_eq!(uids.len(), 1);
    world.reaches(&spec.run.uid, Stage::Released).await;
    let again = world.workloads.ensure(&spec).await.unwrap();
    assert_eq!(again.stage, Stage::Released);
    assert_eq!(world.deliveries().len(), 1);
    assert_eq!(world.deliveries()[0].output(), "one\n");
}

#[tokio::test]
async fn when_a_sidecar_is_killed_nothing_is_left_and_nothing_starts_again() {
    let mut world = World::new();
    let spec = shell("echo one >>starts; touch started; setsid sleep 98762 & sleep 98762");
    world.workloads.ensure(&spec).await.unwrap();
    let workspace = world.place(&spec.run.uid).join("workspace");
    appears(&workspace.join("started")).await;
    assert!(!processes_with("98762").is_empty());
    let [sidecar, shim] = processes(&world, &spec.run.uid);
    sidecar.kill();
    world.reaches(&spec.run.uid, Stage::Vanished).await;
    nothing_left("98762").await;
    while shim.is_alive() {
        tokio::task::yield_now().await;
    }
    world.restart();
    assert_eq!(world.workloads.ensure(&spec).await.unwrap().stage, Stage::Vanished);
    assert_eq!(fs::read_to_string(workspace.join("starts")).unwrap(), "one\n");
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(world.workloads.observe(&spec.run.uid).await.unwrap().is_none());
}

#[tokio::test]
async fn when_pid_1_is_killed_the_result_says_so() {
    let world = World::new();
    let spec = shell("touch started; sleep 98763");
    world.workloads.ensure(&spec).await.unwrap();
    appears(&world.place(&spec.run.uid).join("workspace/started")).await;
    processes(&world, &spec.run.uid)[1].kill();
    let end = world.delivered(1).await.remove(0).report.end;
    assert!(matches!(&end, End::Ended { message, code: 137, .. } if message.contains("killed")), "{end:?}");
    nothing_left("98763").await;
}

#[tokio::test]
async fn when_the_state_folder_goes_everything_ends() {
    let world = World::new();
    let spec = shell("touch started; setsid sleep 98764 & sleep 98764");
    world.workloads.ensure(&spec).await.unwrap();
    let place = world.place(&spec.run.uid);
    appears(&place.join("workspace/started")).await;
    let [sidecar, shim] = processes(&world, &spec.run.uid);
    fs::rename(&world.options.state, world.folder.path().join("gone")).unwrap();
    fs::remove_dir_all(world.folder.path().join("gone")).unwrap();
    nothing_left("98764").await;
    while sidecar.is_alive() || shim.is_alive() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(world.deliveries().is_empty());
}

#[tokio::test]
async fn removal_ends_what_runs_and_leaves_nothing() {
    let world = World::new();
    let spec = shell("mkdir -p a/b; chmod 0 a/b a; touch started; sleep 98765");
    world.workloads.ensure(&spec).await.unwrap();
    let place = world.place(&spec.run.uid);
    appears(&place.join("workspace/started")).await;
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(!place.exists());
    nothing_left("98765").await;
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(world.workloads.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn delivery_goes_on_until_it_is_acknowledged() {
    let mut world = World::new();
    world.answers(&[503, 202, 401]);
    let spec = shell("echo once");
    world.run(&spec).await;
    let came = world.deliveries();
    assert_eq!(came.len(), 4);
    assert!(came.iter().all(|delivery| delivery.digest == came[0].digest), "the same bytes each time");

    world.stop_recorder();
    let late = shell("echo late");
    world.workloads.ensure(&late).await.unwrap();
    world.reaches(&late.run.uid, Stage::Delivering).await;
    // The sidecar dies with its outbox full; another one delivers.
    processes(&world, &late.run.uid)[0].kill();
    world.restart();
    world.start_recorder();
    let delivery = world.delivered(5).await.remove(4);
    assert_eq!(delivery.output(), "late\n");
    world.reaches(&late.run.uid, Stage::Released).await;
}

#[tokio::test]
async fn a_refused_result_stays_in_its_outbox() {
    let world = World::new();
    world.answers(&[413; 1]);
    let spec = shell("echo kept");
    world.workloads.ensure(&spec).await.unwrap();
    world.delivered(1).await;
    let place = world.place(&spec.run.uid);
    let refused = async {
        loop {
            let state: serde_json::Value =
                serde_json::from_slice(&fs::read(place.join("state.json")).unwrap()).unwrap();
            if let Some(error) = state["deliveryError"].as_str() {
                return error.to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    assert!(refused.await.contains("413"));
    assert_eq!(world.workloads.observe(&spec.run.uid).await.unwrap().unwrap().stage, Stage::Delivering);
    assert!(place.join("outbox/result.tar").exists());
    world.workloads.remove(&spec.run.uid).await.unwrap();
}

#[tokio::test]
async fn output_can_be_followed_and_read_after_the_end() {
    let world = World::new();
    let spec = shell("echo first; while [ ! -e go ]; do sleep 0.05; done; echo second");
    world.workloads.ensure(&spec).await.unwrap();
    world.sees(&spec.run.uid, |place| place.startup.first_output_ms.is_some()).await;
    let mut stream = world.workloads.open(&spec.run.uid).await.unwrap();
    stream.write_all(b"{\"logs\":{\"since\":0,\"follow\":true}}\n").await.unwrap();
    let mut first = [0; 6];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first\n");
    fs::write(world.place(&spec.run.uid).join("workspace/go"), "").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "second\n");
    world.reaches(&spec.run.uid, Stage::Released).await;
    let mut stream = world.workloads.open(&spec.run.uid).await.unwrap();
    stream.write_all(b"{\"logs\":{\"since\":3,\"follow\":false}}\n").await.unwrap();
    let mut late = String::new();
    stream.read_to_string(&mut late).await.unwrap();
    assert_eq!(late, "st\nsecond\n");
}

#[tokio::test]
async fn changes_are_told() {
    let world = World::new();
    let mut changes = world.workloads.changes();
    let spec = shell("true");
    world.workloads.ensure(&spec).await.unwrap();
    assert_eq!(changes.next().await.unwrap(), spec.run);
    world.reaches(&spec.run.uid, Stage::Released).await;
    assert!(!world.workloads.observe(&spec.run.uid).await.unwrap().unwrap().confirmed);
    world.workloads.confirm(&spec.run.uid).await.unwrap();
    assert!(world.workloads.observe(&spec.run.uid).await.unwrap().unwrap().confirmed);
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let world = World::new();
    let spec = shell("touch started");
    world.workloads.ensure(&spec).await.unwrap();
    let mut stopped = world.workloads.stop(&spec.run.uid, StopReason::StopRequested).await;
    while stopped.is_err() {
        // Its sidecar is not up yet.
        tokio::task::yield_now().await;
        stopped = world.workloads.stop(&spec.run.uid, StopReason::StopRequested).await;
    }
    let report = world.delivered(1).await.remove(0).report;
    match report.end {
        End::NotStarted { reason, .. } => assert_eq!(reason, ostler::kinds::Reason::StopRequested),
        // It may have been just in time to start; then it was stopped or had ended.
        End::Stopped { .. } | End::Exited { .. } => {}
        end => panic!("{end:?}"),
    }
}
