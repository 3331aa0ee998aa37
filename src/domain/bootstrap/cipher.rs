//! What devices and bootstrap tell each other where no TLS protects it: AES in cipher feedback mode of whole
//! blocks, the IV in front. It hides; it does not prove where a message is from.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cfb_mode::cipher::KeyIvInit;
use cfb_mode::{Decryptor, Encryptor};

use crate::identity::Secret;

const IV: usize = 16;

/// The key that all devices and this service have.
#[derive(Clone)]
pub struct DeviceCipher {
    key: Box<[u8]>,
}

impl DeviceCipher {
    /// `None` if the key has not 16, 24 or 32 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        matches!(key.len(), 16 | 24 | 32).then(|| Self { key: key.into() })
    }

    /// A random IV, and `plain` encrypted.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let iv: [u8; IV] = rand::random();
        let mut sealed = plain.to_vec();
        match self.key.len() {
            16 => Encryptor::<Aes128>::new_from_slices(&self.key, &iv)
                .expect(LENGTHS)
                .encrypt(&mut sealed),
            24 => Encryptor::<Aes192>::new_from_slices(&self.key, &iv)
                .expect(LENGTHS)
                .encrypt(&mut sealed),
            _ => Encryptor::<Aes256>::new_from_slices(&self.key, &iv)
                .expect(LENGTHS)
                .encrypt(&mut sealed),
        }
        [iv.as_slice(), &sealed].concat()
    }

    /// What comes behind the IV, decrypted; `None` if there is no IV.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (iv, sealed) = sealed.split_first_chunk::<IV>()?;
        let mut plain = sealed.to_vec();
        match self.key.len() {
            16 => Decryptor::<Aes128>::new_from_slices(&self.key, iv)
                .expect(LENGTHS)
                .decrypt(&mut plain),
            24 => Decryptor::<Aes192>::new_from_slices(&self.key, iv)
                .expect(LENGTHS)
                .decrypt(&mut plain),
            _ => Decryptor::<Aes256>::new_from_slices(&self.key, iv)
                .expect(LENGTHS)
                .decrypt(&mut plain),
        }
        Some(plain)
    }

    /// What a device shows for `external_key`: hexadecimal digits.
    #[must_use]
    pub fn seal_key(&self, external_key: &Secret) -> String {
        use fmt::Write;
        let sealed = self.seal(external_key.expose().as_bytes());
        sealed.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("invariant: text takes text");
            text
        })
    }

    /// The key that a device shows; `None` for what is none.
    #[must_use]
    pub fn open_key(&self, shown: &str) -> Option<Secret> {
        let bytes = shown.as_bytes();
        if !bytes.len().is_multiple_of(2) {
            return None;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let sealed: Option<Vec<u8>> = bytes
            .chunks_exact(2)
            .map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?))
            .collect();
        let key = String::from_utf8(self.open(&sealed?)?).ok()?;
        Some(Secret::new(key))
    }
}

impl fmt::Debug for DeviceCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceCipher(***)")
    }
}

const LENGTHS: &str = "invariant: checked when the cipher was made";

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.3.13, F.3.15 and F.3.17: the first two blocks.
    #[test]
    fn it_is_cipher_feedback_of_whole_blocks_as_published() {
        let iv = "000102030405060708090a0b0c0d0e0f";
        let plain = bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        for (key, sealed) in [
            (
                "2b7e151628aed2a6abf7158809cf4f3c",
                "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b",
            ),
            (
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                "cdc80d6fddf18cab34c25909c99a417467ce7f7f81173621961a2b70171d3d7a",
            ),
            (
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b",
            ),
        ] {
            let cipher = DeviceCipher::new(&bytes(key)).expect("a key");
            let sealed = bytes(&format!("{iv}{sealed}"));
            assert_eq!(cipher.open(&sealed).as_deref(), Some(&*plain));
        }
    }

    #[test]
    fn what_was_sealed_opens_and_never_looks_the_same() {
        let cipher = DeviceCipher::new(&[7; 32]).expect("a key");
        for length in [0, 1, 15, 16, 17, 1_000] {
            let plain = vec![b'x'; length];
            let sealed = cipher.seal(&plain);
            assert_eq!(sealed.len(), IV + length);
            assert_eq!(cipher.open(&sealed), Some(plain.clone()));
            assert_ne!(cipher.seal(&plain), sealed);
        }
        assert_eq!(cipher.open(&[0; IV - 1]), None);
        let key = Secret::new("external key");
        let opened = cipher.open_key(&cipher.seal_key(&key));
        assert!(opened.is_some_and(|opened| opened.matches("external key")));
        let upper = cipher.seal_key(&key).to_uppercase();
        assert!(cipher.open_key(&upper).is_some());
    }

    #[test]
    fn a_key_of_another_length_and_what_is_no_message_are_refused() {
        for length in [0, 15, 17, 31, 33] {
            assert!(DeviceCipher::new(&vec![1; length]).is_none());
        }
        let cipher = DeviceCipher::new(&[7; 16]).expect("a key");
        for shown in ["", "0", "zz", "00", "é", "000102030405060708090a0b0c0d0e0"] {
            assert!(cipher.open_key(shown).is_none(), "{shown}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .map(|digit| digit.to_digit(16).expect("a digit") as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }
}
