//! A proxy on a Unix socket, and a client that speaks to it byte by byte.

use std::{io::ErrorKind, sync::Arc};

use ostler::{
    egress::{OwnService, Ruleset},
    kinds::egress_policy::EgressPolicySpec,
    proxy::{HostsFile, Limits, Proxy, Resolver},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::task::AbortOnDropHandle;

/// Names that tests use: one of this machine, one inside, one at a metadata service, one with two faces.
const HOSTS: &str = "127.0.0.1 target.test other.test\n10.255.0.1 inside.test\n169.254.169.254 metadata.test\n\
    10.255.0.1 rebound.test two.test\n127.0.0.1 two.test\n";

/// The rules of these policies.
pub(super) fn rules(policies: &[Value], own_services: Vec<OwnService>) -> Arc<Ruleset> {
    let specs: Vec<EgressPolicySpec> =
        policies.iter().map(|policy| serde_json::from_value(policy.clone()).unwrap()).collect();
    Arc::new(Ruleset::parse(specs.iter().map(|spec| ("p", spec)), own_services).unwrap())
}

pub(super) fn resolver() -> Resolver {
    Resolver::new(HostsFile::parse(HOSTS).unwrap())
}

/// A running proxy; it ends when this is dropped.
pub(super) struct Place {
    pub(super) rules: watch::Sender<Arc<Ruleset>>,
    pub(super) proxy: Proxy,
    folder: TempDir,
    _task: AbortOnDropHandle<()>,
}

impl Place {
    pub(super) fn start(policies: &[Value]) -> Self {
        Self::limited(rules(policies, vec![]), Limits::default())
    }

    pub(super) fn limited(rules: Arc<Ruleset>, limits: Limits) -> Self {
        let (rules, newest) = watch::channel(rules);
        let proxy = Proxy::new(newest, resolver(), limits, Some("a-nonce".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("proxy")).unwrap();
        let serving = proxy.clone();
        let task =
            tokio::spawn(async move { serving.serve(UnixListenerStream::new(listener)).await.unwrap() });
        Self { rules, proxy, folder, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("proxy")).await.unwrap()
    }

    /// Sends these bytes on a connection of their own and reads all that comes; the request must ask for its
    /// end, or be answered with it.
    pub(super) async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A proxy that refuses a request does not read the rest of it, which the socket calls a reset.
        if let Err(error) = client.read_to_end(&mut answer).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        String::from_utf8(answer).unwrap()
    }

    /// Asks for a tunnel; gives the connection and the head of the answer.
    pub(super) async fn tunnel(&self, target: &str) -> (UnixStream, String) {
        let mut client = self.connect().await;
        let request =
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await;
        (client, head)
    }
}

/// Reads up to the end of a head, and not a byte further.
pub(super) async fn read_head(client: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The status of an answer, as text.
pub(super) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}
