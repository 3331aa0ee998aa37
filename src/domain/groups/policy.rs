//! Policies: what a user or a thing may do on a group.

use crate::entity::{Status, Update};
use crate::identity::{ThingId, Timestamp, UserId};
use crate::policies::{Action, Actions};

/// Whom a policy allows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// On channels, policies of users are called external.
    User(UserId),
    /// On channels alone.
    Thing(ThingId),
}

impl Subject {
    #[must_use]
    pub const fn is_user(self) -> bool {
        matches!(self, Self::User(_))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::User(id) => id.as_bytes(),
            Self::Thing(id) => id.as_bytes(),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Thing(id) => id.fmt(f),
        }
    }
}

/// There is at most one for a subject and an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy<I> {
    pub subject: Subject,
    /// The group or channel.
    pub object: I,
    /// As they were asked for. [`Actions::allow`] tells what they mean.
    pub actions: Actions,
    /// Who made it.
    pub owner: UserId,
    /// Whoever made it had a say over the subject. Only then do `c_` actions that others hold on the object reach
    /// the subject: nobody gets power over users by adding them to a group of his own.
    pub vouched: bool,
    pub created_at: Timestamp,
    pub update: Option<Update>,
}

/// How a subject stands to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Of the group.
    pub owner: UserId,
    pub status: Status,
    /// Of the subject's policy; none without one.
    pub actions: Actions,
}

impl Standing {
    /// Whether `user`, whose standing it is, may do `action` on the group: who owns it may do everything.
    #[must_use]
    pub fn allows(&self, user: UserId, action: Action) -> bool {
        self.owner == user || self.actions.allow(action)
    }
}
