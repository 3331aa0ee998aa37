//! The services' data at one moment, only read: in the words of the events, to be held against them.
//!
//! A server may be running on the same file or PostgreSQL meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use rollcall_domain::event::{self, Entry, Stream};
use rollcall_domain::identity::{Timestamp, UserId};
use rollcall_domain::policies::Actions;
use rollcall_domain::replay::{self, Kind, State, channels, pair};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::Config;
use crate::rows::{from_json, id, number, optional_id, optional_moment, status};
use crate::{OpenError, boxed, events, postgres, sqlite};

/// How far a log had come at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub stream: Stream,
    /// The position of the newest event.
    pub last: u64,
    /// Its `occurred_at`.
    pub last_at: u64,
    /// The log no longer has its first events.
    pub has_lost_events: bool,
}

/// Everything that is read, is read as of one moment: that of the first reading.
pub struct Snapshot {
    connection: AnyConnection,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}")]
pub struct ReadError {
    what: &'static str,
    #[source]
    source: sqlx::Error,
}

fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> ReadError {
    move |source| ReadError { what, source }
}

impl Snapshot {
    /// # Errors
    /// There is no such file, or it is none of ours.
    pub async fn of_file(path: &Path) -> Result<Self, OpenError> {
        let opened = sqlite::snapshot(path).await;
        let connection = opened.map_err(|source| OpenError::Open {
            path: path.into(),
            source: boxed(source),
        })?;
        Ok(Self { connection })
    }

    /// # Errors
    /// It is not there, or does not let us in.
    pub async fn of_postgres(config: &Config) -> Result<Self, OpenError> {
        let connection = postgres::snapshot(config).await?;
        Ok(Self { connection })
    }

    /// # Errors
    /// It cannot be read.
    pub async fn marks(&mut self) -> Result<Vec<Mark>, ReadError> {
        let rows = sqlx::query(
            "SELECT stream, last, last_at, (SELECT COUNT(*) FROM events WHERE events.stream = logs.stream)
             FROM logs ORDER BY stream",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("the event logs"))?;
        let mark = |row: &AnyRow| {
            let last = number(row, 1)?;
            Ok(Mark {
                stream: row
                    .try_get::<&str, _>(0)?
                    .parse()
                    .map_err(|error| sqlx::Error::Decode(boxed(error)))?,
                last,
                last_at: number(row, 2)?,
                has_lost_events: number(row, 3)? < last,
            })
        };
        let marks: Result<Vec<Mark>, sqlx::Error> = rows.iter().map(mark).collect();
        marks.map_err(failed("the event logs"))
    }

    /// At most `limit` events behind `position`.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn events(
        &mut self,
        stream: Stream,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let rows = sqlx::query(
            "SELECT position, fields FROM events WHERE stream = $1 AND position > $2
             ORDER BY position LIMIT $3",
        )
        .bind(stream.as_str())
        .bind(position.cast_signed())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("events"))?;
        let entries: Result<Vec<Entry>, _> = rows.iter().map(events::entry).collect();
        entries.map_err(failed("events"))
    }

    /// Users, groups, things, channels, policies and configurations. Nothing secret is read.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn state(&mut self) -> Result<State, ReadError> {
        let mut state = State::default();
        for table in &TABLES {
            self.read(table, &mut state)
                .await
                .map_err(failed(table.kind.as_str()))?;
        }
        self.connections(&mut state)
            .await
            .map_err(failed("the channels of configurations"))?;
        Ok(state)
    }

    async fn read(&mut self, table: &Table, state: &mut State) -> Result<(), sqlx::Error> {
        let columns = table.columns.iter().map(|(_, column, _)| *column);
        let columns: Vec<&str> = table.key.iter().copied().chain(columns).collect();
        let query = format!("SELECT {} FROM {}", columns.join(", "), table.name);
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut self.connection)
            .await?;
        for row in &rows {
            let key = match table.key.len() {
                1 => uuid(id(row, 0)?),
                _ => pair(&uuid(id(row, 0)?), &uuid(id(row, 1)?)),
            };
            let mut shown = replay::Row::new();
            for (n, (name, _, form)) in table.columns.iter().enumerate() {
                shown.insert(name, form.show(row, table.key.len() + n)?);
            }
            state.insert(table.kind, key, shown);
        }
        Ok(())
    }

    /// Which channels a configuration has.
    async fn connections(&mut self, state: &mut State) -> Result<(), sqlx::Error> {
        let rows = sqlx::query("SELECT thing, channel FROM config_connections ORDER BY thing")
            .fetch_all(&mut self.connection)
            .await?;
        let mut lists: BTreeMap<String, Vec<String>> = state
            .rows(Kind::Config)
            .map(|(id, _)| (id.to_owned(), Vec::new()))
            .collect();
        for row in &rows {
            let list = lists.entry(uuid(id(row, 0)?)).or_default();
            list.push(uuid(id(row, 1)?));
        }
        for (config, list) in lists {
            let mut row = state
                .get(Kind::Config, &config)
                .cloned()
                .unwrap_or_default();
            row.insert("channels", channels(list.iter().map(String::as_str)));
            state.insert(Kind::Config, config, row);
        }
        Ok(())
    }
}

