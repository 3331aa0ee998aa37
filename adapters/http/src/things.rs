//! The REST interface of the things service, as clients of the platform know it.

use std::sync::Arc;

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, get_with, patch_with, post_with};
use axum::extract::State as Shared;
use axum::{Json, Router};
use rollcall_domain::access::{Action, Authority};
use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::identity::{ChannelId, Secret, ThingId, UserId};
use rollcall_domain::things::{Actions, Channel, Grant, Status, Thing, Things};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::openapi::{About, finish, is};
use crate::problem::Problem;
use crate::reply::{Done, Reply, or_never};
use crate::request::{Bearer, Body, HasIdentities, Id, Ids, SaysJson, ThingKey, parse, parse_all};

#[derive(Clone)]
pub struct Service {
    pub things: Arc<Things>,
    pub authority: Arc<dyn Authority>,
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
            "/things/{id}",
            get_with(view_thing, is("viewThing", "shows a thing, with its key")),
        )
        .api_route(
            "/things/{id}/enable",
            post_with(enable_thing, is("enableThing", "lets a thing in again")),
        )
        .api_route(
            "/things/{id}/disable",
            post_with(disable_thing, is("disableThing", "shuts a thing out")),
        )
        .api_route(
            "/things/{id}/secret",
            patch_with(update_secret, is("updateThingSecret", "changes a key")),
        )
        .api_route(
            "/channels/{id}/enable",
            post_with(enable_channel, is("enableChannel", "opens a channel again")),
        )
        .api_route(
            "/channels/{id}/disable",
            post_with(disable_channel, is("disableChannel", "closes a channel")),
        )
        .api_route(
            "/channels/{id}/access",
            post_with(
                authorize,
                is("authorize", "may the holder of a key do this?"),
            ),
        )
        .api_route(
            "/policies",
            post_with(add_policy, is("addPolicy", "connects a thing to a channel")).put_with(
                update_policy,
                is("updatePolicy", "changes what a thing may do on a channel"),
            ),
        )
        .api_route(
            "/policies/{subject}/{object}",
            delete_with(
                delete_policy,
                is("deletePolicy", "disconnects a thing from a channel"),
            ),
        )
        .api_route(
            "/connect",
            post_with(connect, is("connect", "connects things to channels")),
        )
        .api_route(
            "/disconnect",
            post_with(
                disconnect,
                is("disconnect", "disconnects things from channels"),
            ),
        )
        .api_route(
            "/identify",
            post_with(identify, is("identify", "who holds this key?")),
        )
        .with_state(service);
    finish(about, router)
}

async fn view_thing(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Id(id): Id<ThingId>,
) -> Reply<Json<ThingView>> {
    let shown = service.things.show(owner, id).await?;
    Ok(Json(ThingView::new(shown.thing, shown.key.as_ref())))
}

async fn enable_thing(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ThingId>,
) -> Reply<Json<ThingView>> {
    set_thing_status(service, caller, id, Status::Enabled).await
}

async fn disable_thing(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ThingId>,
) -> Reply<Json<ThingView>> {
    set_thing_status(service, caller, id, Status::Disabled).await
}

async fn set_thing_status(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Id(id): Id<ThingId>,
    status: Status,
) -> Reply<Json<ThingView>> {
    let thing = service.things.set_status(owner, id, status).await?;
    Ok(Json(ThingView::new(thing, None)))
}

#[derive(Deserialize, JsonSchema)]
struct NewSecret {
    secret: String,
}

async fn update_secret(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Id(id): Id<ThingId>,
    Body(NewSecret { secret }): Body<NewSecret>,
) -> Reply<Json<ThingView>> {
    let key = Some(Secret::new(secret));
    let created = service.things.rotate_key(owner, id, key).await?;
    Ok(Json(ThingView::new(created.thing, None)))
}

async fn enable_channel(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ChannelId>,
) -> Reply<Json<ChannelView>> {
    set_channel_status(service, caller, id, Status::Enabled).await
}

async fn disable_channel(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ChannelId>,
) -> Reply<Json<ChannelView>> {
    set_channel_status(service, caller, id, Status::Disabled).await
}

async fn set_channel_status(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Id(id): Id<ChannelId>,
    status: Status,
) -> Reply<Json<ChannelView>> {
    let changed = service.things.set_channel_status(owner, id, status).await?;
    Ok(Json(ChannelView::from(changed)))
}

#[derive(Deserialize, JsonSchema)]
struct Policy {
    subject: String,
    object: String,
    #[serde(default)]
    actions: Option<Vec<String>>,
    #[serde(default)]
    external: bool,
}

async fn add_policy(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Body(policy): Body<Policy>,
) -> Reply<Done<201>> {
    let (thing, channel) = (
        parse("subject", &policy.subject)?,
        parse("object", &policy.object)?,
    );
    let actions = actions(policy.actions, policy.external)?;
    service
        .things
        .connect(owner, &[thing], &[channel], actions)
        .await?;
    Ok(Done)
}

async fn update_policy(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Body(policy): Body<Policy>,
) -> Reply<Done<204>> {
    let (thing, channel) = (
        parse("subject", &policy.subject)?,
        parse("object", &policy.object)?,
    );
    let actions = actions(Some(policy.actions.unwrap_or_default()), policy.external)?;
    service
        .things
        .change_grant(owner, thing, channel, actions)
        .await?;
    Ok(Done)
}

