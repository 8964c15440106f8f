//! A server in front of an API server, which answers some requests wrongly.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

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
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Plan {
    wrong: VecDeque<Wrong>,
    requests: usize,
}

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
        let task = tokio::spawn(serve(listener, client, Arc::clone(&plan)));
        Self { folder, plan, task }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// What happens to the next requests.
    pub(super) fn next(&self, wrong: impl IntoIterator<Item = Wrong>) {
        self.plan.lock().unwrap().wrong.extend(wrong);
    }

    /// How many requests came since this was last asked.
    pub(super) fn take_requests(&self) -> usize {
        std::mem::take(&mut self.plan.lock().unwrap().requests)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, client: Client, plan: Arc<Mutex<Plan>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (client, plan) = (client.clone(), Arc::clone(&plan));
        let answer = service_fn(move |request| answer(client.clone(), Arc::clone(&plan), request));
        // an error is a connection that was closed on purpose
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
        );
    }
}

async fn answer(
    client: Client,
    plan: Arc<Mutex<Plan>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "half a request")?.to_bytes();
    // the client has a host of its own
    head.headers.remove(http::header::HOST);
    let wrong = {
        let mut plan = plan.lock().unwrap();
        plan.requests += 1;
        plan.wrong.pop_front()
    };
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
    let body = body.collect().await.map_err(|_| "half an answer")?.to_bytes();
    match wrong {
        Some(Wrong::ErrorAfter) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Wrong::CloseAfter) => Err("closed after"),
        _ => Ok(Response::from_parts(head, Full::new(body))),
    }
}

fn refusal(code: StatusCode) -> Response<Full<Bytes>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected", "code": code.as_u16()});
    let answer = Response::builder().status(code).header("content-type", "application/json");
    answer.body(Full::new(status.to_string().into())).unwrap()
}
