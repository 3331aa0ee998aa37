//! Names of things, users, channels and sessions, and the secrets that prove them: checked once, at the door.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A text that is not an id in its one canonical form: a lower-case, hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} id must be a lower-case hyphenated UUID")]
pub struct MalformedId {
    what: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $new:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::$new())
            }

            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            /// Accepts the canonical form alone: two spellings of one id would be two MQTT topics.
            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let malformed = MalformedId { what: $what };
                if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(malformed);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| malformed)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A device, or anything else that connects.
    ThingId, "thing", new_v4
);
id!(
    /// A person or program that owns things and channels.
    UserId, "user", new_v4
);
id!(
    /// A group of topics that things are connected to.
    ChannelId, "channel", new_v4
);
id!(
    /// A group of users.
    GroupId, "group", new_v4
);
id!(
    /// One accepted MQTT connection. Ids of later sessions sort after those of earlier ones (UUIDv7).
    SessionId, "session", now_v7
);

impl SessionId {
    /// When the session began, to the millisecond.
    #[must_use]
    pub fn began(self) -> Timestamp {
        let time = self.0.get_timestamp();
        let (seconds, nanos) = time.map_or((0, 0), |time| time.to_unix());
        Timestamp(seconds * 1_000_000_000 + u64::from(nanos))
    }

    /// Another id for a session that goes on: as old as this one.
    #[must_use]
    pub fn again(self) -> Self {
        self.0
            .get_timestamp()
            .map_or(self, |began| Self(Uuid::new_v7(began)))
    }
}

/// A key, password or token. Prints as `***`; read it with [`Secret::expose`] where it is checked, nowhere else.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// 256 random bits as 43 signs of URL-safe text.
    #[must_use]
    pub fn generate() -> Self {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let bytes: [u8; 32] = rand::random();
        Self(BASE64_URL_SAFE_NO_PAD.encode(bytes).into())
    }

    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that tells nothing about where two secrets of one length differ.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<str>::deserialize(deserializer).map(Self)
    }
}

/// What is kept of a key: enough to recognize it, useless to present it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Turns secrets into [`KeyHash`]es: HMAC-SHA256 under a key of its own, so that a stolen table of
/// hashes cannot be searched without that key.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    #[must_use]
    pub fn hash(&self, secret: &str) -> KeyHash {
        let mut mac = self.0.clone();
        mac.update(secret.as_bytes());
        KeyHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(***)")
    }
}

/// A moment: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// RFC 3339 in UTC to the microsecond, without trailing zeros: `2023-08-29T11:06:11.914074Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let time = UNIX_EPOCH + std::time::Duration::from_micros(self.0 / 1_000);
        let text = humantime::format_rfc3339_micros(time).to_string();
        let text = text
            .trim_end_matches('Z')
            .trim_end_matches('0')
            .trim_end_matches('.');
        format!("{text}Z")
    }

    /// As events and databases of the platform write it.
    #[must_use]
    pub const fn to_the_microsecond(self) -> Self {
        Self(self.0 / 1_000 * 1_000)
    }

    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // What storage can keep.
        Self(self.0.saturating_add(nanoseconds).min(i64::MAX as u64))
    }

    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// The next moment that can be told apart from this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = ThingId::generate();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for other in [
            text.to_uppercase() + "",
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
            String::new(),
        ] {
            // A UUID of digits alone has no upper case; everything else must be refused.
            if other != text {
                assert!(other.parse::<ThingId>().is_err(), "{other}");
            }
        }
    }

    #[test]
    fn later_sessions_sort_later() {
        let ids: Vec<_> = (0..1_000).map(|_| SessionId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_session_that_goes_on_under_another_id_is_as_old_as_it_was() {
        let session = SessionId::generate();
        let again = session.again();
        assert_ne!(session, again);
        assert_eq!(session.began(), again.began());
        let age = Timestamp::now().0.abs_diff(session.began().0);
        assert!(age < 60_000_000_000, "{age}");
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::generate();
        assert_eq!(format!("{secret:?}"), "***");
        assert!(secret.clone().matches(secret.expose()));
        assert!(!secret.matches("guess"));
    }

    #[test]
    fn a_moment_is_written_without_trailing_zeros() {
        for (nanoseconds, text) in [
            (1_693_307_171_914_074_999, "2023-08-29T11:06:11.914074Z"),
            (1_693_307_171_914_000_000, "2023-08-29T11:06:11.914Z"),
            (1_693_307_170_000_000_000, "2023-08-29T11:06:10Z"),
            (1_693_267_200_000_000_000, "2023-08-29T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(nanoseconds).rfc3339(), text);
        }
    }

    #[test]
    fn hashes_depend_on_the_hashers_key() {
        let (a, b) = (KeyHasher::new(&[1; 32]), KeyHasher::new(&[2; 32]));
        assert!(a.hash("key") == a.hash("key"));
        assert!(a.hash("key") != b.hash("key"));
        assert!(a.hash("key") != a.hash("kez"));
    }
}
