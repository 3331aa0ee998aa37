//! Groups of users over REST.

use std::collections::{HashMap, HashSet};

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, post_with};
use axum::Json;
use axum::extract::State as Shared;
use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::groups::{Details, Direction, Group, GroupQuery, MAX_LEVEL, NewGroup, Tree};
use rollcall_domain::identity::{GroupId, UserId};
use rollcall_domain::listing::{Listing, Page};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::Service;
use super::accounts::{self, ListQuery, UserView};
use crate::openapi::is;
use crate::query::{self, Paging, Query, StatusWord, VisibilityWord, word};
use crate::reply::{Created, Reply, or_never};
use crate::request::{Bearer, Body, Id, given, or_default, unless_empty};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/groups",
            post_with(create, is("createGroup", "makes a group", [403, 409]))
                .get_with(list, is("listGroups", "lists groups", [])),
        )
        .api_route(
            "/groups/{id}",
            get_with(view, is("viewGroup", "shows a group", [403, 404])).put_with(
                update,
                is("updateGroup", "changes a group", [403, 404, 409]),
            ),
        )
        .api_route(
            "/groups/{id}/children",
            get_with(
                children,
                is("listGroupChildren", "what is below a group", [403, 404]),
            ),
        )
        .api_route(
            "/groups/{id}/parents",
            get_with(
                parents,
                is("listGroupParents", "what is above a group", [403, 404]),
            ),
        )
        .api_route(
            "/groups/{id}/enable",
            post_with(
                enable,
                is("enableGroup", "opens a group again", [403, 404, 409]),
            ),
        )
        .api_route(
            "/groups/{id}/disable",
            post_with(
                disable,
                is("disableGroup", "shuts a group", [403, 404, 409]),
            ),
        )
        .api_route(
            "/groups/{id}/members",
            get_with(members, is("listMembers", "who is in a group", [403, 404])),
        )
        .api_route(
            "/users/{id}/memberships",
            get_with(
                memberships,
                is("listMemberships", "groups a user is in", []),
            ),
        )
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGroup")]
struct NewGroupBody {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default, deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(default)]
    parent_id: Option<String>,
    #[serde(default)]
    owner_id: Option<String>,
    #[serde(default)]
    status: Option<String>,
}

async fn create(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(asked): Body<NewGroupBody>,
) -> Reply<Created<GroupView>> {
    let new = NewGroup {
        id: None,
        owner: given("owner_id", asked.owner_id)?,
        parent: given("parent_id", asked.parent_id)?,
        name: asked.name,
        description: asked.description,
        metadata: asked.metadata,
        status: given("status", asked.status)?.unwrap_or_default(),
    };
    let made = service.groups.create(&caller, new).await?;
    Ok(Created {
        location: format!("/groups/{}", made.id),
        body: GroupView::plain(made),
    })
}

async fn view(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
) -> Reply<Json<GroupView>> {
    let group = service.groups.view(&caller, id).await?;
    Ok(Json(GroupView::plain(group)))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "GroupUpdate")]
struct UpdateBody {
    /// Empty leaves it as it is, as do the others.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
    Body(asked): Body<UpdateBody>,
) -> Reply<Json<GroupView>> {
    let details = Details {
        name: unless_empty(asked.name),
        description: unless_empty(asked.description),
        metadata: asked.metadata,
    };
    let group = service.groups.update(&caller, id, &details).await?;
    Ok(Json(GroupView::plain(group)))
}

async fn enable(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<GroupId>,
) -> Reply<Json<GroupView>> {
    set_status(service, caller, id, Status::Enabled).await
}

async fn disable(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<GroupId>,
) -> Reply<Json<GroupView>> {
    set_status(service, caller, id, Status::Disabled).await
}

async fn set_status(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
    status: Status,
) -> Reply<Json<GroupView>> {
    let group = service.groups.set_status(&caller, id, status).await?;
    Ok(Json(GroupView::plain(group)))
}

