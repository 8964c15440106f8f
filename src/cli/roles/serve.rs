//! Serving until the end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Error, RoleArgs};
use crate::{
    api::{self, Gates, TlsFiles, TlsListener},
    telemetry::Metrics,
};

/// Serves health and metrics, if that was asked for.
pub(super) async fn health(
    args: &RoleArgs,
    gates: Gates,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let Some(address) = args.health else { return Ok(()) };
    let address = plain(address, api::health(gates, metrics.clone()), stop, tasks).await?;
    args.announce("health", &format!("http://{address}"));
    Ok(())
}

/// Serves over TCP; gives the address.
pub(super) async fn plain(
    address: SocketAddr,
    router: Router,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let failed = |e| Error::setup(format!("listen on {address}"), e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let stop = stop.clone();
    tasks.spawn(async move {
        ended(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await);
    });
    Ok(address)
}

/// Serves over TLS; gives the address.
pub(super) async fn tls(
    address: SocketAddr,
    (certificate, key): (PathBuf, PathBuf),
    router: Router,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let files = TlsFiles::load(certificate, key).map_err(|e| Error::setup("load the certificate", e))?;
    let listener = TlsListener::bind(address, files).await;
    let listener = listener.map_err(|e| Error::setup(format!("listen on {address}"), e))?;
    let address = listener.address();
    let stop = stop.clone();
    tasks.spawn(async move {
        ended(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await);
    });
    Ok(address)
}

fn ended(served: std::io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "a server ended");
    }
}
