//! The REST interface of the things service, as clients of the platform know it.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use rollcall_domain::access::{Action, Authority};
use rollcall_domain::identity::{ChannelId, Secret, ThingId, Timestamp, UserId};
use rollcall_domain::things::{Actions, Channel, Grant, Status, Thing, Things};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::request::{Body, Caller, Callers, HasCallers, SaysJson, ThingKey, parse, parse_all};

#[derive(Clone)]
pub struct Service {
    pub things: Arc<Things>,
    pub authority: Arc<dyn Authority>,
    pub callers: Callers,
    /// The name of this instance.
    pub instance: String,
}

impl HasCallers for Service {
    fn callers(&self) -> &Callers {
        &self.callers
    }
}

type Reply<T> = Result<T, Problem>;

pub(crate) fn router(service: Service) -> Router {
    Router::new()
        .route("/things/{id}", get(view_thing))
        .route("/things/{id}/enable", post(enable_thing))
        .route("/things/{id}/disable", post(disable_thing))
        .route("/things/{id}/secret", patch(update_secret))
        .route("/channels/{id}/enable", post(enable_channel))
        .route("/channels/{id}/disable", post(disable_channel))
        .route("/channels/{id}/access", post(authorize))
        .route("/policies", post(add_policy).put(update_policy))
        .route("/policies/{subject}/{object}", delete(delete_policy))
        .route("/connect", post(connect))
        .route("/disconnect", post(disconnect))
        .route("/identify", post(identify))
        .route("/health", get(health))
        .with_state(service)
}

async fn view_thing(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Path(id): Path<String>,
) -> Reply<Json<ThingView>> {
    let shown = service.things.show(owner, parse(&id)?).await?;
    Ok(Json(ThingView::new(shown.thing, shown.key.as_ref())))
}

async fn enable_thing(
    service: Shared<Service>,
    caller: Caller,
    id: Path<String>,
) -> Reply<Json<ThingView>> {
    set_thing_status(service, caller, id, Status::Enabled).await
}

async fn disable_thing(
    service: Shared<Service>,
    caller: Caller,
    id: Path<String>,
) -> Reply<Json<ThingView>> {
    set_thing_status(service, caller, id, Status::Disabled).await
}

async fn set_thing_status(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    status: Status,
) -> Reply<Json<ThingView>> {
    let thing = service
        .things
        .set_status(owner, parse(&id)?, status)
        .await?;
    Ok(Json(ThingView::new(thing, None)))
}

#[derive(Deserialize)]
struct NewSecret {
    secret: String,
}

async fn update_secret(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    Body(NewSecret { secret }): Body<NewSecret>,
) -> Reply<Json<ThingView>> {
    let key = Some(Secret::new(secret));
    let created = service.things.rotate_key(owner, parse(&id)?, key).await?;
    Ok(Json(ThingView::new(created.thing, None)))
}

async fn enable_channel(
    service: Shared<Service>,
    caller: Caller,
    id: Path<String>,
) -> Reply<Json<ChannelView>> {
    set_channel_status(service, caller, id, Status::Enabled).await
}

async fn disable_channel(
    service: Shared<Service>,
    caller: Caller,
    id: Path<String>,
) -> Reply<Json<ChannelView>> {
    set_channel_status(service, caller, id, Status::Disabled).await
}

async fn set_channel_status(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    status: Status,
) -> Reply<Json<ChannelView>> {
    let changed = service
        .things
        .set_channel_status(owner, parse(&id)?, status)
        .await?;
    Ok(Json(ChannelView::from(changed)))
}

#[derive(Deserialize)]
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
    Caller(owner): Caller,
    Body(policy): Body<Policy>,
) -> Reply<StatusCode> {
    let (thing, channel) = (parse(&policy.subject)?, parse(&policy.object)?);
    let actions = actions(policy.actions, policy.external)?;
    service
        .things
        .connect(owner, &[thing], &[channel], actions)
        .await?;
    Ok(StatusCode::CREATED)
}

async fn update_policy(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Body(policy): Body<Policy>,
) -> Reply<StatusCode> {
    let (thing, channel) = (parse(&policy.subject)?, parse(&policy.object)?);
    let actions = actions(Some(policy.actions.unwrap_or_default()), policy.external)?;
    service
        .things
        .change_grant(owner, thing, channel, actions)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_policy(
    Shared(service): Shared<Service>,
    Caller(owner): Caller,
    Path((subject, object)): Path<(String, String)>,
) -> Reply<StatusCode> {
    let (thing, channel) = (parse(&subject)?, parse(&object)?);
    service
        .things
        .disconnect(owner, &[thing], &[channel])
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every subject with every object.
#[derive(Deserialize)]
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
    Caller(owner): Caller,
    Body(pairs): Body<Pairs>,
) -> Reply<Json<Value>> {
    let things: Vec<ThingId> = parse_all(&pairs.subjects)?;
    let channels: Vec<ChannelId> = parse_all(&pairs.objects)?;
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
    Caller(owner): Caller,
    Body(pairs): Body<Pairs>,
) -> Reply<StatusCode> {
    let things: Vec<ThingId> = parse_all(&pairs.subjects)?;
    let channels: Vec<ChannelId> = parse_all(&pairs.objects)?;
    service.things.disconnect(owner, &things, &channels).await?;
    Ok(StatusCode::NO_CONTENT)
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

#[derive(Deserialize)]
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
    Path(id): Path<String>,
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
    let action: Action = parse(&access.action)?;
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

async fn health(Shared(service): Shared<Service>) -> impl IntoResponse {
    let body = json!({
        "status": "pass",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": "",
        "description": "things service",
        "build_time": "",
        "instance_id": service.instance,
    });
    let kind = [(header::CONTENT_TYPE, "application/health+json")];
    (kind, body.to_string())
}

/// Without a list, all that a thing can do.
fn actions(names: Option<Vec<String>>, external: bool) -> Reply<Actions> {
    if external {
        return Err(Problem::invalid("channels are not shared with users here"));
    }
    let Some(names) = names else {
        return Ok(Actions::ALL);
    };
    let actions: Vec<Action> = parse_all(&names)?;
    Ok(actions.into_iter().collect())
}

#[derive(Serialize)]
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

#[derive(Serialize)]
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

#[derive(Serialize)]
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

/// The moment of a change; the platform writes the zero time of its language where there was none.
fn or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Timestamp::rfc3339)
}
