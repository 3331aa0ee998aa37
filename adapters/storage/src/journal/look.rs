//! The events of a journal, from its file: also for somebody who only looks, beside the instance that has it or when that
//! one is gone.

use std::path::Path;
use std::sync::Arc;

use rollcall_domain::ports::LogError;
use rollcall_domain::presence::Noted;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::group;
use crate::sqlite::options;
use crate::{OpenError, boxed};

/// Rows that one read looks at, at most.
const ROWS: i64 = 1024;
/// Events of one page.
const PAGE: usize = 1000;

/// Somebody who only looks.
pub struct Look {
    pool: SqlitePool,
    instances: Vec<String>,
    relayed: u64,
    position: u64,
}

impl Look {
    /// # Errors
    /// The file is not there, or is no journal.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = async {
            let options = options(path, SqliteSynchronous::Normal).read_only(true);
            let pool = SqlitePoolOptions::new().connect_with(options).await?;
            let relayed: i64 = sqlx::query_scalar("SELECT relayed FROM journal")
                .fetch_one(&pool)
                .await?;
            let instances = sqlx::query_scalar("SELECT DISTINCT instance FROM groups");
            Ok::<_, sqlx::Error>(Self {
                instances: instances.fetch_all(&pool).await?,
                relayed: relayed.cast_unsigned(),
                position: 0,
                pool,
            })
        };
        opened.await.map_err(|error| OpenError::Open {
            path: path.into(),
            source: boxed(error),
        })
    }

    /// The names that its instance had.
    #[must_use]
    pub fn instances(&self) -> &[String] {
        &self.instances
    }

    /// Up to where events count as relayed, when it was opened.
    #[must_use]
    pub const fn relayed(&self) -> u64 {
        self.relayed
    }

    /// The next events; none if there are no more now.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub async fn next(&mut self) -> Result<Vec<Noted>, LogError> {
        let noted = read(&self.pool, self.position, PAGE).await?;
        self.position = noted.last().map_or(self.position, |it| it.position);
        Ok(noted)
    }
}

/// Reads some of the events behind a position.
pub(super) async fn read(
    pool: &SqlitePool,
    position: u64,
    limit: usize,
) -> Result<Vec<Noted>, LogError> {
    let failed = |error| LogError {
        doing: "read",
        source: boxed(error),
    };
    // The group with the next event, and those behind it that begin within the limit.
    let rows = sqlx::query(
        "SELECT first, last, instance, events FROM groups
         WHERE first >= COALESCE((SELECT MAX(first) FROM groups WHERE first <= ?1 + 1), 0)
         AND first <= MAX(?1 + ?2, COALESCE((SELECT MIN(first) FROM groups WHERE first > ?1), 0))
         ORDER BY first LIMIT ?3",
    )
    .bind(position.cast_signed())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX / 2))
    .bind(ROWS)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    let mut changes = Vec::with_capacity(limit.min(1024));
    for row in rows {
        let first = row.try_get::<i64, _>(0).map_err(failed)?.cast_unsigned();
        let last = row.try_get::<i64, _>(1).map_err(failed)?.cast_unsigned();
        let rest = (last + 1).saturating_sub(first.max(position + 1));
        if !changes.is_empty() && changes.len() as u64 + rest > limit as u64 {
            // Who goes on from here has no part of a group to skip.
            break;
        }
        let instance: Arc<str> = row.try_get::<&str, _>(2).map_err(failed)?.into();
        let bytes: &[u8] = row.try_get(3).map_err(failed)?;
        let events = (first..).zip(group::decode(bytes));
        let events = events.skip_while(|(at, _)| *at <= position);
        for (position, presence) in events.take(limit) {
            let presence = presence.map_err(|error| LogError {
                doing: "read",
                source: boxed(error),
            })?;
            let instance = Arc::clone(&instance);
            changes.push(Noted {
                position,
                instance,
                presence,
            });
        }
    }
    Ok(changes)
}
