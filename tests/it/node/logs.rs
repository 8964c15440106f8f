//! What an agent in a pod writes is read while it runs, by whoever may execute commands there.

use std::{path::Path, process::Stdio};

use kube::{ResourceExt, api::LogParams};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{Enforcer, shared, stage::Stage};
use crate::{
    cluster::PATIENCE,
    contract::rbac::{To, grant, rule},
    scenarios::manifests::GATE,
};

impl Stage<'_> {
    /// `ostler logs` of a run, by somebody.
    fn logs(&self, run: &str, kubeconfig: &Path) -> std::process::Command {
        let mut command = self.ostler();
        command.args(["logs", run, "--namespace", &self.namespace, "--kubeconfig"]).arg(kubeconfig);
        command
    }

    /// What the agent of a recorded run wrote, by `ostler logs`.
    pub(super) fn output(&self, run: &str) -> String {
        let said = self.logs(run, self.node.cluster().kubeconfig()).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    }
}

/// `ostler logs -f`, ended when it is dropped.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(stage: &Stage<'_>, run: &str, kubeconfig: &Path) -> Self {
        let mut command = Command::from(stage.logs(run, kubeconfig));
        command.arg("--follow").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("nothing more comes").unwrap()
    }

    async fn ends_well(mut self) {
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).await.unwrap();
        let ended = timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        assert!(ended.success(), "{ended}: {complaints}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn what_an_agent_writes_is_read_while_it_runs_and_nobody_else_reads_it() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("logs").await;
    let cluster = node.cluster();
    let admin = cluster.kubeconfig();
    let objects = rule("ostler.dev", "*", &["get", "list", "watch"]);
    let viewer = format!("viewer-of-{}", stage.namespace);
    grant(&stage.client, &stage.namespace, "view", To::User(&viewer), objects).await;
    let viewer = cluster.kubeconfig_for(&viewer, &[]);

    stage.push_run("talks", &format!("echo one\n{GATE}echo two $word\n"));
    stage.until("talks", "it is known", |_| true).await;
    // before its agent starts
    let mut following = Following::start(&stage, "talks", admin);
    assert_eq!(following.next().await.unwrap(), "one");
    let pod = stage.until_pod("talks").await.name_any();

    assert_eq!(stage.output("talks"), "one\n", "as far as it is there");
    let said = stage.logs("talks", &viewer).output().unwrap();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    let complaint = String::from_utf8(said.stderr).unwrap();
    assert!(complaint.contains("the rights to get and create pods/exec in namespace"), "{complaint}");
    // Nothing that an agent writes gets into the logs of the cluster, where other people read.
    let log = LogParams { container: Some("agent".to_owned()), ..LogParams::default() };
    let log = node.pods_of(&stage.namespace).await.logs(&pod, &log).await.unwrap();
    assert_eq!(log, "");

    // Whoever may, executes commands beside the agent.
    let open = ["sh", "-c", "until [ -p /tmp/gate ]; do sleep 0.1; done; echo three >/tmp/gate"];
    let done = node.exec(&stage.namespace, &pod, "agent", &open, b"").await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(following.next().await.unwrap(), "two three");
    assert_eq!(following.next().await, None);
    following.ends_well().await;
    let status = stage.until_recorded("talks").await;
    stage.assert_end("talks", &status, ("Succeeded", "Completed", Some(0))).await;
    assert_eq!(stage.output("talks"), "one\ntwo three\n", "from the ledger");

    // ostler itself executed one command only, in one container only.
    let user = format!("controller-of-{}", stage.namespace);
    let lines = cluster
        .audit_until(|lines| {
            lines.iter().any(|line| line.is_of(&[&user]) && line.object_ref.subresource == "exec")
        })
        .await;
    for line in lines.iter().filter(|line| line.is_of(&[&user]) && line.object_ref.subresource == "exec") {
        let query = line.request_uri.split_once('?').map_or("", |(_, query)| query);
        let words: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let all =
            |name| words.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(all("container"), ["sidecar"], "{query}");
        assert_eq!(all("command"), ["%2Fostler", "harness", "attach"], "{query}");
    }
}
