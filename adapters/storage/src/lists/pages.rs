//! Pages of lists, and how long lists are.

use std::collections::HashMap;

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::listing::{Listing, Page};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{By, List};
use crate::database::Database;
use crate::metadata::{self, Kind};
use crate::rows::{flag, id, number};
use crate::statement::Statement;

/// A page that is behind such a part of a span is looked for by the spans of its lists.
const NEAR: u64 = 8;

/// A part of what is asked for, which has nothing in common with other parts: those of one kind and status for
/// whom all of this holds.
#[derive(Clone)]
pub(crate) struct Part {
    kind: Kind,
    status: Status,
    /// They are in all of these lists.
    lists: Vec<List>,
    /// They are in none of these.
    none: Vec<List>,
    /// They are found by these queries of ids, which find few.
    among: Vec<Statement>,
    /// They are found by these queries of ids, too.
    also: Vec<Statement>,
    /// A list of what one of the lists and one of the others have in common.
    common: Option<Common>,
}

#[derive(Clone, Copy)]
struct Common {
    of: [List; 2],
    list: List,
}

impl Part {
    pub(crate) const fn new(kind: Kind, status: Status) -> Self {
        Self {
            kind,
            status,
            lists: Vec::new(),
            none: Vec::new(),
            among: Vec::new(),
            also: Vec::new(),
            common: None,
        }
    }

    pub(crate) fn list(&self, by: By<'_>) -> List {
        List::of(self.kind, self.status, by)
    }

    pub(crate) fn by(mut self, by: By<'_>) -> Self {
        let list = self.list(by);
        if !self.lists.contains(&list) {
            self.lists.push(list);
        }
        self
    }

    pub(crate) fn not_by(mut self, by: By<'_>) -> Self {
        self.none.push(self.list(by));
        self
    }

    /// They are members of a group, vouched for, and somebody else's.
    pub(crate) fn shared_in(self, of: &[u8; 16], owner: &[u8; 16]) -> Self {
        let vouched = true;
        let (members, owned) = (By::Membership { of, vouched }, By::Owner(owner));
        let common = Common {
            of: [self.list(members), self.list(owned)],
            list: self.list(By::OwnedMembership { of, owner }),
        };
        Self {
            common: Some(common),
            ..self.by(members).not_by(owned)
        }
    }

    pub(crate) fn among(mut self, ids: Statement) -> Self {
        self.among.push(ids);
        self
    }

    pub(crate) fn containing(mut self, wanted: &Metadata) -> Self {
        for term in metadata::leaves(wanted) {
            let (path, value) = (&*term.path, &*term.value);
            self = self.by(By::Value { path, value });
        }
        self.also.extend(metadata::nested(self.kind, wanted));
        self
    }

    /// All of the kind and status.
    fn all(&self) -> List {
        self.list(By::All)
    }

    /// With the shortest list first: the others are looked up for each entry of it. Those that have everything of
    /// the kind and status are not.
    fn shortest_first(mut self, sizes: &HashMap<List, Size>) -> Self {
        let all = size(sizes, &self.all()).entries;
        self.lists.retain(|list| size(sizes, list).entries != all);
        if self.lists.is_empty() && self.among.is_empty() {
            self = self.by(By::All);
        }
        self.lists.sort_by_key(|list| size(sizes, list).entries);
        self
    }

    /// The list that the part is, if it is one, and what of it is left out: a list too.
    fn difference(&self) -> Option<(List, Option<List>)> {
        if !self.among.is_empty() || !self.also.is_empty() {
            return None;
        }
        match (&self.lists[..], &self.none[..]) {
            ([list], []) => Some((*list, None)),
            ([list], [none]) => {
                let common = self.common.filter(|it| it.of == [*list, *none])?;
                Some((*list, Some(common.list)))
            }
            _ => None,
        }
    }

