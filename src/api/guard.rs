//! Who is asking, and may they? Asked before anything is looked up.

use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use secrecy::SecretString;

use super::Problem;
use crate::{
    ports::access::{Access, Audience, Error, Identity, Request},
    telemetry::{Audit, AuditLog, Decision, Verb, Who},
};

/// Finds out who holds the request's token.
pub(super) async fn authenticate(
    access: &dyn Access,
    headers: &HeaderMap,
    audience: Audience,
) -> Result<Identity, Problem> {
    let token = bearer(headers).ok_or_else(Problem::unauthenticated)?;
    access.authenticate(&token, audience).await.map_err(|error| match error {
        Error::Unauthenticated => Problem::unauthenticated(),
        Error::Unavailable(_) => Problem::unavailable(),
    })
}

/// Decides. A refusal leaves an audit line.
pub(super) async fn authorize(
    access: &dyn Access,
    audit: (&AuditLog, Timestamp),
    who: &Identity,
    request: &Request<'_>,
) -> Result<(), Problem> {
    match access.authorize(who, request).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            record(audit, who, verb(request), &object(request), Decision::Denied, "not allowed");
            Err(Problem::not_found())
        }
        Err(Error::Unauthenticated) => Err(Problem::unauthenticated()),
        Err(Error::Unavailable(_)) => Err(Problem::unavailable()),
    }
}

/// Leaves an audit line.
pub(super) fn record(
    (log, at): (&AuditLog, Timestamp),
    who: &Identity,
    verb: Verb,
    object: &str,
    decision: Decision,
    reason: &str,
) {
    let who = Who::Person(who.to_string());
    let line = Audit { at, who, verb, object: object.to_owned(), decision, reason: reason.to_owned() };
    if let Err(error) = log.record(&line) {
        tracing::error!(error = &error as &dyn std::error::Error, "a line of the audit trail is lost");
    }
}

fn verb(request: &Request<'_>) -> Verb {
    if request.verb == "update" { Verb::Intake } else { Verb::Read }
}

fn object(request: &Request<'_>) -> String {
    let namespace = request.namespace.map_or("*", |namespace| namespace.as_str());
    let name = request.name.map_or("*", |name| name.as_str());
    format!("{} {namespace}/{name}", request.resource)
}

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}
