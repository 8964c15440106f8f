//! The gateway's certificate, which its issuer replaces while we run.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Why a certificate cannot be used. No text holds the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} has no {what} as PEM", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("{} and its key cannot be used", file.display())]
    Pair {
        /// The certificate's file.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate and its key, by their files. Cloning it gives another handle.
#[derive(Clone)]
pub struct Certificate {
    files: Files,
    newest: Arc<RwLock<TlsAcceptor>>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The bytes of both files: what tells one state of them from another.
type Content = (Vec<u8>, zeroize::Zeroizing<Vec<u8>>);

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let acceptor = files.acceptor(&files.content()?)?;
        Ok(Self { files, newest: Arc::new(RwLock::new(acceptor)) })
    }

    /// Reads the files again, so often, and uses what they hold once that has changed. Never ends. What cannot be used is logged, and the former pair stays.
    pub async fn follow(&self, interval: Duration) {
        let mut used = self.files.content().ok();
        loop {
            tokio::time::sleep(interval).await;
            let files = self.files.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || files.content()).await else { continue };
            let content = read.as_ref().ok();
            if content.is_some() && content == used.as_ref() {
                continue;
            }
            match read.and_then(|content| Ok((self.files.acceptor(&content)?, content))) {
                Ok((acceptor, content)) => {
                    *self.newest.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                    used = Some(content);
                    tracing::info!(target: "ostler::egress", "the certificate was read again");
                }
                // The two files are not replaced in one step everywhere: a pair that does not fit may fit in a moment.
                Err(error) => tracing::warn!(
                    target: "ostler::egress",
                    error = &error as &dyn std::error::Error,
                    "the new certificate cannot be used; the former one stays"
                ),
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Files {
    fn content(&self) -> Result<Content, CertificateError> {
        let read = |file: &PathBuf| {
            std::fs::read(file).map_err(|source| CertificateError::Read { file: file.clone(), source })
        };
        Ok((read(&self.certificate)?, read(&self.key)?.into()))
    }

    fn acceptor(&self, (certificate, key): &Content) -> Result<TlsAcceptor, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(CertificateError::Pem { file: self.certificate.clone(), what: "certificate" });
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| CertificateError::Pem { file: self.key.clone(), what: "private key" })?;
        let unusable = |source| CertificateError::Pair { file: self.certificate.clone(), source };
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