    /// `FROM` and `WHERE`: ids and moments are called `it.id` and `it.created_at`.
    fn select(&self, query: &mut Statement, from: Option<i64>) {
        let mut lists = &self.lists[..];
        let mut conditions = self.also.clone();
        match (self.among.split_first(), lists.split_first()) {
            (None, Some((first, others))) => {
                query.push(" FROM (SELECT created_at, entity AS id FROM listed WHERE list = ");
                query.bind(&first.0).push(") AS it WHERE 1 = 1");
                lists = others;
            }
            (among, _) => {
                query.push(" FROM ").push(self.kind.table());
                query.push(" AS it WHERE it.enabled = ");
                query.bind(flag(self.status == Status::Enabled));
                let (first, others) = among.expect("invariant: a list or a query");
                query.push(" AND it.id IN (").append(first).push(")");
                conditions.extend(others.iter().cloned());
            }
        }
        if let Some(from) = from {
            query.push(" AND it.created_at >= ").bind(from);
        }
        for (lists, exists) in [(lists, " AND EXISTS"), (&self.none, " AND NOT EXISTS")] {
            for list in lists {
                query.push(exists);
                query.push(" (SELECT 1 FROM listed AS other WHERE other.list = ");
                query.bind(&list.0);
                query.push(" AND other.created_at = it.created_at AND other.entity = it.id)");
            }
        }
        for ids in conditions {
            query.push(" AND it.id IN (").append(&ids).push(")");
        }
    }

    async fn count(
        &self,
        connection: &mut AnyConnection,
        sizes: &HashMap<List, Size>,
    ) -> Result<u64, sqlx::Error> {
        if let Some((list, left_out)) = self.difference() {
            let left_out = left_out.map_or(0, |list| size(sizes, &list).entries);
            return Ok(size(sizes, &list).entries.saturating_sub(left_out));
        }
        if self.lists.iter().any(|list| size(sizes, list).entries == 0) {
            return Ok(0);
        }
        // What is in one list and not in another: less is in both.
        let only_less = self.among.is_empty() && self.also.is_empty();
        if let ([list], [none], true) = (&self.lists[..], &self.none[..], only_less) {
            let both = Self {
                lists: vec![*list, *none],
                none: Vec::new(),
                ..self.clone()
            };
            let both = both.shortest_first(sizes);
            let common = Box::pin(both.count(connection, sizes)).await?;
            return Ok(size(sizes, list).entries.saturating_sub(common));
        }
        self.count_before(connection, None).await
    }

    /// How much of the part was made before a moment.
    async fn count_before(
        &self,
        connection: &mut AnyConnection,
        moment: Option<i64>,
    ) -> Result<u64, sqlx::Error> {
        let mut query = Statement::new("SELECT COUNT(*)");
        self.select(&mut query, None);
        if let Some(moment) = moment {
            query.push(" AND it.created_at < ").bind(moment);
        }
        number(&query.query().fetch_one(connection).await?, 0)
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) entries: u64,
    has_spans: bool,
}

fn size(sizes: &HashMap<List, Size>, list: &List) -> Size {
    sizes.get(list).copied().unwrap_or_default()
}

/// How long lists are; those without entries are not there.
pub(crate) async fn sizes(
    connection: &mut AnyConnection,
    lists: Vec<List>,
) -> Result<HashMap<List, Size>, sqlx::Error> {
    let mut lists: Vec<[u8; 16]> = lists.into_iter().map(|list| list.0).collect();
    lists.sort_unstable();
    lists.dedup();
    let mut sizes = HashMap::with_capacity(lists.len());
    for (select, has_spans) in [
        // What sums are of is not the same in all databases.
        (
            "SELECT list, CAST(SUM(entries) AS BIGINT) FROM list_spans",
            true,
        ),
        ("SELECT list, COUNT(*) FROM listed", false),
    ] {
        if lists.is_empty() {
            break;
        }
        let mut query = Statement::new(select);
        query.push(" WHERE list IN (").bind_all(&lists);
        query.push(") GROUP BY list");
        for row in query.query().fetch_all(&mut *connection).await? {
            let entries = number(&row, 1)?;
            sizes.insert(List(id(&row, 0)?), Size { entries, has_spans });
        }
        lists.retain(|list| !sizes.contains_key(&List(*list)));
    }
    Ok(sizes)
}

