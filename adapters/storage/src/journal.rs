//! The journal of presence: arrivals and departures, in order, before anyone hears of them.
//!
//! One task writes ([`writer`]). Whatever waits is committed together, as one row ([`group`]). The roll is
//! the fold of the journal, kept in memory and, now and then, as a checkpoint ([`roll`]). Who reads closely
//! behind the writer reads from memory ([`tail`]). A copy is not opened beside the original ([`claim`]).

mod claim;
mod group;
pub mod look;
mod metrics;
mod roll;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytesize::ByteSize;
use rollcall_domain::event::{self, Entry, Stream};
use rollcall_domain::identity::{SessionId, ThingId};
use rollcall_domain::ports::{EventLog, LogError};
use rollcall_domain::presence::{
    Arrivals, Journal as _, Kept, Noted, Online, Presence, PresenceLog, Roll, Snapshot,
};
use rollcall_domain::setting::choice;
use serde::Deserialize;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::lock::Lock;
use crate::sqlite::options;
use crate::{OpenError, boxed};
use claim::Claim;
use writer::Writer;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bytes of events that are kept. Relayed ones make room for new ones.
    pub max_bytes: ByteSize,
    #[serde(deserialize_with = "choice")]
    pub durability: Durability,
    /// Between the beginnings of two commits, at least; what comes meanwhile is committed together.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    #[serde(deserialize_with = "choice")]
    pub when_full: WhenFull,
}

/// What an event has survived when its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The loss of power: it is on the disk.
    Disk,
    /// The end of this process: the operating system has it.
    Process,
}

/// What to do when the journal has reached its bound and nothing in it has been relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Refuse new sessions: nothing that was accepted is lost.
    Refuse,
    /// Drop the oldest events, and count them: for those who only look at the latest.
    DropOldest,
}

/// The open journal of one instance.
pub struct Journal {
    shared: Arc<Shared>,
    /// The writer's one connection, taken in turns with it.
    pool: SqlitePool,
    readers: SqlitePool,
    writer: Mutex<Option<JoinHandle<()>>>,
    place: String,
    claim: Mutex<Claim>,
    _lock: Lock,
}

/// What the writer and everybody else have in common.
struct Shared {
    instance: Arc<str>,
    extended: bool,
    queue: Mutex<Queue>,
    /// Something is in the queue, or it was closed.
    queued: Notify,
    roll: Mutex<roll::Memory>,
    last: watch::Sender<u64>,
    tail: Mutex<tail::Tail>,
    marks: Mutex<Marks>,
    /// The last commit succeeded.
    writable: AtomicBool,
}

#[derive(Default)]
struct Queue {
    batches: Vec<(Vec<Presence>, Kept)>,
    /// Sessions on the roll that others have closed, and whom to tell that they are announced again.
    reannounced: Vec<(Vec<SessionId>, oneshot::Sender<()>)>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Marks {
    producer: Uuid,
    relayed: u64,
    /// To be written.
    changed: bool,
}

const READERS: u32 = 2;

impl Journal {
    /// Opens the journal, or makes it. Sessions that an earlier run left open have left when this returns:
    /// at the moment that run was last known to be alive.
    ///
    /// `extended` adds to each event what session it is about and why it ended.
    ///
    /// # Errors
    /// The file cannot be made, is none of ours or damaged, or another process has it.
    pub async fn open(
        path: &Path,
        config: &Config,
        instance: &str,
        extended: bool,
    ) -> Result<Arc<Self>, OpenError> {
        let lock = Lock::take(path)?;
        let failed = |source: sqlx::Error| OpenError::Open {
            path: path.into(),
            source: boxed(source),
        };
        let options = options(
            path,
            match config.durability {
                Durability::Disk => SqliteSynchronous::Full,
                Durability::Process => SqliteSynchronous::Normal,
            },
        );
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1);
        let pool = pool.connect_with(options.clone()).await.map_err(failed)?;
        sqlx::migrate!("migrations/presence")
            .run(&pool)
            .await
            .map_err(|error| failed(error.into()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;

        let recovered =
            roll::recover(&pool, instance)
                .await
                .map_err(|source| OpenError::Damaged {
                    path: path.into(),
                    source,
                })?;
        let claim = Claim::take(recovered.producer).map_err(|source| OpenError::Create {
            path: path.into(),
            source,
        })?;
        let claim = claim.ok_or_else(|| OpenError::Copied { path: path.into() })?;
        let marks = Marks {
            producer: recovered.producer,
            relayed: recovered.relayed,
            changed: false,
        };
        let shared = Arc::new(Shared {
            instance: instance.into(),
            extended,
            queue: Mutex::default(),
            queued: Notify::new(),
            roll: Mutex::default(),
            last: watch::Sender::new(recovered.position),
            tail: Mutex::default(),
            marks: Mutex::new(marks),
            writable: AtomicBool::new(true),
        });
        let mut writer = Writer::new(pool.clone(), Arc::clone(&shared), config, &recovered)
            .await
            .map_err(failed)?;
        writer.close_left_open(recovered).await.map_err(failed)?;
        let writer = tokio::spawn(writer.run());
        Ok(Arc::new(Self {
            shared,
            pool,
            readers,
            writer: Mutex::new(Some(writer)),
            // Unknown, it is not the one of before: whoever had that is waited for.
            place: lock.place().unwrap_or_else(|_| Uuid::new_v4().to_string()),
            claim: Mutex::new(claim),
            _lock: lock,
        }))
    }

    /// Returns when everything appended so far is committed, or known to be refused.
    pub async fn flush(&self) {
        let (flushed, done) = tokio::sync::oneshot::channel();
        let answer = move |_| {
            let _ = flushed.send(());
        };
        self.append(Vec::new(), Box::new(answer));
        // An error says that the writer is gone: then nothing is left to wait for.
        let _ = done.await;
    }

    /// Whether new arrivals can be kept, as far as is known.
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }

