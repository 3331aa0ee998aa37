//! `rollcall.things.v1.Things`.

mod channels;
mod policies;
mod words;

use std::sync::Arc;

use rollcall_domain::access::Authority;
use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::entity::Status as State;
use rollcall_domain::identity::{Secret, ThingId};
use rollcall_domain::refusal::Refusal;
use rollcall_domain::things::{Created, Shown, Things};
use tonic::{Request, Response, Status};

use crate::caller::caller;
use crate::status;
use crate::things::words::{filter, key, new_thing, shown, thing};
use crate::things_api as api;
use crate::words::{chosen, metadata, page, parse};

/// All three services of the package.
#[derive(Clone)]
pub(crate) struct Service {
    things: Arc<Things>,
    identities: Arc<dyn Identities>,
}

impl Service {
    pub(crate) const fn new(things: Arc<Things>, identities: Arc<dyn Identities>) -> Self {
        Self { things, identities }
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller(&self.identities, request).await
    }

    async fn set_status(
        &self,
        caller: &Caller,
        id: &str,
        state: State,
    ) -> Result<Response<api::Thing>, Status> {
        let changed = self
            .things
            .set_status(caller, parse("id", id)?, state)
            .await;
        Ok(Response::new(thing(changed.map_err(status::refusal)?)))
    }
}

#[tonic::async_trait]
impl api::things_server::Things for Service {
    async fn create_things(
        &self,
        request: Request<api::CreateThingsRequest>,
    ) -> Result<Response<api::CreateThingsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let new = request.into_inner().things.into_iter().map(new_thing);
        let new = new.collect::<Result<_, _>>()?;
        let created = self.things.create(&caller, new).await;
        let things = created.map_err(status::refusal)?.into_iter();
        let things = things.map(|Created { thing, key }| shown(thing, Some(&key)));
        Ok(Response::new(api::CreateThingsResponse {
            things: things.collect(),
        }))
    }

    async fn view_thing(
        &self,
        request: Request<api::ViewThingRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let viewed = self.things.view(&caller, id).await;
        let Shown { thing, key } = viewed.map_err(status::refusal)?;
        Ok(Response::new(shown(thing, key.as_ref())))
    }

    async fn list_things(
        &self,
        request: Request<api::ListThingsRequest>,
    ) -> Result<Response<api::ListThingsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let filter = filter(asked.filter.unwrap_or_default())?;
        let visibility = chosen("visibility", &asked.visibility)?;
        let page = page(asked.page);
        let listing = self.things.list(&caller, &filter, visibility, page).await;
        let listing = listing.map_err(status::refusal)?;
        Ok(Response::new(api::ListThingsResponse {
            things: listing.items.into_iter().map(thing).collect(),
            total: listing.total,
        }))
    }

    async fn list_things_by_channel(
        &self,
        request: Request<api::ListThingsByChannelRequest>,
    ) -> Result<Response<api::ListThingsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let channel = parse("channel_id", &asked.channel_id)?;
        let filter = filter(asked.filter.unwrap_or_default())?;
        let things = &self.things;
        let listing = things
            .list_by_channel(&caller, channel, &filter, page(asked.page))
            .await;
        let listing = listing.map_err(status::refusal)?;
        Ok(Response::new(api::ListThingsResponse {
            things: listing.items.into_iter().map(thing).collect(),
            total: listing.total,
        }))
    }

    async fn update_thing(
        &self,
        request: Request<api::UpdateThingRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let metadata = asked.metadata.as_deref().map(metadata).transpose()?;
        let changed = self.things.update(&caller, id, asked.name, metadata).await;
        Ok(Response::new(thing(changed.map_err(status::refusal)?)))
    }

    async fn update_thing_tags(
        &self,
        request: Request<api::UpdateThingTagsRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        let api::UpdateThingTagsRequest { id, tags } = request.into_inner();
        let changed = self
            .things
            .update_tags(&caller, parse("id", &id)?, tags)
            .await;
        Ok(Response::new(thing(changed.map_err(status::refusal)?)))
    }

    async fn update_thing_key(
        &self,
        request: Request<api::UpdateThingKeyRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        let api::UpdateThingKeyRequest { id, key: text } = request.into_inner();
        let changed = self
            .things
            .update_key(&caller, parse("id", &id)?, key(text))
            .await;
        let Created { thing, key } = changed.map_err(status::refusal)?;
        Ok(Response::new(shown(thing, Some(&key))))
    }

    async fn update_thing_owner(
        &self,
        request: Request<api::UpdateThingOwnerRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        let api::UpdateThingOwnerRequest { id, owner } = request.get_ref();
        let (id, owner) = (parse("id", id)?, parse("owner", owner)?);
        let changed = self.things.update_owner(&caller, id, owner).await;
        Ok(Response::new(thing(changed.map_err(status::refusal)?)))
    }

    async fn enable_thing(
        &self,
        request: Request<api::EnableThingRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        self.set_status(&caller, &request.get_ref().id, State::Enabled)
            .await
    }

    async fn disable_thing(
        &self,
        request: Request<api::DisableThingRequest>,
    ) -> Result<Response<api::Thing>, Status> {
        let caller = self.caller(&request).await?;
        self.set_status(&caller, &request.get_ref().id, State::Disabled)
            .await
    }

    async fn lend_thing_key(
        &self,
        request: Request<api::LendThingKeyRequest>,
    ) -> Result<Response<api::LendThingKeyResponse>, Status> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let lent = self.things.lend_key(&caller, id).await;
        let loan = lent.map_err(status::refusal)?.expose().to_owned();
        Ok(Response::new(api::LendThingKeyResponse { loan }))
    }

    async fn end_thing_key_loan(
        &self,
        request: Request<api::EndThingKeyLoanRequest>,
    ) -> Result<Response<api::EndThingKeyLoanResponse>, Status> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let ended = self.things.end_loan(&caller, id).await;
        ended.map_err(status::refusal)?;
        Ok(Response::new(api::EndThingKeyLoanResponse {}))
    }

    async fn read_lent_thing_key(
        &self,
        request: Request<api::ReadLentThingKeyRequest>,
    ) -> Result<Response<api::ReadLentThingKeyResponse>, Status> {
        let api::ReadLentThingKeyRequest { id, loan } = request.into_inner();
        let (id, loan) = (parse("id", &id)?, Secret::new(loan));
        let lent = self.things.lent_key(id, &loan).await;
        let key = lent.map_err(status::refusal)?.expose().to_owned();
        Ok(Response::new(api::ReadLentThingKeyResponse { key }))
    }

    async fn identify_thing(
        &self,
        request: Request<api::IdentifyThingRequest>,
    ) -> Result<Response<api::IdentifyThingResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(status::refusal(Refusal::invalid("key", "must be given")));
        }
        let found = self.things.identify(&Secret::new(key)).await;
        let id: ThingId = found.map_err(|error| status::authority(error, Status::not_found))?;
        Ok(Response::new(api::IdentifyThingResponse {
            id: id.to_string(),
        }))
    }
}
