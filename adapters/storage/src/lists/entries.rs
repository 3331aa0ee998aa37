//! What changes in lists when something is made, changed, or becomes a member of a group.
//!
//! Who changes lists takes the turn of the kind first, and reads under it what others have committed: so none of two
//! at one time misses what the other does, and spans have as many entries as are there.

use std::collections::HashMap;

use rollcall_domain::entity::Status;
use sqlx::{AnyConnection, Row};

use super::spans::{self, Change, Span};
use super::{By, Entity, List};
use crate::metadata::{self, Kind};
use crate::rows::{id, is_set, optional_id, status};
use crate::statement::{self, Statement};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    list: List,
    at: i64,
    id: [u8; 16],
}

impl Entry {
    const fn change(&self, by: i64) -> Change {
        Change {
            list: self.list,
            at: self.at,
            by,
        }
    }
}

/// Who has a policy on a group.
pub(crate) struct Member {
    pub(crate) id: [u8; 16],
    pub(crate) of: [u8; 16],
    pub(crate) vouched: bool,
}

/// What is known of a member, by which its lists are found.
#[derive(Clone, Copy)]
struct Known {
    status: Status,
    owner: Option<[u8; 16]>,
    at: i64,
}

impl From<&Entity<'_>> for Known {
    fn from(entity: &Entity<'_>) -> Self {
        Self {
            status: entity.status,
            owner: entity.owner.copied(),
            at: entity.created_at.0.cast_signed(),
        }
    }
}

impl Member {
    /// In the lists of the group.
    fn entries(&self, kind: Kind, known: Known) -> impl Iterator<Item = Entry> + use<> {
        let Self { id, of, vouched } = *self;
        let membership = By::Membership { of: &of, vouched };
        // Nobody asks for it of other kinds.
        let owned = known.owner.filter(|_| vouched && kind == Kind::Thing);
        let owned = owned.as_ref();
        let owned = owned.map(|owner| By::OwnedMembership { of: &of, owner });
        let list = |by| List::of(kind, known.status, by);
        let lists = [Some(list(membership)), owned.map(list)];
        let at = known.at;
        let entry = move |list| Entry { list, at, id };
        lists.into_iter().flatten().map(entry)
    }
}

/// Ids that are looked up with one statement.
const TOGETHER: usize = 256;

/// Puts what is new, all of one kind, into its lists.
pub(crate) async fn add(
    connection: &mut AnyConnection,
    span: Span,
    entities: &[Entity<'_>],
) -> Result<(), sqlx::Error> {
    let Some(kind) = entities.first().map(|it| it.kind) else {
        return Ok(());
    };
    for entity in entities {
        metadata::add_terms(connection, kind, entity.id, entity.metadata).await?;
    }
    take_turn(connection, kind).await?;
    let mut entries = Vec::new();
    let mut known: HashMap<[u8; 16], Known> = HashMap::with_capacity(entities.len());
    for entity in entities {
        let (id, it) = (*entity.id, Known::from(entity));
        let lists = entity.lists().into_iter();
        entries.extend(lists.map(|list| Entry {
            list,
            at: it.at,
            id,
        }));
        known.insert(id, it);
    }
    // Policies may have been there before.
    let ids: Vec<[u8; 16]> = entities.iter().map(|it| *it.id).collect();
    for member in memberships(connection, kind, &ids).await? {
        if let Some(known) = known.get(&member.id) {
            entries.extend(member.entries(kind, *known));
        }
    }
    // Side by side in the index.
    entries.sort_unstable();
    let rows = entries.iter().map(row).collect();
    statement::insert(connection, INSERT, rows).await?;
    let changes = entries.iter().map(|entry| entry.change(1)).collect();
    spans::count(connection, span, changes).await
}

/// Moves an entity that was `before` and is `after` now, and that nobody else can change meanwhile.
pub(crate) async fn alter(
    connection: &mut AnyConnection,
    span: Span,
    before: &Entity<'_>,
    after: &Entity<'_>,
) -> Result<(), sqlx::Error> {
    let (kind, id) = (after.kind, *after.id);
    if before.metadata != after.metadata {
        metadata::put_terms(connection, kind, after.id, after.metadata).await?;
    }
    let (mut old, mut new) = (before.lists(), after.lists());
    if old == new {
        return Ok(());
    }
    take_turn(connection, kind).await?;
    let (was, is) = (Known::from(before), Known::from(after));
    if (was.status, was.owner) != (is.status, is.owner) {
        for member in memberships(connection, kind, &[id]).await? {
            old.extend(member.entries(kind, was).map(|entry| entry.list));
            new.extend(member.entries(kind, is).map(|entry| entry.list));
        }
    }
    let entry = |list: &List| Entry {
        list: *list,
        at: is.at,
        id,
    };
    let gone = old.iter().filter(|list| !new.contains(list)).map(entry);
    let come = new.iter().filter(|list| !old.contains(list)).map(entry);
    let mut changes = remove(connection, gone.collect()).await?;
    changes.extend(put(connection, come.collect()).await?);
    spans::count(connection, span, changes).await
}

/// Puts members, if they are there, into the lists of their groups. `stayed` says which of them were members
/// already, perhaps ones that nobody vouched for.
pub(crate) async fn join(
    connection: &mut AnyConnection,
    span: Span,
    kind: Kind,
    members: Vec<(Member, bool)>,
) -> Result<(), sqlx::Error> {
    take_turn(connection, kind).await?;
    let ids = members.iter().map(|(member, _)| member.id).collect();
    let known = made(connection, kind, ids).await?;
    // Who is there twice is as the second time.
    let members: HashMap<([u8; 16], [u8; 16]), (Member, bool)> = members
        .into_iter()
        .map(|it| ((it.0.id, it.0.of), it))
        .collect();
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (member, stayed) in members.into_values() {
        let Some(known) = known.get(&member.id) else {
            continue;
        };
        come.extend(member.entries(kind, *known));
        if stayed && member.vouched {
            let before = Member {
                vouched: false,
                ..member
            };
            gone.extend(before.entries(kind, *known));
        }
    }
    let mut changes = remove(connection, gone).await?;
    changes.extend(put(connection, come).await?);
    spans::count(connection, span, changes).await
}

/// Takes who was a member out of the lists of groups.
pub(crate) async fn leave(
    connection: &mut AnyConnection,
    span: Span,
    kind: Kind,
    members: Vec<Member>,
) -> Result<(), sqlx::Error> {
    take_turn(connection, kind).await?;
    let ids = members.iter().map(|member| member.id).collect();
    let known = made(connection, kind, ids).await?;
    let gone = members.iter().filter_map(|member| {
        let known = known.get(&member.id)?;
        Some(member.entries(kind, *known))
    });
    let changes = remove(connection, gone.flatten().collect()).await?;
    spans::count(connection, span, changes).await
}

async fn take_turn(connection: &mut AnyConnection, kind: Kind) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE list_turns SET taken = taken + 1 WHERE kind = $1")
        .bind(kind.as_str())
        .execute(connection)
        .await
        .map(|_| ())
}

