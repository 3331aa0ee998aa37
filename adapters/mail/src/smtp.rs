//! Mails go to an SMTP server.

use async_trait::async_trait;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use rollcall_domain::users::{Mail, MailError, Mailer};

use crate::template::Letters;
use crate::{Config, Encryption, OpenError};

pub(crate) struct Smtp {
    letters: Letters,
    server: AsyncSmtpTransport<Tokio1Executor>,
}

impl Smtp {
    pub(crate) fn open(letters: Letters, config: &Config) -> Result<Self, OpenError> {
        type Transport = AsyncSmtpTransport<Tokio1Executor>;
        let host = config.host.as_str();
        let tls = match config.encryption {
            Encryption::Starttls => Tls::Required(trust(config)?),
            Encryption::Tls => Tls::Wrapper(trust(config)?),
            Encryption::None => Tls::None,
        };
        let builder = Transport::builder_dangerous(host).tls(tls);
        let mut builder = builder.port(config.port).timeout(Some(config.timeout));
        if !config.user.is_empty() {
            let password = match config.password_file.as_os_str().is_empty() {
                true => config.password.expose().to_owned(),
                false => {
                    let path = &config.password_file;
                    let text = std::fs::read_to_string(path);
                    let text = text.map_err(|source| OpenError::Read {
                        path: path.clone(),
                        source,
                    })?;
                    text.trim_end_matches(['\r', '\n']).to_owned()
                }
            };
            builder = builder.credentials(Credentials::new(config.user.clone(), password));
        }
        Ok(Self {
            letters,
            server: builder.build(),
        })
    }
}

/// Who has to vouch for the server, by the name it is set by.
fn trust(config: &Config) -> Result<TlsParameters, OpenError> {
    let mut trust = TlsParameters::builder(config.host.clone());
    let path = &config.ca;
    if !path.as_os_str().is_empty() {
        let read = std::fs::read_to_string(path).and_then(|text| {
            let is_one = text.contains("-----BEGIN CERTIFICATE-----");
            let none = || std::io::Error::other("there is no certificate in it");
            is_one.then_some(text).ok_or_else(none)
        });
        let text = read.map_err(|source| OpenError::Read {
            path: path.clone(),
            source,
        })?;
        let authority =
            Certificate::from_pem(text.as_bytes()).map_err(|source| OpenError::Authority {
                path: path.clone(),
                source,
            })?;
        trust = trust.certificate_store(CertificateStore::None);
        trust = trust.add_root_certificate(authority);
    }
    trust.build_rustls().map_err(OpenError::Server)
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = self.letters.write(mail)?;
        match self.server.send(message).await {
            Ok(_) => Ok(()),
            // 5xx of this mail; a login that is refused is for the operator to put right.
            Err(error) if is_final(&error) => Err(MailError::Never(Box::new(error))),
            Err(error) => Err(MailError::Later(Box::new(error))),
        }
    }
}

/// 550 to 554: no such address, not to be had, refused. Others may be about the login or the server.
fn is_final(error: &Error) -> bool {
    let code = error.status().map(u16::from);
    error.is_permanent() && code.is_some_and(|code| (550..=554).contains(&code))
}
