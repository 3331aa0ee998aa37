//! Who is here: what the journal adds up to.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use rollcall_domain::identity::{SessionId, ThingId, Timestamp};
use rollcall_domain::presence::{Change, Online, Presence, Session, Snapshot};
use sqlx::Row;
use sqlx::sqlite::SqlitePool;
use uuid::Uuid;

use super::group::{self, Damaged};

/// The roll in memory.
#[derive(Default)]
pub(super) struct Memory {
    /// Each with the position of its arrival.
    sessions: HashMap<SessionId, (u64, Online)>,
    /// Sessions that were announced again: the one on the roll by the one that was let in, and the reverse.
    current: HashMap<SessionId, SessionId>,
    origins: HashMap<SessionId, SessionId>,
    /// Of the last change of the journal.
    pub(super) position: u64,
    /// Room that the departures of all these will take.
    pub(super) reserved_bytes: u64,
}

impl Memory {
    pub(super) fn apply(&mut self, position: u64, presence: &Presence) {
        self.position = position;
        let session = &presence.session;
        match presence.change {
            Change::Arrived => {
                let online = Online {
                    session: Arc::clone(session),
                    since: presence.at,
                };
                let known = self.sessions.insert(session.id, (position, online));
                if known.is_none() {
                    self.reserved_bytes += cost(presence);
                }
            }
            Change::Left(_) => {
                if self.sessions.remove(&session.id).is_some() {
                    self.reserved_bytes -= cost(presence);
                    if let Some(origin) = self.origins.remove(&session.id) {
                        self.current.remove(&origin);
                    }
                }
            }
        }
    }

    /// Which session was let in as the one that is on the roll as `session`.
    pub(super) fn origin(&self, session: SessionId) -> SessionId {
        self.origins.get(&session).copied().unwrap_or(session)
    }

    /// The session on the roll of one that was let in.
    pub(super) fn current(&self, origin: SessionId) -> Option<&Arc<Session>> {
        let id = self.current.get(&origin).unwrap_or(&origin);
        self.sessions.get(id).map(|(_, online)| &online.session)
    }

    /// Notes that `session`, which is on the roll, is the one that was let in as `origin`.
    pub(super) fn continues(&mut self, origin: SessionId, session: SessionId) {
        self.current.insert(origin, session);
        self.origins.insert(session, origin);
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The earliest first.
    pub(super) fn online(&self) -> Vec<Online> {
        let online = self.snapshot().online.into_iter();
        online.map(|(_, online)| online).collect()
    }

    pub(super) fn online_of(&self, thing: ThingId) -> Vec<Online> {
        let online = self.sessions.values().map(|(_, online)| online);
        let online = online.filter(|it| it.session.thing == thing);
        let mut online: Vec<_> = online.cloned().collect();
        online.sort_unstable_by_key(|it| (it.since, it.session.id));
        online
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut online: Vec<_> = self.sessions.values().cloned().collect();
        online.sort_unstable_by_key(|(_, it)| (it.since, it.session.id));
        Snapshot {
            position: self.position,
            online,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Online { session, since } in self.online() {
            bytes.extend_from_slice(&since.0.to_be_bytes());
            group::encode_session(&mut bytes, &session);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut roll = Self::default();
        while !bytes.is_empty() {
            let at = Timestamp(u64::from_be_bytes(group::take(&mut bytes)?));
            let session = Arc::new(group::decode_session(&mut bytes)?);
            let change = Change::Arrived;
            roll.apply(
                0,
                &Presence {
                    session,
                    change,
                    at,
                },
            );
        }
        Some(roll)
    }
}

/// Bytes that an event takes in the journal, at most.
pub(super) fn cost(presence: &Presence) -> u64 {
    (group::EVENT_BYTES + presence.session.client_id.len()) as u64
}

/// What an earlier run left.
pub(super) struct Recovered {
    pub(super) producer: Uuid,
    pub(super) relayed: u64,
    /// Of the last event, and when that was.
    pub(super) position: u64,
    pub(super) at: Timestamp,
    /// Up to here the roll is kept as a checkpoint.
    pub(super) checkpoint: u64,
    /// Who was here, under which name of the instance, and when it was last known to be alive.
    pub(super) roll: Memory,
    pub(super) instance: String,
    pub(super) alive_at: Timestamp,
}

/// Reads the checkpoint of the roll and the events behind it; makes the one row if the file is new.
pub(super) async fn recover(
    pool: &SqlitePool,
    instance: &str,
) -> Result<Recovered, Box<dyn Error + Send + Sync>> {
    sqlx::query(
        "INSERT INTO journal
         (id, producer, instance, alive_at, relayed, roll_position, roll_at, roll)
         VALUES (1, ?, ?, 0, 0, 0, 0, x'') ON CONFLICT (id) DO NOTHING",
    )
    .bind(Uuid::new_v4().as_bytes().as_slice())
    .bind(instance)
    .execute(pool)
    .await?;
    let row = sqlx::query(
        "SELECT producer, instance, alive_at, relayed, roll_position, roll_at, roll FROM journal",
    )
    .fetch_one(pool)
    .await?;
    let number = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let checkpoint = number(4)?;
    let mut recovered = Recovered {
        producer: Uuid::from_slice(row.try_get(0)?)?,
        instance: row.try_get(1)?,
        alive_at: Timestamp(number(2)?),
        relayed: number(3)?,
        checkpoint,
        position: checkpoint,
        at: Timestamp(number(5)?),
        roll: Memory::decode(row.try_get(6)?).ok_or(Damaged)?,
    };
    loop {
        let rows = sqlx::query(
            "SELECT first, last, events FROM groups WHERE first > ? ORDER BY first LIMIT 256",
        )
        .bind(recovered.position.cast_signed())
        .fetch_all(pool)
        .await?;
        if rows.is_empty() {
            return Ok(recovered);
        }
        for row in rows {
            let (first, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            if first.cast_unsigned() != recovered.position + 1 {
                return Err(Damaged.into());
            }
            for presence in group::decode(row.try_get(2)?) {
                let presence = presence?;
                recovered.position += 1;
                recovered.at = presence.at;
                recovered.roll.apply(recovered.position, &presence);
            }
            if recovered.position != last.cast_unsigned() {
                return Err(Damaged.into());
            }
        }
    }
}
