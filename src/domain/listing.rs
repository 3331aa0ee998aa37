//! Lists: which part of them, and of what.

use crate::entity::{Status, UnknownStatus};
use crate::refusal::Refusal;

/// Most entries of a page.
pub const MAX_PAGE: u64 = 1_000;

/// A slice of a list: `limit` entries from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: u64,
    pub limit: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            offset: 0,
            limit: 10,
        }
    }
}

impl Page {
    /// # Errors
    /// [`Refusal::Invalid`] for more than [`MAX_PAGE`] entries, or none.
    pub fn check(self) -> Result<Self, Refusal> {
        if !(1..=MAX_PAGE).contains(&self.limit) {
            return Err(Refusal::invalid("limit", "from 1 to 1000"));
        }
        if i64::try_from(self.offset).is_err() {
            return Err(Refusal::invalid("offset", "less than 2^63"));
        }
        Ok(self)
    }
}

/// One page and the size of the whole list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub total: u64,
}

/// Entities of which status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusFilter {
    #[default]
    Enabled,
    Disabled,
    All,
}

impl StatusFilter {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::All => "all",
        }
    }

    #[must_use]
    pub const fn includes(self, status: Status) -> bool {
        match self {
            Self::Enabled => matches!(status, Status::Enabled),
            Self::Disabled => matches!(status, Status::Disabled),
            Self::All => true,
        }
    }
}

impl std::str::FromStr for StatusFilter {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [Self::Enabled, Self::Disabled, Self::All]
            .into_iter()
            .find(|filter| filter.as_str() == text)
            .ok_or(UnknownStatus("enabled, disabled, all"))
    }
}

/// Entities of whom: the caller's own, those that others share, or both; which is all there are for administrators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    Mine,
    Shared,
    #[default]
    All,
}

impl Visibility {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mine => "mine",
            Self::Shared => "shared",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown visibility: choose one of mine, shared, all")]
pub struct UnknownVisibility;

impl std::str::FromStr for Visibility {
    type Err = UnknownVisibility;

    fn from_str(text: &str) -> Result<Self, UnknownVisibility> {
        [Self::Mine, Self::Shared, Self::All]
            .into_iter()
            .find(|it| it.as_str() == text)
            .ok_or(UnknownVisibility)
    }
}
