//! Bounds: heads, connections, time, the list of denials.

use std::{sync::Arc, time::Duration};

use ostler::{kinds::harness_run::EgressSeen, proxy::Limits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    origin::Echo,
    place::{Place, rules, status},
};

#[tokio::test]
async fn a_long_head_is_refused() {
    let place = Place::limited(Arc::default(), Limits { header_bytes: 8192, ..Limits::default() });
    let long = "x".repeat(9000);
    let answer = place.ask(&format!("GET http://target.test/ HTTP/1.1\r\nX-Long: {long}\r\n\r\n")).await;
    assert_eq!(status(&answer), "431", "{answer}");
}

#[tokio::test]
async fn a_slow_head_ends_its_connection() {
    let place = Place::limited(
        Arc::default(),
        Limits { header_time: Duration::from_millis(50), ..Limits::default() },
    );
    // The request never ends, so this returns only if the proxy gives up.
    let answer = place.ask("GET http://target.test/ HTTP/1.1\r\nX-").await;
    assert!(answer.is_empty() || status(&answer) == "408", "{answer}");
}

#[tokio::test]
async fn one_connection_more_is_turned_away() {
    let place = Place::limited(Arc::default(), Limits { connections: 1, ..Limits::default() });
    let mut first = place.connect().await;
    first.write_all(b"GET ").await.unwrap();
    let turned_away = place.ask("").await;
    assert_eq!(status(&turned_away), "503", "{turned_away}");
    let (head, body) = turned_away.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{turned_away}");
    assert_eq!(place.proxy.snapshots().borrow().overloaded, 1);
    let mut answer = String::new();
    first.write_all(b"/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    first.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), "404", "the first one keeps its place: {answer}");
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let echo = Echo::start().await;
    let policy = json!({"rules": [{"name": "echo", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let limits = Limits { idle_time: Duration::from_millis(50), ..Limits::default() };
    let place = Place::limited(rules(&[policy], vec![]), limits);
    let (mut tunnel, head) = place.tunnel(&format!("target.test:{}", echo.port)).await;
    assert_eq!(status(&head), "200", "{head}");
    let mut rest = Vec::new();
    // Ends only if the proxy ends it.
    let _ = tunnel.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn denials_add_up_and_fit_into_status() {
    let place = Place::limited(Arc::default(), Limits { denials: 12, ..Limits::default() });
    for number in 0..15 {
        for _ in 0..2 {
            let (_, head) = place.tunnel(&format!("host{number}.test:443")).await;
            assert_eq!(status(&head), "403");
        }
    }
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.denied, seen.denials.len()), (30, 12));
    assert!(seen.denials.iter().all(|denial| denial.count == 2));
    let status = EgressSeen::from(&seen);
    assert_eq!((status.denied, status.denials.len()), (30, 8));
    let expected =
        "this run has no egress policy; would be allowed by rules: [{hosts: [host0.test], ports: [443]}]";
    assert_eq!(status.denials[0].reason, expected);
}
