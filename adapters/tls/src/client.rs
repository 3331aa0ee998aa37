//! How a server elsewhere is spoken to: whom to trust, and what to show.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::CertificateError;
use crate::advice::{Advice, Report};
use crate::files::{read_all, read_key, read_roots};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Who vouches for servers; empty for whom this machine trusts.
    pub ca: PathBuf,
    /// Shown to who asks for it; empty for nothing.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// What the certificates of servers have to be for; empty for the host of their addresses.
    pub server_name: String,
}

impl Settings {
    /// A setting that makes no sense: its name, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let (certificate, key) = (is_set(&self.certificate), is_set(&self.key));
        let name = &self.server_name;
        [
            (certificate && !key, "key", "the private key of certificate"),
            (key && !certificate, "certificate", "the certificate of key"),
            (
                !name.is_empty() && ServerName::try_from(name.as_str()).is_err(),
                "server_name",
                "a name, such as things.example.org",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, name, problem)| wrong.then_some((name, problem)))
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Opens connections. Files are read for each of them, so they may be replaced.
pub struct Connector {
    /// What the settings are called: `grpc.client`.
    key: &'static str,
    settings: Settings,
    protocol: &'static [u8],
    report: Report,
}

impl Connector {
    /// `protocol` is what is to be spoken, by its name in ALPN; `report` is told of all that is wrong with TLS.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(
        key: &'static str,
        settings: Settings,
        protocol: &'static [u8],
        report: Report,
    ) -> Result<Self, CertificateError> {
        make(key, &settings, protocol)?;
        Ok(Self {
            key,
            settings,
            protocol,
            report,
        })
    }

    /// Connects to `host`, an IPv6 address without brackets, and makes sure who it is.
    ///
    /// # Errors
    /// It cannot be reached or is not trusted, in words that say what to do.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let (key, settings, protocol) = (self.key, self.settings.clone(), self.protocol);
        let config = tokio::task::spawn_blocking(move || make(key, &settings, protocol));
        let config = config.await.map_err(io::Error::other)?;
        let config = config.map_err(|error| {
            (self.report)(&error.to_string());
            io::Error::other(error)
        })?;
        let name = match self.settings.server_name.as_str() {
            "" => host,
            name => name,
        };
        let advice = Advice {
            report: Arc::clone(&self.report),
            key: self.key,
            name: name.into(),
        };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
        let tls = connecting.await.map_err(|error| advice.of(error))?;
        Ok(Stream { tls, advice })
    }
}

fn make(
    key: &'static str,
    settings: &Settings,
    protocol: &[u8],
) -> Result<ClientConfig, CertificateError> {
    let wrong = |source| CertificateError::Use {
        key: key.into(),
        path: settings.certificate.clone(),
        source,
    };
    let roots = match is_set(&settings.ca) {
        true => read_roots(key, [&*settings.ca])?,
        false => native_roots(key)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(wrong)?
        .with_root_certificates(roots);
    let mut config = match is_set(&settings.certificate) {
        true => {
            let chain = read_all::<CertificateDer<'static>>(key, &settings.certificate)?;
            let private = read_key(key, &settings.key)?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(wrong)?
        }
        false => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn native_roots(key: &str) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(CertificateError::NoRoots { key: key.into() }),
        false => Ok(roots),
    }
}

/// A connection. What goes wrong with TLS later on is told in words that say what to do, too: in TLS 1.3 a server says
/// of the certificate of its client what it thinks when the handshake is over for that one.
pub struct Stream {
    tls: TlsStream<TcpStream>,
    advice: Advice,
}

impl Stream {
    fn explain<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        done.map_err(|error| self.advice.of(error))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tls).poll_read(context, buffer);
        self.explain(done)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tls).poll_write(context, bytes);
        self.explain(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tls).poll_write_vectored(context, slices);
        self.explain(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tls).poll_flush(context);
        self.explain(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tls).poll_shutdown(context);
        self.explain(done)
    }
}
