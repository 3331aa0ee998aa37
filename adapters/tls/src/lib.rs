//! What edges with TLS share: certificates read from files, those that a server shows and asks for, those that a client
//! does, and words for what is wrong with them.

mod advice;
pub mod client;
mod edge;
mod files;
pub mod server;

use std::path::PathBuf;

pub use advice::Report;
pub use edge::{Edge, accept};
pub use tokio_rustls::server::TlsStream;

/// Files cannot be used; the settings they are named by come first.
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
        source: rustls::server::VerifierBuilderError,
    },
    #[error(
        "{key}.ca is not set, and this machine trusts nobody: install ca-certificates, or set it"
    )]
    NoRoots { key: Box<str> },
}
