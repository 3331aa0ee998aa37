//! Those who vouch for servers and clients, and what clients of TLS make of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::client::Layer;

/// An authority, with its files in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    serial: u64,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority = Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        };
        fs::write(authority.file(), certificate.pem()).expect("written");
        authority
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    pub(crate) fn server(&self, name: &str, serial: u64) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        self.issue(params, name, serial)
    }

    /// For a thing that is named by a URI.
    pub(crate) fn client(&self, thing: &str, serial: u64) -> Pair {
        let mut params = CertificateParams::default();
        let uri = format!("urn:uuid:{thing}").try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        self.issue(params, "client", serial)
    }

    pub(crate) fn issue(&self, mut params: CertificateParams, name: &str, serial: u64) -> Pair {
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |what: &str| {
            self.folder
                .join(format!("{}-{name}-{serial}.{what}", self.name))
        };
        let pair = Pair {
            certificate: file("pem"),
            key: file("key"),
            serial,
        };
        fs::write(&pair.certificate, certificate.pem()).expect("written");
        fs::write(&pair.key, key.serialize_pem()).expect("written");
        pair
    }

    /// Its list of revoked certificates.
    pub(crate) fn revoke(&self, pairs: &[&Pair]) -> PathBuf {
        let revoked_certs = pairs.iter().map(|pair| RevokedCertParams {
            serial_number: SerialNumber::from(pair.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        let path = self.folder.join(format!("{}.crl", self.name));
        fs::write(&path, list.pem().expect("PEM")).expect("written");
        path
    }

    /// A client that trusts this authority.
    pub(crate) fn trusting(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_file(self.file()).expect("a certificate");
        roots.add(own).expect("sound");
        Trust {
            roots: Arc::new(roots),
            pair: None,
            protocols: Vec::new(),
            name: "localhost".to_owned(),
            versions: rustls::ALL_VERSIONS,
        }
    }
}

/// How a client speaks TLS.
#[derive(Clone)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    pair: Option<Pair>,
    protocols: Vec<Vec<u8>>,
    name: String,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl Trust {
    pub(crate) fn with(mut self, pair: &Pair) -> Self {
        self.pair = Some(pair.clone());
        self
    }

    pub(crate) fn alpn(mut self, protocol: &str) -> Self {
        self.protocols.push(protocol.as_bytes().to_vec());
        self
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(crate) fn only(
        mut self,
        version: &'static [&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        self.versions = version;
        self
    }

    pub(crate) fn layer(&self) -> Box<Tls> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("known versions")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.certificate).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        Box::new(Tls(
            ClientConnection::new(Arc::new(config), name).expect("sound")
        ))
    }
}

pub(crate) struct Tls(pub(crate) ClientConnection);

impl Tls {
    /// The certificate of the server.
    pub(crate) fn handshake(&mut self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        self.0.complete_io(stream)?;
        Ok(self.0.peer_certificates().expect("done")[0].to_vec())
    }
}

impl Layer for Tls {
    fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut tls = rustls::Stream::new(&mut self.0, stream);
        tls.write_all(bytes)?;
        tls.flush()
    }

    fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.0, stream).read(buffer)
    }
}
