//! The file of the services: users, things and their events.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rollcall_domain::event::Stream;
use rollcall_domain::ports::{Cursors, EventLog, StoreError};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::events::Log;
use crate::lock::Lock;
use crate::{OpenError, boxed, options};

/// Reads go on while something is written; writes take turns.
#[derive(Clone)]
pub struct Database {
    pub(crate) writer: SqlitePool,
    pub(crate) readers: SqlitePool,
    pub(crate) logs: Arc<HashMap<Stream, Arc<Log>>>,
    _lock: Arc<Lock>,
}

const READERS: u32 = 4;

impl Database {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be made or is none of ours, or another process has it.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = Arc::new(Lock::take(path)?);
        let failed = |source: sqlx::Error| OpenError::Open {
            path: path.into(),
            source: boxed(source),
        };
        let options = options(path, SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        sqlx::migrate!("migrations/services")
            .run(&writer)
            .await
            .map_err(|error| failed(error.into()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        let mut logs = HashMap::new();
        for stream in [Stream::Users, Stream::Things] {
            let log = Log::open(stream, &writer, &readers).await.map_err(failed)?;
            logs.insert(stream, Arc::new(log));
        }
        Ok(Self {
            writer,
            readers,
            logs: Arc::new(logs),
            _lock: lock,
        })
    }

    /// The events of a service; `None` if no service in this file writes that stream.
    #[must_use]
    pub fn log(&self, stream: Stream) -> Option<Arc<dyn EventLog>> {
        self.logs
            .get(&stream)
            .map(|log| Arc::clone(log) as Arc<dyn EventLog>)
    }

    /// Waits for what is under way, and closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Cursors for Database {
    async fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT id FROM cursors WHERE stream = ?")
            .bind(stream)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a cursor"))
    }

    async fn set_cursor(&self, stream: &str, id: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO cursors (stream, id) VALUES (?, ?)
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
