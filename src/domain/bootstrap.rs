//! Bootstrap: what a device is given that comes with nothing but an external id and key.
//!
//! Things and channels belong to the things service; this one keeps copies and asks it ([`Inventory`]) in the name
//! of its callers. What is done there cannot be undone by our transaction, so it is done first and the configuration
//! follows: whoever finds an operation that was cut short does it again, and it picks up where it was.

mod aside;
mod cipher;
mod device;
mod events;
mod model;
mod news;
mod safe;
mod wiring;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::entity;
use crate::event::Event;
use crate::identity::{ChannelId, KeyHasher, Secret, ThingId, Timestamp};
use crate::listing::{Listing, MAX_PAGE, Page};
use crate::refusal::Refusal;
use crate::vault::Vault;

pub use aside::{MAX_SET_ASIDE, SetAside};
pub use cipher::DeviceCipher;
pub use device::{Guesses, Provision};
pub use events::PrivateKeys;
pub use model::{
    Asker, Certificates, Change, ChannelCopy, Config, ConfigStore, Effect, Filter, Heard,
    Inventory, KeptCertificates, KeptConfig, KeptFilter, KeyedThing, NewConfig, State,
};
pub use news::{News, Told, understand};

use safe::Safe;

/// Bytes of an external id or key.
pub const MAX_EXTERNAL: usize = 1_024;
/// Bytes of the content for a device.
pub const MAX_CONTENT: usize = 64 * 1024;
/// Bytes of a certificate or private key.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
/// Channels of a configuration.
pub const MAX_CHANNELS: usize = 256;
/// How often something is decided anew because somebody else was faster.
const ATTEMPTS: usize = 8;

/// The bootstrap service.
pub struct Bootstrap {
    store: Arc<dyn ConfigStore>,
    things: Arc<dyn Inventory>,
    safe: Safe,
    cipher: DeviceCipher,
    guesses: Guesses,
    private_keys: PrivateKeys,
}

impl Bootstrap {
    /// `hasher` and `vault` are for what is kept, `cipher` is for devices that ask without TLS.
    #[must_use]
    pub fn new(
        store: Arc<dyn ConfigStore>,
        things: Arc<dyn Inventory>,
        hasher: KeyHasher,
        vault: Vault,
        cipher: DeviceCipher,
        guesses: Guesses,
        private_keys: PrivateKeys,
    ) -> Self {
        Self {
            store,
            things,
            safe: Safe::new(hasher, vault),
            cipher,
            guesses,
            private_keys,
        }
    }

    /// Makes a configuration, inactive, and a thing for it if none is named. Returns the thing.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], also of channels that are not there; [`Refusal::NotFound`] of the thing;
    /// [`Refusal::Taken`] if the external id or the thing has a configuration.
    pub async fn add(&self, asker: &Asker, new: NewConfig) -> Result<ThingId, Refusal> {
        check_external("external_id", &new.external_id)?;
        check_external("external_key", new.external_key.expose())?;
        entity::check_name("name", &new.name)?;
        check_content(&new.content)?;
        check_certificates(&new.certificates)?;
        let channels = self.copies(asker, &new.channels).await?;
        let known = self.store.config_of_device(&new.external_id).await?;
        if known.is_some() {
            return Err(Refusal::Taken("external id"));
        }
        let thing = match new.thing {
            Some(id) => {
                let thing = self.things.thing(asker, id).await?;
                // Before its key is lent anew: that would end the loan of the configuration it has.
                if self.store.config(id).await?.is_some() {
                    return Err(Refusal::Taken("thing"));
                }
                thing
            }
            None => {
                let name = match new.name.is_empty() {
                    true => &new.external_id,
                    false => &new.name,
                };
                self.things.make_thing(asker, name).await?
            }
        };
        let added = self.add_for(asker, &thing, &new, channels).await;
        if added.is_err() && new.thing.is_none() {
            // Nobody knows its key: if this fails too, it is of no use to anybody.
            let _ = self.things.discard_thing(asker, thing.id).await;
        }
        added.map(|()| thing.id)
    }

