//! What a caller reaches: hosts by its policies, the recorder, the proof.

use std::sync::Arc;

use ostler::{
    egress::Ruleset,
    proxy::{
        Dial, Proxy,
        gateway::Limits,
        tunnel::{OpenError, Target},
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    sync::watch,
};

use super::stage::{Agent, Stage, eventually, policies};
use crate::{egress::origin::Echo, servers::closed::Closed};

async fn open(agent: &Agent, host: &str, port: u16) -> Result<(), OpenError> {
    agent.client().open(&Target::Connect { host: host.to_owned(), port }).await.map(drop)
}

fn denied(result: Result<(), OpenError>) -> String {
    match result {
        Err(OpenError::Denied { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hosts_are_judged_by_the_policies_of_the_run() {
    let (stage, echo) = (Stage::start().await, Echo::start().await);
    let private = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let public =
        json!({"rules": [{"name": "open", "hosts": ["other.test", "metadata.test", "nowhere.invalid"]}]});
    let agent = stage.agent(stage.spec(&[private, public])).await;
    open(&agent, "target.test", echo.port).await.unwrap();

    let said = denied(open(&agent, "unnamed.test", 443).await);
    assert!(said.starts_with("unnamed.test:443 is denied: no rule names this host."), "{said}");
    assert!(said.contains("would allow it:\n") && said.contains("unnamed.test"), "{said}");
    let said = denied(open(&agent, "other.test", 443).await);
    assert!(
        said.contains("127.0.0.1 is a loopback address and no policy with allowPrivate names it"),
        "{said}"
    );
    let said = denied(open(&agent, "metadata.test", 443).await);
    assert!(said.contains("169.254.169.254 is a metadata address, which no rule can open"), "{said}");
    let said = denied(open(&agent, "target.test", 0).await);
    assert!(said.contains("no port"), "{said}");
    let said = denied(open(&agent, "no such host", 443).await);
    assert!(said.contains("host cannot be used"), "{said}");
    let unknown = open(&agent, "nowhere.invalid", 443).await;
    assert!(
        matches!(&unknown, Err(OpenError::Unreachable { message }) if message.contains("nowhere.invalid")),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn no_policy_opens_the_gateway_itself() {
    let stage = Stage::start().await;
    let ports = [stage.address.port(), stage.canary.port()];
    let all =
        json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": ports}], "allowPrivate": true});
    let agent = stage.agent(stage.spec(&[all])).await;
    for port in ports {
        let said = denied(open(&agent, "target.test", port).await);
        assert!(said.contains("127.0.0.1 is a service of the control plane"), "{said}");
    }
}

#[tokio::test]
async fn an_annotation_changes_the_policies_of_a_running_pod() {
    let (stage, echo) = (Stage::start().await, Echo::start().await);
    let agent = stage.agent(stage.spec(&[])).await;
    let said = denied(open(&agent, "target.test", echo.port).await);
    assert!(said.contains("this run has no egress policy"), "{said}");
    let rule = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    agent.annotate("ostler.dev/egress", &serde_json::to_string(&policies(&[rule])).unwrap()).await;
    eventually("the policy counts", async || open(&agent, "target.test", echo.port).await.ok()).await;
    agent.annotate("ostler.dev/egress", "[]").await;
    eventually("the policy is gone", async || open(&agent, "target.test", echo.port).await.err()).await;
}

#[tokio::test]
async fn rules_over_methods_open_their_hosts_port_80_and_no_tunnel_to_443() {
    let stage = Stage::start().await;
    let rule = json!({"rules": [{"name": "open", "hosts": ["target.test"], "methods": ["GET"]}]});
    let agent = stage.agent(stage.spec(&[rule])).await;
    // The name's address is private: so far it came by the rule.
    assert!(denied(open(&agent, "target.test", 80).await).contains("loopback"));
    assert!(denied(open(&agent, "target.test", 443).await).contains("but not this port"));
}

#[tokio::test]
async fn the_recorder_gets_the_bytes_as_they_are() {
    let echo = Echo::start().await;
    let stage = Stage::with(Limits::default(), format!("localhost:{}", echo.port)).await;
    let agent = stage.agent(stage.spec(&[])).await;
    let mut stream = agent.client().open(&Target::Recorder).await.unwrap();
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut back = vec![0; sent.len()];
    let (read, written) = tokio::join!(read.read_exact(&mut back), write.write_all(&sent));
    read.unwrap();
    written.unwrap();
    assert_eq!(back, sent);
    // egress' token is none for results
    agent.has_token("ostler-result", &agent.token(&["ostler-egress"], true).await);
    let refused = agent.client().open(&Target::Recorder).await.map(drop);
    assert!(denied(refused).contains("audience ostler-result"));
}

#[tokio::test]
async fn a_recorder_that_is_away_is_not_now() {
    let away = Closed::new();
    let stage = Stage::with(Limits::default(), away.address().to_string()).await;
    let agent = stage.agent(stage.spec(&[])).await;
    let refused = agent.client().open(&Target::Recorder).await.map(drop);
    assert!(
        matches!(&refused, Err(OpenError::Unreachable { message }) if message.contains("recorder")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_canary_counts_who_comes_from_the_pods_address() {
    let stage = Stage::start().await;
    let agent = stage.agent(stage.spec(&[])).await;
    assert_eq!(agent.client().proof().await.unwrap().1, 0);
    for _ in 0..3 {
        let mut canary = TcpStream::connect(stage.canary).await.unwrap();
        let mut nothing = Vec::new();
        // closed at once: an end, or a reset
        let _ = canary.read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
    }
    assert_eq!(agent.client().proof().await.unwrap().1, 3);
    // What came before a pod was made is not of it; the API server tells the time of that to the second.
    eventually("a later pod has not been seen", async || {
        let next = stage.agent(stage.spec(&[])).await;
        (next.client().proof().await.unwrap().1 == 0).then_some(())
    })
    .await;
}

/// Sends a request to an agent's own proxy and reads the whole answer.
async fn ask(mut client: DuplexStream, request: String) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_agents_own_proxy_answers_and_the_gateway_decides_as_well() {
    let (stage, echo) = (Stage::start().await, Echo::start().await);
    let narrow = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let named = json!({"name": "named", "hosts": ["target.test", "other.test"], "ports": [echo.port]});
    let block = json!({"name": "block", "cidrs": ["127.0.0.0/8"], "ports": [echo.port]});
    let wide = json!({"rules": [named, block]});
    let agent = stage.agent(stage.spec(&[narrow])).await;
    let wide = policies(&[wide]);
    let rules = Ruleset::parse(wide.iter().map(|p| (p.name.as_str(), &p.spec)), vec![]).unwrap();
    let (_rules, newest) = watch::channel(Arc::new(rules));
    let proxy = Proxy::new(newest, Dial::Tunnel(agent.client()), ostler::proxy::Limits::default(), None);
    let connect = async |host: &str, last: &str| {
        let (near, far) = tokio::io::duplex(4096);
        let request = format!("CONNECT {host}:{0} HTTP/1.1\r\nHost: {host}:{0}\r\n{last}\r\n", echo.port);
        let serving = proxy.serve(futures::stream::iter([Ok(far)]).chain_pending());
        tokio::select! {
            answer = ask(near, request) => answer,
            ended = serving => panic!("{ended:?}"),
        }
    };
    let other = connect("other.test", "Connection: close\r\n").await;
    assert!(other.starts_with("HTTP/1.1 403") && other.contains("ostler-egress: denied"), "{other}");
    assert!(other.contains("other.test") && other.contains("no rule names this host"), "{other}");
    // An address is judged without the gateway.
    let literal = connect("127.0.0.1", "Connection: close\r\n").await;
    assert!(literal.starts_with("HTTP/1.1 403") && literal.contains("loopback"), "{literal}");
    let snapshot = proxy.snapshots().borrow().clone();
    let reasons: Vec<_> =
        snapshot.denials.iter().map(|denial| (denial.host.as_str(), denial.reason)).collect();
    assert_eq!(reasons, [("other.test", "ClusterProxy"), ("127.0.0.1", "PrivateAddress")]);
    assert_eq!((snapshot.denied, snapshot.failed, snapshot.allowed), (2, 0, 0));

    let (mut near, far) = tokio::io::duplex(4096);
    let serving = proxy.serve(futures::stream::iter([Ok(far)]).chain_pending());
    let talking = async {
        let request = format!("CONNECT target.test:{0} HTTP/1.1\r\nHost: target.test:{0}\r\n\r\n", echo.port);
        near.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
        }
        near.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        near.read_exact(&mut back).await.unwrap();
        assert_eq!((&head[..12], &back), (b"HTTP/1.1 200".as_slice(), b"ping"));
    };
    tokio::select! {
        () = talking => {}
        ended = serving => panic!("{ended:?}"),
    }
    assert_eq!(proxy.snapshots().borrow().allowed, 1);
}

/// A stream that goes on after its items, as a listener does.
trait Pending: futures::Stream + Sized {
    fn chain_pending(self) -> futures::stream::Chain<Self, futures::stream::Pending<Self::Item>> {
        futures::StreamExt::chain(self, futures::stream::pending())
    }
}

impl<S: futures::Stream> Pending for S {}
