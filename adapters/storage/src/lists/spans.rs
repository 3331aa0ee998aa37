//! How many entries long lists have, from one moment to the next.
//!
//! A list that gets longer than one span may have is cut into spans, and then counted with every change; so is a span
//! that gets too long itself. Lists that are not yet cut are short, or soon cut: which of them have grown is looked
//! at now and then. Only who has the turn counts.

use std::collections::{BTreeMap, HashMap};

use sqlx::{AnyConnection, Row};

use super::List;
use crate::rows::id;
use crate::statement::{self, Statement};

/// How many entries a span may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) i64);

impl Default for Span {
    fn default() -> Self {
        // Read in less than a millisecond; a million entries are in a few hundred spans.
        Self(4_096)
    }
}

/// So many lists are looked up with one statement.
const STEPS: [usize; 3] = [64, 8, 1];
/// A short list is looked at with one in so many of the entries that fill a span.
const LOOKS: i64 = 64;

/// An entry more or less.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) list: List,
    pub(super) at: i64,
    pub(super) by: i64,
}

/// Counts what was done to lists.
pub(super) async fn count(
    connection: &mut AnyConnection,
    span: Span,
    changes: Vec<Change>,
) -> Result<(), sqlx::Error> {
    let mut lists: BTreeMap<List, Vec<Change>> = BTreeMap::new();
    for change in changes {
        lists.entry(change.list).or_default().push(change);
    }
    let spans = spans(connection, &lists).await?;
    let mut more: BTreeMap<(List, i64), i64> = BTreeMap::new();
    let mut grown = Vec::new();
    for (list, changes) in lists {
        let Some(firsts) = spans.get(&list) else {
            if is_due(span, &changes) {
                grown.push(list);
            }
            continue;
        };
        for change in changes {
            let behind = firsts.partition_point(|first| *first <= change.at);
            let first = firsts[behind.saturating_sub(1)];
            *more.entry((list, first)).or_default() += change.by;
        }
    }
    let rows = more.into_iter().filter(|(_, more)| *more != 0);
    let rows = rows.map(|((list, first), more)| [(&list.0).into(), first.into(), more.into()]);
    let behind = " ON CONFLICT (list, first_at) DO UPDATE SET entries = list_spans.entries + excluded.entries
         RETURNING list, first_at, entries";
    for row in statement::put(connection, INSERT, rows.collect(), behind).await? {
        let (list, first): (_, i64) = (List(id(&row, 0)?), row.try_get(1)?);
        let entries: i64 = row.try_get(2)?;
        if entries > span.0 {
            cut(connection, span, list, first, entries).await?;
        } else if entries == 0 && first != i64::MIN {
            forget(connection, list, first).await?;
        }
    }
    for list in grown {
        begin(connection, span, list).await?;
    }
    Ok(())
}

const INSERT: &str = "INSERT INTO list_spans (list, first_at, entries)";

/// Whether a list that is not counted may have become long.
fn is_due(span: Span, changes: &[Change]) -> bool {
    let more: i64 = changes.iter().map(|change| change.by).sum();
    let chance = more.saturating_mul(LOOKS);
    let any = changes.first().map_or(0, |it| {
        let (half, _) = it.list.0.split_at(8);
        let half = half.iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
        (half ^ it.at.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed())).rem_euclid(span.0)
    });
    any < chance
}

/// Where the spans begin that these changes may be in. Lists that are not there are not counted.
async fn spans(
    connection: &mut AnyConnection,
    lists: &BTreeMap<List, Vec<Change>>,
) -> Result<HashMap<List, Vec<i64>>, sqlx::Error> {
    let moments = |changes: &[Change]| {
        let at = || changes.iter().map(|change| change.at);
        (at().min().unwrap_or(0), at().max().unwrap_or(0))
    };
    let mut wanted: Vec<(List, (i64, i64))> = lists
        .iter()
        .map(|(list, changes)| (*list, moments(changes)))
        .collect();
    let mut spans: HashMap<List, Vec<i64>> = HashMap::new();
    while !wanted.is_empty() {
        let step = STEPS.into_iter().find(|step| *step <= wanted.len());
        let rest = wanted.split_off(step.expect("invariant: one list at least"));
        let mut query = Statement::new("WITH wanted (list, low, high) AS (VALUES ");
        for (n, (list, (low, high))) in std::mem::replace(&mut wanted, rest).iter().enumerate() {
            query.push(if n == 0 { "(" } else { ", (" }).bind(&list.0);
            query.push(", ").bind(*low);
            query.push(", ").bind(*high).push(")");
        }
        query.push(
            ") SELECT spans.list, spans.first_at FROM wanted CROSS JOIN list_spans AS spans
             WHERE spans.list = wanted.list AND spans.first_at <= wanted.high AND spans.first_at >=
             (SELECT MAX(first_at) FROM list_spans AS lowest
              WHERE lowest.list = wanted.list AND lowest.first_at <= wanted.low)",
        );
        for row in query.query().fetch_all(&mut *connection).await? {
            let firsts = spans.entry(List(id(&row, 0)?)).or_default();
            firsts.push(row.try_get(1)?);
        }
    }
    for firsts in spans.values_mut() {
        firsts.sort_unstable();
    }
    Ok(spans)
}

