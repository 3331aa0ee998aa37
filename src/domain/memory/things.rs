//! Things in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::entity::{Status, Update};
use crate::event::Event;
use crate::groups::{GroupStore, PolicyStore, Subject, Tell};
use crate::identity::{ChannelId, KeyHash, ThingId, UserId};
use crate::listing::{Listing, Page, Visibility};
use crate::metadata;
use crate::policies::Action;
use crate::ports::StoreError;
use crate::things::{Actions, Scope, Thing, ThingChange, ThingFilter, ThingStore};
use crate::vault::{KeptKey, SealedKey};

use super::{Events, Groups, lock, page_of};

/// Things, beside the channels they are connected to.
pub struct Things {
    things: Mutex<BTreeMap<ThingId, (Thing, KeptKey)>>,
    loans: Mutex<BTreeMap<ThingId, KeyHash>>,
    channels: Arc<Groups<ChannelId>>,
    events: Events,
}

impl Things {
    #[must_use]
    pub fn new(channels: Arc<Groups<ChannelId>>, events: Events) -> Self {
        Self {
            things: Mutex::default(),
            loans: Mutex::default(),
            channels,
            events,
        }
    }

    fn all(&self, filter: &ThingFilter) -> Vec<Thing> {
        let things = lock(&self.things);
        let mut listed: Vec<Thing> = things
            .values()
            .map(|(thing, _)| thing)
            .filter(|it| filter.status.includes(it.status))
            .filter(|it| filter.name.as_ref().is_none_or(|name| *name == it.name))
            .filter(|it| filter.owner.is_none_or(|owner| owner == it.owner))
            .filter(|it| filter.tag.as_ref().is_none_or(|tag| it.tags.contains(tag)))
            .filter(|it| metadata::contains(&it.metadata, &filter.metadata))
            .cloned()
            .collect();
        listed.sort_by_key(|it| (it.created_at, it.id));
        listed
    }

    fn enabled(&self, is_it: impl Fn(&Thing, &KeptKey) -> bool) -> Option<ThingId> {
        let things = lock(&self.things);
        let found = things.values().find(|(thing, key)| is_it(thing, key));
        let (thing, _) = found.filter(|(thing, _)| thing.status == Status::Enabled)?;
        Some(thing.id)
    }
}

#[async_trait]
impl ThingStore for Things {
    async fn add_things(
        &self,
        new: &[(Thing, KeptKey)],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let mut things = lock(&self.things);
        let mut all = things.clone();
        for (thing, key) in new {
            if all.contains_key(&thing.id) {
                return Err(StoreError::Taken("id"));
            }
            if all.values().any(|(_, other)| other.hash == key.hash) {
                return Err(StoreError::Taken("key"));
            }
            all.insert(thing.id, (thing.clone(), key.clone()));
        }
        *things = all;
        self.events.record(events);
        Ok(())
    }

    async fn change_thing(
        &self,
        id: ThingId,
        change: &ThingChange,
        update: Update,
        tell: &Tell<Thing>,
    ) -> Result<Option<Thing>, StoreError> {
        let mut things = lock(&self.things);
        if let ThingChange::Key(key) = change {
            let is_others = |(other, (_, kept)): (&ThingId, &(Thing, KeptKey))| {
                *other != id && kept.hash == key.hash
            };
            if things.iter().any(is_others) {
                return Err(StoreError::Taken("key"));
            }
        }
        let Some((thing, kept)) = things.get_mut(&id) else {
            return Ok(None);
        };
        match change {
            ThingChange::About { name, metadata } => {
                thing.name = name.as_ref().unwrap_or(&thing.name).clone();
                thing.metadata = metadata.as_ref().unwrap_or(&thing.metadata).clone();
            }
            ThingChange::Tags(tags) => thing.tags.clone_from(tags),
            ThingChange::Owner(owner) => {
                thing.owner = *owner;
                lock(&self.loans).remove(&id);
            }
            ThingChange::Status(status) if thing.status == *status => return Ok(None),
            ThingChange::Status(status) => thing.status = *status,
            ThingChange::Key(key) => *kept = key.clone(),
        }
        thing.update = Some(update);
        self.events.record([tell(thing)]);
        Ok(Some(thing.clone()))
    }

