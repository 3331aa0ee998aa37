//! What things may do on channels.

use crate::access::Revoked;
use crate::event::{self, Event, Stream};
use crate::identity::{ChannelId, ThingId, Timestamp, UserId};

use super::{Actions, Error, Grant, Things, check_batch};

const NOT_CONNECTED: Error = Error::NotFound("connection of that thing and channel");

impl Things {
    /// Lets every one of `things` do `actions` on every one of `channels`, in place of what it may do there.
    ///
    /// # Errors
    /// [`Error::NotFound`] if one of them is not there; then nothing has changed.
    pub async fn connect(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
        actions: Actions,
    ) -> Result<Vec<Grant>, Error> {
        if actions == Actions::NONE {
            return Err(Error::Invalid("name at least one action: m_read, m_write"));
        }
        let mut grants = Vec::new();
        let mut events = Vec::new();
        for (thing, channel) in self.own_pairs(owner, things, channels).await? {
            let before = self.store.grant(thing, channel).await?;
            let now = Timestamp::now();
            let created_at = before.as_ref().map_or(now, |grant| grant.created_at);
            let operation = if before.is_some() {
                "policies.update"
            } else {
                "policies.add"
            };
            let updated_at = before.map(|_| now);
            let updated = updated_at.map(Timestamp::rfc3339).unwrap_or_default();
            events.push(Event::operation(
                Stream::Things,
                operation,
                [
                    ("owner_id", owner.to_string()),
                    ("subject", thing.to_string()),
                    ("object", channel.to_string()),
                    ("actions", event::list(&actions.names())),
                    ("created_at", created_at.rfc3339()),
                    ("updated_at", updated),
                ],
            ));
            grants.push(Grant {
                thing,
                channel,
                actions,
                created_at,
                updated_at,
            });
        }
        self.store.put_grants(&grants, events).await?;
        // Whatever was there before, and whoever changed it meanwhile: no more than this is left.
        if actions != Actions::ALL {
            let left = |grant: &Grant| Revoked::Grant {
                thing: grant.thing,
                channel: grant.channel,
                left: actions,
            };
            let revoked: Vec<Revoked> = grants.iter().map(left).collect();
            self.revocations.revoked(&revoked);
        }
        Ok(grants)
    }

    /// Changes what a thing may do on a channel where it may do something.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it may do nothing there.
    pub async fn change_grant(
        &self,
        owner: UserId,
        thing: ThingId,
        channel: ChannelId,
        actions: Actions,
    ) -> Result<(), Error> {
        self.own_pairs(owner, &[thing], &[channel]).await?;
        let grant = self.store.grant(thing, channel).await?;
        grant.ok_or(NOT_CONNECTED)?;
        self.connect(owner, &[thing], &[channel], actions).await?;
        Ok(())
    }

    /// Takes away what `things` may do on `channels`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if one of the pairs is not connected; then nothing has changed.
    pub async fn disconnect(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
    ) -> Result<(), Error> {
        let pairs = self.own_pairs(owner, things, channels).await?;
        let mut events = Vec::new();
        for &(thing, channel) in &pairs {
            let grant = self.store.grant(thing, channel).await?;
            let grant = grant.ok_or(NOT_CONNECTED)?;
            events.push(Event::operation(
                Stream::Things,
                "policies.delete",
                [
                    ("subject", thing.to_string()),
                    ("object", channel.to_string()),
                    ("actions", event::list(&grant.actions.names())),
                ],
            ));
        }
        self.store.remove_grants(&pairs, events).await?;
        let revoked = pairs.into_iter().map(|(thing, channel)| Revoked::Grant {
            thing,
            channel,
            left: Actions::NONE,
        });
        self.revocations.revoked(&revoked.collect::<Vec<_>>());
        Ok(())
    }

    async fn own_pairs(
        &self,
        owner: UserId,
        things: &[ThingId],
        channels: &[ChannelId],
    ) -> Result<Vec<(ThingId, ChannelId)>, Error> {
        check_batch(things.len().saturating_mul(channels.len()))?;
        for &thing in things {
            self.own_thing(owner, thing).await?;
        }
        let mut pairs = Vec::with_capacity(things.len() * channels.len());
        for &channel in channels {
            self.own_channel(owner, channel).await?;
            pairs.extend(things.iter().map(|&thing| (thing, channel)));
        }
        Ok(pairs)
    }
}
