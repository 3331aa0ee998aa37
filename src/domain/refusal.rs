//! Why a service does not do what it was asked.

use std::borrow::Cow;

use crate::ports::StoreError;

/// What a caller of the users, things or bootstrap service can do about it differs from variant to variant;
/// each edge has one place that says it in its own words.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No token, or one that is wrong, out of date or revoked: sign in again.
    #[error("the token is missing or wrong")]
    Unauthenticated,
    /// Nobody signs in like that. Whether there is such an identity is not told.
    #[error("wrong identity or password")]
    WrongCredentials,
    /// The caller is known and may not do this.
    #[error("access denied")]
    Denied,
    /// There is none, or none that the caller may know of.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A field holds what cannot be taken.
    #[error("{field}: {reason}")]
    Invalid {
        /// As requests name it.
        field: &'static str,
        reason: Cow<'static, str>,
    },
    /// Something else has the same unique value.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// It is in that state already, such as "the thing is already enabled".
    #[error("{0}")]
    Already(&'static str),
    /// Not now: too many at one time, or too many wrong guesses.
    #[error("too many requests: try again later")]
    Busy,
    /// Storage, or another service this one asks, does not answer. The cause is for the log.
    #[error("{what} is not available")]
    Unavailable {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Refusal {
    #[must_use]
    pub fn invalid(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken(what) => Self::Taken(what),
            failed @ StoreError::Failed { .. } => Self::Unavailable {
                what: "storage",
                source: Box::new(failed),
            },
        }
    }
}
