//! pi, started by its preset, on the far side of the proxy from its model.

use std::{fs, path::Path, process::Stdio, time::Duration};

use ostler::{
    kinds::{
        Reason,
        agent::{Model, ModelApi},
        harness_run::Usage,
    },
    presets::{Preset, PresetInput, Reading, RecordReader, launch},
    proxy::{Limits, Proxy, Snapshot},
    report::Verdict,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;

use super::place::{resolver, rules};
use crate::servers::{
    model::{Asked, Fault, INPUT_TOKENS, ModelServer, OUTPUT_TOKENS, Script, When},
    pi,
};

/// What one run of the agent left behind.
struct Run {
    reading: Reading,
    exit_code: i32,
    seen: Snapshot,
    asked: Vec<Asked>,
    workspace: TempDir,
}

impl Run {
    fn verdict(&self) -> &Verdict {
        self.reading.record.verdict.as_ref().unwrap()
    }

    fn usage(&self) -> (Option<i64>, Option<i64>) {
        let Usage { input_tokens, output_tokens, .. } = self.reading.record.usage.clone().unwrap();
        (input_tokens, output_tokens)
    }
}

/// Runs pi against a model with this script; `open`: whether a policy names the model.
async fn run(script: Script, open: bool) -> Run {
    let server = ModelServer::start(script).await;
    let host = if open { "target.test" } else { "elsewhere.test" };
    let policy = json!({"rules": [{"name": "model", "hosts": [host], "ports": [server.port()]}], "allowPrivate": true});
    let (_rules, newest) = watch::channel(rules(&[policy], vec![]));
    let proxy = Proxy::new(newest, resolver(), Limits::default(), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", listener.local_addr().unwrap());
    let serving = proxy.clone();
    let task = tokio::spawn(async move { serving.serve(TcpListenerStream::new(listener)).await.unwrap() });
    let _serving = AbortOnDropHandle::new(task);

    let (home, workspace) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = tokio::task::spawn_blocking(pi::program).await.unwrap();
    let model = Model {
        id: Some("m1".into()),
        base_url: Some(format!("http://target.test:{}/v1", server.port())),
        api: Some(ModelApi::ChatCompletions),
    };
    let input = PresetInput {
        program: &[program.to_str().unwrap().to_owned()],
        prompt: "- write the file",
        model: Some(&model),
        home: home.path().to_str().unwrap(),
        workspace_dir: workspace.path().to_str().unwrap(),
        proxy_url: Some(&proxy_url),
        ..PresetInput::default()
    };
    let launch = launch(Preset::Pi, &input).unwrap();
    for (path, content) in &launch.home_files {
        write(&home.path().join(path), content);
    }
    // The agent's own patience, 14 s by default, is not what is tested.
    write(&home.path().join(".pi/agent/settings.json"), r#"{"retry": {"maxRetries": 1, "baseDelayMs": 1}}"#);
    let output = Command::new(&launch.command[0])
        .args(&launch.command[1..])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", home.path())
        .envs(launch.env)
        .current_dir(workspace.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_mins(2), output).await.expect("pi ends").unwrap();
    let exit_code = output.status.code().unwrap();
    let mut reader = RecordReader::new(Preset::Pi);
    reader.push(&output.stdout);
    let seen = proxy.snapshots().borrow().clone();
    Run { reading: reader.finish(exit_code), exit_code, seen, asked: server.asked(), workspace }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn script() -> Script {
    Script::writes("AGENT.txt", "written by an agent\n")
}

#[tokio::test]
async fn an_agent_works_through_the_proxy_alone() {
    let run = run(script(), true).await;
    assert_eq!((run.verdict(), run.exit_code), (&Verdict::Succeeded, 0));
    assert_eq!(run.reading.record.summary, "The file is written.");
    assert_eq!(run.reading.skipped_lines, 0);
    assert_eq!(run.usage(), (Some(2 * INPUT_TOKENS), Some(2 * OUTPUT_TOKENS)));
    assert!(run.reading.record.session.is_some());
    assert_eq!(fs::read_to_string(run.workspace.path().join("AGENT.txt")).unwrap(), "written by an agent\n");
    assert!(run.seen.allowed >= 1 && run.seen.denied == 0, "{:?}", run.seen);
    let asked: Vec<_> =
        run.asked.iter().map(|asked| (asked.path.as_str(), asked.model.as_str(), asked.step)).collect();
    assert_eq!(asked, [("/v1/chat/completions", "m1", 0), ("/v1/chat/completions", "m1", 1)]);
    assert_eq!(run.asked[0].authorization, "Bearer none");
}

#[tokio::test]
async fn a_failed_model_is_a_failure_although_the_exit_code_is_0() {
    let table = [
        (Fault::Status(401), When::First(usize::MAX), Reason::ModelUnauthorized),
        (Fault::Status(500), When::First(usize::MAX), Reason::ModelError),
        (Fault::Status(401), When::FromStep(1), Reason::ModelUnauthorized),
    ];
    for (fault, when, expected) in table {
        let run = run(script().with(fault, when), true).await;
        assert_eq!(run.exit_code, 0, "{fault:?}");
        assert!(
            matches!(run.verdict(), Verdict::Failed { reason, .. } if *reason == expected),
            "{:?}",
            run.verdict()
        );
        let edited = run.workspace.path().join("AGENT.txt").exists();
        assert_eq!(edited, matches!(when, When::FromStep(1)), "edits before the failure stay");
    }
}

#[tokio::test]
async fn what_the_agent_retries_is_a_success() {
    for fault in [Fault::Status(500), Fault::Cut, Fault::Delay(Duration::from_millis(20))] {
        let run = run(script().with(fault, When::First(1)), true).await;
        assert_eq!(run.verdict(), &Verdict::Succeeded, "{fault:?}");
        assert_eq!(run.reading.record.summary, "The file is written.", "{fault:?}");
    }
}

#[tokio::test]
async fn an_agent_whose_model_no_rule_names_fails_and_the_denial_says_why() {
    let run = run(script(), false).await;
    assert!(matches!(run.verdict(), Verdict::Failed { .. }), "{:?}", run.verdict());
    assert!(run.asked.is_empty());
    let denial = &run.seen.denials[0];
    assert_eq!((denial.host.as_str(), denial.reason), ("target.test", "NoRule"));
    assert_eq!(run.seen.allowed, 0);
}
