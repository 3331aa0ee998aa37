//! Groups in the database: those of users, and channels.

use async_trait::async_trait;
use rollcall_domain::entity::{Status, Update};
use rollcall_domain::event::Event;
use rollcall_domain::groups::{
    Details, Direction, Group, GroupFilter, GroupKey, GroupStore, Seen, Tell, Tree,
};
use rollcall_domain::identity::{ChannelId, GroupId, UserId};
use rollcall_domain::listing::{Listing, Page, Visibility};
use rollcall_domain::policies::Action;
use rollcall_domain::ports::StoreError;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, failed, taken};
use crate::lists::{self, By, Entity, Part};
use crate::metadata::Kind;
use crate::rows::{
    flag, from_json, id, json, moment, number, optional_id, optional_moment, status,
};
use crate::statement::Statement;

/// Where groups of a kind, and policies on them, are kept.
pub(crate) trait Tables: GroupKey {
    const GROUPS: &'static str;
    const POLICIES: &'static str;
    const KIND: Kind;
    /// Of their members.
    const MEMBERS: Kind;
    /// What else is set with a name.
    const NAMED: &'static str;
}

impl Tables for GroupId {
    const GROUPS: &'static str = "groups";
    const POLICIES: &'static str = "user_policies";
    const KIND: Kind = Kind::Group;
    const MEMBERS: Kind = Kind::User;
    const NAMED: &'static str = "";
}

impl Tables for ChannelId {
    const GROUPS: &'static str = "channels";
    const POLICIES: &'static str = "thing_policies";
    const KIND: Kind = Kind::Channel;
    const MEMBERS: Kind = Kind::Thing;
    const NAMED: &'static str = ", repeated = 0";
}

pub(crate) const COLUMNS: &str =
    "id, owner, path, name, description, metadata, enabled, created_at, updated_at, updated_by";

