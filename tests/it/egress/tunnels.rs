//! CONNECT.

use ostler::{egress::OwnService, proxy::Limits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    origin::Echo,
    place::{Place, rules, status},
};
use crate::servers::closed::Closed;

#[tokio::test]
async fn an_allowed_tunnel_carries_bytes_both_ways_and_counts_them() {
    let echo = Echo::start().await;
    let policy = json!({"rules": [{"name": "echo", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let place = Place::start(&[policy]);
    let (mut tunnel, head) = place.tunnel(&format!("Target.TEST.:{}", echo.port)).await;
    assert_eq!(status(&head), "200", "{head}");
    let sent = vec![b'x'; 1 << 20];
    let (mut from, mut to) = tunnel.split();
    let mut back = Vec::new();
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    tokio::join!(send, async { from.read_to_end(&mut back).await.unwrap() });
    assert!(back == sent);
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.allowed, seen.denied, seen.bytes_up, seen.bytes_down), (1, 0, 1 << 20, 1 << 20));
}

#[tokio::test]
async fn refusals_say_why_and_what_would_help() {
    let echo = Echo::start().await;
    let port = echo.port;
    let hosts = json!(["target.test", "inside.test", "rebound.test", "metadata.test", "own.test"]);
    let closed = json!({"rules": [{"name": "named", "hosts": hosts, "ports": [port]}],
        "deny": [{"hosts": ["other.test"]}]});
    let place = Place::start(&[closed]);
    let table = [
        (
            "nowhere.test",
            "no rule names this host",
            Some(format!("rules: [{{hosts: [nowhere.test], ports: [{port}]}}]")),
        ),
        (
            "8.8.8.8",
            "no rule names this host",
            Some(format!("rules: [{{cidrs: [\"8.8.8.8/32\"], ports: [{port}]}}]")),
        ),
        ("other.test", "rule p/deny[0] denies it", None),
        ("target.test", "127.0.0.1 is a loopback address", Some("allowPrivate: true".to_owned())),
        ("rebound.test", "10.255.0.1 is a private address", Some("allowPrivate: true".to_owned())),
        ("metadata.test", "169.254.169.254 is a metadata address", None),
    ];
    for (host, why, advice) in table {
        let target = format!("{host}:{port}");
        let answer = place
            .ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), "403", "{answer}");
        assert!(answer.contains("ostler-egress: denied\r\n"), "{answer}");
        assert!(answer.contains(&target) && answer.contains(why), "{answer}");
        match advice {
            Some(advice) => assert!(answer.contains(&advice), "{answer}"),
            None => assert!(answer.contains("No rule that could be added would allow it."), "{answer}"),
        }
    }
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.allowed, seen.denied, seen.failed), (0, 6, 0));
}

#[tokio::test]
async fn what_is_never_open_stays_closed_with_allow_private() {
    let echo = Echo::start().await;
    let everything = json!({"allowPrivate": true, "rules": [{"name": "all", "hosts": ["*.test"],
        "cidrs": ["0.0.0.0/0", "::/0"], "ports": [echo.port]}]});
    let own = OwnService::Socket(([127, 0, 0, 1], echo.port).into());
    let place = Place::limited(rules(&[everything], vec![own]), Limits::default());
    let targets = [
        "metadata.test",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "0.0.0.0",
        "[::]",
        "target.test",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
    ];
    for host in targets {
        let (_, head) = place.tunnel(&format!("{host}:{}", echo.port)).await;
        assert_eq!(status(&head), "403", "{host}: {head}");
    }
    for disguise in ["2130706433", "127.1", "0x7f000001", "0177.0.0.1"] {
        let (_, head) = place.tunnel(&format!("{disguise}:{}", echo.port)).await;
        assert_eq!(status(&head), "400", "{disguise}: {head}");
    }
}

#[tokio::test]
async fn of_a_name_with_two_faces_only_the_open_one_is_dialled() {
    let echo = Echo::start().await;
    let named = json!({"rules": [{"name": "two", "hosts": ["two.test"], "ports": [echo.port]}]});
    let here = json!({"rules": [{"name": "here", "cidrs": ["127.0.0.0/8"], "ports": [echo.port]}], "allowPrivate": true});
    let place = Place::start(&[named.clone(), here]);
    let (mut tunnel, head) = place.tunnel(&format!("two.test:{}", echo.port)).await;
    assert_eq!(status(&head), "200", "{head}");
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    let (_, head) = Place::start(&[named]).tunnel(&format!("two.test:{}", echo.port)).await;
    assert_eq!(status(&head), "403", "{head}");
}

#[tokio::test]
async fn a_new_policy_counts_at_once_and_open_tunnels_stay() {
    let echo = Echo::start().await;
    let target = format!("target.test:{}", echo.port);
    let policy = json!({"rules": [{"name": "echo", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let place = Place::start(&[]);
    assert_eq!(status(&place.tunnel(&target).await.1), "403");
    place.rules.send(rules(&[policy], vec![])).unwrap();
    let (mut tunnel, head) = place.tunnel(&target).await;
    assert_eq!(status(&head), "200");
    place.rules.send(rules(&[], vec![])).unwrap();
    assert_eq!(status(&place.tunnel(&target).await.1), "403");
    tunnel.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still here");
}

#[tokio::test]
async fn an_audit_lets_through_and_records() {
    let echo = Echo::start().await;
    let inside = json!({"rules": [{"name": "here", "cidrs": ["127.0.0.0/8"], "ports": [echo.port]}],
        "allowPrivate": true, "mode": "Audit"});
    let place = Place::start(&[inside]);
    let (_, head) = place.tunnel(&format!("target.test:{}", echo.port)).await;
    assert_eq!(status(&head), "200", "{head}");
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.allowed, seen.audited, seen.denied), (0, 1, 0));
    assert!(seen.denials[0].audited && seen.denials[0].reason == "NoRule");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_not_a_denial() {
    let closed = Closed::new();
    let port = closed.address().port();
    let policy = json!({"rules": [{"name": "r", "hosts": ["target.test", "no-such-name.invalid"], "ports": [port]}],
        "allowPrivate": true});
    let place = Place::start(&[policy]);
    for host in ["target.test", "no-such-name.invalid"] {
        let (_, head) = place.tunnel(&format!("{host}:{port}")).await;
        assert_eq!(status(&head), "502", "{head}");
        assert!(head.contains("ostler-egress: failed\r\n"), "{head}");
    }
    let seen = place.proxy.snapshots().borrow().clone();
    assert_eq!((seen.allowed, seen.denied, seen.failed), (2, 0, 2));
}