    /// Commits what was appended, and closes the file. What is appended later is refused.
    pub async fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.queued.notify_one();
        let writer = self
            .writer
            .lock()
            .expect("invariant: no panic under the lock")
            .take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the journal has failed");
        }
        self.readers.close().await;
    }
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("invariant: no panic under the lock")
    }

    fn roll(&self) -> std::sync::MutexGuard<'_, roll::Memory> {
        self.roll
            .lock()
            .expect("invariant: no panic under the lock")
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, tail::Tail> {
        self.tail
            .lock()
            .expect("invariant: no panic under the lock")
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks
            .lock()
            .expect("invariant: no panic under the lock")
    }
}

impl PresenceLog for Journal {
    fn append(&self, batch: Vec<Presence>, kept: Kept) {
        {
            let mut queue = self.shared.queue();
            if !queue.closed {
                queue.batches.push((batch, kept));
                drop(queue);
                self.shared.queued.notify_one();
                return;
            }
        }
        kept(Arrivals::Failed);
    }
}

impl Roll for Journal {
    fn instance(&self) -> &str {
        &self.shared.instance
    }

    fn online(&self) -> Vec<Online> {
        self.shared.roll().online()
    }

    fn online_of(&self, thing: ThingId) -> Vec<Online> {
        self.shared.roll().online_of(thing)
    }

    fn len(&self) -> usize {
        self.shared.roll().len()
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.roll().snapshot()
    }

    fn admitted_as(&self, session: SessionId) -> SessionId {
        self.shared.roll().origin(session)
    }
}

#[async_trait]
impl EventLog for Journal {
    fn stream(&self) -> Stream {
        Stream::Mqtt
    }

    fn producer(&self) -> Uuid {
        self.shared.marks().producer
    }

    async fn read(&self, position: u64, limit: usize) -> Result<Vec<Entry>, LogError> {
        let changes = self.read_changes(position, limit).await?;
        let entry = |noted: Noted| Entry {
            position: noted.position,
            fields: event::presence(&noted.presence, &noted.instance, self.shared.extended),
        };
        Ok(changes.into_iter().map(entry).collect())
    }

    fn last(&self) -> u64 {
        *self.shared.last.borrow()
    }

    fn relayed(&self) -> u64 {
        self.shared.marks().relayed
    }

    /// Written with the next commit or within a second: a lower mark than the true one only means that
    /// entries are offered again.
    async fn set_relayed(&self, position: u64) -> Result<(), LogError> {
        let mut marks = self.shared.marks();
        (marks.relayed, marks.changed) = (position, true);
        Ok(())
    }

    async fn renew_producer(&self) -> Result<Uuid, LogError> {
        let producer = Uuid::new_v4();
        // At once: positions are counted anew under this name.
        sqlx::query("UPDATE journal SET producer = ?")
            .bind(producer.as_bytes().as_slice())
            .execute(&self.pool)
            .await
            .map_err(|error| LogError {
                doing: "rename",
                source: boxed(error),
            })?;
        self.shared.marks().producer = producer;
        let renewed = Claim::take(producer);
        let mut claim = self
            .claim
            .lock()
            .expect("invariant: no panic under the lock");
        if let Ok(Some(renewed)) = renewed {
            *claim = renewed;
        }
        Ok(producer)
    }

    async fn wait(&self, position: u64) {
        let mut last = self.shared.last.subscribe();
        // The sender lives as long as the journal.
        let _ = last.wait_for(|last| *last > position).await;
    }
}

#[async_trait]
impl rollcall_domain::presence::Journal for Journal {
    async fn read_changes(&self, position: u64, limit: usize) -> Result<Vec<Noted>, LogError> {
        let recent = self.shared.tail().read(position, limit);
        if let Some(recent) = recent {
            let noted = |(position, presence)| Noted {
                position,
                instance: Arc::clone(&self.shared.instance),
                presence,
            };
            return Ok(recent.into_iter().map(noted).collect());
        }
        look::read(&self.readers, position, limit).await
    }

    async fn reannounce(&self, sessions: Vec<SessionId>) {
        let (sender, done) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            if queue.closed {
                return;
            }
            queue.reannounced.push((sessions, sender));
        }
        self.shared.queued.notify_one();
        // An error says that the writer is gone, and with it all sessions.
        let _ = done.await;
    }

    fn place(&self) -> &str {
        &self.place
    }
}
