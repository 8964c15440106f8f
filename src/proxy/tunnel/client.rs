//! The sidecar's end of a tunnel.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use super::{Endpoint, LINE_BYTES, Preamble, Target, Verdict};

/// How long the proxy may take to accept and to shake hands.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to answer; longer than it gives a name to resolve and addresses to accept.
const ANSWER: Duration = Duration::from_mins(1);

/// An open tunnel: the bytes of its target.
pub type Stream = BufReader<TlsStream<TcpStream>>;

/// Why tunnels cannot be made with what a pod was told.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The authorities are no certificates.
    #[error("the authorities of the egress proxy are not PEM certificates")]
    Authorities(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not a name that a certificate can have.
    #[error("{name:?} is not a server name")]
    ServerName {
        /// What was given.
        name: String,
        /// Why not.
        #[source]
        source: rustls::pki_types::InvalidDnsNameError,
    },
    /// The TLS library refuses its own settings.
    #[error("TLS 1.3 cannot be used")]
    Tls(#[source] rustls::Error),
}

/// Why a tunnel is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The proxy says no; trying again changes nothing.
    #[error("the egress proxy refuses: {message}")]
    Denied {
        /// In its words: which rule, or what would open it.
        message: String,
    },
    /// The proxy cannot reach the target now.
    #[error("the egress proxy cannot reach it: {message}")]
    Unreachable {
        /// In its words.
        message: String,
    },
    /// The pod's token cannot be read.
    #[error("the token {} cannot be read", file.display())]
    Token {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy cannot be reached, is not the one we know, or does not answer as one.
    #[error("the egress proxy {address} cannot be used: {what}")]
    Proxy {
        /// Where it should be.
        address: SocketAddr,
        /// Which step failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens tunnels. Cloning it gives another handle on the same settings.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    tokens: PathBuf,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of this proxy, with the tokens of a folder: one file for each audience and named as it, which is read anew for every tunnel, because
    /// the kubelet replaces it before it expires.
    ///
    /// # Errors
    /// When the endpoint's authorities or server name cannot be used.
    pub fn new(endpoint: &Endpoint, tokens: PathBuf) -> Result<Self, ClientError> {
        let server_name = ServerName::try_from(endpoint.server_name.clone())
            .map_err(|source| ClientError::ServerName { name: endpoint.server_name.clone(), source })?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(ClientError::Tls)?
            .with_root_certificates(authorities(&endpoint.authorities)?)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { address: endpoint.address, server_name, tls, tokens })
    }

    /// Opens a tunnel to a target, within 70 seconds or not at all.
    ///
    /// # Errors
    /// When the proxy refuses or cannot be used; see [`OpenError`].
    pub async fn open(&self, target: &Target) -> Result<Stream, OpenError> {
        match self.ask(target).await? {
            (Verdict::Open, stream) => Ok(stream),
            (Verdict::Denied { message }, _) => Err(OpenError::Denied { message }),
            (Verdict::Unreachable { message }, _) => Err(OpenError::Unreachable { message }),
            (Verdict::Proof { .. }, _) => Err(self.unexpected()),
        }
    }

    /// The address that the proxy sees this pod at, and how many connections from there its canary saw. An answer also shows that the proxy is alive.
    ///
    /// # Errors
    /// When the proxy refuses or cannot be used; see [`OpenError`].
    pub async fn proof(&self) -> Result<(IpAddr, u64), OpenError> {
        match self.ask(&Target::Proof).await? {
            (Verdict::Proof { address, canary_saw }, _) => Ok((address, canary_saw)),
            (Verdict::Denied { message }, _) => Err(OpenError::Denied { message }),
            (Verdict::Unreachable { message }, _) => Err(OpenError::Unreachable { message }),
            (Verdict::Open, _) => Err(self.unexpected()),
        }
    }

    async fn ask(&self, target: &Target) -> Result<(Verdict, Stream), OpenError> {
        let line = self.preamble(target).await?;
        let connected = timeout(CONNECT, self.connect()).await;
        let mut stream = BufReader::new(connected.map_err(|_| self.late("it does not accept"))??);
        let answered = timeout(ANSWER, exchange(&mut stream, &line)).await;
        let verdict = answered
            .map_err(|_| self.late("it does not answer"))?
            .map_err(|source| self.failed("it gave no answer that can be read", source))?;
        Ok((verdict, stream))
    }

    /// The first line, with a fresh token.
    async fn preamble(&self, target: &Target) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let file = self.tokens.join(target.audience());
        let unreadable = |source| OpenError::Token { file: file.clone(), source };
        let mut token = Zeroizing::new(String::new());
        let opened = tokio::fs::File::open(&file).await.map_err(unreadable)?;
        opened.take(LINE_BYTES as u64).read_to_string(&mut token).await.map_err(unreadable)?;
        let preamble = Preamble { token: SecretString::from(token.trim()), target: target.clone() };
        let mut line = Zeroizing::new(serde_json::to_vec(&preamble).map_err(|e| unreadable(e.into()))?);
        line.push(b'\n');
        if line.len() > LINE_BYTES {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a token")));
        }
        Ok(line)
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, OpenError> {
        let connected = TcpStream::connect(self.address).await;
        let tcp = connected.map_err(|source| self.failed("it does not accept", source))?;
        // Small writes of a protocol inside the tunnel must not wait for each other.
        tcp.set_nodelay(true).ok();
        let secured = self.tls.connect(self.server_name.clone(), tcp).await;
        secured.map_err(|source| self.failed("it does not prove who it is", source))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> OpenError {
        OpenError::Proxy { address: self.address, what, source }
    }

    fn late(&self, what: &'static str) -> OpenError {
        self.failed(what, io::ErrorKind::TimedOut.into())
    }

    fn unexpected(&self) -> OpenError {
        let source = io::Error::new(io::ErrorKind::InvalidData, "that answers another question");
        self.failed("it gave no answer that can be read", source)
    }
}

/// Writes the first line and reads the answer; what follows stays in the stream.
async fn exchange(stream: &mut Stream, line: &[u8]) -> io::Result<Verdict> {
    stream.write_all(line).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    (&mut *stream).take(LINE_BYTES as u64).read_until(b'\n', &mut answer).await?;
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

fn authorities(pem: &str) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| ClientError::Authorities(error.into()))?;
        roots.add(certificate).map_err(|error| ClientError::Authorities(error.into()))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Authorities("there is no certificate in them".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(server_name: &str, authorities: &str) -> Endpoint {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (server_name, authorities) = (server_name.to_owned(), authorities.to_owned());
        Endpoint { address, canary: address, recorder_name: server_name.clone(), server_name, authorities }
    }

    #[test]
    fn authorities_and_names_are_checked_at_once() {
        let refused = |name: &str, pem: &str| {
            Client::new(&endpoint(name, pem), PathBuf::new()).unwrap_err().to_string()
        };
        assert!(refused("proxy.test", "").contains("PEM"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused("proxy.test", broken).contains("PEM"));
        assert!(refused("not a name", "").contains("\"not a name\""));
    }
}
