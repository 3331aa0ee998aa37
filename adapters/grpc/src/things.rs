//! Things and channels for the command line.

use std::sync::Arc;

use rollcall_domain::access::Action;
use rollcall_domain::caller::Identities;
use rollcall_domain::identity::{ChannelId, Secret, ThingId, UserId};
use rollcall_domain::things::{
    Actions, Channel, Created, NewChannel, NewThing, Page, Status as State, Thing, Things,
};
use tonic::{Request, Response, Status};

use crate::api;
use crate::caller::caller;
use crate::status::{self, metadata, parse, parse_all};

pub(crate) struct Service {
    things: Arc<Things>,
    identities: Arc<dyn Identities>,
}

impl Service {
    pub(crate) fn new(things: Arc<Things>, identities: Arc<dyn Identities>) -> Self {
        Self { things, identities }
    }

    async fn owner<T>(&self, request: &Request<T>) -> Result<UserId, Status> {
        Ok(caller(&self.identities, request).await?.user)
    }
}

#[tonic::async_trait]
impl api::things_server::Things for Service {
    async fn create_things(
        &self,
        request: Request<api::CreateThingsRequest>,
    ) -> Result<Response<api::CreateThingsResponse>, Status> {
        let owner = self.owner(&request).await?;
        let new = request.into_inner().things.into_iter().map(new_thing);
        let new = new.collect::<Result<_, _>>()?;
        let created = self
            .things
            .create(owner, new)
            .await
            .map_err(status::things)?;
        let things = created.into_iter().map(created_thing).collect();
        Ok(Response::new(api::CreateThingsResponse { things }))
    }

    async fn list_things(
        &self,
        request: Request<api::Page>,
    ) -> Result<Response<api::ListThingsResponse>, Status> {
        let owner = self.owner(&request).await?;
        let listing = self
            .things
            .list(owner, page(&request))
            .await
            .map_err(status::things)?;
        let things = listing.items.into_iter().map(thing).collect();
        Ok(Response::new(api::ListThingsResponse {
            things,
            total: listing.total,
        }))
    }

