//! What is done with channels.

use crate::access::Revoked;
use crate::identity::{ChannelId, Timestamp, UserId};

use super::{
    Channel, Error, Listing, NewChannel, Page, Status, Things, check_batch, check_metadata,
    check_name, check_page, events, touch,
};

impl Things {
    /// Makes channels, all or none.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub async fn create_channels(
        &self,
        owner: UserId,
        new: Vec<NewChannel>,
    ) -> Result<Vec<Channel>, Error> {
        check_batch(new.len())?;
        let mut channels = Vec::with_capacity(new.len());
        for NewChannel { name, metadata } in new {
            check_name(&name)?;
            check_metadata(&metadata)?;
            channels.push(Channel {
                id: ChannelId::generate(),
                owner,
                name,
                metadata,
                status: Status::Enabled,
                created_at: Timestamp::now(),
                updated_at: None,
                updated_by: None,
            });
        }
        let events = channels.iter().map(events::channel_created).collect();
        self.store.add_channels(&channels, events).await?;
        Ok(channels)
    }

    /// # Errors
    /// [`Error::Invalid`] for a page that is too large.
    pub async fn list_channels(
        &self,
        owner: UserId,
        page: Page,
    ) -> Result<Listing<Channel>, Error> {
        check_page(page)?;
        let listing = self.store.channels(owner, page).await?;
        self.store
            .record(vec![events::list_event(
                "channel.list",
                listing.total,
                page,
            )])
            .await?;
        Ok(listing)
    }

    /// Enables or disables a channel. Nobody may do anything on a disabled one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] if it is in that state already.
    pub async fn set_channel_status(
        &self,
        owner: UserId,
        id: ChannelId,
        status: Status,
    ) -> Result<Channel, Error> {
        let mut channel = self.own_channel(owner, id).await?;
        if channel.status == status {
            return Err(Error::Invalid(match status {
                Status::Enabled => "the channel is already enabled",
                Status::Disabled => "the channel is already disabled",
            }));
        }
        channel.status = status;
        touch(&mut channel.updated_at, &mut channel.updated_by, owner);
        let event = events::removed(
            "channel.remove",
            &id.to_string(),
            status,
            channel.updated_at,
            owner,
        );
        self.store.set_channel_status(&channel, vec![event]).await?;
        if status == Status::Disabled {
            self.revocations.revoked(&[Revoked::Channel(id)]);
        }
        Ok(channel)
    }

    pub(super) async fn own_channel(&self, owner: UserId, id: ChannelId) -> Result<Channel, Error> {
        self.store
            .channel(owner, id)
            .await?
            .ok_or(Error::NotFound("channel"))
    }
}
