//! The certificates of a listener: read, checked, chosen by name, read again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rollcall_domain::identity::ThingId;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;

use crate::config::{CertificateLogin, ClientCertificate, Tls, TlsVersion};

/// What a client and its listener agree to speak over TLS.
pub(crate) const MQTT: &[u8] = b"mqtt";
/// Beneath WebSocket.
pub(crate) const HTTP: &[u8] = b"http/1.1";

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{key}.{what} is not set")]
    Missing { key: Box<str>, what: &'static str },
    #[error("{key}: as many keys as certificates, please")]
    Uneven { key: Box<str> },
    #[error("{key}: cannot read {}", path.display())]
    Read {
        key: Box<str>,
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{key}: there is nothing in {}", path.display())]
    Empty { key: Box<str>, path: PathBuf },
    #[error("{key}: cannot use {}", path.display())]
    Use {
        key: Box<str>,
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{key}: cannot check certificates of clients")]
    Clients {
        key: Box<str>,
        #[source]
        source: VerifierBuilderError,
    },
}

/// The TLS settings of a listener, and what was made of them last.
pub(crate) struct Certificates {
    /// What the settings are called: `mqtt.listeners.tls.tls`.
    key: Box<str>,
    settings: Tls,
    protocol: &'static [u8],
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    pub(crate) fn read(
        key: String,
        settings: Tls,
        protocol: &'static [u8],
    ) -> Result<Self, CertificateError> {
        let key = key.into_boxed_str();
        let current = make(&key, &settings, protocol)?;
        Ok(Self {
            key,
            settings,
            protocol,
            current: RwLock::new(Arc::new(current)),
        })
    }

    /// Reads the files again, for connections to come. If something is wrong with them, all stays as it is.
    pub(crate) fn reload(&self) -> Result<(), CertificateError> {
        let made = make(&self.key, &self.settings, self.protocol)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        Ok(())
    }

    pub(crate) const fn login(&self) -> CertificateLogin {
        self.settings.certificate_login
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn make(key: &str, settings: &Tls, protocol: &[u8]) -> Result<ServerConfig, CertificateError> {
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
        TlsVersion::V1_2 => &[&TLS13, &TLS12][..],
        TlsVersion::V1_3 => &[&TLS13][..],
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
    settings: &Tls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for path in &settings.client_ca {
        for root in read_all::<CertificateDer<'static>>(key, path)? {
            roots.add(root).map_err(|source| CertificateError::Use {
                key: key.into(),
                path: path.clone(),
                source,
            })?;
        }
    }
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
    let secret =
        PrivateKeyDer::from_pem_file(private).map_err(|source| CertificateError::Read {
            key: key.into(),
            path: private.into(),
            source,
        })?;
    CertifiedKey::from_der(certificates, secret, provider).map_err(|source| CertificateError::Use {
        key: key.into(),
        path: chain.into(),
        source,
    })
}

/// The thing that the certificate of a client names: by a URI `urn:uuid:ID`, else by the common name of its
/// subject.
pub(crate) fn thing(certificate: &[u8]) -> Option<ThingId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let alternatives = parsed.subject_alternative_name().ok()?;
    let mut names = alternatives
        .iter()
        .flat_map(|it| &it.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("urn:uuid:"),
            _ => None,
        });
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().ok(),
        // Which one is meant?
        (Some(_), Some(_)) => None,
        (None, _) => parsed
            .subject()
            .iter_common_name()
            .next()?
            .as_str()
            .ok()?
            .parse()
            .ok(),
    }
}

/// All of one kind in a PEM file.
fn read_all<T: PemObject>(key: &str, path: &Path) -> Result<Vec<T>, CertificateError> {
    let wrong = |source| CertificateError::Read {
        key: key.into(),
        path: path.into(),
        source,
    };
    let found = T::pem_file_iter(path).map_err(wrong)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(CertificateError::Empty {
            key: key.into(),
            path: path.into(),
        });
    }
    Ok(found)
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
