//! The REST interface of the things service, as clients of the platform know it: things. Channels and policies have
//! files of their own.

mod channels;
mod policies;
mod views;

use std::sync::Arc;

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, patch_with, post_with};
use axum::extract::State as Shared;
use axum::{Json, Router};
use rollcall_domain::access::Authority;
use rollcall_domain::caller::Identities;
use rollcall_domain::identity::{ChannelId, Secret, ThingId, UserId};
use rollcall_domain::listing::Page;
use rollcall_domain::things::{self, Created as CreatedThing, Status, ThingFilter, Things};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::views::{Thing, ThingsPage};
use crate::openapi::{About, finish, is};
use crate::problem::Problem;
use crate::query::{self, Paging, Query, StatusWord, VisibilityWord};
use crate::reply::{Created, Reply};
use crate::request::{
    Bearer, Body, HasIdentities, Id, Items, SaysJson, ThingKey, given, or_default, parse,
    unless_empty,
};

#[derive(Clone)]
pub struct Service {
    pub things: Arc<Things>,
    pub identities: Arc<dyn Identities>,
    pub about: About,
}

impl HasIdentities for Service {
    fn identities(&self) -> &Arc<dyn Identities> {
        &self.identities
    }
}

pub(crate) fn router(service: Service) -> Router {
    let about = service.about.clone();
    let router = ApiRouter::new()
        .api_route(
            "/things",
            post_with(create, is("createThing", "makes a thing", [403, 409]))
                .get_with(list, is("listThings", "lists things, without keys", [])),
        )
        .api_route(
            "/things/bulk",
            post_with(
                create_many,
                is("createThings", "makes things, all or none", [403, 409]),
            ),
        )
        .api_route(
            "/things/{id}",
            get_with(view, is("viewThing", "shows a thing, with its key", [404])).patch_with(
                update,
                is("updateThing", "changes name and metadata", [403, 404]),
            ),
        )
        .api_route(
            "/things/{id}/tags",
            patch_with(
                update_tags,
                is("updateThingTags", "changes tags", [403, 404]),
            ),
        )
        .api_route(
            "/things/{id}/secret",
            patch_with(
                update_secret,
                is("updateThingSecret", "changes a key", [403, 404, 409]),
            ),
        )
        .api_route(
            "/things/{id}/owner",
            patch_with(
                update_owner,
                is("updateThingOwner", "gives a thing away", [403, 404]),
            ),
        )
        .api_route(
            "/things/{id}/enable",
            post_with(
                enable,
                is("enableThing", "lets a thing in again", [403, 404, 409]),
            ),
        )
        .api_route(
            "/things/{id}/disable",
            post_with(
                disable,
                is("disableThing", "shuts a thing out", [403, 404, 409]),
            ),
        )
        .api_route(
            "/channels/{id}/things",
            get_with(
                list_by_channel,
                is(
                    "listThingsByChannel",
                    "lists the things of a channel",
                    [404],
                ),
            ),
        )
        .api_route(
            "/identify",
            post_with(identify, is("identify", "who holds this key?", [404])),
        )
        .merge(channels::routes())
        .merge(policies::routes())
        .with_state(service);
    finish(about, router)
}

