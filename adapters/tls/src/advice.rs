//! Words for what is wrong between a client and a server, and what to do about it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error};

/// Is told what is wrong, as often as it is: an error may not come to who could tell of it.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// What a client may be told to look at.
pub(crate) struct Advice {
    pub(crate) report: Report,
    /// What its settings are called: `grpc.client`.
    pub(crate) key: &'static str,
    /// The name that the certificate of the server has to be for.
    pub(crate) name: Box<str>,
}

/// What is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(String);

impl Advice {
    /// The same error; if it is about TLS, in other words.
    pub(crate) fn of(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
        let words = match inner {
            Some(inner) => self.words(inner),
            // So tokio-rustls says it of a server that says nothing.
            None if kind == ErrorKind::UnexpectedEof => {
                "it has closed the connection in the middle of TLS".to_owned()
            }
            None => return error,
        };
        (self.report)(&words);
        io::Error::new(kind, Trouble(words))
    }

    fn words(&self, error: &Error) -> String {
        use AlertDescription as Alert;
        let Self { key, name, .. } = self;
        match error {
            Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::UnknownIssuer => {
                    format!("nobody who is trusted has signed its certificate: see {key}.ca")
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired: it needs a new one".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet: see the clocks of both machines".to_owned()
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => format!(
                    "its certificate is not for {name}: see the address, and {key}.server_name"
                ),
                other => format!("its certificate is not to be trusted: {other:?}"),
            },
            Error::AlertReceived(Alert::CertificateRequired) => {
                format!("it wants to see a certificate: set {key}.certificate and {key}.key")
            }
            Error::AlertReceived(Alert::UnknownCA) => format!(
                "it does not trust who has signed the certificate that it is shown: see {key}.certificate"
            ),
            Error::AlertReceived(Alert::CertificateExpired) => {
                format!("the certificate that it is shown has expired: see {key}.certificate")
            }
            Error::AlertReceived(Alert::CertificateRevoked) => {
                format!("the certificate that it is shown is revoked: see {key}.certificate")
            }
            Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateUnknown
                | Alert::DecryptError
                | Alert::AccessDenied,
            ) => {
                format!("it does not take the certificate that it is shown: see {key}.certificate")
            }
            Error::InvalidMessage(_) => {
                "it does not speak TLS: is http:// meant, or another port?".to_owned()
            }
            Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol) => {
                "it speaks something else: is another port meant?".to_owned()
            }
            other => format!("TLS has failed: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_tls_is_told_with_what_to_set() {
        let advice = Advice {
            report: Arc::new(|_| {}),
            key: "grpc.client",
            name: "things.example".into(),
        };
        let told = |error: Error| {
            let error = io::Error::new(ErrorKind::InvalidData, error);
            advice.of(error).to_string()
        };
        let certificate = |wrong| Error::InvalidCertificate(wrong);
        for (error, words) in [
            (
                certificate(CertificateError::UnknownIssuer),
                "grpc.client.ca",
            ),
            (certificate(CertificateError::Expired), "has expired"),
            (certificate(CertificateError::NotValidYet), "clocks"),
            (
                certificate(CertificateError::NotValidForName),
                "not for things.example: see the address, and grpc.client.server_name",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "set grpc.client.certificate",
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "see grpc.client.certificate",
            ),
        ] {
            let said = told(error);
            assert!(said.contains(words), "{said}");
        }
        let refused = advice.of(ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(refused.get_ref().is_none());
    }
}
