//! Operations on things and channels as events.

use crate::event::{self, Event, Stream};
use crate::identity::{Timestamp, UserId};

use super::{Channel, Page, Status, Thing};

pub(super) fn thing_event(operation: &'static str, thing: &Thing) -> Event {
    let tags = if thing.tags.is_empty() {
        String::new()
    } else {
        event::list(&thing.tags)
    };
    Event::operation(
        Stream::Things,
        operation,
        [
            ("id", thing.id.to_string()),
            ("name", thing.name.clone()),
            ("tags", tags),
            ("owner", thing.owner.to_string()),
            ("metadata", event::json(&thing.metadata)),
            ("created_at", thing.created_at.rfc3339()),
            (
                "updated_at",
                thing.updated_at.map(Timestamp::rfc3339).unwrap_or_default(),
            ),
            (
                "updated_by",
                thing
                    .updated_by
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
            ),
            ("status", thing.status.as_str().into()),
        ],
    )
}

pub(super) fn channel_created(channel: &Channel) -> Event {
    Event::operation(
        Stream::Things,
        "channel.create",
        [
            ("id", channel.id.to_string()),
            ("name", channel.name.clone()),
            ("owner", channel.owner.to_string()),
            ("metadata", event::json(&channel.metadata)),
            ("created_at", channel.created_at.rfc3339()),
            ("status", channel.status.as_str().into()),
        ],
    )
}

pub(super) fn list_event(operation: &'static str, total: u64, page: Page) -> Event {
    Event::operation(
        Stream::Things,
        operation,
        [
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("status", "all".into()),
        ],
    )
}

/// A change of state: what the streams call removal.
pub(super) fn removed(
    operation: &'static str,
    id: &str,
    status: Status,
    at: Option<Timestamp>,
    by: UserId,
) -> Event {
    Event::operation(
        Stream::Things,
        operation,
        [
            ("id", id.to_owned()),
            ("status", status.as_str().into()),
            ("updated_at", at.map(Timestamp::rfc3339).unwrap_or_default()),
            ("updated_by", by.to_string()),
        ],
    )
}
