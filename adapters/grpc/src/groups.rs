//! `rollcall.users.v1.Groups` and `.Policies`.

mod policies;

use std::sync::Arc;

use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::entity::Status as State;
use rollcall_domain::groups::{Details, Direction, Group, GroupQuery, Groups, NewGroup};
use rollcall_domain::identity::GroupId;
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::users::UserFilter;
use tonic::{Request, Response, Status};

use crate::caller::caller;
use crate::status::{self, metadata, parse};
use crate::users::user;
use crate::users_api as api;

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
            status: given("status", &asked.status)?.unwrap_or_default(),
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
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let details = Details {
            name: asked.name,
            description: asked.description,
            metadata: asked.metadata.as_deref().map(metadata).transpose()?,
        };
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
            status: given("status", &asked.status)?.unwrap_or_default(),
            name: asked.name,
            identity: asked.identity,
            tag: asked.tag,
            metadata: Some(metadata(&asked.metadata)?).filter(|wanted| !wanted.is_empty()),
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

/// Empty text is none.
fn given<T>(field: &'static str, text: &str) -> Result<Option<T>, Status>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    match text {
        "" => Ok(None),
        text => parse(field, text).map(Some),
    }
}

fn optional<T>(field: &'static str, text: Option<&str>) -> Result<Option<T>, Status>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.map(|text| parse(field, text)).transpose()
}

/// A limit of 0 is none given.
fn page(page: Option<api::Page>) -> Page {
    let usual = Page::default();
    let page = page.unwrap_or_default();
    Page {
        offset: page.offset,
        limit: match page.limit {
            0 => usual.limit,
            limit => limit,
        },
    }
}

fn query(filter: Option<api::GroupFilter>) -> Result<GroupQuery, Status> {
    let filter = filter.unwrap_or_default();
    let wanted = metadata(&filter.metadata)?;
    Ok(GroupQuery {
        status: given("status", &filter.status)?.unwrap_or_default(),
        name: filter.name,
        owner: optional("owner", filter.owner.as_deref())?,
        metadata: (!wanted.is_empty()).then_some(wanted),
        parent: optional("parent", filter.parent.as_deref())?,
        visibility: given("visibility", &filter.visibility)?.unwrap_or_default(),
    })
}

fn group(group: Group<GroupId>) -> api::Group {
    api::Group {
        id: group.id.to_string(),
        owner: group.owner.to_string(),
        parent: group.parent().map(|id| id.to_string()),
        path: group.path().iter().map(ToString::to_string).collect(),
        name: group.name,
        description: group.description,
        metadata: rollcall_domain::event::json(&group.metadata),
        status: group.status.as_str().into(),
        created_at: group.created_at.0,
        updated_at: group.update.map(|update| update.at.0),
        updated_by: group.update.map(|update| update.by.to_string()),
    }
}

fn listed(listing: Listing<Group<GroupId>>) -> Response<api::ListGroupsResponse> {
    Response::new(api::ListGroupsResponse {
        groups: listing.items.into_iter().map(group).collect(),
        total: listing.total,
    })
}
