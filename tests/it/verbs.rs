//! The verbs against a store that is served as `ostler up` serves it, and against real checkouts.

mod private;

use std::{path::Path, process::ExitCode, sync::Arc};

use clap::{CommandFactory, Parser};
use ostler::{
    cli::{up::state_folder::StateFolder, verbs},
    embedded::objects::{EmbeddedStore, Server, serve},
    kinds::{Kind, Object, ObjectId, meta},
    ports::{
        Objects,
        objects::{At, Store},
    },
};
use serde_json::{Value, json};

use crate::servers::repo::Repo;

#[derive(Debug, Parser)]
#[command(name = "ostler")]
struct Cli {
    #[command(subcommand)]
    verb: verbs::Command,
}

/// A state folder whose store is served.
struct Up {
    folder: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    served: Option<(StateFolder, Server)>,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&folder.path().join("state")).unwrap();
        let store = Arc::new(EmbeddedStore::open(&state.layout().objects()).unwrap());
        let server = serve(&state.layout().socket(), Arc::clone(&store) as Store).unwrap();
        Self { folder, store, served: Some((state, server)) }
    }

    async fn verb(&self, words: &[&str]) -> (Result<ExitCode, String>, String) {
        let state = self.folder.path().join("state");
        let given = [words, &["--state", state.to_str().unwrap()]].concat();
        verb(&given).await
    }

    async fn ok(&self, words: &[&str]) -> String {
        let (code, text) = self.verb(words).await;
        assert_eq!(code, Ok(ExitCode::SUCCESS), "{words:?}: {text}");
        text
    }

    async fn refused(&self, words: &[&str]) -> String {
        self.verb(words).await.0.unwrap_err()
    }

    /// Applies an object as the syncer does, out of a file.
    async fn synced(&self, kind: Kind, name: &str, path: &str, spec: &Value) -> Object {
        let object =
            object(kind, name, spec, &json!({ meta::SOURCE: "default/config", meta::SOURCE_PATH: path }));
        self.store.apply(&object, meta::SYNCER, true, None).await.unwrap()
    }

    async fn status(&self, object: &Object, kind: Kind, status: &Value) {
        let at = At::of(object).unwrap().any_version();
        let id = id(kind, object.metadata.name.as_deref().unwrap());
        self.store.write_status(&id, &at, status, meta::CONTROLLER).await.unwrap();
    }

    async fn spec(&self, kind: Kind, name: &str) -> Value {
        self.store.get(&id(kind, name)).await.unwrap().unwrap().data["spec"].clone()
    }
}

async fn verb(words: &[&str]) -> (Result<ExitCode, String>, String) {
    let cli = Cli::try_parse_from([&["ostler"], words].concat()).unwrap();
    let mut out = Vec::new();
    let done = verbs::run_into(cli.verb, Cli::command(), &mut out).await;
    (done.map_err(|error| error.to_string()), String::from_utf8(out).unwrap())
}

fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId::new(kind, "default".parse().unwrap(), name.parse().unwrap())
}

fn object(kind: Kind, name: &str, spec: &Value, annotations: &Value) -> Object {
    serde_json::from_value(json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": kind.as_str(),
        "metadata": {"namespace": "default", "name": name, "annotations": annotations}, "spec": spec
    }))
    .unwrap()
}

fn task() -> Value {
    json!({"sessionRef": {"name": "pay"}, "task": {"prompt": "fix"}})
}

const SESSION: &str = "apiVersion: ostler.dev/v1alpha1\nkind: Session\nmetadata:\n  name: pay\nspec:\n  suspend: true # for now\n";
const RUN: &str = "# why\napiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: fix}\nspec:\n  # the session\n  sessionRef: {name: pay}\n";

