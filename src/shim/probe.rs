//! Tries the ways out from inside, before the agent may.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpStream as AsyncStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::wire::{Probe, Seen};

/// The forwarder's port inside every place.
pub const FORWARDER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 3128);
/// How long the last dials may take: what has not answered by then is refused. A network namespace without a route refuses
/// at once, a network policy may just drop packets.
const DIAL_TIME: Duration = Duration::from_millis(500);
/// How long the proxy may take to answer; on a machine with too much to do that is seconds.
const PROOF_TIME: Duration = Duration::from_secs(30);
/// Most bytes of its answer.
const PROOF_BYTES: u64 = 8192;
/// Most dials of a probe: each may hold a descriptor until the end.
const DIALS: u32 = 128;
/// A question that every server of names answers: who serves the root (RFC 1035, 4.1).
const QUESTION: [u8; 17] = [0x6f, 0x73, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Looks around.
pub(super) fn look(probe: &Probe) -> io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(Seen {
        interfaces: interfaces(&std::fs::read_to_string("/proc/net/dev")?),
        reached: runtime.block_on(dial(probe)),
        proof: proof(probe).map_err(|error| error.to_string()),
    })
}

/// Dials everything again and again. A dial is waited for until all are over, so that an answer that comes late counts.
async fn dial(probe: &Probe) -> Vec<SocketAddr> {
    let (dials, pause) = (probe.dials.clamp(1, DIALS), Duration::from_millis(probe.pause_ms));
    let began = Instant::now();
    let end = began + pause * (dials - 1) + DIAL_TIME;
    let reached = Reached::default();
    let mut open = JoinSet::new();
    for number in 0..dials {
        sleep_until(began + pause * number).await;
        if probe.canary.is_some_and(|canary| reached.has(canary)) {
            return reached.all();
        }
        for address in probe.closed.iter().copied() {
            open.spawn(
                reached.clone().note(
                    address,
                    end,
                    async move { AsyncStream::connect(address).await.map(drop) },
                ),
            );
        }
        for address in probe.silent.iter().copied() {
            open.spawn(reached.clone().note(address, end, ask(address)));
        }
    }
    while open.join_next().await.is_some() {}
    reached.all()
}

/// What answered so far.
#[derive(Clone, Default)]
struct Reached(Arc<Mutex<BTreeSet<SocketAddr>>>);

impl Reached {
    async fn note(self, address: SocketAddr, end: Instant, dial: impl Future<Output = io::Result<()>>) {
        if matches!(timeout_at(end, dial).await, Ok(Ok(()))) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        }
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// Asks a server of names, and waits for any answer from there.
async fn ask(address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&QUESTION).await?;
    socket.recv(&mut [0; 512]).await.map(drop)
}

/// The names in a table as in `proc_net(5)`: two lines of headings, then `name: counters`.
fn interfaces(table: &str) -> Vec<String> {
    table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

fn proof(probe: &Probe) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&probe.forwarder, PROOF_TIME)?;
    stream.set_read_timeout(Some(PROOF_TIME))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: ostler\r\nConnection: close\r\n\r\n", probe.proof_path)?;
    let mut answer = String::new();
    stream.take(PROOF_BYTES).read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer of the proxy"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other("the proxy did not prove itself"));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0:12 0\n";
        assert_eq!(interfaces(table), ["lo", "eth0"]);
    }

    #[tokio::test]
    async fn what_answers_is_reached_and_what_refuses_or_is_silent_is_not() {
        let open = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Bound and not listening: it refuses, and nobody else gets the port meanwhile.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let probe = Probe {
            canary: None,
            closed: vec![open.local_addr().unwrap(), closed.local_addr().unwrap()],
            silent: vec![names.local_addr().unwrap(), silent.local_addr().unwrap()],
            dials: 2,
            pause_ms: 1,
            forwarder: FORWARDER.into(),
            proof_path: "/".to_owned(),
        };
        let answering = async {
            loop {
                let (_, from) = names.recv_from(&mut [0; 512]).await.unwrap();
                names.send_to(b"anything", from).await.unwrap();
            }
        };
        let mut reached = tokio::select! {
            reached = dial(&probe) => reached,
            () = answering => unreachable!(),
        };
        reached.sort_unstable();
        let mut expected = vec![probe.closed[0], probe.silent[0]];
        expected.sort_unstable();
        assert_eq!(reached, expected);
    }
}