#[derive(Deserialize, JsonSchema)]
struct NewThing {
    id: Option<String>,
    name: Option<String>,
    tags: Option<Vec<String>>,
    owner: Option<String>,
    credentials: Option<NewCredentials>,
    metadata: Option<Map<String, Value>>,
    /// `enabled`, which is the default, or `disabled`.
    status: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
struct NewCredentials {
    identity: Option<String>,
    /// One is generated if none is given.
    secret: Option<String>,
}

impl NewThing {
    fn parse(self) -> Reply<things::NewThing> {
        let credentials = self.credentials.unwrap_or_default();
        let key = credentials.secret.filter(|key| !key.is_empty());
        Ok(things::NewThing {
            id: given("id", self.id)?,
            owner: given("owner", self.owner)?,
            name: self.name.unwrap_or_default(),
            tags: self.tags.unwrap_or_default(),
            identity: credentials.identity.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_default(),
            status: given("status", self.status)?.unwrap_or_default(),
            key: key.map(Secret::new),
        })
    }
}

async fn create(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(new): Body<NewThing>,
) -> Reply<Created<Thing>> {
    let created = service.things.create(&caller, vec![new.parse()?]).await?;
    let [CreatedThing { thing, key }] = <[CreatedThing; 1]>::try_from(created)
        .map_err(|_| Problem::not_found("no thing was made"))?;
    Ok(Created {
        location: format!("/things/{}", thing.id),
        body: Thing::shown(thing, Some(&key)),
    })
}

#[derive(Serialize, JsonSchema)]
struct Many {
    total: usize,
    things: Vec<Thing>,
}

async fn create_many(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Items(new): Items<NewThing>,
) -> Reply<Json<Many>> {
    let new = new.into_iter().map(NewThing::parse);
    let new = new.collect::<Reply<_>>()?;
    let created = service.things.create(&caller, new).await?;
    let things: Vec<Thing> = created
        .into_iter()
        .map(|CreatedThing { thing, key }| Thing::shown(thing, Some(&key)))
        .collect();
    Ok(Json(Many {
        total: things.len(),
        things,
    }))
}

async fn view(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
) -> Reply<Json<Thing>> {
    let viewed = service.things.view(&caller, id).await?;
    Ok(Json(Thing::shown(viewed.thing, viewed.key.as_ref())))
}

#[derive(Deserialize, JsonSchema)]
struct ThingsQuery {
    #[serde(flatten)]
    paging: Paging,
    #[serde(default)]
    visibility: VisibilityWord,
    #[serde(flatten)]
    fields: ThingFields,
}

#[derive(Deserialize, JsonSchema)]
struct ThingFields {
    #[serde(default)]
    status: StatusWord,
    #[serde(default)]
    metadata: query::Metadata,
    /// The whole name.
    name: Option<String>,
    tag: Option<String>,
    owner_id: Option<String>,
}

impl ThingFields {
    fn filter(self) -> Reply<ThingFilter> {
        Ok(ThingFilter {
            status: self.status.0,
            name: unless_empty(self.name),
            tag: unless_empty(self.tag),
            owner: given::<UserId>("owner_id", self.owner_id)?,
            metadata: self.metadata.0,
        })
    }
}

async fn list(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Query(query): Query<ThingsQuery>,
) -> Reply<Json<ThingsPage>> {
    let (page, filter) = (Page::from(query.paging), query.fields.filter()?);
    let visibility = query.visibility.0;
    let listing = service
        .things
        .list(&caller, &filter, visibility, page)
        .await?;
    Ok(Json(ThingsPage::new(listing, page)))
}

async fn list_by_channel(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(channel): Id<ChannelId>,
    Query(query): Query<ThingsQuery>,
) -> Reply<Json<ThingsPage>> {
    let (page, filter) = (Page::from(query.paging), query.fields.filter()?);
    let listing = service
        .things
        .list_by_channel(&caller, channel, &filter, page)
        .await?;
    Ok(Json(ThingsPage::new(listing, page)))
}

#[derive(Deserialize, JsonSchema)]
struct NewDetails {
    /// Empty leaves it as it is.
    name: Option<String>,
    metadata: Option<Map<String, Value>>,
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
    Body(new): Body<NewDetails>,
) -> Reply<Json<Thing>> {
    let things = &service.things;
    let name = unless_empty(new.name);
    let thing = things.update(&caller, id, name, new.metadata).await?;
    let key = things.key_for(&caller, &thing).await?;
    Ok(Json(Thing::shown(thing, key.as_ref())))
}

#[derive(Deserialize, JsonSchema)]
struct NewTags {
    /// None clears them.
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
}

async fn update_tags(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
    Body(NewTags { tags }): Body<NewTags>,
) -> Reply<Json<Thing>> {
    let thing = service.things.update_tags(&caller, id, tags).await?;
    Ok(Json(Thing::shown(thing, None)))
}

#[derive(Deserialize, JsonSchema)]
struct NewSecret {
    secret: String,
}

async fn update_secret(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
    Body(NewSecret { secret }): Body<NewSecret>,
) -> Reply<Json<Thing>> {
    let key = Some(Secret::new(secret));
    let changed = service.things.update_key(&caller, id, key).await?;
    Ok(Json(Thing::shown(changed.thing, None)))
}

#[derive(Deserialize, JsonSchema)]
struct NewOwner {
    owner: String,
}

async fn update_owner(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
    Body(NewOwner { owner }): Body<NewOwner>,
) -> Reply<Json<Thing>> {
    let owner = parse("owner", &owner)?;
    let thing = service.things.update_owner(&caller, id, owner).await?;
    Ok(Json(Thing::shown(thing, None)))
}

async fn enable(service: Shared<Service>, caller: Bearer, id: Id<ThingId>) -> Reply<Json<Thing>> {
    set_status(service, caller, id, Status::Enabled).await
}

async fn disable(service: Shared<Service>, caller: Bearer, id: Id<ThingId>) -> Reply<Json<Thing>> {
    set_status(service, caller, id, Status::Disabled).await
}

async fn set_status(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ThingId>,
    status: Status,
) -> Reply<Json<Thing>> {
    let thing = service.things.set_status(&caller, id, status).await?;
    Ok(Json(Thing::shown(thing, None)))
}

#[derive(Serialize, JsonSchema)]
struct Identified {
    id: String,
}

/// Who holds this key? Whoever has a key may ask about it.
async fn identify(
    Shared(service): Shared<Service>,
    ThingKey(key): ThingKey,
    _: SaysJson,
) -> Reply<Json<Identified>> {
    let found = service.things.identify(&key).await;
    let unknown = || Problem::not_found("no such thing");
    let id = found.map_err(|error| Problem::authority(error, unknown))?;
    Ok(Json(Identified { id: id.to_string() }))
}