/// A checkout with an identity, and the manifests in it.
fn checkout() -> Repo {
    let repo = Repo::with_readme();
    repo.git(&["config", "user.name", "Ada"]);
    repo.git(&["config", "user.email", "ada@example.com"]);
    repo.push(&[("team/session.yaml", SESSION), ("team/runs/fix.yaml", RUN)], "manifests");
    repo
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn objects_are_listed_and_told() {
    let up = Up::start();
    let run = up.synced(Kind::HarnessRun, "fix", "runs/fix.yaml", &task()).await;
    up.status(&run, Kind::HarnessRun, &json!({"phase": "Running", "reason": "AgentRunning"})).await;
    up.synced(Kind::Session, "pay", "pay.yaml", &json!({})).await;
    let all = up.ok(&["get"]).await;
    assert!(all.contains("session/pay") && all.contains("harnessrun/fix"), "{all}");
    assert!(up.ok(&["get", "runs"]).await.contains("Running   AgentRunning"));
    let one: Value = serde_json::from_str(&up.ok(&["get", "run/fix", "-o", "json"]).await).unwrap();
    assert_eq!(one["status"]["phase"], "Running");
    let list: Value = serde_json::from_str(&up.ok(&["get", "runs", "-A", "-o", "json"]).await).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "fix");
    assert_eq!(up.ok(&["get", "runs", "-o", "name"]).await, "harnessrun/fix\n");
    assert!(up.ok(&["describe", "run", "fix"]).await.contains("From:        runs/fix.yaml"));
    assert!(up.refused(&["get", "run", "none"]).await.contains("does not exist"));
}

#[tokio::test]
async fn a_wait_ends_when_it_is_so_or_can_never_be() {
    let up = Up::start();
    let wait = up.verb(&["wait", "run/fix", "--for=phase=Succeeded"]);
    let ended = async {
        let run = up.synced(Kind::HarnessRun, "fix", "runs/fix.yaml", &task()).await;
        up.status(&run, Kind::HarnessRun, &json!({"phase": "Running"})).await;
        up.status(&run, Kind::HarnessRun, &json!({"phase": "Succeeded"})).await;
    };
    let ((code, _), ()) = tokio::join!(wait, ended);
    assert_eq!(code, Ok(ExitCode::SUCCESS));
    let never = up.verb(&["wait", "run/fix", "--for=phase=Failed"]).await.0;
    assert_eq!(never, Ok(ExitCode::from(1)));
    let late = up.verb(&["wait", "run/fix", "--for=delete", "--timeout", "1ms"]).await.0;
    assert_eq!(late, Ok(ExitCode::from(1)));
    assert_eq!(up.verb(&["wait", "run/none", "--for=delete"]).await.0, Ok(ExitCode::SUCCESS));
    assert!(up.refused(&["wait", "session/pay", "--for=phase=Failed"]).await.contains("no phase"));
}

#[tokio::test]
async fn what_git_sets_is_changed_in_git_alone() {
    let (up, repo) = (Up::start(), checkout());
    up.synced(Kind::Session, "pay", "team/session.yaml", &json!({"suspend": true})).await;
    up.synced(Kind::Session, "free", "team/free.yaml", &json!({})).await;
    let refused = up.refused(&["resume", "session/pay"]).await;
    assert!(refused.contains("team/session.yaml") && refused.contains("--commit"), "{refused}");
    assert_eq!(up.spec(Kind::Session, "pay").await["suspend"], true);
    up.ok(&["suspend", "ses/free"]).await;
    assert_eq!(up.spec(Kind::Session, "free").await["suspend"], true);
    up.ok(&["resume", "ses/free"]).await;
    assert_eq!(up.spec(Kind::Session, "free").await.get("suspend"), None);

    let work = text(&repo.work());
    let told = up.ok(&["resume", "session/pay", "--commit", "-C", &work]).await;
    assert!(told.contains("(team/session.yaml) on branch main"), "{told}");
    assert_eq!(repo.git(&["show", "HEAD:team/session.yaml"]), SESSION.replace("true", "false").trim_end());
    assert_eq!(repo.git(&["log", "-1", "--format=%an"]), "Ada");
}

