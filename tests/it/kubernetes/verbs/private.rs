//! Outputs in a ledger that a password guards: whoever may get the Secret reads them, and nobody else.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use ostler::{
    kinds::{Kind, meta},
    ports::objects::At,
};
use serde_json::json;

use super::{User, reading};
use crate::{
    cluster::shared,
    contract::rbac::rule,
    kubernetes::{id, object, stage::Stage},
    servers::git_http::{Auth, GitHttp, Options},
};

const PASSWORD: &str = "s3cret-of-the-cluster";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_may_get_the_secret_reads_a_private_ledger() {
    let stage = Stage::new(shared().await, "private").await;
    let namespace = &stage.namespace;
    let reference = format!("refs/ostler/runs/{namespace}/fix");
    stage.code.git(&["checkout", "--quiet", "--orphan", "bulk"]);
    stage.code.git(&["rm", "--quiet", "-r", "-f", "."]);
    stage.code.commit(&[("output.log", "in the ledger\n")], "bulk");
    stage.code.git(&["push", "--quiet", "origin", &format!("HEAD:{reference}")]);
    let auth = Some(Auth::Basic("ada", PASSWORD));
    let web = GitHttp::start(stage.code.root(), Options { auth, ..Options::default() });

    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "git",
            "annotations": {"ostler.dev/use": "git", "ostler.dev/hosts": web.address().to_string()}},
        "stringData": {"username": "ada", "password": PASSWORD}
    }))
    .unwrap();
    let secrets: Api<Secret> = Api::namespaced(stage.admin.clone(), namespace.as_str());
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let make = async |kind: Kind, name: &str, spec: serde_json::Value| {
        let object = object(json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind.as_str(),
            "metadata": {"namespace": namespace, "name": name}, "spec": spec}));
        stage.store.create(&object, meta::CLI).await.unwrap()
    };
    let config = json!({"url": web.url("origin.git"), "secretRef": {"name": "git"}});
    make(Kind::ConfigRepository, "config", config).await;
    let run =
        make(Kind::HarnessRun, "fix", json!({"sessionRef": {"name": "pay"}, "task": {"prompt": "fix"}}))
            .await;
    let at = At::of(&run).unwrap().any_version();
    let run = id(Kind::HarnessRun, namespace, "fix");
    stage.store.write_status(&run, &at, &json!({"phase": "Succeeded"}), meta::CONTROLLER).await.unwrap();

    let gets = rule("", "secrets", &["get"]);
    let trusted = User::new(&stage, "trusted", &[reading(), vec![gets]].concat()).await;
    assert_eq!(trusted.ok(&["logs", "fix"]).await, "in the ledger\n");

    let reader = User::new(&stage, "untrusted", &reading()).await;
    let refused = reader.refused(&["logs", "fix"]).await;
    for part in ["not allowed to get it", "--secrets", "git fetch http://", &reference] {
        assert!(refused.contains(part), "{part} is not in: {refused}");
    }
    assert!(!refused.contains(PASSWORD));
}
