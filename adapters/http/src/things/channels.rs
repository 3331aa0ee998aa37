//! Channels over REST.

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, post_with};
use axum::Json;
use axum::extract::State as Shared;
use rollcall_domain::groups::{Details, Direction};
use rollcall_domain::identity::{ChannelId, ThingId};
use rollcall_domain::listing::Page;
use rollcall_domain::things::{self, ChannelQuery, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Service;
use super::views::{Channel, ChannelsPage, nest};
use crate::openapi::is;
use crate::problem::Problem;
use crate::query::{self, Paging, Query, StatusWord, VisibilityWord, word};
use crate::reply::{Created, Reply};
use crate::request::{Bearer, Body, Id, Items, given, unless_empty};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/channels",
            post_with(
                create,
                is("createChannel", "makes a channel", [403, 404, 409]),
            )
            .get_with(list, is("listChannels", "lists channels", [])),
        )
        .api_route(
            "/channels/bulk",
            post_with(
                create_many,
                is(
                    "createChannels",
                    "makes channels, all or none",
                    [403, 404, 409],
                ),
            ),
        )
        .api_route(
            "/channels/{id}",
            get_with(view, is("viewChannel", "shows a channel", [404])).put_with(
                update,
                is(
                    "updateChannel",
                    "changes name, description, metadata",
                    [404, 409],
                ),
            ),
        )
        .api_route(
            "/channels/{id}/children",
            get_with(
                children,
                is(
                    "listChannelChildren",
                    "lists what is below a channel",
                    [404],
                ),
            ),
        )
        .api_route(
            "/channels/{id}/parents",
            get_with(
                parents,
                is("listChannelParents", "lists what is above a channel", [404]),
            ),
        )
        .api_route(
            "/things/{id}/channels",
            get_with(
                list_by_thing,
                is(
                    "listChannelsByThing",
                    "lists the channels of a thing",
                    [404],
                ),
            ),
        )
        .api_route(
            "/channels/{id}/enable",
            post_with(
                enable,
                is("enableChannel", "opens a channel again", [404, 409]),
            ),
        )
        .api_route(
            "/channels/{id}/disable",
            post_with(
                disable,
                is("disableChannel", "closes a channel", [404, 409]),
            ),
        )
}

#[derive(Deserialize, JsonSchema)]
struct NewChannel {
    id: Option<String>,
    name: String,
    description: Option<String>,
    metadata: Option<Map<String, Value>>,
    parent_id: Option<String>,
    owner_id: Option<String>,
    /// `enabled`, which is the default, or `disabled`.
    status: Option<String>,
}

impl NewChannel {
    fn parse(self) -> Reply<things::NewChannel> {
        Ok(things::NewChannel {
            id: given("id", self.id)?,
            owner: given("owner_id", self.owner_id)?,
            parent: given("parent_id", self.parent_id)?,
            name: self.name,
            description: self.description.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_default(),
            status: given("status", self.status)?.unwrap_or_default(),
        })
    }
}

async fn create(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(new): Body<NewChannel>,
) -> Reply<Created<Channel>> {
    let things = &service.things;
    let created = things.create_channels(&caller, vec![new.parse()?]).await?;
    let [channel] = <[things::Channel; 1]>::try_from(created)
        .map_err(|_| Problem::not_found("no channel was made"))?;
    Ok(Created {
        location: format!("/channels/{}", channel.id),
        body: channel.into(),
    })
}

#[derive(Serialize, JsonSchema)]
struct Many {
    channels: Vec<Channel>,
}

async fn create_many(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Items(new): Items<NewChannel>,
) -> Reply<Json<Many>> {
    let new = new.into_iter().map(NewChannel::parse);
    let new = new.collect::<Reply<_>>()?;
    let created = service.things.create_channels(&caller, new).await?;
    let channels = created.into_iter().map(Channel::from).collect();
    Ok(Json(Many { channels }))
}

async fn view(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ChannelId>,
) -> Reply<Json<Channel>> {
    let channel = service.things.view_channel(&caller, id).await?;
    Ok(Json(channel.into()))
}

#[derive(Deserialize, JsonSchema)]
struct NewDetails {
    /// Empty leaves it as it is, as do the others.
    name: Option<String>,
    description: Option<String>,
    metadata: Option<Map<String, Value>>,
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ChannelId>,
    Body(new): Body<NewDetails>,
) -> Reply<Json<Channel>> {
    let NewDetails {
        name,
        description,
        metadata,
    } = new;
    let details = Details {
        name: unless_empty(name),
        description: unless_empty(description),
        metadata,
    };
    let channel = service.things.update_channel(&caller, id, &details).await?;
    Ok(Json(channel.into()))
}

