//! Plain HTTP in absolute form, and requests to the proxy itself.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    origin::Origin,
    place::{Place, read_head, rules, status},
};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=9\r\nX-Hop: 1\r\n\
    Connection: close, x-hop\r\nX-Own: 2\r\n\r\nhello";

fn open(port: u16) -> Value {
    json!({"rules": [{"name": "plain", "hosts": ["target.test"], "ports": [port]}], "allowPrivate": true})
}

#[tokio::test]
async fn a_request_reaches_its_target_without_the_headers_of_the_hop() {
    let origin = Origin::start(ANSWER).await;
    let place = Place::start(&[open(origin.port)]);
    let host = format!("target.test:{}", origin.port);
    let answer = place
        .ask(&format!(
            "POST http://{host}/a/b?c=d HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTE: trailers\r\n\
             Connection: close, x-secret\r\nX-Secret: 1\r\nProxy-Authorization: Basic eDp5\r\nUpgrade: h2c\r\n\
             Authorization: Bearer k\r\n\r\nbody"
        ))
        .await;
    assert_eq!(status(&answer), "200", "{answer}");
    let lower = answer.to_lowercase();
    assert!(lower.contains("x-own: 2\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(
        !lower.contains("x-hop") && !lower.contains("keep-alive") && !lower.contains("ostler-egress"),
        "{answer}"
    );
    let request = origin.requests().pop().unwrap();
    assert!(
        request.starts_with("POST /a/b?c=d HTTP/1.1\r\n") && request.ends_with("\r\n\r\nbody"),
        "{request}"
    );
    let lower = request.to_lowercase();
    assert!(
        lower.contains(&format!("host: {host}\r\n")) && lower.contains("authorization: bearer k\r\n"),
        "{request}"
    );
    for gone in ["te:", "x-secret", "proxy-authorization", "upgrade", "connection:"] {
        assert!(!lower.contains(&format!("\r\n{gone}")), "{gone}: {request}");
    }
}

#[tokio::test]
async fn chunked_bodies_are_framed_anew() {
    let origin = Origin::start(ANSWER).await;
    let place = Place::start(&[open(origin.port)]);
    let host = format!("target.test:{}", origin.port);
    let answer = place
        .ask(&format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             4;x=y\r\nbody\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(status(&answer), "200", "{answer}");
    let request = origin.requests().pop().unwrap();
    assert!(request.ends_with("4\r\nbody\r\n0\r\n\r\n") && !request.contains("x=y"), "{request}");
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let origin = Origin::start(ANSWER).await;
    let place = Place::start(&[open(origin.port)]);
    let host = format!("target.test:{}", origin.port);
    let framings = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ];
    for framing in framings {
        let answer = place
            .ask(&format!(
                "POST http://{host}/first HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n0\r\n\r\n\
                 GET http://{host}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "the connection ends after it: {answer}");
        let request = origin.requests().pop().unwrap();
        assert!(request.starts_with("POST /first ") && request.ends_with("\r\n\r\n0\r\n\r\n"), "{request}");
        assert!(!request.to_lowercase().contains("content-length"), "{request}");
    }
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let origin = Origin::start(ANSWER).await;
    let place = Place::start(&[open(origin.port)]);
    let host = format!("target.test:{}", origin.port);
    let smuggled = "0\r\n\r\nGET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let table = [
        format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked, identity\r\n\r\n{smuggled}"
        ),
        format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding : chunked\r\n\r\n{smuggled}"
        ),
        format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody"
        ),
        format!("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: +4\r\n\r\nbody"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: other.test\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: target.test\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n X-Folded: 1\r\n\r\n"),
        format!("GET http://user:secret@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET http://target.test:0/ HTTP/1.1\r\nHost: target.test:0\r\n\r\n".to_owned(),
        "CONNECT target.test HTTP/1.1\r\nHost: target.test\r\n\r\n".to_owned(),
        "CONNECT user@target.test:443 HTTP/1.1\r\nHost: target.test\r\n\r\n".to_owned(),
    ];
    for request in table {
        let answer = place.ask(&request).await;
        assert_eq!(status(&answer), "400", "{request}\n{answer}");
        assert!(!answer.contains("secret"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing after it is a request: {answer}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test]
async fn methods_and_paths_are_judged_request_by_request() {
    let origin = Origin::start(ANSWER).await;
    let host = format!("target.test:{}", origin.port);
    let policy = json!({"allowPrivate": true, "rules": [
        {"name": "read", "hosts": ["target.test"], "ports": [origin.port], "methods": ["GET"], "paths": ["/org/*"]}]});
    let place = Place::start(&[policy]);
    let mut client = place.connect().await;
    let table = [
        ("GET", "/org/a", "200"),
        ("GET", "/admin", "403"),
        ("DELETE", "/org/a", "403"),
        ("GET", "/org/b", "200"),
    ];
    for (method, path, expected) in table {
        let request = format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await;
        assert_eq!(status(&head), expected, "{method} {path}: {head}");
        skip_body(&mut client, &head).await;
    }
    assert_eq!(status(&place.tunnel(&host).await.1), "403", "a tunnel shows neither");
    place.rules.send(rules(&[], vec![])).unwrap();
    client
        .write_all(format!("GET http://{host}/org/a HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&read_head(&mut client).await), "403", "on the same connection");
    assert_eq!(origin.requests().len(), 2);
}

async fn skip_body(client: &mut tokio::net::UnixStream, head: &str) {
    use tokio::io::AsyncReadExt;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
}

#[tokio::test]
async fn origin_form_is_for_the_proxy_itself() {
    let place = Place::start(&[]);
    let ask = |request: &'static str| place.ask(request);
    let proof = ask("GET /.ostler/proof HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(status(&proof) == "200" && proof.ends_with("\r\n\r\na-nonce"), "{proof}");
    let lost = ask("GET /routes/anthropic HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&lost), "404", "{lost}");
    let posted = ask("POST /.ostler/proof HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&posted), "404", "{posted}");
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.allowed, seen.denied), (0, 0));
}
