//! Operations on things and channels as events.

use crate::access::Action;
use crate::entity::Update;
use crate::event::{self, Event, Stream};
use crate::groups::PolicyFilter;
use crate::identity::{ChannelId, ThingId};
use crate::listing::Visibility;

use super::{Channel, ChannelQuery, EntityType, Page, Policy, Thing, ThingFilter};

type Fields = Vec<(&'static str, String)>;

fn operation(operation: &'static str, fields: Fields) -> Event {
    Event::operation(Stream::Things, operation, fields)
}

/// A thing as it is: made, looked at or changed.
pub(super) fn thing(what: &'static str, thing: &Thing) -> Event {
    let tags = match thing.tags.is_empty() {
        true => String::new(),
        false => event::list(&thing.tags),
    };
    let mut fields = vec![
        ("id", thing.id.to_string()),
        ("name", thing.name.clone()),
        ("tags", tags),
        ("owner", thing.owner.to_string()),
        ("identity", thing.identity.clone()),
        ("metadata", event::json(&thing.metadata)),
        ("created_at", thing.created_at.rfc3339()),
        ("status", thing.status.as_str().into()),
    ];
    fields.extend(updated(thing.update));
    operation(what, fields)
}

/// A change of state: what the streams call removal.
pub(super) fn thing_removed(thing: &Thing) -> Event {
    let mut fields = vec![
        ("id", thing.id.to_string()),
        ("status", thing.status.as_str().into()),
    ];
    fields.extend(updated(thing.update));
    operation("thing.remove", fields)
}

fn updated(update: Option<Update>) -> Fields {
    let Some(Update { at, by }) = update else {
        return Vec::new();
    };
    vec![("updated_at", at.rfc3339()), ("updated_by", by.to_string())]
}

pub(super) fn things_listed(
    filter: &ThingFilter,
    visibility: Visibility,
    total: u64,
    page: Page,
) -> Event {
    let mut fields = listed(filter, total, page);
    fields.extend(event::whose(filter.owner, visibility));
    operation("thing.list", fields)
}

pub(super) fn things_listed_by_channel(
    channel: ChannelId,
    filter: &ThingFilter,
    total: u64,
    page: Page,
) -> Event {
    let mut fields = listed(filter, total, page);
    fields.extend(event::whose(filter.owner, Visibility::All));
    fields.push(("channel_id", channel.to_string()));
    operation("thing.list_by_channel", fields)
}

fn listed(filter: &ThingFilter, total: u64, page: Page) -> Fields {
    let metadata = match filter.metadata.is_empty() {
        true => String::new(),
        false => event::json(&filter.metadata),
    };
    vec![
        ("total", total.to_string()),
        ("offset", page.offset.to_string()),
        ("limit", page.limit.to_string()),
        ("status", filter.status.as_str().into()),
        ("name", filter.name.clone().unwrap_or_default()),
        ("tag", filter.tag.clone().unwrap_or_default()),
        ("metadata", metadata),
    ]
}

pub(super) fn identified(thing: ThingId) -> Event {
    operation("thing.identify", vec![("thing_id", thing.to_string())])
}

pub(super) fn authorized(entity_type: EntityType, channel: ChannelId, action: Action) -> Event {
    operation(
        "policies.authorize",
        vec![
            ("entity_type", entity_type.as_str().into()),
            ("object", channel.to_string()),
            ("actions", action.as_str().into()),
        ],
    )
}

pub(super) fn channel(what: &'static str, channel: &Channel) -> Event {
    let parent = channel.parent().map(|id| id.to_string());
    let mut fields = vec![
        ("id", channel.id.to_string()),
        ("owner", channel.owner.to_string()),
        ("parent", parent.unwrap_or_default()),
        ("name", channel.name.clone()),
        ("description", channel.description.clone()),
        ("metadata", event::json(&channel.metadata)),
        ("created_at", channel.created_at.rfc3339()),
        ("status", channel.status.as_str().into()),
    ];
    fields.extend(updated(channel.update));
    operation(what, fields)
}

pub(super) fn channel_removed(channel: &Channel) -> Event {
    let mut fields = vec![
        ("id", channel.id.to_string()),
        ("status", channel.status.as_str().into()),
    ];
    fields.extend(updated(channel.update));
    operation("channel.remove", fields)
}

pub(super) fn channels_listed(query: &ChannelQuery, total: u64, page: Page) -> Event {
    operation("channel.list", queried(query, total, page))
}

pub(super) fn channels_listed_by_thing(
    thing: ThingId,
    query: &ChannelQuery,
    total: u64,
    page: Page,
) -> Event {
    let mut fields = queried(query, total, page);
    fields.push(("thing_id", thing.to_string()));
    operation("channel.list_by_thing", fields)
}

fn queried(query: &ChannelQuery, total: u64, page: Page) -> Fields {
    let owner = query.owner.map(|owner| owner.to_string());
    let metadata = query.metadata.as_ref().map(event::json);
    vec![
        ("total", total.to_string()),
        ("offset", page.offset.to_string()),
        ("limit", page.limit.to_string()),
        ("status", query.status.as_str().into()),
        ("name", query.name.clone().unwrap_or_default()),
        ("metadata", metadata.unwrap_or_default()),
        ("owner_id", owner.unwrap_or_default()),
    ]
}

pub(super) fn policy_added(policy: &Policy) -> Event {
    let mut fields = policy_fields(policy);
    fields.extend(updated(policy.update));
    operation("policies.add", fields)
}

pub(super) fn policy_updated(policy: &Policy) -> Event {
    let mut fields = policy_fields(policy);
    let at = policy.update.map(|update| update.at.rfc3339());
    fields.push(("updated_at", at.unwrap_or_default()));
    operation("policies.update", fields)
}

fn policy_fields(policy: &Policy) -> Fields {
    vec![
        ("owner_id", policy.owner.to_string()),
        ("subject", policy.subject.to_string()),
        ("object", policy.object.to_string()),
        ("actions", event::list(&policy.actions.names())),
        ("created_at", policy.created_at.rfc3339()),
    ]
}

pub(super) fn policy_removed(policy: &Policy) -> Event {
    operation(
        "policies.delete",
        vec![
            ("subject", policy.subject.to_string()),
            ("object", policy.object.to_string()),
            ("actions", event::list(&policy.actions.names())),
        ],
    )
}

pub(super) fn policies_listed(filter: &PolicyFilter<ChannelId>, total: u64, page: Page) -> Event {
    let text = |it: Option<String>| it.unwrap_or_default();
    operation(
        "policies.list",
        vec![
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("owner_id", text(filter.owner.map(|it| it.to_string()))),
            ("subject", text(filter.subject.map(|it| it.to_string()))),
            ("object", text(filter.object.map(|it| it.to_string()))),
            ("action", text(filter.action.map(|it| it.to_string()))),
        ],
    )
}
