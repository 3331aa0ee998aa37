//! Storage: the journal of presence, sessions and messages that are kept, and the data and events of the services.
//!
//! All are SQLite files, each of which belongs to one process at a time ([`lock`]). The services can use a
//! PostgreSQL instead, and several processes the same one.

mod bootstrap;
pub mod database;
mod events;
mod groups;
pub mod journal;
mod lists;
mod lock;
mod logins;
mod metadata;
mod policies;
pub mod postgres;
mod recorder;
mod resets;
mod rows;
pub mod sessions;
pub mod snapshot;
mod sqlite;
mod statement;
mod things;
mod users;

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make or open {path}: it has to belong to whom runs rollcall")]
    Create {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is in use by another process: stop it, or choose another data folder")]
    InUse { path: PathBuf },
    #[error(
        "{path} is a copy of a journal that another process on this machine has open: a copy of this journal beside it \
         would tell everything twice; stop the other, or choose another data folder"
    )]
    Copied { path: PathBuf },
    #[error("cannot open {path}: not a database of rollcall, or one of a later version")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot use {url}: {advice}")]
    Postgres {
        url: postgres::Url,
        advice: &'static str,
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

fn boxed(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Box<dyn std::error::Error + Send + Sync> {
    error.into()
}
