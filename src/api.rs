//! The small API: health, metrics, the state of every kind (read only), and the intake of results.
//!
//! Each route authenticates, then authorises, then looks something up. What does not exist and what may not be seen get
//! the same answer, so that nobody learns names by asking.

mod guard;
mod health;
mod intake;
mod paging;
mod problem;
mod read;
mod spool;
mod tls;

pub use health::{Gate, Gates, health};
pub use intake::{Deliver, Intake, intake};
pub use problem::Problem;
pub use tls::{TlsError, TlsFiles, TlsListener};

use std::sync::Arc;

use axum::Router;
use jiff::Timestamp;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ports::{Access, objects::Store},
    telemetry::{AuditLog, Metrics},
};

/// What the read side shares.
#[derive(Clone)]
pub struct State {
    /// The store.
    pub store: Store,
    /// Who may.
    pub access: Arc<dyn Access>,
    /// What must hold before we are ready.
    pub gates: Gates,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The trail of refusals.
    pub audit: Arc<AuditLog>,
    /// The time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "ostler", description = "State of coding agents that a Git repository controls.", license(name = "Apache-2.0")),
    modifiers(&Bearer)
)]
struct Api;

/// Every route but health wants a bearer token.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_with(Default::default).add_security_scheme("token", scheme);
    }
}

fn readers() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(read::list_all))
        .routes(routes!(read::list))
        .routes(routes!(read::one))
}

/// The routes of the API: health, metrics and reading. The intake is another router: [`intake()`].
pub fn router(state: State) -> Router {
    let metrics = state.metrics.clone();
    let (router, _) = readers().split_for_parts();
    router
        .fallback(problem::no_route)
        .layer(axum::Extension(paging::Places::default()))
        .layer(axum::middleware::from_fn(move |request, next| health::count(metrics.clone(), request, next)))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(state)
}

/// The OpenAPI 3.1 description of both routers, as JSON.
///
/// # Panics
/// Never: the description is JSON.
#[must_use]
pub fn openapi() -> String {
    let (_, mut api) = readers().split_for_parts();
    api.merge(intake::description());
    api.to_pretty_json().expect("a description is JSON") + "\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_route_is_described() {
        let api: serde_json::Value = serde_json::from_str(&super::openapi()).unwrap();
        assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths: Vec<&str> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        for path in [
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/{kind}",
            "/api/v1/{kind}/{namespace}",
            "/api/v1/{kind}/{namespace}/{name}",
            "/api/v1/runs/{namespace}/{name}/result",
        ] {
            assert!(paths.contains(&path), "{path} is missing in {paths:?}");
        }
    }
}
