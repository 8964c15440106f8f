//! The API over HTTP: who may see what, pages, and the intake of results.

mod lists;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use ostler::{
    api::{self, Gate, Intake, State},
    embedded::objects::EmbeddedStore,
    ports::{
        Access,
        access::{self, Audience, Identity, User},
        objects::Store,
    },
    report::{Delivery, Receipt},
    telemetry::{AuditLog, Metrics},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

/// `ada` may see namespace `team`, `eve` nothing; `run-a` is the sidecar of team/a.
struct Doors;

#[async_trait]
impl Access for Doors {
    async fn authenticate(
        &self,
        token: &SecretString,
        audience: Audience,
    ) -> Result<Identity, access::Error> {
        match (token.expose_secret(), audience) {
            (name @ ("ada" | "eve"), Audience::Ostler) => Ok(Identity::User(User::named(name))),
            ("run-a", Audience::Result) => Ok(Identity::Run {
                namespace: "team".parse().unwrap(),
                name: "a".parse().unwrap(),
                uid: "u-a".parse().unwrap(),
            }),
            _ => Err(access::Error::Unauthenticated),
        }
    }

    async fn authorize(&self, who: &Identity, request: &access::Request<'_>) -> Result<bool, access::Error> {
        let team = request.namespace.is_some_and(|namespace| namespace.as_str() == "team");
        Ok(match who {
            Identity::User(user) => user.name == "ada" && (team || request.resource == "metrics"),
            Identity::Run { name, .. } => team && request.name == Some(name) && request.verb == "update",
        })
    }
}

async fn reader() -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    for (namespace, name, tier) in
        [("team", "a", "x"), ("team", "b", "y"), ("team", "c", "x"), ("hidden", "d", "x")]
    {
        let object = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "Session",
            "metadata": {"namespace": namespace, "name": name, "labels": {"tier": tier}}, "spec": {}
        });
        store.create(&serde_json::from_value(object).unwrap(), "test").await.unwrap();
    }
    (api::router(state(store)), folder)
}

fn state(store: Store) -> State {
    State {
        store,
        access: Arc::new(Doors),
        gates: Arc::new(|| {
            vec![
                Gate { name: "store".to_owned(), open: true },
                Gate { name: "ledger".to_owned(), open: false },
            ]
        }),
        metrics: Arc::new(Metrics::new()),
        audit: Arc::new(AuditLog::writer(Box::new(std::io::sink()))),
        clock: Arc::new(jiff::Timestamp::now),
    }
}

async fn ask(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    (status, body)
}

