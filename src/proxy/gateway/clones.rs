//! Clones: Git's smart HTTP inside a tunnel, read only, to one repository of the run, with the credential that its pod does not have.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Caller, Shared};
use crate::{
    class::Class,
    git::{
        self, Location,
        relay::{self, Answer, Relay},
    },
    proxy::tunnel::Verdict,
};

/// How long a server may take to begin an answer. It counts objects before it does.
const ANSWER: Duration = Duration::from_mins(5);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A repository that a run may clone.
pub(super) struct Repository {
    relay: Arc<Relay>,
    pod: String,
}

impl Repository {
    /// The repository of this URL, if it is the caller's, with its credential.
    pub(super) async fn find(shared: &Shared, caller: &Caller, url: &str) -> Result<Self, Verdict> {
        let denied = |message: String| Verdict::Denied { message };
        let Some(checkout) = caller.checkouts.iter().find(|checkout| checkout.url == url) else {
            return Err(denied("The run names no such repository.".to_owned()));
        };
        caller.cloning.clone().map_err(denied)?;
        let location: Location =
            checkout.url.parse().map_err(|error| denied(format!("The repository's URL: {error}")))?;
        if location.is_local() {
            return Err(denied("A path on a disk is not a repository that a pod can clone.".to_owned()));
        }
        let (secret, time) = (checkout.secret.as_ref(), shared.limits.transfer_time);
        let remote = git::secret::remote(&*shared.secrets, &caller.namespace, location, secret, None, time);
        let remote = remote.await.map_err(|error| {
            let message = chain(&error);
            if error.class() == Class::Transient { Verdict::Unreachable { message } } else { denied(message) }
        })?;
        let relay = Relay::new(remote).map_err(|error| denied(chain(&error)))?;
        Ok(Self { relay: Arc::new(relay), pod: format!("{}/{}", caller.namespace, caller.pod) })
    }

    /// Serves requests until the client ends.
    pub(super) async fn serve<C>(&self, shared: &Shared, client: C) -> hyper::Result<()>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &shared.limits;
        let left = Arc::new(std::sync::atomic::AtomicU64::new(limits.clone_bytes));
        let service = service_fn(|request| async {
            let answered = self.answer(request, limits.clone_request_bytes).await;
            Ok::<_, Infallible>(answered.map(|body| bounded(body, Arc::clone(&left))))
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.dial.header_time)
            .max_buf_size(limits.dial.header_bytes)
            .serve_connection(TokioIo::new(client), service)
            .await
    }

    async fn answer(&self, request: Request<Incoming>, most: usize) -> Response<Body> {
        let version_2 = request.headers().get("git-protocol").is_some_and(|asked| asked == "version=2");
        let (method, path, query) = (request.method(), request.uri().path(), request.uri().query());
        let (kind, answering) = match (method, path, query) {
            (&Method::GET, "/info/refs", Some("service=git-upload-pack")) => {
                (relay::ADVERTISEMENT, timeout(ANSWER, self.relay.advertise(version_2)).await)
            }
            (&Method::POST, "/git-upload-pack", None) => {
                let encoding = request.headers().get(header::CONTENT_ENCODING).cloned();
                let asking = self.relay.upload_pack(version_2, encoding, pieces(request.into_body(), most));
                (relay::RESULT, timeout(ANSWER, asking).await)
            }
            _ => {
                return refusal(
                    StatusCode::FORBIDDEN,
                    "Only git-upload-pack is served here: clone, or fetch.",
                );
            }
        };
        match answering {
            Ok(Ok(answer)) => good(kind, answer),
            Ok(Err(error)) => {
                let message = chain(&error);
                tracing::warn!(target: "ostler::audit", pod = self.pod, target = "clone", decision = "failed", reason = message);
                refusal(status(&error), &message)
            }
            Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "The repository's server did not answer in time."),
        }
    }
}

/// What a Git client makes of it: never 401, which would have it look for a credential.
fn status(error: &git::Error) -> StatusCode {
    match error {
        git::Error::NotFound { .. } => StatusCode::NOT_FOUND,
        git::Error::Unauthenticated { .. } | git::Error::Forbidden { .. } => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn pieces(body: Incoming, most: usize) -> futures::stream::BoxStream<'static, io::Result<Bytes>> {
    let frames = TryStreamExt::map_err(BodyStream::new(Limited::new(body, most)), io::Error::other);
    frames.try_filter_map(|frame| async { Ok(frame.into_data().ok()) }).boxed()
}

fn good(kind: &'static str, answer: Answer) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(answer.map_ok(Frame::data)).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn refusal(status: StatusCode, why: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{why}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Breaks off when all answers together are longer than a clone may be.
fn bounded(body: Body, left: Arc<std::sync::atomic::AtomicU64>) -> Body {
    use std::sync::atomic::Ordering::Relaxed;
    let counted = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length));
        taken.map(|_| frame).map_err(|_| io::Error::other("the clone is too large"))
    });
    StreamBody::new(counted).boxed_unsync()
}

/// An error with all that led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
