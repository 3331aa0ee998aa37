//! What things are, and where they are kept.

use async_trait::async_trait;

use crate::access::Action;
use crate::entity::{Metadata, Status, Update};
use crate::event::Event;
use crate::groups::Tell;
use crate::identity::{ChannelId, KeyHash, Secret, ThingId, Timestamp, UserId};
use crate::listing::{Listing, Page, StatusFilter, Visibility};
use crate::policies;
use crate::ports::StoreError;
use crate::vault::{KeptKey, SealedKey};

/// A thing as it is kept. Its key is not part of it: see [`crate::vault`].
#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub id: ThingId,
    pub owner: UserId,
    pub name: String,
    pub tags: Vec<String>,
    /// Another name of the owner's choice; nothing here goes by it.
    pub identity: String,
    pub metadata: Metadata,
    pub status: Status,
    pub created_at: Timestamp,
    pub update: Option<Update>,
}

/// A thing to be made.
#[derive(Clone, Debug, Default)]
pub struct NewThing {
    /// A generated one if there is none.
    pub id: Option<ThingId>,
    /// The caller if there is none.
    pub owner: Option<UserId>,
    pub name: String,
    pub tags: Vec<String>,
    pub identity: String,
    pub metadata: Metadata,
    pub status: Status,
    /// A generated one if there is none.
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

/// What is to be different of a thing. Nothing else of it is touched: two changes at one time do not undo each
/// other.
#[derive(Clone)]
pub enum ThingChange {
    About {
        name: Option<String>,
        metadata: Option<Metadata>,
    },
    Tags(Vec<String>),
    Owner(UserId),
    /// From the other one.
    Status(Status),
    Key(KeptKey),
}

/// Which things a list has: all that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct ThingFilter {
    pub status: StatusFilter,
    /// Exactly.
    pub name: Option<String>,
    pub tag: Option<String>,
    pub owner: Option<UserId>,
    /// What the metadata of a thing must contain.
    pub metadata: Metadata,
}

/// Whose things are looked among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everybodys,
    /// The user's own, what others share with them on channels (`c_list`), or both.
    Of(UserId, Visibility),
}

/// Actions a thing holds on a channel: what the front asks about.
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
}

impl From<policies::Actions> for Actions {
    fn from(actions: policies::Actions) -> Self {
        Self {
            read: actions.includes(policies::Action::MessageRead),
            write: actions.includes(policies::Action::MessageWrite),
        }
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

/// Where things are kept. A change and its events are kept together, or neither is.
#[async_trait]
pub trait ThingStore: Send + Sync {
    /// All or none.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: `the id` or `the key` of one is another thing's.
    async fn add_things(
        &self,
        things: &[(Thing, KeptKey)],
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Changes a thing, and returns it as it is then. `None` if there is none, or its status is that already.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: `the key` is another thing's.
    async fn change_thing(
        &self,
        id: ThingId,
        change: &ThingChange,
        update: Update,
        tell: &Tell<Thing>,
    ) -> Result<Option<Thing>, StoreError>;

    async fn thing(&self, id: ThingId) -> Result<Option<Thing>, StoreError>;

    /// The sealed copy of a thing's key, if one is kept.
    async fn sealed_key(&self, id: ThingId) -> Result<Option<SealedKey>, StoreError>;

    /// Keeps what the key of a thing is lent by, in place of what it was lent by before; `None` if it is not to be.
    /// `false` if there is no such thing of this owner. With the owner it ends.
    async fn lend_key(
        &self,
        id: ThingId,
        owner: UserId,
        loan: Option<KeyHash>,
    ) -> Result<bool, StoreError>;

    /// What the key of an enabled thing is lent by, and its sealed copy if one is kept. `None` if it is not lent.
    async fn lent_key(
        &self,
        id: ThingId,
    ) -> Result<Option<(KeyHash, Option<SealedKey>)>, StoreError>;

    /// In the order they were made.
    async fn things(
        &self,
        filter: &ThingFilter,
        scope: Scope,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError>;

    /// Things that hold a policy on the channel, in the order they were made.
    async fn things_of_channel(
        &self,
        channel: ChannelId,
        filter: &ThingFilter,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError>;

    /// Keeps events of what changes nothing, if they can be kept: whoever is let or shown something is not to suffer
    /// because nobody can be told of it.
    async fn record(&self, events: Vec<Event>);

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

    /// Of `things` each with each enabled channel where it may publish or subscribe.
    async fn memberships(
        &self,
        things: &[ThingId],
    ) -> Result<Vec<(ThingId, ChannelId)>, StoreError>;
}
