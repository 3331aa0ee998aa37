//! The certificates of a listener, and the things that those of clients name.

use rollcall_domain::identity::ThingId;
use rollcall_tls::CertificateError;
use rollcall_tls::server::{Certificates, Settings};
use x509_parser::extensions::GeneralName;

use crate::config::{Carrier, Tls};

/// What a client and its listener agree to speak over TLS.
const MQTT: &[u8] = b"mqtt";
/// Beneath WebSocket.
const HTTP: &[u8] = b"http/1.1";

/// Reads what `settings`, which are called `key`, name.
pub(crate) fn read(
    key: String,
    settings: &Tls,
    carrier: Carrier,
) -> Result<Certificates, CertificateError> {
    let protocol = match carrier {
        Carrier::Wss => HTTP,
        _ => MQTT,
    };
    let settings = Settings {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        min_version: settings.min_version,
        client_certificate: settings.client_certificate,
        client_ca: settings.client_ca.clone(),
        client_crl: settings.client_crl.clone(),
    };
    Certificates::read(key, settings, protocol)
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
