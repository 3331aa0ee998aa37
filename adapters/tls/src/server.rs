//! What a server shows and asks for: read, checked, chosen by name, read again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::{CertificateRevocationListDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use serde::Deserialize;

use crate::CertificateError;
use crate::files::{read_all, read_key, read_roots};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Files (PEM) of certificates, each with those that vouch for it.
    pub certificate: Vec<PathBuf>,
    /// Files (PEM) of their private keys, in the same order.
    pub key: Vec<PathBuf>,
    pub min_version: Version,
    pub client_certificate: ClientCertificate,
    /// Files (PEM) of those who vouch for clients.
    pub client_ca: Vec<PathBuf>,
    /// Files (PEM) of lists of revoked certificates.
    pub client_crl: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Version {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    None,
    Optional,
    Required,
}

/// The settings of a server, and what was made of them last.
pub struct Certificates {
    /// What the settings are called: `mqtt.listeners.tls.tls`.
    key: Box<str>,
    settings: Settings,
    protocol: &'static [u8],
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    /// `protocol` is what is spoken over TLS, by its name in ALPN.
    ///
    /// # Errors
    /// A setting is missing, or a file cannot be used.
    pub fn read(
        key: impl Into<Box<str>>,
        settings: Settings,
        protocol: &'static [u8],
    ) -> Result<Self, CertificateError> {
        let key = key.into();
        let current = make(&key, &settings, protocol)?;
        Ok(Self {
            key,
            settings,
            protocol,
            current: RwLock::new(Arc::new(current)),
        })
    }

    /// Reads the files again, for connections to come. If something is wrong with them, all stays as it is.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let made = make(&self.key, &self.settings, self.protocol)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        Ok(())
    }

    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn make(key: &str, settings: &Settings, protocol: &[u8]) -> Result<ServerConfig, CertificateError> {
    let missing = |what| CertificateError::Missing {
        key: key.into(),
        what,
    };
    let provider = Arc::new(ring::default_provider());
    if settings.certificate.is_empty() {
        return Err(missing("certificate"));
    }
    if settings.certificate.len() != settings.key.len() {
        return Err(CertificateError::Uneven { key: key.into() });
    }
    let mut certified = Vec::new();
    for (chain, private) in settings.certificate.iter().zip(&settings.key) {
        certified.push(Arc::new(read_pair(key, chain, private, &provider)?));
    }
    let versions = match settings.min_version {
        Version::V1_2 => &[&TLS13, &TLS12][..],
        Version::V1_3 => &[&TLS13][..],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|source| CertificateError::Use {
            key: key.into(),
            path: settings.certificate[0].clone(),
            source,
        })?;
    let asks = settings.client_certificate != ClientCertificate::None;
    let builder = if asks {
        if settings.client_ca.is_empty() {
            return Err(missing("client_ca"));
        }
        builder.with_client_cert_verifier(client_verifier(key, settings, provider)?)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(certified)));
    config.alpn_protocols = vec![protocol.to_vec()];
    if asks {
        // Who resumes is not asked for its certificate again, which may have expired or been revoked.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else if let Ok(ticketer) = Ticketer::new() {
        // Tickets are kept by clients, so that a fleet of any size can resume.
        config.ticketer = ticketer;
    }
    Ok(config)
}

fn client_verifier(
    key: &str,
    settings: &Settings,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let roots = read_roots(key, settings.client_ca.iter().map(PathBuf::as_path))?;
    let mut lists = Vec::new();
    for path in &settings.client_crl {
        lists.extend(read_all::<CertificateRevocationListDer<'static>>(
            key, path,
        )?);
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    if !settings.client_crl.is_empty() {
        builder = builder.only_check_end_entity_revocation();
    }
    if settings.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|source| CertificateError::Clients {
        key: key.into(),
        source,
    })
}

fn read_pair(
    key: &str,
    chain: &Path,
    private: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let certificates = read_all(key, chain)?;
    let secret = read_key(key, private)?;
    CertifiedKey::from_der(certificates, secret, provider).map_err(|source| CertificateError::Use {
        key: key.into(),
        path: chain.into(),
        source,
    })
}

/// Chooses the certificate that is valid for the name a client asks for; the first one for all others.
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else {
            return self.0.first().cloned();
        };
        let fits = ServerName::try_from(name)
            .ok()
            .and_then(|name| self.0.iter().find(|it| is_valid_for(it, &name)));
        fits.or_else(|| self.0.first()).cloned()
    }
}

fn is_valid_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certified.cert.first().map(ParsedCertificate::try_from);
    matches!(parsed, Some(Ok(parsed)) if rustls::client::verify_server_name(&parsed, name).is_ok())
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}
