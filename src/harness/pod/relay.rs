//! Git's way to one repository: a port of this pod's loopback whose connections are tunnels to it.
//!
//! The proxy adds the credential, so there is none in the pod; and it lets only reading through, until the agent starts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{io::copy_bidirectional, net::TcpStream, sync::Semaphore};

use crate::{
    harness::sidecar::AbortOnDrop,
    proxy::tunnel::{Client, OpenError, Target},
};

/// Connections at one time. Git makes one after the other.
const CONNECTIONS: usize = 8;

/// The port; it closes when this is dropped.
#[derive(Debug)]
pub(in crate::harness) struct Relay {
    address: SocketAddr,
    refusal: Arc<Mutex<Option<OpenError>>>,
    _serving: AbortOnDrop,
}

impl Relay {
    /// Opens the port for one repository. Needs a tokio runtime.
    pub(in crate::harness) fn open(client: Client, url: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let refusal: Arc<Mutex<Option<OpenError>>> = Arc::default();
        let serving =
            Serving { client, target: Target::Clone { url: url.to_owned() }, refusal: Arc::clone(&refusal) };
        let handle = tokio::runtime::Handle::current();
        let listener = {
            let _entered = handle.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let serving = handle.spawn(serving.serve(listener));
        Ok(Self { address, refusal, _serving: AbortOnDrop(serving.abort_handle()) })
    }

    /// Where Git finds the repository.
    pub(in crate::harness) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Why the last tunnel was not opened. Git itself only sees connections that end.
    pub(in crate::harness) fn refusal(&self) -> Option<OpenError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Clone)]
struct Serving {
    client: Client,
    target: Target,
    refusal: Arc<Mutex<Option<OpenError>>>,
}

impl Serving {
    async fn serve(self, listener: tokio::net::TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Connections end with whoever serves them.
        let mut open = tokio::task::JoinSet::new();
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((git, _)) = listener.accept().await else { return };
            let this = self.clone();
            open.spawn(async move {
                this.pass(git).await;
                drop(place);
            });
            while open.try_join_next().is_some() {}
        }
    }

    async fn pass(self, mut git: TcpStream) {
        match self.client.open(&self.target).await {
            // Either side may break off; Git says what that means.
            Ok(mut tunnel) => drop(copy_bidirectional(&mut git, &mut tunnel).await),
            Err(error) => *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    }
}