/// A page of what the parts have, and how much that is in all.
pub(crate) async fn page(
    database: &Database,
    columns: &str,
    parts: Vec<Part>,
    page: Page,
) -> Result<Listing<AnyRow>, sqlx::Error> {
    let mut connection = database.readers.acquire().await?;
    let mut lists = Vec::new();
    for part in &parts {
        lists.push(part.all());
        lists.extend_from_slice(&part.lists);
        lists.extend_from_slice(&part.none);
        lists.extend(part.common.map(|common| common.list));
    }
    let sizes = sizes(&mut connection, lists).await?;
    let mut counted: Vec<(Part, u64)> = Vec::with_capacity(parts.len());
    for part in parts {
        let part = part.shortest_first(&sizes);
        let count = part.count(&mut connection, &sizes).await?;
        if count > 0 {
            counted.push((part, count));
        }
    }
    let total = counted.iter().map(|(_, count)| count).sum();
    let limit = page.limit.min(total - page.offset.min(total));
    let mut items = Vec::new();
    if limit > 0 {
        let near = database.span.0.cast_unsigned() / NEAR;
        let start = match page.offset < near {
            true => Start::at(page.offset),
            false => start(&mut connection, &counted, &sizes, page.offset).await?,
        };
        let query = select(columns, &counted, &start, limit);
        items = query.query().fetch_all(&mut *connection).await?;
    }
    Ok(Listing { items, total })
}

/// Where to begin to look for a page.
struct Start {
    /// What was made earlier is before the page.
    from: Option<i64>,
    /// Of what was made since, so much is before the page.
    skipped: u64,
}

impl Start {
    const fn at(offset: u64) -> Self {
        Self {
            from: None,
            skipped: offset,
        }
    }
}

async fn start(
    connection: &mut AnyConnection,
    parts: &[(Part, u64)],
    sizes: &HashMap<List, Size>,
    offset: u64,
) -> Result<Start, sqlx::Error> {
    let with_spans = |part: &Part| {
        let difference = part.difference();
        difference.filter(|(list, _)| size(sizes, list).has_spans)
    };
    let (mut lists, mut left_out, mut others) = (Vec::new(), Vec::new(), 0);
    for (part, count) in parts {
        match with_spans(part) {
            Some((list, less)) => {
                lists.push(list.0);
                left_out.extend(less.map(|list| list.0));
            }
            None => others += count,
        }
    }
    // Of the other parts, all may be before the page.
    let offset_of_lists = offset.saturating_sub(others);
    if lists.is_empty() || offset_of_lists == 0 {
        return Ok(Start::at(offset));
    }
    let Some(from) = last_step(connection, &lists, &left_out, offset_of_lists).await? else {
        return Ok(Start::at(offset));
    };
    let mut before = 0;
    for (part, _) in parts {
        before += match with_spans(part) {
            Some((list, left_out)) => {
                let mut entries = counted_before(connection, sizes, list, from).await?;
                if let Some(list) = left_out {
                    let less = counted_before(connection, sizes, list, from).await?;
                    entries = entries.saturating_sub(less);
                }
                entries
            }
            None => part.count_before(connection, Some(from)).await?,
        };
    }
    Ok(match before <= offset {
        true => Start {
            from: Some(from),
            skipped: offset - before,
        },
        // Something was made, or moved, meanwhile.
        false => Start::at(offset),
    })
}

