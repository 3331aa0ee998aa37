//! Metadata, taken apart so that both databases find what contains something by an index.
//!
//! Each value is a row of `metadata_terms`: its path and itself. `{"a":[{"b":1}]}` is `a` = `[]`, `a.[]` = `{}` and
//! `a.[].b` = `1`, the last two at place `0.`. Something is contained if its values are there; those of one element
//! of a list must be in one element, that is, at places which begin as that of the element does.

use rollcall_domain::entity::Metadata;
use rollcall_domain::metadata::scalar;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

use crate::statement::{self, Statement};

/// What metadata is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
    Thing,
    Channel,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Thing => "thing",
            Self::Channel => "channel",
        }
    }
}

/// A longer path or value is known by its hash: an index does not take long ones.
const MAX_TEXT: usize = 160;
/// Of the backlog, in one transaction.
const STEP: i64 = 1_000;

struct Term {
    path: String,
    value: String,
    place: String,
}

/// Keeps the terms of an entity that has none yet.
pub(crate) async fn add_terms(
    connection: &mut AnyConnection,
    kind: Kind,
    entity: &[u8; 16],
    metadata: &Metadata,
) -> Result<(), sqlx::Error> {
    add(connection, kind.as_str(), entity, metadata).await
}

/// Keeps the terms of an entity in place of those it had.
pub(crate) async fn put_terms(
    connection: &mut AnyConnection,
    kind: Kind,
    entity: &[u8; 16],
    metadata: &Metadata,
) -> Result<(), sqlx::Error> {
    remove_terms(connection, kind, entity).await?;
    add_terms(connection, kind, entity, metadata).await
}

pub(crate) async fn remove_terms(
    connection: &mut AnyConnection,
    kind: Kind,
    entity: &[u8; 16],
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM metadata_terms WHERE entity = $1 AND kind = $2")
        .bind(entity.as_slice())
        .bind(kind.as_str())
        .execute(connection)
        .await
        .map(|_| ())
}

async fn add(
    connection: &mut AnyConnection,
    kind: &str,
    entity: &[u8],
    metadata: &Metadata,
) -> Result<(), sqlx::Error> {
    let rows = terms(metadata).into_iter().map(|term| {
        [
            kind.into(),
            entity.to_vec().into(),
            term.path.into(),
            term.value.into(),
            term.place.into(),
        ]
    });
    let insert = "INSERT INTO metadata_terms (kind, entity, path, value, place)";
    statement::insert(connection, insert, rows.collect()).await
}

/// Makes the terms of what was kept before there were any.
pub(crate) async fn work_off(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    use sqlx::Connection;
    loop {
        let mut transaction = connection.begin().await?;
        let rows = sqlx::query(
            "SELECT kind, entity, metadata FROM metadata_backlog ORDER BY kind, entity LIMIT $1",
        )
        .bind(STEP)
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            return transaction.rollback().await;
        }
        for row in rows {
            let kind: &str = row.try_get(0)?;
            let entity: &[u8] = row.try_get(1)?;
            let metadata: Metadata = crate::rows::from_json(&row, 2)?;
            // Another process may be at it, too: who removes the entry has it.
            let removed =
                sqlx::query("DELETE FROM metadata_backlog WHERE kind = $1 AND entity = $2")
                    .bind(kind)
                    .bind(entity)
                    .execute(&mut *transaction)
                    .await?;
            if removed.rows_affected() == 1 {
                add(&mut transaction, kind, entity, &metadata).await?;
            }
        }
        transaction.commit().await?;
    }
}

fn terms(metadata: &Metadata) -> Vec<Term> {
    let mut terms = Vec::new();
    for (name, value) in metadata {
        collect(&mut terms, &step("", name), value, "");
    }
    terms
}

fn collect(terms: &mut Vec<Term>, path: &str, value: &Value, place: &str) {
    terms.push(Term {
        path: short(path),
        value: text(value),
        place: place.to_owned(),
    });
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                collect(terms, &step(path, name), value, place);
            }
        }
        Value::Array(values) => {
            for (n, value) in values.iter().enumerate() {
                collect(terms, &element(path), value, &format!("{place}{n}."));
            }
        }
        _ => {}
    }
}

