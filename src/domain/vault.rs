//! Keys of things as they are kept: found by a keyed hash, shown from a copy that is sealed.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::identity::{KeyHash, KeyHasher, Secret, ThingId};

/// What is kept of the key of a thing.
#[derive(Clone)]
pub struct KeptKey {
    pub hash: KeyHash,
    /// `None` if the key is not to be seen again.
    pub sealed: Option<SealedKey>,
}

/// A key that only the [`Vault`] it was sealed by can open, and only for its own thing.
#[derive(Clone)]
pub struct SealedKey(Vec<u8>);

impl SealedKey {
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Sealed by a vault key that is not here, for another thing, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key cannot be unsealed")]
pub struct Unsealable;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 24;

/// Seals and opens keys: XChaCha20-Poly1305 with random nonces, the thing as associated data, so that a copy
/// which is moved to another row does not open.
///
/// Layout: version, id of the vault key, nonce, ciphertext with its tag.
#[derive(Clone)]
pub struct Vault {
    /// The first seals; all open.
    keys: Vec<VaultKey>,
}

#[derive(Clone)]
struct VaultKey {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

impl Vault {
    /// With the keys that the vault ever had, the one in use first. `None` without any.
    #[must_use]
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        let keys = keys.iter().map(|key| VaultKey {
            id: *Sha256::digest(key)
                .first_chunk()
                .expect("invariant: 32 bytes"),
            cipher: XChaCha20Poly1305::new(key.into()),
        });
        let keys: Vec<VaultKey> = keys.collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    #[must_use]
    pub fn seal(&self, thing: ThingId, key: &Secret) -> SealedKey {
        self.seal_at(thing.as_bytes(), key)
    }

    /// Seals a secret for `place`: it opens nowhere else.
    #[must_use]
    pub fn seal_at(&self, place: &[u8], secret: &Secret) -> SealedKey {
        let vault = &self.keys[0];
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload {
            msg: secret.expose().as_bytes(),
            aad: place,
        };
        let sealed = vault.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.expect("invariant: keys are far shorter than 256 GiB");
        let mut bytes = vec![VERSION];
        bytes.extend(vault.id);
        bytes.extend(nonce);
        bytes.extend(sealed);
        SealedKey(bytes)
    }

    /// # Errors
    /// [`Unsealable`].
    pub fn open(&self, thing: ThingId, sealed: &SealedKey) -> Result<Secret, Unsealable> {
        self.open_at(thing.as_bytes(), sealed)
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn open_at(&self, place: &[u8], sealed: &SealedKey) -> Result<Secret, Unsealable> {
        let (version, rest) = sealed.0.split_first().ok_or(Unsealable)?;
        if *version != VERSION {
            return Err(Unsealable);
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID>().ok_or(Unsealable)?;
        let (nonce, msg) = rest.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        let vault = self.keys.iter().find(|key| key.id == *id);
        let payload = Payload { msg, aad: place };
        let opened = vault
            .ok_or(Unsealable)?
            .cipher
            .decrypt(&XNonce::from(*nonce), payload);
        let text = String::from_utf8(opened.map_err(|_| Unsealable)?);
        text.map(Secret::new).map_err(|_| Unsealable)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(***)")
    }
}

/// How keys of things are kept.
#[derive(Clone, Debug)]
pub struct KeyKeeper {
    hasher: KeyHasher,
    vault: Option<Vault>,
}

impl KeyKeeper {
    /// Without a vault, keys are seen once and never again.
    #[must_use]
    pub const fn new(hasher: KeyHasher, vault: Option<Vault>) -> Self {
        Self { hasher, vault }
    }

    #[must_use]
    pub fn keep(&self, thing: ThingId, key: &Secret) -> KeptKey {
        KeptKey {
            hash: self.hash(key),
            sealed: self.vault.as_ref().map(|vault| vault.seal(thing, key)),
        }
    }

    #[must_use]
    pub fn hash(&self, key: &Secret) -> KeyHash {
        self.hasher.hash(key.expose())
    }

    /// Of the secret that a key is lent by. No key has an end of line, so this is the hash of none.
    #[must_use]
    pub fn hash_loan(&self, loan: &Secret) -> KeyHash {
        self.hash(&Secret::new(format!("loan of a key\n{}", loan.expose())))
    }

    /// The key itself. `None` if keys are not shown, or it was sealed by a vault that is gone.
    #[must_use]
    pub fn show(&self, thing: ThingId, sealed: &SealedKey) -> Option<Secret> {
        self.vault.as_ref()?.open(thing, sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_for_its_thing_with_its_vault_and_in_one_piece() {
        let (old, new) = ([1; 32], [2; 32]);
        let vault = Vault::new(&[old]).expect("a key");
        let (thing, key) = (ThingId::generate(), Secret::new("a good key"));
        let sealed = vault.seal(thing, &key);
        let opens = |vault: &Vault, thing, sealed: &SealedKey| {
            let opened = vault.open(thing, sealed);
            opened.is_ok_and(|opened| opened.matches(key.expose()))
        };
        assert!(opens(&vault, thing, &sealed));
        let hay = sealed.as_bytes().windows(10);
        assert!(!hay.into_iter().any(|it| it == b"a good key"));
        assert!(!opens(&vault, ThingId::generate(), &sealed));
        // A later vault seals with its own key, and still opens.
        let rotated = Vault::new(&[new, old]).expect("keys");
        assert!(opens(&rotated, thing, &sealed));
        let sealed_again = rotated.seal(thing, &key);
        assert!(opens(&rotated, thing, &sealed_again));
        assert!(!opens(&vault, thing, &sealed_again));
        assert!(Vault::new(&[]).is_none());
        // Never the same twice.
        assert!(vault.seal(thing, &key).as_bytes() != sealed.as_bytes());
        for n in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[n] ^= 1;
            assert!(!opens(&vault, thing, &SealedKey::from_bytes(bytes)));
            let short = sealed.as_bytes()[..n].to_vec();
            assert!(!opens(&vault, thing, &SealedKey::from_bytes(short)));
        }
    }

    #[test]
    fn without_a_vault_nothing_but_the_hash_is_kept() {
        let keeper = KeyKeeper::new(KeyHasher::new(&[3; 32]), None);
        let (thing, key) = (ThingId::generate(), Secret::new("a good key"));
        assert!(keeper.keep(thing, &key).sealed.is_none());
        let vault = Vault::new(&[[1; 32]]).expect("a key");
        assert!(keeper.show(thing, &vault.seal(thing, &key)).is_none());
    }
}
