//! Tries the ways out from inside, before the agent may.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::wire::{Probe, Seen};

/// The forwarder's port inside every place.
pub(super) const FORWARDER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 3128);
/// A network namespace without a route refuses at once; this bounds one that does not.
const DIAL_TIME: Duration = Duration::from_millis(500);
/// How long the proxy may take to answer; on a machine with too much to do that is seconds.
const PROOF_TIME: Duration = Duration::from_secs(30);
/// Most bytes of its answer.
const PROOF_BYTES: u64 = 8192;

/// Looks around.
pub(super) fn look(probe: &Probe) -> io::Result<Seen> {
    let dial = |address: &&SocketAddr| TcpStream::connect_timeout(address, DIAL_TIME).is_ok();
    Ok(Seen {
        interfaces: interfaces(&std::fs::read_to_string("/proc/net/dev")?),
        reached: probe.closed.iter().filter(dial).copied().collect(),
        proof: proof(&probe.proof_path).map_err(|error| error.to_string()),
    })
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

fn proof(path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&FORWARDER.into(), PROOF_TIME)?;
    stream.set_read_timeout(Some(PROOF_TIME))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ostler\r\nConnection: close\r\n\r\n")?;
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
}