async fn delete_policy(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Ids([subject, object]): Ids<2>,
) -> Reply<Done<204>> {
    let (thing, channel) = (parse("subject", &subject)?, parse("object", &object)?);
    service
        .things
        .disconnect(owner, &[thing], &[channel])
        .await?;
    Ok(Done)
}

/// Every subject with every object.
#[derive(Deserialize, JsonSchema)]
struct Pairs {
    subjects: Vec<String>,
    objects: Vec<String>,
    #[serde(default)]
    actions: Option<Vec<String>>,
    #[serde(default)]
    external: bool,
}

async fn connect(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Body(pairs): Body<Pairs>,
) -> Reply<Json<Value>> {
    let things: Vec<ThingId> = parse_all("subjects", &pairs.subjects)?;
    let channels: Vec<ChannelId> = parse_all("objects", &pairs.objects)?;
    let actions = actions(pairs.actions, pairs.external)?;
    let grants = service
        .things
        .connect(owner, &things, &channels, actions)
        .await?;
    let policies: Vec<Value> = grants.iter().map(|grant| policy(grant, owner)).collect();
    Ok(Json(
        json!({ "limit": 0, "offset": 0, "total": 0, "policies": policies }),
    ))
}

async fn disconnect(
    Shared(service): Shared<Service>,
    Bearer(Caller { user: owner, .. }): Bearer,
    Body(pairs): Body<Pairs>,
) -> Reply<Done<204>> {
    let things: Vec<ThingId> = parse_all("subjects", &pairs.subjects)?;
    let channels: Vec<ChannelId> = parse_all("objects", &pairs.objects)?;
    service.things.disconnect(owner, &things, &channels).await?;
    Ok(Done)
}

/// Who holds this key? Whoever has a key may ask about it.
async fn identify(
    Shared(service): Shared<Service>,
    ThingKey(key): ThingKey,
    _: SaysJson,
) -> Reply<Json<Value>> {
    let found = service.authority.identify(&key).await;
    let unknown = || Problem::not_found("no such thing");
    let id = found.map_err(|error| Problem::authority(error, unknown))?;
    Ok(Json(json!({ "id": id.to_string() })))
}

#[derive(Deserialize, JsonSchema)]
struct Access {
    /// The key of a thing.
    #[serde(default)]
    subject: String,
    /// In place of the channel of the path.
    #[serde(default)]
    object: Option<String>,
    #[serde(default)]
    action: String,
    #[serde(default)]
    entity_type: String,
}

/// May the holder of this key do this? Whoever has a key may ask about it.
async fn authorize(
    Shared(service): Shared<Service>,
    Ids([id]): Ids<1>,
    Body(access): Body<Access>,
) -> Reply<Json<Value>> {
    if access.subject.is_empty() {
        return Err(Problem::invalid("name the key as subject"));
    }
    if !matches!(&*access.entity_type, "thing" | "group" | "client") {
        return Err(Problem::invalid(
            "unknown entity type: choose thing, group or client",
        ));
    }
    let action: Action = parse("action", &access.action)?;
    // What is no id is no channel that anyone may use.
    let channel = access.object.as_deref().unwrap_or(&id).parse();
    let channel: ChannelId = channel.map_err(|_| Problem::denied())?;
    let key = Secret::new(access.subject);
    let found = service.authority.authorize(&key, channel, action).await;
    let id = found.map_err(|error| Problem::authority(error, Problem::denied))?;
    Ok(Json(
        json!({ "thing_id": id.to_string(), "authorized": true }),
    ))
}

/// Without a list, all that a thing can do.
fn actions(names: Option<Vec<String>>, external: bool) -> Reply<Actions> {
    if external {
        return Err(Problem::invalid("channels are not shared with users here"));
    }
    let Some(names) = names else {
        return Ok(Actions::ALL);
    };
    let actions: Vec<Action> = parse_all("actions", &names)?;
    Ok(actions.into_iter().collect())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Thing")]
struct ThingView {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    owner: String,
    credentials: Credentials,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    status: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Credentials {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl ThingView {
    fn new(thing: Thing, key: Option<&Secret>) -> Self {
        Self {
            id: thing.id.to_string(),
            name: thing.name,
            tags: thing.tags,
            owner: thing.owner.to_string(),
            credentials: Credentials {
                secret: key.map(|key| key.expose().to_owned()),
            },
            metadata: thing.metadata,
            created_at: thing.created_at.rfc3339(),
            updated_at: or_never(thing.updated_at),
            updated_by: thing.updated_by.map(|by| by.to_string()),
            status: thing.status.as_str(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Channel")]
struct ChannelView {
    id: String,
    owner_id: String,
    name: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    status: &'static str,
}

impl From<Channel> for ChannelView {
    fn from(channel: Channel) -> Self {
        Self {
            id: channel.id.to_string(),
            owner_id: channel.owner.to_string(),
            name: channel.name,
            metadata: channel.metadata,
            created_at: channel.created_at.rfc3339(),
            updated_at: or_never(channel.updated_at),
            updated_by: channel.updated_by.map(|by| by.to_string()),
            status: channel.status.as_str(),
        }
    }
}

fn policy(grant: &Grant, owner: UserId) -> Value {
    json!({
        "owner_id": owner.to_string(),
        "subject": grant.thing.to_string(),
        "object": grant.channel.to_string(),
        "actions": grant.actions.names(),
        "created_at": grant.created_at.rfc3339(),
        "updated_at": or_never(grant.updated_at),
        "updated_by": grant.updated_at.map(|_| owner.to_string()).unwrap_or_default(),
    })
}
