//! `rollcall.things.v1.Policies`.

use rollcall_domain::access::Action;
use rollcall_domain::groups::{PolicyFilter, Subject};
use rollcall_domain::identity::{ChannelId, Secret};
use rollcall_domain::refusal::Refusal;
use rollcall_domain::things::{DEFAULT_ACTIONS, EntityType};
use tonic::{Request, Response, Status};

use super::Service;
use super::words::policy;
use crate::status;
use crate::things_api as api;
use crate::words::{optional, page, parse, parse_all};

fn subject(id: &str, external: bool) -> Result<Subject, Status> {
    match external {
        true => parse("subject", id).map(Subject::User),
        false => parse("subject", id).map(Subject::Thing),
    }
}

fn subjects(ids: &[String], external: bool) -> Result<Vec<Subject>, Status> {
    ids.iter().map(|id| subject(id, external)).collect()
}

#[tonic::async_trait]
impl api::policies_server::Policies for Service {
    async fn connect(
        &self,
        request: Request<api::ConnectRequest>,
    ) -> Result<Response<api::ConnectResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subjects = subjects(&asked.subjects, asked.external)?;
        let channels: Vec<ChannelId> = parse_all("objects", &asked.objects)?;
        let actions = match asked.actions.is_empty() {
            true => DEFAULT_ACTIONS.to_vec(),
            false => parse_all("actions", &asked.actions)?,
        };
        let actions = actions.into_iter().collect();
        let things = &self.things;
        let connected = match asked.missing {
            true => {
                let connected = things.connect_missing(&caller, &subjects, &channels, actions);
                connected.await
            }
            false => things.connect(&caller, &subjects, &channels, actions).await,
        };
        let connected = connected.map_err(status::refusal)?;
        Ok(Response::new(api::ConnectResponse {
            policies: connected.iter().map(policy).collect(),
        }))
    }

    async fn disconnect(
        &self,
        request: Request<api::DisconnectRequest>,
    ) -> Result<Response<api::DisconnectResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subjects = subjects(&asked.subjects, asked.external)?;
        let channels: Vec<ChannelId> = parse_all("objects", &asked.objects)?;
        let disconnected = self.things.disconnect(&caller, &subjects, &channels).await;
        disconnected.map_err(status::refusal)?;
        Ok(Response::new(api::DisconnectResponse {}))
    }

    async fn update_policy(
        &self,
        request: Request<api::UpdatePolicyRequest>,
    ) -> Result<Response<api::Policy>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subject = subject(&asked.subject, asked.external)?;
        let channel = parse("object", &asked.object)?;
        let actions: Vec<_> = parse_all("actions", &asked.actions)?;
        let actions = actions.into_iter().collect();
        let things = &self.things;
        let changed = things
            .change_policy(&caller, subject, channel, actions)
            .await;
        Ok(Response::new(policy(&changed.map_err(status::refusal)?)))
    }

    async fn list_policies(
        &self,
        request: Request<api::ListPoliciesRequest>,
    ) -> Result<Response<api::ListPoliciesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let named = |id: &String| subject(id, asked.external);
        let filter = PolicyFilter {
            owner: optional("owner", asked.owner.as_deref())?,
            subject: asked.subject.as_ref().map(named).transpose()?,
            object: optional("object", asked.object.as_deref())?,
            action: optional("action", asked.action.as_deref())?,
        };
        let page = page(asked.page);
        let listing = self.things.list_policies(&caller, filter, page).await;
        let listing = listing.map_err(status::refusal)?;
        Ok(Response::new(api::ListPoliciesResponse {
            policies: listing.items.iter().map(policy).collect(),
            total: listing.total,
        }))
    }

    async fn authorize(
        &self,
        request: Request<api::AuthorizeRequest>,
    ) -> Result<Response<api::AuthorizeResponse>, Status> {
        let asked = request.into_inner();
        if asked.subject.is_empty() {
            return Err(status::refusal(Refusal::invalid(
                "subject",
                "must be given",
            )));
        }
        let action: Action = parse("action", &asked.action)?;
        let entity_type = match asked.entity_type.as_str() {
            "" => EntityType::Thing,
            text => parse("entity_type", text)?,
        };
        // What is no id is no channel that anyone may use.
        let denied = |_| status::refusal(Refusal::Denied);
        let channel: ChannelId = asked.object.parse().map_err(denied)?;
        let key = Secret::new(asked.subject);
        let things = &self.things;
        let found = things
            .authorize_as(&key, channel, action, entity_type)
            .await;
        let thing = found.map_err(|error| status::authority(error, Status::permission_denied))?;
        Ok(Response::new(api::AuthorizeResponse {
            thing_id: thing.to_string(),
        }))
    }
}
