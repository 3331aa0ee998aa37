//! What a configuration is, and where it is kept.

use async_trait::async_trait;

use crate::caller::Caller;
use crate::entity::Metadata;
use crate::event::{Event, Fields};
use crate::identity::{ChannelId, Secret, ThingId, Timestamp, UserId};
use crate::listing::{Listing, Page};
use crate::ports::StoreError;
use crate::refusal::Refusal;
use crate::vault::{KeptKey, SealedKey};

use super::aside::SetAside;
use super::events;

/// Whether a thing is connected to the channels of its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Inactive,
    Active,
}

impl State {
    /// As events and requests write it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inactive => 0,
            Self::Active => 1,
        }
    }

    /// # Errors
    /// [`Refusal::Invalid`] for what is neither 0 nor 1.
    pub fn from_number(number: i64) -> Result<Self, Refusal> {
        match number {
            0 => Ok(Self::Inactive),
            1 => Ok(Self::Active),
            _ => Err(Refusal::invalid("state", "0 (inactive) or 1 (active)")),
        }
    }
}

/// A copy of a channel as the things service has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelCopy {
    pub id: ChannelId,
    pub name: String,
    pub metadata: Metadata,
    /// When the channel was changed last, to the microsecond: an older copy does not replace a newer one.
    pub as_of: Timestamp,
}

impl ChannelCopy {
    /// What is announced when it replaces an older one.
    #[must_use]
    pub fn told(&self) -> Event {
        events::channel_updated(self)
    }
}

/// What a device is given when it comes for the first time. A thing has one configuration at most.
#[derive(Clone, Debug)]
pub struct Config {
    pub thing: ThingId,
    pub owner: UserId,
    /// `None` if the thing has another key now that was not asked for yet, or one that is not shown.
    pub thing_key: Option<Secret>,
    pub external_id: String,
    pub external_key: Secret,
    pub name: String,
    pub content: String,
    pub certificates: Certificates,
    pub state: State,
    /// In the order of their ids.
    pub channels: Vec<ChannelCopy>,
}

/// Three texts, PEM as a rule; empty for none.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub client_cert: String,
    pub client_key: Secret,
    pub ca_cert: String,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            client_cert: String::new(),
            client_key: Secret::new(""),
            ca_cert: String::new(),
        }
    }
}

/// A configuration to be made.
#[derive(Clone, Debug)]
pub struct NewConfig {
    /// `None` to have a thing made.
    pub thing: Option<ThingId>,
    pub external_id: String,
    pub external_key: Secret,
    pub name: String,
    pub content: String,
    pub certificates: Certificates,
    pub channels: Vec<ChannelId>,
}

/// Which configurations a list has; all of what is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub external_id: Option<String>,
    pub thing: Option<ThingId>,
    pub thing_key: Option<Secret>,
    /// A part of the name, in capitals or not.
    pub name: Option<String>,
}

/// A configuration as it is kept: what is secret is sealed for its place in it.
#[derive(Clone)]
pub struct KeptConfig {
    pub thing: ThingId,
    pub owner: UserId,
    pub thing_key: Option<KeptKey>,
    pub external_id: String,
    pub external_key: KeptKey,
    pub name: String,
    pub content: SealedKey,
    pub certificates: KeptCertificates,
    pub state: State,
    pub created_at: Timestamp,
    /// Counts changes: one that was decided upon an older state of things is not made.
    pub revision: u64,
    /// By what the things service lends the key of the thing. `None` if it lends none, or no longer.
    pub loan: Option<SealedKey>,
    /// In the order of their ids. Lists leave them out.
    pub channels: Vec<ChannelCopy>,
}

#[derive(Clone)]
pub struct KeptCertificates {
    pub client_cert: String,
    pub client_key: SealedKey,
    pub ca_cert: String,
}

/// Like [`Filter`], in the words of what is kept.
#[derive(Clone, Default)]
pub struct KeptFilter {
    /// `None` for everybody's.
    pub owner: Option<UserId>,
    pub state: Option<State>,
    pub external_id: Option<String>,
    pub thing: Option<ThingId>,
    pub thing_key: Option<crate::identity::KeyHash>,
    /// In small letters.
    pub name: Option<String>,
}

/// What is changed of a configuration.
#[derive(Clone)]
pub enum Change {
    Content {
        name: String,
        content: SealedKey,
    },
    Certificates(KeptCertificates),
    /// Which channels it has. Those that it had keep their `since`.
    Channels {
        channels: Vec<ChannelCopy>,
        since: Timestamp,
    },
    /// `since` is a moment before the things service was asked to connect; without meaning when it disconnects.
    State {
        state: State,
        since: Timestamp,
    },
    ThingKey(Option<KeptKey>),
    Loan(Option<SealedKey>),
    Owner(UserId),
    Remove,
}

/// What an event of the things service changes here. What is younger than the event stays: the event
/// may come late, or once more.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Nothing,
    RemoveConfig {
        thing: ThingId,
        at: Timestamp,
    },
    RemoveChannel {
        channel: ChannelId,
        at: Timestamp,
    },
    UpdateChannel(ChannelCopy),
    /// The configuration of `thing` is inactive from now on, if it has `channel` and is active.
    Deactivate {
        thing: ThingId,
        channel: ChannelId,
        at: Timestamp,
    },
    /// Keeps aside what cannot be understood.
    SetAside {
        reason: String,
        fields: Fields,
    },
}

