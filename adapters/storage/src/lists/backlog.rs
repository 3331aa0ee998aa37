//! Lists of what was made before there were any.

use rollcall_domain::groups::Group;
use rollcall_domain::identity::{ChannelId, GroupId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection};

use super::{Entity, Span, entries};
use crate::groups::{self, Tables};
use crate::metadata::Kind;
use crate::rows::id;
use crate::statement::Statement;
use crate::{things, users};

/// Put into lists in one transaction.
const STEP: i64 = 2_000;

/// Puts into lists what is in none.
pub(crate) async fn work_off(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for kind in [Kind::User, Kind::Group, Kind::Thing, Kind::Channel] {
        while step(connection, kind).await? {}
    }
    Ok(())
}

/// Tells whether there may be more.
async fn step(connection: &mut AnyConnection, kind: Kind) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut oldest = Statement::new("SELECT entity FROM list_backlog WHERE kind = ");
    oldest.bind(kind.as_str());
    oldest
        .push(" ORDER BY created_at, entity LIMIT ")
        .bind(STEP);
    let mut delete = Statement::new("DELETE FROM list_backlog WHERE kind = ");
    delete.bind(kind.as_str());
    delete.push(" AND entity IN (").append(&oldest);
    delete.push(") RETURNING entity");
    // Another process may be at it, too: who removes an entry has it.
    let rows = delete.query().fetch_all(&mut *transaction).await?;
    let ids: Vec<[u8; 16]> = rows
        .iter()
        .map(|row| id(row, 0))
        .collect::<Result<_, _>>()?;
    for ids in ids.chunks(256) {
        let columns = match kind {
            Kind::User => users::COLUMNS,
            Kind::Group | Kind::Channel => groups::COLUMNS,
            Kind::Thing => things::COLUMNS,
        };
        let mut query = Statement::new(format!("SELECT {columns} FROM {}", kind.table()));
        query.push(" WHERE id IN (").bind_all(ids).push(")");
        let rows = query.query().fetch_all(&mut *transaction).await?;
        match kind {
            Kind::User => add(&mut transaction, &rows, users::user).await?,
            Kind::Group => add(&mut transaction, &rows, group::<GroupId>).await?,
            Kind::Thing => add(&mut transaction, &rows, things::thing).await?,
            Kind::Channel => add(&mut transaction, &rows, group::<ChannelId>).await?,
        }
    }
    let left = sqlx::query("SELECT 1 FROM list_backlog WHERE kind = $1 LIMIT 1")
        .bind(kind.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(left.is_some())
}

fn group<I: Tables>(row: &AnyRow) -> Result<Group<I>, sqlx::Error> {
    groups::group(row)
}

async fn add<T>(
    connection: &mut AnyConnection,
    rows: &[AnyRow],
    read: fn(&AnyRow) -> Result<T, sqlx::Error>,
) -> Result<(), sqlx::Error>
where
    for<'a> Entity<'a>: From<&'a T>,
{
    let all: Vec<T> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let entities: Vec<Entity<'_>> = all.iter().map(Entity::from).collect();
    entries::add(connection, Span::default(), &entities).await
}
