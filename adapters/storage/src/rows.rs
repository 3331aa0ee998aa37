//! How values are written in columns, the same in SQLite and PostgreSQL.
//!
//! Ids are 16 bytes, yes and no are 1 and 0, moments are nanoseconds since the Unix epoch, lists and metadata
//! are JSON.

use rollcall_domain::entity::Status;
use rollcall_domain::identity::{KeyHash, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

pub(crate) fn id(row: &AnyRow, column: usize) -> Result<[u8; 16], sqlx::Error> {
    sixteen(row.try_get(column)?)
}

pub(crate) fn optional_id(row: &AnyRow, column: usize) -> Result<Option<[u8; 16]>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(sixteen).transpose()
}

fn sixteen(bytes: &[u8]) -> Result<[u8; 16], sqlx::Error> {
    bytes
        .try_into()
        .map_err(|_| sqlx::Error::Decode("an id has 16 bytes".into()))
}

pub(crate) fn hash(row: &AnyRow, column: usize) -> Result<KeyHash, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| sqlx::Error::Decode("a hash has 32 bytes".into()))?;
    Ok(KeyHash::from_bytes(bytes))
}

/// To be bound: the databases have no type of their own for it in common.
pub(crate) fn flag(is_set: bool) -> i64 {
    is_set.into()
}

pub(crate) fn is_set(row: &AnyRow, column: usize) -> Result<bool, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|flag| flag != 0)
}

pub(crate) fn status(row: &AnyRow, column: usize) -> Result<Status, sqlx::Error> {
    Ok(match is_set(row, column)? {
        true => Status::Enabled,
        false => Status::Disabled,
    })
}

pub(crate) fn moment(row: &AnyRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    number(row, column).map(Timestamp)
}

pub(crate) fn optional_moment(
    row: &AnyRow,
    column: usize,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<i64> = row.try_get(column)?;
    Ok(at.map(|at| Timestamp(at.cast_unsigned())))
}

pub(crate) fn number(row: &AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("invariant: JSON keys are text")
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    row: &AnyRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
