//! What is served on this machine: the intake of results, and the API.

use std::{
    fs::Permissions,
    io::Write,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use secrecy::ExposeSecret;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use super::Shared;
use crate::{
    api,
    cli::{
        roles::ledgers::Ledgers,
        up::{Error, UpArgs, clock},
    },
    embedded::access::Scope,
    kinds::ConfigRepository,
    ports::Access,
};

/// Takes results in, on a socket that only this user may reach.
pub(super) fn intake(shared: &Shared, ledgers: &Arc<Ledgers>, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let access: Arc<dyn Access> = shared.access.clone();
    let intake = api::Intake::new(
        access,
        ledgers.deliver_to(),
        shared.layout.spool(),
        shared.audit.clone(),
        shared.metrics.clone(),
        clock(),
    );
    let intake = intake.map_err(|e| Error::setup("prepare the spool", e))?;
    let path = shared.layout.recorder_socket();
    let listener = listen(&path).map_err(|e| Error::setup(format!("listen on {}", path.display()), e))?;
    let router: Router = api::intake(intake);
    let stop = shared.stop.clone();
    tasks.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the intake ended");
        }
        // nobody answers there any more
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

/// A Unix socket with mode 0600. One that a killed process left is replaced: the state folder's lock is ours.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers those who read, on the address that was asked for; gives that address.
pub(super) async fn api(
    args: &UpArgs,
    shared: &Shared,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|e| Error::setup(format!("listen on {}", args.listen), e))?;
    let address = listener.local_addr().map_err(|e| Error::setup("find the API's address", e))?;
    let caches = shared.caches.clone();
    let gates = move || {
        let repositories = caches.repositories.all();
        let gate = |repository: &Arc<ConfigRepository>| {
            let applied = repository.status.as_ref().is_some_and(|s| s.last_applied.is_some());
            api::Gate {
                name: format!("applied {}", kube::ResourceExt::name_any(repository.as_ref())),
                open: applied,
            }
        };
        repositories.iter().map(gate).collect()
    };
    let state = api::State {
        store: shared.store.clone(),
        access: shared.callers.clone(),
        gates: Arc::new(gates),
        metrics: shared.metrics.clone(),
        audit: shared.audit.clone(),
        clock: clock(),
    };
    let address_file = shared.layout.api_address();
    std::fs::write(&address_file, format!("{address}\n"))
        .map_err(|e| Error::setup(format!("write {}", address_file.display()), e))?;
    let token_file = local_token(shared)?;
    let stop = shared.stop.clone();
    tasks.spawn(async move {
        let served =
            axum::serve(listener, api::router(state)).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the API ended");
        }
        // the address is only a hint, and the token ends with the process: the next one makes its own
        let _ = std::fs::remove_file(address_file);
        let _ = std::fs::remove_file(token_file);
    });
    Ok(address)
}

/// Makes the token with which this user reads the API, and leaves it where only they can read it.
fn local_token(shared: &Shared) -> Result<PathBuf, Error> {
    const NAME: &str = "local";
    let path = shared.layout.api_token();
    let made = shared.access.revoke(NAME).and_then(|()| shared.access.mint(NAME, Scope::Read, None));
    let token = made.map_err(|e| Error::setup("make the API's token", e))?;
    let written = match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path),
    };
    written
        .and_then(|mut file| file.write_all(token.expose_secret().as_bytes()))
        .map_err(|e| Error::setup(format!("write {}", path.display()), e))?;
    Ok(path)
}
