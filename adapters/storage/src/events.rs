//! The event logs of the services: written in the transaction of the change they tell of.
//!
//! Who appends takes the row of the log first, and with it the log until its transaction ends. So positions have
//! no gaps, time goes on in their order, and a reader never sees a later one before an earlier one, whoever
//! appends at the same time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rollcall_domain::event::{Entry, Event, Fields, Stream};
use rollcall_domain::ports::{EventLog, LogError};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, Row, Transaction};
use tokio::sync::watch;
use uuid::Uuid;

use crate::boxed;
use crate::database::Database;
use crate::rows::{from_json, id, json, moment, number};
use crate::statement;

/// So many events stay readable after they have been relayed.
const HISTORY: u64 = 100_000;
/// How often it is looked whether other processes have appended.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Log {
    stream: Stream,
    writer: AnyPool,
    readers: AnyPool,
    state: Mutex<State>,
    last: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
struct State {
    producer: Uuid,
    relayed: u64,
}

impl Log {
    pub(crate) async fn open(
        stream: Stream,
        writer: &AnyPool,
        readers: &AnyPool,
    ) -> Result<Self, sqlx::Error> {
        sqlx::query(
            "INSERT INTO logs (stream, producer, last, last_at, relayed) VALUES ($1, $2, 0, 0, 0)
             ON CONFLICT (stream) DO NOTHING",
        )
        .bind(stream.as_str())
        .bind(Uuid::new_v4().as_bytes().as_slice())
        .execute(writer)
        .await?;
        let row = row(stream, writer).await?;
        Ok(Self {
            stream,
            writer: writer.clone(),
            readers: readers.clone(),
            state: Mutex::new(state(&row)?),
            last: watch::Sender::new(number(&row, 2)?),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("invariant: no panic under the lock")
    }

    /// Takes over what the row says.
    fn learn(&self, row: &AnyRow) -> Result<(), sqlx::Error> {
        *self.state() = state(row)?;
        self.reached(number(row, 2)?);
        Ok(())
    }

    /// There are events up to `position`.
    fn reached(&self, position: u64) {
        // Who tells of a later one may come here first.
        self.last.send_if_modified(|known| {
            let is_news = position > *known;
            *known = position.max(*known);
            is_news
        });
    }
}

async fn row(stream: Stream, pool: &AnyPool) -> Result<AnyRow, sqlx::Error> {
    sqlx::query("SELECT producer, relayed, last FROM logs WHERE stream = $1")
        .bind(stream.as_str())
        .fetch_one(pool)
        .await
}

fn state(row: &AnyRow) -> Result<State, sqlx::Error> {
    Ok(State {
        producer: Uuid::from_bytes(id(row, 0)?),
        relayed: number(row, 1)?,
    })
}

/// Keeps the logs up with what other processes do, until nobody has them any longer.
pub(crate) async fn watch(logs: Weak<HashMap<Stream, Arc<Log>>>, pool: AnyPool) {
    let mut is_away = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(logs) = logs.upgrade() else { return };
        if pool.is_closed() {
            return;
        }
        let found = look(&logs, &pool).await;
        match (&found, is_away) {
            (Err(error), false) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "the database does not answer");
            }
            (Ok(()), true) => tracing::info!("the database is back"),
            _ => {}
        }
        is_away = found.is_err();
    }
}

async fn look(logs: &HashMap<Stream, Arc<Log>>, pool: &AnyPool) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT producer, relayed, last, stream FROM logs")
        .fetch_all(pool)
        .await?;
    for row in &rows {
        let stream: Result<Stream, _> = row.try_get::<&str, _>(3)?.parse();
        if let Some(log) = stream.ok().and_then(|stream| logs.get(&stream)) {
            log.learn(row)?;
        }
    }
    Ok(())
}

impl Database {
    /// Commits what `transaction` did together with the events that tell of it, and wakes who waits for them.
    pub(crate) async fn commit(
        &self,
        transaction: Transaction<'_, Any>,
        mut events: Vec<Event>,
    ) -> Result<(), sqlx::Error> {
        events.retain(|event| !self.exclude.has(event));
        commit(&self.logs, transaction, events).await
    }
}

