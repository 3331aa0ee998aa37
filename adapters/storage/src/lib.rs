//! Embedded storage, in SQLite: the journal of presence, sessions and messages that are kept, and the data and
//! events of the services.
//!
//! Each file belongs to one process at a time ([`lock`]).

pub mod database;
mod events;
pub mod journal;
mod lock;
pub mod sessions;
mod things;
mod users;

use std::path::PathBuf;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is in use by another process: stop it, or choose another data folder")]
    InUse { path: PathBuf },
    #[error("cannot open {path}: not a database of rollcall, or one of a later version")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{path} is damaged: restore it from a backup, or move it away to begin anew")]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a database file is opened: write-ahead log, so that readers do not wait for writers.
fn options(path: &std::path::Path, synchronous: SqliteSynchronous) -> SqliteConnectOptions {
    SqliteConnectOptions::from_str("sqlite:")
        .expect("invariant: a valid URL")
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(std::time::Duration::from_secs(5))
        .pragma("wal_autocheckpoint", "2000")
        .disable_statement_logging()
}

fn boxed(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Box<dyn std::error::Error + Send + Sync> {
    error.into()
}
