//! What things, and users, may do on channels, over REST.

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, post_with};
use axum::Json;
use axum::extract::State as Shared;
use rollcall_domain::access::Action;
use rollcall_domain::groups::{PolicyFilter, Subject};
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_domain::listing::Page;
use rollcall_domain::policies::Actions;
use rollcall_domain::things::{DEFAULT_ACTIONS, EntityType};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::Service;
use super::views::{PoliciesPage, Policy};
use crate::openapi::is;
use crate::problem::Problem;
use crate::query::{Paging, Query, word};
use crate::reply::{Done, Reply};
use crate::request::{Bearer, Body, Ids, given, parse, parse_all, unless_empty};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/policies",
            post_with(
                add,
                is("addPolicy", "connects a thing to a channel", [403, 404]),
            )
            .put_with(
                update,
                is(
                    "updatePolicy",
                    "changes what a thing may do on a channel",
                    [403, 404],
                ),
            )
            .get_with(list, is("listPolicies", "lists policies", [403])),
        )
        .api_route(
            "/policies/{subject}/{object}",
            delete_with(
                delete,
                is("deletePolicy", "disconnects a thing from a channel", [404]),
            ),
        )
        .api_route(
            "/connect",
            post_with(
                connect,
                is("connect", "connects things to channels", [403, 404]),
            ),
        )
        .api_route(
            "/disconnect",
            post_with(
                disconnect,
                is("disconnect", "disconnects things from channels", [404]),
            ),
        )
        .api_route(
            "/channels/{id}/access",
            post_with(
                authorize,
                is("authorize", "may the holder of a key do this?", [403]),
            ),
        )
}

#[derive(Deserialize, JsonSchema)]
struct NewPolicy {
    /// A thing; a user if it is external.
    subject: String,
    /// A channel.
    object: String,
    /// `m_write` and `m_read` if there is none.
    actions: Option<Vec<String>>,
    external: Option<bool>,
}

fn subject(id: &str, external: bool) -> Reply<Subject> {
    match external {
        true => parse("subject", id).map(Subject::User),
        false => parse("subject", id).map(Subject::Thing),
    }
}

fn subjects(ids: &[String], external: bool) -> Reply<Vec<Subject>> {
    ids.iter().map(|id| subject(id, external)).collect()
}

fn actions(names: &[String]) -> Reply<Actions> {
    let actions: Vec<_> = parse_all("actions", names)?;
    Ok(actions.into_iter().collect())
}

/// Without a list, or with none in it, all that a thing can do.
fn actions_or_default(names: Option<Vec<String>>) -> Reply<Actions> {
    match names.as_deref() {
        None | Some([]) => Ok(DEFAULT_ACTIONS.into_iter().collect()),
        Some(names) => actions(names),
    }
}

async fn add(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(new): Body<NewPolicy>,
) -> Reply<Done<201>> {
    let subject = subject(&new.subject, new.external.unwrap_or_default())?;
    let channel = parse("object", &new.object)?;
    let actions = actions_or_default(new.actions)?;
    let things = &service.things;
    things
        .connect(&caller, &[subject], &[channel], actions)
        .await?;
    Ok(Done)
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(new): Body<NewPolicy>,
) -> Reply<Done<204>> {
    let channel = parse("object", &new.object)?;
    let actions = actions(&new.actions.unwrap_or_default())?;
    let things = &service.things;
    let subject = match new.external {
        Some(external) => subject(&new.subject, external)?,
        None => {
            things
                .subject_on(channel, parse("subject", &new.subject)?)
                .await?
        }
    };
    things
        .change_policy(&caller, subject, channel, actions)
        .await?;
    Ok(Done)
}

async fn delete(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Ids([subject, object]): Ids<2>,
) -> Reply<Done<204>> {
    let (id, channel) = (parse("subject", &subject)?, parse("object", &object)?);
    let things = &service.things;
    let subject = things.subject_on(channel, id).await?;
    things.disconnect(&caller, &[subject], &[channel]).await?;
    Ok(Done)
}