pub(crate) async fn commit(
    logs: &HashMap<Stream, Arc<Log>>,
    mut transaction: Transaction<'_, Any>,
    events: Vec<Event>,
) -> Result<(), sqlx::Error> {
    // In the order of their names: two transactions never wait for each other's logs.
    let mut streams: BTreeMap<&'static str, (Stream, Vec<Event>)> = BTreeMap::new();
    for event in events {
        let entry = streams.entry(event.stream.as_str());
        let (_, events) = entry.or_insert_with(|| (event.stream, Vec::new()));
        events.push(event);
    }
    let mut ends = Vec::with_capacity(streams.len());
    for (stream, events) in streams.into_values() {
        let last = append(&mut transaction, stream, events).await?;
        ends.push((stream, last));
    }
    transaction.commit().await?;
    for (stream, last) in ends {
        if let Some(log) = logs.get(&stream) {
            log.reached(last);
        }
    }
    Ok(())
}

/// Appends to the log of a stream. Returns the position of the last event.
async fn append(
    connection: &mut AnyConnection,
    stream: Stream,
    events: Vec<Event>,
) -> Result<u64, sqlx::Error> {
    let name = stream.as_str();
    let count = i64::try_from(events.len()).expect("invariant: fits into memory");
    let row =
        sqlx::query("UPDATE logs SET last = last + $1 WHERE stream = $2 RETURNING last, last_at")
            .bind(count)
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
    let last: i64 = row.try_get(0)?;
    let mut at = moment(&row, 1)?;
    let mut rows = Vec::with_capacity(events.len());
    for (position, mut event) in (last - count + 1..).zip(events) {
        at = event.occurred_at.max(at.next());
        event
            .fields
            .push(("occurred_at".into(), at.to_string().into()));
        rows.push([name.into(), position.into(), json(&event.fields).into()]);
    }
    let insert = "INSERT INTO events (stream, position, fields)";
    statement::insert(connection, insert, rows).await?;
    sqlx::query("UPDATE logs SET last_at = $1 WHERE stream = $2")
        .bind(at.0.cast_signed())
        .bind(name)
        .execute(&mut *connection)
        .await?;
    Ok(last.cast_unsigned())
}

/// An event from its position and fields.
pub(crate) fn entry(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    let fields: Vec<(String, String)> = from_json(row, 1)?;
    let fields: Fields = fields
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let position = number(row, 0)?;
    Ok(Entry { position, fields })
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> LogError {
    move |error| LogError {
        doing,
        source: boxed(error),
    }
}

#[async_trait]
impl EventLog for Log {
    fn stream(&self) -> Stream {
        self.stream
    }

    fn producer(&self) -> Uuid {
        self.state().producer
    }

    async fn read(&self, position: u64, limit: usize) -> Result<Vec<Entry>, LogError> {
        let failed = failed("read");
        let rows = sqlx::query(
            "SELECT position, fields FROM events WHERE stream = $1 AND position > $2
             ORDER BY position LIMIT $3",
        )
        .bind(self.stream.as_str())
        .bind(position.cast_signed())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await
        .map_err(&failed)?;
        let entries: Result<Vec<Entry>, _> = rows.iter().map(entry).collect();
        entries.map_err(failed)
    }

    fn last(&self) -> u64 {
        *self.last.borrow()
    }

    fn relayed(&self) -> u64 {
        self.state().relayed
    }

    async fn refresh(&self) -> Result<(), LogError> {
        let failed = failed("look at");
        let row = row(self.stream, &self.readers).await.map_err(&failed)?;
        self.learn(&row).map_err(failed)
    }

    async fn set_relayed(&self, position: u64) -> Result<(), LogError> {
        let failed = failed("mark");
        sqlx::query("UPDATE logs SET relayed = $1 WHERE stream = $2")
            .bind(position.cast_signed())
            .bind(self.stream.as_str())
            .execute(&self.writer)
            .await
            .map_err(&failed)?;
        sqlx::query("DELETE FROM events WHERE stream = $1 AND position <= $2")
            .bind(self.stream.as_str())
            .bind(position.saturating_sub(HISTORY).cast_signed())
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        self.state().relayed = position;
        Ok(())
    }

    async fn renew_producer(&self) -> Result<Uuid, LogError> {
        let failed = failed("rename");
        let before = self.producer();
        // Of several processes that find the name spent, one gives a new one, and all take that.
        sqlx::query("UPDATE logs SET producer = $1 WHERE stream = $2 AND producer = $3")
            .bind(Uuid::new_v4().as_bytes().as_slice())
            .bind(self.stream.as_str())
            .bind(before.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map_err(&failed)?;
        let row = row(self.stream, &self.writer).await.map_err(&failed)?;
        self.learn(&row).map_err(failed)?;
        Ok(self.producer())
    }

    async fn wait(&self, position: u64) {
        let mut last = self.last.subscribe();
        // The sender lives as long as this log.
        let _ = last.wait_for(|last| *last > position).await;
    }
}
