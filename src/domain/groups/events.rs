//! What is announced of groups of users, and of policies on them: the stream `users`.

use crate::caller::Question;
use crate::entity::Update;
use crate::event::{self, Event, Stream};
use crate::identity::{GroupId, UserId};
use crate::listing::Page;
use crate::users::UserFilter;

use super::{Group, GroupQuery, Policy, PolicyFilter};

type Fields = Vec<(&'static str, String)>;

fn users(operation: &'static str, fields: Fields) -> Event {
    Event::operation(Stream::Users, operation, fields)
}

/// A group as it is: made, looked at or changed.
pub(super) fn group(operation: &'static str, group: &Group<GroupId>) -> Event {
    let mut fields = vec![
        ("id", group.id.to_string()),
        ("owner", group.owner.to_string()),
        ("parent", text(group.parent())),
        ("name", group.name.clone()),
        ("description", group.description.clone()),
        ("metadata", event::json(&group.metadata)),
        ("created_at", group.created_at.rfc3339()),
        ("status", group.status.as_str().into()),
    ];
    fields.extend(updated(group.update));
    users(operation, fields)
}

/// A change of state: what the streams call removal.
pub(super) fn removed(group: &Group<GroupId>) -> Event {
    let mut fields = vec![
        ("id", group.id.to_string()),
        ("status", group.status.as_str().into()),
    ];
    fields.extend(updated(group.update));
    users("group.remove", fields)
}

pub(super) fn listed(query: &GroupQuery, total: u64, page: Page) -> Event {
    users("group.list", list(query, total, page))
}

pub(super) fn listed_by_user(user: UserId, query: &GroupQuery, total: u64, page: Page) -> Event {
    let mut fields = list(query, total, page);
    // Whatever the name says, consumers find the user there.
    fields.push(("channel_id", user.to_string()));
    users("group.list_by_user", fields)
}

pub(super) fn listed_by_group(
    group: GroupId,
    filter: &UserFilter,
    total: u64,
    page: Page,
) -> Event {
    let metadata = filter.metadata.as_ref().map(event::json);
    users(
        "user.list_by_group",
        vec![
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("group_id", group.to_string()),
            ("status", filter.status.as_str().into()),
            ("name", filter.name.clone().unwrap_or_default()),
            ("identity", filter.identity.clone().unwrap_or_default()),
            ("tag", filter.tag.clone().unwrap_or_default()),
            ("owner", text(filter.owner)),
            ("metadata", metadata.unwrap_or_default()),
        ],
    )
}

fn list(query: &GroupQuery, total: u64, page: Page) -> Fields {
    vec![
        ("total", total.to_string()),
        ("offset", page.offset.to_string()),
        ("limit", page.limit.to_string()),
        ("status", query.status.as_str().into()),
        ("name", query.name.clone().unwrap_or_default()),
        ("owner_id", text(query.owner)),
        (
            "metadata",
            query.metadata.as_ref().map(event::json).unwrap_or_default(),
        ),
    ]
}

pub(super) fn policy_added(policy: &Policy<GroupId>) -> Event {
    let mut fields = policy_fields(policy);
    fields.extend(updated(policy.update));
    users("policies.add", fields)
}

pub(super) fn policy_updated(policy: &Policy<GroupId>) -> Event {
    let mut fields = policy_fields(policy);
    let at = policy.update.map(|update| update.at.rfc3339());
    fields.push(("updated_at", at.unwrap_or_default()));
    users("policies.update", fields)
}

fn policy_fields(policy: &Policy<GroupId>) -> Fields {
    vec![
        ("owner_id", policy.owner.to_string()),
        ("subject", policy.subject.to_string()),
        ("object", policy.object.to_string()),
        ("actions", event::list(&policy.actions.names())),
        ("created_at", policy.created_at.rfc3339()),
    ]
}

pub(super) fn policy_deleted(policy: &Policy<GroupId>) -> Event {
    users(
        "policies.delete",
        vec![
            ("subject", policy.subject.to_string()),
            ("object", policy.object.to_string()),
            ("actions", event::list(&policy.actions.names())),
        ],
    )
}

pub(super) fn policies_listed(filter: &PolicyFilter<GroupId>, total: u64, page: Page) -> Event {
    users(
        "policies.list",
        vec![
            ("total", total.to_string()),
            ("limit", page.limit.to_string()),
            ("offset", page.offset.to_string()),
            ("owner_id", text(filter.owner)),
            ("subject", text(filter.subject)),
            ("object", text(filter.object)),
            ("action", text(filter.action)),
        ],
    )
}

/// Who asked stays out of it: that may be a token.
pub(super) fn authorized(question: &Question<'_>) -> Event {
    users(
        "policies.authorize",
        vec![
            ("entity_type", question.entity_type.to_owned()),
            ("object", question.object.to_owned()),
            ("actions", question.action.to_owned()),
        ],
    )
}

fn updated(update: Option<Update>) -> Fields {
    let Some(Update { at, by }) = update else {
        return Vec::new();
    };
    vec![("updated_at", at.rfc3339()), ("updated_by", by.to_string())]
}

fn text(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
