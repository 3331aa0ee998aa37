//! What users, groups, things, channels and configurations have in common.

use serde_json::{Map, Value};

use crate::event;
use crate::identity::{Timestamp, UserId};
use crate::metadata;
use crate::refusal::Refusal;

/// Whether an entity takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    #[default]
    Enabled,
    Disabled,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err(UnknownStatus("enabled, disabled")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown status: choose one of {0}")]
pub struct UnknownStatus(pub(crate) &'static str);

/// A JSON object of the owner's own.
pub type Metadata = Map<String, Value>;

/// Who changed an entity last, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    pub at: Timestamp,
    pub by: UserId,
}

impl Update {
    #[must_use]
    pub fn now(by: UserId) -> Self {
        Self {
            at: Timestamp::now(),
            by,
        }
    }
}

/// Bytes of a name, a tag, an identity.
pub const MAX_NAME: usize = 1_024;
pub const MAX_TAGS: usize = 64;
/// Bytes of metadata as compact JSON.
pub const MAX_METADATA: usize = 64 * 1024;

/// # Errors
/// [`Refusal::Invalid`], of `field`.
pub fn check_name(field: &'static str, name: &str) -> Result<(), Refusal> {
    if name.len() > MAX_NAME || name.contains(char::is_control) {
        let reason = "at most 1024 bytes, no control characters";
        return Err(Refusal::invalid(field, reason));
    }
    Ok(())
}

/// # Errors
/// [`Refusal::Invalid`].
pub fn check_tags(tags: &[String]) -> Result<(), Refusal> {
    if tags.len() > MAX_TAGS {
        return Err(Refusal::invalid("tags", "at most 64"));
    }
    tags.iter().try_for_each(|tag| check_name("tags", tag))
}

/// # Errors
/// [`Refusal::Invalid`].
pub fn check_metadata(it: &Metadata) -> Result<(), Refusal> {
    if event::json(it).len() > MAX_METADATA {
        return Err(Refusal::invalid("metadata", "at most 64 KiB"));
    }
    if metadata::count(it) > metadata::MAX_VALUES {
        return Err(Refusal::invalid("metadata", "at most 1000 values"));
    }
    Ok(())
}