    async fn thing(&self, id: ThingId) -> Result<Option<Thing>, StoreError> {
        let things = lock(&self.things);
        Ok(things.get(&id).map(|(thing, _)| thing.clone()))
    }

    async fn sealed_key(&self, id: ThingId) -> Result<Option<SealedKey>, StoreError> {
        let things = lock(&self.things);
        Ok(things.get(&id).and_then(|(_, key)| key.sealed.clone()))
    }

    async fn lend_key(
        &self,
        id: ThingId,
        owner: UserId,
        loan: Option<KeyHash>,
    ) -> Result<bool, StoreError> {
        let things = lock(&self.things);
        if things.get(&id).is_none_or(|(it, _)| it.owner != owner) {
            return Ok(false);
        }
        let mut loans = lock(&self.loans);
        match loan {
            Some(loan) => _ = loans.insert(id, loan),
            None => _ = loans.remove(&id),
        }
        Ok(true)
    }

    async fn lent_key(
        &self,
        id: ThingId,
    ) -> Result<Option<(KeyHash, Option<SealedKey>)>, StoreError> {
        let things = lock(&self.things);
        let found = things
            .get(&id)
            .filter(|(it, _)| it.status == Status::Enabled);
        let loan = lock(&self.loans).get(&id).copied();
        Ok(found.and_then(|(_, key)| Some((loan?, key.sealed.clone()))))
    }

    async fn things(
        &self,
        filter: &ThingFilter,
        scope: Scope,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError> {
        let mut listed = Vec::new();
        for thing in self.all(filter) {
            let is_in = match scope {
                Scope::Everybodys => true,
                Scope::Of(user, visibility) => {
                    let (mine, member) = (thing.owner == user, Subject::Thing(thing.id));
                    let channels = &self.channels;
                    let shared =
                        !mine && channels.reaches(user, Action::ClientList, member).await?;
                    match visibility {
                        Visibility::Mine => mine,
                        Visibility::Shared => shared,
                        Visibility::All => mine || shared,
                    }
                }
            };
            if is_in {
                listed.push(thing);
            }
        }
        Ok(page_of(listed, page))
    }

    async fn things_of_channel(
        &self,
        channel: ChannelId,
        filter: &ThingFilter,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError> {
        let mut listed = Vec::new();
        for thing in self.all(filter) {
            let policy = self.channels.policy(Subject::Thing(thing.id), channel);
            if policy.await?.is_some() {
                listed.push(thing);
            }
        }
        Ok(page_of(listed, page))
    }

    async fn record(&self, events: Vec<Event>) {
        self.events.record(events);
    }

    async fn identify(&self, key: &KeyHash) -> Result<Option<ThingId>, StoreError> {
        Ok(self.enabled(|_, kept| kept.hash == *key))
    }

    async fn authorize(
        &self,
        key: &KeyHash,
        channel: ChannelId,
    ) -> Result<Option<(ThingId, Actions)>, StoreError> {
        let Some(thing) = self.enabled(|_, kept| kept.hash == *key) else {
            return Ok(None);
        };
        let allowed = self.allowed(thing, channel).await?;
        Ok(allowed.map(|actions| (thing, actions)))
    }

    async fn is_enabled(&self, thing: ThingId) -> Result<bool, StoreError> {
        Ok(self.enabled(|it, _| it.id == thing).is_some())
    }

    async fn allowed(
        &self,
        thing: ThingId,
        channel: ChannelId,
    ) -> Result<Option<Actions>, StoreError> {
        let is_open = self.channels.group(channel).await?;
        let is_open = is_open.is_some_and(|it| it.status == Status::Enabled);
        if !is_open || !self.is_enabled(thing).await? {
            return Ok(None);
        }
        let policy = self.channels.policy(Subject::Thing(thing), channel).await?;
        Ok(policy.map(|it| it.actions.into()))
    }

    async fn memberships(
        &self,
        things: &[ThingId],
    ) -> Result<Vec<(ThingId, ChannelId)>, StoreError> {
        let channels = |thing: &ThingId| {
            let open = self.channels.open_to(Subject::Thing(*thing));
            let thing = *thing;
            open.into_iter().map(move |channel| (thing, channel))
        };
        Ok(things.iter().flat_map(channels).collect())
    }
}
