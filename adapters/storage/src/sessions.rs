//! Sessions and messages that outlive their connections and this process.
//!
//! One thread writes ([`writer`]): whatever waits is committed together, and of a message that came and was
//! acknowledged meanwhile nothing is written. What an earlier run left is read once, at the start ([`load`]).

mod load;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rollcall_domain::sessions::{Change, Kept, Left, SessionStore};
use rusqlite::{Connection, OpenFlags};

use crate::journal::Durability;
use crate::lock::Lock;
use crate::{OpenError, boxed};
use writer::Writer;

/// In the header of the file: this is ours. ("roll" in ASCII.)
const APPLICATION: i32 = 0x726f_6c6c;
const VERSION: i32 = 1;

/// The open file of sessions.
pub struct Sessions {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    _lock: Lock,
}

/// What the writer and everybody else have in common.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something is in the queue, or it was closed.
    queued: Condvar,
    backlog: AtomicUsize,
    failing: AtomicBool,
}

#[derive(Default)]
struct Queue {
    batches: Vec<(Vec<Change>, Kept)>,
    closed: bool,
}

impl Sessions {
    /// Opens the file, or makes it, and reads what an earlier run left.
    ///
    /// Commits are `commit_interval` apart at least; what comes meanwhile is committed together.
    ///
    /// # Errors
    /// The file cannot be made, is none of ours or damaged, or another process has it.
    pub fn open(
        path: &Path,
        durability: Durability,
        commit_interval: Duration,
    ) -> Result<(Arc<Self>, Left), OpenError> {
        let lock = Lock::take(path)?;
        let mut connection = connect(path, durability).map_err(|error| OpenError::Open {
            path: path.into(),
            source: boxed(error),
        })?;
        let left = load::load(&mut connection).map_err(|source| OpenError::Damaged {
            path: path.into(),
            source,
        })?;
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(connection, Arc::clone(&shared), commit_interval);
        let writer = std::thread::Builder::new()
            .name("sessions".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Create {
                path: path.into(),
                source,
            })?;
        let sessions = Self {
            shared,
            writer: Mutex::new(Some(writer)),
            _lock: lock,
        };
        Ok((Arc::new(sessions), left))
    }

    /// Commits what was given, and closes the file. What comes later is not kept. Blocks.
    pub fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.queued.notify_one();
        let writer = self
            .writer
            .lock()
            .expect("invariant: no panic under the lock")
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the writer of sessions has failed");
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.close();
    }
}

impl SessionStore for Sessions {
    fn keep(&self, batch: Vec<Change>, kept: Kept) {
        let bytes: usize = batch.iter().map(rows::cost).sum();
        let mut queue = self.shared.queue();
        if queue.closed {
            return;
        }
        self.shared.backlog.fetch_add(bytes, Ordering::Relaxed);
        queue.batches.push((batch, kept));
        drop(queue);
        self.shared.queued.notify_one();
    }

    fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    fn backlog(&self) -> usize {
        self.shared.backlog.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("invariant: no panic under the lock")
    }
}

fn pragma_of(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Opens the database, ours or a new one.
fn connect(path: &Path, durability: Durability) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(32);
    let pragma = |name| pragma_of(&connection, name);
    let known = (pragma("application_id")?, pragma("user_version")?);
    let tables = pragma("schema_version")? != 0;
    if tables && known != (APPLICATION.into(), VERSION.into()) {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "it is of another program, or of version {}",
            known.1
        )));
    }
    if !tables {
        // So that it can shrink; to be said before anything is written.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Disk => "FULL",
        Durability::Process => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2000)?;
    if !tables {
        let transaction = connection.transaction()?;
        transaction.execute_batch(include_str!("sessions/schema.sql"))?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    } else if pragma_of(&connection, "auto_vacuum")? == 0 && writer::has_much_room(&connection)? {
        // It was made when files could not shrink.
        tracing::info!(path = %path.display(), "writing sessions and messages anew, since they are few now");
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")?;
    }
    Ok(connection)
}
