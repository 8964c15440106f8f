//! Sidecars and shims that come and go.

use std::fs;

use ostler::{kinds::Reason, ports::workloads::Stage, report::End};

use super::world::{Pod, Settings, ended, eventually};
use crate::harness::world::{FakeSecrets, appears, disappears, nap, nothing_left, shell};

#[tokio::test]
async fn a_sidecar_that_is_killed_while_it_delivers_delivers_when_it_is_back() {
    let mut pod = Pod::make(
        &shell("echo one >>starts; cat starts; exit 7"),
        FakeSecrets::default(),
        Settings::default(),
    )
    .await;
    pod.answers(&[503; 1000]);
    pod.start_sidecar();
    pod.shim = Some(pod.new_shim());
    pod.provide().await;
    pod.sees("an attempt fails", |state| state.delivery_error.is_some()).await;
    let sidecar = pod.sidecar.as_mut().unwrap();
    sidecar.kill().unwrap();
    ended(sidecar).await;
    assert!(
        pod.shim.as_mut().unwrap().try_wait().unwrap().is_none(),
        "the last container must not end before"
    );
    pod.accept();
    pod.start_sidecar();
    pod.reaches(Stage::Released).await;
    let last = pod.deliveries().pop().unwrap();
    assert_eq!((last.report.end.clone(), last.output()), (End::Exited { code: 7 }, "one\n".to_owned()));
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(7));
}

#[tokio::test]
async fn a_sidecar_that_is_killed_while_the_agent_runs_collects_what_that_left() {
    let nap = nap();
    let script = format!("echo one >>starts; touch started; setsid sleep {nap} & sleep {nap}");
    let mut spec = shell(&script);
    spec.artifacts = vec![("starts".into(), 100)];
    let mut pod = Pod::start(&spec).await;
    appears(&pod.at("place/workspace/started")).await;
    let sidecar = pod.sidecar.as_mut().unwrap();
    sidecar.kill().unwrap();
    ended(sidecar).await;
    nothing_left(&nap).await;
    pod.start_sidecar();
    let delivery = pod.delivered().await;
    let End::Ended { reason: Reason::PlaceFailed, message, .. } = &delivery.report.end else {
        panic!("{:?}", delivery.report.end)
    };
    assert!(message.contains("its sidecar was killed"), "{message}");
    assert_eq!(delivery.files["artifacts/starts"], b"one\n", "{:?}", delivery.report.notes);
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(137));
    assert_eq!(
        fs::read_to_string(pod.at("place/workspace/starts")).unwrap(),
        "one\n",
        "nothing starts twice"
    );
}

#[tokio::test]
async fn a_second_shim_finds_nobody() {
    let script = "touch started; while [ ! -e go ]; do sleep 0.05; done";
    let mut pod = Pod::start(&shell(script)).await;
    appears(&pod.at("place/workspace/started")).await;
    disappears(&pod.at("run/ostler/shim.sock")).await;
    let mut second = pod.new_shim();
    super::world::inside(&second).await;
    fs::write(pod.at("place/workspace/go"), "").unwrap();
    assert_eq!(pod.delivered().await.report.end, End::Exited { code: 0 });
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(0));
    assert!(second.try_wait().unwrap().is_none(), "it still looks for a socket");
    second.kill().unwrap();
    ended(&mut second).await;
}

#[tokio::test]
async fn a_shim_may_come_long_before_its_sidecar_or_long_after() {
    let spec = shell("exit 4");
    let mut pod = Pod::make(&spec, FakeSecrets::default(), Settings::default()).await;
    pod.shim = Some(pod.new_shim());
    super::world::inside(pod.shim.as_ref().unwrap()).await;
    pod.start_sidecar();
    pod.provide().await;
    assert_eq!(pod.delivered().await.report.end, End::Exited { code: 4 });

    let mut pod = Pod::make(&spec, FakeSecrets::default(), Settings::default()).await;
    pod.start_sidecar();
    pod.provide().await;
    let socket = pod.at("run/ostler/shim.sock");
    eventually("the sidecar waits", async || socket.exists().then_some(())).await;
    pod.shim = Some(pod.new_shim());
    assert_eq!(pod.delivered().await.report.end, End::Exited { code: 4 });
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(4));
}
