//! The verbs with `--kubeconfig`, without the socket of an `ostler up`, as users of little power.

mod api;
mod private;

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
};

use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt;
use ostler::kinds::{Phase, Session};
use serde_json::Value;

use super::{rights::Rights, stage::Stage};
use crate::{
    cluster::shared,
    contract::rbac::rule,
    scenarios::manifests::{GATE, commits, run},
};

/// Who may read our kinds and what was told of them.
fn reading() -> Vec<PolicyRule> {
    vec![rule("ostler.dev", "*", &["get", "list", "watch"]), rule("events.k8s.io", "events", &["list"])]
}

/// What `stop`, `suspend`, `resume` and `reconcile` need besides.
fn writing() -> Vec<PolicyRule> {
    vec![
        rule("ostler.dev", "harnessruns", &["patch"]),
        rule("ostler.dev", "sessions", &["patch"]),
        rule("ostler.dev", "configrepositories", &["patch"]),
    ]
}

/// A user at a prompt.
struct User<'a> {
    stage: &'a Stage<'a>,
    kubeconfig: PathBuf,
}

/// How a verb ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl<'a> User<'a> {
    async fn new(stage: &'a Stage<'a>, name: &str, rules: &[PolicyRule]) -> Self {
        let user = format!("{name}-of-{}", stage.namespace);
        let rights =
            Rights { admin: stage.admin.clone(), namespace: stage.namespace.clone(), user: user.clone() };
        if !rules.is_empty() {
            rights.give(name, rules).await;
        }
        Self { stage, kubeconfig: stage.cluster.kubeconfig_for(&user, &[]) }
    }

    fn arguments(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = words.iter().map(Into::into).collect();
        if !words.contains(&"-A") && !words.contains(&"-n") {
            arguments.extend(["-n".into(), self.stage.namespace.as_str().into()]);
        }
        arguments.extend(["--kubeconfig".into(), self.kubeconfig.clone().into()]);
        arguments
    }

    async fn verb(&self, words: &[&str]) -> Ended {
        let command = self.stage.ostler(&self.arguments(words));
        let output = tokio::process::Command::from(command).stdin(Stdio::null()).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    async fn ok(&self, words: &[&str]) -> String {
        let ended = self.verb(words).await;
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
        ended.out
    }

    /// The refusal, with the exit code 2.
    async fn refused(&self, words: &[&str]) -> String {
        let ended = self.verb(words).await;
        assert_eq!(ended.code, Some(2), "{words:?}: {ended:?}");
        assert!(ended.out.is_empty(), "{words:?}: {ended:?}");
        ended.err
    }

    /// A verb that goes on; its output is read line by line.
    fn going_on(&self, words: &[&str]) -> GoingOn {
        let mut command = self.stage.ostler(&self.arguments(words));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        GoingOn { child, lines }
    }
}

