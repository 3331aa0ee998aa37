//! The one who writes sessions and messages.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use rollcall_domain::sessions::{Change, Kept, MessageNumber, SessionNumber};
use rusqlite::{Connection, TransactionBehavior};

use super::{Queue, Shared, pragma_of, rows};

/// How long a file that cannot be written is left alone.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long nothing must have come before the file gives back room, and from one step of that to the next.
const QUIET: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);
/// Pages of one step: some milliseconds, which whoever comes meanwhile waits.
const STEP: u32 = 1024;
/// Unused pages that are left alone: there will be messages again.
const SPARE: i64 = 1024;
/// How often that is tried once nothing more will come.
const LAST_TRIES: u32 = 20;

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    commit_interval: Duration,
    /// Taken from the queue, to be committed together.
    changes: Vec<Change>,
    kept: Vec<Kept>,
    /// The file may be larger than it has to be.
    loose: bool,
    metrics: Metrics,
}

struct Metrics {
    changes: Counter,
    failures: Counter,
    backlog: Gauge,
    commit: Histogram,
}

impl Metrics {
    fn new() -> Self {
        describe_counter!(
            "rollcall_sessions_changes_total",
            "Changes of kept sessions and messages that were committed"
        );
        describe_counter!(
            "rollcall_sessions_failures_total",
            "Commits of sessions and messages that failed"
        );
        describe_gauge!(
            "rollcall_sessions_backlog_bytes",
            "Changes of sessions and messages that wait to be committed"
        );
        describe_histogram!(
            "rollcall_sessions_commit_seconds",
            "How long commits of sessions and messages took"
        );
        Self {
            changes: counter!("rollcall_sessions_changes_total"),
            failures: counter!("rollcall_sessions_failures_total"),
            backlog: gauge!("rollcall_sessions_backlog_bytes"),
            commit: histogram!("rollcall_sessions_commit_seconds"),
        }
    }
}

/// What became of a delivery within one commit.
#[derive(Default)]
struct Course {
    place: Option<u64>,
    released: Option<NonZeroU64>,
    done: bool,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        commit_interval: Duration,
    ) -> Self {
        Self {
            connection,
            shared,
            commit_interval,
            changes: Vec::new(),
            kept: Vec::new(),
            loose: true,
            metrics: Metrics::new(),
        }
    }

    pub(super) fn run(mut self) {
        // The first commit after a pause is made at once.
        let mut next = Instant::now();
        let mut tries = LAST_TRIES;
        loop {
            self.wait(next);
            next = Instant::now() + self.commit_interval;
            let closed = self.take_queue();
            if self.kept.is_empty() {
                if closed {
                    return;
                }
                continue;
            }
            if !self.write() {
                next = Instant::now() + RETRY_PAUSE;
                if closed {
                    tries -= 1;
                    if tries == 0 {
                        let changes = self.changes.len();
                        tracing::error!(changes, "sessions and messages close without changes");
                        return;
                    }
                }
            }
        }
    }

    /// Returns when there is something to do, not before `next`. Until then the file gives back room.
    fn wait(&mut self, next: Instant) {
        let shared = Arc::clone(&self.shared);
        let mut patience = QUIET;
        while self.kept.is_empty() {
            let idle = |queue: &mut Queue| queue.batches.is_empty() && !queue.closed;
            let queue = shared.queue();
            if !self.loose {
                let came = shared.queued.wait_while(queue, idle);
                drop(came.expect("invariant: no panic under the lock"));
                break;
            }
            let came = shared.queued.wait_timeout_while(queue, patience, idle);
            let (queue, waited) = came.expect("invariant: no panic under the lock");
            drop(queue);
            if !waited.timed_out() {
                break;
            }
            self.loose = match give_back(&self.connection) {
                Ok(more) => more,
                Err(error) => {
                    tracing::debug!(%error, "sessions and messages give back no room");
                    false
                }
            };
            patience = PAUSE;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }

    /// Moves what was queued to what is to be committed. Returns whether nothing more will come.
    fn take_queue(&mut self) -> bool {
        let mut queue = self.shared.queue();
        for (changes, kept) in queue.batches.drain(..) {
            self.changes.extend(changes);
            self.kept.push(kept);
        }
        queue.closed
    }

    /// Commits what was taken. Returns whether the file could be written.
    fn write(&mut self) -> bool {
        let begin = Instant::now();
        let failing = &self.shared.failing;
        if let Err(error) = commit(&mut self.connection, &self.changes) {
            self.metrics.failures.increment(1);
            if !failing.swap(true, Ordering::Relaxed) {
                let reason = "what promises to keep something is not acknowledged";
                tracing::error!(%error, reason, "cannot write sessions and messages");
            }
            return false;
        }
        if failing.swap(false, Ordering::Relaxed) {
            tracing::info!("sessions and messages can be written again");
        }
        self.loose = true;
        self.metrics.commit.record(begin.elapsed().as_secs_f64());
        self.metrics.changes.increment(self.changes.len() as u64);
        let bytes = self.changes.iter().map(rows::cost).sum();
        let before = self.shared.backlog.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.backlog.set((before - bytes) as f64);
        self.changes.clear();
        for kept in self.kept.drain(..) {
            kept();
        }
        true
    }
}

