//! Things, channels, and which thing may do what on which channel.

mod channels;
mod events;
mod grants;
mod heard;
mod model;

use std::sync::Arc;

use async_trait::async_trait;

use crate::access::{Action, Authority, AuthorityError, Revocations, Revoked};
use crate::event;
use crate::identity::{ChannelId, Secret, ThingId, Timestamp, UserId};
use crate::ports::StoreError;
use crate::vault::KeyKeeper;

pub use crate::entity::Status;
pub use crate::listing::{Listing, Page};
pub use heard::{heard, occurred_at};
pub use model::{Actions, Channel, Created, Grant, NewChannel, NewThing, Shown, Thing, ThingStore};

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
    keys: KeyKeeper,
}

impl Things {
    #[must_use]
    pub fn new(
        store: Arc<dyn ThingStore>,
        revocations: Arc<dyn Revocations>,
        keys: KeyKeeper,
    ) -> Self {
        Self {
            store,
            revocations,
            keys,
        }
    }

    /// Makes things, all or none.
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
            .map(|it| events::thing_event("thing.create", &it.thing))
            .collect();
        let rows: Vec<_> = created
            .iter()
            .map(|it| (it.thing.clone(), self.keys.keep(it.thing.id, &it.key)))
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
            .record(vec![events::list_event("thing.list", listing.total, page)])
            .await?;
        Ok(listing)
    }

    /// A thing, with its key if keys are shown and it was kept since they are.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn show(&self, owner: UserId, id: ThingId) -> Result<Shown, Error> {
        let thing = self.own_thing(owner, id).await?;
        let sealed = self.store.sealed_key(id).await?;
        let key = sealed.and_then(|sealed| self.keys.show(id, &sealed));
        let viewed = events::thing_event("thing.view", &thing);
        self.store.record(vec![viewed]).await?;
        Ok(Shown { thing, key })
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
        let kept = self.keys.keep(id, &key);
        let event = events::thing_event("thing.update_secret", &thing);
        self.store.set_thing_key(&thing, &kept, vec![event]).await?;
        self.revocations.revoked(&[Revoked::Key(id)]);
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
        let event = events::removed(
            "thing.remove",
            &id.to_string(),
            status,
            thing.updated_at,
            owner,
        );
        self.store.set_thing_status(&thing, vec![event]).await?;
        if status == Status::Disabled {
            self.revocations.revoked(&[Revoked::Thing(id)]);
        }
        Ok(thing)
    }

    async fn own_thing(&self, owner: UserId, id: ThingId) -> Result<Thing, Error> {
        self.store
            .thing(owner, id)
            .await?
            .ok_or(Error::NotFound("thing"))
    }
}

#[async_trait]
impl Authority for Things {
    fn tells_revocations(&self) -> bool {
        true
    }

    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError> {
        let found = self.store.identify(&self.keys.hash(key)).await;
        found.map_err(unavailable)?.ok_or(AuthorityError::Denied)
    }

    async fn authorize(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
    ) -> Result<ThingId, AuthorityError> {
        let found = self.store.authorize(&self.keys.hash(key), channel).await;
        match found.map_err(unavailable)? {
            Some((thing, actions)) if actions.includes(action) => Ok(thing),
            _ => Err(AuthorityError::Denied),
        }
    }

    async fn vouch(&self, thing: ThingId) -> Result<(), AuthorityError> {
        match self.store.is_enabled(thing).await.map_err(unavailable)? {
            true => Ok(()),
            false => Err(AuthorityError::Denied),
        }
    }

    async fn allow(
        &self,
        thing: ThingId,
        channel: ChannelId,
        action: Action,
    ) -> Result<(), AuthorityError> {
        let found = self.store.allowed(thing, channel).await;
        match found.map_err(unavailable)? {
            Some(actions) if actions.includes(action) => Ok(()),
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
