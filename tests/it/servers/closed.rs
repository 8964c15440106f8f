//! An address where nobody listens.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// An address that refuses connections. It is taken for as long as this lives, so that no other test gets it meanwhile.
pub(crate) struct Closed {
    socket: TcpSocket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