    async fn add_for(
        &self,
        asker: &Asker,
        thing: &KeyedThing,
        new: &NewConfig,
        channels: Vec<ChannelCopy>,
    ) -> Result<(), Refusal> {
        let Some(key) = &thing.key else {
            let reason =
                "the key of this thing is not shown any more: leave it out to have a thing made";
            return Err(Refusal::invalid("thing_id", reason));
        };
        let loan = self.things.lend_key(asker, thing.id).await?;
        let kept = KeptConfig {
            thing: thing.id,
            owner: asker.caller.user,
            thing_key: Some(self.safe.keep_thing_key(thing.id, key)),
            external_id: new.external_id.clone(),
            external_key: self.safe.keep_external_key(thing.id, &new.external_key),
            name: new.name.clone(),
            content: self.safe.keep_content(thing.id, &new.content),
            certificates: self.safe.keep_certificates(thing.id, &new.certificates),
            state: State::Inactive,
            created_at: Timestamp::now(),
            revision: 1,
            loan: loan.map(|loan| self.safe.keep_loan(thing.id, &loan)),
            channels,
        };
        let config = self.safe.open_config(kept.clone())?;
        let event = events::created(&config, self.private_keys);
        Ok(self.store.add_config(&kept, vec![event]).await?)
    }

    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn view(&self, asker: &Asker, id: ThingId) -> Result<Config, Refusal> {
        let kept = self.own(asker, id).await?;
        let revision = match kept.loan {
            Some(_) => kept.revision,
            None => self.borrow_key(asker, id, kept.revision).await?,
        };
        let mut config = self.safe.open_config(kept)?;
        if config.thing_key.is_none()
            && let Ok(thing) = self.things.thing(asker, id).await
            && let Some(key) = thing.key
        {
            self.keep_thing_key(id, revision, &key).await?;
            config.thing_key = Some(key);
        }
        let event = events::viewed(&config);
        self.store.record_events(vec![event]).await;
        Ok(config)
    }

    /// The caller's configurations, an administrator's: everybody's. Without their channels.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a page that is too large.
    pub async fn list(
        &self,
        asker: &Asker,
        filter: Filter,
        page: Page,
    ) -> Result<Listing<Config>, Refusal> {
        if page.limit > MAX_PAGE {
            return Err(Refusal::invalid("limit", "at most 1000"));
        }
        if i64::try_from(page.offset).is_err() {
            return Err(Refusal::invalid("offset", "less than 2^63"));
        }
        if let Some(external_id) = &filter.external_id {
            check_external("external_id", external_id)?;
        }
        if let Some(name) = &filter.name {
            entity::check_name("name", name)?;
        }
        let caller = asker.caller;
        let thing_key = filter.thing_key.as_ref();
        let wanted = KeptFilter {
            owner: (!caller.admin).then_some(caller.user),
            state: filter.state,
            external_id: filter.external_id.clone(),
            thing: filter.thing,
            thing_key: thing_key.map(|key| self.safe.hash_thing_key(key)),
            name: filter.name.as_ref().map(|name| name.to_lowercase()),
        };
        let found = self.store.configs(&wanted, page).await?;
        let opened = found.items.into_iter();
        let items: Result<Vec<Config>, Refusal> =
            opened.map(|kept| self.safe.open_config(kept)).collect();
        let listing = Listing {
            items: items?,
            total: found.total,
        };
        let event = events::listed(&filter, page);
        self.store.record_events(vec![event]).await;
        Ok(listing)
    }

