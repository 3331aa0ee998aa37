//! Things, channels, and which thing may do what on which channel.

mod authority;
mod changes;
mod channels;
mod events;
mod heard;
mod inventory;
mod loans;
mod model;
mod policies;
mod views;

use std::sync::Arc;

use crate::access::Revocations;
use crate::caller::{Caller, Identities};
use crate::event::Event;
use crate::groups::{Group, GroupQuery, GroupStore, NewGroup, PolicyStore, Subject};
use crate::identity::{ChannelId, ThingId};
use crate::policies::Action;
use crate::refusal::Refusal;
use crate::vault::KeyKeeper;

pub use crate::entity::Status;
pub use crate::listing::{Listing, Page};
pub use authority::EntityType;
pub use heard::{heard, occurred_at};
pub use model::{
    Actions, Created, NewThing, Scope, Shown, Thing, ThingChange, ThingFilter, ThingStore,
};
pub use policies::DEFAULT_ACTIONS;

/// Most things or channels made, or pairs connected, at one time.
pub const MAX_BATCH: usize = 10_000;
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 8..=1_024;

/// A group of things: what topics begin with.
pub type Channel = Group<ChannelId>;
pub type NewChannel = NewGroup<ChannelId>;
pub type ChannelQuery = GroupQuery<ChannelId>;
/// What a thing may do on a channel; or a user, which is called external.
pub type Policy = crate::groups::Policy<ChannelId>;

/// Where the things service keeps what it has.
#[derive(Clone)]
pub struct Stores {
    pub things: Arc<dyn ThingStore>,
    pub channels: Arc<dyn GroupStore<ChannelId>>,
    pub policies: Arc<dyn PolicyStore<ChannelId>>,
}

impl Stores {
    /// All in one place.
    #[must_use]
    pub fn of<S>(store: Arc<S>) -> Self
    where
        S: ThingStore + GroupStore<ChannelId> + PolicyStore<ChannelId> + 'static,
    {
        Self {
            things: store.clone(),
            channels: store.clone(),
            policies: store,
        }
    }
}

/// The things service. Who owns something may do everything with it, administrators everything with everybody's;
/// others what policies on channels allow them. Users may live in another service: of them only ids are known.
pub struct Things {
    stores: Stores,
    users: Arc<dyn Identities>,
    revocations: Arc<dyn Revocations>,
    keys: KeyKeeper,
}

impl Things {
    #[must_use]
    pub fn new(
        stores: Stores,
        users: Arc<dyn Identities>,
        revocations: Arc<dyn Revocations>,
        keys: KeyKeeper,
    ) -> Self {
        Self {
            stores,
            users,
            revocations,
            keys,
        }
    }

    /// The thing, if the caller may do `action` with it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also for a thing that is not the caller's to see; [`Refusal::Denied`] for one that
    /// is.
    async fn thing_for(
        &self,
        caller: &Caller,
        id: ThingId,
        action: Action,
    ) -> Result<Thing, Refusal> {
        let found = self.stores.things.thing(id).await?;
        let thing = found.ok_or(Refusal::NotFound("thing"))?;
        if caller.admin || thing.owner == caller.user || self.reaches(caller, action, id).await? {
            return Ok(thing);
        }
        Err(match self.reaches(caller, Action::ClientList, id).await? {
            true => Refusal::Denied,
            false => Refusal::NotFound("thing"),
        })
    }

    /// Whether the caller may do `action` with what is connected to a channel that the thing is connected to.
    async fn reaches(
        &self,
        caller: &Caller,
        action: Action,
        thing: ThingId,
    ) -> Result<bool, Refusal> {
        let (policies, thing) = (&self.stores.policies, Subject::Thing(thing));
        Ok(policies.reaches(caller.user, action, thing).await?)
    }

    async fn announce(&self, event: Event) {
        self.stores.things.record(vec![event]).await;
    }
}

fn check_batch(field: &'static str, len: usize) -> Result<(), Refusal> {
    match len {
        0 => Err(Refusal::invalid(field, "at least one")),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Refusal::invalid(field, "at most 10000 at one time")),
    }
}

#[cfg(test)]
mod tests;
