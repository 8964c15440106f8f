//! Delivers the result to the recorder until it is acknowledged.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rand::Rng;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::ReaderStream;

use super::{
    collection,
    control::Value,
    place::{Folder, Ground},
    sidecar::{Brought, Sidecar},
};

/// The first pause between two attempts; it doubles, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the recorder may take to answer: it pushes before it does.
const ANSWER_TIME: Duration = Duration::from_mins(5);
/// Characters of a refusal that are repeated.
const REFUSAL: usize = 512;

/// The packed result.
pub(super) fn result_file(folder: &Folder) -> PathBuf {
    folder.outbox().join("result.tar")
}

/// Its digest.
pub(super) fn digest_file(folder: &Folder) -> PathBuf {
    folder.outbox().join("digest")
}

/// Whether there is something to deliver.
pub(super) fn is_ready(folder: &Folder) -> bool {
    result_file(folder).exists()
}

/// What became of an attempt.
#[derive(Debug)]
enum Attempt {
    Acknowledged,
    /// Not yet; why.
    Later(String),
    /// Not with this token, which a controller that comes back may replace.
    Unauthorized(String),
    /// Not as it is; trying again soon changes nothing.
    Refused(String),
    /// Not so much.
    TooLarge(String),
}

/// Waits until the recorder has acknowledged.
pub(super) async fn deliver(sidecar: &Arc<Sidecar>) -> io::Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        let digest = std::fs::read_to_string(digest_file(&sidecar.folder))?;
        let why = match attempt(sidecar, &digest).await {
            Ok(Attempt::Acknowledged) => {
                sidecar.update(|state| state.delivery_error = None);
                return Ok(());
            }
            // Of a pod the kubelet replaces the token.
            Ok(Attempt::Later(why) | Attempt::Unauthorized(why)) => why,
            Ok(Attempt::Refused(why)) => {
                pause = LONGEST_PAUSE;
                why
            }
            // What fits is better than nothing, and is said to be less than all.
            Ok(Attempt::TooLarge(why)) if collection::lighten(sidecar, &why).await? => continue,
            Ok(Attempt::TooLarge(why)) => {
                pause = LONGEST_PAUSE;
                why
            }
            Err(error) => format!("the recorder cannot be reached: {error}"),
        };
        if sidecar.state().borrow().delivery_error.as_deref() != Some(why.as_str()) {
            sidecar.update(|state| state.delivery_error = Some(why));
        }
        tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.5..1.5))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for what a controller brings. A run whose secrets cannot be had still gets a token.
async fn brought(sidecar: &Sidecar) -> Brought {
    let mut given = sidecar.given();
    match given.wait_for(Option::is_some).await.ok().and_then(|given| given.clone()) {
        Some(given) => given,
        None => std::future::pending().await,
    }
}

async fn attempt(sidecar: &Sidecar, digest: &str) -> io::Result<Attempt> {
    match &sidecar.place.ground {
        Ground::Pod { pod } => {
            let (stream, token) = super::pod::reach_recorder(pod).await?;
            let request = request(sidecar, &pod.proxy.recorder_name, token.expose_secret(), digest).await?;
            send(stream, request).await
        }
        Ground::Machine(machine) => {
            let given = brought(sidecar).await;
            let token = match given.as_ref() {
                Ok(given) => &given.token,
                Err(denied) => &denied.token,
            };
            let token = token.as_ref().and_then(Value::text).unwrap_or_default();
            let request = request(sidecar, "recorder", token, digest).await?;
            let stream = super::connect(&machine.recorder)?;
            stream.set_nonblocking(true)?;
            let attempt = send(tokio::net::UnixStream::from_std(stream)?, request).await?;
            if matches!(attempt, Attempt::Unauthorized(_)) {
                sidecar.forget(&given);
            }
            Ok(attempt)
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> io::Result<Attempt> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), 64 << 10).collect().await;
        let text =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        io::Result::Ok((status, text))
    };
    let answered = async {
        tokio::pin!(answered);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answered => answer,
            ended = &mut connection => {
                ended.map_err(io::Error::other)?;
                answered.await
            }
        }
    };
    let (status, text): (StatusCode, String) = tokio::time::timeout(ANSWER_TIME, answered).await??;
    Ok(judge(status, &text))
}

/// What a status means: 200 is pushed, 202 is not yet; others of 4xx do not get better by themselves.
fn judge(status: StatusCode, text: &str) -> Attempt {
    let text: String = words(text).chars().take(REFUSAL).collect();
    let why = format!("the recorder answered {status}: {text}");
    match status {
        StatusCode::OK => Attempt::Acknowledged,
        StatusCode::UNAUTHORIZED => Attempt::Unauthorized(why),
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => {
            Attempt::Later(why)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Attempt::TooLarge(why),
        status if status.is_client_error() => Attempt::Refused(why),
        _ => Attempt::Later(why),
    }
}

/// What a problem (RFC 9457) says to people; any other text as it is.
fn words(text: &str) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let said = ["detail", "title"].iter().find_map(|part| problem.as_ref()?.get(part)?.as_str());
    said.unwrap_or(text.trim()).to_owned()
}

type Body = StreamBody<futures::stream::BoxStream<'static, io::Result<Frame<Bytes>>>>;

async fn request(sidecar: &Sidecar, host: &str, token: &str, digest: &str) -> io::Result<Request<Body>> {
    let run = &sidecar.place.spec.run;
    let file = tokio::fs::File::open(result_file(&sidecar.folder)).await?;
    let length = file.metadata().await?.len();
    let stream = futures::StreamExt::boxed(ReaderStream::new(file).map_ok(Frame::data));
    let mut bearer = http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(io::Error::other)?;
    bearer.set_sensitive(true);
    Request::put(format!("/api/v1/runs/{}/{}/result", run.namespace, run.name))
        .header(header::HOST, host)
        .header(header::AUTHORIZATION, bearer)
        .header(header::CONTENT_TYPE, "application/x-tar")
        .header(header::CONTENT_LENGTH, length)
        .header("ostler-run-uid", run.uid.as_str())
        .header("ostler-report-digest", digest)
        .body(StreamBody::new(stream))
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_an_acknowledgement() {
        for (status, expected) in [
            (200, "Acknowledged"),
            (202, "Later"),
            (401, "Unauthorized"),
            (403, "Refused"),
            (409, "Later"),
            (413, "TooLarge"),
            (503, "Later"),
        ] {
            let attempt = judge(StatusCode::from_u16(status).unwrap(), "");
            assert!(format!("{attempt:?}").starts_with(expected), "{status} {attempt:?}");
        }
    }
}
