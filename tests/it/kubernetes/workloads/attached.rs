//! Streams to a sidecar. The API server's part of an exec, and the kubelet's, are played by a server in front of it; the
//! sidecar and the agent are real ones, of a place on this machine.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use ostler::{
    kubernetes::callers::EGRESS,
    ports::workloads::{Error, NamedPolicy, SecretKey, Stage, StopReason, sidecar},
    report::End,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::harness::world::{FakeSecrets, Then, World};

type Answer = Response<UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// What is asked of the container `sidecar`; another command would not be ours.
const ATTACH: &str = "command=%2Fostler&command=harness&command=attach";

/// A server before an API server; it ends when it is dropped.
struct Front {
    folder: tempfile::TempDir,
    _serving: AbortOnDropHandle<()>,
}

impl Front {
    /// Every exec in a sidecar leads to this socket.
    async fn start(client: Client, socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "f",
            "clusters": [{"name": "f", "cluster": {"server": url}}],
            "contexts": [{"name": "f", "context": {"cluster": "f"}}]});
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, client, socket)));
        Self { folder, _serving: serving }
    }

    async fn client(&self) -> Client {
        let target = Target { kubeconfig: Some(self.folder.path().join("kubeconfig")), context: None };
        connect(&target).await.unwrap()
    }
}

async fn serve(listener: TcpListener, client: Client, socket: PathBuf) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (client, socket) = (client.clone(), socket.clone());
        let answer = service_fn(move |request| answer(client.clone(), socket.clone(), request));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection.with_upgrades());
    }
}

async fn answer(client: Client, socket: PathBuf, request: Request<Incoming>) -> Result<Answer, &'static str> {
    if request.uri().path().ends_with("/exec") {
        let query = request.uri().query().unwrap_or_default();
        assert!(query.contains("container=sidecar") && query.contains(ATTACH), "{query}");
        return Ok(upgrade(request, socket));
    }
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "half a request")?.to_bytes();
    // the client has a host of its own
    head.headers.remove(header::HOST);
    let answer =
        client.send(Request::from_parts(head, Body::from(body))).await.map_err(|_| "no API server")?;
    // a watch is an answer that goes on
    Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
}

fn upgrade(request: Request<Incoming>, socket: PathBuf) -> Answer {
    let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgraded.await.unwrap());
        attach(WebSocketStream::from_raw_socket(stream, Role::Server, None).await, &socket).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io")
        .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// `ostler harness attach`, as a kubelet carries its input and output: a byte for the channel, then the bytes.
async fn attach<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    path: &Path,
) {
    let (mut to, mut from) = socket.split();
    let framed = |channel: u8, bytes: &[u8]| Message::binary([&[channel], bytes].concat());
    let Ok(stream) = UnixStream::connect(path).await else {
        // whoever asked may be gone
        let _ = to.send(framed(2, b"there is no sidecar")).await;
        let _ = to.send(framed(3, br#"{"status": "Failure"}"#)).await;
        return;
    };
    let (mut reader, mut writer) = stream.into_split();
    let up = async {
        while let Some(Ok(message)) = from.next().await {
            match message {
                Message::Binary(bytes) if bytes.first() == Some(&0) => {
                    writer.write_all(&bytes[1..]).await.unwrap();
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let down = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = reader.read(&mut bytes).await {
            if to.send(framed(1, &bytes[..count])).await.is_err() {
                return;
            }
        }
        let _ = to.send(framed(3, br#"{"status": "Success"}"#)).await;
    };
    tokio::select! { () = up => {}, () = down => {} }
}

#[tokio::test]
async fn a_sidecar_is_heard_given_its_secrets_and_stopped() {
    let ground = Ground::new("attached").await;
    let world = World::new();
    world.secrets.put("model", "k", "hunter2");
    let mut spec = ground.spec();
    let script = r#"test "$KEY" = hunter2 && echo given; trap 'exit 9' TERM; while :; do sleep 0.05; done"#;
    spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let key = SecretKey { secret: "model".parse().unwrap(), key: "k".to_owned() };
    spec.secret_env = vec![("KEY".to_owned(), key)];

    // the place on this machine has a sidecar, which nobody of this machine can give anything to
    let front =
        Front::start(ground.client.clone(), world.place(&spec.run.uid).join("control/sidecar.sock")).await;
    let ours = Arc::new(FakeSecrets::default());
    ours.put("model", "k", "hunter2");
    let adapter =
        KubeWorkloads::start(front.client().await, settings(&ground.namespace), ours).await.unwrap();
    let place = adapter.ensure(&spec).await.unwrap();
    ground.says(&place.name, running()).await;
    let sees = async |what: &str, is: &dyn Fn(&Place) -> bool| {
        eventually(what, async || adapter.observe(&spec.run.uid).await.unwrap().filter(|place| is(place)))
            .await
    };
    sees("the sidecar's container", &|place| place.begun).await;
    let error = adapter.stop(&spec.run.uid, StopReason::StopRequested).await.unwrap_err();
    let Error::Unavailable { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("there is no sidecar"), "{source}");

    world.secrets.last(1, Then::OutOfReach);
    world.workloads.ensure(&spec).await.unwrap();
    let seen = sees("the agent's output", &|place| place.startup.first_output_ms.is_some()).await;
    assert_eq!((seen.stage, seen.trouble.as_ref()), (Stage::Running, None));
    assert!(seen.egress_proven.is_some() && seen.started_at.is_some());

    let mut logs = adapter.open(&spec.run.uid).await.unwrap();
    let request = sidecar::Request::Logs(sidecar::LogsRequest { since: 0, follow: false });
    let mut line = serde_json::to_vec(&request).unwrap();
    line.push(b'\n');
    logs.write_all(&line).await.unwrap();
    let mut output = String::new();
    logs.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "given\n");

    let policy =
        json!([{"name": "new", "spec": {"rules": [{"name": "a", "hosts": ["a.test"], "ports": [443]}]}}]);
    let policies: Vec<_> = serde_json::from_value(policy).unwrap();
    adapter.update_egress(&spec.run.uid, &policies).await.unwrap();
    let pod = ground.pods().get(&place.name).await.unwrap();
    let told: Vec<NamedPolicy> = serde_json::from_str(&pod.annotations()[EGRESS]).unwrap();
    assert_eq!(told, policies, "the cluster's proxy reads them there");
    sees("the new policies", &|place| place.policies == policies).await;
    adapter.stop(&spec.run.uid, StopReason::StopRequested).await.unwrap();
    let delivery = world.delivered(1).await.remove(0);
    assert_eq!(delivery.report.end, End::Stopped { by: StopReason::StopRequested, code: 9 });

    // its last notice may not have come through before it ended: the kubelet tells
    let mut ended = running();
    ended["phase"] = "Failed".into();
    ended["initContainerStatuses"][1]["state"] =
        json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    ended["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 9, "reason": "Error"}});
    ground.says(&place.name, ended).await;
    let released = sees("the acknowledged result", &|place| place.stage == Stage::Released).await;
    assert_eq!(released.trouble, None);
}
