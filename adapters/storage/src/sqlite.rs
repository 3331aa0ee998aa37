//! SQLite files: how they are opened.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection};

use crate::database::MIGRATIONS;
use crate::lists;

const READERS: u32 = 4;
const AUTOCHECKPOINT: &str = "2000";
/// KiB of pages that the writer keeps. A transaction that changes more writes pages several times; a file that has
/// less takes less.
const WRITER_CACHE: &str = "65536";

/// How a file is opened by its own driver: write-ahead log, so that readers do not wait for writers.
pub(crate) fn options(path: &Path, synchronous: SqliteSynchronous) -> SqliteConnectOptions {
    SqliteConnectOptions::from_str("sqlite:")
        .expect("invariant: a valid URL")
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("wal_autocheckpoint", AUTOCHECKPOINT)
        .disable_statement_logging()
}

/// Brings the tables up to date. References between tables are not looked at meanwhile: a table that is made anew
/// is gone for a moment.
pub(crate) async fn migrate(path: &Path) -> Result<(), sqlx::Error> {
    let mut connection = AnyConnection::connect_with(&address(path, "rw")?).await?;
    prepare(&mut connection).await?;
    sqlx::raw_sql("PRAGMA foreign_keys = OFF")
        .execute(&mut connection)
        .await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    lists::work_off(&mut connection).await?;
    connection.close().await
}

/// The one connection that writes.
pub(crate) async fn writer(path: &Path) -> Result<AnyPool, sqlx::Error> {
    AnyPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
        .connect_with(address(path, "rw")?)
        .await
}

pub(crate) async fn readers(path: &Path) -> Result<AnyPool, sqlx::Error> {
    AnyPoolOptions::new()
        .max_connections(READERS)
        .connect_with(address(path, "ro")?)
        .await
}

/// A connection that only reads, and sees the file as it is when it first does.
pub(crate) async fn snapshot(path: &Path) -> Result<AnyConnection, sqlx::Error> {
    let mut connection = AnyConnection::connect_with(&address(path, "ro")?).await?;
    sqlx::raw_sql("PRAGMA busy_timeout = 5000; BEGIN")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// What [`options`] does, where only an address can be given.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let pragmas = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 5000; PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT};
         PRAGMA cache_size = -{WRITER_CACHE};"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas))
        .execute(connection)
        .await
        .map(|_| ())
}

/// The path as an address in which nothing has a meaning of its own.
fn address(path: &Path, mode: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    sqlx::any::install_default_drivers();
    let text = path.to_str().ok_or_else(|| {
        sqlx::Error::Configuration(format!("{} is not UTF-8", path.display()).into())
    })?;
    let mut url = "sqlite:".to_owned();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => url.push(byte.into()),
            false => write!(url, "%{byte:02X}").expect("invariant: writing to text"),
        }
    }
    url.push_str("?mode=");
    url.push_str(mode);
    Ok(AnyConnectOptions::from_str(&url)?.disable_statement_logging())
}
