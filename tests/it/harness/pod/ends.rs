//! How agents in pods end.

use ostler::{
    kinds::Reason,
    ports::workloads::{Limit, PlaceSpec, Stage},
    report::End,
};

use super::world::{Pod, Settings, ended, inside, terminate};
use crate::harness::world::{FakeSecrets, appears, command, nap, nothing_left, processes_with, shell};

fn reason(end: &End) -> Reason {
    match end {
        End::Ended { reason, .. } | End::NotStarted { reason, .. } => *reason,
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_is_reported() {
    let nap = nap();
    let pod = Pod::start(&command(&["/bin/sleep", &nap])).await;
    pod.reaches(Stage::Running).await;
    let agent = super::world::eventually("the agent runs", async || {
        // Before it is the agent, the same process is ours, and its command line has more.
        let pids = processes_with(&nap);
        pids.into_iter()
            .find(|pid| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n"))
    })
    .await;
    let agent = rustix::process::Pid::from_raw(agent).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
    assert_eq!(pod.delivered().await.report.end, End::Exited { code: 137 });
}

#[tokio::test]
async fn when_the_whole_container_is_killed_the_result_still_comes() {
    let nap = nap();
    let mut pod = Pod::start(&shell(&format!("echo said; touch started; sleep {nap}"))).await;
    appears(&pod.at("place/workspace/started")).await;
    let shim = pod.shim.as_mut().unwrap();
    shim.kill().unwrap();
    ended(shim).await;
    let delivery = pod.delivered().await;
    assert_eq!(reason(&delivery.report.end), Reason::PlaceFailed);
    assert_eq!(delivery.output(), "said\n");
    assert!(delivery.report.notes.iter().any(|note| note.contains("could not be collected")), "{delivery:?}");
    nothing_left(&nap).await;
}

/// A drain tells the sidecar, the shim or both to end.
async fn drained(tell: impl AsyncFn(&mut Pod)) {
    let script =
        "trap 'echo cleaned; echo work >work; exit 5' TERM; touch started; while :; do sleep 0.05; done";
    let mut pod = Pod::start(&shell(script)).await;
    appears(&pod.at("place/workspace/started")).await;
    tell(&mut pod).await;
    ended(pod.sidecar.as_mut().unwrap()).await;
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(5));
    let delivery = pod.deliveries().remove(0);
    assert_eq!(reason(&delivery.report.end), Reason::Drained);
    assert_eq!(delivery.report.end.code(), Some(5));
    assert!(delivery.output().contains("cleaned\n"), "{}", delivery.output());
}

#[tokio::test]
async fn sigterm_to_the_sidecar_ends_the_agent_with_its_grace_and_delivers() {
    drained(async |pod| terminate(pod.sidecar.as_ref().unwrap().id())).await;
}

#[tokio::test]
async fn sigterm_to_the_agents_container_does_the_same() {
    drained(async |pod| terminate(inside(pod.shim.as_ref().unwrap()).await)).await;
}

#[tokio::test]
async fn sigterm_before_the_agent_runs_is_delivered_too() {
    let spec = shell("touch started");
    let mut pod = Pod::make(&spec, FakeSecrets::default(), Settings::default()).await;
    pod.start_sidecar();
    // No shim yet: a kubelet still pulls the image.
    pod.provide().await;
    terminate(pod.sidecar.as_ref().unwrap().id());
    let status = ended(pod.sidecar.as_mut().unwrap()).await;
    assert!(status.success(), "{}", pod.logs());
    assert_eq!(reason(&pod.deliveries().remove(0).report.end), Reason::Drained);
    assert!(!pod.at("place/workspace/started").exists());
}

async fn passes_limit(change: impl FnOnce(&mut PlaceSpec), script: &str, expected: Reason) {
    let mut spec = shell(script);
    change(&mut spec);
    let pod = Pod::start(&spec).await;
    let end = pod.delivered().await.report.end;
    assert_eq!(reason(&end), expected, "{end:?}");
}

#[tokio::test]
async fn limits_that_the_shim_measures_have_their_reasons() {
    let authored = |value| Limit { value, authored: true };
    let processes = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; wait";
    passes_limit(|spec| spec.limits.processes = authored(30), processes, Reason::ProcessLimit).await;
    let memory = "head -c 300000000 /dev/zero | tail -c 300000000 | sleep 1000";
    passes_limit(|spec| spec.limits.memory_bytes = authored(100 << 20), memory, Reason::OutOfMemory).await;
    let disk = "for n in 1 2 3 4 5 6 7 8; do head -c 10000000 /dev/zero >/tmp/$n; done; sleep 1000";
    passes_limit(|spec| spec.limits.disk_bytes = authored(40 << 20), disk, Reason::DiskLimit).await;
}
