//! Things, channels, and which thing may do what on which channel.

use std::sync::Arc;

use async_trait::async_trait;

use crate::access::{Action, Authority, AuthorityError, Revocations, Revoked};
use crate::event::{self, Event, Stream};
use crate::identity::{ChannelId, KeyHash, KeyHasher, Secret, ThingId, Timestamp, UserId};
use crate::ports::StoreError;

/// Whether an entity takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
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

    /// Whether everything in `other` is in these too.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        (self.read || !other.read) && (self.write || !other.write)
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
        let mut all = Self {
            read: false,
            write: false,
        };
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

/// Where things and channels are kept. A change and its events are kept together, or neither is.
#[async_trait]
pub trait ThingStore: Send + Sync {
    async fn add_things(
        &self,
        things: &[(Thing, KeyHash)],
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Keeps `thing` in place of what it was, and `key` if its key changed. Something with its id exists.
    async fn update_thing(
        &self,
        thing: &Thing,
        key: Option<KeyHash>,
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    async fn thing(&self, owner: UserId, id: ThingId) -> Result<Option<Thing>, StoreError>;

    /// In the order they were made.
    async fn things(&self, owner: UserId, page: Page) -> Result<Listing<Thing>, StoreError>;

    async fn add_channels(
        &self,
        channels: &[Channel],
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
}

/// Why something cannot be done with things and channels.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such {0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0} is taken")]
    Taken(&'static str),
    #[error("things are not available")]
    Store(#[source] StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken(what) => Self::Taken(what),
            failed @ StoreError::Failed { .. } => Self::Store(failed),
        }
    }
}

/// Most things or channels made, or pairs connected, at one time.
pub const MAX_BATCH: usize = 10_000;
/// Most entries of a page.
pub const MAX_PAGE: u64 = 1_000;
const MAX_NAME: usize = 1_024;
const MAX_TAGS: usize = 64;
const MAX_METADATA: usize = 64 * 1024;
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 8..=1_024;

/// The things service. Everything is done in the name of an owner, who sees what is theirs alone.
pub struct Things {
    store: Arc<dyn ThingStore>,
    revocations: Arc<dyn Revocations>,
    hasher: KeyHasher,
}

impl Things {
    #[must_use]
    pub fn new(
        store: Arc<dyn ThingStore>,
        revocations: Arc<dyn Revocations>,
        hasher: KeyHasher,
    ) -> Self {
        Self {
            store,
            revocations,
            hasher,
        }
    }

    /// Makes things, all or none. The keys are seen this once.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Taken`] if a given key is another thing's.
    pub async fn create(&self, owner: UserId, new: Vec<NewThing>) -> Result<Vec<Created>, Error> {
        check_batch(new.len())?;
        let mut created = Vec::with_capacity(new.len());
        for NewThing {
            name,
            tags,
            metadata,
            key,
        } in new
        {
            check_name(&name)?;
            check_metadata(&metadata)?;
            if tags.len() > MAX_TAGS || tags.iter().any(|tag| tag.len() > MAX_NAME) {
                return Err(Error::Invalid("too many or too long tags"));
            }
            let key = checked_key(key)?;
            let thing = Thing {
                id: ThingId::generate(),
                owner,
                name,
                tags,
                metadata,
                status: Status::Enabled,
                created_at: Timestamp::now(),
                updated_at: None,
                updated_by: None,
            };
            created.push(Created { thing, key });
        }
        let events = created
            .iter()
            .map(|it| thing_event("thing.create", &it.thing))
            .collect();
        let rows: Vec<_> = created
            .iter()
            .map(|it| (it.thing.clone(), self.hasher.hash(it.key.expose())))
            .collect();
        self.store.add_things(&rows, events).await?;
        Ok(created)
    }

    /// # Errors
    /// [`Error::Invalid`] for a page that is too large.
    pub async fn list(&self, owner: UserId, page: Page) -> Result<Listing<Thing>, Error> {
        check_page(page)?;
        let listing = self.store.things(owner, page).await?;
        self.store
            .record(vec![list_event("thing.list", listing.total, page)])
            .await?;
        Ok(listing)
    }

    /// Gives a thing another key: `key`, or a generated one. Its sessions end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Taken`].
    pub async fn rotate_key(
        &self,
        owner: UserId,
        id: ThingId,
        key: Option<Secret>,
    ) -> Result<Created, Error> {
        let key = checked_key(key)?;
        let mut thing = self.own_thing(owner, id).await?;
        touch(&mut thing.updated_at, &mut thing.updated_by, owner);
        let hash = self.hasher.hash(key.expose());
        let event = thing_event("thing.update_secret", &thing);
        self.store
            .update_thing(&thing, Some(hash), vec![event])
            .await?;
        self.revocations.revoked(Revoked::Thing(id));
        Ok(Created { thing, key })
    }

    /// Enables or disables a thing. The sessions of a disabled thing end.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] if it is in that state already.
    pub async fn set_status(
        &self,
        owner: UserId,
        id: ThingId,
        status: Status,
    ) -> Result<Thing, Error> {
        let mut thing = self.own_thing(owner, id).await?;
        if thing.status == status {
            return Err(Error::Invalid(match status {
                Status::Enabled => "the thing is already enabled",
                Status::Disabled => "the thing is already disabled",
            }));
        }
        thing.status = status;
        touch(&mut thing.updated_at, &mut thing.updated_by, owner);
        let event = Event::operation(
            Stream::Things,
            "thing.remove",
            [
                ("id", id.to_string()),
                ("status", status.as_str().into()),
                (
                    "updated_at",
                    thing.updated_at.map(Timestamp::rfc3339).unwrap_or_default(),
                ),
                ("updated_by", owner.to_string()),
            ],
        );
        self.store.update_thing(&thing, None, vec![event]).await?;
        if status == Status::Disabled {
            self.revocations.revoked(Revoked::Thing(id));
        }
        Ok(thing)
    }

    /// Makes channels, all or none.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub async fn create_channels(
        &self,
        owner: UserId,
        new: Vec<NewChannel>,
    ) -> Result<Vec<Channel>, Error> {
        check_batch(new.len())?;
        let mut channels = Vec::with_capacity(new.len());
        for NewChannel { name, metadata } in new {
            check_name(&name)?;
            check_metadata(&metadata)?;
            channels.push(Channel {
                id: ChannelId::generate(),
                owner,
                name,
                metadata,
                status: Status::Enabled,
                created_at: Timestamp::now(),
                updated_at: None,
                updated_by: None,
            });
        }
        let events = channels.iter().map(channel_created).collect();
        self.store.add_channels(&channels, events).await?;
        Ok(channels)
    }

    /// # Errors
    /// [`Error::Invalid`] for a page that is too large.
    pub async fn list_channels(
        &self,
        owner: UserId,
        page: Page,
    ) -> Result<Listing<Channel>, Error> {
        check_page(page)?;
        let listing = self.store.channels(owner, page).await?;
        self.store
            .record(vec![list_event("channel.list", listing.total, page)])
            .await?;
        Ok(listing)
    }

    /// Lets every one of `things` do `actions` on every one of `channels`, in place of what it may do there.
    ///
    /// # Errors
    /// [`Error::NotFound`] if one of them is not there; then nothing has changed.
    pub async fn connect(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
        actions: Actions,
    ) -> Result<(), Error> {
        if !actions.read && !actions.write {
            return Err(Error::Invalid("name at least one action: m_read, m_write"));
        }
        let mut grants = Vec::new();
        let mut events = Vec::new();
        let mut reduced = Vec::new();
        for (thing, channel) in self.own_pairs(owner, things, channels).await? {
            let before = self.store.grant(thing, channel).await?;
            let now = Timestamp::now();
            let created_at = before.as_ref().map_or(now, |grant| grant.created_at);
            if before.is_some_and(|grant| !actions.covers(grant.actions)) {
                reduced.push(Revoked::Grant(thing, channel));
            }
            let operation = if before.is_some() {
                "policies.update"
            } else {
                "policies.add"
            };
            let updated = before.map(|_| now.rfc3339()).unwrap_or_default();
            events.push(Event::operation(
                Stream::Things,
                operation,
                [
                    ("owner_id", owner.to_string()),
                    ("subject", thing.to_string()),
                    ("object", channel.to_string()),
                    ("actions", event::list(&actions.names())),
                    ("created_at", created_at.rfc3339()),
                    ("updated_at", updated),
                ],
            ));
            grants.push(Grant {
                thing,
                channel,
                actions,
                created_at,
            });
        }
        self.store.put_grants(&grants, events).await?;
        for revoked in reduced {
            self.revocations.revoked(revoked);
        }
        Ok(())
    }

    /// Takes away what `things` may do on `channels`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if one of the pairs is not connected; then nothing has changed.
    pub async fn disconnect(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
    ) -> Result<(), Error> {
        let pairs = self.own_pairs(owner, things, channels).await?;
        let mut events = Vec::new();
        for &(thing, channel) in &pairs {
            let grant = self.store.grant(thing, channel).await?;
            let grant = grant.ok_or(Error::NotFound("connection of that thing and channel"))?;
            events.push(Event::operation(
                Stream::Things,
                "policies.delete",
                [
                    ("subject", thing.to_string()),
                    ("object", channel.to_string()),
                    ("actions", event::list(&grant.actions.names())),
                ],
            ));
        }
        self.store.remove_grants(&pairs, events).await?;
        for (thing, channel) in pairs {
            self.revocations.revoked(Revoked::Grant(thing, channel));
        }
        Ok(())
    }

    async fn own_thing(&self, owner: UserId, id: ThingId) -> Result<Thing, Error> {
        self.store
            .thing(owner, id)
            .await?
            .ok_or(Error::NotFound("thing"))
    }

    async fn own_pairs(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
    ) -> Result<Vec<(ThingId, ChannelId)>, Error> {
        check_batch(things.len().saturating_mul(channels.len()))?;
        for &thing in things {
            self.own_thing(owner, thing).await?;
        }
        let mut pairs = Vec::with_capacity(things.len() * channels.len());
        for &channel in channels {
            let known = self.store.channel(owner, channel).await?;
            known.ok_or(Error::NotFound("channel"))?;
            pairs.extend(things.iter().map(|&thing| (thing, channel)));
        }
        Ok(pairs)
    }
}

#[async_trait]
impl Authority for Things {
    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError> {
        let found = self.store.identify(&self.hasher.hash(key.expose())).await;
        found.map_err(unavailable)?.ok_or(AuthorityError::Denied)
    }

