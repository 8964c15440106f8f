//! Liveness, readiness as a list of gates, and metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, State, guard};
use crate::{
    ports::access::{self, Audience},
    telemetry::{Metrics, metrics::CONTENT_TYPE},
};

/// Something that must hold before we are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// True: it holds.
    pub open: bool,
}

/// Readiness.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// True: every gate is open.
    ready: bool,
    /// The gates.
    gates: Vec<Gate>,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "The process lives")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can do its work. The answer names gates only; why one is closed is in the log and in statuses.
#[utoipa::path(
    get,
    path = "/readyz",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness, description = "Some gate is closed"))
)]
pub(super) async fn readyz(Shared(state): Shared<State>) -> Response {
    readiness((state.gates)())
}

fn readiness(gates: Vec<Gate>) -> Response {
    let ready = gates.iter().all(|gate| gate.open);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, gates })).into_response()
}

/// Counters as `OpenMetrics` text.
#[utoipa::path(
    get,
    path = "/metrics",
    security(("token" = [])),
    responses((status = 200, content_type = "application/openmetrics-text"), (status = 401, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn metrics(Shared(state): Shared<State>, headers: HeaderMap) -> Result<Response, Problem> {
    let who = guard::authenticate(state.access.as_ref(), &headers, Audience::Ostler).await?;
    let request = access::Request { verb: "get", resource: "metrics", namespace: None, name: None };
    guard::authorize(state.access.as_ref(), (&state.audit, (state.clock)()), &who, &request).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.encode()).into_response())
}

/// What must hold before we are ready.
pub type Gates = Arc<dyn Fn() -> Vec<Gate> + Send + Sync>;

/// Health and metrics for the cluster's own probes and scrapers: without authentication, so on an address of its own that
/// only they reach.
pub fn health(gates: Gates, metrics: Arc<Metrics>) -> Router {
    let ready = move || std::future::ready(readiness(gates()));
    let scraped = move || {
        std::future::ready(([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()).into_response())
    };
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(ready)).route("/metrics", get(scraped))
}

/// Counts answers by route and status.
pub(super) async fn count(metrics: Arc<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    metrics.answered(route.as_deref(), response.status().as_u16());
    response
}