#[async_trait]
impl<I: Tables> GroupStore<I> for Database {
    async fn add_groups(&self, groups: &[Group<I>], events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep groups");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for group in groups {
            let parent = group.parent().map(|parent| parent.as_bytes().to_vec());
            let mut insert = Statement::new("INSERT INTO ");
            insert.push(I::GROUPS).push(
                " (id, owner, parent, path, name, description, metadata, enabled, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            );
            let added = insert
                .query()
                .bind(group.id.as_bytes().as_slice())
                .bind(group.owner.as_bytes().as_slice())
                .bind(parent)
                .bind(path(&group.path()))
                .bind(group.name.as_str())
                .bind(group.description.as_str())
                .bind(json(&group.metadata))
                .bind(flag(group.status == Status::Enabled))
                .bind(group.created_at.0.cast_signed())
                .execute(&mut *transaction)
                .await;
            if let Err(error) = added {
                // Of two unique values, which of them another has is asked only when one is taken.
                drop(transaction);
                let same = groups.iter().filter(|it| it.id == group.id).count();
                let what = match same > 1 || self.group(group.id).await?.is_some() {
                    true => "id",
                    false => "name",
                };
                return Err(taken("keep groups", what)(error));
            }
        }
        let entities: Vec<Entity<'_>> = groups.iter().map(Entity::from).collect();
        lists::add(&mut transaction, self.span, &entities)
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn change_group(
        &self,
        id: I,
        details: &Details,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError> {
        let mut change = updated::<I>(update);
        if let Some(name) = &details.name {
            change.push(", name = ").bind(name.as_str()).push(I::NAMED);
        }
        if let Some(description) = &details.description {
            change.push(", description = ").bind(description.as_str());
        }
        if let Some(metadata) = &details.metadata {
            change.push(", metadata = ").bind(json(metadata).as_str());
        }
        change.push(" WHERE id = ").bind(id.as_bytes());
        self.changed(id, change, tell).await
    }

    async fn set_group_status(
        &self,
        id: I,
        status: Status,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError> {
        let enabled = flag(status == Status::Enabled);
        let mut change = updated::<I>(update);
        change.push(", enabled = ").bind(enabled);
        change.push(" WHERE id = ").bind(id.as_bytes());
        change.push(" AND enabled <> ").bind(enabled);
        self.changed(id, change, tell).await
    }

    async fn group(&self, id: I) -> Result<Option<Group<I>>, StoreError> {
        let failed = failed("read a group");
        let mut read = select::<I>();
        read.push(" WHERE id = ").bind(id.as_bytes());
        let row = read.query().fetch_optional(&self.readers).await;
        row.map_err(&failed)?
            .map(|row| group(&row))
            .transpose()
            .map_err(&failed)
    }

    async fn groups(
        &self,
        filter: &GroupFilter<I>,
        page: Page,
    ) -> Result<Listing<Group<I>>, StoreError> {
        let rows = lists::page(self, COLUMNS, parts(filter), page).await;
        let Listing { items, total } = rows.map_err(failed("list groups"))?;
        let groups = items.iter().map(group).collect::<Result<_, _>>();
        Ok(Listing {
            items: groups.map_err(failed("list groups"))?,
            total,
        })
    }
}

impl Database {
    async fn changed<I: Tables>(
        &self,
        id: I,
        mut change: Statement,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError> {
        let failed = failed("change a group");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        // Written, so that nobody else changes it meanwhile.
        let mut before = Statement::new("UPDATE ");
        before
            .push(I::GROUPS)
            .push(" SET enabled = enabled WHERE id = ");
        before.bind(id.as_bytes()).push(" RETURNING ").push(COLUMNS);
        let before = before.query().fetch_optional(&mut *transaction).await;
        let before = before.map_err(&failed)?;
        change.push(" RETURNING ").push(COLUMNS);
        let row = change.query().fetch_optional(&mut *transaction).await;
        let row = row.map_err(taken("change a group", "name"))?;
        let (Some(before), Some(row)) = (before, row) else {
            return Ok(None);
        };
        let before: Group<I> = self::group(&before).map_err(&failed)?;
        let group: Group<I> = self::group(&row).map_err(&failed)?;
        let (old, new) = (Entity::from(&before), Entity::from(&group));
        lists::alter(&mut transaction, self.span, &old, &new)
            .await
            .map_err(&failed)?;
        let events = vec![tell(&group)];
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(Some(group))
    }

    /// A page of what `from` (a `FROM … WHERE …`) has, and how much that is in all.
    pub(crate) async fn page(
        &self,
        select: &str,
        from: Statement,
        order: &str,
        page: Page,
    ) -> Result<Listing<AnyRow>, sqlx::Error> {
        let mut list = from.clone().behind(select);
        list.push(" ORDER BY ").push(order);
        list.push(" LIMIT ").bind(page.limit.cast_signed());
        list.push(" OFFSET ").bind(page.offset.cast_signed());
        let items = list.query().fetch_all(&self.readers).await?;
        let got = items.len() as u64;
        // A page that is not full is the last one, unless it lies behind the end.
        if got < page.limit && (got > 0 || page.offset == 0) {
            let total = page.offset + got;
            return Ok(Listing { items, total });
        }
        let count = from.behind("SELECT COUNT(*)");
        let row = count.query().fetch_one(&self.readers).await?;
        let total = number(&row, 0)?;
        Ok(Listing { items, total })
    }
}

fn select<I: Tables>() -> Statement {
    Statement::new(format!("SELECT {COLUMNS} FROM {}", I::GROUPS))
}

fn updated<I: Tables>(update: Update) -> Statement {
    let mut change = Statement::new("UPDATE ");
    change.push(I::GROUPS);
    change
        .push(" SET updated_at = ")
        .bind(update.at.0.cast_signed());
    change.push(", updated_by = ").bind(update.by.as_bytes());
    change
}

/// Which lists make up what is asked for.
fn parts<I: Tables>(filter: &GroupFilter<I>) -> Vec<Part> {
    let mut parts = Vec::new();
    for status in lists::statuses(filter.status) {
        let mut part = Part::new(I::KIND, *status);
        if let Some(name) = &filter.name {
            part = part.by(By::Name(name));
        }
        if let Some(owner) = &filter.owner {
            part = part.by(By::Owner(owner.as_bytes()));
        }
        if let Some(parent) = &filter.parent {
            part = part.by(By::Parent(parent.as_bytes()));
        }
        if let Some(tree) = &filter.tree {
            part = part.among(within(tree));
        }
        if let Some(subject) = filter.subject {
            let mut of_subject = Statement::new("SELECT object FROM ");
            of_subject.push(I::POLICIES).push(" WHERE subject = ");
            of_subject.bind(subject.as_bytes()).push(" AND is_user = ");
            of_subject.bind(flag(subject.is_user()));
            part = part.among(of_subject);
        }
        if let Some(wanted) = &filter.metadata {
            part = part.containing(wanted);
        }
        match filter.seen {
            Some(seen) => parts.extend(seen_by::<I>(seen, part)),
            None => parts.push(part),
        }
    }
    parts
}

fn within<I: Tables>(tree: &Tree<I>) -> Statement {
    let around = tree.around.path();
    let mut which = Statement::new("SELECT id FROM ");
    which.push(I::GROUPS);
    match tree.direction {
        Direction::Parents => {
            let levels = tree.levels.unwrap_or(around.len()).saturating_add(1);
            let ids = around.iter().rev().take(levels);
            let ids: Vec<[u8; 16]> = ids.map(|id| *id.as_bytes()).collect();
            which.push(" WHERE id IN (").bind_all(&ids).push(")");
        }
        Direction::Children => {
            let first = path(&around);
            let behind = successor(&first);
            which.push(" WHERE path >= ").bind(first);
            if let Some(behind) = behind {
                which.push(" AND path < ").bind(behind);
            }
            if let Some(levels) = tree.levels {
                let longest = around.len().saturating_add(levels).saturating_mul(16);
                which
                    .push(" AND LENGTH(path) <= ")
                    .bind(i64::try_from(longest).unwrap_or(i64::MAX));
            }
        }
    }
    which
}

fn seen_by<I: Tables>(seen: Seen, part: Part) -> Vec<Part> {
    let own = By::Owner(seen.by.as_bytes());
    match seen.visibility {
        Visibility::Mine => vec![part.by(own)],
        Visibility::Shared => vec![part.among(shared_with::<I>(seen.by))],
        Visibility::All => vec![
            part.clone().by(own),
            part.not_by(own).among(shared_with::<I>(seen.by)),
        ],
    }
}

fn shared_with<I: Tables>(user: UserId) -> Statement {
    let mut which = Statement::new("SELECT object FROM ");
    which.push(I::POLICIES);
    which.push(" WHERE subject = ").bind(user.as_bytes());
    let list = Action::GroupList.allowed_by().bits();
    which
        .push(" AND is_user = 1 AND (actions & ")
        .bind(i64::from(list));
    which.push(") <> 0");
    which
}

fn path<I: GroupKey>(ids: &[I]) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// The first text of bytes that comes behind all that begin with these; `None` if there is none.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = bytes[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

pub(crate) fn group<I: Tables>(row: &AnyRow) -> Result<Group<I>, sqlx::Error> {
    let path: &[u8] = row.try_get(2)?;
    let (ids, _) = path.as_chunks::<16>();
    let ancestors = ids.iter().copied().map(I::from_bytes);
    Ok(Group {
        id: I::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        ancestors: ancestors.take(ids.len().saturating_sub(1)).collect(),
        name: row.try_get(3)?,
        description: row.try_get(4)?,
        metadata: from_json(row, 5)?,
        status: status(row, 6)?,
        created_at: moment(row, 7)?,
        update: update(row, 8)?,
    })
}

/// Of the columns `updated_at` and `updated_by`, which stand side by side.
pub(crate) fn update(row: &AnyRow, column: usize) -> Result<Option<Update>, sqlx::Error> {
    let at = optional_moment(row, column)?;
    let by = optional_id(row, column + 1)?.map(UserId::from_bytes);
    Ok(at.zip(by).map(|(at, by)| Update { at, by }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_path_lies_between_it_and_its_successor() {
        for (bytes, next) in [
            (&[1, 2][..], Some(&[1, 3][..])),
            (&[1, 255], Some(&[2])),
            (&[1, 255, 255], Some(&[2])),
            (&[255, 255], None),
            (&[], None),
        ] {
            assert_eq!(successor(bytes).as_deref(), next);
        }
    }
}
