//! SQL that is put together from parts, with what is bound in them.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

/// The text is made from parts of this crate alone; whatever comes from elsewhere is bound.
#[derive(Clone, Default)]
pub(crate) struct Statement {
    text: String,
    values: Vec<Value>,
}

#[derive(Clone)]
pub(crate) enum Value {
    Bytes(Vec<u8>),
    /// Bytes, of which there are none.
    Null,
    Text(String),
    Number(i64),
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        bytes.map_or(Self::Null, Self::Bytes)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8; 16]> for Value {
    fn from(bytes: &[u8; 16]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl Statement {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            values: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Writes a placeholder, which stands for `value`.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let number = self.values.len().to_string();
        self.push("$").push(&number)
    }

    /// Writes placeholders for ids, of which there is one at least.
    pub(crate) fn bind_all(&mut self, ids: &[[u8; 16]]) -> &mut Self {
        for (n, id) in ids.iter().enumerate() {
            self.push(if n == 0 { "" } else { ", " }).bind(id);
        }
        self
    }

    /// Adds another one behind this, with what is bound in it.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        let mut parts = other.text.split('$');
        self.push(parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find(|it: char| !it.is_ascii_digit());
            let (number, rest) = part.split_at(end.unwrap_or(part.len()));
            let number: usize = number.parse().expect("invariant: a placeholder");
            self.bind(other.values[number - 1].clone()).push(rest);
        }
        self
    }

    /// With text before what is there, which has no placeholders.
    pub(crate) fn behind(mut self, before: &str) -> Self {
        self.text.insert_str(0, before);
        self
    }

    pub(crate) fn query(self) -> Query<'static, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(self.text));
        self.values
            .into_iter()
            .fold(query, |query, value| match value {
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Null => query.bind(None::<Vec<u8>>),
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            })
    }
}

/// Rows of one statement: few different numbers, so that few statements have to be known to the database.
const STEPS: [usize; 4] = [256, 64, 8, 1];

/// Inserts rows, many with one statement. `insert` is what comes before VALUES.
pub(crate) async fn insert<const COLUMNS: usize>(
    connection: &mut AnyConnection,
    insert: &str,
    rows: Vec<[Value; COLUMNS]>,
) -> Result<(), sqlx::Error> {
    put(connection, insert, rows, "").await.map(|_| ())
}

/// Inserts rows, and returns what `behind`, which comes after VALUES, says of them.
pub(crate) async fn put<const COLUMNS: usize>(
    connection: &mut AnyConnection,
    insert: &str,
    rows: Vec<[Value; COLUMNS]>,
    behind: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut returned = Vec::new();
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        let step = STEPS.into_iter().find(|step| *step <= rows.len());
        let mut statement = Statement::new(insert);
        for (n, row) in rows.by_ref().take(step.unwrap_or(1)).enumerate() {
            statement.push(if n == 0 { " VALUES (" } else { ", (" });
            for (n, value) in row.into_iter().enumerate() {
                statement.push(if n == 0 { "" } else { ", " }).bind(value);
            }
            statement.push(")");
        }
        statement.push(behind);
        returned.extend(statement.query().fetch_all(&mut *connection).await?);
    }
    Ok(returned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_a_part_are_numbered_anew() {
        let mut part = Statement::new("b = ");
        part.bind(1).push(" OR c = ").bind("x").push(" OR d > 0");
        let mut whole = Statement::new("a = ");
        whole.bind(7).push(" AND (").append(&part);
        whole.push(") AND e = ").bind(2);
        assert_eq!(
            whole.text,
            "a = $1 AND (b = $2 OR c = $3 OR d > 0) AND e = $4"
        );
    }
}
