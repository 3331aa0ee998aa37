//! Metadata, taken apart so that both databases find what contains something by an index.
//!
//! Each value is a term: its path and itself. `{"a":[{"b":1}]}` is `a` = `[]`, `a.[]` = `{}` and `a.[].b` = `1`, the last
//! two at place `0.`. Something is contained if its values are there: there is a list of each ([`crate::lists`]).
//! Those of one element of a list must be in one element, that is, at places which begin as that of the element
//! does: terms of such elements are kept in `metadata_terms`, too.

use rollcall_domain::entity::Metadata;
use rollcall_domain::metadata::scalar;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;

use crate::statement::{self, Statement};

/// What metadata is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
    Thing,
    Channel,
}

/// Where it says who is a member of which group.
pub(crate) struct Policies {
    pub(crate) table: &'static str,
    /// What `is_user` is of such members.
    pub(crate) is_user: &'static str,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Thing => "thing",
            Self::Channel => "channel",
        }
    }

    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Group => "groups",
            Self::Thing => "things",
            Self::Channel => "channels",
        }
    }

    /// Of those that can be members of groups.
    pub(crate) const fn policies(self) -> Option<Policies> {
        let (table, is_user) = match self {
            Self::User => ("user_policies", "1"),
            Self::Thing => ("thing_policies", "0"),
            Self::Group | Self::Channel => return None,
        };
        Some(Policies { table, is_user })
    }
}

/// A longer path or value is known by its hash: an index does not take long ones.
const MAX_TEXT: usize = 160;

pub(crate) struct Term {
    pub(crate) path: String,
    pub(crate) value: String,
    place: String,
    /// In, or itself, an element that holds others.
    is_nested: bool,
    /// Holds none.
    is_leaf: bool,
}

/// Keeps the terms of an entity that has none yet.
pub(crate) async fn add_terms(
    connection: &mut AnyConnection,
    kind: Kind,
    entity: &[u8; 16],
    metadata: &Metadata,
) -> Result<(), sqlx::Error> {
    let terms = terms(metadata).into_iter();
    let rows = terms.filter(|term| term.is_nested).map(|term| {
        [
            kind.as_str().into(),
            entity.into(),
            term.path.into(),
            term.value.into(),
            term.place.into(),
        ]
    });
    let insert = "INSERT INTO metadata_terms (kind, entity, path, value, place)";
    statement::insert(connection, insert, rows.collect()).await
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

async fn remove_terms(
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

pub(crate) fn terms(metadata: &Metadata) -> Vec<Term> {
    let mut terms = Vec::new();
    for (name, value) in metadata {
        collect(&mut terms, &step("", name), value, "", false);
    }
    terms
}

fn collect(terms: &mut Vec<Term>, path: &str, value: &Value, place: &str, is_nested: bool) {
    terms.push(Term {
        path: short(path),
        value: text(value),
        place: place.to_owned(),
        is_nested,
        is_leaf: match value {
            Value::Object(entries) => entries.is_empty(),
            Value::Array(values) => values.is_empty(),
            _ => true,
        },
    });
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                collect(terms, &step(path, name), value, place, is_nested);
            }
        }
        Value::Array(values) => {
            for (n, value) in values.iter().enumerate() {
                let place = format!("{place}{n}.");
                let is_nested = is_nested || holds(value);
                collect(terms, &element(path), value, &place, is_nested);
            }
        }
        _ => {}
    }
}

fn holds(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Terms without which nothing contains `wanted`.
pub(crate) fn leaves(wanted: &Metadata) -> Vec<Term> {
    let mut terms = terms(wanted);
    // What holds others is there if they are.
    terms.retain(|term| term.is_leaf);
    terms
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

/// Queries of the ids of entities whose metadata has an element that contains an element of `wanted`: one for each
/// that holds others. Of all else, [`leaves`] tell.
pub(crate) fn nested(kind: Kind, wanted: &Metadata) -> Vec<Statement> {
    let mut queries = Vec::new();
    for (name, wanted) in wanted {
        find(&mut queries, kind, &step("", name), wanted);
    }
    queries
}

fn find(queries: &mut Vec<Statement>, kind: Kind, path: &str, wanted: &Value) {
    match wanted {
        Value::Object(entries) => {
            for (name, wanted) in entries {
                find(queries, kind, &step(path, name), wanted);
            }
        }
        Value::Array(values) => {
            for wanted in values.iter().filter(|value| holds(value)) {
                let mut finder = Finder {
                    kind,
                    sql: Statement::default(),
                    tables: 0,
                };
                finder.one(&element(path), wanted, None);
                queries.push(finder.sql);
            }
        }
        _ => {}
    }
}

struct Finder {
    kind: Kind,
    sql: Statement,
    tables: usize,
}

impl Finder {
    /// Adds conditions: `wanted` is at `path`, in the element of a list that the table `within` has found.
    fn all(&mut self, path: &str, wanted: &Value, within: &str) {
        match wanted {
            Value::Object(entries) if !entries.is_empty() => {
                for (name, wanted) in entries {
                    self.all(&step(path, name), wanted, within);
                }
            }
            Value::Array(values) if !values.is_empty() => {
                for wanted in values {
                    self.some(&element(path), wanted, within);
                }
            }
            leaf => self.some(path, leaf, within),
        }
    }

    /// Adds a condition: in that element, one value at `path` is `wanted`, or contains it.
    fn some(&mut self, path: &str, wanted: &Value, within: &str) {
        self.sql.push(" AND EXISTS (");
        self.one(path, wanted, Some(within));
        self.sql.push(")");
    }

    /// Adds a query: of entities in which one value at `path` is `wanted`, or contains it.
    fn one(&mut self, path: &str, wanted: &Value, within: Option<&str>) {
        let table = format!("t{}", self.tables);
        self.tables += 1;
        let select = format!("SELECT {table}.entity FROM metadata_terms AS {table} WHERE {table}");
        self.sql
            .push(&select)
            .push(".kind = ")
            .bind(self.kind.as_str());
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
                    self.all(&step(path, name), wanted, &table);
                }
            }
            Value::Array(values) => {
                for wanted in values {
                    self.some(&element(path), wanted, &table);
                }
            }
            _ => {}
        }
    }
}