/// The path of an entry. Names are quoted as in JSON: none of them looks like two, or like an element.
fn step(path: &str, name: &str) -> String {
    format!("{path}.{}", Value::from(name))
}

fn element(path: &str) -> String {
    format!("{path}.[]")
}

fn text(value: &Value) -> String {
    match value {
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        value => short(&scalar(value).unwrap_or_default()),
    }
}

fn short(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let hash = Sha256::digest(text.as_bytes());
    let mut short = "#".to_owned();
    for byte in hash {
        short.push_str(&format!("{byte:02x}"));
    }
    short
}

/// A condition: the metadata of the entity whose id is in `column` contains `wanted`.
pub(crate) fn containing(kind: Kind, column: &'static str, wanted: &Metadata) -> Statement {
    let mut finder = Finder {
        kind,
        column,
        sql: Statement::default(),
        tables: 0,
    };
    let mut is_first = true;
    for (name, wanted) in wanted {
        finder.all(&mut is_first, &step("", name), wanted, None);
    }
    if is_first {
        // Everything contains nothing.
        finder.sql.push("1 = 1");
    }
    finder.sql
}

struct Finder {
    kind: Kind,
    column: &'static str,
    sql: Statement,
    tables: usize,
}

impl Finder {
    /// Adds conditions: `wanted` is at `path`, in the element of a list that the table `within` has found.
    fn all(&mut self, is_first: &mut bool, path: &str, wanted: &Value, within: Option<&str>) {
        match wanted {
            Value::Object(entries) if !entries.is_empty() => {
                for (name, wanted) in entries {
                    self.all(is_first, &step(path, name), wanted, within);
                }
            }
            Value::Array(values) if !values.is_empty() => {
                for wanted in values {
                    self.one(is_first, &element(path), wanted, within);
                }
            }
            leaf => self.one(is_first, path, leaf, within),
        }
    }

    /// Adds a condition: one value at `path` is `wanted`, or contains it.
    fn one(&mut self, is_first: &mut bool, path: &str, wanted: &Value, within: Option<&str>) {
        if !std::mem::replace(is_first, false) {
            self.sql.push(" AND ");
        }
        let table = format!("t{}", self.tables);
        self.tables += 1;
        let (kind, column) = (self.kind.as_str(), self.column);
        let found = format!("{table}.entity FROM metadata_terms AS {table} WHERE {table}");
        match within {
            // Found by the value: the other way round, all entities would have to be looked at.
            None => self.sql.push(column).push(" IN (SELECT ").push(&found),
            Some(_) => self.sql.push("EXISTS (SELECT ").push(&found),
        };
        self.sql.push(".kind = ").bind(kind);
        self.sql
            .push(&format!(" AND {table}.path = "))
            .bind(short(path));
        self.sql
            .push(&format!(" AND {table}.value = "))
            .bind(text(wanted));
        if let Some(within) = within {
            self.sql.push(&format!(
                " AND {table}.entity = {within}.entity
                 AND substr({table}.place, 1, length({within}.place)) = {within}.place"
            ));
        }
        match wanted {
            Value::Object(entries) => {
                for (name, wanted) in entries {
                    self.all(&mut false, &step(path, name), wanted, Some(&table));
                }
            }
            Value::Array(values) => {
                for wanted in values {
                    self.one(&mut false, &element(path), wanted, Some(&table));
                }
            }
            _ => {}
        }
        self.sql.push(")");
    }
}

#[cfg(test)]
mod tests {
    use rollcall_domain::metadata::contains;
    use sqlx::Connection;

    use super::*;