/// Which groups those with these ids are members of.
async fn memberships(
    connection: &mut AnyConnection,
    kind: Kind,
    ids: &[[u8; 16]],
) -> Result<Vec<Member>, sqlx::Error> {
    let Some(policies) = kind.policies() else {
        return Ok(Vec::new());
    };
    let mut members = Vec::new();
    for ids in ids.chunks(TOGETHER) {
        let mut query = Statement::new("SELECT subject, object, vouched FROM ");
        query.push(policies.table).push(" WHERE is_user = ");
        query.push(policies.is_user).push(" AND subject IN (");
        query.bind_all(ids).push(")");
        for row in query.query().fetch_all(&mut *connection).await? {
            members.push(Member {
                id: id(&row, 0)?,
                of: id(&row, 1)?,
                vouched: is_set(&row, 2)?,
            });
        }
    }
    Ok(members)
}

/// What is known of those with these ids.
async fn made(
    connection: &mut AnyConnection,
    kind: Kind,
    mut ids: Vec<[u8; 16]>,
) -> Result<HashMap<[u8; 16], Known>, sqlx::Error> {
    ids.sort_unstable();
    ids.dedup();
    let mut made = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(TOGETHER) {
        let mut query = Statement::new("SELECT id, enabled, owner, created_at FROM ");
        query.push(kind.table()).push(" WHERE id IN (");
        query.bind_all(ids).push(")");
        for row in query.query().fetch_all(&mut *connection).await? {
            let known = Known {
                status: status(&row, 1)?,
                owner: optional_id(&row, 2)?,
                at: row.try_get(3)?,
            };
            made.insert(id(&row, 0)?, known);
        }
    }
    Ok(made)
}

const INSERT: &str = "INSERT INTO listed (list, created_at, entity)";

fn row(entry: &Entry) -> [statement::Value; 3] {
    [(&entry.list.0).into(), entry.at.into(), (&entry.id).into()]
}

/// Inserts what is not there, and tells what was not.
async fn put(
    connection: &mut AnyConnection,
    mut entries: Vec<Entry>,
) -> Result<Vec<Change>, sqlx::Error> {
    entries.sort_unstable();
    let rows = entries.iter().map(row).collect();
    let behind = " ON CONFLICT (list, created_at, entity) DO NOTHING RETURNING list, created_at";
    let new = statement::put(connection, INSERT, rows, behind).await?;
    let change = |row| {
        Ok(Change {
            list: List(id(row, 0)?),
            at: row.try_get(1)?,
            by: 1,
        })
    };
    new.iter().map(change).collect()
}

/// Deletes what is there, and tells what was.
async fn remove(
    connection: &mut AnyConnection,
    mut entries: Vec<Entry>,
) -> Result<Vec<Change>, sqlx::Error> {
    entries.sort_unstable_by_key(|entry| (entry.id, entry.at));
    let mut changes = Vec::new();
    let of_one = |a: &Entry, b: &Entry| (a.id, a.at) == (b.id, b.at);
    for entries in entries.chunk_by(of_one) {
        for entries in entries.chunks(TOGETHER) {
            let lists: Vec<[u8; 16]> = entries.iter().map(|entry| entry.list.0).collect();
            let mut query = Statement::new("DELETE FROM listed WHERE created_at = ");
            query.bind(entries[0].at).push(" AND entity = ");
            query.bind(&entries[0].id).push(" AND list IN (");
            query.bind_all(&lists).push(") RETURNING list");
            for row in query.query().fetch_all(&mut *connection).await? {
                changes.push(Change {
                    list: List(id(&row, 0)?),
                    at: entries[0].at,
                    by: -1,
                });
            }
        }
    }
    Ok(changes)
}
