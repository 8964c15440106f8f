//! The status API as a role: replicas that keep nothing, callers by their tokens, rights by RBAC.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::api::PostParams;
use ostler::kinds::Session;
use serde_json::{Value, json};

use super::stage::{Stage, address};
use crate::{
    cluster::object_writes,
    contract::rbac::{self, To},
    scenarios::up::Up,
};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_answer_the_same_to_whom_rbac_allows_it() {
    let stage = Stage::new("status").await;
    stage.create::<Session>("work", json!({})).await;
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec!["ostler".to_owned()], ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let accounts = stage.api::<ServiceAccount>();
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
    let token = token.status.unwrap().token;
    let user = format!("system:serviceaccount:{}:default", stage.namespace);
    let rule = rbac::rule("ostler.dev", "sessions", &["list"]);
    rbac::grant(&stage.client, &stage.namespace, "reader", To::User(&user), rule).await;

    let replicas = ["one", "two"].map(|who| {
        let mut command = stage.role("api", who);
        command.args(["--listen", "127.0.0.1:0"]);
        Up::start(command)
    });
    let web = reqwest::Client::new();
    for replica in &replicas {
        let url = address(replica, "listening");
        let ask = async |kind: &str, token: Option<&str>| {
            let mut request = web.get(format!("{url}/api/v1/{kind}/{}", stage.namespace));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
        };
        let (status, page) = ask("sessions", Some(&token)).await;
        assert_eq!((status, &page["items"][0]["metadata"]["name"]), (200, &json!("work")), "{page}");
        assert_eq!(ask("runs", Some(&token)).await.0, 404, "a kind that RBAC does not allow");
        assert_eq!(ask("sessions", None).await.0, 401);
        assert_eq!(ask("sessions", Some("nonsense")).await.0, 401);
        let ready = web.get(format!("{}/readyz", address(replica, "health"))).send().await.unwrap();
        assert_eq!(ready.status(), 200);
    }
    for replica in replicas {
        assert_eq!(replica.stop().code, Some(0));
    }
    let lines = stage.audit().await;
    assert_eq!(
        object_writes(&lines, &[&stage.user("one"), &stage.user("two")]),
        [].into(),
        "it writes nothing"
    );
}
