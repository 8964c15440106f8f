//! Errors as problem details (RFC 9457), each with a stable code.

use std::any::Any;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// A URN that ends in the code.
    #[serde(rename = "type")]
    type_: String,
    /// The HTTP status.
    status: u16,
    /// The stable code.
    code: &'static str,
    /// For people.
    title: &'static str,
    /// What is wrong with this request, and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let type_ = format!("urn:ostler:problem:{code}");
        Self { type_, status: status.as_u16(), code, title, detail: detail.into() }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// No token, or one that is not valid here.
    pub(super) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "a valid bearer token is needed", "")
    }

    /// It does not exist, or may not be seen: nobody learns which.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is no such thing, or it may not be seen", "")
    }

    /// The request cannot be understood.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "the request cannot be understood", detail)
    }

    /// `continue` does not stand for a page of this list.
    pub(super) fn no_such_page() -> Self {
        Self::invalid("continue: it is not of this list; begin anew without it")
    }

    /// `continue` is too old.
    pub(super) fn expired() -> Self {
        let detail = "continue: the list has changed too much since; begin anew without it";
        Self::new(StatusCode::GONE, "expired", "there is no such page any more", detail)
    }

    /// As many lists are read as may be at once.
    pub(super) fn too_many_lists() -> Self {
        let detail = "as many lists are read as may be at once; try again after Retry-After";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-lists", "too many lists at once", detail)
    }

    /// The delivery is not what it should be.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "malformed-delivery",
            "the delivery cannot be taken",
            detail,
        )
    }

    /// More than a cap.
    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the delivery is larger than allowed", detail)
    }

    /// The run is another one.
    pub(super) fn other_run() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "other-run",
            "the run does not exist any more, or is another one of that name",
            "",
        )
    }

    /// Something behind us is away.
    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again", "")
    }

    /// We are wrong.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "ostler is at fault; its log says more", "")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer realm=\"ostler\""),
            );
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// A path that is no route of ours. It says nothing that a forbidden one would not say.
pub(super) async fn no_route() -> Problem {
    Problem::not_found()
}

/// A handler broke; the others go on.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request handler panicked");
    Problem::internal().into_response()
}
