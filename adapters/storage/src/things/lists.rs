//! Lists of things, by indexes whoever asks for what: pages of a hundred among millions.
//!
//! What belongs to one status and one owner, or is everybody's, lies in an index in the order of the list. A list
//! of several such parts takes as much from the beginning of each as a page may need, and merges that.

use rollcall_domain::entity::Status;
use rollcall_domain::identity::{ChannelId, UserId};
use rollcall_domain::listing::{Listing, Page, StatusFilter, Visibility};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::things::{Scope, Thing, ThingFilter};
use sqlx::AnyPool;
use sqlx::Row;

use super::COLUMNS;
use crate::metadata::{self, Kind};
use crate::rows::flag;
use crate::statement::Statement;

/// Whose things a part of a list has.
#[derive(Clone, Copy)]
enum Whose {
    Everybodys,
    /// What the user owns.
    Owners(UserId),
    /// What others share with the user.
    Others(UserId),
    /// What is connected to a channel.
    Members(ChannelId),
}

pub(super) async fn things(
    pool: &AnyPool,
    filter: &ThingFilter,
    scope: Scope,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    let whose = match scope {
        Scope::Everybodys => vec![filter.owner.map_or(Whose::Everybodys, Whose::Owners)],
        Scope::Of(user, Visibility::Mine) => vec![Whose::Owners(user)],
        Scope::Of(user, Visibility::Shared) => vec![Whose::Others(user)],
        Scope::Of(user, Visibility::All) => vec![Whose::Owners(user), Whose::Others(user)],
    };
    listed(pool, &whose, filter, page).await
}

pub(super) async fn things_of_channel(
    pool: &AnyPool,
    channel: ChannelId,
    filter: &ThingFilter,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    listed(pool, &[Whose::Members(channel)], filter, page).await
}

async fn listed(
    pool: &AnyPool,
    whose: &[Whose],
    filter: &ThingFilter,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    let statuses: &[Status] = match filter.status {
        StatusFilter::Enabled => &[Status::Enabled],
        StatusFilter::Disabled => &[Status::Disabled],
        StatusFilter::All => &[Status::Enabled, Status::Disabled],
    };
    let parts: Vec<(Whose, Status)> = whose
        .iter()
        .flat_map(|whose| statuses.iter().map(|status| (*whose, *status)))
        .collect();

    let mut total = 0;
    for &(whose, status) in &parts {
        let query = match is_counted(whose, filter) {
            true => counted(whose, status),
            false => {
                let mut query = Statement::new("SELECT COUNT(*)");
                select(&mut query, whose, status, filter);
                query
            }
        };
        let count: i64 = query.query().fetch_one(pool).await?.try_get(0)?;
        total += count.cast_unsigned();
    }

    let limit = page.limit.min(total.saturating_sub(page.offset));
    if limit == 0 {
        return Ok(Listing {
            items: Vec::new(),
            total,
        });
    }
    // The ids alone first, which are in the index: rows that are skipped are not read.
    let mut query = Statement::new("SELECT ");
    query.push(COLUMNS).push(" FROM (");
    match parts[..] {
        [(whose, status)] => {
            let behind = total - page.offset - limit;
            // From the end that is nearer.
            let (direction, skipped) = match behind < page.offset {
                true => (" DESC", behind),
                false => ("", page.offset),
            };
            ids(&mut query, whose, status, filter, direction);
            query.push(" LIMIT ").bind(limit.cast_signed());
            query.push(" OFFSET ").bind(skipped.cast_signed());
        }
        _ => {
            query.push("SELECT created_at, id FROM (");
            for (n, &(whose, status)) in parts.iter().enumerate() {
                query.push(if n == 0 { "" } else { " UNION ALL " });
                query.push("SELECT created_at, id FROM (");
                ids(&mut query, whose, status, filter, "");
                let end = page.offset.saturating_add(limit);
                query
                    .push(" LIMIT ")
                    .bind(end.cast_signed())
                    .push(") AS part");
            }
            query.push(") AS parts ORDER BY created_at, id LIMIT ");
            query.bind(limit.cast_signed());
            query.push(" OFFSET ").bind(page.offset.cast_signed());
        }
    }
    // What is looked up first is named first: CROSS JOIN keeps the order.
    query.push(") AS page CROSS JOIN things WHERE things.id = page.id");
    query.push(" ORDER BY things.created_at, things.id");
    let rows = query.query().fetch_all(pool).await?;
    let items = rows.iter().map(super::thing).collect::<Result<_, _>>()?;
    Ok(Listing { items, total })
}

