//! The database of the services: a SQLite file in the data folder, or a PostgreSQL.
//!
//! There is one text of SQL for both: numbered placeholders, no functions that only one of them has, and columns
//! of BLOB, TEXT and BIGINT alone. (PostgreSQL has no BLOB: [`postgres`] makes it one.)

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{counter, describe_counter};
use rollcall_domain::event::{Event, Exclude, Stream};
use rollcall_domain::ports::{Cursors, EventLog, StoreError};
use serde::Deserialize;
use sqlx::AnyPool;
use sqlx::migrate::Migrator;

use crate::events::{self, Log};
use crate::lists::Span;
use crate::lock::Lock;
use crate::postgres::Url;
use crate::recorder::Recorder;
use crate::{OpenError, boxed, postgres, sqlite};

const LOST: &str = "rollcall_events_lost_total";

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/services");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A PostgreSQL; empty for a file in the data folder.
    pub url: Url,
    pub max_connections: u32,
    /// How long an operation may wait for a connection, making one included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long PostgreSQL may work at one statement.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

impl Config {
    /// The key that cannot be as it is, and why.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let timeouts = Duration::from_millis(100)..=Duration::from_secs(600);
        if !self.url.is_empty() && !self.url.is_postgres() {
            return Some((
                "storage.url",
                "write postgres://user:password@host/database, and behind a ? only what PostgreSQL knows",
            ));
        }
        if !(2..=1000).contains(&self.max_connections) {
            return Some(("storage.max_connections", "from 2 to 1000"));
        }
        if !timeouts.contains(&self.connect_timeout) {
            return Some(("storage.connect_timeout", "from 100ms to 10m"));
        }
        if !timeouts.contains(&self.statement_timeout) {
            return Some(("storage.statement_timeout", "from 100ms to 10m"));
        }
        None
    }
}

/// Reads go on while something is written. In a file, writes take turns.
#[derive(Clone)]
pub struct Database {
    pub(crate) writer: AnyPool,
    pub(crate) readers: AnyPool,
    pub(crate) logs: Arc<HashMap<Stream, Arc<Log>>>,
    pub(crate) exclude: Arc<Exclude>,
    pub(crate) span: Span,
    recorder: Recorder,
    _lock: Option<Arc<Lock>>,
}

impl Database {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be made or is none of ours, or another process has it.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = Arc::new(Lock::take(path)?);
        let failed = |source| OpenError::Open {
            path: path.into(),
            source: boxed(source),
        };
        sqlite::migrate(path).await.map_err(failed)?;
        let writer = sqlite::writer(path).await.map_err(failed)?;
        let readers = sqlite::readers(path).await.map_err(failed)?;
        let logs = logs(&writer, &readers).await.map_err(failed)?;
        let mut database = Self::of(writer, readers, logs);
        database._lock = Some(lock);
        Ok(database)
    }

    /// Opens the PostgreSQL at `config.url`. Other processes may use it at the same time.
    ///
    /// # Errors
    /// It is not there, does not let us in, or holds data of a later version.
    pub async fn connect(config: &Config) -> Result<Self, OpenError> {
        let pool = postgres::open(config).await?;
        let logs = logs(&pool, &pool)
            .await
            .map_err(|error| postgres::explain(&config.url, error))?;
        tokio::spawn(events::watch(Arc::downgrade(&logs), pool.clone()));
        Ok(Self::of(pool.clone(), pool, logs))
    }

    fn of(writer: AnyPool, readers: AnyPool, logs: Arc<HashMap<Stream, Arc<Log>>>) -> Self {
        describe_counter!(
            LOST,
            "Events of what changed nothing that could not be kept"
        );
        Self {
            recorder: Recorder::start(writer.clone(), Arc::clone(&logs)),
            writer,
            readers,
            logs,
            exclude: Arc::default(),
            span: Span::default(),
            _lock: None,
        }
    }

    /// Keeps these events out of its logs, and so of the streams.
    #[must_use]
    pub fn without(self, exclude: Exclude) -> Self {
        Self {
            exclude: Arc::new(exclude),
            ..self
        }
    }

    /// Counts long lists in spans of so many entries. All that use a database can have different ones: it is a
    /// matter of speed alone.
    #[must_use]
    pub fn with_spans_of(self, entries: u16) -> Self {
        Self {
            span: Span(i64::from(entries.max(2))),
            ..self
        }
    }

    /// The events of a service.
    #[must_use]
    pub fn log(&self, stream: Stream) -> Option<Arc<dyn EventLog>> {
        self.logs
            .get(&stream)
            .map(|log| Arc::clone(log) as Arc<dyn EventLog>)
    }

    /// Keeps events of what changes nothing, together with those of others that come at the same time. Returns
    /// when they are committed; cancelled, they may or may not be kept.
    ///
    /// # Errors
    /// They are not kept.
    pub async fn record_events(&self, mut events: Vec<Event>) -> Result<(), StoreError> {
        events.retain(|event| !self.exclude.has(event));
        if events.is_empty() {
            return Ok(());
        }
        self.recorder.record(events).await
    }

    /// As [`Self::record_events`], for who goes on if they are not kept: that is logged and counted.
    pub(crate) async fn announce(&self, events: Vec<Event>) {
        let count = events.len() as u64;
        if let Err(error) = self.record_events(events).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, count, "events are lost");
            counter!(LOST).increment(count);
        }
    }

    /// Waits for what is under way, and lets go of the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn logs(
    writer: &AnyPool,
    readers: &AnyPool,
) -> Result<Arc<HashMap<Stream, Arc<Log>>>, sqlx::Error> {
    let mut logs = HashMap::new();
    for stream in [Stream::Users, Stream::Things, Stream::Bootstrap] {
        logs.insert(stream, Arc::new(Log::open(stream, writer, readers).await?));
    }
    Ok(Arc::new(logs))
}

#[async_trait]
impl Cursors for Database {
    async fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT id FROM cursors WHERE stream = $1")
            .bind(stream)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a cursor"))
    }

    async fn set_cursor(&self, stream: &str, id: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO cursors (stream, id) VALUES ($1, $2)
             ON CONFLICT (stream) DO UPDATE SET id = excluded.id",
        )
        .bind(stream)
        .bind(id)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(failed("keep a cursor"))
    }
}

/// What went wrong, in the words of the port.
pub(crate) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::Failed {
        doing,
        source: boxed(error),
    }
}

/// Like [`failed`], but for a row whose unique value another one has.
pub(crate) fn taken(doing: &'static str, what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => StoreError::Taken(what),
        _ => failed(doing)(error),
    }
}
