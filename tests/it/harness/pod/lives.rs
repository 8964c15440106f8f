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

#[tokio::test]
async fn each_part_of_a_pod_says_what_it_does_and_nothing_of_the_agents() {
    let mut pod = Pod::start(&shell("echo of-the-agent; echo $KEY; exit 5")).await;
    pod.delivered().await;
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(5));
    let log = |name: &str| fs::read_to_string(pod.at(name)).unwrap();
    // A line is written before what it tells, or right after it.
    let says = async |name: &str, words: &[&str]| {
        for words in words {
            eventually(&format!("{name} says {words:?}"), async || log(name).contains(words).then_some(()))
                .await;
        }
    };
    let steps = [
        "the sidecar begins",
        "the run's secrets are there",
        "the proof of egress begins",
        "the way out is proven closed",
        "the workspace is written",
        "the agent runs",
        "the agent has ended",
        "the result is collected",
        "the result is acknowledged",
    ];
    says("sidecar.log", &steps).await;
    let agent = ["the shim waits for its sidecar", "the agent is started", "the agent has ended"];
    says("shim.log", &agent).await;
    says("shim.log", &["the result is acknowledged; the container ends"]).await;
    for name in ["sidecar.log", "shim.log"] {
        let text = log(name);
        for secret in ["of-the-agent", "the-value", "projected-for"] {
            assert!(!text.contains(secret), "{name} says {secret}: {text}");
        }
        assert!(text.lines().count() < 20, "{name} is long: {text}");
    }
}
