//! The mail edge: mails go to an SMTP server, or into files where there is none.

mod files;
mod postman;
mod smtp;
mod template;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use rollcall_domain::identity::Secret;
use rollcall_domain::setting::choice;
use rollcall_domain::users::Mailer;
use serde::Deserialize;

pub use postman::{Doorbell, Postman};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The SMTP server; empty for files.
    pub host: String,
    pub port: u16,
    #[serde(deserialize_with = "choice")]
    pub encryption: Encryption,
    /// Who vouches for the server; empty for whom this machine trusts.
    pub ca: PathBuf,
    /// Empty for no login.
    pub user: String,
    pub password: Secret,
    /// Where the password is read from instead.
    pub password_file: PathBuf,
    pub from: String,
    /// Empty for the usual text.
    pub template: PathBuf,
    /// How long the server may take for a step of the conversation.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a mail is tried to be sent.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// The conversation begins in clear and must go on encrypted.
    Starttls,
    /// Encrypted from the beginning.
    Tls,
    None,
}

impl Config {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let day = Duration::from_secs(24 * 3_600);
        [
            (
                self.from.parse::<Mailbox>().is_err(),
                "mail.from",
                "an address, such as rollcall <noreply@example.com>",
            ),
            (self.port == 0, "mail.port", "from 1 to 65535"),
            (
                !(Duration::from_millis(100)..=Duration::from_secs(300)).contains(&self.timeout),
                "mail.timeout",
                "from 100ms to 5m",
            ),
            (
                !(Duration::from_secs(1)..=7 * day).contains(&self.give_up_after),
                "mail.give_up_after",
                "from 1s to 7d",
            ),
            (
                !self.password.expose().is_empty() && !self.password_file.as_os_str().is_empty(),
                "mail.password",
                "not with mail.password_file",
            ),
            (
                !self.user.is_empty() && self.encryption == Encryption::None && !self.is_here(),
                "mail.encryption",
                "a password goes encrypted to another host",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }

    fn is_here(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|it| it.is_loopback())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}: a template has {{{{link}}}} where the link is to be")]
    Template(PathBuf),
    #[error("cannot make {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("mail.ca: cannot use {path}")]
    Authority {
        path: PathBuf,
        #[source]
        source: lettre::transport::smtp::Error,
    },
    #[error("mail.from: not an address")]
    From(#[source] lettre::address::AddressError),
    #[error("cannot prepare for the mail server")]
    Server(#[source] lettre::transport::smtp::Error),
}

/// What sends mails as `config` says: into `folder`, if no server is named.
///
/// # Errors
/// A file cannot be read, or the folder not made.
pub fn open(config: &Config, folder: &Path) -> Result<Arc<dyn Mailer>, OpenError> {
    let template = template::Template::read(&config.template)?;
    let from = config.from.parse().map_err(OpenError::From)?;
    let letters = template::Letters { from, template };
    if config.host.is_empty() {
        return Ok(Arc::new(files::Files::open(letters, folder)?));
    }
    Ok(Arc::new(smtp::Smtp::open(letters, config)?))
}
