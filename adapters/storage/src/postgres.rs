//! PostgreSQL: how it is reached, and what to do if it is not.

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection};

use crate::database::{Config, MIGRATIONS};
use crate::{OpenError, boxed, lists};

/// `postgres://user:password@host:port/database`, and what else PostgreSQL takes behind a `?`.
/// It may hold a password, so it does not print as it is.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there are certificates to be read.
    fn names_files(&self) -> bool {
        ["sslrootcert=", "sslcert=", "sslkey="]
            .into_iter()
            .any(|name| self.0.contains(name))
    }

    /// Whether all of it means something: what the driver does not know it would ignore, and log.
    pub(crate) fn is_postgres(&self) -> bool {
        let Ok(options) = AnyConnectOptions::from_str(&self.0) else {
            return false;
        };
        let url = &options.database_url;
        let is_known = |name: &str| PARAMETERS.contains(&name) || name.starts_with("options[");
        ["postgres", "postgresql"].contains(&url.scheme())
            && url.query_pairs().all(|(name, _)| is_known(&name))
    }
}

const PARAMETERS: [&str; 13] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The server and the database, without user, password and parameters.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0.split('?').next().unwrap_or_default();
        let (scheme, place) = place.split_once("://").unwrap_or(("postgres", ""));
        let place = place.rsplit_once('@').map_or(place, |(_, host)| host);
        write!(f, "{scheme}://{place}")
    }
}

/// A pool of connections to a database whose tables are up to date.
pub(crate) async fn open(config: &Config) -> Result<AnyPool, OpenError> {
    sqlx::any::install_default_drivers();
    let explain = |error| explain(&config.url, error);
    let options = AnyConnectOptions::from_str(&config.url.0)
        .map_err(explain)?
        .disable_statement_logging();
    // One connection first: a pool would try for long, and not say why it could not. What was made by earlier
    // versions is brought up to date with it, however long that takes.
    let connecting = AnyConnection::connect_with(&options);
    let connection = match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(connected) => connected.map_err(explain)?,
        Err(elapsed) => return Err(explain(sqlx::Error::Io(std::io::Error::other(elapsed)))),
    };
    migrate(connection).await.map_err(explain)?;
    let timeout = config.statement_timeout;
    AnyPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.connect_timeout)
        .after_connect(move |connection, _| Box::pin(prepare(connection, timeout)))
        .connect_with(options)
        .await
        .map_err(explain)
}

/// A connection that only reads, and sees everything as it is when it first does.
pub(crate) async fn snapshot(config: &Config) -> Result<AnyConnection, OpenError> {
    sqlx::any::install_default_drivers();
    let explain = |error| explain(&config.url, error);
    let options = AnyConnectOptions::from_str(&config.url.0)
        .map_err(explain)?
        .disable_statement_logging();
    let connecting = AnyConnection::connect_with(&options);
    let mut connection = match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(connected) => connected.map_err(explain)?,
        Err(elapsed) => return Err(explain(sqlx::Error::Io(std::io::Error::other(elapsed)))),
    };
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut connection)
        .await
        .map_err(explain)?;
    Ok(connection)
}

/// Nobody keeps others waiting: a statement that takes too long is given up, and who stops in the middle of a
/// transaction loses it, and with it the locks that it has.
async fn prepare(connection: &mut AnyConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    let timeout = timeout.as_millis();
    let settings = format!(
        "SET statement_timeout = {timeout}; SET idle_in_transaction_session_timeout = {timeout};
         SET default_transaction_isolation = 'read committed'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(settings))
        .execute(connection)
        .await
        .map(|_| ())
}

async fn migrate(mut connection: AnyConnection) -> Result<(), sqlx::Error> {
    // Of two processes at one time, one makes it.
    sqlx::raw_sql(
        "SET client_min_messages = warning;
         DO $$ BEGIN CREATE DOMAIN blob AS bytea;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
    )
    .execute(&mut connection)
    .await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    lists::work_off(&mut connection).await?;
    connection.close().await
}

const INSECURE: &str =
    "no secure connection can be made: see sslmode and sslrootcert in storage.url";

/// Why the database cannot be used, and what to do about it.
pub(crate) fn explain(url: &Url, error: sqlx::Error) -> OpenError {
    let code = error.as_database_error().and_then(|error| error.code());
    let advice = match (&error, code.as_deref()) {
        (sqlx::Error::Migrate(migrate), _) => match **migrate {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => {
                "its tables are of a later version of rollcall, or of something else"
            }
            _ => "its tables cannot be brought up to date",
        },
        (_, Some("28P01" | "28000")) => "it refuses the user or the password in storage.url",
        (_, Some("3D000")) => {
            "there is no such database: create it (createdb), or name another one in storage.url"
        }
        (_, Some("42501" | "3F000")) => {
            "the user may not make tables there: GRANT ALL ON SCHEMA public"
        }
        (_, Some("53300")) => {
            "it has too many connections: lower storage.max_connections, or raise its max_connections"
        }
        (sqlx::Error::Tls(_), _) => INSECURE,
        // What rustls says of certificates.
        (sqlx::Error::Io(error), _) if error.kind() == ErrorKind::InvalidData => INSECURE,
        (sqlx::Error::Io(error), _) if error.kind() == ErrorKind::NotFound && url.names_files() => {
            INSECURE
        }
        (sqlx::Error::Configuration(_), _) => {
            "storage.url makes no sense: write postgres://user:password@host/database"
        }
        _ => {
            "it cannot be reached: start it, or see whether host and port in storage.url are right"
        }
    };
    OpenError::Postgres {
        url: url.clone(),
        advice,
        source: boxed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_neither_user_nor_password() {
        for (url, shown) in [
            (
                "postgres://joe:s3cret@db.example:5433/rollcall?sslmode=require",
                "postgres://db.example:5433/rollcall",
            ),
            (
                "postgres:///rollcall?host=/tmp&user=joe&password=s3cret",
                "postgres:///rollcall",
            ),
            (
                "postgres://joe:s3cr@et@db/rollcall",
                "postgres://db/rollcall",
            ),
            ("s3cret", "postgres://"),
        ] {
            let url = Url::new(url);
            assert_eq!(format!("{url}"), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn only_addresses_of_postgresql_are_taken() {
        for (url, is_one) in [
            ("postgres://db/rollcall", true),
            ("postgresql://db/rollcall", true),
            ("sqlite:rollcall.db", false),
            ("mysql://db/rollcall", false),
            ("postgres://db:port/rollcall", false),
            ("postgres://db/rollcall?sslmode=verify-full", true),
            ("postgres://db/rollcall?options[lock_timeout]=1s", true),
            ("postgres://db/rollcall?passwort=s3cret", false),
        ] {
            assert_eq!(Url::new(url).is_postgres(), is_one, "{url}");
        }
    }
}
