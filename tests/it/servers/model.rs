//! A scripted model that speaks Chat Completions, streaming.
//!
//! It keeps no conversation: the step that is played is the number of tool results after the user's last
//! words, so retries and resumed sessions need nothing from it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Tokens reported for each answer.
pub(crate) const INPUT_TOKENS: i64 = 1000;
pub(crate) const OUTPUT_TOKENS: i64 = 50;

/// One answer of the model.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Words; the agent's turn ends with them.
    Say(&'static str),
    /// A call of one of the agent's tools.
    Call { tool: &'static str, arguments: Value },
}

/// What happens instead of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// An error with this HTTP status.
    Status(u16),
    /// The stream breaks off in its middle.
    Cut,
    /// The answer comes this much later.
    Delay(Duration),
}

/// When a fault happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// To the first so many requests.
    First(usize),
    /// From this step of the script on.
    FromStep(usize),
}

/// What the model does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) fault: Option<(Fault, When)>,
}

impl Script {
    /// Writes a file with pi's `write` tool and says so.
    pub(crate) fn writes(path: &str, content: &str) -> Self {
        let arguments = json!({"path": path, "content": content});
        let steps = vec![Step::Call { tool: "write", arguments }, Step::Say("The file is written.")];
        Self { steps, fault: None }
    }

    pub(crate) fn with(self, fault: Fault, when: When) -> Self {
        Self { fault: Some((fault, when)), ..self }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) model: String,
    pub(crate) step: usize,
}

/// The server; it ends when this is dropped.
pub(crate) struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    script: Script,
    asked: Mutex<Vec<Asked>>,
}

impl ModelServer {
    pub(crate) async fn start(script: Script) -> Self {
        let shared = Arc::new(Shared { script, asked: Mutex::default() });
        let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let step = step_of(&request);
    let number = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push(Asked {
            path: uri.path().to_owned(),
            authorization: headers.get("authorization").map_or("", |h| h.to_str().unwrap()).to_owned(),
            model: request["model"].as_str().unwrap_or_default().to_owned(),
            step,
        });
        asked.len()
    };
    let fault = shared.script.fault.filter(|(_, when)| match when {
        When::First(count) => number <= *count,
        When::FromStep(from) => step >= *from,
    });
    let fault = fault.map(|(fault, _)| fault);
    match fault {
        Some(Fault::Status(status)) => return error(status),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Cut) | None => {}
    }
    let steps = &shared.script.steps;
    let Some(played) = steps.get(step.min(steps.len().saturating_sub(1))) else { return error(500) };
    let events = events(played, number, &request["model"]);
    let whole = events.len();
    let sent = if matches!(fault, Some(Fault::Cut)) { whole / 2 } else { whole };
    let good = stream::iter(events.into_iter().take(sent).map(Ok::<Bytes, io::Error>));
    let broken = stream::iter((sent < whole).then(|| Err(io::Error::other("cut as scripted"))));
    ([("content-type", "text/event-stream")], Body::from_stream(good.chain(broken))).into_response()
}

fn step_of(request: &Value) -> usize {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().rev().take_while(|m| m["role"] != "user").filter(|m| m["role"] == "tool").count()
}

fn error(status: u16) -> Response {
    let body = json!({"error": {"message": format!("scripted fault {status}"), "type": "scripted"}});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

/// The chunks of one answer: role, content, end, usage, and the end mark.
fn events(step: &Step, number: usize, model: &Value) -> Vec<Bytes> {
    let (delta, reason) = match step {
        Step::Say(words) => (json!({"content": words}), "stop"),
        Step::Call { tool, arguments } => {
            let function = json!({"name": tool, "arguments": arguments.to_string()});
            let call =
                json!({"index": 0, "id": format!("call_{number}"), "type": "function", "function": function});
            (json!({"tool_calls": [call]}), "tool_calls")
        }
    };
    let usage = json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS});
    let chunk = |choices: Value, usage: Option<&Value>| {
        let chunk = json!({"id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk", "created": 0,
            "model": model, "choices": choices, "usage": usage});
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let choice =
        |delta: Value, reason: Option<&str>| json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
    vec![
        chunk(choice(json!({"role": "assistant", "content": ""}), None), None),
        chunk(choice(delta, None), None),
        chunk(choice(json!({}), Some(reason)), None),
        chunk(json!([]), Some(&usage)),
        Bytes::from_static(b"data: [DONE]\n\n"),
    ]
}