/// The ids of a part, in the order they were made or against it.
fn ids(query: &mut Statement, whose: Whose, status: Status, filter: &ThingFilter, direction: &str) {
    let (at, id) = match filter.tag {
        Some(_) => ("thing_tags.created_at", "thing_tags.thing"),
        None => ("things.created_at", "things.id"),
    };
    query.push("SELECT ").push(at).push(" AS created_at, ");
    query.push(id).push(" AS id");
    select(query, whose, status, filter);
    query.push(" ORDER BY ").push(at).push(direction);
    query.push(", ").push(id).push(direction);
}

/// Whether the database keeps count of what the filter lets through.
fn is_counted(whose: Whose, filter: &ThingFilter) -> bool {
    let all = filter.name.is_none() && filter.tag.is_none() && filter.metadata.is_empty();
    let one_owners = match whose {
        Whose::Everybodys => true,
        Whose::Owners(user) => filter.owner.is_none_or(|owner| owner == user),
        Whose::Others(_) | Whose::Members(_) => false,
    };
    all && one_owners
}

fn counted(whose: Whose, status: Status) -> Statement {
    // What sums are of is not the same in all databases.
    let sum = "SELECT CAST(COALESCE(SUM(things), 0) AS BIGINT) FROM thing_counts WHERE enabled = ";
    let mut query = Statement::new(sum);
    query.bind(flag(status == Status::Enabled));
    if let Whose::Owners(user) = whose {
        query.push(" AND owner = ").bind(user.as_bytes());
    }
    query
}

/// `FROM` and `WHERE`.
fn select(query: &mut Statement, whose: Whose, status: Status, filter: &ThingFilter) {
    let wanted = (!filter.metadata.is_empty()).then_some(&filter.metadata);
    // What is looked up first is named first: CROSS JOIN keeps the order.
    query.push(match (&filter.tag, wanted) {
        (Some(_), _) => " FROM thing_tags CROSS JOIN things",
        (None, Some(_)) => " FROM things AS found CROSS JOIN things",
        (None, None) => " FROM things",
    });
    query.push(" WHERE things.enabled = ");
    query.bind(flag(status == Status::Enabled));
    if let Some(tag) = &filter.tag {
        query.push(" AND thing_tags.tag = ").bind(tag.as_str());
        query.push(" AND things.id = thing_tags.thing");
    }
    if let Some(wanted) = wanted {
        let column = match filter.tag {
            Some(_) => "things.id",
            None => "found.id",
        };
        let containing = metadata::containing(Kind::Thing, column, wanted);
        query.push(" AND ").append(&containing);
        if filter.tag.is_none() {
            query.push(" AND things.id = found.id");
        }
    }
    if let Some(name) = &filter.name {
        query.push(" AND things.name = ").bind(name.as_str());
    }
    match whose {
        Whose::Everybodys => {}
        Whose::Owners(user) => _ = query.push(" AND things.owner = ").bind(user.as_bytes()),
        Whose::Others(user) => shared(query, user),
        Whose::Members(channel) => {
            query.push(
                " AND things.id IN (SELECT subject FROM thing_policies WHERE is_user = 0 AND object = ",
            );
            query.bind(channel.as_bytes()).push(")");
        }
    }
    if let (Some(owner), false) = (filter.owner, matches!(whose, Whose::Everybodys)) {
        query.push(" AND things.owner = ").bind(owner.as_bytes());
    }
}

/// What is not the user's own, and connected to an enabled channel where the user may see it.
fn shared(query: &mut Statement, user: UserId) {
    query.push(" AND things.owner <> ").bind(user.as_bytes());
    query.push(
        " AND things.id IN (SELECT member.subject FROM thing_policies AS mine
         JOIN channels ON channels.id = mine.object AND channels.enabled = 1
         JOIN thing_policies AS member ON member.object = mine.object
         WHERE member.is_user = 0 AND member.vouched = 1 AND mine.is_user = 1 AND mine.subject = ",
    );
    query.bind(user.as_bytes());
    query
        .push(" AND (mine.actions & ")
        .bind(bits(Action::ClientList.allowed_by()));
    query.push(") <> 0)");
}

fn bits(actions: Actions) -> i64 {
    actions.bits().into()
}