    const HELD: &[&str] = &[
        r#"{}"#,
        r#"{"a":1}"#,
        r#"{"a":{"b":1,"c":[1,2,"x",null,true]},"d":""}"#,
        r#"{"a":[{"x":1,"y":2},{"x":3}]}"#,
        r#"{"a":[{"x":1},{"y":2}]}"#,
        r#"{"a":[[1,2],[3]]}"#,
        r#"{"a":[{"p":[{"x":1,"y":1},{"x":2}]},{"p":[{"y":2}]}]}"#,
        r#"{"a.b":1,"[]":{"a":2}}"#,
        r#"{"a":{},"b":[]}"#,
        r#"{"a":1.0,"b":"1"}"#,
    ];
    const WANTED: &[&str] = &[
        r#"{}"#,
        r#"{"a":1}"#,
        r#"{"a":1.0}"#,
        r#"{"a":{}}"#,
        r#"{"a":[]}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":{"c":[true,1]}}"#,
        r#"{"a":{"c":[null]},"d":""}"#,
        r#"{"a":[{"x":1,"y":2}]}"#,
        r#"{"a":[{"x":1},{"y":2}]}"#,
        r#"{"a":[{}]}"#,
        r#"{"a":[[]]}"#,
        r#"{"a":[[1,2]]}"#,
        r#"{"a":[[1,3]]}"#,
        r#"{"a":[{"p":[{"x":1,"y":1}]}]}"#,
        r#"{"a":[{"p":[{"x":1,"y":2}]}]}"#,
        r#"{"a":[{"p":[{"x":1},{"x":2}]}]}"#,
        r#"{"a":[{"p":[{"x":1},{"y":2}]}]}"#,
        r#"{"a.b":1}"#,
        r#"{"[]":{"a":2}}"#,
        r#"{"b":"1"}"#,
        r#"{"b":[]}"#,
        r#"{"z":1}"#,
    ];

    #[tokio::test]
    async fn terms_find_what_contains_something_and_nothing_else() {
        let long = format!(r#"{{"{}":"{}"}}"#, "name".repeat(100), "text".repeat(1000));
        let other = format!(r#"{{"{}":"{}"}}"#, "name".repeat(100), "text".repeat(1001));
        let held: Vec<&str> = HELD.iter().copied().chain([&*long, &*other]).collect();
        let wanted: Vec<&str> = WANTED.iter().copied().chain([&*long, &*other]).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("terms.db");
        std::fs::File::create(&path).expect("a file");
        crate::sqlite::migrate(&path).await.expect("tables");
        let pool = crate::sqlite::writer(&path).await.expect("opens");
        let mut database = pool.acquire().await.expect("one");
        sqlx::query("CREATE TABLE held (id BLOB)")
            .execute(&mut *database)
            .await
            .expect("made");
        let parse = |text: &&str| serde_json::from_str::<Metadata>(text).expect("an object");
        for (n, held) in held.iter().enumerate() {
            let id = [n as u8; 16];
            let keep = sqlx::query("INSERT INTO held VALUES ($1)").bind(id.to_vec());
            keep.execute(&mut *database).await.expect("kept");
            // Another kind has the same ids, and other metadata.
            let none = parse(&r#"{"z":1}"#);
            let mut transaction = database.begin().await.expect("begins");
            put_terms(&mut transaction, Kind::Thing, &id, &none)
                .await
                .expect("kept");
            put_terms(&mut transaction, Kind::Thing, &id, &parse(held))
                .await
                .expect("kept");
            add_terms(&mut transaction, Kind::User, &id, &none)
                .await
                .expect("kept");
            transaction.commit().await.expect("kept");
        }
        for wanted in &wanted {
            let mut sql = Statement::new("SELECT id FROM held WHERE ");
            sql.append(&containing(Kind::Thing, "held.id", &parse(wanted)));
            sql.push(" ORDER BY id");
            let rows = sql.query().fetch_all(&mut *database).await.expect("found");
            let found = rows.iter().map(|row| row.get::<&[u8], _>(0)[0] as usize);
            let expected = (0..held.len()).filter(|n| contains(&parse(&held[*n]), &parse(wanted)));
            assert_eq!(
                found.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>(),
                "{wanted}"
            );
        }
    }
}
