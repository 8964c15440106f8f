//! Code repositories that a ConfigRepository does not allow: refused in files, and in objects that came another way.

use kube::api::{Patch, PatchParams};
use ostler::kinds::{
    ConfigRepository, HarnessRun, Phase, Reason, Session,
    condition::{self, types},
};
use serde_json::{Value, json};

use super::stage::Stage;
use crate::{
    cluster::eventually,
    scenarios::{manifests, up::Up},
    servers::repo::Repo,
};

impl Stage {
    async fn allow(&self, patterns: &Value) {
        let patch = json!({"spec": {"checks": {"allowedRepositories": patterns}}});
        let api = self.api::<ConfigRepository>();
        api.patch("config", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// What is told about the files: path, line and code.
    async fn told(&self) -> Vec<(String, i64, String)> {
        let status = self.api::<ConfigRepository>().get("config").await.unwrap().status.unwrap_or_default();
        status.diagnostics.into_iter().map(|told| (told.path, told.line, told.code)).collect()
    }

    async fn until_pending(&self, run: &str) -> String {
        eventually("the run waits for an allowed repository", async || {
            let status = self.api::<HarnessRun>().get(run).await.unwrap().status?;
            assert!(status.claim.is_none() && status.place.is_none(), "{run} started: {status:?}");
            let ready = condition::get(&status.conditions, types::READY)?.message.clone();
            (status.reason == Some(Reason::RepositoryNotAllowed)).then_some(ready)
        })
        .await
    }
}

fn spec_of(manifest: &str) -> Value {
    serde_json::from_str::<Value>(manifest).unwrap()["spec"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_repository_that_is_not_allowed_is_neither_applied_nor_cloned() {
    let stage = Stage::new("allowed").await;
    let code = Repo::with_readme();
    let url = code.bare().display().to_string();
    stage.config.push(&[("agents/shell.yaml", &manifests::shell())], "an agent");
    let mut command = stage.ostler();
    command
        .arg("up")
        .arg(stage.config.bare())
        .args(["--json", "--places", "machine", "--namespace", &stage.namespace, "--state"])
        .arg(stage.path("up"))
        .arg("--kubeconfig")
        .arg(stage.kubeconfig("up"));
    let up = Up::start(command);
    up.line("it serves", |line| line["what"] == "listening");
    stage.allow(&json!(["https://git.example.com/shop/*"])).await;
    eventually("the rule is seen", async || {
        let config = stage.api::<ConfigRepository>().get("config").await.unwrap();
        let seen = config.status?.observed_generation;
        (seen == config.metadata.generation).then_some(())
    })
    .await;

    stage.config.push(&[("session.yaml", &manifests::session(&url))], "a session");
    let line = manifests::session(&url).lines().position(|line| line.contains("\"url\"")).unwrap() + 1;
    let expected =
        ("session.yaml".to_owned(), i64::try_from(line).unwrap(), "RepositoryNotAllowed".to_owned());
    eventually("the file is refused", async || (stage.told().await == [expected.clone()]).then_some(()))
        .await;
    assert!(stage.api::<Session>().get_opt("work").await.unwrap().is_none());

    // kubectl asks nobody
    let _: Session = stage.create("other", spec_of(&manifests::session(&url))).await;
    let mut run = spec_of(&manifests::run("fix", &manifests::commits("fixed", "yes")));
    run["sessionRef"]["name"] = "other".into();
    let _: HarnessRun = stage.create("fix", run).await;
    let said = stage.until_pending("fix").await;
    let place = format!("ConfigRepository {}/config, spec.checks.allowedRepositories", stage.namespace);
    assert!(said.contains(url.trim_end_matches(".git")) && said.contains(&place), "{said}");

    let session_says = async |what: &str, reason: &str| {
        eventually(what, async || {
            let status = stage.api::<Session>().get("other").await.unwrap().status?;
            let ready = condition::get(&status.conditions, types::READY)?;
            (ready.reason == reason).then(|| ready.message.clone())
        })
        .await
    };
    assert_eq!(session_says("its session says why", "RepositoryNotAllowed").await, said);

    stage.allow(&json!([format!("{}/*", code.bare().parent().unwrap().display())])).await;
    eventually("the run ends and the session of the file is there", async || {
        let status = stage.api::<HarnessRun>().get("fix").await.unwrap().status?;
        let ended = status.phase.is_some_and(Phase::is_terminal);
        assert!(!ended || status.phase == Some(Phase::Succeeded), "{status:?}");
        (ended && stage.api::<Session>().get_opt("work").await.unwrap().is_some()).then_some(())
    })
    .await;
    session_says("its session is ready", "Ready").await;
    assert_eq!(up.stop().code, Some(0));
}
