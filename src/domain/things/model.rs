//! What things, channels and grants are, and where they are kept.

use async_trait::async_trait;

use crate::access::Action;
use crate::entity::Status;
use crate::event::Event;
use crate::identity::{ChannelId, KeyHash, Secret, ThingId, Timestamp, UserId};
use crate::listing::{Listing, Page};
use crate::ports::StoreError;
use crate::vault::{KeptKey, SealedKey};

/// A thing as it is kept. Its key is not part of it: see [`crate::vault`].
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

/// A thing just made, with its key.
#[derive(Clone, Debug)]
pub struct Created {
    pub thing: Thing,
    pub key: Secret,
}

/// A thing, and its key if that may be seen.
#[derive(Clone, Debug)]
pub struct Shown {
    pub thing: Thing,
    pub key: Option<Secret>,
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

/// Actions a thing holds on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    pub read: bool,
    pub write: bool,
}

impl Actions {
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };
    pub const ALL: Self = Self {
        read: true,
        write: true,
    };

    #[must_use]
    pub const fn includes(self, action: Action) -> bool {
        match action {
            Action::Read => self.read,
            Action::Write => self.write,
        }
    }

    /// The names, in the order events have them.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [Action::Write, Action::Read];
        all.into_iter()
            .filter(|action| self.includes(*action))
            .map(Action::as_str)
            .collect()
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<T: IntoIterator<Item = Action>>(actions: T) -> Self {
        let mut all = Self::NONE;
        for action in actions {
            match action {
                Action::Read => all.read = true,
                Action::Write => all.write = true,
            }
        }
        all
    }
}

/// What a thing may do on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub thing: ThingId,
    pub channel: ChannelId,
    pub actions: Actions,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}

/// Where things and channels are kept. A change and its events are kept together, or neither is.
#[async_trait]
pub trait ThingStore: Send + Sync {
    async fn add_things(
        &self,
        things: &[(Thing, KeptKey)],
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Keeps the status of `thing`, and who changed it when. Nothing else of it is touched: two changes at
    /// one time do not undo each other.
    async fn set_thing_status(&self, thing: &Thing, events: Vec<Event>) -> Result<(), StoreError>;

    /// Keeps the key of `thing`, and who changed it when.
    async fn set_thing_key(
        &self,
        thing: &Thing,
        key: &KeptKey,
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    async fn thing(&self, owner: UserId, id: ThingId) -> Result<Option<Thing>, StoreError>;

    /// The sealed copy of a thing's key, if one is kept.
    async fn sealed_key(&self, id: ThingId) -> Result<Option<SealedKey>, StoreError>;

    /// In the order they were made.
    async fn things(&self, owner: UserId, page: Page) -> Result<Listing<Thing>, StoreError>;

    async fn add_channels(
        &self,
        channels: &[Channel],
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Keeps the status of `channel`, and who changed it when.
    async fn set_channel_status(
        &self,
        channel: &Channel,
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    async fn channel(&self, owner: UserId, id: ChannelId) -> Result<Option<Channel>, StoreError>;

    /// In the order they were made.
    async fn channels(&self, owner: UserId, page: Page) -> Result<Listing<Channel>, StoreError>;

    /// What a thing may do on a channel, and since when.
    async fn grant(&self, thing: ThingId, channel: ChannelId) -> Result<Option<Grant>, StoreError>;

    /// Adds grants, or replaces those of the same thing and channel.
    async fn put_grants(&self, grants: &[Grant], events: Vec<Event>) -> Result<(), StoreError>;

    async fn remove_grants(
        &self,
        pairs: &[(ThingId, ChannelId)],
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Keeps events of what changes nothing.
    async fn record(&self, events: Vec<Event>) -> Result<(), StoreError>;

    /// The enabled thing with this key.
    async fn identify(&self, key: &KeyHash) -> Result<Option<ThingId>, StoreError>;

    /// The enabled thing with this key, and what it may do on the channel if that is enabled too.
    async fn authorize(
        &self,
        key: &KeyHash,
        channel: ChannelId,
    ) -> Result<Option<(ThingId, Actions)>, StoreError>;

    /// Whether there is such a thing, and it is enabled.
    async fn is_enabled(&self, thing: ThingId) -> Result<bool, StoreError>;

    /// What an enabled thing may do on an enabled channel.
    async fn allowed(
        &self,
        thing: ThingId,
        channel: ChannelId,
    ) -> Result<Option<Actions>, StoreError>;
}
