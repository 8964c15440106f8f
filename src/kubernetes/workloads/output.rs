//! The agent's output, as its sidecar keeps it, for whoever may execute commands in the pod.

use std::io;

use kube::Client;
use tokio::io::AsyncReadExt;

use super::sidecar;
pub use super::sidecar::Error as SidecarError;
use crate::{harness::control::Request, names::Namespace, ports::workloads::sidecar::LogsRequest};

/// Bytes taken at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why an output is not whole.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever asks may not execute commands there.
    #[error("not allowed: that takes the rights to get and create pods/exec in namespace {0}")]
    Forbidden(Namespace),
    /// The sidecar cannot be asked: not yet, not any more, or not now.
    #[error("the pod's sidecar cannot be asked")]
    Sidecar(#[source] SidecarError),
    /// It went away before the output ended, or the way to it broke.
    #[error("the stream from the pod's sidecar broke off")]
    Broken(#[source] Option<io::Error>),
    /// The bytes were not taken.
    #[error("the output cannot be passed on")]
    Taken(#[source] io::Error),
}

/// Gives the output of the agent in a pod to `take`, piece by piece, until it ends or, without `follow`, as far as it is
/// there. The client's user needs `get` and `create` on `pods/exec`. May take as long as the agent runs.
///
/// # Errors
/// [`OutputError`]; what was taken before stands, and a new request may begin after it.
pub async fn copy_output(
    client: &Client,
    namespace: &Namespace,
    pod: &str,
    request: LogsRequest,
    mut take: impl FnMut(&[u8]) -> io::Result<()> + Send,
) -> Result<(), OutputError> {
    let opened = sidecar::open_in(client, namespace, pod).await;
    let (mut stream, end) = opened.map_err(|error| refused(error, namespace))?;
    let broken = |error| OutputError::Broken(Some(error));
    sidecar::send(&mut stream, &Request::Logs(request)).await.map_err(broken)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = stream.read(&mut piece).await.map_err(broken)?;
        if count == 0 {
            break;
        }
        take(&piece[..count]).map_err(OutputError::Taken)?;
    }
    // A stream that breaks ends, too; only a command that came to its own end says how.
    let ended = end.await.is_some_and(|status| status.status.as_deref() == Some("Success"));
    if ended { Ok(()) } else { Err(OutputError::Broken(None)) }
}

fn refused(error: SidecarError, namespace: &Namespace) -> OutputError {
    match error {
        SidecarError::Exec(source) if matches!(&*source, kube::Error::Api(status) if status.code == 403) => {
            OutputError::Forbidden(namespace.clone())
        }
        error => OutputError::Sidecar(error),
    }
}