struct GoingOn {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl GoingOn {
    fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "never: {what}; it said: {said}");
            if is_it(&line) {
                return line;
            }
            said.push_str(&line);
        }
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reader_sees_everything_and_changes_nothing() {
    let stage = Stage::new(shared().await, "reader").await;
    let reader = User::new(&stage, "reader", &reading()).await;
    let up = stage.up();
    stage.push("runs/one.yaml", &run("one", &format!("{GATE}echo said\n{}", commits("WORK", "done"))));
    let running = stage.run("one", "it runs", |status| status.phase == Some(Phase::Running)).await;

    let all = reader.ok(&["get"]).await;
    assert!(
        all.contains("agent/shell") && all.contains("session/work") && all.contains("harnessrun/one"),
        "{all}"
    );
    assert!(reader.ok(&["get", "runs", "-o", "wide"]).await.contains("Running"));
    assert_eq!(reader.ok(&["get", "runs", "-o", "name"]).await, "harnessrun/one\n");
    let one: Value = serde_json::from_str(&reader.ok(&["get", "run/one", "-o", "json"]).await).unwrap();
    assert_eq!(one["metadata"]["uid"].as_str(), running.uid().as_deref());
    assert!(one["metadata"].get("managedFields").is_none());
    let list: Value = serde_saphyr::from_str(&reader.ok(&["get", "agents", "-o", "yaml"]).await).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "shell");
    let told = reader.ok(&["describe", "run", "one"]).await;
    assert!(told.contains("From:        runs/one.yaml") && told.contains("AgentRunning"), "{told}");
    let logs = reader.refused(&["logs", "one"]).await;
    assert!(logs.contains("its output is with the `ostler up` that runs it"), "{logs}");

    let user = "cannot patch resource";
    for words in [&["stop", "one"][..], &["suspend", "session/work"], &["reconcile", "--no-wait"]] {
        let refused = reader.refused(words).await;
        assert!(refused.contains("not allowed: ") && refused.contains(user), "{words:?}: {refused}");
    }
    for words in [&["get", "runs", "-A"][..], &["get", "runs", "-A", "-w"]] {
        let refused = reader.refused(words).await;
        assert!(refused.contains("cannot list resource \"harnessruns\""), "{words:?}: {refused}");
    }
    let missing = reader.refused(&["get", "run", "none"]).await;
    assert!(missing.contains("HarnessRun") && missing.contains("does not exist"), "{missing}");

    let mut watch = reader.going_on(&["get", "runs", "-w", "-o", "json"]);
    watch.until("the run is shown", |line| line.contains("\"phase\":\"Running\""));
    let words = ["wait", "run/one", "--for=phase=Succeeded", "--timeout", "4m"];
    let (waited, ()) = tokio::join!(reader.ok(&words), stage.open_gate(&running));
    assert_eq!(waited, "harnessrun/one: met\n");
    watch.until("its end is shown", |line| line.contains("\"phase\":\"Succeeded\""));
    drop(watch);
    let never = reader.verb(&["wait", "run/one", "--for=phase=Failed"]).await;
    assert_eq!(never.code, Some(1));
    assert!(never.err.contains("cannot be met: it has ended as Succeeded"), "{never:?}");
    stage.recorded("one", Phase::Succeeded).await;
    assert_eq!(up.stop().code, Some(0));
    assert!(reader.ok(&["logs", "one"]).await.contains("said\n"), "from the ledger");
    let objects = reader.ok(&["get", "runs"]).await;
    assert!(objects.contains("Succeeded"), "an API server answers without an `ostler up`: {objects}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_writer_stops_suspends_and_reconciles() {
    let stage = Stage::new(shared().await, "writer").await;
    let writer = User::new(&stage, "writer", &[reading(), writing()].concat()).await;
    let up = stage.up();
    let last = stage.push("runs/one.yaml", &run("one", GATE));
    let running = stage.run("one", "it runs", |status| status.phase == Some(Phase::Running)).await;
    assert_eq!(writer.ok(&["suspend", "session/work"]).await, "session/work is suspended now\n");
    assert_eq!(stage.get::<Session>("work").await.unwrap().spec.suspend, Some(true));
    assert!(writer.ok(&["suspend", "session/work"]).await.contains("already"));
    assert_eq!(writer.ok(&["resume", "session/work"]).await, "session/work is not suspended now\n");
    assert_eq!(stage.get::<Session>("work").await.unwrap().spec.suspend, None);
    assert!(writer.ok(&["stop", "one"]).await.contains("harnessrun/one is being stopped"));
    let stopped =
        stage.run("one", "it is stopped", |status| status.phase.is_some_and(Phase::is_terminal)).await;
    assert_eq!((stopped.uid(), stopped.spec.stop), (running.uid(), Some(true)));
    let applied = writer.ok(&["reconcile", "--timeout", "4m"]).await;
    assert_eq!(applied, format!("configrepository/config: applied {last} with 3 objects\n"));
    assert_eq!(writer.ok(&["reconcile", "config", "--no-wait"]).await, "configrepository/config: asked\n");
    // without a namespace, the repository is looked for in all of them
    let mut elsewhere = tokio::process::Command::from(stage.ostler(&[
        "reconcile".into(),
        "--kubeconfig".into(),
        writer.kubeconfig.clone().into(),
    ]));
    let ended = elsewhere.output().await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(said.contains("at the cluster scope") && said.contains("with -n"), "{said}");
    assert_eq!(up.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_is_told_what_is_missing() {
    let stage = Stage::new(shared().await, "nobody").await;
    let nobody = User::new(&stage, "nobody", &[]).await;
    for (words, verb) in [
        (&["get"][..], "list"),
        (&["get", "runs", "-o", "json"], "list"),
        (&["get", "run", "one"], "get"),
        (&["get", "runs", "-w"], "list"),
        (&["describe", "run/one"], "get"),
        (&["wait", "run/one", "--for=delete"], "get"),
        (&["stop", "one"], "get"),
        (&["suspend", "session/work"], "get"),
        (&["resume", "session/work"], "get"),
        (&["reconcile"], "list"),
        (&["logs", "one"], "get"),
    ] {
        let refused = nobody.refused(words).await;
        let expected = "ostler: not allowed: ";
        assert!(refused.starts_with(expected), "{words:?}: {refused}");
        let missing = format!("User \"nobody-of-{}\" cannot {verb} resource", stage.namespace);
        assert!(refused.contains(&missing), "{words:?}: {refused}");
    }
    // who may read the object and not watch it is told so at once, and does not wait an hour
    let half = User::new(&stage, "half", &[rule("ostler.dev", "harnessruns", &["get"])]).await;
    let refused = half.refused(&["wait", "run/one", "--for=phase=Running"]).await;
    assert!(refused.contains("cannot list resource \"harnessruns\""), "{refused}");
    let only = User::new(&stage, "only", &[rule("ostler.dev", "sessions", &["get"])]).await;
    let run: Session = serde_json::from_str(&crate::scenarios::manifests::session("/r")).unwrap();
    let sessions: kube::Api<Session> = kube::Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    sessions.create(&kube::api::PostParams::default(), &run).await.unwrap();
    let told = only.verb(&["describe", "session/work"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(
        told.out.contains("Kind:        Session") && told.err.contains("events are left out: "),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cluster_that_cannot_be_reached_is_named() {
    let stage = Stage::new(shared().await, "unreached").await;
    let run = async |arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        let output = tokio::process::Command::from(stage.ostler(&arguments)).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["get", "--kubeconfig", "no-such-file"]).await;
    assert!(
        code == Some(2) && said.contains("the kubeconfig no-such-file cannot be used"),
        "{code:?} {said}"
    );
    let kubeconfig = stage.kubeconfig();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let (code, said) = run(&["get", "--kubeconfig", kubeconfig, "--context", "prod"]).await;
    assert!(code == Some(2) && said.contains("context \"prod\" of the kubeconfig"), "{code:?} {said}");
    // a port that was free a moment ago
    let closed = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let away = std::fs::read_to_string(kubeconfig).unwrap();
    let away = away.replace(stage.cluster.url(), &format!("https://{closed}"));
    let file = stage.state().with_file_name("away");
    std::fs::write(&file, away).unwrap();
    let (code, said) = run(&["get", "--kubeconfig", file.to_str().unwrap()]).await;
    assert!(code == Some(2) && said.contains("the object store cannot be reached"), "{code:?} {said}");
    assert!(said.contains("refused"), "{said}");
    let (code, said) = run(&["get", "--kubeconfig", kubeconfig, "--state", "x"]).await;
    assert!(code == Some(2) && said.contains("cannot be used with"), "{code:?} {said}");
}