    async fn show_thing(
        &self,
        request: Request<api::ShowThingRequest>,
    ) -> Result<Response<api::ShowThingResponse>, Status> {
        let owner = self.owner(&request).await?;
        let id = parse("id", &request.into_inner().id)?;
        let shown = self.things.show(owner, id).await;
        let shown = shown.map_err(status::things)?;
        Ok(Response::new(api::ShowThingResponse {
            thing: Some(thing(shown.thing)),
            key: shown.key.map(|key| key.expose().to_owned()),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<api::RotateKeyRequest>,
    ) -> Result<Response<api::CreatedThing>, Status> {
        let owner = self.owner(&request).await?;
        let api::RotateKeyRequest { id, key } = request.into_inner();
        let created = self
            .things
            .rotate_key(owner, parse("id", &id)?, secret(key))
            .await;
        Ok(Response::new(created_thing(
            created.map_err(status::things)?,
        )))
    }

    async fn set_status(
        &self,
        request: Request<api::SetStatusRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let owner = self.owner(&request).await?;
        let api::SetStatusRequest { id, enabled } = request.into_inner();
        let (id, state) = (parse("id", &id)?, state(enabled));
        let changed = self.things.set_status(owner, id, state).await;
        Ok(Response::new(thing(changed.map_err(status::things)?)))
    }

    async fn create_channels(
        &self,
        request: Request<api::CreateChannelsRequest>,
    ) -> Result<Response<api::CreateChannelsResponse>, Status> {
        let owner = self.owner(&request).await?;
        let new = request.into_inner().channels.into_iter().map(|new| {
            Ok(NewChannel {
                name: new.name,
                metadata: metadata(&new.metadata)?,
            })
        });
        let new = new.collect::<Result<_, Status>>()?;
        let created = self.things.create_channels(owner, new).await;
        let channels = created
            .map_err(status::things)?
            .into_iter()
            .map(channel)
            .collect();
        Ok(Response::new(api::CreateChannelsResponse { channels }))
    }

    async fn list_channels(
        &self,
        request: Request<api::Page>,
    ) -> Result<Response<api::ListChannelsResponse>, Status> {
        let owner = self.owner(&request).await?;
        let listing = self.things.list_channels(owner, page(&request)).await;
        let listing = listing.map_err(status::things)?;
        let channels = listing.items.into_iter().map(channel).collect();
        Ok(Response::new(api::ListChannelsResponse {
            channels,
            total: listing.total,
        }))
    }

    async fn set_channel_status(
        &self,
        request: Request<api::SetStatusRequest>,
    ) -> Result<Response<api::Channel>, Status> {
        let owner = self.owner(&request).await?;
        let api::SetStatusRequest { id, enabled } = request.into_inner();
        let (id, state) = (parse("id", &id)?, state(enabled));
        let changed = self.things.set_channel_status(owner, id, state).await;
        Ok(Response::new(channel(changed.map_err(status::things)?)))
    }

    async fn connect(
        &self,
        request: Request<api::ConnectRequest>,
    ) -> Result<Response<api::ConnectResponse>, Status> {
        let owner = self.owner(&request).await?;
        let api::ConnectRequest {
            things,
            channels,
            actions,
        } = request.into_inner();
        let (things, channels) = (things_of(&things)?, channels_of(&channels)?);
        let actions: Vec<Action> = parse_all("actions", &actions)?;
        let actions = actions.into_iter().collect::<Actions>();
        let connected = self
            .things
            .connect(owner, &things, &channels, actions)
            .await;
        connected.map_err(status::things)?;
        Ok(Response::new(api::ConnectResponse {}))
    }

    async fn disconnect(
        &self,
        request: Request<api::DisconnectRequest>,
    ) -> Result<Response<api::DisconnectResponse>, Status> {
        let owner = self.owner(&request).await?;
        let api::DisconnectRequest { things, channels } = request.into_inner();
        let (things, channels) = (things_of(&things)?, channels_of(&channels)?);
        let disconnected = self.things.disconnect(owner, &things, &channels).await;
        disconnected.map_err(status::things)?;
        Ok(Response::new(api::DisconnectResponse {}))
    }
}

fn things_of(texts: &[String]) -> Result<Vec<ThingId>, Status> {
    parse_all("things", texts)
}

fn channels_of(texts: &[String]) -> Result<Vec<ChannelId>, Status> {
    parse_all("channels", texts)
}

const fn state(enabled: bool) -> State {
    if enabled {
        State::Enabled
    } else {
        State::Disabled
    }
}

fn page(request: &Request<api::Page>) -> Page {
    let api::Page { offset, limit } = *request.get_ref();
    Page { offset, limit }
}

fn secret(text: String) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}

fn new_thing(new: api::NewThing) -> Result<NewThing, Status> {
    let api::NewThing {
        name,
        tags,
        metadata: text,
        key,
    } = new;
    Ok(NewThing {
        name,
        tags,
        metadata: metadata(&text)?,
        key: secret(key),
    })
}

fn created_thing(created: Created) -> api::CreatedThing {
    api::CreatedThing {
        thing: Some(thing(created.thing)),
        key: created.key.expose().to_owned(),
    }
}

fn thing(thing: Thing) -> api::Thing {
    api::Thing {
        id: thing.id.to_string(),
        name: thing.name,
        tags: thing.tags,
        metadata: serde_json::Value::Object(thing.metadata).to_string(),
        status: thing.status.as_str().to_owned(),
        created_at: thing.created_at.0,
        updated_at: thing.updated_at.map(|at| at.0),
    }
}

fn channel(channel: Channel) -> api::Channel {
    api::Channel {
        id: channel.id.to_string(),
        name: channel.name,
        metadata: serde_json::Value::Object(channel.metadata).to_string(),
        status: channel.status.as_str().to_owned(),
        created_at: channel.created_at.0,
        updated_at: channel.updated_at.map(|at| at.0),
    }
}
