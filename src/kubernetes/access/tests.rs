use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::*;
use crate::names::{Namespace, ObjectName};

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that answers every question the same, and what it was asked.
fn answering(code: u16, answer: Value) -> (KubeAccess, Asked) {
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    let service = service_fn(move |request: http::Request<Body>| {
        let (heard, answer) = (Arc::clone(&heard), answer.clone());
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            heard.lock().unwrap().push((path, serde_json::from_slice(&body)?));
            let body = Full::new(bytes::Bytes::from(answer.to_string()));
            Ok::<_, BoxError>(http::Response::builder().status(code).body(body)?)
        }
    });
    (KubeAccess::new(Client::new(service, "default")), asked)
}

async fn authenticated(status: Value) -> Result<Identity, Error> {
    let answer = json!({"spec": {"token": "t-canary"}, "status": status});
    answering(201, answer).0.authenticate(&SecretString::from("t-canary"), Audience::Ostler).await
}

#[tokio::test]
async fn only_a_known_caller_for_our_audience_is_let_in() {
    let user = json!({
        "username": "ada", "uid": "u-1", "groups": ["team", "system:authenticated"], "extra": {"scopes": ["a", "b"]},
    });
    let who =
        authenticated(json!({"authenticated": true, "user": user, "audiences": ["ostler"]})).await.unwrap();
    let expected = User {
        name: "ada".to_owned(),
        uid: Some("u-1".to_owned()),
        groups: vec!["team".to_owned(), "system:authenticated".to_owned()],
        extra: [("scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
    };
    assert_eq!(who, Identity::User(expected));
    for status in [
        json!({"authenticated": true, "user": user}),
        json!({"authenticated": true, "user": user, "audiences": ["ostler-result", "https://kubernetes"]}),
        json!({"authenticated": false, "user": user, "audiences": ["ostler"]}),
        json!({"user": {}, "audiences": ["ostler"], "error": "invalid bearer token"}),
        json!({"authenticated": true, "user": {}, "audiences": ["ostler"]}),
        json!({"authenticated": true, "audiences": ["ostler"]}),
    ] {
        let decided = authenticated(status.clone()).await;
        assert!(matches!(decided, Err(Error::Unauthenticated)), "{status}: {decided:?}");
    }
}

#[tokio::test]
async fn a_question_has_the_token_and_the_audience() {
    let (access, asked) = answering(201, json!({"status": {}}));
    assert!(access.authenticate(&SecretString::from("t"), Audience::Ostler).await.is_err());
    assert!(
        access.authenticate(&SecretString::from(""), Audience::Ostler).await.is_err(),
        "not worth a question"
    );
    assert!(
        access.authenticate(&SecretString::from("t"), Audience::Result).await.is_err(),
        "not worth a question"
    );
    let asked = asked.lock().unwrap();
    let [(path, question)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(question["spec"], json!({"token": "t", "audiences": ["ostler"]}));
}

#[tokio::test]
async fn a_question_has_the_groups_and_the_subresource() {
    let (access, asked) = answering(201, json!({"status": {"allowed": true}}));
    let (namespace, name): (Namespace, ObjectName) = ("team".parse().unwrap(), "a".parse().unwrap());
    let user = User { groups: vec!["g".to_owned()], ..User::named("ada") };
    let one =
        Request { verb: "get", resource: "harnessruns/log", namespace: Some(&namespace), name: Some(&name) };
    assert!(access.authorize(&Identity::User(user), &one).await.unwrap());
    let all = Request { verb: "list", resource: "sessions", namespace: None, name: None };
    assert!(access.authorize(&Identity::User(User::named("ada")), &all).await.unwrap());
    let asked = asked.lock().unwrap();
    let [(path, first), (_, second)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    assert_eq!((&first["spec"]["user"], &first["spec"]["groups"]), (&json!("ada"), &json!(["g"])));
    assert_eq!(
        first["spec"]["resourceAttributes"],
        json!({
            "group": "ostler.dev", "name": "a", "namespace": "team", "resource": "harnessruns", "subresource": "log",
            "verb": "get",
        })
    );
    assert_eq!(
        second["spec"]["resourceAttributes"],
        json!({"group": "ostler.dev", "resource": "sessions", "verb": "list"})
    );
}

#[tokio::test]
async fn what_is_not_allowed_is_refused() {
    let user = Identity::User(User::named("ada"));
    let all = Request { verb: "list", resource: "sessions", namespace: None, name: None };
    for (status, allowed) in [
        (json!({"allowed": true}), true),
        (json!({"allowed": false, "reason": "no"}), false),
        (json!({"allowed": true, "denied": true}), false),
        (json!({"allowed": false, "evaluationError": "a role is missing"}), false),
    ] {
        let (access, _) = answering(201, json!({"status": status}));
        assert_eq!(access.authorize(&user, &all).await.unwrap(), allowed, "{status}");
    }
}

#[tokio::test]
async fn a_run_may_deliver_its_own_result_and_asks_nobody() {
    let (access, asked) = answering(201, json!({"status": {"allowed": true}}));
    let (namespace, name): (Namespace, ObjectName) = ("team".parse().unwrap(), "a".parse().unwrap());
    let other: ObjectName = "b".parse().unwrap();
    let run = Identity::Run { namespace: namespace.clone(), name: name.clone(), uid: "u-1".parse().unwrap() };
    for (verb, resource, name, allowed) in [
        ("update", "harnessruns/result", Some(&name), true),
        ("update", "harnessruns/result", Some(&other), false),
        ("update", "harnessruns/result", None, false),
        ("update", "harnessruns", Some(&name), false),
        ("get", "harnessruns/result", Some(&name), false),
    ] {
        let request = Request { verb, resource, namespace: Some(&namespace), name };
        assert_eq!(access.authorize(&run, &request).await.unwrap(), allowed, "{request:?}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_api_server_that_does_not_decide_is_no_refusal_and_no_error_holds_the_token() {
    let status = |code: u16, reason: &str| json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
    for (code, answer) in [
        (401, status(401, "Unauthorized")),
        (403, status(403, "Forbidden")),
        (503, status(503, "ServiceUnavailable")),
        (201, json!({"spec": {"token": "t-canary"}})),
        (201, json!({"spec": {"token": "t-canary"}, "status": "odd"})),
    ] {
        let (access, _) = answering(code, answer.clone());
        let error = access.authenticate(&SecretString::from("t-canary"), Audience::Ostler).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{answer}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
        let all = Request { verb: "list", resource: "sessions", namespace: None, name: None };
        let error = access.authorize(&Identity::User(User::named("ada")), &all).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn a_pod_that_is_about_to_be_a_place_is_told_to_ask_again() {
    let extra = json!({(POD_NAME): ["fix-1"], (POD_UID): ["p-1"]});
    let user = json!({"username": "system:serviceaccount:team:default", "extra": extra});
    let answer = |user: &Value| json!({"status": {"authenticated": true, "user": user, "audiences": ["ostler-result"]}});
    let delivers = async |user: &Value, place: PlaceOf| {
        let seen = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&seen);
        let runs: RunOfPod = Arc::new(move |pod| {
            *heard.lock().unwrap() = Some(pod.clone());
            place.clone()
        });
        let access = answering(201, answer(user)).0.with_runs(runs);
        let who = access.authenticate(&SecretString::from("t"), Audience::Result).await;
        (who, seen.lock().unwrap().take())
    };
    let (namespace, name, uid): (Namespace, ObjectName, Uid) =
        ("team".parse().unwrap(), "fix".parse().unwrap(), "u-1".parse().unwrap());
    let run = RunKey { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() };
    let (who, pod) = delivers(&user, PlaceOf::Run(run)).await;
    assert_eq!(who.unwrap(), Identity::Run { namespace: namespace.clone(), name, uid });
    let bound = BoundPod { namespace, name: "fix-1".to_owned(), uid: "p-1".parse().unwrap() };
    assert_eq!(pod, Some(bound));
    let (not_yet, _) = delivers(&user, PlaceOf::NotYet).await;
    assert!(matches!(not_yet, Err(Error::Unavailable(_))), "{not_yet:?}");
    let (nobody, _) = delivers(&user, PlaceOf::Nobody).await;
    assert!(matches!(nobody, Err(Error::Unauthenticated)), "{nobody:?}");
    for (field, value) in [
        ("extra", json!({(POD_UID): ["p-1"]})),
        ("extra", json!({(POD_NAME): ["fix-1"]})),
        ("extra", json!({(POD_NAME): ["fix-1"], (POD_UID): ["p-1", "p-2"]})),
        ("username", json!("ada")),
    ] {
        let mut other = user.clone();
        other[field] = value;
        let (who, asked) = delivers(&other, PlaceOf::NotYet).await;
        assert!(matches!(who, Err(Error::Unauthenticated)) && asked.is_none(), "{other}: {who:?}");
    }
}
