//! One tunnel, from the handshake to its end.

use std::{error::Error as _, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::{Caller, Refusal, Shared, clones};
use crate::{
    egress::{Decision, Request},
    proxy::{
        answer,
        dial::{self, Failure},
        meter::{Activity, Metered},
        tunnel::{LINE_BYTES, Preamble, Target, Verdict},
    },
};

/// How long a target may take to be open, over all its addresses; with who calls, less than a caller waits.
const CONSIDER: Duration = Duration::from_secs(35);

/// The caller's side of a tunnel.
pub(super) type Client = BufReader<TlsStream<TcpStream>>;

/// What stands behind an open tunnel.
enum Way {
    Bytes(TcpStream),
    Transfer(TcpStream),
    Clone(Box<clones::Repository>),
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tls: TlsAcceptor, tcp: TcpStream, from: IpAddr) {
    tcp.set_nodelay(true).ok();
    let greeted = timeout(shared.limits.preamble_time, greet(tls, tcp)).await;
    let (mut client, preamble) = match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(greeted) => greeted,
        Err(error) => {
            shared.counts.malformed();
            tracing::debug!(target: "ostler::egress", %from, %error, "a caller did not say what it wants");
            return;
        }
    };
    let target = preamble.target;
    let identified = shared.callers.identify(&preamble.token, target.audience(), from).await;
    let (verdict, way) = match &identified {
        Ok(caller) => {
            let considered = timeout(CONSIDER, consider(&shared, caller, from, &target)).await;
            considered.unwrap_or_else(|_| {
                (Verdict::Unreachable { message: "The target did not answer in time.".to_owned() }, None)
            })
        }
        Err(Refusal::Stranger(message)) => (Verdict::Denied { message: message.clone() }, None),
        Err(Refusal::NotYet(message)) => (Verdict::Unreachable { message: message.clone() }, None),
    };
    report(&shared, identified.ok().as_ref(), from, &target, &verdict);
    if timeout(shared.limits.preamble_time, tell(&mut client, &verdict)).await.is_ok_and(|told| told.is_ok())
        && let Some(way) = way
    {
        let _open = shared.counts.opened();
        carry(&shared, client, way).await;
    }
}

/// The handshake, and the first line.
async fn greet(tls: TlsAcceptor, tcp: TcpStream) -> io::Result<(Client, Preamble)> {
    let mut client = BufReader::new(tls.accept(tcp).await?);
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES));
    (&mut client).take(LINE_BYTES as u64).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first line has no end"));
    }
    // the parser's own words may hold a piece of the token
    let read = serde_json::from_slice(&line);
    let preamble =
        read.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the first line is no preamble"))?;
    Ok((client, preamble))
}

async fn tell(client: &mut Client, verdict: &Verdict) -> io::Result<()> {
    let mut line = serde_json::to_vec(verdict)?;
    line.push(b'\n');
    client.write_all(&line).await?;
    client.flush().await?;
    if *verdict == Verdict::Open { Ok(()) } else { client.shutdown().await }
}

async fn consider(shared: &Shared, caller: &Caller, from: IpAddr, target: &Target) -> (Verdict, Option<Way>) {
    let reached = match target {
        Target::Connect { host, port } => connect(shared, caller, host, *port).await.map(Way::Bytes),
        Target::Recorder => recorder(shared).await.map(Way::Transfer),
        Target::Clone { url } => {
            clones::Repository::find(shared, caller, url).await.map(|found| Way::Clone(Box::new(found)))
        }
        Target::Proof => {
            let canary_saw = shared.canary.saw(from, caller.since);
            return (Verdict::Proof { address: from, canary_saw }, None);
        }
    };
    match reached {
        Ok(way) => (Verdict::Open, Some(way)),
        Err(verdict) => (verdict, None),
    }
}

