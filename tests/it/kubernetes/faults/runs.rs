//! What a run needs goes away under it, or the run itself does.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use ostler::kinds::{HarnessRun, Phase, Reason};
use serde_json::json;

use crate::{
    cluster::shared,
    kubernetes::stage::Stage,
    scenarios::manifests::{GATE, agent, commits, run, secret},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_secret_that_goes_is_missed_by_the_next_run_only() {
    let stage = Stage::new(shared().await, "secret").await;
    let secrets: Api<Secret> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let made: Secret =
        serde_json::from_str(&secret("key", "env", None, &json!({"key": "from-the-secret"}))).unwrap();
    secrets.create(&PostParams::default(), &made).await.unwrap();
    let env = json!([{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}}]);
    stage.push("agents/shell.yaml", &agent("shell", &json!({"env": env})));
    let up = stage.up();
    let script = format!("{GATE}test \"$KEY\" = from-the-secret\n{}", commits("WORK", "done"));
    stage.push("runs/one.yaml", &run("one", &script));
    let running = stage.run("one", "it runs", |status| status.phase == Some(Phase::Running)).await;
    secrets.delete("key", &DeleteParams::default()).await.unwrap();
    stage.push("runs/two.yaml", &run("two", &commits("OTHER", "done")));
    stage.open_gate(&running).await;
    stage.run("one", "it goes on to its end", |status| status.phase == Some(Phase::Succeeded)).await;
    let waits = stage
        .run("two", "it misses the Secret", |status| status.reason == Some(Reason::SecretNotFound))
        .await;
    let status = waits.status.unwrap();
    assert_eq!(status.phase, Some(Phase::Pending));
    assert!(status.message.as_ref().is_some_and(|said| said.contains("key")), "{:?}", status.message);

    secrets.create(&PostParams::default(), &made).await.unwrap();
    stage.run("two", "it starts", |status| status.phase == Some(Phase::Succeeded)).await;
    assert_eq!(up.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_that_is_deleted_and_made_again_at_once_is_not_taken_for_the_old_one() {
    let stage = Stage::new(shared().await, "again").await;
    // not from Git: the syncer would make it again by itself
    let first = stage.config.git(&["rev-parse", "HEAD"]);
    let up = stage.up();
    stage.in_force(&first).await;
    let runs: Api<HarnessRun> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let made = |script: &str| -> HarnessRun { serde_json::from_str(&run("one", script)).unwrap() };
    runs.create(&PostParams::default(), &made(&format!("{GATE}{}", commits("WORK", "old")))).await.unwrap();
    let old = stage.run("one", "it runs", |status| status.phase == Some(Phase::Running)).await;

    // as somebody does who is in a hurry: nobody may finish anything
    runs.delete("one", &DeleteParams::default()).await.unwrap();
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let _ = runs.patch("one", &PatchParams::default(), &free).await;
    let new = loop {
        match runs.create(&PostParams::default(), &made(&commits("WORK", "new"))).await {
            Ok(new) => break new,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let _ = runs.patch("one", &PatchParams::default(), &free).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_ne!(old.uid(), new.uid());
    let ended =
        stage.run("one", "the new one ends", |status| status.phase.is_some_and(Phase::is_terminal)).await;
    assert_eq!(ended.uid(), new.uid());
    let status = ended.status.unwrap();
    // the ledger has the name for the old one, and says so
    assert_eq!((status.phase, status.reason), (Some(Phase::Failed), Some(Reason::NameUsed)));
    let used = format!("the name was used by run {} ", old.uid().unwrap());
    assert!(status.message.as_ref().is_some_and(|said| said.contains(&used)), "{:?}", status.message);
    let ledger = stage.config.bare_git(&["ls-tree", "-r", "--name-only", "ostler/results"]);
    let claim = ledger.lines().find(|path| path.ends_with("/one/claim.yaml")).unwrap();
    let claim = stage.config.bare_git(&["show", &format!("ostler/results:{claim}")]);
    assert!(claim.contains(&old.uid().unwrap()), "{claim}");
    assert!(!stage.state().join("places").join(new.uid().unwrap()).exists(), "the new one never started");
    // its agent, if nobody stopped it in time
    stage.try_gate(&old);
    assert_eq!(up.stop().code, Some(0));
}
