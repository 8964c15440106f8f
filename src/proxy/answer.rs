//! What the proxy itself answers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};

use super::dial::Failure;
use crate::egress::Decision;

/// On every answer that the proxy itself gives to a request for a target: `denied` when the rules are
/// against it, `failed` when the target could not be reached, `refused` when the request is not one that a
/// proxy serves. An answer without it comes from the target.
pub const EGRESS_HEADER: &str = "ostler-egress";

/// Where, in origin form, the proof that a request came through this proxy is read.
pub const PROOF_PATH: &str = "/.ostler/proof";

/// The whole answer to a connection for which there is no place.
pub(super) const OVERLOADED: &str = "HTTP/1.1 503 Service Unavailable\r\nostler-egress: failed\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 36\r\nconnection: close\r\n\r\n\
    the egress proxy has no place free.\n";

/// The body of every answer, the proxy's own or a target's.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// A short text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let body = Full::new(Bytes::from(text.into())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// A request that is not one for a proxy, or is ambiguous. What follows it on the connection cannot be
/// trusted to be a request, so the connection ends.
pub(super) fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = marked(status, "refused", format!("{why}\n"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A refusal, and what would open it.
pub(super) fn refusal(decision: &Decision) -> String {
    match decision.suggestion() {
        Some(rule) => {
            format!("{decision}.\nAn EgressPolicy of this run with these lines would allow it:\n{rule}")
        }
        None => format!("{decision}.\nNo rule that could be added would allow it."),
    }
}

/// Why there is no connection to the target.
pub(super) fn failure(failure: &Failure) -> Response<Body> {
    match failure {
        Failure::Denied(decision) => {
            marked(StatusCode::FORBIDDEN, "denied", format!("{}\n", refusal(decision)))
        }
        Failure::Refused(message) => marked(StatusCode::FORBIDDEN, "denied", format!("{message}\n")),
        Failure::Tunnel(error) => {
            let why = std::error::Error::source(error).map(|source| format!(": {source}"));
            marked(StatusCode::BAD_GATEWAY, "failed", format!("{error}{}\n", why.unwrap_or_default()))
        }
        Failure::Unresolved(host, Some(error)) => {
            marked(StatusCode::BAD_GATEWAY, "failed", format!("{host} does not resolve: {error}\n"))
        }
        Failure::Unresolved(host, None) => {
            marked(StatusCode::BAD_GATEWAY, "failed", format!("{host} has no address\n"))
        }
        Failure::Unreachable(host, error) => {
            marked(StatusCode::BAD_GATEWAY, "failed", format!("{host} cannot be reached: {error}\n"))
        }
        Failure::TimedOut(host, port) => {
            marked(StatusCode::GATEWAY_TIMEOUT, "failed", format!("{host}:{port} did not answer in time\n"))
        }
    }
}

/// The target broke off before its answer began.
pub(super) fn broken(error: &hyper::Error) -> Response<Body> {
    marked(
        StatusCode::BAD_GATEWAY,
        "failed",
        format!("the target gave no answer that can be read: {error}\n"),
    )
}

fn marked(status: StatusCode, mark: &'static str, body: String) -> Response<Body> {
    let mut response = text(status, body);
    response.headers_mut().insert(EGRESS_HEADER, HeaderValue::from_static(mark));
    response
}
