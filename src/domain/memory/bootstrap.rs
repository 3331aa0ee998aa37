//! Configurations in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::bootstrap::{
    Change, ChannelCopy, ConfigStore, Effect, Heard, KeptConfig, KeptFilter, MAX_SET_ASIDE,
    SetAside, State,
};
use crate::event::Event;
use crate::identity::{ChannelId, ThingId, Timestamp};
use crate::listing::{Listing, Page};
use crate::ports::StoreError;

use super::{Events, lock, page_of};

pub struct Configs {
    kept: Mutex<Kept>,
    events: Events,
}

#[derive(Default)]
struct Kept {
    configs: BTreeMap<ThingId, Row>,
    channels: BTreeMap<ChannelId, ChannelCopy>,
    cursors: BTreeMap<String, String>,
    aside: Vec<SetAside>,
}

/// Channels are kept aside from it: configurations share them.
struct Row {
    config: KeptConfig,
    channels: BTreeMap<ChannelId, Timestamp>,
}

impl Configs {
    #[must_use]
    pub fn new(events: Events) -> Self {
        Self {
            kept: Mutex::default(),
            events,
        }
    }

    fn take_over(&self, kept: &mut Kept, heard: &Heard) {
        let changed = kept.apply(heard);
        kept.forget_orphans();
        if let Some(configs) = changed {
            self.events.record(heard.effect.told(&configs));
        }
    }

    /// What was announced, in order.
    #[must_use]
    pub fn announced(&self) -> Vec<Event> {
        self.events.all()
    }
}

impl Kept {
    fn whole(&self, row: &Row) -> KeptConfig {
        let copies = row.channels.keys().map(|id| self.channels[id].clone());
        KeptConfig {
            channels: copies.collect(),
            ..row.config.clone()
        }
    }

    /// Returns what is to be announced of them.
    fn copy(&mut self, channels: &[ChannelCopy]) -> Vec<Event> {
        let mut told = Vec::new();
        for copy in channels {
            if self.refresh(copy) {
                told.push(copy.told());
            }
            self.channels.entry(copy.id).or_insert_with(|| copy.clone());
        }
        told
    }

    /// Puts a copy in the place of an older one. `false` if there is none.
    fn refresh(&mut self, copy: &ChannelCopy) -> bool {
        let known = self.channels.get_mut(&copy.id);
        let Some(known) = known.filter(|known| known.as_of < copy.as_of) else {
            return false;
        };
        known.clone_from(copy);
        true
    }

    fn forget_orphans(&mut self) {
        let rows = &self.configs;
        let is_used = |id: &ChannelId| rows.values().any(|row| row.channels.contains_key(id));
        self.channels.retain(|id, _| is_used(id));
    }

    fn lists(&self, filter: &KeptFilter, config: &KeptConfig) -> bool {
        let key = config.thing_key.as_ref().map(|key| key.hash);
        let name = config.name.to_lowercase();
        filter.owner.is_none_or(|it| it == config.owner)
            && filter.state.is_none_or(|it| it == config.state)
            && filter.thing.is_none_or(|it| it == config.thing)
            && filter.thing_key.is_none_or(|it| key == Some(it))
            && filter.name.as_ref().is_none_or(|it| name.contains(it))
            && filter
                .external_id
                .as_ref()
                .is_none_or(|it| *it == config.external_id)
    }

    /// `None` if it changes nothing; otherwise of which configurations a channel is gone.
    fn apply(&mut self, heard: &Heard) -> Option<Vec<ThingId>> {
        match &heard.effect {
            Effect::Nothing => None,
            Effect::RemoveConfig { thing, at } => {
                let found = self.configs.get(thing);
                let is_older = found.is_some_and(|row| row.config.created_at <= *at);
                (is_older && self.configs.remove(thing).is_some()).then(Vec::new)
            }
            Effect::RemoveChannel { channel, at } => {
                let mut changed = Vec::new();
                for row in self.configs.values_mut() {
                    if row.channels.get(channel).is_some_and(|since| since <= at) {
                        row.channels.remove(channel);
                        row.config.revision += 1;
                        changed.push(row.config.thing);
                    }
                }
                (!changed.is_empty()).then_some(changed)
            }
            Effect::UpdateChannel(copy) => self.refresh(copy).then(Vec::new),
            Effect::Deactivate { thing, channel, at } => {
                let row = self.configs.get_mut(thing)?;
                let since = row.channels.get(channel);
                let changed =
                    row.config.state == State::Active && since.is_some_and(|since| since <= at);
                if changed {
                    row.config.state = State::Inactive;
                    row.config.revision += 1;
                }
                changed.then(Vec::new)
            }
            Effect::SetAside { reason, fields } => {
                self.aside.push(SetAside {
                    source: heard.source.clone(),
                    id: heard.id.clone(),
                    reason: reason.clone(),
                    fields: fields.clone(),
                    at: Timestamp::now(),
                });
                let too_many = self.aside.len().saturating_sub(MAX_SET_ASIDE);
                self.aside.drain(..too_many);
                None
            }
        }
    }
}

