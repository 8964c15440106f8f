//! CRDs of a newer ostler: what this one would not obey it refuses, and what it need not know does no harm.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::PostParams,
    runtime::wait::{await_condition, conditions},
};
use ostler::{
    kinds::{Agent, Phase},
    kubernetes::client::{CrdError, check_crds},
};
use serde_json::json;

use crate::{
    cluster::Cluster,
    kubernetes::stage::Stage,
    scenarios::manifests::{agent, commits, run},
};

const AGENTS: &str = "agents.ostler.dev";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_version_is_left_alone_and_a_new_field_is_not_ignored() {
    let cluster = Cluster::start_own().await;
    let stage = Stage::new(&cluster, "newer").await;
    let crds: Api<CustomResourceDefinition> = Api::all(stage.admin.clone());
    let up = stage.up();

    // a version that others speak is served besides ours, while we run
    let mut crd = crds.get(AGENTS).await.unwrap();
    let mut second = crd.spec.versions[0].clone();
    second.name = "v1beta1".to_owned();
    second.storage = false;
    crd.spec.versions.push(second);
    crds.replace(AGENTS, &PostParams::default(), &crd).await.unwrap();
    await_condition(crds.clone(), AGENTS, conditions::is_crd_established()).await.unwrap();
    check_crds(&stage.admin).await.unwrap();
    stage.push("runs/one.yaml", &run("one", &commits("WORK", "done")));
    stage.recorded("one", Phase::Succeeded).await;

    // then a field that we do not know
    let mut crd = crds.get(AGENTS).await.unwrap();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
        let spec = schema.properties.as_mut().unwrap().get_mut("spec").unwrap();
        let fields = spec.properties.as_mut().unwrap();
        fields.insert("warp".to_owned(), serde_json::from_value(json!({"type": "string"})).unwrap());
    }
    crds.replace(AGENTS, &PostParams::default(), &crd).await.unwrap();
    // who runs already goes on
    let last = stage.push("agents/more.yaml", &agent("more", &json!({})));
    stage.in_force(&last).await;
    assert!(stage.get::<Agent>("more").await.is_some());
    assert_eq!(up.stop().code, Some(0));
    // who begins is told what to do
    let newer = check_crds(&stage.admin).await.unwrap_err();
    assert!(matches!(&newer, CrdError::Newer(fields) if fields == &["Agent.spec.warp"]), "{newer}");
    let ended = stage.up_to_its_end();
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    assert!(ended.text.contains("does not know Agent.spec.warp: run the ostler"), "{}", ended.text);
}
