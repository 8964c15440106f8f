//! Callers that are slow, long-winded or many.

use std::{sync::Arc, time::Duration};

use ostler::proxy::{
    gateway::Limits,
    tunnel::{LINE_BYTES, Target},
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::stage::{Stage, eventually};
use crate::egress::origin::Echo;

impl Stage {
    /// A connection on which nothing was said yet.
    async fn handshake(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.certificates.authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from(name).unwrap(), tcp).await
    }

    fn metric(&self, line: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.gateway.counts().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().any(|found| found == line)
    }
}

/// Reads until the other side ends it, in whatever way.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(Duration::from_mins(2), stream.read_to_end(&mut said)).await;
    let _ = ended.expect("the gateway ends it");
    said
}

#[tokio::test]
async fn who_is_slow_is_cut_off() {
    let limits = Limits { preamble_time: Duration::from_millis(300), ..Limits::default() };
    let stage = Stage::with(limits, String::new()).await;
    // not even a handshake
    let mut silent = TcpStream::connect(stage.address).await.unwrap();
    assert!(closed(&mut silent).await.is_empty());
    // no line, or one that does not end
    let mut mute = stage.handshake("proxy.test").await.unwrap();
    assert!(closed(&mut mute).await.is_empty());
    let mut slow = stage.handshake("proxy.test").await.unwrap();
    let _ = slow.write_all(b"{\"token\":\"").await;
    assert!(closed(&mut slow).await.is_empty());
    eventually("all are counted", async || stage.metric("ostler_proxy_malformed_total 3").then_some(()))
        .await;
}

#[tokio::test]
async fn who_says_too_much_or_nonsense_is_cut_off() {
    let stage = Stage::start().await;
    let mut long = stage.handshake("proxy.test").await.unwrap();
    // more than it reads: writing may fail
    let _ = long.write_all(&vec![b' '; 2 * LINE_BYTES]).await;
    assert!(closed(&mut long).await.is_empty());
    for line in ["GET / HTTP/1.1\r\n", "{\"token\":\"t\",\"target\":\"Proof\"}\n", "\n"] {
        let mut stream = stage.handshake("proxy.test").await.unwrap();
        let _ = stream.write_all(line.as_bytes()).await;
        assert!(closed(&mut stream).await.is_empty(), "{line}");
    }
    eventually("all are counted", async || stage.metric("ostler_proxy_malformed_total 4").then_some(()))
        .await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let echo = Echo::start().await;
    let stage = Stage::with(Limits { connections_each: 2, ..Limits::default() }, String::new()).await;
    let open = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let agent = stage.agent(stage.spec(&[open])).await;
    let target = Target::Connect { host: "target.test".to_owned(), port: echo.port };
    let first = agent.client().open(&target).await.unwrap();
    let second = agent.client().open(&target).await.unwrap();
    let third = agent.client().open(&target).await;
    assert!(third.is_err_and(|error| error.to_string().contains("cannot be used")));
    assert!(stage.metric("ostler_proxy_tunnels_open 2"));
    drop(first);
    eventually("a place is free", async || agent.client().open(&target).await.ok()).await;
    drop(second);
}

#[tokio::test]
async fn all_together_have_so_many_connections_and_no_more() {
    let stage = Stage::with(Limits { connections: 1, ..Limits::default() }, String::new()).await;
    let held = stage.handshake("proxy.test").await.unwrap();
    assert!(stage.handshake("proxy.test").await.is_err());
    assert!(stage.metric("ostler_proxy_overloaded_total 1"));
    drop(held);
    eventually("a place is free", async || stage.handshake("proxy.test").await.ok()).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_for_too_long_ends() {
    let mut limits = Limits::default();
    limits.dial.idle_time = Duration::from_millis(300);
    let echo = Echo::start().await;
    let stage = Stage::with(limits, format!("127.0.0.1:{}", echo.port)).await;
    let agent = stage.agent(stage.spec(&[])).await;
    let mut stream = agent.client().open(&Target::Recorder).await.unwrap();
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn a_new_certificate_counts_and_a_broken_one_does_not() {
    let stage = Stage::start().await;
    let (certificate, look) = (stage.certificate.clone(), Duration::from_millis(50));
    let following = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        certificate.follow(look).await;
    }));
    assert!(stage.handshake("renewed.test").await.is_err());
    stage.certificates.renew("renewed.test");
    eventually("the new one is used", async || stage.handshake("renewed.test").await.ok()).await;
    let [file, _] = stage.certificates.files();
    std::fs::write(file, "nothing").unwrap();
    // whenever it is looked at, the last good one stays
    for _ in 0..20 {
        assert!(stage.handshake("renewed.test").await.is_ok());
    }
    stage.certificates.renew("again.test");
    eventually("the next one is used", async || stage.handshake("again.test").await.ok()).await;
    drop(following);
}
