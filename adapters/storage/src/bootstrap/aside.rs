//! Entries that were set aside.

use rollcall_domain::bootstrap::{Heard, MAX_SET_ASIDE, SetAside};
use rollcall_domain::event::Field;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::ports::StoreError;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::{Database, failed};
use crate::rows::{from_json, json, moment};
use crate::statement::Statement;

const COLUMNS: &str = "SELECT source, id, reason, fields, at";

pub(super) async fn keep(
    connection: &mut AnyConnection,
    heard: &Heard,
    reason: &str,
    fields: &[Field],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO set_aside (source, id, reason, fields, at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (source, id) DO NOTHING",
    )
    .bind(heard.source.as_str())
    .bind(heard.id.as_str())
    .bind(reason)
    .bind(json(&fields))
    .bind(Timestamp::now().0.cast_signed())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM set_aside WHERE at <= (SELECT at FROM set_aside
         ORDER BY at DESC LIMIT 1 OFFSET $1)",
    )
    .bind(MAX_SET_ASIDE as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// `false` if it is not there.
pub(super) async fn take(
    connection: &mut AnyConnection,
    heard: &Heard,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query("DELETE FROM set_aside WHERE source = $1 AND id = $2")
        .bind(heard.source.as_str())
        .bind(heard.id.as_str())
        .execute(connection)
        .await?;
    Ok(taken.rows_affected() > 0)
}

pub(super) async fn list(database: &Database, page: Page) -> Result<Listing<SetAside>, StoreError> {
    let failed = failed("list what was set aside");
    let from = Statement::new(" FROM set_aside WHERE 1 = 1");
    let rows = database.page(COLUMNS, from, "at, source, id", page).await;
    let Listing { items, total } = rows.map_err(&failed)?;
    let items: Result<_, _> = items.iter().map(entry).collect();
    Ok(Listing {
        items: items.map_err(&failed)?,
        total,
    })
}

pub(super) async fn with_id(database: &Database, id: &str) -> Result<Vec<SetAside>, StoreError> {
    let failed = failed("read what was set aside");
    let mut read = Statement::new(COLUMNS);
    read.push(" FROM set_aside WHERE id = ").bind(id);
    let rows = read.query().fetch_all(&database.readers).await;
    let entries: Result<_, _> = rows.map_err(&failed)?.iter().map(entry).collect();
    entries.map_err(&failed)
}

fn entry(row: &AnyRow) -> Result<SetAside, sqlx::Error> {
    Ok(SetAside {
        source: row.try_get(0)?,
        id: row.try_get(1)?,
        reason: row.try_get(2)?,
        fields: from_json(row, 3)?,
        at: moment(row, 4)?,
    })
}
