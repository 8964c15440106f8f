//! What a run in a pod sees, may reach and leaves behind.

use std::{fs, process::Command, time::Duration};

use ostler::{
    harness::control::{Notice, Request},
    ports::workloads::{Checkout, Stage, sidecar::LogsRequest},
    report::End,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::world::{Pod, Settings, ended, terminate};
use crate::{
    harness::world::{FakeSecrets, appears, shell},
    servers::{
        git_http::{Auth, GitHttp, Options},
        repo::Repo,
    },
};

/// What the run's proxy answers to a request for a tunnel, and what comes through it.
async fn tunnel(pod: &Pod, target: &str) -> String {
    let mut stream = TcpStream::connect(pod.forwarder).await.unwrap();
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let mut read = 0;
    loop {
        let count = stream.read(&mut answer[read..]).await.unwrap();
        read += count;
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        if count == 0 || text.contains("greeting") || text.contains("ostler-egress") {
            return text;
        }
    }
}

#[tokio::test]
async fn a_run_goes_from_clone_to_delivered_result_without_a_credential_in_its_pod() {
    let origin = Repo::with_readme();
    let git = GitHttp::start(
        origin.root(),
        Options { auth: Some(Auth::Basic("u", "hunter2")), ..Options::default() },
    );
    let secrets = FakeSecrets::default();
    secrets.put("clone", "username", "u");
    secrets.put("clone", "password", "hunter2");
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let greeting = tokio::spawn(async move {
        target.accept().await.unwrap().0.write_all(b"greeting").await.unwrap();
    });
    let mut spec = shell(
        "git remote get-url origin; pwd; env; git log -1 --format=%s; echo more >>README.md; git commit -qam second; \
         echo new >new; touch started; while [ ! -e go ]; do sleep 0.05; done; rm go started; exit 3",
    );
    spec.checkout = Some(Checkout {
        url: git.url("origin.git"),
        reference: None,
        depth: 1,
        secret: Some("clone".parse().unwrap()),
        branch: "ostler/team/run".to_owned(),
    });
    spec.artifacts = vec![("new".into(), 100)];
    let policy =
        json!({"rules": [{"name": "t", "hosts": ["target.test"], "ports": [port]}], "allowPrivate": true});
    spec.egress = vec![serde_json::from_value(json!({"name": "p", "spec": policy})).unwrap()];
    let mut pod = Pod::start_with(&spec, secrets, Settings::default()).await;
    appears(&pod.at("place/workspace/started")).await;
    assert!(tunnel(&pod, &format!("target.test:{port}")).await.contains("greeting"));
    assert!(tunnel(&pod, "other.test:443").await.contains("no rule names this host"));
    greeting.await.unwrap();
    fs::write(pod.at("place/workspace/go"), "").unwrap();
    let delivery = pod.delivered().await;

    assert_eq!(delivery.report.end, End::Exited { code: 3 }, "{}", delivery.output());
    assert_eq!(delivery.path, "/api/v1/runs/team/run/result");
    assert_eq!(delivery.headers["authorization"], "Bearer projected-for-ostler-result");
    assert_eq!(delivery.report.place, "pod-uid");
    assert!(delivery.report.egress_proof.as_ref().unwrap().contains("heard none of them"), "{delivery:?}");
    assert_eq!(delivery.report.limits_not_enforced, Vec::<String>::new());
    assert_eq!((delivery.report.egress.allowed, delivery.report.egress.denied), (1, 1));
    let output = delivery.output();
    let proxy = format!("HTTPS_PROXY=http://{}", pod.forwarder);
    let remote = git.url("origin.git");
    for line in [remote.as_str(), "/workspace", "first", "KEY=the-value", "OF_THE_IMAGE=yes", &proxy] {
        assert!(output.lines().any(|found| found == line), "{line} in {output}");
    }
    assert!(!output.contains("hunter2") && !output.contains("projected-for"), "{output}");
    let changes = &delivery.report.changes;
    assert_eq!((changes.commits, changes.files), (2, 2), "{:?}", delivery.report.notes);
    assert_eq!(delivery.files["artifacts/new"], b"new\n");
    let bundle = pod.at("bundle");
    fs::write(&bundle, &delivery.files["changes.bundle"]).unwrap();
    origin.git(&["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/ostler/team/run:refs/heads/agent"]);
    assert_eq!(origin.git(&["show", "agent~1:README.md"]), "hello\nmore");
    assert_eq!(fs::read_dir(pod.at("place/tmp")).unwrap().count(), 0, "the collector's folder is gone");

    assert_eq!(
        ended(pod.shim.as_mut().unwrap()).await.code(),
        Some(3),
        "the container ends as its agent did"
    );
    let sidecar = pod.sidecar.as_mut().unwrap();
    assert!(sidecar.try_wait().unwrap().is_none(), "a sidecar that ends is started again");
    terminate(sidecar.id());
    assert!(ended(sidecar).await.success());
}

#[tokio::test]
async fn the_api_speaks_with_the_sidecar_by_attach() {
    let spec = shell("echo hello; touch started; while [ ! -e go ]; do sleep 0.05; done; echo bye");
    let pod = Pod::start(&spec).await;
    let attach = || {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_ostler"))
            .args(["harness", "attach", "--root"])
            .arg(pod.root.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let line = |request: &Request| [serde_json::to_vec(request).unwrap(), b"\n".to_vec()].concat();
    let mut watch = attach();
    let mut watch_input = watch.stdin.take().unwrap();
    watch_input.write_all(&line(&Request::Watch)).await.unwrap();
    let mut notices = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut logs = attach();
    let mut ask = logs.stdin.take().unwrap();
    ask.write_all(&line(&Request::Logs(LogsRequest { since: 0, follow: true }))).await.unwrap();
    // The end of the question is not the end of the answer.
    drop(ask);
    appears(&pod.at("place/workspace/started")).await;
    fs::write(pod.at("place/workspace/go"), "").unwrap();
    let mut output = String::new();
    logs.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "hello\nbye\n");
    assert!(logs.wait().await.unwrap().success());
    let mut stages = Vec::new();
    while stages.last() != Some(&Stage::Released) {
        let notice: Notice = serde_json::from_str(&notices.next_line().await.unwrap().unwrap()).unwrap();
        stages.push(notice.state.unwrap().stage);
    }
    assert!(stages.is_sorted(), "{stages:?}");
    // Whoever watched goes: so does what carried it.
    drop(watch_input);
    assert!(tokio::time::timeout(Duration::from_mins(1), watch.wait()).await.unwrap().unwrap().success());
}

#[test]
fn the_program_is_installed_whole_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let install =
        Command::new(env!("CARGO_BIN_EXE_ostler")).args(["harness", "install"]).arg(folder.path()).status();
    assert!(install.unwrap().success());
    let version = Command::new(folder.path().join("ostler")).arg("--version").output().unwrap();
    assert!(version.status.success());
    // Outside of a container it must not do what it does as PID 1.
    let shim = Command::new(folder.path().join("ostler"))
        .args(["shim", "supervise", "--shared", "/nowhere"])
        .output()
        .unwrap();
    assert!(!shim.status.success());
    assert!(String::from_utf8_lossy(&shim.stderr).contains("must be PID 1"), "{shim:?}");
}
