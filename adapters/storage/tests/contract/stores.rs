//! The stores that there are, each empty and of its own.

use std::sync::Arc;
use std::time::Duration;

use rollcall_storage::database::{Config, Database};
use rollcall_storage::postgres::Url;
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;

/// A database, and what it lives in.
#[allow(dead_code, reason = "the place is there to be dropped last")]
pub(crate) struct Kept<T> {
    pub(crate) database: Database,
    pub(crate) place: T,
}

pub(crate) async fn sqlite() -> Kept<TempDir> {
    let place = tempfile::tempdir().expect("a folder");
    let database = Database::open(&place.path().join("rollcall.db")).await;
    Kept {
        database: database.expect("opens"),
        place,
    }
}

pub(crate) async fn postgres() -> Kept<(Arc<PostgresServer>, Config, String)> {
    let server = PostgresServer::shared();
    let name = server.database();
    let config = config(&server.url(&name));
    let database = Database::connect(&config).await;
    Kept {
        database: database.expect("opens"),
        place: (server, config, name),
    }
}

pub(crate) fn config(url: &str) -> Config {
    Config {
        url: Url::new(url),
        max_connections: 8,
        connect_timeout: Duration::from_secs(30),
        statement_timeout: Duration::from_secs(30),
    }
}