/// Counts a list from now on, if it is long enough.
async fn begin(connection: &mut AnyConnection, span: Span, list: List) -> Result<(), sqlx::Error> {
    let whole = Range {
        list,
        first: i64::MIN,
        end: None,
    };
    if whole.at(connection, span.0).await?.is_none() {
        return Ok(());
    }
    let entries = whole.count(connection).await?;
    keep(connection, list, i64::MIN, entries).await?;
    cut(connection, span, list, i64::MIN, entries).await
}

/// Makes several spans of one that has too many entries. What was made at one moment stays together.
async fn cut(
    connection: &mut AnyConnection,
    span: Span,
    list: List,
    first: i64,
    entries: i64,
) -> Result<(), sqlx::Error> {
    let end = sqlx::query_scalar(
        "SELECT MIN(first_at) FROM list_spans WHERE list = $1 AND first_at > $2",
    )
    .bind(list.0.as_slice())
    .bind(first)
    .fetch_one(&mut *connection)
    .await?;
    let mut rest = Range { list, first, end };
    let mut left = entries;
    while left > span.0 {
        let Some(mut at) = rest.at(connection, span.0 / 2).await? else {
            break;
        };
        let piece = |end| Range {
            end: Some(end),
            ..rest
        };
        let mut entries = piece(at).count(connection).await?;
        if entries == 0 {
            let Some(later) = rest.behind(connection, at).await? else {
                break;
            };
            at = later;
            entries = piece(at).count(connection).await?;
        }
        keep(connection, list, rest.first, entries).await?;
        rest.first = at;
        left -= entries;
    }
    keep(connection, list, rest.first, left).await
}

async fn keep(
    connection: &mut AnyConnection,
    list: List,
    first: i64,
    entries: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO list_spans (list, first_at, entries) VALUES ($1, $2, $3)
         ON CONFLICT (list, first_at) DO UPDATE SET entries = excluded.entries",
    )
    .bind(list.0.as_slice())
    .bind(first)
    .bind(entries)
    .execute(connection)
    .await
    .map(|_| ())
}

/// An empty span is part of the one before it.
async fn forget(connection: &mut AnyConnection, list: List, first: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM list_spans WHERE list = $1 AND first_at = $2")
        .bind(list.0.as_slice())
        .bind(first)
        .execute(connection)
        .await
        .map(|_| ())
}

/// Entries of a list from one moment to before another.
#[derive(Clone, Copy)]
struct Range {
    list: List,
    first: i64,
    end: Option<i64>,
}

impl Range {
    fn of(&self, query: &mut Statement) {
        query.push(" FROM listed WHERE list = ").bind(&self.list.0);
        query.push(" AND created_at >= ").bind(self.first);
        if let Some(end) = self.end {
            query.push(" AND created_at < ").bind(end);
        }
    }

    async fn count(&self, connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
        let mut query = Statement::new("SELECT COUNT(*)");
        self.of(&mut query);
        query.query().fetch_one(connection).await?.try_get(0)
    }

    /// When the entry behind so many others was made.
    async fn at(
        &self,
        connection: &mut AnyConnection,
        others: i64,
    ) -> Result<Option<i64>, sqlx::Error> {
        let mut query = Statement::new("SELECT created_at");
        self.of(&mut query);
        query.push(" ORDER BY created_at, entity LIMIT 1 OFFSET ");
        query.bind(others);
        let row = query.query().fetch_optional(connection).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// The first moment after `at` at which something was made.
    async fn behind(
        &self,
        connection: &mut AnyConnection,
        at: i64,
    ) -> Result<Option<i64>, sqlx::Error> {
        let mut query = Statement::new("SELECT MIN(created_at)");
        self.of(&mut query);
        query.push(" AND created_at > ").bind(at);
        query.query().fetch_one(connection).await?.try_get(0)
    }
}
