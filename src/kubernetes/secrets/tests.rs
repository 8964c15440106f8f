use bytes::Bytes;
use http_body_util::Full;
use kube::client::Body;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::*;
use crate::class::Class;

/// An API server that answers every read the same, and a watch never.
fn answering(code: u16, answer: &str) -> KubeSecrets {
    let answer = Bytes::copy_from_slice(answer.as_bytes());
    let service = service_fn(move |request: http::Request<Body>| {
        let body = Full::new(answer.clone());
        async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(http::Response::builder().status(code).body(body)?)
        }
    });
    KubeSecrets::new(Client::new(service, "default"))
}

fn secret(used: &str, data: &Value) -> String {
    let metadata = json!({"name": "a", "resourceVersion": "7", "annotations": {"ostler.dev/use": used}});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}).to_string()
}

async fn resolve(secrets: &KubeSecrets) -> Result<SecretData, Error> {
    secrets.resolve(&"team".parse().unwrap(), &"a".parse().unwrap(), SecretUse::Env, None).await
}

#[tokio::test]
async fn values_are_decoded_and_no_data_is_no_value() {
    let secrets = answering(200, &secret("env", &json!({"token": "aHVudGVyMg==", "empty": ""})));
    let data = resolve(&secrets).await.unwrap();
    assert_eq!(data["token"].expose_secret().as_slice(), b"hunter2");
    assert!(data["empty"].expose_secret().is_empty());
    assert!(resolve(&answering(200, &secret("env", &Value::Null))).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_use_that_is_not_allowed_is_refused_before_values_are_looked_at() {
    let error = resolve(&answering(200, &secret("git", &json!({"token": "no base64"})))).await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
    let error = resolve(&answering(200, &secret("env", &json!({"token": "no base64"})))).await.unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }), "{error:?}");
}

#[tokio::test]
async fn errors_are_told_apart_and_hold_no_values() {
    let status =
        |code: u16| json!({"kind": "Status", "status": "Failure", "code": code, "message": "m"}).to_string();
    let bad = secret("env", &json!({"token": "%hunter2-canary"}));
    let odd = secret("env", &json!({"token": ["hunter2-canary"]}));
    for (code, answer, wanted) in [
        (404, status(404), Class::Invalid),
        (403, status(403), Class::Transient),
        (401, status(401), Class::Transient),
        (500, "hm".to_owned(), Class::Transient),
        (200, bad, Class::Invalid),
        (200, odd, Class::Invalid),
        (200, "\"hunter2-canary".to_owned(), Class::Invalid),
    ] {
        let error = resolve(&answering(code, &answer)).await.unwrap_err();
        assert_eq!(error.class(), wanted, "{error:?}");
        assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
        let expected = match code {
            404 => matches!(error, Error::NotFound { .. }),
            403 => matches!(error, Error::Forbidden { .. }),
            200 => matches!(error, Error::Unusable { .. }),
            _ => matches!(error, Error::Unavailable(_)),
        };
        assert!(expected, "{code}: {error:?}");
    }
}