#[derive(Deserialize, JsonSchema)]
struct PoliciesQuery {
    #[serde(flatten)]
    paging: Paging,
    owner_id: Option<String>,
    /// The subject: a thing or, if there is none with that id, a user.
    #[serde(alias = "subject")]
    client: Option<String>,
    /// The object: a channel.
    #[serde(alias = "object")]
    group: Option<String>,
    action: Option<String>,
    /// Whether the subject is a user.
    #[serde(default, deserialize_with = "external")]
    external: Option<bool>,
}

fn external<'de, D: Deserializer<'de>>(input: D) -> Result<Option<bool>, D::Error> {
    word("external", input).map(Some)
}

async fn list(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Query(query): Query<PoliciesQuery>,
) -> Reply<Json<PoliciesPage>> {
    let page = Page::from(query.paging);
    let things = &service.things;
    let subject = match (query.client.as_deref(), query.external) {
        (None | Some(""), _) => None,
        (Some(id), Some(external)) => Some(subject(id, external)?),
        (Some(id), None) => {
            let id: ThingId = parse("client", id)?;
            Some(things.subject_named(id).await?)
        }
    };
    let filter = PolicyFilter {
        owner: given("owner_id", query.owner_id)?,
        subject,
        object: given("group", query.group)?,
        action: given("action", query.action)?,
    };
    let listing = things.list_policies(&caller, filter, page).await?;
    Ok(Json(PoliciesPage {
        limit: page.limit,
        offset: page.offset,
        total: listing.total,
        policies: listing.items.iter().map(Policy::from).collect(),
    }))
}

/// Every subject with every object.
#[derive(Deserialize, JsonSchema)]
struct Pairs {
    subjects: Vec<String>,
    objects: Vec<String>,
    /// `m_write` and `m_read` if there is none.
    actions: Option<Vec<String>>,
    external: Option<bool>,
}

async fn connect(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(pairs): Body<Pairs>,
) -> Reply<Json<PoliciesPage>> {
    let subjects = subjects(&pairs.subjects, pairs.external.unwrap_or_default())?;
    let channels: Vec<ChannelId> = parse_all("objects", &pairs.objects)?;
    let actions = actions_or_default(pairs.actions)?;
    let things = &service.things;
    let connected = things
        .connect(&caller, &subjects, &channels, actions)
        .await?;
    // Clients of the platform find no page here.
    Ok(Json(PoliciesPage {
        limit: 0,
        offset: 0,
        total: 0,
        policies: connected.iter().map(Policy::from).collect(),
    }))
}

async fn disconnect(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(pairs): Body<Pairs>,
) -> Reply<Done<204>> {
    let subjects = subjects(&pairs.subjects, pairs.external.unwrap_or_default())?;
    let channels: Vec<ChannelId> = parse_all("objects", &pairs.objects)?;
    service
        .things
        .disconnect(&caller, &subjects, &channels)
        .await?;
    Ok(Done)
}

#[derive(Deserialize, JsonSchema)]
struct Access {
    /// The key of a thing.
    #[serde(default)]
    subject: String,
    /// In place of the channel of the path.
    #[serde(default)]
    object: Option<String>,
    /// `m_read` or `m_write`.
    #[serde(default)]
    action: String,
    /// `thing`, `group` or `client`.
    #[serde(default)]
    entity_type: String,
}

#[derive(Serialize, JsonSchema)]
struct Authorized {
    thing_id: String,
    authorized: bool,
}

/// May the holder of this key do this? Whoever has a key may ask about it.
async fn authorize(
    Shared(service): Shared<Service>,
    Ids([id]): Ids<1>,
    Body(access): Body<Access>,
) -> Reply<Json<Authorized>> {
    if access.subject.is_empty() {
        return Err(Problem::invalid("name the key as subject"));
    }
    let entity_type: EntityType = parse("entity_type", &access.entity_type)?;
    let action: Action = parse("action", &access.action)?;
    // What is no id is no channel that anyone may use.
    let channel = unless_empty(access.object).unwrap_or(id).parse();
    let channel: ChannelId = channel.map_err(|_| Problem::denied())?;
    let key = Secret::new(access.subject);
    let things = &service.things;
    let found = things
        .authorize_as(&key, channel, action, entity_type)
        .await;
    let id = found.map_err(|error| Problem::authority(error, Problem::denied))?;
    Ok(Json(Authorized {
        thing_id: id.to_string(),
        authorized: true,
    }))
}
