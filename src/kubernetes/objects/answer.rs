//! What an answer of the API server means to the port.

use kube::core::{Status, response::StatusDetails};

use crate::{
    kinds::{Kind, ObjectId},
    ports::objects::Error,
};

/// The API server does not know the kind.
#[derive(Debug, thiserror::Error)]
#[error("the API server does not serve {0}: see `ostler crds`")]
struct NotServed(Kind);

/// It did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} s", super::PATIENCE.as_secs())]
struct Silent;

/// Why a write to, or a read of, one object did not succeed.
pub(super) fn of_object(id: &ObjectId, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => refusal(id, status),
        other => Error::Unavailable(Box::new(other)),
    }
}

/// Why a list did not succeed.
pub(super) fn of_list(kind: Kind, error: kube::Error) -> Error {
    match error {
        // nothing else of a list can be wrong: its selector has been read
        kube::Error::Api(status) if status.code == 400 => Error::NoSuchPage,
        kube::Error::Api(status) if status.code == 410 => Error::Expired,
        kube::Error::Api(status) if status.code == 403 => Error::Forbidden(status.message),
        kube::Error::Api(status) if status.code == 404 => Error::Unavailable(Box::new(NotServed(kind))),
        other => Error::Unavailable(Box::new(other)),
    }
}

/// No answer at all.
pub(super) fn silence() -> Error {
    Error::Unavailable(Box::new(Silent))
}

fn refusal(id: &ObjectId, status: Box<Status>) -> Error {
    let is_about = |of: &StatusDetails| of.name == id.name.as_str() && of.kind != "namespaces";
    match status.code {
        404 if status.details.as_ref().is_some_and(is_about) => Error::NotFound(id.clone()),
        404 if status.details.as_ref().is_some_and(|of| of.kind == "namespaces") => {
            let cause = format!("metadata.namespace: there is no namespace {}", id.namespace);
            Error::Invalid { id: id.clone(), causes: vec![cause] }
        }
        // the path itself is unknown
        404 => Error::Unavailable(Box::new(NotServed(id.kind))),
        409 if status.is_already_exists() => Error::AlreadyExists(id.clone()),
        409 => Error::Conflict { id: id.clone(), message: status.message },
        403 => Error::Forbidden(status.message),
        // a patch with another UID is a try to change it
        422 if fields(&status).any(|field| field == "metadata.uid") => {
            Error::Conflict { id: id.clone(), message: status.message }
        }
        400 | 413 | 422 => Error::Invalid { id: id.clone(), causes: causes(&status) },
        500 if never_succeeds(&status.message) => Error::Invalid { id: id.clone(), causes: causes(&status) },
        // 401 too: a token that has just run out is renewed
        _ => Error::Unavailable(Box::new(kube::Error::Api(status))),
    }
}

/// Answers of code 500 that blame the object: it does not have the form of its schema (only an apply is told so), or is
/// larger than etcd takes.
fn never_succeeds(message: &str) -> bool {
    [
        "failed to create typed patch object",
        "etcdserver: request is too large",
        "trying to send message larger",
    ]
    .iter()
    .any(|text| message.contains(text))
}

fn fields(status: &Status) -> impl Iterator<Item = &str> {
    status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.field.as_str())
}

/// One `field: text` each; the whole message when it is not divided into causes.
fn causes(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    // some rules that were not even tried
    let causes = causes.filter(|cause| cause.field != "<nil>");
    let causes: Vec<String> = causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if causes.is_empty() { vec![format!("object: {}", status.message)] } else { causes }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::class::Class;

    fn answered(status: Value) -> Error {
        let id = ObjectId::new(Kind::Agent, "default".parse().unwrap(), "a".parse().unwrap());
        of_object(&id, kube::Error::Api(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn a_missing_object_is_not_a_missing_kind_or_namespace() {
        let of = |kind: &str, name: &str| {
            answered(json!({"code": 404, "reason": "NotFound", "details": {"kind": kind, "name": name}}))
        };
        assert!(matches!(of("agents", "a"), Error::NotFound(_)));
        assert!(matches!(of("namespaces", "default"), Error::Invalid { .. }));
        assert!(matches!(of("namespaces", "a"), Error::Invalid { .. }));
        let unknown = answered(json!({"code": 404, "reason": "Failed to parse error data"}));
        assert!(matches!(unknown, Error::Unavailable(_)));
    }

    #[test]
    fn what_helps_decides_the_class() {
        let class = |code: u16, message: &str| answered(json!({"code": code, "message": message})).class();
        for code in [401, 410, 429, 500, 502, 503, 504] {
            assert_eq!(class(code, ""), Class::Transient, "{code}");
        }
        for code in [400, 403, 413, 422] {
            assert_eq!(class(code, ""), Class::Invalid, "{code}");
        }
        assert_eq!(class(409, ""), Class::Conflict);
        assert_eq!(class(500, "etcdserver: request is too large"), Class::Invalid);
    }

    #[test]
    fn causes_are_told_by_field() {
        let cause = json!({"field": "spec.image", "message": "Too long", "reason": "FieldValueTooLong"});
        let skipped = json!({"field": "<nil>", "message": "some rules were not checked"});
        let error = answered(
            json!({"code": 422, "message": "m", "details": {"causes": [cause, skipped], "name": "a"}}),
        );
        let Error::Invalid { causes, .. } = error else { panic!("{error:?}") };
        assert_eq!(causes, ["spec.image: Too long"]);
        let other = json!({"field": "metadata.uid", "message": "field is immutable"});
        let error = answered(json!({"code": 422, "details": {"causes": [other]}}));
        assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    }
}
