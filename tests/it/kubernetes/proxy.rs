//! A server in front of an API server, which answers some requests wrongly or late, or is away for a while.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is done, and the answer is 500.
    ErrorAfter,
    /// It is not done; the answer is 429 with the seconds to wait.
    TooMany(u32),
    /// The connection is closed before it is done.
    CloseBefore,
    /// The connection is closed when it is done.
    CloseAfter,
}

/// The proxy; it ends when it is dropped.
pub(super) struct Proxy {
    folder: tempfile::TempDir,
    plan: Arc<Mutex<Plan>>,
    away: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Plan {
    wrong: VecDeque<Wrong>,
    requests: usize,
    /// Bytes of the answers' bodies.
    bytes: usize,
    /// How much later each answer begins.
    late: Duration,
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

impl Proxy {
    /// Starts it before the API server of a client.
    pub(super) async fn start(client: Client) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "p",
            "clusters": [{"name": "p", "cluster": {"server": url}}],
            "contexts": [{"name": "p", "context": {"cluster": "p"}}]});
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let plan: Arc<Mutex<Plan>> = Arc::default();
        let away = watch::Sender::new(false);
        let task = tokio::spawn(serve(listener, client, Arc::clone(&plan), away.subscribe()));
        Self { folder, plan, away, task }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// What happens to the next requests.
    pub(super) fn next(&self, wrong: impl IntoIterator<Item = Wrong>) {
        self.plan.lock().unwrap().wrong.extend(wrong);
    }

    /// From now on every answer begins so much later.
    pub(super) fn be_late(&self, late: Duration) {
        self.plan.lock().unwrap().late = late;
    }

    /// Breaks every connection, and takes none until [`Proxy::come_back`].
    pub(super) fn go_away(&self) {
        self.away.send_replace(true);
    }

    pub(super) fn come_back(&self) {
        self.away.send_replace(false);
    }

    /// How many requests came since this was last asked.
    pub(super) fn take_requests(&self) -> usize {
        std::mem::take(&mut self.plan.lock().unwrap().requests)
    }

    /// How many bytes of answers went through since this was last asked.
    pub(super) fn take_bytes(&self) -> usize {
        std::mem::take(&mut self.plan.lock().unwrap().bytes)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    client: Client,
    plan: Arc<Mutex<Plan>>,
    mut away: watch::Receiver<bool>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        if *away.borrow_and_update() {
            continue;
        }
        let (client, plan, mut away) = (client.clone(), Arc::clone(&plan), away.clone());
        let answer = service_fn(move |request| answer(client.clone(), Arc::clone(&plan), request));
        tokio::spawn(async move {
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // an error is a connection that was closed on purpose
            tokio::select! { _ = served => {}, _ = away.wait_for(|away| *away) => {} }
        });
    }
}

async fn answer(
    client: Client,
    plan: Arc<Mutex<Plan>>,
    request: Request<Incoming>,
) -> Result<Answer, &'static str> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "half a request")?.to_bytes();
    // the client has a host of its own
    head.headers.remove(http::header::HOST);
    let (wrong, late) = {
        let mut plan = plan.lock().unwrap();
        plan.requests += 1;
        (plan.wrong.pop_front(), plan.late)
    };
    tokio::time::sleep(late).await;
    match wrong {
        Some(Wrong::TooMany(seconds)) => {
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS);
            answer.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
            return Ok(answer);
        }
        Some(Wrong::CloseBefore) => return Err("closed before"),
        _ => {}
    }
    let answer =
        client.send(Request::from_parts(head, Body::from(body))).await.map_err(|_| "no API server")?;
    let (head, body) = answer.into_parts();
    if wrong.is_none() {
        // as it comes: a watch is an answer that does not end
        let counted = body.map_frame(move |frame| {
            plan.lock().unwrap().bytes += frame.data_ref().map_or(0, Bytes::len);
            frame
        });
        return Ok(Response::from_parts(head, counted.boxed_unsync()));
    }
    body.collect().await.map_err(|_| "half an answer")?;
    match wrong {
        Some(Wrong::ErrorAfter) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
        _ => Err("closed after"),
    }
}

fn refusal(code: StatusCode) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected", "code": code.as_u16()});
    let answer = Response::builder().status(code).header("content-type", "application/json");
    let body = Full::new(Bytes::from(status.to_string()));
    answer.body(body.map_err(|never| match never {}).boxed_unsync()).unwrap()
}
