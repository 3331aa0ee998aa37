//! Looking at things.

use std::collections::HashMap;

use crate::attendance::ChannelCount;
use crate::caller::Caller;
use crate::identity::{ChannelId, Secret, ThingId};
use crate::listing::{Listing, Page, Visibility};
use crate::metadata::check_wanted;
use crate::policies::Action;
use crate::refusal::Refusal;

use super::{Scope, Shown, Thing, ThingFilter, Things, events};

/// Things that are asked about at one time.
const STEP: usize = 256;

impl Things {
    /// A thing; for its owner with its key, if keys are shown and it was kept since they are.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn view(&self, caller: &Caller, id: ThingId) -> Result<Shown, Refusal> {
        let thing = self.thing_for(caller, id, Action::ClientList).await?;
        let key = self.key_for(caller, &thing).await?;
        let viewed = events::thing("thing.view", &thing);
        self.announce(viewed).await;
        Ok(Shown { thing, key })
    }

    /// The key of a thing the caller may look at, if the caller may see that too.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn key_for(&self, caller: &Caller, thing: &Thing) -> Result<Option<Secret>, Refusal> {
        if !caller.admin && thing.owner != caller.user {
            return Ok(None);
        }
        let sealed = self.stores.things.sealed_key(thing.id).await?;
        Ok(sealed.and_then(|sealed| self.keys.show(thing.id, &sealed)))
    }

    /// Things in the order they were made. Administrators see everybody's unless they want to see less.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a page that is too large, or a filter.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &ThingFilter,
        visibility: Visibility,
        page: Page,
    ) -> Result<Listing<Thing>, Refusal> {
        let page = page.check()?;
        check_wanted(&filter.metadata)?;
        let scope = match caller.admin && visibility == Visibility::All {
            true => Scope::Everybodys,
            false => Scope::Of(caller.user, visibility),
        };
        let listing = self.stores.things.things(filter, scope, page).await?;
        let listed = events::things_listed(filter, visibility, listing.total, page);
        self.announce(listed).await;
        Ok(listing)
    }

    /// How many of the things that are online, each with so many sessions, are connected to each channel. Most things
    /// first. For who may know of everybody's.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn count_by_channel(
        &self,
        online: &HashMap<ThingId, u64>,
    ) -> Result<Vec<ChannelCount>, Refusal> {
        let things: Vec<ThingId> = online.keys().copied().collect();
        let mut counts: HashMap<ChannelId, (u64, u64)> = HashMap::new();
        for step in things.chunks(STEP) {
            for (thing, channel) in self.stores.things.memberships(step).await? {
                let (things, sessions) = counts.entry(channel).or_default();
                *things += 1;
                *sessions += online.get(&thing).copied().unwrap_or(0);
            }
        }
        let counts = counts.into_iter();
        let mut counts: Vec<ChannelCount> = counts
            .map(|(channel, (things, sessions))| ChannelCount {
                channel,
                things,
                sessions,
            })
            .collect();
        counts.sort_unstable_by_key(|it| (std::cmp::Reverse(it.things), it.channel));
        Ok(counts)
    }

    /// Things that are connected to a channel.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`].
    pub async fn list_by_channel(
        &self,
        caller: &Caller,
        channel: ChannelId,
        filter: &ThingFilter,
        page: Page,
    ) -> Result<Listing<Thing>, Refusal> {
        let page = page.check()?;
        check_wanted(&filter.metadata)?;
        self.channel_for(caller, channel, Action::GroupList).await?;
        let listing = self
            .stores
            .things
            .things_of_channel(channel, filter, page)
            .await?;
        let listed = events::things_listed_by_channel(channel, filter, listing.total, page);
        self.announce(listed).await;
        Ok(listing)
    }
}
