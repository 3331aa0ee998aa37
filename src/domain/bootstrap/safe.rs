//! How the secrets of configurations are kept: each is sealed for its place in its configuration, keys
//! are recognized by keyed hashes.

use subtle::ConstantTimeEq;

use crate::identity::{KeyHash, KeyHasher, Secret, ThingId};
use crate::refusal::Refusal;
use crate::vault::{KeptKey, SealedKey, Vault};

use super::model::{Certificates, Config, KeptCertificates, KeptConfig};

/// A secret of a configuration. Its name is part of what is sealed, so it never changes.
#[derive(Clone, Copy)]
enum Place {
    ThingKey,
    ExternalKey,
    Content,
    ClientKey,
    Loan,
}

impl Place {
    fn of(self, thing: ThingId) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::ThingKey => b"thing_key",
            Self::ExternalKey => b"external_key",
            Self::Content => b"content",
            Self::ClientKey => b"client_key",
            Self::Loan => b"loan",
        };
        [thing.as_bytes().as_slice(), name].concat()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Safe {
    hasher: KeyHasher,
    vault: Vault,
}

impl Safe {
    pub(super) const fn new(hasher: KeyHasher, vault: Vault) -> Self {
        Self { hasher, vault }
    }

    fn seal(&self, thing: ThingId, place: Place, secret: &Secret) -> SealedKey {
        self.vault.seal_at(&place.of(thing), secret)
    }

    fn open(&self, thing: ThingId, place: Place, sealed: &SealedKey) -> Result<Secret, Refusal> {
        let opened = self.vault.open_at(&place.of(thing), sealed);
        opened.map_err(|source| Refusal::Unavailable {
            what: "the vault of this configuration",
            source: Box::new(source),
        })
    }

    pub(super) fn keep_thing_key(&self, thing: ThingId, key: &Secret) -> KeptKey {
        KeptKey {
            hash: self.hash_thing_key(key),
            sealed: Some(self.seal(thing, Place::ThingKey, key)),
        }
    }

    pub(super) fn hash_thing_key(&self, key: &Secret) -> KeyHash {
        self.hasher
            .hash(&format!("bootstrap thing key\n{}", key.expose()))
    }

    pub(super) fn keep_external_key(&self, thing: ThingId, key: &Secret) -> KeptKey {
        KeptKey {
            hash: self.hash_external_key(key),
            sealed: Some(self.seal(thing, Place::ExternalKey, key)),
        }
    }

    fn hash_external_key(&self, key: &Secret) -> KeyHash {
        self.hasher
            .hash(&format!("bootstrap external key\n{}", key.expose()))
    }

    /// Compares in a time that tells nothing of where keys differ.
    pub(super) fn is_external_key(&self, kept: &KeptKey, offered: &Secret) -> bool {
        let offered = self.hash_external_key(offered);
        offered.as_bytes().ct_eq(kept.hash.as_bytes()).into()
    }

    pub(super) fn keep_content(&self, thing: ThingId, content: &str) -> SealedKey {
        self.seal(thing, Place::Content, &Secret::new(content))
    }

    pub(super) fn keep_certificates(
        &self,
        thing: ThingId,
        certificates: &Certificates,
    ) -> KeptCertificates {
        KeptCertificates {
            client_cert: certificates.client_cert.clone(),
            client_key: self.seal(thing, Place::ClientKey, &certificates.client_key),
            ca_cert: certificates.ca_cert.clone(),
        }
    }

    pub(super) fn keep_loan(&self, thing: ThingId, loan: &Secret) -> SealedKey {
        self.seal(thing, Place::Loan, loan)
    }

    /// # Errors
    /// [`Refusal::Unavailable`] if it was sealed by a vault that is gone.
    pub(super) fn open_loan(&self, kept: &KeptConfig) -> Result<Option<Secret>, Refusal> {
        let open = |loan| self.open(kept.thing, Place::Loan, loan);
        kept.loan.as_ref().map(open).transpose()
    }

    /// # Errors
    /// [`Refusal::Unavailable`] if it was sealed by a vault that is gone.
    pub(super) fn open_config(&self, kept: KeptConfig) -> Result<Config, Refusal> {
        let thing = kept.thing;
        let key = |place, kept: &KeptKey| match &kept.sealed {
            Some(sealed) => self.open(thing, place, sealed).map(Some),
            None => Ok(None),
        };
        let thing_key = match &kept.thing_key {
            Some(kept) => key(Place::ThingKey, kept)?,
            None => None,
        };
        let external_key = key(Place::ExternalKey, &kept.external_key)?;
        let client_key = &kept.certificates.client_key;
        Ok(Config {
            thing,
            owner: kept.owner,
            thing_key,
            external_id: kept.external_id,
            external_key: external_key.unwrap_or_else(|| Secret::new("")),
            name: kept.name,
            content: self
                .open(thing, Place::Content, &kept.content)?
                .expose()
                .to_owned(),
            certificates: Certificates {
                client_cert: kept.certificates.client_cert,
                client_key: self.open(thing, Place::ClientKey, client_key)?,
                ca_cert: kept.certificates.ca_cert,
            },
            state: kept.state,
            channels: kept.channels,
        })
    }
}