#[async_trait]
impl ConfigStore for Configs {
    async fn add_config(&self, config: &KeptConfig, events: Vec<Event>) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        let same = |row: &Row| row.config.external_id == config.external_id;
        if kept.configs.values().any(same) {
            return Err(StoreError::Taken("external id"));
        }
        if kept.configs.contains_key(&config.thing) {
            return Err(StoreError::Taken("thing"));
        }
        let mut told = kept.copy(&config.channels);
        let since = |copy: &ChannelCopy| (copy.id, config.created_at);
        let row = Row {
            config: config.clone(),
            channels: config.channels.iter().map(since).collect(),
        };
        kept.configs.insert(config.thing, row);
        told.extend(events);
        self.events.record(told);
        Ok(())
    }

    async fn change_config(
        &self,
        thing: ThingId,
        revision: u64,
        change: Change,
        events: Vec<Event>,
    ) -> Result<bool, StoreError> {
        let mut kept = lock(&self.kept);
        let is_it = |row: &Row| row.config.revision == revision;
        if !kept.configs.get(&thing).is_some_and(is_it) {
            return Ok(false);
        }
        let mut told = match &change {
            Change::Channels { channels, .. } => kept.copy(channels),
            _ => Vec::new(),
        };
        let Some(row) = kept.configs.get_mut(&thing) else {
            return Ok(false);
        };
        row.config.revision += 1;
        match change {
            Change::Content { name, content } => {
                row.config.name = name;
                row.config.content = content;
            }
            Change::Certificates(certificates) => row.config.certificates = certificates,
            Change::Channels { channels, since } => {
                let before = std::mem::take(&mut row.channels);
                let since = |id| before.get(&id).copied().unwrap_or(since);
                row.channels = channels.iter().map(|it| (it.id, since(it.id))).collect();
            }
            Change::State { state, since } => {
                row.config.state = state;
                if state == State::Active {
                    row.channels.values_mut().for_each(|it| *it = since);
                }
            }
            Change::ThingKey(key) => row.config.thing_key = key,
            Change::Loan(loan) => row.config.loan = loan,
            Change::Owner(owner) => row.config.owner = owner,
            Change::Remove => {
                kept.configs.remove(&thing);
            }
        }
        kept.forget_orphans();
        told.extend(events);
        self.events.record(told);
        Ok(true)
    }

    async fn config(&self, thing: ThingId) -> Result<Option<KeptConfig>, StoreError> {
        let kept = lock(&self.kept);
        Ok(kept.configs.get(&thing).map(|row| kept.whole(row)))
    }

    async fn config_of_device(&self, external_id: &str) -> Result<Option<KeptConfig>, StoreError> {
        let kept = lock(&self.kept);
        let mut rows = kept.configs.values();
        let found = rows.find(|row| row.config.external_id == external_id);
        Ok(found.map(|row| kept.whole(row)))
    }

    async fn configs(
        &self,
        filter: &KeptFilter,
        page: Page,
    ) -> Result<Listing<KeptConfig>, StoreError> {
        let kept = lock(&self.kept);
        let configs = kept.configs.values().map(|row| &row.config);
        let listed = configs.filter(|config| kept.lists(filter, config));
        let without = |config: &KeptConfig| KeptConfig {
            channels: Vec::new(),
            ..config.clone()
        };
        let mut listed: Vec<KeptConfig> = listed.map(without).collect();
        listed.sort_by_key(|config| (config.created_at, config.thing));
        Ok(page_of(listed, page))
    }

    async fn record_events(&self, events: Vec<Event>) {
        self.events.record(events);
    }

    async fn heard_last(&self, source: &str) -> Result<Option<String>, StoreError> {
        Ok(lock(&self.kept).cursors.get(source).cloned())
    }

    async fn hear(&self, heard: &Heard) -> Result<bool, StoreError> {
        let mut kept = lock(&self.kept);
        if kept.cursors.get(&heard.source) != heard.after.as_ref() {
            return Ok(false);
        }
        kept.cursors.insert(heard.source.clone(), heard.id.clone());
        self.take_over(&mut kept, heard);
        Ok(true)
    }

    async fn set_aside(&self, page: Page) -> Result<Listing<SetAside>, StoreError> {
        Ok(page_of(lock(&self.kept).aside.clone(), page))
    }

    async fn set_aside_as(&self, id: &str) -> Result<Vec<SetAside>, StoreError> {
        let kept = lock(&self.kept);
        let found = kept.aside.iter().filter(|it| it.id == id);
        Ok(found.cloned().collect())
    }

    async fn take_up(&self, heard: &Heard) -> Result<bool, StoreError> {
        let mut kept = lock(&self.kept);
        let count = kept.aside.len();
        let is_it = |it: &SetAside| it.source == heard.source && it.id == heard.id;
        kept.aside.retain(|it| !is_it(it));
        if kept.aside.len() == count {
            return Ok(false);
        }
        self.take_over(&mut kept, heard);
        Ok(true)
    }
}