#[derive(Deserialize, JsonSchema)]
struct GroupsAsked {
    #[serde(flatten)]
    paging: Paging,
    #[serde(default)]
    status: StatusWord,
    #[serde(default)]
    visibility: VisibilityWord,
    #[serde(default)]
    metadata: query::Metadata,
    /// The whole name.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    owner_id: Option<String>,
    /// Groups directly below this one; with `dir` or `level`, it and what is around it.
    #[serde(default)]
    parent_id: Option<String>,
    /// -1 for what is below, 1 for what is above.
    #[serde(default, deserialize_with = "query::direction")]
    #[schemars(with = "Option<i8>")]
    dir: Option<Direction>,
    /// So many levels away at most; 0 for all.
    #[serde(default, deserialize_with = "level")]
    #[schemars(range(max = 5))]
    level: usize,
    /// Whether groups have their children in them.
    #[serde(default, deserialize_with = "query::tree")]
    tree: bool,
}

fn level<'de, D: Deserializer<'de>>(input: D) -> Result<usize, D::Error> {
    match word("level", input)? {
        level @ 0..=MAX_LEVEL => Ok(level),
        _ => Err(serde::de::Error::custom("level: from 0 to 5")),
    }
}

/// What was asked for, taken apart.
struct Asked {
    query: GroupQuery<GroupId>,
    page: Page,
    dir: Option<Direction>,
    level: usize,
    tree: bool,
}

impl Asked {
    fn levels(&self) -> Option<usize> {
        (self.level > 0).then_some(self.level)
    }

    fn answer(
        self,
        around: Option<&Tree<GroupId>>,
        listing: Listing<Group<GroupId>>,
    ) -> Reply<Json<GroupPage>> {
        let total = listing.total;
        let groups = match self.tree {
            true => nest(around, listing.items),
            false => listing
                .items
                .into_iter()
                .map(|group| GroupView::around(around, group))
                .collect(),
        };
        Ok(Json(GroupPage {
            limit: self.page.limit,
            offset: self.page.offset,
            total,
            level: self.level,
            groups,
        }))
    }
}

fn asked(asked: GroupsAsked) -> Reply<Asked> {
    let metadata = asked.metadata.0;
    let query = GroupQuery {
        status: asked.status.0,
        name: unless_empty(asked.name),
        owner: given("owner_id", asked.owner_id)?,
        metadata: (!metadata.is_empty()).then_some(metadata),
        parent: given("parent_id", asked.parent_id)?,
        visibility: asked.visibility.0,
    };
    Ok(Asked {
        query,
        page: asked.paging.into(),
        dir: asked.dir,
        level: asked.level,
        tree: asked.tree,
    })
}

async fn list(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Query(query): Query<GroupsAsked>,
) -> Reply<Json<GroupPage>> {
    let mut asked = asked(query)?;
    let around = asked
        .query
        .parent
        .filter(|_| asked.dir.is_some() || asked.level > 0);
    let Some(id) = around else {
        let listing = service
            .groups
            .list(&caller, &asked.query, asked.page)
            .await?;
        return asked.answer(None, listing);
    };
    asked.query.parent = None;
    let direction = asked.dir.unwrap_or(Direction::Children);
    related(&service, &caller, id, direction, asked).await
}

async fn children(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
    Query(query): Query<GroupsAsked>,
) -> Reply<Json<GroupPage>> {
    related(&service, &caller, id, Direction::Children, asked(query)?).await
}

async fn parents(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
    Query(query): Query<GroupsAsked>,
) -> Reply<Json<GroupPage>> {
    related(&service, &caller, id, Direction::Parents, asked(query)?).await
}

async fn related(
    service: &Service,
    caller: &rollcall_domain::caller::Caller,
    id: GroupId,
    direction: Direction,
    asked: Asked,
) -> Reply<Json<GroupPage>> {
    let (tree, listing) = service
        .groups
        .related(
            caller,
            id,
            direction,
            asked.levels(),
            &asked.query,
            asked.page,
        )
        .await?;
    asked.answer(Some(&tree), listing)
}