async fn get(router: &Router, path: &str, token: Option<&str>) -> (StatusCode, Value) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    ask(router, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn health_is_open_and_everything_else_is_not() {
    let (router, _folder) = reader().await;
    assert_eq!(get(&router, "/healthz", None).await.0, StatusCode::OK);
    let (status, body) = get(&router, "/readyz", None).await;
    assert_eq!((status, &body["gates"][1]["name"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("ledger")));
    for path in [
        "/metrics",
        "/api/v1/sessions",
        "/api/v1/sessions/team",
        "/api/v1/sessions/team/a",
        "/api/v1/nonsense",
    ] {
        assert_eq!(get(&router, path, None).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(get(&router, path, Some("nobody")).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let (status, text) = get(&router, "/metrics", Some("ada")).await;
    assert!(status == StatusCode::OK && text.as_str().unwrap().contains("ostler_api_requests"), "{text}");
}

#[tokio::test]
async fn unknown_and_forbidden_answer_the_same() {
    let (router, _folder) = reader().await;
    let expected = get(&router, "/api/v1/sessions/team/missing", Some("ada")).await;
    assert_eq!(expected.0, StatusCode::NOT_FOUND);
    assert_eq!(expected.1["code"], "not-found");
    for (path, token) in [
        ("/api/v1/sessions/hidden/d", "ada"),
        ("/api/v1/sessions/team/a", "eve"),
        ("/api/v1/sessions/hidden", "ada"),
        ("/api/v1/sessions", "ada"),
        ("/api/v1/nonsense/team/a", "ada"),
        ("/nonsense", "ada"),
    ] {
        assert_eq!(get(&router, path, Some(token)).await, expected, "{path} as {token}");
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_by_label() {
    let (router, _folder) = reader().await;
    let names = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, page) = get(&router, "/api/v1/sessions/team?limit=2", Some("ada")).await;
    assert_eq!(names(&page), ["a", "b"]);
    let next = format!("/api/v1/sessions/team?limit=2&continue={}", page["continue"].as_str().unwrap());
    let (_, page) = get(&router, &next, Some("ada")).await;
    assert_eq!((names(&page), page.get("continue")), (vec!["c".to_owned()], None));
    let (_, page) = get(&router, "/api/v1/sessions/team?labelSelector=tier%3Dx", Some("ada")).await;
    assert_eq!(names(&page), ["a", "c"]);
    for bad in ["limit=0", "limit=501", "continue=%21", "labelSelector=a%20in%20b"] {
        let (status, body) = get(&router, &format!("/api/v1/sessions/team?{bad}"), Some("ada")).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid-request")), "{bad}");
    }
    let (_, one) = get(&router, "/api/v1/sessions/team/a", Some("ada")).await;
    assert!(one["yaml"].as_str().unwrap().contains("name: a"));
    assert_eq!(one["commands"]["ostler"], "ostler get session a --namespace team --output yaml");
}

type Seen = Arc<Mutex<Vec<Delivery>>>;

fn taking(receipt: Receipt) -> (Router, Seen, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    let inbox = seen.clone();
    let deliver: api::Deliver = Arc::new(move |delivery| {
        inbox.lock().unwrap().push(delivery);
        Box::pin(std::future::ready(receipt))
    });
    let audit = Arc::new(AuditLog::writer(Box::new(std::io::sink())));
    let clock = Arc::new(jiff::Timestamp::now);
    let spool = folder.path().join("spool");
    let intake =
        Intake::new(Arc::new(Doors), deliver, spool, audit, Arc::new(Metrics::new()), clock).unwrap();
    (api::intake(intake), seen, folder)
}

fn stream(name: &str, uid: &str) -> Vec<u8> {
    let report = json!({
        "run": {"namespace": "team", "name": name, "uid": uid}, "place": "p", "digest": "v1:a",
        "end": {"exited": {"code": 0}}, "record": {"verdict": null, "summary": "", "usage": null, "session": null},
        "startedAt": null, "endedAt": null, "startup": {}, "egressProof": null, "egress": {"allowed": 0, "denied": 0},
        "limitsNotEnforced": [], "notes": [], "artifacts": [],
        "changes": {"base": null, "head": null, "commits": 0, "files": 0, "additions": 0, "deletions": 0}
    })
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("report.json", report.as_bytes()), ("output.log", b"hello")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn put(
    router: &Router,
    path: &str,
    token: &str,
    digest: Option<&str>,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let mut request = Request::put(path).header("authorization", format!("Bearer {token}"));
    if let Some(digest) = digest {
        request = request.header("ostler-digest", digest);
    }
    ask(router, request.body(Body::from(body)).unwrap()).await
}

const RESULT: &str = "/api/v1/runs/team/a/result";

#[tokio::test]
async fn a_result_is_taken_in_and_answered_as_the_recorder_says() {
    for (receipt, expected) in [(Receipt::Recorded, 200), (Receipt::Waiting, 202), (Receipt::OtherRun, 409)] {
        let (router, seen, _folder) = taking(receipt);
        let (status, body) = put(&router, RESULT, "run-a", None, stream("a", "u-a")).await;
        assert_eq!(status.as_u16(), expected, "{body}");
        let seen = seen.lock().unwrap();
        let delivery = &seen[0];
        assert_eq!(delivery.files, [("output.log".to_owned(), 5)]);
        assert_eq!(delivery.folder.exists(), receipt != Receipt::OtherRun);
    }
}

#[tokio::test]
async fn nobody_hands_in_another_runs_result() {
    let (router, seen, _folder) = taking(Receipt::Recorded);
    assert_eq!(put(&router, RESULT, "ada", None, stream("a", "u-a")).await.0, 401, "another audience");
    assert_eq!(put(&router, "/api/v1/runs/team/b/result", "run-a", None, stream("b", "u-b")).await.0, 404);
    assert_eq!(put(&router, RESULT, "run-a", None, stream("b", "u-a")).await.0, 409);
    assert_eq!(put(&router, RESULT, "run-a", None, stream("a", "u-old")).await.0, 409);
    assert_eq!(put(&router, RESULT, "run-a", Some("00"), stream("a", "u-a")).await.0, 422);
    assert_eq!(put(&router, RESULT, "run-a", None, b"no tar at all".to_vec()).await.0, 422);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_sends_too_much_is_told_so_and_not_cut_off() {
    let (router, seen, _folder) = taking(Receipt::Recorded);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut head = tar::Header::new_gnu();
    head.set_path("report.json").unwrap();
    head.set_size(64 << 20);
    head.set_mode(0o600);
    head.set_cksum();
    // Far more than the sockets between us hold.
    let body = [head.as_bytes().as_slice(), &vec![b' '; 64 << 20]].concat();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "PUT {RESULT} HTTP/1.1\r\nHost: recorder\r\nAuthorization: Bearer run-a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(&body).await.expect("all of it is taken off the line");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("report.json of 64 MiB is over the limit of 1 MiB"), "{answer}");
    assert!(seen.lock().unwrap().is_empty());
    serving.abort();
}
