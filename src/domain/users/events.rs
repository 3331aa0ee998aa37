//! What is announced of users: the stream `users`.

use crate::event::{self, Event, Stream, tags, text};
use crate::identity::UserId;
use crate::listing::Page;

use super::model::{User, UserFilter};

type Field = (&'static str, String);

fn users(operation: &'static str, fields: impl IntoIterator<Item = Field>) -> Event {
    Event::operation(Stream::Users, operation, fields)
}

fn body(user: &User) -> [Field; 7] {
    [
        ("id", user.id.to_string()),
        ("name", user.name.clone()),
        ("tags", tags(&user.tags)),
        ("identity", user.identity.clone()),
        ("metadata", event::json(&user.metadata)),
        ("created_at", user.created_at.rfc3339()),
        ("status", user.status.as_str().into()),
    ]
}

pub(super) fn created(user: &User) -> Event {
    users(
        "user.create",
        body(user).into_iter().chain([("owner", text(user.owner))]),
    )
}

/// An operation that has changed something. The owner is told when it is the owner that has changed.
pub(super) fn updated(operation: &'static str, user: &User) -> Event {
    let owner = match operation {
        "user.update_owner" => text(user.owner),
        _ => String::new(),
    };
    let fields = body(user).into_iter().chain(event::updated(user.update));
    users(operation, fields.chain([("owner", owner)]))
}

pub(super) fn removed(user: &User) -> Event {
    let fields = [
        ("id", user.id.to_string()),
        ("status", user.status.as_str().into()),
    ];
    users(
        "user.remove",
        fields.into_iter().chain(event::updated(user.update)),
    )
}

pub(super) fn viewed(operation: &'static str, user: &User) -> Event {
    let fields = body(user).into_iter().chain(event::updated(user.update));
    users(operation, fields.chain([("owner", text(user.owner))]))
}

pub(super) fn listed(filter: &UserFilter, page: Page, total: u64) -> Event {
    let metadata = filter.metadata.as_ref().map(event::json);
    let whose = event::whose(filter.owner, filter.visibility);
    users(
        "user.list",
        [
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("status", filter.status.as_str().into()),
            ("name", text(filter.name.as_ref())),
            ("identity", text(filter.identity.as_ref())),
            ("tag", text(filter.tag.as_ref())),
            ("metadata", metadata.unwrap_or_default()),
        ]
        .into_iter()
        .chain(whose),
    )
}

/// A token was looked at for another service.
pub(super) fn identified(user: UserId) -> Event {
    users("user.identify", [("user_id", user.to_string())])
}

pub(super) fn issued(identity: &str) -> Event {
    users("user.issue_token", [("identity", identity.to_owned())])
}

pub(super) fn refreshed() -> Event {
    users("user.refresh_token", [])
}

pub(super) fn reset_asked(email: &str, host: &str) -> Event {
    let fields = [("email", email.to_owned()), ("host", host.to_owned())];
    users("user.generate_reset_token", fields)
}

pub(super) fn reset_sent(email: &str, host: &str, user: &User) -> Event {
    users(
        "user.send_password_reset",
        [
            ("host", host.to_owned()),
            ("email", email.to_owned()),
            ("user", user.name.clone()),
        ],
    )
}
