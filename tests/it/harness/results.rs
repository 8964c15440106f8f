//! What comes back of a run.

use std::{fs, path::Path, process::Command};

use ostler::{
    kinds::{Reason, agent::Preset, shared::GitRef},
    ports::{
        Workloads,
        workloads::{Checkout, ContextContent, ContextFile, PlaceSpec, SecretKey},
    },
    report::{End, Verdict},
};

use super::world::{World, command, shell};

fn git(folder: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A repository with one commit on `main`.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "-q", "-b", "main"]);
    fs::create_dir(folder.path().join("docs")).unwrap();
    fs::write(folder.path().join("docs/guide.md"), "a guide\n").unwrap();
    fs::write(folder.path().join("file"), "one\n").unwrap();
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-q", "-m", "first"]);
    folder
}

fn checkout(folder: &Path) -> Checkout {
    Checkout {
        url: folder.to_str().unwrap().to_owned(),
        reference: Some(GitRef { branch: Some("main".into()), ..GitRef::default() }),
        depth: 1,
        secret: None,
        branch: "ostler/team/run".to_owned(),
    }
}

#[tokio::test]
async fn commits_and_uncommitted_changes_come_back_as_a_bundle() {
    let origin = repository();
    let world = World::new();
    let mut spec = shell(
        "echo two >>file; git commit -qam second; echo three >new; mkdir -p out; echo report >out/r; git log -1 --format=%an",
    );
    spec.checkout = Some(checkout(origin.path()));
    spec.artifacts = vec![("out/r".into(), 3), ("out/none".into(), 100), ("../state.json".into(), 100)];
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 }, "{}", delivery.output());
    assert_eq!(delivery.output(), "agent\n", "a commit needs an author");
    let changes = &delivery.report.changes;
    assert_eq!((changes.commits, changes.files, changes.additions), (2, 3, 3));
    assert_eq!(changes.base.as_ref().unwrap().as_str(), git(origin.path(), &["rev-parse", "main"]));
    let bundle = world.folder.path().join("bundle");
    fs::write(&bundle, &delivery.files["changes.bundle"]).unwrap();
    git(
        origin.path(),
        &["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/ostler/team/run:refs/heads/agent"],
    );
    assert_eq!(git(origin.path(), &["rev-parse", "agent"]), changes.head.as_ref().unwrap().as_str());
    assert_eq!(git(origin.path(), &["show", "agent:new"]), "three");
    assert_eq!(git(origin.path(), &["show", "agent~1:file"]), "one\ntwo");
    assert!(String::from_utf8_lossy(&delivery.files["changes.patch"]).contains("+three"));
    assert_eq!(delivery.files["artifacts/out/r"], b"rep");
    let artifacts: Vec<_> = delivery.report.artifacts.iter().map(|a| (a.bytes, a.cut)).collect();
    assert_eq!(artifacts, [(Some(3), true), (None, false), (None, false)]);
    assert_eq!(delivery.report.startup.cloned_ms.map(|ms| ms >= 0), Some(true));
}

#[tokio::test]
async fn of_a_result_that_is_too_large_comes_what_fits_and_a_word_on_the_rest() {
    let world = World::new();
    let mut spec = shell("printf long-output; printf short >short");
    spec.artifacts = vec![("short".into(), 100)];
    world.answers(&[413]);
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 });
    let names: Vec<_> = delivery.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["artifacts/short", "report.json"]);
    let [said] = delivery.report.undelivered.as_slice() else { panic!("{:?}", delivery.report.undelivered) };
    assert!(said.contains("output.log of 1 MiB") && said.contains("413"), "{said}");
    assert_eq!(delivery.headers["ostler-report-digest"], delivery.digest);

    world.answers(&[413, 413]);
    let delivery = world.run(&PlaceSpec { run: shell("").run, ..spec }).await;
    assert_eq!(delivery.files.len(), 1, "the report alone");
    assert_eq!(delivery.report.undelivered.len(), 2);
}