async fn memberships(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    Query(query): Query<GroupsAsked>,
) -> Reply<Json<MembershipPage>> {
    let Asked { query, page, .. } = asked(query)?;
    let listing = service
        .groups
        .memberships(&caller, id, &query, page)
        .await?;
    Ok(Json(MembershipPage {
        limit: page.limit,
        offset: page.offset,
        total: listing.total,
        memberships: listing.items.into_iter().map(GroupView::plain).collect(),
    }))
}

async fn members(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<GroupId>,
    Query(query): Query<ListQuery>,
) -> Reply<Json<MemberPage>> {
    let (filter, page) = query.read()?;
    let listing = service.groups.members(&caller, id, &filter, page).await?;
    Ok(Json(MemberPage {
        limit: page.limit,
        offset: page.offset,
        total: listing.total,
        members: listing.items.into_iter().map(UserView::from).collect(),
    }))
}

#[derive(Serialize, JsonSchema)]
struct GroupPage {
    limit: u64,
    offset: u64,
    total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    level: usize,
    groups: Vec<GroupView>,
}

#[derive(Serialize, JsonSchema)]
struct MembershipPage {
    limit: u64,
    offset: u64,
    total: u64,
    memberships: Vec<GroupView>,
}

#[derive(Serialize, JsonSchema)]
struct MemberPage {
    limit: u64,
    #[serde(skip_serializing_if = "accounts::is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "accounts::is_zero")]
    total: u64,
    members: Vec<UserView>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde has it")]
const fn is_zero(level: &usize) -> bool {
    *level == 0
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Group")]
struct GroupView {
    id: String,
    owner_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    /// How far below the group that was asked about; negative above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<isize>,
    /// From the group that was asked about, or the root of the tree, down to this one: ids with dots between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<GroupView>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    status: &'static str,
}

impl GroupView {
    fn plain(group: Group<GroupId>) -> Self {
        Self {
            id: group.id.to_string(),
            owner_id: group.owner.to_string(),
            parent_id: group.parent().map(|id| id.to_string()),
            name: group.name,
            description: group.description,
            metadata: group.metadata,
            level: None,
            path: None,
            children: Vec::new(),
            created_at: group.created_at.rfc3339(),
            updated_at: or_never(group.update.map(|update| update.at)),
            updated_by: group.update.map(|update| update.by.to_string()),
            status: group.status.as_str(),
        }
    }

    fn around(tree: Option<&Tree<GroupId>>, group: Group<GroupId>) -> Self {
        let Some(tree) = tree else {
            return Self::plain(group);
        };
        let above = match tree.direction {
            Direction::Parents => 0,
            Direction::Children => tree.around.level(),
        };
        let path: Vec<_> = group
            .path()
            .iter()
            .skip(above)
            .map(ToString::to_string)
            .collect();
        let level = tree.level(&group);
        Self {
            level: (level != 0).then_some(level),
            path: Some(path.join(".")),
            ..Self::plain(group)
        }
    }
}

/// Puts each group into its parent, if that is there.
fn nest(tree: Option<&Tree<GroupId>>, groups: Vec<Group<GroupId>>) -> Vec<GroupView> {
    let there: HashSet<GroupId> = groups.iter().map(|group| group.id).collect();
    let mut below: HashMap<Option<GroupId>, Vec<Group<GroupId>>> = HashMap::new();
    for group in groups {
        let parent = group.parent().filter(|parent| there.contains(parent));
        below.entry(parent).or_default().push(group);
    }
    take(tree, None, &mut below)
}

fn take(
    tree: Option<&Tree<GroupId>>,
    parent: Option<GroupId>,
    below: &mut HashMap<Option<GroupId>, Vec<Group<GroupId>>>,
) -> Vec<GroupView> {
    let groups = below.remove(&parent).unwrap_or_default();
    let mut views = Vec::with_capacity(groups.len());
    for group in groups {
        let children = take(tree, Some(group.id), below);
        views.push(GroupView {
            children,
            ..GroupView::around(tree, group)
        });
    }
    views
}
