//! Users over REST.

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, patch_with, post_with};
use axum::Json;
use axum::extract::State as Shared;
use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::refusal::Refusal;
use rollcall_domain::users::{NewUser, User, UserFilter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Service;
use crate::openapi::is;
use crate::query::{self, Paging, Query, StatusWord, VisibilityWord};
use crate::reply::{Created, Reply, or_never};
use crate::request::{Bearer, Body, Id, given, or_default, parse, unless_empty};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/users",
            post_with(
                create,
                is("createUser", "makes a user", [401, 403, 409, 429]),
            )
            .get_with(list, is("listUsers", "lists users", [])),
        )
        .api_route(
            "/users/profile",
            get_with(view_profile, is("viewProfile", "shows the caller", [])),
        )
        .api_route(
            "/users/secret",
            patch_with(
                update_secret,
                is("updateSecret", "gives the caller another password", [429]),
            ),
        )
        .api_route(
            "/users/{id}",
            get_with(view, is("viewUser", "shows a user", [403, 404])).patch_with(
                update,
                is("updateUser", "changes name and metadata", [403, 404]),
            ),
        )
        .api_route(
            "/users/{id}/tags",
            patch_with(
                update_tags,
                is("updateUserTags", "changes tags", [403, 404]),
            ),
        )
        .api_route(
            "/users/{id}/identity",
            patch_with(
                update_identity,
                is(
                    "updateUserIdentity",
                    "changes what a user signs in with",
                    [403, 404, 409],
                ),
            ),
        )
        .api_route(
            "/users/{id}/owner",
            patch_with(
                update_owner,
                is("updateUserOwner", "changes the owner", [403, 404]),
            ),
        )
        .api_route(
            "/users/{id}/enable",
            post_with(
                enable,
                is("enableUser", "lets a user in again", [403, 404, 409]),
            ),
        )
        .api_route(
            "/users/{id}/disable",
            post_with(
                disable,
                is("disableUser", "shuts a user out", [403, 404, 409]),
            ),
        )
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "NewCredentials")]
struct CredentialsBody {
    /// An e-mail address, as a rule.
    identity: String,
    secret: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewUser")]
struct NewUserBody {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
    /// Another than the caller for administrators alone.
    #[serde(default)]
    owner: Option<String>,
    credentials: CredentialsBody,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    status: Option<String>,
    /// `admin` for administrators alone.
    #[serde(default)]
    role: Option<String>,
}

async fn create(
    Shared(service): Shared<Service>,
    caller: Option<Bearer>,
    Body(asked): Body<NewUserBody>,
) -> Reply<Created<UserView>> {
    let admin = match unless_empty(asked.role).as_deref() {
        None | Some("user") => false,
        Some("admin") => true,
        Some(_) => return Err(Refusal::invalid("role", "choose admin or user").into()),
    };
    let new = NewUser {
        name: asked.name,
        tags: asked.tags,
        owner: given("owner", asked.owner)?,
        identity: asked.credentials.identity,
        secret: Secret::new(asked.credentials.secret),
        metadata: asked.metadata.unwrap_or_default(),
        status: given("status", asked.status)?.unwrap_or_default(),
        admin,
    };
    let caller = caller.map(|Bearer(caller)| caller);
    let made = service.users.create(caller.as_ref(), new).await?;
    Ok(Created {
        location: format!("/users/{}", made.id),
        body: made.into(),
    })
}

async fn view(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
) -> Reply<Json<UserView>> {
    Ok(Json(service.users.view(&caller, id).await?.into()))
}

async fn view_profile(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
) -> Reply<Json<UserView>> {
    Ok(Json(service.users.view_profile(&caller).await?.into()))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    #[serde(flatten)]
    paging: Paging,
    #[serde(default)]
    status: StatusWord,
    #[serde(default)]
    visibility: VisibilityWord,
    #[serde(default)]
    metadata: query::Metadata,
    name: Option<String>,
    identity: Option<String>,
    tag: Option<String>,
    owner_id: Option<String>,
}

impl ListQuery {
    pub(super) fn read(self) -> Reply<(UserFilter, Page)> {
        let filter = UserFilter {
            status: self.status.0,
            name: unless_empty(self.name),
            identity: unless_empty(self.identity),
            tag: unless_empty(self.tag),
            owner: given("owner_id", self.owner_id)?,
            metadata: Some(self.metadata.0).filter(|wanted| !wanted.is_empty()),
            visibility: self.visibility.0,
        };
        Ok((filter, self.paging.into()))
    }
}

async fn list(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Query(query): Query<ListQuery>,
) -> Reply<Json<UserPage>> {
    let (filter, page) = query.read()?;
    let listing = service.users.list(&caller, &filter, page).await?;
    Ok(Json(UserPage::new(listing, page)))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UserUpdate")]
struct UpdateBody {
    /// Empty leaves it as it is.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    Body(UpdateBody { name, metadata }): Body<UpdateBody>,
) -> Reply<Json<UserView>> {
    let name = unless_empty(name);
    let changed = service.users.update(&caller, id, name, metadata).await?;
    Ok(Json(changed.into()))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UserTags")]
struct TagsBody {
    /// None clears them.
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
}

async fn update_tags(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    Body(TagsBody { tags }): Body<TagsBody>,
) -> Reply<Json<UserView>> {
    let changed = service.users.update_tags(&caller, id, tags).await?;
    Ok(Json(changed.into()))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UserIdentity")]
struct IdentityBody {
    identity: String,
}

async fn update_identity(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    Body(IdentityBody { identity }): Body<IdentityBody>,
) -> Reply<Json<UserView>> {
    let changed = service.users.update_identity(&caller, id, identity).await?;
    Ok(Json(changed.into()))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UserOwner")]
struct OwnerBody {
    owner: String,
}

async fn update_owner(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    Body(OwnerBody { owner }): Body<OwnerBody>,
) -> Reply<Json<UserView>> {
    let owner = parse("owner", &owner)?;
    let changed = service.users.update_owner(&caller, id, owner).await?;
    Ok(Json(changed.into()))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UserSecret")]
struct SecretBody {
    old_secret: String,
    new_secret: String,
}

async fn update_secret(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(SecretBody {
        old_secret,
        new_secret,
    }): Body<SecretBody>,
) -> Reply<Json<UserView>> {
    let (old, new) = (Secret::new(old_secret), Secret::new(new_secret));
    let changed = service.users.update_secret(&caller, &old, &new).await?;
    Ok(Json(changed.into()))
}

async fn enable(service: Shared<Service>, caller: Bearer, id: Id<UserId>) -> Reply<Json<UserView>> {
    set_status(service, caller, id, Status::Enabled).await
}

async fn disable(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<UserId>,
) -> Reply<Json<UserView>> {
    set_status(service, caller, id, Status::Disabled).await
}

async fn set_status(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<UserId>,
    status: Status,
) -> Reply<Json<UserView>> {
    let changed = service.users.set_status(&caller, id, status).await?;
    Ok(Json(changed.into()))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct UserPage {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    users: Vec<UserView>,
}

impl UserPage {
    fn new(listing: Listing<User>, page: Page) -> Self {
        Self {
            limit: page.limit,
            offset: page.offset,
            total: listing.total,
            users: listing.items.into_iter().map(UserView::from).collect(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A user as clients of the platform know it. The password is never shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub(super) struct UserView {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    credentials: CredentialsView,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    metadata: Metadata,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    status: &'static str,
    /// `admin`, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UserCredentials")]
struct CredentialsView {
    identity: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            tags: user.tags,
            owner: user.owner.map(|owner| owner.to_string()),
            credentials: CredentialsView {
                identity: user.identity,
            },
            metadata: user.metadata,
            created_at: user.created_at.rfc3339(),
            updated_at: or_never(user.update.map(|update| update.at)),
            updated_by: user.update.map(|update| update.by.to_string()),
            status: user.status.as_str(),
            role: user.admin.then_some("admin"),
        }
    }
}