/// The last moment at which a span begins, or one of what is left out ends, with surely no more than so many entries
/// before it: of the lists, all spans that begin earlier; less what is left out in spans that have ended.
async fn last_step(
    connection: &mut AnyConnection,
    lists: &[[u8; 16]],
    left_out: &[[u8; 16]],
    entries: u64,
) -> Result<Option<i64>, sqlx::Error> {
    let mut query = Statement::new(
        "SELECT MAX(moment) FROM (SELECT moment, CAST(COALESCE(SUM(SUM(more)) OVER
         (ORDER BY moment ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS BIGINT) AS earlier
         FROM (SELECT first_at AS moment, entries AS more FROM list_spans WHERE list IN (",
    );
    query.bind_all(lists).push(")");
    if !left_out.is_empty() {
        query.push(
            " UNION ALL SELECT moment, -entries FROM (SELECT entries,
             LEAD(first_at) OVER (PARTITION BY list ORDER BY first_at) AS moment
             FROM list_spans WHERE list IN (",
        );
        query.bind_all(left_out);
        query.push(")) AS ended WHERE moment IS NOT NULL");
    }
    query.push(") AS steps GROUP BY moment) AS sums WHERE earlier <= ");
    query.bind(entries.cast_signed());
    query.query().fetch_one(connection).await?.try_get(0)
}

/// How much of a list was made before a moment. With spans: whole ones, without what is in the last one but later.
async fn counted_before(
    connection: &mut AnyConnection,
    sizes: &HashMap<List, Size>,
    list: List,
    moment: i64,
) -> Result<u64, sqlx::Error> {
    if !size(sizes, &list).has_spans {
        let mut query = Statement::new("SELECT COUNT(*) FROM listed WHERE list = ");
        query.bind(&list.0).push(" AND created_at < ").bind(moment);
        return number(&query.query().fetch_one(connection).await?, 0);
    }
    let mut query = Statement::new(
        "SELECT (SELECT CAST(COALESCE(SUM(entries), 0) AS BIGINT) FROM list_spans WHERE list = ",
    );
    query.bind(&list.0).push(" AND first_at < ").bind(moment);
    query
        .push(") - (SELECT COUNT(*) FROM listed WHERE list = ")
        .bind(&list.0);
    query.push(" AND created_at >= ").bind(moment);
    query.push(" AND created_at < COALESCE((SELECT MIN(first_at) FROM list_spans WHERE list = ");
    query.bind(&list.0).push(" AND first_at >= ").bind(moment);
    query.push("), ").bind(i64::MAX).push("))");
    number(&query.query().fetch_one(connection).await?, 0)
}

fn select(columns: &str, parts: &[(Part, u64)], start: &Start, limit: u64) -> Statement {
    let mut query = Statement::new("SELECT ");
    // The ids alone first, which are in the index: rows that are skipped are not read.
    query.push(columns).push(" FROM (");
    match parts {
        [(part, _)] => {
            query.push("SELECT it.created_at AS page_at, it.id AS page_id");
            part.select(&mut query, start.from);
            query.push(" ORDER BY it.created_at, it.id");
        }
        _ => {
            query.push("SELECT page_at, page_id FROM (");
            let end = start.skipped.saturating_add(limit);
            for (n, (part, _)) in parts.iter().enumerate() {
                query.push(if n == 0 { "" } else { " UNION ALL " });
                query.push("SELECT page_at, page_id FROM (");
                query.push("SELECT it.created_at AS page_at, it.id AS page_id");
                part.select(&mut query, start.from);
                query.push(" ORDER BY it.created_at, it.id LIMIT ");
                query.bind(end.cast_signed()).push(") AS part");
            }
            query.push(") AS parts ORDER BY page_at, page_id");
        }
    }
    query.push(" LIMIT ").bind(limit.cast_signed());
    query.push(" OFFSET ").bind(start.skipped.cast_signed());
    let table = parts.first().map_or("", |(part, _)| part.kind.table());
    // What is looked up first is named first: CROSS JOIN keeps the order.
    query.push(") AS page CROSS JOIN ").push(table);
    query.push(" WHERE ").push(table).push(".id = page.page_id");
    query.push(" ORDER BY page.page_at, page.page_id");
    query
}