#[tokio::test]
async fn a_run_that_changes_nothing_has_no_bundle() {
    let origin = repository();
    let world = World::new();
    let mut spec = shell(
        "cat .ostler/context/notes docs/copy/guide.md AGENTS.md && cat $HOME/.tool/config $HOME/key && exit 4",
    );
    spec.checkout = Some(Checkout { reference: None, ..checkout(origin.path()) });
    let context = |name: &str, path: &str, content| ContextFile {
        name: name.into(),
        path: path.into(),
        mode: 0o644,
        optional: false,
        content,
    };
    spec.contexts = vec![
        context("notes", ".ostler/context/notes", ContextContent::Text("some notes\n".into())),
        context(
            "guide",
            "docs/copy",
            ContextContent::Git { checkout: checkout(origin.path()), path: Some("docs".into()) },
        ),
    ];
    spec.instructions = Some(("AGENTS.md".into(), "be good\n".into()));
    spec.home_files = vec![(".tool/config".into(), "configured\n".into())];
    world.secrets.put("key", "k", "a secret\n");
    spec.secret_files = vec![("key".into(), SecretKey { secret: "key".parse().unwrap(), key: "k".into() })];
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.report.end, End::Exited { code: 4 });
    assert_eq!(delivery.output(), "some notes\na guide\nbe good\nconfigured\na secret\n");
    assert_eq!(delivery.report.changes.base, delivery.report.changes.head);
    assert_eq!(delivery.report.changes.commits, 0);
    assert!(!delivery.files.contains_key("changes.bundle"), "{:?}", delivery.files.keys());
}

async fn not_started(spec: &PlaceSpec) -> (Reason, String) {
    let world = World::new();
    match world.run(spec).await.report.end {
        End::NotStarted { reason, message } => (reason, message),
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_prepared_is_named() {
    let mut clone = shell("true");
    clone.checkout = Some(checkout(Path::new("/no/such/repository")));
    assert_eq!(not_started(&clone).await.0, Reason::CloneFailed);

    let origin = repository();
    std::os::unix::fs::symlink("/etc", origin.path().join("link")).unwrap();
    git(origin.path(), &["add", "."]);
    git(origin.path(), &["commit", "-q", "-m", "a link out"]);
    for path in ["../escaped", "/etc/escaped", "link/escaped"] {
        let mut spec = shell("true");
        spec.checkout = Some(checkout(origin.path()));
        let content = ContextContent::Text("x".into());
        spec.contexts =
            vec![ContextFile { name: "c".into(), path: path.into(), mode: 0o644, optional: false, content }];
        assert_eq!(not_started(&spec).await.0, Reason::ContextFailed, "{path}");
        assert!(!Path::new("/etc/escaped").exists());
        spec.contexts[0].optional = true;
        assert_eq!(World::new().run(&spec).await.report.end, End::Exited { code: 0 }, "{path}");
    }

    let mut folder = shell("true");
    folder.working_dir = "no/such/folder".into();
    assert_eq!(not_started(&folder).await.0, Reason::PlaceFailed);
}

#[tokio::test]
async fn a_missing_secret_makes_no_place() {
    let world = World::new();
    let mut spec = shell("true");
    spec.secret_env = vec![("A".into(), SecretKey { secret: "none".parse().unwrap(), key: "k".into() })];
    let error = world.workloads.ensure(&spec).await.unwrap_err();
    assert!(matches!(error, ostler::ports::workloads::Error::Refused { reason: Reason::SecretNotFound, .. }));
    assert!(world.workloads.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_final_record_is_read_by_the_agents_preset() {
    let world = World::new();
    let line = r#"{"type":"result","subtype":"success","is_error":true,"result":"no","num_turns":1,"usage":{"input_tokens":7,"output_tokens":5},"session_id":"s1"}"#;
    let mut spec = command(&["/bin/echo", line]);
    spec.preset = Preset::ClaudeCode;
    let record = world.run(&spec).await.report.record;
    assert!(matches!(record.verdict, Some(Verdict::Failed { .. })), "{record:?}");
    assert_eq!(record.session.as_deref(), Some("s1"));
    let mut silent = command(&["/bin/true"]);
    silent.preset = Preset::ClaudeCode;
    assert_eq!(world.run(&silent).await.report.record.verdict, Some(Verdict::Missing));
}

#[tokio::test]
async fn a_persistent_workspace_stays_for_the_next_run() {
    let origin = repository();
    let world = World::new();
    let session = shell("").run.uid;
    let with = |script: &str| {
        let mut spec = shell(script);
        spec.checkout = Some(checkout(origin.path()));
        spec.persistent_workspace = Some(session.clone());
        spec
    };
    let first = with("echo kept >kept");
    assert_eq!(world.run(&first).await.report.end, End::Exited { code: 0 });
    world.workloads.remove(&first.run.uid).await.unwrap();
    let second = world.run(&with("cat kept")).await;
    assert_eq!(second.report.end, End::Exited { code: 0 }, "{}", second.output());
    assert_eq!(second.output(), "kept\n");
    assert_eq!(second.report.changes.base.unwrap().as_str(), git(origin.path(), &["rev-parse", "main"]));
    let workspaces = &world.options.workspaces;
    assert_eq!(fs::read_dir(workspaces).unwrap().count(), 2);
    world.workloads.remove_workspace(&session).await.unwrap();
    world.workloads.remove_workspace(&session).await.unwrap();
    assert_eq!(fs::read_dir(workspaces).unwrap().count(), 0);
}