    /// Changes name and content, both.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`].
    pub async fn update(
        &self,
        asker: &Asker,
        id: ThingId,
        name: String,
        content: String,
    ) -> Result<(), Refusal> {
        entity::check_name("name", &name)?;
        check_content(&content)?;
        for _ in 0..ATTEMPTS {
            let kept = self.own(asker, id).await?;
            let revision = kept.revision;
            let mut config = self.safe.open_config(kept)?;
            config.name.clone_from(&name);
            config.content.clone_from(&content);
            let change = Change::Content {
                name: name.clone(),
                content: self.safe.keep_content(id, &content),
            };
            if self
                .change(id, revision, change, events::updated(&config))
                .await?
            {
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }

    /// Changes the three texts, all of them. Returns them.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`].
    pub async fn update_certificates(
        &self,
        asker: &Asker,
        id: ThingId,
        certificates: Certificates,
    ) -> Result<Certificates, Refusal> {
        check_certificates(&certificates)?;
        for _ in 0..ATTEMPTS {
            let revision = self.own(asker, id).await?.revision;
            let kept = self.safe.keep_certificates(id, &certificates);
            let event = events::certified(id, &certificates, self.private_keys);
            let change = Change::Certificates(kept);
            if self.change(id, revision, change, event).await? {
                return Ok(certificates);
            }
        }
        Err(Refusal::Busy)
    }

    /// Removes a configuration; the thing stays as it is. That there is none is fine, and is no event.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn remove(&self, asker: &Asker, id: ThingId) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS {
            let revision = match self.own(asker, id).await {
                Ok(kept) => kept.revision,
                Err(Refusal::NotFound(_)) => return Ok(()),
                Err(refusal) => return Err(refusal),
            };
            let event = events::removed(id);
            if self.change(id, revision, Change::Remove, event).await? {
                // Nobody has it any longer, so it does no harm if this fails.
                let _ = self.things.end_loan(asker, id).await;
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }

    async fn own(&self, asker: &Asker, id: ThingId) -> Result<KeptConfig, Refusal> {
        let caller = asker.caller;
        let found = self.store.config(id).await?;
        let own = found.filter(|kept| caller.admin || kept.owner == caller.user);
        own.ok_or(Refusal::NotFound("configuration"))
    }

    async fn change(
        &self,
        thing: ThingId,
        revision: u64,
        change: Change,
        event: Event,
    ) -> Result<bool, Refusal> {
        let changed = self
            .store
            .change_config(thing, revision, change, vec![event]);
        Ok(changed.await?)
    }

    /// Has the key of a thing lent, for when nobody is there who could ask for it; if that cannot be now, the next
    /// look at the configuration tries again. Returns the revision that the configuration has then.
    async fn borrow_key(
        &self,
        asker: &Asker,
        thing: ThingId,
        revision: u64,
    ) -> Result<u64, Refusal> {
        let Ok(Some(loan)) = self.things.lend_key(asker, thing).await else {
            return Ok(revision);
        };
        let change = Change::Loan(Some(self.safe.keep_loan(thing, &loan)));
        let kept = self
            .store
            .change_config(thing, revision, change, Vec::new());
        Ok(revision + u64::from(kept.await?))
    }

    /// Remembers the key of a thing. If somebody changes the configuration meanwhile, the next one who looks does.
    async fn keep_thing_key(
        &self,
        thing: ThingId,
        revision: u64,
        key: &Secret,
    ) -> Result<(), Refusal> {
        let change = Change::ThingKey(Some(self.safe.keep_thing_key(thing, key)));
        let kept = self
            .store
            .change_config(thing, revision, change, Vec::new());
        kept.await?;
        Ok(())
    }

    /// Channels as the things service has them, each once, in the order of their ids.
    async fn copies(&self, asker: &Asker, ids: &[ChannelId]) -> Result<Vec<ChannelCopy>, Refusal> {
        if ids.len() > MAX_CHANNELS {
            return Err(Refusal::invalid("channels", "at most 256"));
        }
        let ids: BTreeSet<ChannelId> = ids.iter().copied().collect();
        let mut copies = Vec::with_capacity(ids.len());
        for id in ids {
            let copy = self.things.channel(asker, id).await;
            copies.push(copy.map_err(|refusal| match refusal {
                Refusal::NotFound(_) | Refusal::Denied => {
                    Refusal::invalid("channels", format!("there is no channel {id}"))
                }
                other => other,
            })?);
        }
        Ok(copies)
    }
}

fn check_external(field: &'static str, text: &str) -> Result<(), Refusal> {
    if !(1..=MAX_EXTERNAL).contains(&text.len()) || text.contains(char::is_control) {
        let reason = "from 1 to 1024 bytes, no control characters";
        return Err(Refusal::invalid(field, reason));
    }
    Ok(())
}

fn check_content(content: &str) -> Result<(), Refusal> {
    match content.len() <= MAX_CONTENT {
        true => Ok(()),
        false => Err(Refusal::invalid("content", "at most 64 KiB")),
    }
}

fn check_certificates(certificates: &Certificates) -> Result<(), Refusal> {
    for (field, text) in [
        ("client_cert", &*certificates.client_cert),
        ("client_key", certificates.client_key.expose()),
        ("ca_cert", &*certificates.ca_cert),
    ] {
        if text.len() > MAX_CERTIFICATE || text.contains('\0') {
            return Err(Refusal::invalid(field, "at most 64 KiB of text"));
        }
    }
    Ok(())
}
