//! Sidecars, adapters and folders that come and go.

use std::{fs, sync::Arc};

use futures::StreamExt;
use ostler::{
    embedded::access::EmbeddedAccess,
    harness::process::Process,
    kinds::{Phase, Reason},
    ports::{
        Access, Workloads,
        access::Audience,
        workloads::{PlaceSpec, SecretKey, Stage, StopReason},
    },
    report::{End, outcome},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{Then, World, appears, disappears, nap, nothing_left, processes_with, shell};

/// A run that needs a secret, which exists.
fn with_secret(world: &World, script: &str) -> PlaceSpec {
    world.secrets.put("key", "key", "the-value");
    let mut spec = shell(script);
    spec.secret_env = vec![("KEY".into(), SecretKey { secret: "key".parse().unwrap(), key: "key".into() })];
    spec
}

fn processes(world: &World, run: &ostler::names::Uid) -> [Process; 2] {
    let state = fs::read(world.place(run).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    ["sidecar", "shim"].map(|name| serde_json::from_value(state[name].clone()).unwrap())
}

/// A NUL-separated file of a process; nothing of one that has ended.
fn words(pid: i32, file: &str) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[tokio::test]
async fn what_others_can_see_of_its_processes_holds_no_secret() {
    let world = World::new();
    let nap = nap();
    let spec = with_secret(&world, &format!("touch started; sleep {nap}"));
    world.workloads.ensure(&spec).await.unwrap();
    appears(&world.place(&spec.run.uid).join("workspace/started")).await;
    let place = spec.run.uid.as_str();
    let ours = processes_with(place);
    assert!(ours.len() >= 2, "the sidecar and bwrap: {ours:?}");
    let [sidecar, shim] = processes(&world, &spec.run.uid).map(|process| process.pid);
    for pid in ours.into_iter().chain([sidecar, shim]) {
        let line = words(pid, "cmdline");
        assert!(
            line.iter().all(|word| !word.contains("the-value") && !word.contains("token-of-")),
            "{line:?}"
        );
    }
    // The test's own environment has more, which is not taken over; cargo sees to that.
    let taken: Vec<_> = words(sidecar, "environ").into_iter().filter(|word| !word.is_empty()).collect();
    let allowed = ["PATH=", "HOME=", "TMPDIR=", "LANG=", "RUST_LOG="];
    assert!(taken.iter().all(|word| allowed.iter().any(|name| word.starts_with(name))), "{taken:?}");
    assert!(taken.iter().any(|word| word.starts_with("PATH=")), "{taken:?}");
    world.workloads.remove(&spec.run.uid).await.unwrap();
    nothing_left(&nap).await;
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
    let nap = nap();
    let spec = shell(&format!("echo one >>starts; touch started; setsid sleep {nap} & sleep {nap}"));
    world.workloads.ensure(&spec).await.unwrap();
    let workspace = world.place(&spec.run.uid).join("workspace");
    appears(&workspace.join("started")).await;
    assert!(!processes_with(&nap).is_empty());
    let [sidecar, shim] = processes(&world, &spec.run.uid);
    sidecar.kill();
    world.reaches(&spec.run.uid, Stage::Vanished).await;
    nothing_left(&nap).await;
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
    let nap = nap();
    let spec = shell(&format!("touch started; sleep {nap}"));
    world.workloads.ensure(&spec).await.unwrap();
    appears(&world.place(&spec.run.uid).join("workspace/started")).await;
    processes(&world, &spec.run.uid)[1].kill();
    let end = world.delivered(1).await.remove(0).report.end;
    assert!(matches!(&end, End::Ended { message, code: 137, .. } if message.contains("killed")), "{end:?}");
    nothing_left(&nap).await;
}

#[tokio::test]
async fn when_the_state_folder_goes_everything_ends() {
    let world = World::new();
    let nap = nap();
    let spec = shell(&format!("touch started; setsid sleep {nap} & sleep {nap}"));
    world.workloads.ensure(&spec).await.unwrap();
    let place = world.place(&spec.run.uid);
    appears(&place.join("workspace/started")).await;
    let [sidecar, shim] = processes(&world, &spec.run.uid);
    fs::rename(&world.state, world.folder.path().join("gone")).unwrap();
    fs::remove_dir_all(world.folder.path().join("gone")).unwrap();
    nothing_left(&nap).await;
    while sidecar.is_alive() || shim.is_alive() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(world.deliveries().is_empty());
}

#[tokio::test]
async fn removal_ends_what_runs_and_leaves_nothing() {
    let world = World::new();
    let nap = nap();
    let spec = shell(&format!("mkdir -p a/b; chmod 0 a/b a; touch started; sleep {nap}"));
    world.workloads.ensure(&spec).await.unwrap();
    let place = world.place(&spec.run.uid);
    appears(&place.join("workspace/started")).await;
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(!place.exists());
    nothing_left(&nap).await;
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(world.workloads.list().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(&world.options.places).unwrap().count(), 0, "under any name");
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    let spec = shell("true");
    let uid = spec.run.uid.as_str();
    // As a crash leaves it: under its other name, half of it deleted, the rest as the agent closed it.
    let left = || {
        let left = world.options.places.join(format!(".gone-{uid}"));
        fs::create_dir_all(left.join("workspace/a")).unwrap();
        fs::write(left.join("workspace/a/file"), "").unwrap();
        fs::set_permissions(left.join("workspace"), fs::Permissions::from_mode(0o000)).unwrap();
        left
    };
    left();
    assert!(world.workloads.observe(&spec.run.uid).await.unwrap().is_none());
    world.run(&spec).await;
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert_eq!(fs::read_dir(&world.options.places).unwrap().count(), 0);

    let left = left();
    world.restart();
    disappears(&left).await;
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
    world.answers(&[422; 1]);
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
    assert!(refused.await.contains("422"));
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
    let spec = with_secret(&world, "touch started");
    // The sidecar waits for secrets that do not come, so that it cannot start.
    world.secrets.last(1, Then::OutOfReach);
    world.workloads.ensure(&spec).await.unwrap();
    let mut stopped = world.workloads.stop(&spec.run.uid, StopReason::StopRequested).await;
    while stopped.is_err() {
        // Its sidecar is not up yet.
        tokio::task::yield_now().await;
        stopped = world.workloads.stop(&spec.run.uid, StopReason::StopRequested).await;
    }
    world.reaches(&spec.run.uid, Stage::Delivering).await;
    world.secrets.mend();
    let report = world.delivered(1).await.remove(0).report;
    assert!(matches!(&report.end, End::NotStarted { reason: Reason::StopRequested, .. }), "{:?}", report.end);
    assert_eq!(outcome(&report).phase, Phase::Stopped);
    assert!(!world.place(&spec.run.uid).join("workspace/started").exists());
}

#[tokio::test]
async fn a_run_whose_secrets_go_away_says_so_to_the_recorder() {
    let world = World::new();
    let spec = with_secret(&world, "touch started");
    world.secrets.last(1, Then::Gone);
    world.workloads.ensure(&spec).await.unwrap();
    let delivery = world.delivered(1).await.remove(0);
    assert!(
        matches!(&delivery.report.end, End::NotStarted { reason: Reason::SecretNotFound, .. }),
        "{:?}",
        delivery.report.end
    );
    assert_eq!(delivery.headers["authorization"], format!("Bearer token-of-{}", spec.run.uid));
    world.reaches(&spec.run.uid, Stage::Released).await;
}

#[tokio::test]
async fn with_its_place_go_the_tokens_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let access = Arc::new(EmbeddedAccess::open(folder.path()).unwrap());
    let world = World::with(|options| {
        let (minting, dropping) = (access.clone(), access.clone());
        options.tokens = Arc::new(move |run| minting.mint_run_token(run).map_err(Into::into));
        options.drop_tokens = Arc::new(move |run| dropping.drop_run(run).map_err(Into::into));
    });
    let spec = shell("true");
    let delivery = world.run(&spec).await;
    let bearer = delivery.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let token = secrecy::SecretString::from(bearer);
    assert!(access.authenticate(&token, Audience::Result).await.is_ok());
    world.workloads.remove(&spec.run.uid).await.unwrap();
    assert!(access.authenticate(&token, Audience::Result).await.is_err());
}
