//! Things, channels, and which thing may do what on which channel.

use crate::access::Action;
use crate::identity::{ChannelId, Secret, ThingId, Timestamp, UserId};

/// Whether an entity takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Enabled,
    Disabled,
}

/// A thing as it is kept. Its key is not part of it: of a key only a keyed hash is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub id: ThingId,
    pub owner: UserId,
    pub name: String,
    pub tags: Vec<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub status: Status,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<UserId>,
}

/// A thing to be made. Without a key one is generated.
#[derive(Clone, Debug, Default)]
pub struct NewThing {
    pub name: String,
    pub tags: Vec<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub key: Option<Secret>,
}

/// A thing just made, with the one sight of its key.
#[derive(Clone, Debug)]
pub struct Created {
    pub thing: Thing,
    pub key: Secret,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    pub id: ChannelId,
    pub owner: UserId,
    pub name: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub status: Status,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<UserId>,
}

#[derive(Clone, Debug, Default)]
pub struct NewChannel {
    pub name: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Actions a thing holds on a channel; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    pub read: bool,
    pub write: bool,
}

impl Actions {
    #[must_use]
    pub const fn includes(self, action: Action) -> bool {
        match action {
            Action::Read => self.read,
            Action::Write => self.write,
        }
    }
}

/// A slice of a list: `limit` entries from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: u64,
    pub limit: u64,
}

/// One page and the size of the whole list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub total: u64,
}
