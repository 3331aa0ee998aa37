//! `rollcall.things.v1.Channels`.

use rollcall_domain::caller::Caller;
use rollcall_domain::entity::Status as State;
use rollcall_domain::groups::Direction;
use rollcall_domain::listing::Listing;
use rollcall_domain::things::Channel;
use tonic::{Request, Response, Status};

use super::Service;
use super::words::new_channel;
use crate::status;
use crate::things_api as api;
use crate::words::{change, group, page, parse, query};

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    async fn set_channel_status(
        &self,
        caller: &Caller,
        id: &str,
        state: State,
    ) -> Answer<api::Channel> {
        let id = parse("id", id)?;
        let changed = self.things.set_channel_status(caller, id, state).await;
        Ok(Response::new(group(changed.map_err(status::refusal)?)))
    }

    async fn related(
        &self,
        request: Request<api::ListRelatedChannelsRequest>,
        direction: Direction,
    ) -> Answer<api::ListChannelsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let levels = asked.levels.map(|levels| levels as usize);
        let query = query(asked.filter)?;
        let page = page(asked.page);
        let things = &self.things;
        let listing = things
            .list_related_channels(&caller, id, direction, levels, &query, page)
            .await;
        Ok(listed(listing.map_err(status::refusal)?))
    }
}

fn listed(listing: Listing<Channel>) -> Response<api::ListChannelsResponse> {
    Response::new(api::ListChannelsResponse {
        channels: listing.items.into_iter().map(group).collect(),
        total: listing.total,
    })
}

#[tonic::async_trait]
impl api::channels_server::Channels for Service {
    async fn create_channels(
        &self,
        request: Request<api::CreateChannelsRequest>,
    ) -> Answer<api::CreateChannelsResponse> {
        let caller = self.caller(&request).await?;
        let new = request.into_inner().channels.into_iter().map(new_channel);
        let new = new.collect::<Result<_, _>>()?;
        let created = self.things.create_channels(&caller, new).await;
        let channels = created.map_err(status::refusal)?.into_iter().map(group);
        Ok(Response::new(api::CreateChannelsResponse {
            channels: channels.collect(),
        }))
    }

    async fn view_channel(
        &self,
        request: Request<api::ViewChannelRequest>,
    ) -> Answer<api::Channel> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let viewed = self.things.view_channel(&caller, id).await;
        Ok(Response::new(group(viewed.map_err(status::refusal)?)))
    }

    async fn list_channels(
        &self,
        request: Request<api::ListChannelsRequest>,
    ) -> Answer<api::ListChannelsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let query = query(asked.filter)?;
        let page = page(asked.page);
        let listing = self.things.list_channels(&caller, &query, page).await;
        Ok(listed(listing.map_err(status::refusal)?))
    }

    async fn list_channels_by_thing(
        &self,
        request: Request<api::ListChannelsByThingRequest>,
    ) -> Answer<api::ListChannelsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let thing = parse("thing_id", &asked.thing_id)?;
        let query = query(asked.filter)?;
        let things = &self.things;
        let listing = things
            .list_channels_by_thing(&caller, thing, &query, page(asked.page))
            .await;
        Ok(listed(listing.map_err(status::refusal)?))
    }

    async fn list_channel_parents(
        &self,
        request: Request<api::ListRelatedChannelsRequest>,
    ) -> Answer<api::ListChannelsResponse> {
        self.related(request, Direction::Parents).await
    }

    async fn list_channel_children(
        &self,
        request: Request<api::ListRelatedChannelsRequest>,
    ) -> Answer<api::ListChannelsResponse> {
        self.related(request, Direction::Children).await
    }

    async fn update_channel(
        &self,
        request: Request<api::UpdateChannelRequest>,
    ) -> Answer<api::Channel> {
        let caller = self.caller(&request).await?;
        let (id, details) = change(request.into_inner())?;
        let changed = self.things.update_channel(&caller, id, &details).await;
        Ok(Response::new(group(changed.map_err(status::refusal)?)))
    }

    async fn enable_channel(
        &self,
        request: Request<api::EnableChannelRequest>,
    ) -> Answer<api::Channel> {
        let caller = self.caller(&request).await?;
        self.set_channel_status(&caller, &request.get_ref().id, State::Enabled)
            .await
    }

    async fn disable_channel(
        &self,
        request: Request<api::DisableChannelRequest>,
    ) -> Answer<api::Channel> {
        let caller = self.caller(&request).await?;
        self.set_channel_status(&caller, &request.get_ref().id, State::Disabled)
            .await
    }
}
