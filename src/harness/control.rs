//! What the controller and the sidecar of a place say to each other.
//!
//! A connection to the sidecar's socket begins with one line of JSON, the [`Request`]; then comes the answer. `Logs` is
//! the request of [`crate::ports::workloads::sidecar`].

use std::{fmt, io, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use zeroize::Zeroizing;

use super::{output::Output, place::State, sidecar::Sidecar};
use crate::{
    kinds::Reason,
    names::ObjectName,
    ports::workloads::{NamedPolicy, StopReason, sidecar::LogsRequest},
};

/// Most bytes of a request; secrets and policies are far smaller.
const REQUEST_BYTES: u64 = 16 << 20;
/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Connections at one time.
const CONNECTIONS: usize = 64;

/// What the controller asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The agent's output; the answer is the bytes.
    Logs(LogsRequest),
    /// Somebody looks after this place, for as long as the connection stays. The answers are [`Notice`]s, a line each.
    Watch,
    /// The secrets of the run. The answer is an [`Answer`], as for all that follow.
    Provide(Box<Given>),
    /// The secrets cannot be had.
    Deny(Box<Denied>),
    /// End the agent.
    Stop(StopReason),
    /// Obey these policies from now on.
    Egress(Vec<NamedPolicy>),
}

/// What a sidecar tells whoever watches, at first and at every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// It waits for its secrets.
    pub needs_secrets: bool,
    /// How far it is, for who cannot read its folder.
    #[serde(default)]
    pub state: Option<State>,
}

/// Whether a request was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It was.
    Done,
    /// It was not.
    Refused(String),
}

/// A secret value. It is shown nowhere, and travels only over the sidecar's socket.
pub struct Value(SecretBox<Vec<u8>>);

impl Value {
    /// Takes over a value.
    #[must_use]
    pub fn new(value: SecretBox<Vec<u8>>) -> Self {
        Self(value)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The value as text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.expose()).ok()
    }
}

impl From<&SecretString> for Value {
    fn from(text: &SecretString) -> Self {
        Self(SecretBox::new(Box::new(text.expose_secret().as_bytes().to_vec())))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(…)")
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }
}

/// The secrets of a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Given {
    /// What proves to the recorder whose result it is; `None` in a pod, whose tokens the cluster makes.
    #[serde(default)]
    pub token: Option<Value>,
    /// Credentials of repositories.
    pub git: Vec<GitSecret>,
    /// Variables of the agent.
    pub env: Vec<(String, Value)>,
    /// Files below the agent's home.
    pub files: Vec<(String, Value)>,
}

/// Why there are no secrets. The run ends with that, and its token delivers the report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denied {
    /// What proves to the recorder whose result it is; `None` in a pod, whose tokens the cluster makes.
    #[serde(default)]
    pub token: Option<Value>,
    /// Why.
    pub reason: Reason,
    /// What to do.
    pub message: String,
}

/// The credential of one repository.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GitSecret {
    /// The repository.
    pub url: String,
    /// The Secret that it came from.
    pub secret: ObjectName,
    /// Its keys.
    pub data: Vec<(String, Value)>,
}

/// Asks, and waits for the answer.
///
/// # Errors
/// When nobody listens there, or the sidecar refuses.
pub async fn ask(socket: &std::path::Path, request: &Request) -> io::Result<()> {
    let mut stream = open(socket, request).await?;
    let mut answer = String::new();
    tokio::time::timeout(REQUEST_TIME, (&mut stream).take(REQUEST_BYTES).read_to_string(&mut answer))
        .await??;
    match serde_json::from_str(&answer)? {
        Answer::Done => Ok(()),
        Answer::Refused(why) => Err(io::Error::other(why)),
    }
}

/// Connects and sends a request.
///
/// # Errors
/// When nobody listens there.
pub async fn open(socket: &std::path::Path, request: &Request) -> io::Result<UnixStream> {
    let stream = super::connect(socket)?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    let mut line = Zeroizing::new(serde_json::to_vec(request)?);
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream)
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: UnixListener, sidecar: Arc<Sidecar>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: they come back when connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let sidecar = Arc::clone(&sidecar);
        tokio::spawn(async move {
            // The peer may go at any time.
            let _ = answer(stream, &sidecar).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: UnixStream, sidecar: &Sidecar) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Zeroizing::new(Vec::new());
    let mut bounded = (&mut reader).take(REQUEST_BYTES);
    let read = bounded.read_until(b'\n', &mut line);
    tokio::time::timeout(REQUEST_TIME, read).await.map_err(io::Error::from)??;
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Logs(logs)) => return follow(sidecar.output(), &logs, &mut writer).await,
        Ok(Request::Watch) => return watch(sidecar, &mut reader, &mut writer).await,
        Ok(request) => sidecar.carry_out(request),
        Err(error) => Answer::Refused(format!("not a request: {error}")),
    };
    writer.write_all(&serde_json::to_vec(&answer)?).await
}

/// Writes a notice at every change until the peer goes.
async fn watch(
    sidecar: &Sidecar,
    reader: &mut (impl AsyncReadExt + Unpin),
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let _here = sidecar.controller_came();
    let (mut state, mut given) = (sidecar.state(), sidecar.given());
    let mut nothing = [0];
    loop {
        state.mark_unchanged();
        given.mark_unchanged();
        let notice = Notice { needs_secrets: given.borrow().is_none(), state: Some(state.borrow().clone()) };
        let mut line = serde_json::to_vec(&notice)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        tokio::select! {
            changed = state.changed() => changed.map_err(io::Error::other)?,
            changed = given.changed() => changed.map_err(io::Error::other)?,
            _ = reader.read(&mut nothing) => return Ok(()),
        }
    }
}

async fn follow(
    output: &Output,
    request: &LogsRequest,
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let mut progress = output.progress();
    let mut next = request.since;
    loop {
        let now = *progress.borrow_and_update();
        while next < now.length {
            let piece = output.since(next)?;
            writer.write_all(&piece.bytes).await?;
            next = piece.from + piece.bytes.len() as u64;
        }
        if now.ended || !request.follow {
            return writer.flush().await;
        }
        if progress.changed().await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_and_are_not_shown() {
        let value = || Value::from(&SecretString::from("hunter2"));
        let given = Given {
            token: Some(value()),
            git: vec![],
            env: vec![("KEY".into(), value())],
            files: vec![("f".into(), value())],
        };
        let request = Request::Provide(Box::new(given));
        assert!(!format!("{request:?}").contains("hunter2"));
        let Request::Provide(read) = serde_json::from_slice(&serde_json::to_vec(&request).unwrap()).unwrap()
        else {
            panic!("another request");
        };
        assert_eq!(read.env[0].1.text(), Some("hunter2"));
    }

    #[test]
    fn a_request_for_logs_is_that_of_the_port() {
        use crate::ports::workloads::sidecar;
        let request = sidecar::Request::Logs(LogsRequest { since: 7, follow: true });
        let read: Request = serde_json::from_value(serde_json::to_value(request).unwrap()).unwrap();
        assert!(matches!(read, Request::Logs(LogsRequest { since: 7, follow: true })));
    }
}
