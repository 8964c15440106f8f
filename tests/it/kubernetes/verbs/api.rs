//! The API of an `ostler up` whose objects are in a cluster: this machine's token and the cluster's tokens, each with its
//! own rights, and neither with the other's.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::Value;

use crate::{
    cluster::shared,
    contract::rbac::{self, To},
    kubernetes::stage::Stage,
};

async fn token(stage: &Stage<'_>, name: &str, audience: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.admin.clone(), stage.namespace.as_str());
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    // the second token of an account finds it there
    let _ = accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..Default::default() }).await;
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap().status.unwrap().token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_of_the_machine_and_of_the_cluster_are_told_apart() {
    let stage = Stage::new(shared().await, "callers").await;
    let reader = format!("system:serviceaccount:{}:reader", stage.namespace);
    let reads = rbac::rule("ostler.dev", "agents", &["get", "list"]);
    rbac::grant(&stage.admin, stage.namespace.as_str(), "api-reader", To::User(&reader), reads).await;
    let first = stage.config.git(&["rev-parse", "HEAD"]);
    let up = stage.up();
    stage.in_force(&first).await;
    let listening = up.line("it listens", |line| line["what"] == "listening");
    let url = listening["api"].as_str().unwrap().to_owned();
    let local = std::fs::read_to_string(listening["tokenFile"].as_str().unwrap()).unwrap();

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |token: &str, path: &str| -> (u16, Value) {
        let answer = client.get(format!("{url}{path}")).bearer_auth(token).send().await.unwrap();
        let (code, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (code, serde_json::from_str(&text).unwrap_or_default())
    };
    let agents = format!("/api/v1/agents/{}", stage.namespace);
    let sessions = format!("/api/v1/sessions/{}", stage.namespace);
    let of_reader = token(&stage, "reader", "ostler").await;
    for (token, path) in [(&local, &agents), (&local, &sessions), (&of_reader, &agents)] {
        let (code, page) = ask(token, path).await;
        assert_eq!(code, 200, "{path}: {page}");
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{path}: {page}");
    }
    // what may not be seen is as what is not there
    let of_nobody = token(&stage, "nobody", "ostler").await;
    for (token, path) in
        [(&of_reader, &sessions), (&of_nobody, &agents), (&of_reader, &"/api/v1/agents".to_owned())]
    {
        let (code, problem) = ask(token, path).await;
        assert_eq!(code, 404, "{path}: {problem}");
    }
    let for_others = token(&stage, "reader", "https://kubernetes.default.svc").await;
    for token in [&for_others, "garbage", ""] {
        let (code, problem) = ask(token, &agents).await;
        assert_eq!(code, 401, "{problem}");
    }
    assert_eq!(up.stop().code, Some(0));
}
