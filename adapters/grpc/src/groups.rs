//! `rollcall.users.v1.Groups` and `.Policies`.

mod policies;

use std::sync::Arc;

use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::entity::Status as State;
use rollcall_domain::groups::{Direction, Group, Groups, NewGroup};
use rollcall_domain::identity::GroupId;
use rollcall_domain::listing::Listing;
use rollcall_domain::users::UserFilter;
use tonic::{Request, Response, Status};

use crate::caller::caller;
use crate::status;
use crate::users::user;
use crate::users_api as api;
use crate::words::{change, chosen, given, group, metadata, page, parse, query, wanted};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
pub(crate) struct Service {
    groups: Arc<Groups>,
    identities: Arc<dyn Identities>,
}

impl Service {
    pub(crate) fn new(groups: Arc<Groups>, identities: Arc<dyn Identities>) -> Self {
        Self { groups, identities }
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller(&self.identities, request).await
    }

    async fn set_status(&self, caller: &Caller, id: &str, state: State) -> Answer<api::Group> {
        let id = parse("id", id)?;
        let changed = self.groups.set_status(caller, id, state).await;
        Ok(Response::new(group(changed.map_err(status::refusal)?)))
    }

    async fn related(
        &self,
        request: Request<api::ListRelatedGroupsRequest>,
        direction: Direction,
    ) -> Answer<api::ListGroupsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let levels = asked.levels.map(|levels| levels as usize);
        let query = query(asked.filter)?;
        let related = self
            .groups
            .related(&caller, id, direction, levels, &query, page(asked.page))
            .await;
        let (_, listing) = related.map_err(status::refusal)?;
        Ok(listed(listing))
    }
}

#[tonic::async_trait]
impl api::groups_server::Groups for Service {
    async fn create_group(&self, request: Request<api::CreateGroupRequest>) -> Answer<api::Group> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let new = NewGroup {
            id: None,
            owner: given("owner", &asked.owner)?,
            parent: given("parent", &asked.parent)?,
            name: asked.name,
            description: asked.description,
            metadata: metadata(&asked.metadata)?,
            status: chosen("status", &asked.status)?,
        };
        let made = self.groups.create(&caller, new).await;
        Ok(Response::new(group(made.map_err(status::refusal)?)))
    }

    async fn view_group(&self, request: Request<api::ViewGroupRequest>) -> Answer<api::Group> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let viewed = self.groups.view(&caller, id).await;
        Ok(Response::new(group(viewed.map_err(status::refusal)?)))
    }

    async fn update_group(&self, request: Request<api::UpdateGroupRequest>) -> Answer<api::Group> {
        let caller = self.caller(&request).await?;
        let (id, details) = change(request.into_inner())?;
        let changed = self.groups.update(&caller, id, &details).await;
        Ok(Response::new(group(changed.map_err(status::refusal)?)))
    }

    async fn list_groups(
        &self,
        request: Request<api::ListGroupsRequest>,
    ) -> Answer<api::ListGroupsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let query = query(asked.filter)?;
        let listing = self.groups.list(&caller, &query, page(asked.page)).await;
        Ok(listed(listing.map_err(status::refusal)?))
    }

    async fn list_group_parents(
        &self,
        request: Request<api::ListRelatedGroupsRequest>,
    ) -> Answer<api::ListGroupsResponse> {
        self.related(request, Direction::Parents).await
    }

    async fn list_group_children(
        &self,
        request: Request<api::ListRelatedGroupsRequest>,
    ) -> Answer<api::ListGroupsResponse> {
        self.related(request, Direction::Children).await
    }

    async fn list_members(
        &self,
        request: Request<api::ListMembersRequest>,
    ) -> Answer<api::ListMembersResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let group = parse("group_id", &asked.group_id)?;
        let filter = UserFilter {
            status: chosen("status", &asked.status)?,
            name: asked.name,
            identity: asked.identity,
            tag: asked.tag,
            metadata: wanted(&asked.metadata)?,
            ..UserFilter::default()
        };
        let page = page(asked.page);
        let listing = self.groups.members(&caller, group, &filter, page).await;
        let listing = listing.map_err(status::refusal)?;
        Ok(Response::new(api::ListMembersResponse {
            members: listing.items.into_iter().map(user).collect(),
            total: listing.total,
        }))
    }

    async fn list_memberships(
        &self,
        request: Request<api::ListMembershipsRequest>,
    ) -> Answer<api::ListGroupsResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let user = parse("user_id", &asked.user_id)?;
        let query = query(asked.filter)?;
        let page = page(asked.page);
        let listing = self.groups.memberships(&caller, user, &query, page).await;
        Ok(listed(listing.map_err(status::refusal)?))
    }

    async fn enable_group(&self, request: Request<api::EnableGroupRequest>) -> Answer<api::Group> {
        let caller = self.caller(&request).await?;
        let id = &request.get_ref().id;
        self.set_status(&caller, id, State::Enabled).await
    }

    async fn disable_group(
        &self,
        request: Request<api::DisableGroupRequest>,
    ) -> Answer<api::Group> {
        let caller = self.caller(&request).await?;
        let id = &request.get_ref().id;
        self.set_status(&caller, id, State::Disabled).await
    }
}

fn listed(listing: Listing<Group<GroupId>>) -> Response<api::ListGroupsResponse> {
    Response::new(api::ListGroupsResponse {
        groups: listing.items.into_iter().map(group).collect(),
        total: listing.total,
    })
}
