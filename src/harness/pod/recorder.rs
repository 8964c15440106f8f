//! The way to the recorder: TLS with the recorder itself, inside a tunnel of the egress proxy.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Surroundings, TOKENS};
use crate::proxy::tunnel::{Endpoint, Stream, Target};

/// How long the recorder may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Most bytes of a token.
const TOKEN_BYTES: u64 = 16 << 10;

/// Opens a connection to the recorder, and reads the token that it knows this pod by.
pub(in crate::harness) async fn reach_recorder(
    pod: &Surroundings,
) -> io::Result<(TlsStream<Stream>, SecretString)> {
    let token = token(pod).await?;
    let tunnel =
        pod.client().map_err(io::Error::other)?.open(&Target::Recorder).await.map_err(io::Error::other)?;
    let name = ServerName::try_from(pod.proxy.recorder_name.clone()).map_err(io::Error::other)?;
    let stream = tokio::time::timeout(HANDSHAKE, connector(&pod.proxy)?.connect(name, tunnel)).await??;
    Ok((stream, token))
}

/// Read anew every time: the kubelet replaces it before it expires.
async fn token(pod: &Surroundings) -> io::Result<SecretString> {
    let [.., audience] = TOKENS;
    let file = tokio::fs::File::open(pod.layout.tokens().join(audience)).await?;
    let mut token = zeroize::Zeroizing::new(String::new());
    file.take(TOKEN_BYTES).read_to_string(&mut token).await?;
    Ok(SecretString::from(token.trim()))
}

fn connector(endpoint: &Endpoint) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(endpoint.authorities.as_bytes()) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
