//! One connection of the agent: requests, until one of them turns it into a tunnel.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Method, Request, Response, StatusCode, Uri};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use super::{
    Shared,
    answer::{self, Body, PROOF_PATH},
    dial, forward,
    meter::{Activity, Metered},
};
use crate::egress;

/// Serves one connection to its end.
pub(super) async fn serve<C>(shared: Arc<Shared>, client: C)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = shared.limits.idle_time;
    let connection = Arc::new(Connection { shared, activity: Arc::default(), tunnel: Mutex::default() });
    tokio::select! {
        () = Arc::clone(&connection).run(client) => {}
        () = connection.activity.ceases(idle) => {}
    }
}

/// A tunnel that was agreed on: the client's side of it (still becoming one) and the target's.
type Tunnel = (OnUpgrade, Metered<dial::Connected>);

/// What the requests of one client connection share.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<Activity>,
    tunnel: Mutex<Option<Tunnel>>,
}

impl Connection {
    async fn run<C>(self: Arc<Self>, client: C)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.shared.limits;
        let service = service_fn(|request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(limits.header_bytes)
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(target: "ostler::egress", %error, "a client connection ended");
        }
        let tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((client, mut target)) = tunnel
            && let Ok(client) = client.await
        {
            // Either side may break off at any time; that is how most tunnels end.
            let _ = copy_bidirectional(&mut TokioIo::new(client), &mut target).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            self.tunnel(request).await
        } else if request.uri().scheme().is_some() {
            forward::answer(self, request).await
        } else {
            self.own(&request)
        }
    }

    /// Connects to the target and has the connection become a tunnel after a 200.
    async fn tunnel(&self, request: Request<Incoming>) -> Response<Body> {
        let target = match target(request.uri(), None) {
            Ok((host, port)) => egress::Request::tunnel(host, port),
            Err(why) => return answer::refused(StatusCode::BAD_REQUEST, &why),
        };
        match dial::open(&self.shared, target).await {
            Ok(stream) => {
                let tunnel = (upgrade::on(request), self.metered(stream));
                *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
                Response::new(Body::default())
            }
            Err(failure) => answer::failure(&failure),
        }
    }

    /// Requests in origin form are for the proxy itself.
    fn own(&self, request: &Request<Incoming>) -> Response<Body> {
        match &self.shared.proof {
            Some(proof) if request.uri().path() == PROOF_PATH && request.method() == Method::GET => {
                answer::text(StatusCode::OK, proof.clone())
            }
            _ => answer::refused(
                StatusCode::NOT_FOUND,
                "This is the egress proxy of a run. It has nothing under this path; requests through it name \
                 their whole URL, or ask for a tunnel with CONNECT.",
            ),
        }
    }

    pub(super) fn metered(&self, target: dial::Connected) -> Metered<dial::Connected> {
        Metered::new(target, Arc::clone(&self.activity), Arc::clone(&self.shared) as _)
    }
}

/// Host and port of a URL's authority; without a default the port must be there.
pub(super) fn target(uri: &Uri, default_port: Option<u16>) -> Result<(egress::Host, u16), String> {
    let authority = uri.authority().ok_or("The request names no host.")?;
    if authority.as_str().contains('@') {
        return Err("A target has no user name or password.".to_owned());
    }
    let host =
        authority.host().parse().map_err(|fault| format!("The target's host cannot be used: {fault}."))?;
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0),
        None => default_port,
    };
    port.map(|port| (host, port)).ok_or_else(|| "The target names no port that can be used.".to_owned())
}