#[tokio::test]
async fn a_run_is_stopped_here_or_by_a_commit() {
    let (up, repo) = (Up::start(), checkout());
    let work = text(&repo.work());
    up.synced(Kind::HarnessRun, "fix", "team/runs/fix.yaml", &task()).await;
    up.synced(Kind::HarnessRun, "other", "team/runs/other.yaml", &task()).await;

    repo.write("staged", "x");
    repo.git(&["add", "staged"]);
    assert!(up.refused(&["stop", "fix", "--commit", "-C", &work]).await.contains("staged changes"));
    repo.git(&["reset", "--quiet"]);
    repo.write("team/runs/fix.yaml", format!("{RUN}  args: []\n"));
    assert!(up.refused(&["stop", "fix", "--commit", "-C", &work]).await.contains("not committed"));
    repo.git(&["checkout", "--quiet", "--", "team"]);
    up.ok(&["stop", "run/fix", "--commit", "-C", &work]).await;
    let expected = RUN.replace("spec:\n", "spec:\n  stop: true\n");
    assert_eq!(repo.git(&["show", "HEAD:team/runs/fix.yaml"]), expected.trim_end());
    assert_eq!(up.spec(Kind::HarnessRun, "fix").await.get("stop"), None);
    assert!(up.refused(&["stop", "other", "--commit", "-C", &work]).await.contains("team/runs/other.yaml"));

    up.ok(&["stop", "fix"]).await;
    assert_eq!(up.spec(Kind::HarnessRun, "fix").await["stop"], true);
    assert!(up.ok(&["stop", "fix"]).await.contains("already"));
}

#[tokio::test]
async fn a_repository_is_asked_and_waited_for() {
    let up = Up::start();
    let config = object(Kind::ConfigRepository, "config", &json!({"url": "/r"}), &json!({}));
    let config = up.store.create(&config, meta::CLI).await.unwrap();
    let commit = "a".repeat(40);
    let words = ["reconcile", "--allow-prune", &commit];
    let reconcile = up.verb(&words);
    let handle = async {
        let mut events = up.store.watch(Kind::ConfigRepository, None);
        while let Some(event) = futures::StreamExt::next(&mut events).await {
            let kube::runtime::watcher::Event::Apply(seen) = event.unwrap() else { continue };
            let annotations = seen.metadata.annotations.unwrap_or_default();
            if let Some(asked) = annotations.get(meta::RECONCILE_REQUESTED_AT) {
                assert_eq!(annotations.get(meta::ALLOW_PRUNE), Some(&commit));
                let status =
                    json!({"lastHandledReconcileAt": asked, "lastApplied": {"commit": "c1", "objects": 2}});
                up.status(&config, Kind::ConfigRepository, &status).await;
                return;
            }
        }
    };
    let ((code, told), ()) = tokio::join!(reconcile, handle);
    assert_eq!(code, Ok(ExitCode::SUCCESS));
    assert!(told.contains("applied c1 with 2 objects"), "{told}");
    assert!(up.ok(&["reconcile", "config", "--no-wait"]).await.contains("asked"));
}

#[tokio::test]
async fn a_run_becomes_a_commit_of_one_file() {
    let repo = checkout();
    let work = text(&repo.work());
    let words = ["run", "--session", "pay", "--prompt", "Fix the login: now", "-C", &work];
    let (code, told) = verb(&words).await;
    assert_eq!(code, Ok(ExitCode::SUCCESS));
    let name = told.lines().next().unwrap().to_owned();
    assert!(name.ends_with("-fix-the-login-now"), "{name}");
    let path = format!("team/runs/{name}.yaml");
    assert_eq!(repo.git(&["show", "--name-only", "--format=", "HEAD"]), path);
    assert!(repo.git(&["status", "--porcelain"]).is_empty());
    let again = verb(&words).await.1;
    assert_eq!(again.lines().next(), Some(format!("{name}-2").as_str()));

    let missing = verb(&["run", "--session", "none", "--prompt", "x", "-C", &work]).await.0.unwrap_err();
    assert!(missing.contains("Session default/none"), "{missing}");
    let head = repo.git(&["rev-parse", "HEAD"]);
    let printed =
        verb(&["run", "fix-it", "--session", "pay", "--prompt", "x", "--print", "-C", &work]).await.1;
    assert!(printed.contains("name: fix-it"), "{printed}");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), head);
}

