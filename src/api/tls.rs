//! Serving over TLS, with a certificate that may be renewed while we run.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// Pause after an error of the listener itself, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("{path} cannot be used as {what}")]
    File {
        /// The file.
        path: String,
        /// As what.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key are not a pair.
    #[error("the certificate {path} cannot be used with its key")]
    Pair {
        /// The certificate's file.
        path: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A certificate chain and its key, both PEM; looked at again for each connection.
#[derive(Debug)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Option<Stamp>, Arc<ServerConfig>)>,
}

/// What changes when either file is written or replaced.
type Stamp = [(u64, u64, i64, i64); 2];

impl TlsFiles {
    /// Loads both.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let stamp = stamp(&certificate, &key);
        let config = read(&certificate, &key)?;
        Ok(Self { certificate, key, loaded: Mutex::new((stamp, config)) })
    }

    /// What is served now. A pair that does not fit, such as one that is half written, leaves the former one in force.
    fn current(&self) -> Arc<ServerConfig> {
        let now = stamp(&self.certificate, &self.key);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && now != loaded.0 {
            match read(&self.certificate, &self.key) {
                Ok(config) => *loaded = (now, config),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the former certificate is served on"
                    );
                }
            }
        }
        loaded.1.clone()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Option<Stamp> {
    let of = |path: &Path| {
        fs::metadata(path).ok().map(|found| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    Some([of(certificate)?, of(key)?])
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path, what| {
        let path = path.display().to_string();
        move |source| TlsError::File { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(failed(certificate, "a certificate"))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(failed(key, "a private key"))?;
    let pair = |source| TlsError::Pair { path: certificate.display().to_string(), source };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)?;
    Ok(Arc::new(config))
}

/// A listener whose connections have done their handshake.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TlsListener {
    /// Listens.
    ///
    /// # Errors
    /// [`TlsError::Listen`].
    pub async fn bind(address: SocketAddr, files: TlsFiles) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (done, ready) = mpsc::channel(HANDSHAKES);
        Ok(Self { ready, address, accepting: tokio::spawn(accept(listener, files, done)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    files: TlsFiles,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, done) = (TlsAcceptor::from(files.current()), done.clone());
        tokio::spawn(async move {
            let _turn = turn;
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // nobody serves any more when this fails
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, error = &error as &dyn std::error::Error, "no handshake");
                }
                Err(_) => tracing::debug!(%peer, "no handshake in time"),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // the accepting task lives as long as we
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
