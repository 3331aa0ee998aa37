//! What fronts ask: who holds this key, and may they.

use async_trait::async_trait;

use crate::access::{Action, Authority, AuthorityError};
use crate::identity::{ChannelId, Secret, ThingId};
use crate::ports::StoreError;

use super::{Things, events};

/// What a question about access calls the one it is about. All are answered alike: by key and channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityType {
    Thing,
    Group,
    Client,
}

impl EntityType {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Thing => "thing",
            Self::Group => "group",
            Self::Client => "client",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown entity type: choose group, thing or client")]
pub struct UnknownEntityType;

impl std::str::FromStr for EntityType {
    type Err = UnknownEntityType;

    fn from_str(text: &str) -> Result<Self, UnknownEntityType> {
        [Self::Thing, Self::Group, Self::Client]
            .into_iter()
            .find(|entity| entity.as_str() == text)
            .ok_or(UnknownEntityType)
    }
}

impl Things {
    /// May the thing that holds `key` do `action` on `channel`? Returns which thing that is. To call the one it is
    /// about by `entity_type` changes nothing but the event.
    ///
    /// # Errors
    /// As of [`Authority::authorize`].
    pub async fn authorize_as(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
        entity_type: EntityType,
    ) -> Result<ThingId, AuthorityError> {
        let found = self
            .stores
            .things
            .authorize(&self.keys.hash(key), channel)
            .await;
        match found.map_err(unavailable)? {
            Some((thing, actions)) if actions.includes(action) => {
                self.announce(events::authorized(entity_type, channel, action))
                    .await;
                Ok(thing)
            }
            _ => Err(AuthorityError::Denied),
        }
    }
}

/// An answer is announced, once: what the front remembers of it, it does not ask about.
#[async_trait]
impl Authority for Things {
    fn tells_revocations(&self) -> bool {
        true
    }

    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError> {
        let found = self.stores.things.identify(&self.keys.hash(key)).await;
        let thing = found.map_err(unavailable)?.ok_or(AuthorityError::Denied)?;
        self.announce(events::identified(thing)).await;
        Ok(thing)
    }

    async fn authorize(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
    ) -> Result<ThingId, AuthorityError> {
        self.authorize_as(key, channel, action, EntityType::Thing)
            .await
    }

    async fn vouch(&self, thing: ThingId) -> Result<(), AuthorityError> {
        if !self
            .stores
            .things
            .is_enabled(thing)
            .await
            .map_err(unavailable)?
        {
            return Err(AuthorityError::Denied);
        }
        self.announce(events::identified(thing)).await;
        Ok(())
    }

    async fn allow(
        &self,
        thing: ThingId,
        channel: ChannelId,
        action: Action,
    ) -> Result<(), AuthorityError> {
        let found = self.stores.things.allowed(thing, channel).await;
        match found.map_err(unavailable)? {
            Some(actions) if actions.includes(action) => {
                self.announce(events::authorized(EntityType::Thing, channel, action))
                    .await;
                Ok(())
            }
            _ => Err(AuthorityError::Denied),
        }
    }
}

fn unavailable(error: StoreError) -> AuthorityError {
    AuthorityError::Unavailable(Box::new(error))
}
