//! A sidecar that dies does not take its run's result along.

use std::{fs, path::Path};

use kube::api::LogParams;
use ostler::kinds::Phase;
use rustix::process::{Pid, Signal, kill_process};

use super::{Enforcer, shared, stage::Stage};
use crate::scenarios::manifests::commits;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_sidecar_that_is_killed_comes_back_and_the_agent_does_not() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("sidecar").await;
    let work = commits("WORK", "done");
    stage.push_run(
        "killed",
        &format!("echo at work\necho one >>BEGUN\n{work}touch /tmp/at-work\nexec sleep 600\n"),
    );
    stage.until("killed", "its agent runs", |status| status.phase == Some(Phase::Running)).await;
    let pod = stage.until_pod("killed").await;
    let (name, uid) = (pod.metadata.name.clone().unwrap(), pod.metadata.uid.clone().unwrap());
    let worked = ["/bin/sh", "-c", "until [ -e /tmp/at-work ]; do sleep 0.2; done"];
    assert_eq!(node.exec(&stage.namespace, &name, "agent", &worked, b"").await.code, 0);
    let told = LogParams { container: Some("sidecar".to_owned()), ..LogParams::default() };
    let log = node.pods_of(&stage.namespace).await.logs(&name, &told).await.unwrap();
    assert!(log.contains("the sidecar begins") && log.contains("the agent runs"), "{log}");
    assert!(!log.contains("at work"), "what the agent says is not the sidecar's: {log}");

    kill_sidecar(&uid);
    let status = stage.until_recorded("killed").await;
    stage.assert_end("killed", &status, ("Failed", "PlaceFailed", Some(137))).await;
    let message = status.message.unwrap();
    assert!(message.contains("its sidecar was killed, and the agent was ended with it"), "{message}");
    assert!(stage.output("killed").contains("at work\n"), "its output is kept");
    let branch = format!("ostler/{}/killed", stage.namespace);
    assert_eq!(stage.code.bare_git(&["show", &format!("{branch}:WORK")]), "done");
    assert_eq!(stage.code.bare_git(&["show", &format!("{branch}:BEGUN")]), "one", "it started once");
}

/// Kills the sidecar of a pod, as a node that lacks memory would.
fn kill_sidecar(pod: &str) {
    let (dashes, scores) = (pod.to_owned(), pod.replace('-', "_"));
    let read = |process: &Path, file| fs::read(process.join(file)).unwrap_or_default();
    let is_its = |process: &Path| {
        let cgroup = String::from_utf8_lossy(&read(process, "cgroup")).into_owned();
        let command = String::from_utf8_lossy(&read(process, "cmdline")).replace('\0', " ");
        (cgroup.contains(&dashes) || cgroup.contains(&scores)) && command.contains("harness pod")
    };
    let found: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            path.file_name()?.to_str()?.parse().ok().filter(|_| is_its(&path))
        })
        .collect();
    let [sidecar] = found[..] else { panic!("the sidecar of pod {pod} is {found:?}") };
    kill_process(Pid::from_raw(sidecar).unwrap(), Signal::KILL).unwrap();
}