/// Whether most of the file is unused.
pub(super) fn has_much_room(connection: &Connection) -> rusqlite::Result<bool> {
    let unused = pragma_of(connection, "freelist_count")?;
    Ok(unused > SPARE.max(pragma_of(connection, "page_count")? / 2))
}

/// Makes the file smaller by a step, if most of it is unused. Returns whether there is more to do.
fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
    if !has_much_room(connection)? {
        return Ok(false);
    }
    let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    if has_much_room(connection)? {
        return Ok(true);
    }
    // The file itself is cut when the log is worked off.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(false)
}

fn commit(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let courses = courses(changes);
    // Deliveries that are to be written, by message.
    let mut wanted: HashMap<MessageNumber, u32> = HashMap::new();
    for ((_, message), course) in &courses {
        *wanted.entry(*message).or_default() += u32::from(!course.done);
    }
    let wanted = |message| wanted.get(message).is_some_and(|count| *count > 0);
    let mut loose = Vec::new();
    let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in changes {
        match change {
            Change::Connected(number, session, will) => {
                rows::connected(&db, *number, session, will.as_ref())?;
            }
            Change::Left {
                session,
                ends,
                will,
            } => rows::left(&db, *session, *ends, *will)?,
            Change::WillGone(session) => rows::will_gone(&db, *session)?,
            Change::Ended(session) => rows::ended(&db, *session, &mut loose)?,
            Change::Subscribed(session, it) => rows::subscribed(&db, *session, it)?,
            Change::Unsubscribed(session, filter) => rows::unsubscribed(&db, *session, filter)?,
            Change::Message(number, message) if wanted(number) => {
                rows::message(&db, *number, message)?;
            }
            Change::Message(..) => {}
            Change::Queued(session, delivery) => {
                let course = &courses[&(*session, delivery.message)];
                if !course.done
                    && !rows::queued(&db, *session, delivery, course.place, course.released)?
                {
                    loose.push(delivery.message);
                }
            }
            // What was queued in this commit has been dealt with.
            Change::Sent(session, message, _)
            | Change::Released(session, message, _)
            | Change::Done(session, message)
                if courses.contains_key(&(*session, *message)) => {}
            Change::Sent(session, message, place) => rows::sent(&db, *session, *message, *place)?,
            Change::Released(session, message, order) => {
                rows::released(&db, *session, *message, *order)?;
            }
            Change::Done(session, message) => {
                rows::done(&db, *session, *message)?;
                loose.push(*message);
            }
            Change::Received(session, packet) => rows::received(&db, *session, *packet)?,
            Change::Unreceived(session, packet) => rows::unreceived(&db, *session, *packet)?,
            Change::Retained(topic, message) => rows::retained(&db, topic, message.as_ref())?,
        }
    }
    for message in loose {
        rows::sweep(&db, message)?;
    }
    db.commit()
}

/// What became of all that was queued in these changes.
fn courses(changes: &[Change]) -> HashMap<(SessionNumber, MessageNumber), Course> {
    let mut courses: HashMap<_, Course> = HashMap::new();
    for change in changes {
        match change {
            Change::Queued(session, delivery) => {
                let course = Course {
                    place: delivery.place,
                    released: delivery.released,
                    done: false,
                };
                courses.insert((*session, delivery.message), course);
            }
            Change::Sent(session, message, place) => {
                if let Some(course) = courses.get_mut(&(*session, *message)) {
                    course.place = Some(*place);
                }
            }
            Change::Released(session, message, order) => {
                if let Some(course) = courses.get_mut(&(*session, *message)) {
                    course.released = Some(*order);
                }
            }
            Change::Done(session, message) => {
                if let Some(course) = courses.get_mut(&(*session, *message)) {
                    course.done = true;
                }
            }
            _ => {}
        }
    }
    courses
}