/// Any id: they look alike.
fn uuid(bytes: [u8; 16]) -> String {
    UserId::from_bytes(bytes).to_string()
}

/// Where a kind is kept.
struct Table {
    kind: Kind,
    name: &'static str,
    /// One id, or two.
    key: &'static [&'static str],
    /// The name in events, the name here, and how it is written.
    columns: &'static [(&'static str, &'static str, Form)],
}

/// How a value is kept.
enum Form {
    Text,
    List,
    Json,
    Id,
    Status,
    Moment,
    Actions,
    Number,
}

impl Form {
    /// As events show it; empty for no value.
    fn show(&self, row: &AnyRow, n: usize) -> Result<String, sqlx::Error> {
        Ok(match self {
            Self::Text => row.try_get(n)?,
            Self::List => match from_json::<Vec<String>>(row, n)?.as_slice() {
                [] => String::new(),
                words => event::list(words),
            },
            Self::Json => event::json(&from_json(row, n)?),
            Self::Id => optional_id(row, n)?.map(uuid).unwrap_or_default(),
            Self::Status => status(row, n)?.as_str().to_owned(),
            Self::Moment => optional_moment(row, n)?
                .map(Timestamp::rfc3339)
                .unwrap_or_default(),
            Self::Actions => {
                let bits = u16::try_from(number(row, n)?).unwrap_or_default();
                event::list(&Actions::from_bits(bits).names())
            }
            Self::Number => number(row, n)?.to_string(),
        })
    }
}

const CLIENT: &[(&str, &str, Form)] = &[
    ("name", "name", Form::Text),
    ("tags", "tags", Form::List),
    ("owner", "owner", Form::Id),
    ("identity", "identity", Form::Text),
    ("metadata", "metadata", Form::Json),
    ("status", "enabled", Form::Status),
    ("created_at", "created_at", Form::Moment),
    ("updated_at", "updated_at", Form::Moment),
    ("updated_by", "updated_by", Form::Id),
];

const GROUP: &[(&str, &str, Form)] = &[
    ("name", "name", Form::Text),
    ("description", "description", Form::Text),
    ("owner", "owner", Form::Id),
    ("parent", "parent", Form::Id),
    ("metadata", "metadata", Form::Json),
    ("status", "enabled", Form::Status),
    ("created_at", "created_at", Form::Moment),
    ("updated_at", "updated_at", Form::Moment),
    ("updated_by", "updated_by", Form::Id),
];

const POLICY: &[(&str, &str, Form)] = &[
    ("owner_id", "owner", Form::Id),
    ("actions", "actions", Form::Actions),
    ("created_at", "created_at", Form::Moment),
    ("updated_at", "updated_at", Form::Moment),
    ("updated_by", "updated_by", Form::Id),
];

const TABLES: [Table; 8] = [
    Table {
        kind: Kind::User,
        name: "users",
        key: &["id"],
        columns: CLIENT,
    },
    Table {
        kind: Kind::Group,
        name: "groups",
        key: &["id"],
        columns: GROUP,
    },
    Table {
        kind: Kind::UserPolicy,
        name: "user_policies",
        key: &["subject", "object"],
        columns: POLICY,
    },
    Table {
        kind: Kind::Thing,
        name: "things",
        key: &["id"],
        columns: CLIENT,
    },
    Table {
        kind: Kind::Channel,
        name: "channels",
        key: &["id"],
        columns: GROUP,
    },
    Table {
        kind: Kind::ThingPolicy,
        name: "thing_policies",
        key: &["subject", "object"],
        columns: POLICY,
    },
    // Content and keys are sealed.
    Table {
        kind: Kind::Config,
        name: "configs",
        key: &["thing"],
        columns: &[
            ("owner", "owner", Form::Id),
            ("external_id", "external_id", Form::Text),
            ("name", "name", Form::Text),
            ("state", "state", Form::Number),
            ("client_cert", "client_cert", Form::Text),
            ("ca_cert", "ca_cert", Form::Text),
        ],
    },
    Table {
        kind: Kind::ChannelCopy,
        name: "config_channels",
        key: &["id"],
        columns: &[
            ("name", "name", Form::Text),
            ("metadata", "metadata", Form::Json),
        ],
    },
];
