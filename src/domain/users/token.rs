//! Access and refresh tokens: JSON Web Tokens, signed with HMAC-SHA-512 (HS512), as clients of the platform know them.
//!
//! There is one algorithm and one spelling of the header; a token that begins otherwise is none of ours.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha512;

use crate::identity::{Secret, Timestamp, UserId};

use super::model::{LoginId, TokenId};

/// `{"alg":"HS512","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9";
const ISSUER: &str = "clients.auth";
/// Bytes of a token: the claims have an identity, which is at most 1 KiB.
const MAX_TOKEN: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Access,
    Refresh,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) kind: Kind,
    pub(super) user: UserId,
    pub(super) login: LoginId,
    pub(super) id: TokenId,
}

/// The claims on the wire. Moments are seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct Wire {
    iss: String,
    sub: String,
    identity: String,
    #[serde(rename = "type")]
    kind: Kind,
    iat: u64,
    exp: u64,
    jti: String,
    sid: String,
}

/// Signs tokens, and reads its own.
#[derive(Clone)]
pub struct Tokens(Hmac<Sha512>);

impl Tokens {
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    pub(super) fn sign(
        &self,
        claims: &Claims,
        identity: &str,
        now: Timestamp,
        duration: Duration,
    ) -> Secret {
        let now = seconds(now);
        let wire = Wire {
            iss: ISSUER.to_owned(),
            sub: claims.user.to_string(),
            identity: identity.to_owned(),
            kind: claims.kind,
            iat: now,
            exp: now + duration.as_secs(),
            jti: claims.id.to_string(),
            sid: claims.login.to_string(),
        };
        let json = serde_json::to_vec(&wire).expect("invariant: text and numbers");
        let mut text = format!("{HEADER}.{}", BASE64.encode(json));
        let signature = BASE64.encode(self.mac(&text).finalize().into_bytes());
        text.push('.');
        text.push_str(&signature);
        Secret::new(text)
    }

    /// `None` for what was not signed with this key, or has expired.
    pub(super) fn read(&self, token: &Secret, now: Timestamp) -> Option<Claims> {
        let text = token.expose();
        if text.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let payload = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let signature = BASE64.decode(signature).ok()?;
        self.mac(signed).verify_slice(&signature).ok()?;
        let wire: Wire = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
        if wire.iss != ISSUER || wire.exp <= seconds(now) {
            return None;
        }
        Some(Claims {
            kind: wire.kind,
            user: wire.sub.parse().ok()?,
            login: wire.sid.parse().ok()?,
            id: wire.jti.parse().ok()?,
        })
    }

    fn mac(&self, text: &str) -> Hmac<Sha512> {
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        mac
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(***)")
    }
}

const fn seconds(at: Timestamp) -> u64 {
    at.0 / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_693_312_937_471_064_150);
    const MINUTE: Duration = Duration::from_secs(60);

    fn claims() -> Claims {
        Claims {
            kind: Kind::Access,
            user: UserId::from_bytes([1; 16]),
            login: LoginId::from_bytes([2; 16]),
            id: TokenId::from_bytes([3; 16]),
        }
    }

    /// Signed by openssl: `openssl dgst -sha512 -mac HMAC -macopt key:secret -binary | base64`.
    const BY_OPENSSL: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJjbGllbnRzLmF1dGgiLCJzdWIiOiIwMTAxMDEwMS0wMTAxLTAxMDEtMDEwMS0wMTAxMDEwMTAxMDEiLCJpZGVudGl0eSI6ImFAZXhhbXBsZS5jb20iLCJ0eXBlIjoiYWNjZXNzIiwiaWF0IjoxNjkzMzEyOTM3LCJleHAiOjE2OTMzMTI5OTcsImp0aSI6IjAzMDMwMzAzLTAzMDMtMDMwMy0wMzAzLTAzMDMwMzAzMDMwMyIsInNpZCI6IjAyMDIwMjAyLTAyMDItMDIwMi0wMjAyLTAyMDIwMjAyMDIwMiJ9.Hhd6h1Vpd7qogVd26O3RmKdl-HmHBDorMBMQ7vh-tE5Ktadt-dDwqcD3NtrYrgPUCH5IreK3v_VKokn8FANxSQ";

    #[test]
    fn a_token_is_what_others_make_of_the_same_claims() {
        let token = Tokens::new(b"secret").sign(&claims(), "a@example.com", NOW, MINUTE);
        assert_eq!(token.expose(), BY_OPENSSL);
        let payload = token.expose().split('.').nth(1).expect("three parts");
        let payload = BASE64.decode(payload).expect("base64");
        let payload: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        let expected = serde_json::json!({
            "iss": "clients.auth",
            "sub": "01010101-0101-0101-0101-010101010101",
            "identity": "a@example.com",
            "type": "access",
            "iat": 1_693_312_937,
            "exp": 1_693_312_997,
            "jti": "03030303-0303-0303-0303-030303030303",
            "sid": "02020202-0202-0202-0202-020202020202",
        });
        assert_eq!(payload, expected);
    }

    #[test]
    fn a_token_is_good_in_one_piece_with_its_key_until_it_expires() {
        let tokens = Tokens::new(b"secret");
        let token = tokens.sign(&claims(), "a@example.com", NOW, MINUTE);
        assert_eq!(tokens.read(&token, NOW), Some(claims()));
        let end = Timestamp(1_693_312_997_000_000_000);
        assert_eq!(tokens.read(&token, Timestamp(end.0 - 1)), Some(claims()));
        assert_eq!(tokens.read(&token, end), None);
        assert_eq!(Tokens::new(b"secres").read(&token, NOW), None);
        let text = token.expose();
        for n in 0..text.len() {
            assert_eq!(tokens.read(&Secret::new(&text[..n]), NOW), None);
            let mut other = text.as_bytes().to_vec();
            other[n] = if other[n] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            // The last sign carries bits that are none of the signature's; they must be zero.
            assert_eq!(tokens.read(&Secret::new(other), NOW), None, "{n}");
        }
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let tokens = Tokens::new(b"secret");
        let token = tokens.sign(&claims(), "a@example.com", NOW, MINUTE);
        let (_, rest) = token.expose().split_once('.').expect("three parts");
        let (payload, signature) = rest.split_once('.').expect("three parts");
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"typ":"JWT","alg":"HS512"}"#,
        ] {
            let header = BASE64.encode(header);
            for signature in [signature, ""] {
                let token = format!("{header}.{payload}.{signature}");
                assert_eq!(tokens.read(&Secret::new(token), NOW), None);
            }
            // Even signed with the right key.
            let signed = format!("{header}.{payload}");
            let mac = BASE64.encode(tokens.mac(&signed).finalize().into_bytes());
            assert_eq!(
                tokens.read(&Secret::new(format!("{signed}.{mac}")), NOW),
                None
            );
        }
        for text in ["", ".", "..", HEADER, &"x".repeat(100_000)] {
            assert_eq!(tokens.read(&Secret::new(text), NOW), None);
        }
    }
}
