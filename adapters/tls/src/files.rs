//! PEM files.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::CertificateError;

/// All of one kind in a file; at least one.
pub(crate) fn read_all<T: PemObject>(key: &str, path: &Path) -> Result<Vec<T>, CertificateError> {
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

pub(crate) fn read_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| CertificateError::Read {
        key: key.into(),
        path: path.into(),
        source,
    })
}

/// Those who vouch for others.
pub(crate) fn read_roots<'a>(
    key: &str,
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        for root in read_all::<CertificateDer<'static>>(key, path)? {
            roots.add(root).map_err(|source| CertificateError::Use {
                key: key.into(),
                path: path.into(),
                source,
            })?;
        }
    }
    Ok(roots)
}
