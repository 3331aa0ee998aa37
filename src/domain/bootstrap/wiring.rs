//! Configurations and the channels of their things: in state, and which ones.
//!
//! The things service is asked first. If it refuses, nothing has changed. If the configuration cannot be kept after
//! that, what the things service did is taken back; if this process dies in between, the operation is done again by
//! whoever asked for it, and what is connected or disconnected already is no obstacle.

use std::collections::BTreeSet;

use crate::identity::{ChannelId, ThingId, Timestamp};
use crate::refusal::Refusal;

use super::model::{Asker, Change, KeptConfig, State};
use super::{ATTEMPTS, Bootstrap, events};

impl Bootstrap {
    /// Connects a thing to those channels of its configuration that it is not connected to, or disconnects it from
    /// all. That is done, and announced, in that state too: what was disconnected elsewhere makes a configuration
    /// inactive, but leaves its other channels connected, since nobody has asked for more. What somebody allows a
    /// thing on a channel, or no longer allows, stays so: rights that were narrowed come back by way of inactive.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; whatever the things service says.
    pub async fn change_state(
        &self,
        asker: &Asker,
        id: ThingId,
        state: State,
    ) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS {
            let kept = self.own(asker, id).await?;
            let since = Timestamp::now();
            let channels: Vec<ChannelId> = kept.channels.iter().map(|it| it.id).collect();
            let plan = match state {
                State::Active => Plan::new(id, channels, Vec::new()),
                State::Inactive => Plan::new(id, Vec::new(), channels),
            };
            let change = Change::State { state, since };
            let event = events::state_changed(id, state);
            if self.follow(asker, &plan, &kept, change, event).await? {
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }

    /// Gives a configuration these channels and no others. The thing is disconnected from those that are no longer
    /// there, in either state: nothing would tell later that it was connected for this configuration. If that is
    /// active, the thing is connected to those that are new.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Invalid`] of channels that are not there; whatever the things service says.
    pub async fn update_connections(
        &self,
        asker: &Asker,
        id: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        self.own(asker, id).await?;
        let copies = self.copies(asker, channels).await?;
        let wanted: BTreeSet<ChannelId> = copies.iter().map(|it| it.id).collect();
        for _ in 0..ATTEMPTS {
            let kept = self.own(asker, id).await?;
            let had: BTreeSet<ChannelId> = kept.channels.iter().map(|it| it.id).collect();
            let new = match kept.state {
                State::Active => wanted.difference(&had).copied().collect(),
                State::Inactive => Vec::new(),
            };
            let plan = Plan::new(id, new, had.difference(&wanted).copied().collect());
            let change = Change::Channels {
                channels: copies.clone(),
                since: Timestamp::now(),
            };
            let event = events::connections_updated(id, &copies);
            if self.follow(asker, &plan, &kept, change, event).await? {
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }

    /// Has the things service do what is planned, then keeps `change`. `false` if somebody has changed the
    /// configuration meanwhile: then it has to be looked at again.
    async fn follow(
        &self,
        asker: &Asker,
        plan: &Plan,
        kept: &KeptConfig,
        change: Change,
        event: crate::event::Event,
    ) -> Result<bool, Refusal> {
        let connected = self.connect(asker, plan.thing, &plan.connect).await?;
        let disconnected = self.disconnect(asker, plan.thing, &plan.disconnect).await;
        let changed = match disconnected {
            Ok(()) => self.change(plan.thing, kept.revision, change, event).await,
            Err(refusal) => Err(refusal),
        };
        if !matches!(changed, Ok(true)) {
            self.undo(asker, plan, &connected, kept).await;
        }
        changed
    }

    /// Has the things service agree with the configuration again, as it is now, in what was `connected` and what
    /// `plan` was to disconnect. What fails here is in the hands of whoever tries again.
    async fn undo(&self, asker: &Asker, plan: &Plan, connected: &[ChannelId], before: &KeptConfig) {
        let now = match self.store.config(plan.thing).await {
            Ok(now) => now,
            Err(_) => Some(before.clone()),
        };
        let is_connected = |channel: &ChannelId| {
            let active = now.as_ref().filter(|it| it.state == State::Active);
            active.is_some_and(|it| it.channels.iter().any(|known| known.id == *channel))
        };
        let wrong = |done: &[ChannelId], connected: bool| -> Vec<ChannelId> {
            let done = done.iter().copied();
            done.filter(|it| is_connected(it) != connected).collect()
        };
        let (too_much, too_little) = (wrong(connected, true), wrong(&plan.disconnect, false));
        let _ = self.disconnect(asker, plan.thing, &too_much).await;
        let _ = self.connect(asker, plan.thing, &too_little).await;
    }

    async fn connect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<Vec<ChannelId>, Refusal> {
        match channels {
            [] => Ok(Vec::new()),
            _ => self.things.connect(asker, thing, channels).await,
        }
    }

    async fn disconnect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        match channels {
            [] => Ok(()),
            _ => self.things.disconnect(asker, thing, channels).await,
        }
    }
}

/// What the things service is to do.
struct Plan {
    thing: ThingId,
    connect: Vec<ChannelId>,
    disconnect: Vec<ChannelId>,
}

impl Plan {
    const fn new(thing: ThingId, connect: Vec<ChannelId>, disconnect: Vec<ChannelId>) -> Self {
        Self {
            thing,
            connect,
            disconnect,
        }
    }
}
