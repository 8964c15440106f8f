//! A stream to the sidecar of a pod: the input and output of one command in its container.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use zeroize::Zeroizing;

use super::seen::Seen;
use crate::{
    harness::{
        control::{Answer, Request},
        pod::{PROGRAM, SIDECAR},
    },
    names::Namespace,
};

/// How long the kubelet may take to start the command.
const START: Duration = Duration::from_secs(20);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Most bytes of an answer, and of a complaint in its place.
const ANSWER_BYTES: usize = 64 << 10;
/// Bytes on their way in either direction.
const BUFFER: usize = 64 << 10;

/// Why a sidecar does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command could not be started in its container.
    #[error("no command can be executed in the sidecar's container")]
    Exec(#[source] Box<kube::Error>),
    /// Neither did it answer, nor say why.
    #[error("the sidecar does not answer in time")]
    Silent,
    /// The stream broke off.
    #[error("the stream to the sidecar ended")]
    Broken(#[source] io::Error),
    /// The command said something else.
    #[error("the sidecar cannot be asked: {0:?}")]
    Complaint(String),
    /// It understood, and says no.
    #[error("the sidecar refuses: {0}")]
    Refused(String),
}

/// A stream to a sidecar. The command ends with it.
pub(super) struct Attached {
    // ends the command when it is dropped
    process: AttachedProcess,
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn AsyncRead + Send>>,
}

/// Attaches to the sidecar; whatever speaks the protocol may follow.
pub(super) async fn open(client: &Client, seen: &Seen) -> Result<Attached, Error> {
    attach(client, &seen.run().namespace, &seen.name, false).await.map(|(attached, _)| attached)
}

/// The same by the pod's name, with how the command ends; `None`: that was not said.
pub(super) async fn open_in(
    client: &Client,
    namespace: &Namespace,
    pod: &str,
) -> Result<(Attached, impl Future<Output = Option<Status>> + Send + use<>), Error> {
    let (mut attached, _) = attach(client, namespace, pod, false).await?;
    let end = attached.process.take_status().ok_or(Error::Broken(io::ErrorKind::BrokenPipe.into()))?;
    Ok((attached, end))
}

async fn attach(
    client: &Client,
    namespace: &Namespace,
    pod: &str,
    complaints: bool,
) -> Result<(Attached, Option<Pin<Box<dyn AsyncRead + Send>>>), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace.as_str());
    let params = AttachParams {
        container: Some(SIDECAR.to_owned()),
        stdin: true,
        stdout: true,
        // what nobody reads would hold up the rest
        stderr: complaints,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
        ..AttachParams::default()
    };
    let started = timeout(START, api.exec(pod, [PROGRAM, "harness", "attach"], &params)).await;
    let mut process = started.map_err(|_| Error::Silent)?.map_err(|error| Error::Exec(Box::new(error)))?;
    let (Some(input), Some(output)) = (process.stdin(), process.stdout()) else {
        return Err(Error::Broken(io::ErrorKind::BrokenPipe.into()));
    };
    let complaints = process.stderr().map(|stderr| Box::pin(stderr) as Pin<Box<dyn AsyncRead + Send>>);
    let attached = Attached { process, input: Box::pin(input), output: Box::pin(output) };
    Ok((attached, complaints))
}

/// Sends a request, which may hold secrets.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), request: &Request) -> io::Result<()> {
    let mut line = Zeroizing::new(serde_json::to_vec(request)?);
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Asks, and waits for the answer.
pub(super) async fn ask(client: &Client, seen: &Seen, request: &Request) -> Result<(), Error> {
    let (mut attached, complaints) = attach(client, &seen.run().namespace, &seen.name, true).await?;
    let asked = async {
        send(&mut attached, request).await.map_err(Error::Broken)?;
        match answer(&mut attached).await.map_err(Error::Broken)? {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Refused(why)) => Err(Error::Refused(why)),
            None => Err(Error::Complaint(complaint(complaints).await)),
        }
    };
    timeout(ANSWER, asked).await.unwrap_or(Err(Error::Silent))
}

/// The answer, as soon as it is whole; `None` when something else came.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Answer>> {
    let (mut text, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let count = stream.read(&mut piece).await?;
        text.extend_from_slice(&piece[..count]);
        if let Ok(answer) = serde_json::from_slice(&text) {
            return Ok(Some(answer));
        }
        if count == 0 || text.len() > ANSWER_BYTES {
            return Ok(None);
        }
    }
}

async fn complaint(from: Option<Pin<Box<dyn AsyncRead + Send>>>) -> String {
    let mut text = Vec::new();
    if let Some(from) = from {
        // what was read before it broke off is all there is
        let _ = from.take(1024).read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

impl AsyncRead for Attached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.output.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Attached {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.input.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_shutdown(context)
    }
}
