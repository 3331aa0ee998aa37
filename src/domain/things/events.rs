//! Operations on things as events; those on channels are told as of any [group](crate::groups::events).

use crate::access::Action;
use crate::event::{self, Event, Stream, tags, text, updated};
use crate::identity::{ChannelId, ThingId};
use crate::listing::Visibility;

use super::{EntityType, Page, Thing, ThingFilter};

type Fields = Vec<(&'static str, String)>;

fn operation(operation: &'static str, fields: Fields) -> Event {
    Event::operation(Stream::Things, operation, fields)
}

/// A thing as it is: made, looked at or changed.
pub(super) fn thing(what: &'static str, thing: &Thing) -> Event {
    let mut fields = vec![
        ("id", thing.id.to_string()),
        ("name", thing.name.clone()),
        ("tags", tags(&thing.tags)),
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
        ("name", text(filter.name.as_ref())),
        ("tag", text(filter.tag.as_ref())),
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