    async fn authorize(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
    ) -> Result<ThingId, AuthorityError> {
        let found = self
            .store
            .authorize(&self.hasher.hash(key.expose()), channel)
            .await;
        match found.map_err(unavailable)? {
            Some((thing, actions)) if actions.includes(action) => Ok(thing),
            _ => Err(AuthorityError::Denied),
        }
    }
}

fn unavailable(error: StoreError) -> AuthorityError {
    AuthorityError::Unavailable(Box::new(error))
}

fn touch(at: &mut Option<Timestamp>, by: &mut Option<UserId>, owner: UserId) {
    *at = Some(Timestamp::now());
    *by = Some(owner);
}

fn checked_key(key: Option<Secret>) -> Result<Secret, Error> {
    let Some(key) = key else {
        return Ok(Secret::generate());
    };
    let text = key.expose();
    if !KEY_LENGTHS.contains(&text.len()) || text.contains(char::is_control) {
        return Err(Error::Invalid(
            "a key has 8 to 1024 bytes and no control characters",
        ));
    }
    Ok(key)
}

fn check_batch(len: usize) -> Result<(), Error> {
    match len {
        0 => Err(Error::Invalid("nothing to do: the list is empty")),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Error::Invalid("too many at one time: at most 10000")),
    }
}

fn check_page(page: Page) -> Result<(), Error> {
    if (1..=MAX_PAGE).contains(&page.limit) && i64::try_from(page.offset).is_ok() {
        Ok(())
    } else {
        Err(Error::Invalid("the limit of a page is from 1 to 1000"))
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(Error::Invalid(
            "a name has at most 1024 bytes and no control characters",
        ));
    }
    Ok(())
}

