//! What is done with channels.

use crate::access::Revoked;
use crate::caller::Caller;
use crate::entity::Update;
use crate::groups::{Details, Direction, GroupFilter, Subject, Tree, events};
use crate::identity::{ChannelId, ThingId};
use crate::policies::Action;
use crate::refusal::Refusal;

use super::{Channel, ChannelQuery, Listing, NewChannel, Page, Status, Things, check_batch};

impl Things {
    /// Makes channels, all or none. They are the caller's; an administrator may name another owner.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Taken`] if an id is another channel's, or the owner has a channel of that
    /// name; [`Refusal::NotFound`] for a parent that the caller may add nothing to; [`Refusal::Denied`].
    pub async fn create_channels(
        &self,
        caller: &Caller,
        new: Vec<NewChannel>,
    ) -> Result<Vec<Channel>, Refusal> {
        check_batch("channels", new.len())?;
        let mut channels = Vec::with_capacity(new.len());
        for new in new {
            let parent = match new.parent {
                Some(id) => Some(self.channel_for(caller, id, Action::GroupAdd).await?),
                None => None,
            };
            channels.push(new.make(caller, parent.as_ref())?);
        }
        let events = channels
            .iter()
            .map(|it| events::group("channel.create", it))
            .collect();
        self.stores.channels.add_groups(&channels, events).await?;
        Ok(channels)
    }

    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn view_channel(&self, caller: &Caller, id: ChannelId) -> Result<Channel, Refusal> {
        let channel = self.channel_for(caller, id, Action::GroupList).await?;
        self.announce(events::group("channel.view", &channel)).await;
        Ok(channel)
    }

    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`]; [`Refusal::Taken`] if the owner has another channel of that
    /// name.
    pub async fn update_channel(
        &self,
        caller: &Caller,
        id: ChannelId,
        details: &Details,
    ) -> Result<Channel, Refusal> {
        details.check()?;
        self.channel_for(caller, id, Action::GroupUpdate).await?;
        let update = Update::now(caller.user);
        let tell = |channel: &Channel| events::group("channel.update", channel);
        let channels = &self.stores.channels;
        let changed = channels.change_group(id, details, update, &tell).await?;
        changed.ok_or(Refusal::NotFound("channel"))
    }

    /// Enables or disables a channel. Nobody may do anything on a disabled one.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Already`] in that state.
    pub async fn set_channel_status(
        &self,
        caller: &Caller,
        id: ChannelId,
        status: Status,
    ) -> Result<Channel, Refusal> {
        self.channel_for(caller, id, Action::GroupDelete).await?;
        let update = Update::now(caller.user);
        let tell = |channel: &Channel| events::removed("channel.remove", channel);
        let channels = &self.stores.channels;
        let changed = channels.set_group_status(id, status, update, &tell).await?;
        let channel = changed.ok_or(Refusal::Already(match status {
            Status::Enabled => "the channel is already enabled",
            Status::Disabled => "the channel is already disabled",
        }))?;
        if status == Status::Disabled {
            self.revocations.revoked(&[Revoked::Channel(id)]);
        }
        Ok(channel)
    }

    /// Channels in the order they were made.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a page that is too large.
    pub async fn list_channels(
        &self,
        caller: &Caller,
        query: &ChannelQuery,
        page: Page,
    ) -> Result<Listing<Channel>, Refusal> {
        self.channels_in(query, query.seen_by(caller), page).await
    }

    /// What is above or below a channel, itself included, as far as the caller may see it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`].
    pub async fn list_related_channels(
        &self,
        caller: &Caller,
        id: ChannelId,
        direction: Direction,
        levels: Option<usize>,
        query: &ChannelQuery,
        page: Page,
    ) -> Result<Listing<Channel>, Refusal> {
        let around = self.channel_for(caller, id, Action::GroupList).await?;
        let tree = Tree {
            around,
            direction,
            levels,
        };
        let filter = GroupFilter {
            tree: Some(tree),
            ..query.seen_by(caller)
        };
        self.channels_in(query, filter, page).await
    }

    /// Channels that a thing is connected to.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Invalid`].
    pub async fn list_channels_by_thing(
        &self,
        caller: &Caller,
        thing: ThingId,
        query: &ChannelQuery,
        page: Page,
    ) -> Result<Listing<Channel>, Refusal> {
        let page = page.check()?;
        self.thing_for(caller, thing, Action::ClientList).await?;
        let filter = GroupFilter {
            subject: Some(Subject::Thing(thing)),
            ..query.filter()
        };
        filter.check()?;
        let listing = self.stores.channels.groups(&filter, page).await?;
        let (operation, thing) = ("channel.list_by_thing", ("thing_id", thing.to_string()));
        let listed = events::listed_by(operation, thing, query, listing.total, page);
        self.announce(listed).await;
        Ok(listing)
    }

    async fn channels_in(
        &self,
        query: &ChannelQuery,
        filter: GroupFilter<ChannelId>,
        page: Page,
    ) -> Result<Listing<Channel>, Refusal> {
        let page = page.check()?;
        filter.check()?;
        let listing = self.stores.channels.groups(&filter, page).await?;
        let listed = events::listed("channel.list", query, listing.total, page);
        self.announce(listed).await;
        Ok(listing)
    }

    /// The channel, if the caller may do `action` on it. To others it is as if it were not there.
    pub(super) async fn channel_for(
        &self,
        caller: &Caller,
        id: ChannelId,
        action: Action,
    ) -> Result<Channel, Refusal> {
        const UNKNOWN: Refusal = Refusal::NotFound("channel");
        let channel = self.stores.channels.group(id).await?.ok_or(UNKNOWN)?;
        if channel.belongs_to(caller) {
            return Ok(channel);
        }
        let user = Subject::User(caller.user);
        let standing = self.stores.policies.standing(user, id).await?;
        let allowed = standing.is_some_and(|it| it.allows(caller.user, action));
        allowed.then_some(channel).ok_or(UNKNOWN)
    }
}
