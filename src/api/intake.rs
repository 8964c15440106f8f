//! Sidecars hand in results: streamed to disk, checked, and acknowledged once they are recorded for good.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{TryStreamExt, future::BoxFuture};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Problem, guard, problem, spool};
use crate::{
    ledger::digest,
    names::{Namespace, ObjectName},
    ports::{
        Access,
        access::{Audience, Identity, Request},
    },
    report::{Delivery, Receipt},
    telemetry::{AuditLog, Decision, Metrics, Verb},
};

/// How long a sidecar is kept waiting before it is told to ask again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a whole delivery may take to arrive.
const UPLOAD: Duration = Duration::from_mins(10);
/// Deliveries that arrive at once; more wait their turn.
const UPLOADS: usize = 16;

/// Hands a delivery to the recorder, and says what became of it.
pub type Deliver = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Receipt> + Send + Sync>;

/// What the intake shares.
#[derive(Clone)]
pub struct Intake {
    access: Arc<dyn Access>,
    deliver: Deliver,
    spool: PathBuf,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    uploads: Arc<Semaphore>,
}

impl Intake {
    /// Prepares the folder that deliveries lie in until they are recorded, and removes what a killed process left
    /// half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn new(
        access: Arc<dyn Access>,
        deliver: Deliver,
        spool: PathBuf,
        audit: Arc<AuditLog>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&spool)?;
        spool::sweep(&spool)?;
        let uploads = Arc::new(Semaphore::new(UPLOADS));
        Ok(Self { access, deliver, spool, audit, metrics, clock, uploads })
    }
}

fn routes() -> OpenApiRouter<Intake> {
    OpenApiRouter::new().routes(routes!(result))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    routes().split_for_parts().1
}

/// The routes of the recorder: for sidecars, on a socket or address of its own.
pub fn intake(state: Intake) -> Router {
    let metrics = state.metrics.clone();
    let (router, _) = routes().split_for_parts();
    router
        .fallback(problem::no_route)
        .layer(axum::middleware::from_fn(move |request, next| {
            super::health::count(metrics.clone(), request, next)
        }))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(state)
}

/// Takes in the result of a run: a tar stream of `report.json` and the bulk files.
///
/// A header `Content-Digest: sha-256=:…:` (RFC 9530), or `Ostler-Digest` with the same in hexadecimal, is checked.
#[utoipa::path(
    put,
    path = "/api/v1/runs/{namespace}/{name}/result",
    params(("namespace" = String, Path, description = "the namespace"), ("name" = String, Path, description = "the run")),
    request_body(content = String, content_type = "application/x-tar"),
    security(("token" = [])),
    responses(
        (status = 200, description = "It is recorded; the sidecar may let go"),
        (status = 202, description = "Not yet recorded; ask again with the same"),
        (status = 401, body = Problem),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The run does not exist any more, or is another one of that name"),
        (status = 413, body = Problem),
        (status = 422, body = Problem),
        (status = 503, body = Problem, description = "Nobody can say now who asks; ask again with the same")
    )
)]
async fn result(
    Shared(state): Shared<Intake>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let who = guard::authenticate(state.access.as_ref(), &headers, Audience::Result).await?;
    let namespace: Namespace = namespace.parse().map_err(|_| Problem::not_found())?;
    let name: ObjectName = name.parse().map_err(|_| Problem::not_found())?;
    let request = Request {
        verb: "update",
        resource: "harnessruns/result",
        namespace: Some(&namespace),
        name: Some(&name),
    };
    guard::authorize(state.access.as_ref(), (&state.audit, (state.clock)()), &who, &request).await?;
    let expected = expected(&headers)?;
    let delivery = upload(&state, body, expected).await?;
    if !speaks_for(&who, &namespace, &name, &delivery) {
        remove(&delivery);
        return Err(Problem::other_run());
    }
    let object = format!("HarnessRun {namespace}/{name}");
    let folder = delivery.clone();
    let answer = (state.deliver)(delivery);
    let receipt = tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Receipt::Waiting);
    let (decision, reason) = match receipt {
        Receipt::Recorded => (Decision::Allowed, "recorded"),
        Receipt::Waiting => (Decision::Allowed, "waiting for the ledger"),
        Receipt::OtherRun => (Decision::Denied, "another run"),
    };
    guard::record((&state.audit, (state.clock)()), &who, Verb::Intake, &object, decision, reason);
    match receipt {
        Receipt::Recorded => Ok(StatusCode::OK.into_response()),
        Receipt::Waiting => Ok(StatusCode::ACCEPTED.into_response()),
        Receipt::OtherRun => {
            remove(&folder);
            Err(Problem::other_run())
        }
    }
}

/// The report must be of the run that the path names, and a sidecar speaks for its own run only.
fn speaks_for(who: &Identity, namespace: &Namespace, name: &ObjectName, delivery: &Delivery) -> bool {
    let run = &delivery.report.run;
    let own = match who {
        Identity::Run { namespace, name, uid } => {
            *namespace == run.namespace && *name == run.name && *uid == run.uid
        }
        Identity::User(_) => true,
    };
    own && run.namespace == *namespace && run.name == *name
}

async fn upload(state: &Intake, body: Body, expected: Option<String>) -> Result<Delivery, Problem> {
    let Ok(_turn) = state.uploads.acquire().await else { return Err(Problem::unavailable()) };
    let stream = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let reader = SyncIoBridge::new(Box::pin(stream));
    let spool = state.spool.clone();
    let taken = tokio::task::spawn_blocking(move || spool::take_in(&spool, reader, expected.as_deref()));
    // When time is up the stream is dropped with its request, and the thread's next read fails.
    match tokio::time::timeout(UPLOAD, taken).await {
        Ok(Ok(taken)) => taken,
        Ok(Err(_)) => Err(Problem::internal()),
        Err(_) => Err(Problem::unavailable()),
    }
}

fn expected(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let bad = || Problem::malformed("Content-Digest is not sha-256=:base64:");
    if let Some(value) = headers.get("content-digest") {
        let text = value.to_str().map_err(|_| bad())?;
        let encoded =
            text.strip_prefix("sha-256=:").and_then(|rest| rest.strip_suffix(':')).ok_or_else(bad)?;
        return STANDARD.decode(encoded).map(|bytes| Some(digest::hex(&bytes))).map_err(|_| bad());
    }
    let ours = headers.get("ostler-digest").map(|value| value.to_str().map(str::to_owned));
    ours.transpose().map_err(|_| Problem::malformed("Ostler-Digest is not hexadecimal"))
}

fn remove(delivery: &Delivery) {
    if let Err(error) = std::fs::remove_dir_all(&delivery.folder) {
        tracing::debug!(error = &error as &dyn std::error::Error, "a refused delivery cannot be removed");
    }
}