async fn connect(shared: &Shared, caller: &Caller, host: &str, port: u16) -> Result<TcpStream, Verdict> {
    let host = match host.parse() {
        Ok(host) if port != 0 => host,
        Ok(_) => {
            return Err(Verdict::Denied { message: "The target names no port that can be used.".to_owned() });
        }
        Err(fault) => {
            return Err(Verdict::Denied { message: format!("The target's host cannot be used: {fault}.") });
        }
    };
    let request = Request::tunnel(host, port);
    // What the agent's proxy saw of a plain request is not seen here: a rule that asks for it was judged there.
    let audited = |decision: &Decision| {
        if decision.is_allowed() && decision.reason().is_some() {
            tracing::warn!(target: "ostler::egress", pod = caller.pod, "{decision}");
        }
    };
    let dialled = dial::direct(&shared.resolver, &shared.limits.dial, &caller.rules, request, audited).await;
    dialled.map_err(|failure| match failure {
        Failure::Denied(decision) => Verdict::Denied { message: answer::refusal(&decision) },
        failure => Verdict::Unreachable { message: unreachable(&failure) },
    })
}

fn unreachable(failure: &Failure) -> String {
    match failure {
        Failure::Unresolved(host, Some(error)) => format!("{host} does not resolve: {error}"),
        Failure::Unresolved(host, None) => format!("{host} has no address"),
        Failure::Unreachable(host, error) => format!("{host} cannot be reached: {error}"),
        Failure::TimedOut(host, port) => format!("{host}:{port} did not answer in time"),
        Failure::Denied(decision) => decision.to_string(),
        Failure::Refused(message) => message.clone(),
        Failure::Tunnel(error) => error.to_string(),
    }
}

async fn recorder(shared: &Shared) -> Result<TcpStream, Verdict> {
    let limits = &shared.limits.dial;
    let connecting = TcpStream::connect(&shared.recorder);
    let connected = timeout(limits.resolve_time + limits.connect_time, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let tcp = connected.map_err(|error| Verdict::Unreachable {
        message: format!("the recorder cannot be reached: {error}"),
    })?;
    tcp.set_nodelay(true).ok();
    Ok(tcp)
}

/// The trail of what was asked for and not given. It holds names, never a token.
fn report(shared: &Shared, caller: Option<&Caller>, from: IpAddr, target: &Target, verdict: &Verdict) {
    let (word, message) = match verdict {
        Verdict::Open => ("open", None),
        Verdict::Proof { .. } => ("proof", None),
        Verdict::Denied { message } => ("denied", Some(message)),
        Verdict::Unreachable { message } => ("unreachable", Some(message)),
    };
    let (kind, named) = match target {
        Target::Connect { host, port } => ("connect", format!("{host}:{port}")),
        Target::Recorder => ("recorder", shared.recorder.clone()),
        Target::Clone { url } => ("clone", url.clone()),
        Target::Proof => ("proof", String::new()),
    };
    shared.counts.answered(kind, word);
    if let Some(message) = message {
        let namespace = caller.map(|caller| caller.namespace.as_str());
        let pod = caller.map(|caller| caller.pod.as_str());
        // what the caller wrote may be long, and anything
        let named: String = named.chars().take(256).collect();
        tracing::warn!(target: "ostler::audit", namespace, pod, %from, target = kind, ?named, decision = word, reason = message);
    }
}

/// Moves bytes until either side ends, nothing moves for too long, or the time of a transfer is up.
async fn carry(shared: &Arc<Shared>, mut client: Client, way: Way) {
    let activity = Arc::new(Activity::default());
    let counts = || Arc::new(shared.counts.clone());
    let idle = activity.ceases(shared.limits.dial.idle_time);
    let moving = async {
        match way {
            Way::Bytes(tcp) => {
                let mut target = Metered::new(tcp, Arc::clone(&activity), counts());
                // Either side may break off at any time; that is how most tunnels end.
                let _ = copy_bidirectional(&mut client, &mut target).await;
            }
            Way::Transfer(tcp) => {
                let mut target = Metered::new(tcp, Arc::clone(&activity), counts());
                let copying = copy_bidirectional(&mut client, &mut target);
                let _ = timeout(shared.limits.transfer_time, copying).await;
            }
            Way::Clone(repository) => {
                // seen from the repository: what goes down to the client is what it sends
                let client = Metered::new(client, Arc::clone(&activity), counts());
                let serving = repository.serve(shared, client);
                if let Ok(Err(error)) = timeout(shared.limits.transfer_time, serving).await {
                    let why = error.source().map(ToString::to_string);
                    tracing::debug!(target: "ostler::egress", %error, why, "a clone ended");
                }
            }
        }
    };
    tokio::select! {
        () = moving => {}
        () = idle => {}
    }
}
