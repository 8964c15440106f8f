//! A container that a kubelet makes: the shim in it comes by itself.

use std::{fs, io, time::Duration};

use tokio::net::{TcpListener, UnixListener};

use super::{Cage, Container, UP_TIME, Wire};
use crate::{
    harness::{pod::Surroundings, sidecar::Sidecar},
    shim::wire::{FromShim, SOCKET},
};

/// How long a kubelet may take to have the agent's container running: its image is pulled meanwhile.
const CONTAINER_TIME: Duration = Duration::from_hours(1);

/// Waits for the shim. The forwarder is the sidecar's own: the containers of a pod share its network.
pub(super) async fn build(sidecar: &Sidecar, pod: &Surroundings) -> io::Result<(Cage, TcpListener)> {
    let forwarder = TcpListener::bind(pod.layout.forwarder).await?;
    let joined = tokio::time::timeout(CONTAINER_TIME, join(sidecar)).await;
    let cage = joined.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it never came up"))??;
    Ok((cage, forwarder))
}

/// Listens until one shim has connected, and then no more: there is no process of the agent yet, or none any more, so
/// whatever connects first is the shim, and nothing can come after it.
pub(super) async fn join(sidecar: &Sidecar) -> io::Result<Cage> {
    let socket = sidecar.folder.rooms(&sidecar.place).shared.join(SOCKET);
    let listener = crate::harness::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (stream, _) = listener.accept().await?;
    drop(listener);
    fs::remove_file(socket)?;
    // Of a process in a PID namespace beside ours the kernel gives no id: 0, which rustix's own credentials cannot hold. But
    // all containers of our pods have the same user.
    if stream.peer_cred()?.uid() != rustix::process::getuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user connected in place of the shim",
        ));
    }
    let link = super::link(stream)?;
    let mut cage = Cage { container: Container::Pod, wire: Wire::listen(link, sidecar)?, seen: None };
    match tokio::time::timeout(UP_TIME, cage.next()).await? {
        Some((FromShim::Hello { nonce: None }, _)) => Ok(cage),
        _ => Err(io::Error::other("what connected is not the shim of this run")),
    }
}
