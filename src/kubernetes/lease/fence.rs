//! What keeps a process from writing after its lease: a gate in front of the API server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response};
use kube::client::Body;
use rustix::time::{ClockId, clock_gettime};
use tower::{BoxError, Layer, Service};

/// A write that came after the lease. It was not sent.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this process does not hold its lease any more, so it writes nothing")]
pub struct Fenced;

/// A gate for writes: open while a lease is known to hold.
///
/// It is asked immediately before a request goes out, and looks at the clock, not at what others have noticed: a process
/// that was frozen past its lease finds it closed with its first write, before anybody has told it so. What may still
/// slip through was let in before the process froze and sent after it woke; that carries the UID or version it has seen.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Mutex<Gate>>);

#[derive(Debug, Clone, Copy, Default)]
enum Gate {
    /// The lease is not ours yet.
    #[default]
    Before,
    /// Open until then, as time since the machine's start.
    Until(Duration),
    /// Closed for good.
    Shut,
}

impl Fence {
    /// True while writes may go out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(*self.gate(), Gate::Until(end) if now() < end)
    }

    /// Opens it until `end`, unless it is shut for good.
    pub(super) fn open_until(&self, end: Duration) {
        let mut gate = self.gate();
        if !matches!(*gate, Gate::Shut) {
            *gate = Gate::Until(end);
        }
    }

    /// Closes it for good.
    pub(super) fn shut(&self) {
        *self.gate() = Gate::Shut;
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time since the machine's start. It goes on while a process is stopped and while the machine sleeps.
pub(super) fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

impl<S> Layer<S> for Fence {
    type Service = Behind<S>;

    fn layer(&self, inner: S) -> Behind<S> {
        Behind { inner, fence: self.clone() }
    }
}

/// Requests behind a fence: reads pass, writes only while it is open.
#[derive(Debug, Clone)]
pub struct Behind<S> {
    inner: S,
    fence: Fence,
}

impl<S, B> Service<Request<Body>> for Behind<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if reads || self.fence.is_open() {
            let answer = self.inner.call(request);
            async move { answer.await.map_err(Into::into) }.boxed()
        } else {
            std::future::ready(Err(Fenced.into())).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_fence_opens_with_the_lease_and_closes_by_the_clock_or_for_good() {
        let fence = Fence::default();
        assert!(!fence.is_open(), "the lease is not ours yet");
        fence.open_until(now() + HOUR);
        assert!(fence.is_open());
        fence.open_until(now());
        assert!(!fence.is_open(), "nobody had to say so");
        fence.open_until(now() + HOUR);
        assert!(fence.is_open(), "a late renewal that worked");
        fence.shut();
        fence.open_until(now() + HOUR);
        assert!(!fence.is_open());
    }

    #[tokio::test]
    async fn reads_pass_and_writes_do_not() {
        let fence = Fence::default();
        let inner = tower::service_fn(|_| std::future::ready(Ok::<_, BoxError>(Response::new(()))));
        let mut behind = fence.layer(inner);
        let ask = |behind: &mut Behind<_>, method: Method| {
            behind.call(Request::builder().method(method).body(Body::empty()).unwrap())
        };
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        assert!(ask(&mut behind, Method::GET).await.is_ok());
        for write in &writes {
            assert!(ask(&mut behind, write.clone()).await.unwrap_err().is::<Fenced>(), "{write}");
        }
        fence.open_until(now() + HOUR);
        for write in writes {
            assert!(ask(&mut behind, write).await.is_ok());
        }
    }
}
