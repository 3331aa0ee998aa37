//! Which lists make up what is asked for of things.

use rollcall_domain::entity::Status;
use rollcall_domain::identity::{ChannelId, UserId};
use rollcall_domain::listing::{Listing, Page, Visibility};
use rollcall_domain::policies::Action;
use rollcall_domain::things::{Scope, Thing, ThingFilter};

use super::COLUMNS;
use crate::database::Database;
use crate::lists::{self, By, Part};
use crate::metadata::Kind;
use crate::rows::id;
use crate::statement::Statement;

/// Of the things of so many channels that are shared with somebody, there is a part each.
const MAX_PARTS: usize = 8;

pub(super) async fn things(
    database: &Database,
    filter: &ThingFilter,
    scope: Scope,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    let channels = match scope {
        Scope::Of(user, Visibility::Shared | Visibility::All) => channels(database, user).await?,
        Scope::Of(_, Visibility::Mine) | Scope::Everybodys => Vec::new(),
    };
    let mut parts = Vec::new();
    for part in filtered(filter) {
        match scope {
            Scope::Everybodys => parts.push(part),
            Scope::Of(user, Visibility::Mine) => parts.push(part.by(By::Owner(user.as_bytes()))),
            Scope::Of(user, Visibility::Shared) => {
                parts.extend(shared(database, &part, user, &channels).await?);
            }
            Scope::Of(user, Visibility::All) => {
                parts.extend(shared(database, &part, user, &channels).await?);
                parts.push(part.by(By::Owner(user.as_bytes())));
            }
        }
    }
    listed(database, parts, page).await
}

pub(super) async fn things_of_channel(
    database: &Database,
    channel: ChannelId,
    filter: &ThingFilter,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    let of = channel.as_bytes();
    let mut parts = Vec::new();
    for part in filtered(filter) {
        for vouched in [true, false] {
            parts.push(part.clone().by(By::Membership { of, vouched }));
        }
    }
    listed(database, parts, page).await
}

async fn listed(
    database: &Database,
    parts: Vec<Part>,
    page: Page,
) -> Result<Listing<Thing>, sqlx::Error> {
    let Listing { items, total } = lists::page(database, COLUMNS, parts, page).await?;
    let items = items.iter().map(super::thing).collect::<Result<_, _>>()?;
    Ok(Listing { items, total })
}

/// What the filter lets through, a part for each status.
fn filtered(filter: &ThingFilter) -> Vec<Part> {
    let part = |status: &Status| {
        let mut part = Part::new(Kind::Thing, *status);
        if let Some(name) = &filter.name {
            part = part.by(By::Name(name));
        }
        if let Some(tag) = &filter.tag {
            part = part.by(By::Tag(tag));
        }
        if let Some(owner) = &filter.owner {
            part = part.by(By::Owner(owner.as_bytes()));
        }
        part.containing(&filter.metadata)
    };
    let statuses = lists::statuses(filter.status).iter();
    statuses.map(part).collect()
}

/// What of a part is not the user's own, and connected to one of these channels, vouched for.
async fn shared(
    database: &Database,
    part: &Part,
    user: UserId,
    channels: &[ChannelId],
) -> Result<Vec<Part>, sqlx::Error> {
    if channels.len() > MAX_PARTS {
        let others = part.clone().not_by(By::Owner(user.as_bytes()));
        return Ok(vec![others.among(reached(user))]);
    }
    let members = |channel: &ChannelId| {
        let (of, vouched) = (channel.as_bytes(), true);
        part.list(By::Membership { of, vouched })
    };
    let mut connection = database.readers.acquire().await?;
    let sizes = lists::sizes(&mut connection, channels.iter().map(members).collect()).await?;
    let mut channels = channels.to_vec();
    // What is in an earlier one is looked up for each of a later one.
    channels.sort_by_key(|channel| {
        let size = sizes.get(&members(channel));
        std::cmp::Reverse(size.map_or(0, |size| size.entries))
    });
    let mut parts = Vec::new();
    for (n, channel) in channels.iter().enumerate() {
        let mut one = part.clone().shared_in(channel.as_bytes(), user.as_bytes());
        for earlier in &channels[..n] {
            let (of, vouched) = (earlier.as_bytes(), true);
            one = one.not_by(By::Membership { of, vouched });
        }
        parts.push(one);
    }
    Ok(parts)
}

/// Enabled channels whose things the user may list: as many as there is a part for, and one more.
async fn channels(database: &Database, user: UserId) -> Result<Vec<ChannelId>, sqlx::Error> {
    let mut query = Statement::new(
        "SELECT mine.object FROM thing_policies AS mine
         JOIN channels ON channels.id = mine.object AND channels.enabled = 1",
    );
    of_user(&mut query, user);
    query.push(" LIMIT ").bind(MAX_PARTS as i64 + 1);
    let rows = query.query().fetch_all(&database.readers).await?;
    let channel = |row| id(row, 0).map(ChannelId::from_bytes);
    rows.iter().map(channel).collect()
}

/// Things that are connected, vouched for, to any of these channels.
fn reached(user: UserId) -> Statement {
    let mut query = Statement::new(
        "SELECT member.subject FROM thing_policies AS mine
         JOIN channels ON channels.id = mine.object AND channels.enabled = 1
         JOIN thing_policies AS member ON member.object = mine.object
         AND member.is_user = 0 AND member.vouched = 1",
    );
    of_user(&mut query, user);
    query
}

fn of_user(query: &mut Statement, user: UserId) {
    query.push(" WHERE mine.is_user = 1 AND mine.subject = ");
    query.bind(user.as_bytes());
    let actions = Action::ClientList.allowed_by().bits();
    query.push(" AND (mine.actions & ").bind(i64::from(actions));
    query.push(") <> 0");
}
