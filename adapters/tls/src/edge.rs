//! An edge whose clients are services and people: one certificate, and clients that have to show theirs, or nobody has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::CertificateError;
use crate::server::{Certificates, ClientCertificate, Settings, Version};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Empty for no TLS.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who vouches for clients; empty for clients that need not show anything.
    pub client_ca: PathBuf,
    pub client_crl: PathBuf,
}

impl Edge {
    #[must_use]
    pub fn is_on(&self) -> bool {
        is_set(&self.certificate)
    }

    /// A setting that is of no use without another: its name, and what it lacks.
    #[must_use]
    pub fn lacks(&self) -> Option<(&'static str, &'static str)> {
        let (certificate, key) = (is_set(&self.certificate), is_set(&self.key));
        let (ca, crl) = (is_set(&self.client_ca), is_set(&self.client_crl));
        [
            (certificate && !key, "key", "the private key of certificate"),
            (key && !certificate, "certificate", "the certificate of key"),
            (ca && !certificate, "client_ca", "only with certificate"),
            (crl && !ca, "client_crl", "only with client_ca"),
        ]
        .into_iter()
        .find_map(|(wrong, name, problem)| wrong.then_some((name, problem)))
    }

    /// Reads what it names; `None` without TLS. `key` is what it is called, `protocol` what is spoken, by its name in ALPN.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn read(
        &self,
        key: &'static str,
        protocol: &'static [u8],
    ) -> Result<Option<Arc<Certificates>>, CertificateError> {
        if !self.is_on() {
            return Ok(None);
        }
        let list = |path: &PathBuf| Vec::from_iter(is_set(path).then(|| path.clone()));
        let settings = Settings {
            certificate: list(&self.certificate),
            key: list(&self.key),
            min_version: Version::V1_2,
            client_certificate: match is_set(&self.client_ca) {
                true => ClientCertificate::Required,
                false => ClientCertificate::None,
            },
            client_ca: list(&self.client_ca),
            client_crl: list(&self.client_crl),
        };
        let read = Certificates::read(key, settings, protocol)?;
        Ok(Some(Arc::new(read)))
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Does the handshake. Whoever fails is told why: the alert would be lost if the socket were closed on what the client has
/// sent meanwhile, so that is taken until it closes. It is the caller who gives up on it after a while.
///
/// # Errors
/// What was wrong with the client.
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    let (error, mut stream) = match accepting.await {
        Ok(stream) => return Ok(stream),
        Err(failed) => failed,
    };
    let mut ignored = [0; 1024];
    let mut left = MAX_IGNORED;
    if stream.shutdown().await.is_ok() {
        while let Ok(read @ 1..) = stream.read(&mut ignored).await
            && left > 0
        {
            left = left.saturating_sub(read);
        }
    }
    Err(error)
}

/// What a client may have said before it hears that it is refused.
const MAX_IGNORED: usize = 64 * 1024;