fn check_metadata(metadata: &serde_json::Map<String, serde_json::Value>) -> Result<(), Error> {
    if event::json(metadata).len() > MAX_METADATA {
        return Err(Error::Invalid("metadata has at most 64 KiB"));
    }
    Ok(())
}

fn thing_event(operation: &'static str, thing: &Thing) -> Event {
    let tags = if thing.tags.is_empty() {
        String::new()
    } else {
        event::list(&thing.tags)
    };
    Event::operation(
        Stream::Things,
        operation,
        [
            ("id", thing.id.to_string()),
            ("name", thing.name.clone()),
            ("tags", tags),
            ("owner", thing.owner.to_string()),
            ("metadata", event::json(&thing.metadata)),
            ("created_at", thing.created_at.rfc3339()),
            (
                "updated_at",
                thing.updated_at.map(Timestamp::rfc3339).unwrap_or_default(),
            ),
            (
                "updated_by",
                thing
                    .updated_by
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
            ),
            ("status", thing.status.as_str().into()),
        ],
    )
}

fn channel_created(channel: &Channel) -> Event {
    Event::operation(
        Stream::Things,
        "channel.create",
        [
            ("id", channel.id.to_string()),
            ("name", channel.name.clone()),
            ("owner", channel.owner.to_string()),
            ("metadata", event::json(&channel.metadata)),
            ("created_at", channel.created_at.rfc3339()),
            ("status", channel.status.as_str().into()),
        ],
    )
}

fn list_event(operation: &'static str, total: u64, page: Page) -> Event {
    Event::operation(
        Stream::Things,
        operation,
        [
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("status", "all".into()),
        ],
    )
}
