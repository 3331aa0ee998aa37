//! The event logs of the services: written in the transaction of the change they tell of.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use rollcall_domain::event::{Entry, Event, Fields, Stream};
use rollcall_domain::identity::Timestamp;
use rollcall_domain::ports::{EventLog, LogError};
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Row, Sqlite, Transaction};
use tokio::sync::watch;
use uuid::Uuid;

use crate::boxed;
use crate::database::Database;

/// So many events stay readable after they have been relayed.
const HISTORY: u64 = 100_000;

pub(crate) struct Log {
    stream: Stream,
    writer: SqlitePool,
    readers: SqlitePool,
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
        writer: &SqlitePool,
        readers: &SqlitePool,
    ) -> Result<Self, sqlx::Error> {
        sqlx::query(
            "INSERT INTO logs (stream, producer, last, last_at, relayed) VALUES (?, ?, 0, 0, 0)
             ON CONFLICT (stream) DO NOTHING",
        )
        .bind(stream.as_str())
        .bind(Uuid::new_v4().as_bytes().as_slice())
        .execute(writer)
        .await?;
        let row = sqlx::query("SELECT producer, last, relayed FROM logs WHERE stream = ?")
            .bind(stream.as_str())
            .fetch_one(writer)
            .await?;
        let producer =
            Uuid::from_slice(row.try_get(0)?).map_err(|e| sqlx::Error::Decode(e.into()))?;
        let state = State {
            producer,
            relayed: row.try_get::<i64, _>(2)?.cast_unsigned(),
        };
        Ok(Self {
            stream,
            writer: writer.clone(),
            readers: readers.clone(),
            state: Mutex::new(state),
            last: watch::Sender::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
        })
    }

    fn state(&self) -> State {
        *self
            .state
            .lock()
            .expect("invariant: no panic under the lock")
    }
}

impl Database {
    /// Commits what `transaction` did together with the events that tell of it, and wakes who waits for them.
    pub(crate) async fn commit(
        &self,
        mut transaction: Transaction<'_, Sqlite>,
        events: Vec<Event>,
    ) -> Result<(), sqlx::Error> {
        let mut streams: BTreeMap<&'static str, (Stream, Vec<Event>)> = BTreeMap::new();
        for event in events {
            let entry = streams.entry(event.stream.as_str());
            entry
                .or_insert_with(|| (event.stream, Vec::new()))
                .1
                .push(event);
        }
        let mut ends = Vec::with_capacity(streams.len());
        for (stream, events) in streams.into_values() {
            let last = append(&mut transaction, stream, events).await?;
            ends.push((stream, last));
        }
        transaction.commit().await?;
        for (stream, last) in ends {
            if let Some(log) = self.logs.get(&stream) {
                // Two commits may get here in either order.
                log.last.send_modify(|known| *known = last.max(*known));
            }
        }
        Ok(())
    }
}

/// Appends to the log of a stream. Returns the position of the last event.
async fn append(
    connection: &mut SqliteConnection,
    stream: Stream,
    events: Vec<Event>,
) -> Result<u64, sqlx::Error> {
    let name = stream.as_str();
    let row = sqlx::query("SELECT last, last_at FROM logs WHERE stream = ?")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    let mut last = row.try_get::<i64, _>(0)?;
    let mut at = Timestamp(row.try_get::<i64, _>(1)?.cast_unsigned());
    for mut event in events {
        last += 1;
        at = event.occurred_at.max(at.next());
        event
            .fields
            .push(("occurred_at".into(), at.to_string().into()));
        sqlx::query("INSERT INTO events (stream, position, fields) VALUES (?, ?, ?)")
            .bind(name)
            .bind(last)
            .bind(serde_json::to_string(&event.fields).expect("invariant: text"))
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("UPDATE logs SET last = ?, last_at = ? WHERE stream = ?")
        .bind(last)
        .bind(at.0.cast_signed())
        .bind(name)
        .execute(&mut *connection)
        .await?;
    Ok(last.cast_unsigned())
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
        let failed = |error| LogError {
            doing: "read",
            source: boxed(error),
        };
        let rows = sqlx::query(
            "SELECT position, fields FROM events WHERE stream = ? AND position > ?
             ORDER BY position LIMIT ?",
        )
        .bind(self.stream.as_str())
        .bind(position.cast_signed())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                let position = row.try_get::<i64, _>(0).map_err(failed)?.cast_unsigned();
                let text: &str = row.try_get(1).map_err(failed)?;
                let fields: Vec<(String, String)> =
                    serde_json::from_str(text).map_err(|error| LogError {
                        doing: "read",
                        source: boxed(error),
                    })?;
                let fields: Fields = fields
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect();
                Ok(Entry { position, fields })
            })
            .collect()
    }

    fn last(&self) -> u64 {
        *self.last.borrow()
    }

    fn relayed(&self) -> u64 {
        self.state().relayed
    }

    async fn set_relayed(&self, position: u64) -> Result<(), LogError> {
        let failed = |error| LogError {
            doing: "mark",
            source: boxed(error),
        };
        sqlx::query("UPDATE logs SET relayed = ? WHERE stream = ?")
            .bind(position.cast_signed())
            .bind(self.stream.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        sqlx::query("DELETE FROM events WHERE stream = ? AND position <= ?")
            .bind(self.stream.as_str())
            .bind(position.saturating_sub(HISTORY).cast_signed())
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        self.state
            .lock()
            .expect("invariant: no panic under the lock")
            .relayed = position;
        Ok(())
    }

    async fn renew_producer(&self) -> Result<Uuid, LogError> {
        let producer = Uuid::new_v4();
        sqlx::query("UPDATE logs SET producer = ? WHERE stream = ?")
            .bind(producer.as_bytes().as_slice())
            .bind(self.stream.as_str())
            .execute(&self.writer)
            .await
            .map_err(|error| LogError {
                doing: "rename",
                source: boxed(error),
            })?;
        self.state
            .lock()
            .expect("invariant: no panic under the lock")
            .producer = producer;
        Ok(producer)
    }

    async fn wait(&self, position: u64) {
        let mut last = self.last.subscribe();
        // The sender lives as long as this log.
        let _ = last.wait_for(|last| *last > position).await;
    }
}
