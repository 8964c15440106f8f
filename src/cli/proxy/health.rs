//! What a cluster asks of the proxy itself.

use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::callers::KubeCallers;

/// Alive while it answers; ready once the pods are known, and until a signal.
pub(super) fn router(registry: Registry, callers: Arc<KubeCallers>, stop: CancellationToken) -> Router {
    let registry = Arc::new(registry);
    let ready = move || {
        let (listed, ending) = (callers.is_ready(), stop.is_cancelled());
        async move {
            match (listed, ending) {
                (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "it is ending\n"),
                (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the pods of runs are not known yet\n"),
                (true, false) => (StatusCode::OK, "ok\n"),
            }
        }
    };
    let metrics = move || {
        let mut text = String::new();
        let encoded = encode(&mut text, &registry);
        async move {
            match encoded {
                Ok(()) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    ([(header::CONTENT_TYPE, kind)], text).into_response()
                }
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