#[derive(Deserialize, JsonSchema)]
struct ChannelsQuery {
    #[serde(flatten)]
    paging: Paging,
    #[serde(default)]
    status: StatusWord,
    #[serde(default)]
    visibility: VisibilityWord,
    metadata: Option<query::Metadata>,
    /// The whole name.
    name: Option<String>,
    owner_id: Option<String>,
    /// What is directly below this one; with a level or a direction, what is around it.
    parent_id: Option<String>,
    /// From 0 to 5: how far from the one in the middle.
    #[serde(default, deserialize_with = "level")]
    #[schemars(with = "Option<u8>")]
    level: Option<usize>,
    /// Whether those below are shown within those above.
    #[serde(default, deserialize_with = "query::tree")]
    tree: bool,
    /// 1 is up, -1 is down.
    #[serde(default, deserialize_with = "query::direction")]
    #[schemars(with = "Option<i8>")]
    dir: Option<Direction>,
}

fn level<'de, D: Deserializer<'de>>(input: D) -> Result<Option<usize>, D::Error> {
    match word("level", input)? {
        level @ 0..=5 => Ok(Some(level)),
        _ => Err(serde::de::Error::custom("level: from 0 to 5")),
    }
}

/// What is asked for: of which channels, and how it is shown.
struct Asked {
    query: ChannelQuery,
    page: Page,
    around: Option<ChannelId>,
    direction: Option<Direction>,
    level: Option<usize>,
    is_nested: bool,
}

impl ChannelsQuery {
    fn parse(self) -> Reply<Asked> {
        let parent = given("parent_id", self.parent_id)?;
        let is_around = self.level.is_some() || self.dir.is_some() || self.tree;
        Ok(Asked {
            query: ChannelQuery {
                status: self.status.0,
                name: unless_empty(self.name),
                owner: given("owner_id", self.owner_id)?,
                metadata: self.metadata.map(|it| it.0).filter(|it| !it.is_empty()),
                parent: parent.filter(|_| !is_around),
                visibility: self.visibility.0,
            },
            page: self.paging.into(),
            around: parent.filter(|_| is_around),
            direction: self.dir,
            level: self.level,
            is_nested: self.tree,
        })
    }
}

async fn list(
    service: Shared<Service>,
    caller: Bearer,
    Query(query): Query<ChannelsQuery>,
) -> Reply<Json<ChannelsPage>> {
    let asked = query.parse()?;
    if let Some(around) = asked.around {
        let direction = asked.direction.unwrap_or(Direction::Children);
        return related(service, caller, around, direction, asked).await;
    }
    let (Shared(service), Bearer(caller)) = (service, caller);
    let things = &service.things;
    let listing = things
        .list_channels(&caller, &asked.query, asked.page)
        .await?;
    let channels = listing.items.into_iter();
    Ok(Json(ChannelsPage {
        total: listing.total,
        channels: match asked.is_nested {
            true => nest(channels.map(Channel::placed).collect()),
            false => channels.map(Channel::from).collect(),
        },
    }))
}

async fn children(
    service: Shared<Service>,
    caller: Bearer,
    Id(id): Id<ChannelId>,
    Query(query): Query<ChannelsQuery>,
) -> Reply<Json<ChannelsPage>> {
    related(service, caller, id, Direction::Children, query.parse()?).await
}

async fn parents(
    service: Shared<Service>,
    caller: Bearer,
    Id(id): Id<ChannelId>,
    Query(query): Query<ChannelsQuery>,
) -> Reply<Json<ChannelsPage>> {
    related(service, caller, id, Direction::Parents, query.parse()?).await
}

async fn related(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    id: ChannelId,
    direction: Direction,
    asked: Asked,
) -> Reply<Json<ChannelsPage>> {
    let things = &service.things;
    let listing = things
        .list_related_channels(
            &caller,
            id,
            direction,
            asked.level,
            &asked.query,
            asked.page,
        )
        .await?;
    let channels: Vec<Channel> = listing.items.into_iter().map(Channel::placed).collect();
    Ok(Json(ChannelsPage {
        total: listing.total,
        channels: match asked.is_nested {
            true => nest(channels),
            false => channels,
        },
    }))
}

async fn list_by_thing(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(thing): Id<ThingId>,
    Query(query): Query<ChannelsQuery>,
) -> Reply<Json<ChannelsPage>> {
    let asked = query.parse()?;
    let things = &service.things;
    let listing = things
        .list_channels_by_thing(&caller, thing, &asked.query, asked.page)
        .await?;
    Ok(Json(ChannelsPage {
        total: listing.total,
        channels: listing.items.into_iter().map(Channel::from).collect(),
    }))
}

async fn enable(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ChannelId>,
) -> Reply<Json<Channel>> {
    set_status(service, caller, id, Status::Enabled).await
}

async fn disable(
    service: Shared<Service>,
    caller: Bearer,
    id: Id<ChannelId>,
) -> Reply<Json<Channel>> {
    set_status(service, caller, id, Status::Disabled).await
}

async fn set_status(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Id(id): Id<ChannelId>,
    status: Status,
) -> Reply<Json<Channel>> {
    let things = &service.things;
    let channel = things.set_channel_status(&caller, id, status).await?;
    Ok(Json(channel.into()))
}