#[tokio::test]
async fn a_refused_commit_leaves_nothing_behind() {
    let repo = checkout();
    repo.git(&["config", "core.hooksPath", "hooks"]);
    repo.write("hooks/pre-commit", "#!/bin/sh\nexit 1\n");
    let hook = repo.work().join("hooks/pre-commit");
    std::fs::set_permissions(hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let work = text(&repo.work());
    let refused = verb(&["run", "new", "--session", "pay", "--prompt", "x", "-C", &work]).await.0;
    assert!(refused.unwrap_err().contains("git commit failed"));
    assert_eq!(repo.git(&["status", "--porcelain"]), "?? hooks/");
}

#[tokio::test]
async fn output_is_had_from_the_place_and_then_from_the_ledger() {
    let (up, repo) = (Up::start(), checkout());
    let config = json!({"url": text(&repo.bare())});
    up.store.create(&object(Kind::ConfigRepository, "config", &config, &json!({})), meta::CLI).await.unwrap();
    let run = object(Kind::HarnessRun, "fix", &task(), &json!({}));
    let run = up.store.create(&run, meta::CLI).await.unwrap();
    up.status(&run, Kind::HarnessRun, &json!({"phase": "Pending"})).await;
    assert!(up.refused(&["logs", "fix"]).await.contains("has not started: it is Pending"));

    let places = up.folder.path().join("state/places");
    let outbox = places.join(run.metadata.uid.as_deref().unwrap()).join("outbox");
    std::fs::create_dir_all(&outbox).unwrap();
    std::fs::write(outbox.join("output.log"), "at the place\n").unwrap();
    assert_eq!(up.ok(&["logs", "fix"]).await, "at the place\n");

    std::fs::remove_dir_all(&places).unwrap();
    up.status(&run, Kind::HarnessRun, &json!({"phase": "Succeeded"})).await;
    let missing = up.refused(&["logs", "fix"]).await;
    assert!(missing.contains("refs/ostler/runs/default/fix"), "{missing}");
    repo.git(&["checkout", "--quiet", "--orphan", "bulk"]);
    repo.git(&["rm", "--quiet", "-r", "-f", "."]);
    repo.write("output.log", "in the ledger\n");
    repo.git(&["add", "output.log"]);
    repo.git(&["commit", "--quiet", "--message", "bulk"]);
    repo.git(&["push", "--quiet", "origin", "HEAD:refs/ostler/runs/default/fix"]);
    assert_eq!(up.ok(&["logs", "fix"]).await, "in the ledger\n");
}

#[tokio::test]
async fn without_a_running_up_everything_can_be_read_and_nothing_changed() {
    let up = Up::start();
    let run = up.synced(Kind::HarnessRun, "fix", "runs/fix.yaml", &task()).await;
    up.status(&run, Kind::HarnessRun, &json!({"phase": "Running"})).await;
    let Up { folder, store, served } = up;
    drop(served);
    // the server's task has the store until it is gone
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
    drop(store);
    let at_rest = |words: &'static [&'static str]| {
        let state = text(&folder.path().join("state"));
        async move { verb(&[words, &["--state", &state]].concat()).await }
    };
    assert!(at_rest(&["get", "runs"]).await.1.contains("Running"));
    for words in
        [&["stop", "fix"][..], &["wait", "run/fix", "--for=delete"], &["get", "runs", "-w"], &["reconcile"]]
    {
        let words: &'static [&'static str] = words;
        let refused = at_rest(words).await.0.unwrap_err();
        assert!(refused.contains("no `ostler up` is running"), "{words:?}: {refused}");
    }
}

#[tokio::test]
async fn completions_know_the_verbs() {
    let (code, script) = verb(&["completions", "bash"]).await;
    assert_eq!(code, Ok(ExitCode::SUCCESS));
    assert!(script.contains("reconcile") && script.contains("--allow-prune"));
}
