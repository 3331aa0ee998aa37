//! Things, channels and policies as JSON.

use rollcall_domain::entity::Update;
use rollcall_domain::identity::Secret;
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::things;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::reply::or_never;

#[derive(Serialize, JsonSchema)]
pub(super) struct Thing {
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
    #[serde(skip_serializing_if = "String::is_empty")]
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Thing {
    pub(super) fn shown(thing: things::Thing, key: Option<&Secret>) -> Self {
        let (updated_at, updated_by) = updated(thing.update);
        Self {
            id: thing.id.to_string(),
            name: thing.name,
            tags: thing.tags,
            owner: thing.owner.to_string(),
            credentials: Credentials {
                identity: thing.identity,
                secret: key.map(|key| key.expose().to_owned()),
            },
            metadata: thing.metadata,
            created_at: thing.created_at.rfc3339(),
            updated_at,
            updated_by,
            status: thing.status.as_str(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ThingsPage {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    things: Vec<Thing>,
}

impl ThingsPage {
    pub(super) fn new(listing: Listing<things::Thing>, page: Page) -> Self {
        let things = listing.items.into_iter();
        Self {
            limit: page.limit,
            offset: page.offset,
            total: listing.total,
            things: things.map(|thing| Thing::shown(thing, None)).collect(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Channel {
    id: String,
    owner_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    /// How far below the root of its tree, where trees are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<usize>,
    /// Ids from the root of its tree down to itself, with dots between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Channel>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    status: &'static str,
}

impl From<things::Channel> for Channel {
    fn from(channel: things::Channel) -> Self {
        let (updated_at, updated_by) = updated(channel.update);
        Self {
            id: channel.id.to_string(),
            owner_id: channel.owner.to_string(),
            parent_id: channel.parent().map(|id| id.to_string()),
            name: channel.name,
            description: channel.description,
            metadata: channel.metadata,
            level: None,
            path: None,
            children: Vec::new(),
            created_at: channel.created_at.rfc3339(),
            updated_at,
            updated_by,
            status: channel.status.as_str(),
        }
    }
}

impl Channel {
    /// With its place in its tree.
    pub(super) fn placed(channel: things::Channel) -> Self {
        let path: Vec<String> = channel.path().iter().map(ToString::to_string).collect();
        Self {
            level: Some(channel.level()),
            path: Some(path.join(".")),
            ..Self::from(channel)
        }
    }
}

/// Puts channels into their parents, as far as those are there.
pub(super) fn nest(mut channels: Vec<Channel>) -> Vec<Channel> {
    // The deepest first: whoever goes into a parent has all of its own.
    channels.sort_by_key(|channel| channel.level);
    let mut roots = Vec::new();
    while let Some(mut channel) = channels.pop() {
        channel.children.reverse();
        let parent = channels
            .iter_mut()
            .find(|it| Some(&it.id) == channel.parent_id.as_ref());
        match parent {
            Some(parent) => parent.children.push(channel),
            None => roots.push(channel),
        }
    }
    roots.reverse();
    roots
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ChannelsPage {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total: u64,
    pub(super) channels: Vec<Channel>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Policy {
    owner_id: String,
    subject: String,
    object: String,
    actions: Vec<&'static str>,
    created_at: String,
    updated_at: String,
    updated_by: String,
}

impl From<&things::Policy> for Policy {
    fn from(policy: &things::Policy) -> Self {
        let (updated_at, updated_by) = updated(policy.update);
        Self {
            owner_id: policy.owner.to_string(),
            subject: policy.subject.to_string(),
            object: policy.object.to_string(),
            actions: policy.actions.names(),
            created_at: policy.created_at.rfc3339(),
            updated_at,
            updated_by: updated_by.unwrap_or_default(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct PoliciesPage {
    pub(super) limit: u64,
    pub(super) offset: u64,
    pub(super) total: u64,
    pub(super) policies: Vec<Policy>,
}

fn updated(update: Option<Update>) -> (String, Option<String>) {
    (
        or_never(update.map(|update| update.at)),
        update.map(|update| update.by.to_string()),
    )
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
