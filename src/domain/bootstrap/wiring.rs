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
    /// Connects a thing to all channels of its configuration, or disconnects it. That is done, and announced, in
    /// that state too: what was disconnected elsewhere makes a configuration inactive, but leaves its other channels
    /// connected.
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

    /// Gives a configuration these channels and no others; if it is active, its thing is connected to those that
    /// are new and disconnected from those that are no longer there.
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
            let plan = match kept.state {
                State::Active => Plan::new(
                    id,
                    wanted.difference(&had).copied().collect(),
                    had.difference(&wanted).copied().collect(),
                ),
                State::Inactive => Plan::new(id, Vec::new(), Vec::new()),
            };
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
        self.connect(asker, plan.thing, &plan.connect).await?;
        let disconnected = self.disconnect(asker, plan.thing, &plan.disconnect).await;
        let changed = match disconnected {
            Ok(()) => self.change(plan.thing, kept.revision, change, event).await,
            Err(refusal) => Err(refusal),
        };
        if !matches!(changed, Ok(true)) {
            self.undo(asker, plan, kept).await;
        }
        changed
    }

    /// Has the things service agree with the configuration again, as it is now, in what `plan` was about. What
    /// fails here is in the hands of whoever tries again.
    async fn undo(&self, asker: &Asker, plan: &Plan, before: &KeptConfig) {
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
        let (too_much, too_little) = (wrong(&plan.connect, true), wrong(&plan.disconnect, false));
        let _ = self.disconnect(asker, plan.thing, &too_much).await;
        let _ = self.connect(asker, plan.thing, &too_little).await;
    }

    async fn connect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        match channels {
            [] => Ok(()),
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