/// One entry of the events of things, and what it does here.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whose cursor is moved, from `after` to `id`.
    pub source: String,
    /// `None` if nothing was heard yet.
    pub after: Option<String>,
    pub id: String,
    pub effect: Effect,
}

impl Effect {
    /// What is announced when it has changed something: of `configs`, if it is about configurations.
    #[must_use]
    pub fn told(&self, configs: &[ThingId]) -> Vec<Event> {
        match self {
            Self::Nothing | Self::SetAside { .. } => Vec::new(),
            Self::RemoveConfig { thing, .. } => vec![events::thing_gone(*thing)],
            Self::RemoveChannel { channel, .. } => configs
                .iter()
                .map(|config| events::channel_gone(*config, *channel))
                .collect(),
            Self::UpdateChannel(copy) => vec![copy.told()],
            Self::Deactivate { thing, channel, .. } => {
                vec![events::disconnected(*thing, *channel)]
            }
        }
    }
}

/// Where configurations are kept. A change and its events are kept together, or neither is. Copies of channels that
/// come with a change and replace older ones are announced before it.
#[async_trait]
pub trait ConfigStore: Send + Sync {
    /// # Errors
    /// [`StoreError::Taken`] of `external id` or `thing`.
    async fn add_config(&self, config: &KeptConfig, events: Vec<Event>) -> Result<(), StoreError>;

    /// Makes `change` unless the configuration is gone or another revision meanwhile: then `false`.
    async fn change_config(
        &self,
        thing: ThingId,
        revision: u64,
        change: Change,
        events: Vec<Event>,
    ) -> Result<bool, StoreError>;

    async fn config(&self, thing: ThingId) -> Result<Option<KeptConfig>, StoreError>;

    async fn config_of_device(&self, external_id: &str) -> Result<Option<KeptConfig>, StoreError>;

    /// In the order they were made, without their channels.
    async fn configs(
        &self,
        filter: &KeptFilter,
        page: Page,
    ) -> Result<Listing<KeptConfig>, StoreError>;

    /// Keeps events of what changes nothing, if they can be kept: whoever is let or shown something is not to suffer
    /// because nobody can be told of it.
    async fn record_events(&self, events: Vec<Event>);

    /// The entry of `source` that was heard last.
    async fn heard_last(&self, source: &str) -> Result<Option<String>, StoreError>;

    /// The effect of an entry, what [`Effect::told`] says of it if it changes something, and the cursor of its
    /// source, all in one. `false`, and nothing happens, if the cursor is not where it was.
    async fn hear(&self, heard: &Heard) -> Result<bool, StoreError>;

    /// Entries that were set aside, in the order that they were.
    async fn set_aside(&self, page: Page) -> Result<Listing<SetAside>, StoreError>;

    /// Those with this id, whatever their source.
    async fn set_aside_as(&self, id: &str) -> Result<Vec<SetAside>, StoreError>;

    /// The effect of an entry that was set aside, as of [`ConfigStore::hear`], and that it is so no longer, all in
    /// one; no cursor is moved. `false`, and nothing happens, if it is not set aside.
    async fn take_up(&self, heard: &Heard) -> Result<bool, StoreError>;
}

/// Who asks, and the token that says so: to be shown to a things service elsewhere.
#[derive(Clone, Debug)]
pub struct Asker {
    pub caller: Caller,
    pub token: Secret,
}

/// A thing as configurations need it.
#[derive(Clone, Debug)]
pub struct KeyedThing {
    pub id: ThingId,
    pub owner: UserId,
    /// `None` if the things service does not show keys.
    pub key: Option<Secret>,
}

/// The things service, as bootstrap asks it in the name of a caller: in this process, or elsewhere.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// # Errors
    /// [`Refusal::NotFound`] if there is none that the caller may see.
    async fn thing(&self, asker: &Asker, id: ThingId) -> Result<KeyedThing, Refusal>;

    async fn make_thing(&self, asker: &Asker, name: &str) -> Result<KeyedThing, Refusal>;

    /// Takes a thing out of service that was made in vain.
    async fn discard_thing(&self, asker: &Asker, id: ThingId) -> Result<(), Refusal>;

    /// # Errors
    /// [`Refusal::NotFound`] if there is none that the caller may see.
    async fn channel(&self, asker: &Asker, id: ChannelId) -> Result<ChannelCopy, Refusal>;

    /// Lets a thing read and write on those channels where it may do nothing yet; what it may do elsewhere stays as
    /// it is. On all of them, or nothing happens. Returns where it may do something since.
    async fn connect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<Vec<ChannelId>, Refusal>;

    /// Takes away what a thing may do on channels. Where it may do nothing, that is fine.
    async fn disconnect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal>;

    /// Whether this is the key of that thing now, and the thing is enabled.
    async fn is_key_of(&self, thing: ThingId, key: &Secret) -> Result<bool, Refusal>;

    /// Has the key of a thing lent to this service, in place of whoever had it lent: what it returns is good for
    /// [`Inventory::key_of`] until the thing is another owner's. `None` if that cannot be.
    async fn lend_key(&self, asker: &Asker, thing: ThingId) -> Result<Option<Secret>, Refusal>;

    /// Has the key of a thing lent no longer.
    async fn end_loan(&self, asker: &Asker, thing: ThingId) -> Result<(), Refusal>;

    /// The key of an enabled thing, asked for in nobody's name: by a loan, unless it is one and the same
    /// process. `None` if it cannot be had.
    async fn key_of(
        &self,
        thing: ThingId,
        loan: Option<&Secret>,
    ) -> Result<Option<Secret>, Refusal>;
}
