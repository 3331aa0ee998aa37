//! What is announced of groups and of policies on them: in the stream `users`, of channels in `things`.

use crate::caller::Question;
use crate::event::{self, Event, text, updated};
use crate::identity::GroupId;
use crate::listing::Page;
use crate::users::UserFilter;

use super::{Group, GroupKey, GroupQuery, Policy, PolicyFilter};

type Field = (&'static str, String);

fn tell<I: GroupKey>(operation: &'static str, fields: Vec<Field>) -> Event {
    Event::operation(I::STREAM, operation, fields)
}

/// A group as it is: made, looked at or changed.
pub(crate) fn group<I: GroupKey>(operation: &'static str, group: &Group<I>) -> Event {
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
    tell::<I>(operation, fields)
}

/// A change of state: what the streams call removal.
pub(crate) fn removed<I: GroupKey>(operation: &'static str, group: &Group<I>) -> Event {
    let mut fields = vec![
        ("id", group.id.to_string()),
        ("status", group.status.as_str().into()),
    ];
    fields.extend(updated(group.update));
    tell::<I>(operation, fields)
}

pub(crate) fn listed<I: GroupKey>(
    operation: &'static str,
    query: &GroupQuery<I>,
    total: u64,
    page: Page,
) -> Event {
    tell::<I>(operation, list(query, total, page))
}

/// A list of the groups that somebody, or something, is in: `member`.
pub(crate) fn listed_by<I: GroupKey>(
    operation: &'static str,
    member: Field,
    query: &GroupQuery<I>,
    total: u64,
    page: Page,
) -> Event {
    let mut fields = list(query, total, page);
    fields.push(member);
    tell::<I>(operation, fields)
}

pub(super) fn members_listed(group: GroupId, filter: &UserFilter, total: u64, page: Page) -> Event {
    tell::<GroupId>(
        "user.list_by_group",
        vec![
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("group_id", group.to_string()),
            ("status", filter.status.as_str().into()),
            ("name", text(filter.name.as_ref())),
            ("identity", text(filter.identity.as_ref())),
            ("tag", text(filter.tag.as_ref())),
            ("owner", text(filter.owner)),
            ("metadata", text(filter.metadata.as_ref().map(event::json))),
        ],
    )
}

fn list<I: GroupKey>(query: &GroupQuery<I>, total: u64, page: Page) -> Vec<Field> {
    vec![
        ("total", total.to_string()),
        ("offset", page.offset.to_string()),
        ("limit", page.limit.to_string()),
        ("status", query.status.as_str().into()),
        ("name", text(query.name.as_ref())),
        ("owner_id", text(query.owner)),
        ("metadata", text(query.metadata.as_ref().map(event::json))),
    ]
}

pub(crate) fn policy_added<I: GroupKey>(policy: &Policy<I>) -> Event {
    let mut fields = policy_fields(policy);
    fields.extend(updated(policy.update));
    tell::<I>("policies.add", fields)
}

pub(crate) fn policy_updated<I: GroupKey>(policy: &Policy<I>) -> Event {
    let mut fields = policy_fields(policy);
    let at = policy.update.map(|update| update.at.rfc3339());
    fields.push(("updated_at", text(at)));
    tell::<I>("policies.update", fields)
}

fn policy_fields<I: GroupKey>(policy: &Policy<I>) -> Vec<Field> {
    vec![
        ("owner_id", policy.owner.to_string()),
        ("subject", policy.subject.to_string()),
        ("object", policy.object.to_string()),
        ("actions", event::list(&policy.actions.names())),
        ("created_at", policy.created_at.rfc3339()),
    ]
}

pub(crate) fn policy_deleted<I: GroupKey>(policy: &Policy<I>) -> Event {
    tell::<I>(
        "policies.delete",
        vec![
            ("subject", policy.subject.to_string()),
            ("object", policy.object.to_string()),
            ("actions", event::list(&policy.actions.names())),
        ],
    )
}

pub(crate) fn policies_listed<I: GroupKey>(
    filter: &PolicyFilter<I>,
    total: u64,
    page: Page,
) -> Event {
    tell::<I>(
        "policies.list",
        vec![
            ("total", total.to_string()),
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("owner_id", text(filter.owner)),
            ("subject", text(filter.subject)),
            ("object", text(filter.object)),
            ("action", text(filter.action)),
        ],
    )
}

/// Who asked stays out of it: that may be a token.
pub(super) fn authorized(question: &Question<'_>) -> Event {
    tell::<GroupId>(
        "policies.authorize",
        vec![
            ("entity_type", question.entity_type.to_owned()),
            ("object", question.object.to_owned()),
            ("actions", question.action.to_owned()),
        ],
    )
}
