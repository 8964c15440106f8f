//! Who is served, and who is refused with which words.

use ostler::proxy::tunnel::{OpenError, Target};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Agent, Stage, eventually};
use crate::egress::origin::Echo;

async fn refusal(agent: &Agent) -> String {
    match agent.client().proof().await {
        Err(OpenError::Denied { message }) => format!("denied: {message}"),
        Err(OpenError::Unreachable { message }) => format!("not now: {message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pod_with_its_own_token_at_its_own_address_is_served() {
    let (stage, echo) = (Stage::start().await, Echo::start().await);
    let open = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let agent = stage.agent(stage.spec(&[open])).await;
    let target = Target::Connect { host: "target.test".to_owned(), port: echo.port };
    let mut stream = agent.client().open(&target).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    let (address, saw) = agent.client().proof().await.unwrap();
    assert_eq!((address.to_string(), saw), ("127.0.0.1".to_owned(), 0));
}

#[tokio::test]
async fn tokens_of_others_are_refused_by_name() {
    let stage = Stage::start().await;
    let agent = stage.agent(stage.spec(&[])).await;
    assert!(agent.client().proof().await.is_ok(), "the pod itself is served");

    agent.has_token("ostler-egress", &agent.token(&["ostler-result"], true).await);
    assert_eq!(refusal(&agent).await, "denied: The token is none of audience ostler-egress that counts.");
    agent.has_token("ostler-egress", "eyJhbGciOiJub25lIn0.e30.");
    assert_eq!(refusal(&agent).await, "denied: The token is none of audience ostler-egress that counts.");
    agent.has_token("ostler-egress", "");
    assert_eq!(refusal(&agent).await, "denied: There is no token.");
    agent.has_token("ostler-egress", &agent.token(&["ostler-egress"], false).await);
    assert_eq!(refusal(&agent).await, "denied: The token is not bound to a pod.");
    std::fs::remove_file(agent.tokens().join("ostler-egress")).unwrap();
    assert!(matches!(agent.client().proof().await, Err(OpenError::Token { .. })));
}

#[tokio::test]
async fn pods_that_are_none_of_a_run_or_elsewhere_are_refused_by_name() {
    let stage = Stage::start().await;
    let known = stage.agent(stage.spec(&[])).await;
    assert!(known.client().proof().await.is_ok());
    let file = stage.file(stage.spec(&[]));

    let stranger = stage.pod(false, &file).await;
    stranger.runs_at("127.0.0.1").await;
    let pod = |agent: &Agent| format!("The pod {}/{}", stage.namespace, agent.name);
    assert_eq!(refusal(&stranger).await, format!("not now: {} is none of a run here.", pod(&stranger)));

    let elsewhere = stage.pod(true, &file).await;
    elsewhere.runs_at("127.0.0.9").await;
    assert_eq!(
        refusal(&elsewhere).await,
        format!("denied: {} does not have the address 127.0.0.1.", pod(&elsewhere))
    );

    known.status(json!({"phase": "Succeeded"})).await;
    let ended = format!("denied: {} has ended.", pod(&known));
    eventually("the end of a pod is known", async || known.client().proof().await.is_err().then_some(()))
        .await;
    assert_eq!(refusal(&known).await, ended);
}

#[tokio::test]
async fn a_pod_made_anew_under_a_name_is_another() {
    let stage = Stage::start().await;
    let file = stage.file(stage.spec(&[]));
    let first = stage.pod_named("same", true, &file).await;
    first.runs_at("127.0.0.1").await;
    assert!(first.client().proof().await.is_ok());
    first.delete().await;
    let second = stage.pod_named("same", true, &file).await;
    second.runs_at("127.0.0.1").await;
    assert!(second.client().proof().await.is_ok());
    // Its token was good a moment ago: whoever still remembers that knows the pod by its UID.
    let refused = refusal(&first).await;
    let by_uid = format!("not now: The pod {}/same has another UID here.", stage.namespace);
    let by_token = "denied: The token is none of audience ostler-egress that counts.";
    assert!(refused == by_uid || refused == by_token, "{refused}");
}

#[tokio::test]
async fn a_pod_may_be_ahead_of_what_the_api_server_knows_of_it() {
    let stage = Stage::start().await;
    let other = stage.agent(stage.spec(&[])).await;
    assert!(other.client().proof().await.is_ok());
    let agent = stage.pod(true, &stage.file(stage.spec(&[]))).await;
    let client = agent.client();
    let asking = tokio::spawn(async move { client.proof().await });
    agent.runs_at("127.0.0.1").await;
    // asked before or after the write, the answer is the same
    assert!(asking.await.unwrap().is_ok());
}

#[tokio::test]
async fn annotations_that_cannot_be_read_open_nothing() {
    let stage = Stage::start().await;
    let mut foreign = stage.spec(&[]);
    foreign.run.namespace = "elsewhere".parse().unwrap();
    for (file, said) in [
        ("{}".to_owned(), "cannot be read: missing field `spec`"),
        (stage.file(foreign), "is that of a run of another namespace"),
        (stage.file(stage.spec(&[json!({"rules": [{"name": "nothing"}]})])), "a rule names hosts or cidrs"),
    ] {
        let agent = stage.pod(true, &file).await;
        agent.runs_at("127.0.0.1").await;
        let refused = refusal(&agent).await;
        assert!(refused.starts_with("denied: ") && refused.contains(said), "{refused}");
    }
    let agent = stage.agent(stage.spec(&[])).await;
    agent.annotate("ostler.dev/egress", "[").await;
    let refused = eventually("the annotation is known", async || match agent.client().proof().await {
        Err(OpenError::Denied { message }) => Some(message),
        _ => None,
    })
    .await;
    assert!(refused.contains("its annotation ostler.dev/egress cannot be read"), "{refused}");
}
