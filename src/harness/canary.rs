//! The canary: addresses of this machine that a confined process must not reach, and the judgement of its attempts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{net::TcpListener, task::JoinSet};

use crate::shim::wire::Seen;

/// The metadata service of clouds, and an address that nobody has (RFC 5737) for the way to the outside.
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443),
];

/// Listening sockets on this machine's own addresses. They close when it is dropped.
#[derive(Debug)]
pub(super) struct Canary {
    addresses: Vec<SocketAddr>,
    heard: Arc<AtomicU64>,
    _listening: JoinSet<()>,
}

impl Canary {
    /// Listens on loopback and on the address that this machine has towards the outside.
    pub(super) async fn listen() -> io::Result<Self> {
        let heard = Arc::new(AtomicU64::new(0));
        let mut addresses = Vec::new();
        let mut listening = JoinSet::new();
        let own =
            [Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), towards_outside()];
        for address in own.into_iter().flatten() {
            // A machine may be without IPv6.
            let Ok(listener) = TcpListener::bind((address, 0)).await else { continue };
            addresses.push(listener.local_addr()?);
            let heard = Arc::clone(&heard);
            listening.spawn(async move {
                while listener.accept().await.is_ok() {
                    heard.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        if addresses.is_empty() {
            return Err(io::Error::other("no address of this machine can be listened on"));
        }
        Ok(Self { addresses, heard, _listening: listening })
    }

    /// What must not be reached.
    pub(super) fn closed(&self) -> Vec<SocketAddr> {
        self.addresses.iter().copied().chain(OUTSIDE).collect()
    }

    /// The proof in words, or what is open.
    pub(super) fn judge(&self, seen: &Seen, nonce: &str) -> Result<String, String> {
        judge(seen, nonce, self.heard.load(Ordering::SeqCst), self.closed().len())
    }
}

/// The address from which this machine would talk to the outside. Nothing is sent.
fn towards_outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(OUTSIDE[1]).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

fn judge(seen: &Seen, nonce: &str, heard: u64, dialled: usize) -> Result<String, String> {
    if seen.interfaces != ["lo"] {
        return Err(format!("the place has the network interfaces {}", seen.interfaces.join(", ")));
    }
    if !seen.reached.is_empty() || heard > 0 {
        let reached: Vec<_> = seen.reached.iter().map(SocketAddr::to_string).collect();
        return Err(format!("from inside these addresses answered: {} ({heard} heard)", reached.join(", ")));
    }
    match &seen.proof {
        Ok(proof) if proof == nonce => Ok(format!(
            "no interface but lo; {dialled} addresses of this machine and outside refused; the proxy's nonce came through"
        )),
        Ok(_) => Err("something else than the run's proxy answers inside".to_owned()),
        Err(why) => Err(format!("the run's proxy does not answer inside: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_open_is_no_proof() {
        let closed = Seen { interfaces: vec!["lo".into()], reached: vec![], proof: Ok("n".into()) };
        assert!(judge(&closed, "n", 0, 4).is_ok());
        let open = [
            judge(&Seen { interfaces: vec!["lo".into(), "eth0".into()], ..closed.clone() }, "n", 0, 4),
            judge(&Seen { interfaces: vec![], ..closed.clone() }, "n", 0, 4),
            judge(&Seen { reached: vec![OUTSIDE[0]], ..closed.clone() }, "n", 0, 4),
            judge(&closed, "n", 1, 4),
            judge(&closed, "other", 0, 4),
            judge(&Seen { proof: Err("refused".into()), ..closed.clone() }, "n", 0, 4),
        ];
        assert!(open.iter().all(Result::is_err), "{open:?}");
    }

    #[tokio::test]
    async fn it_hears_whoever_comes() {
        let canary = Canary::listen().await.unwrap();
        drop(tokio::net::TcpStream::connect(canary.addresses[0]).await.unwrap());
        let seen = Seen { interfaces: vec!["lo".into()], reached: vec![], proof: Ok("n".into()) };
        while canary.heard.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(canary.judge(&seen, "n").is_err());
    }
}
