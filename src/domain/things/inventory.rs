//! What the bootstrap service asks of the things service of its process.

use async_trait::async_trait;

use crate::bootstrap::{Asker, ChannelCopy, Inventory, KeyedThing};
use crate::groups::Subject;
use crate::identity::{ChannelId, Secret, ThingId};
use crate::refusal::Refusal;

use super::{Channel, DEFAULT_ACTIONS, NewThing, Shown, Status, Things};

#[async_trait]
impl Inventory for Things {
    async fn thing(&self, asker: &Asker, id: ThingId) -> Result<KeyedThing, Refusal> {
        let Shown { thing, key } = self.view(&asker.caller, id).await?;
        let owner = thing.owner;
        Ok(KeyedThing { id, owner, key })
    }

    async fn make_thing(&self, asker: &Asker, name: &str) -> Result<KeyedThing, Refusal> {
        let new = NewThing {
            name: name.to_owned(),
            ..NewThing::default()
        };
        let made = self.create(&asker.caller, vec![new]).await?;
        let made = made.into_iter().next();
        let made = made.expect("invariant: as many as were asked for");
        Ok(KeyedThing {
            id: made.thing.id,
            owner: made.thing.owner,
            key: Some(made.key),
        })
    }

    async fn discard_thing(&self, asker: &Asker, id: ThingId) -> Result<(), Refusal> {
        let disabled = self.set_status(&asker.caller, id, Status::Disabled).await;
        disabled.map(|_| ())
    }

    async fn channel(&self, asker: &Asker, id: ChannelId) -> Result<ChannelCopy, Refusal> {
        let channel = self.view_channel(&asker.caller, id).await?;
        Ok(copy(channel))
    }

    async fn connect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<Vec<ChannelId>, Refusal> {
        let subjects = [Subject::Thing(thing)];
        let actions = DEFAULT_ACTIONS.into_iter().collect();
        let connected = self.connect_missing(&asker.caller, &subjects, channels, actions);
        Ok(connected.await?.into_iter().map(|it| it.object).collect())
    }

    async fn disconnect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        let (caller, subjects) = (&asker.caller, [Subject::Thing(thing)]);
        match self.disconnect(caller, &subjects, channels).await {
            // One of them is not connected, and so all stay as they were.
            Err(Refusal::NotFound(_)) => {}
            disconnected => return disconnected,
        }
        for channel in channels {
            match self.disconnect(caller, &subjects, &[*channel]).await {
                Ok(()) | Err(Refusal::NotFound(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    async fn is_key_of(&self, thing: ThingId, key: &Secret) -> Result<bool, Refusal> {
        let holder = self.stores.things.identify(&self.keys.hash(key)).await?;
        Ok(holder == Some(thing))
    }

    async fn lend_key(&self, asker: &Asker, thing: ThingId) -> Result<Option<Secret>, Refusal> {
        self.lend_key(&asker.caller, thing).await.map(Some)
    }

    async fn end_loan(&self, asker: &Asker, thing: ThingId) -> Result<(), Refusal> {
        self.end_loan(&asker.caller, thing).await
    }

    async fn key_of(&self, thing: ThingId, _: Option<&Secret>) -> Result<Option<Secret>, Refusal> {
        if !self.stores.things.is_enabled(thing).await? {
            return Ok(None);
        }
        let sealed = self.stores.things.sealed_key(thing).await?;
        Ok(sealed.and_then(|sealed| self.keys.show(thing, &sealed)))
    }
}

fn copy(channel: Channel) -> ChannelCopy {
    let changed = channel.update.map_or(channel.created_at, |it| it.at);
    ChannelCopy {
        id: channel.id,
        name: channel.name,
        metadata: channel.metadata,
        as_of: changed.to_the_microsecond(),
    }
}
