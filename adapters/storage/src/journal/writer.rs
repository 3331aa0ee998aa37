//! The one who writes the journal.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_domain::identity::{SessionId, Timestamp};
use rollcall_domain::presence::{Arrivals, Change, Farewell, Kept, Presence, Session};
use sqlx::sqlite::SqlitePool;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use super::metrics::Metrics;
use super::roll::{Recovered, cost};
use super::{Config, Shared, WhenFull, group};

/// Events of one commit, but for batches that are larger themselves.
const MAX_GROUP: usize = 1024;
/// How often it is noted that this instance is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a file that cannot be written is left alone.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Events after which the roll is kept as a checkpoint, so that the next start has less to read.
const CHECKPOINT_EVENTS: u64 = 500_000;
/// What a row takes besides its events, about.
const ROW_BYTES: u64 = 48;
/// Bytes that are deleted between two commits, as long as there is room.
const TRIM_BYTES: u64 = 1024 * 1024;
/// Rows that are deleted at one time.
const TRIM_ROWS: i64 = 512;

type Batch = (Vec<Presence>, Kept);

pub(super) struct Writer {
    pool: SqlitePool,
    shared: Arc<Shared>,
    max_bytes: u64,
    when_full: WhenFull,
    commit_interval: Duration,
    /// Of the last event that is kept.
    position: u64,
    at: Timestamp,
    checkpoint: u64,
    /// Of the last event that had to make room before it was relayed.
    dropped: u64,
    /// Nothing is left that ends before this position.
    trimmed: u64,
    /// Bytes of all events that are kept.
    bytes: u64,
    /// Batches that were taken from the queue and wait for a commit.
    waiting: VecDeque<Batch>,
    /// Departures that could not be written yet.
    owed: Vec<Presence>,
    /// Sessions to be announced again, and whom to tell.
    again: VecDeque<(Vec<SessionId>, oneshot::Sender<()>)>,
    metrics: Metrics,
}

/// What one commit is to keep.
#[derive(Default)]
struct Group {
    events: Vec<Presence>,
    /// Whose arrivals are among them.
    arrived: HashSet<SessionId>,
    bytes: u64,
    answers: Vec<(Kept, Arrivals)>,
}

impl Writer {
    pub(super) async fn new(
        pool: SqlitePool,
        shared: Arc<Shared>,
        config: &Config,
        recovered: &Recovered,
    ) -> Result<Self, sqlx::Error> {
        let bytes: i64 =
            sqlx::query_scalar("SELECT COALESCE(SUM(LENGTH(events) + ?), 0) FROM groups")
                .bind(ROW_BYTES.cast_signed())
                .fetch_one(&pool)
                .await?;
        Ok(Self {
            pool,
            shared,
            max_bytes: config.max_bytes.as_u64(),
            when_full: config.when_full,
            commit_interval: config.commit_interval,
            position: recovered.position,
            at: recovered.at,
            checkpoint: recovered.checkpoint,
            dropped: 0,
            trimmed: 0,
            bytes: bytes.cast_unsigned(),
            waiting: VecDeque::new(),
            owed: Vec::new(),
            again: VecDeque::new(),
            metrics: Metrics::new(),
        })
    }

    /// Has everybody leave whom an earlier run left on the roll, under the name it had.
    pub(super) async fn close_left_open(
        &mut self,
        recovered: Recovered,
    ) -> Result<(), sqlx::Error> {
        let Recovered {
            roll,
            instance,
            alive_at,
            ..
        } = recovered;
        let left: Vec<Presence> = roll
            .online()
            .into_iter()
            .map(|online| Presence {
                session: online.session,
                change: Change::Left(Farewell::InstanceFailed),
                at: alive_at,
            })
            .collect();
        for events in left.chunks(MAX_GROUP) {
            let mut events = events.to_vec();
            self.insert(&mut events, &instance).await?;
            self.metrics.offered(events.len());
            self.metrics.settled(&self.metrics.events, events.len());
        }
        // From here on the sessions are those of this instance.
        sqlx::query("UPDATE journal SET instance = ?, alive_at = ?")
            .bind(&*self.shared.instance)
            .bind(Timestamp::now().0.cast_signed())
            .execute(&self.pool)
            .await?;
        self.keep_roll().await?;
        self.shared.roll().position = self.position;
        self.shared.last.send_replace(self.position);
        Ok(())
    }

    pub(super) async fn run(mut self) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        // The first commit after a pause is made at once.
        let mut next = Instant::now();
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shared = Arc::clone(&self.shared);
            let idle = !self.has_work();
            tokio::select! {
                biased;
                () = shared.queued.notified(), if idle => {}
                _ = heartbeat.tick() => self.beat().await,
                () = std::future::ready(()), if !idle => {}
            }
            tokio::time::sleep_until(next).await;
            next = Instant::now() + self.commit_interval;
            let closed = self.take_queue();
            if self.has_work() && !self.write().await {
                tokio::time::sleep(RETRY_PAUSE).await;
                if closed {
                    tracing::error!(events = self.owed.len(), "the journal closes without them");
                    self.metrics.settled(&self.metrics.failed, self.owed.len());
                    self.owed.clear();
                }
            }
            if closed && !self.has_work() {
                self.beat().await;
                if let Err(error) = self.keep_roll().await {
                    tracing::warn!(%error, "cannot keep the roll; the next start reads the events");
                }
                self.pool.close().await;
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.owed.is_empty() || !self.again.is_empty()
    }

    /// Moves what was queued to what waits. Returns whether nothing more will come.
    fn take_queue(&mut self) -> bool {
        let mut queue = self.shared.queue();
        for (batch, kept) in std::mem::take(&mut queue.batches) {
            self.metrics.offered(batch.len());
            self.waiting.push_back((batch, kept));
        }
        self.again.extend(std::mem::take(&mut queue.reannounced));
        if queue.closed {
            // Everybody leaves, or has left.
            self.again.clear();
        }
        queue.closed
    }

    /// Commits some of what waits. Returns whether the file could be written.
    async fn write(&mut self) -> bool {
        // While the file cannot be written, whoever waits for an answer comes first.
        let writable = self.shared.writable.load(Ordering::Relaxed);
        let first = writable || self.waiting.is_empty();
        if first && self.owed.is_empty() && !self.again.is_empty() {
            return self.write_again().await;
        }
        let first = self.position + 1;
        let mut group = self.gather().await;
        let begin = Instant::now();
        let instance = Arc::clone(&self.shared.instance);
        let result = match group.events.is_empty() {
            true => Ok(()),
            false => self.insert(&mut group.events, &instance).await,
        };
        match &result {
            Ok(()) => {
                self.owed.clear();
                self.metrics.commit.record(begin.elapsed().as_secs_f64());
                self.committed(first, group.events, &[]);
            }
            Err(error) => {
                self.failed(error);
                // Who was on the roll leaves it later; who was to arrive with this group never did.
                let events = group.events.len();
                self.owed = group.events;
                self.owed
                    .retain(|event| !group.arrived.contains(&event.session.id));
                let given_up = events - self.owed.len();
                self.metrics.settled(&self.metrics.failed, given_up);
            }
        }
        for (kept, arrivals) in group.answers {
            match (&result, arrivals) {
                (Err(_), Arrivals::Kept) => kept(Arrivals::Failed),
                (_, arrivals) => kept(arrivals),
            }
        }
        if result.is_ok()
            && self.position - self.checkpoint >= CHECKPOINT_EVENTS
            && let Err(error) = self.keep_roll().await
        {
            tracing::warn!(%error, "cannot keep the roll");
        }
        result.is_ok()
    }

    /// What was written counts from now on. `continued` are sessions on the roll, and as what they were let in.
    fn committed(&self, first: u64, events: Vec<Presence>, continued: &[(SessionId, SessionId)]) {
        {
            let mut roll = self.shared.roll();
            for (position, event) in (first..).zip(&events) {
                roll.apply(position, event);
            }
            for (session, origin) in continued {
                roll.continues(*origin, *session);
            }
            self.metrics.online.set(roll.len() as f64);
        }
        self.metrics.settled(&self.metrics.events, events.len());
        self.metrics.bytes.set(self.bytes as f64);
        if !events.is_empty() {
            self.shared.tail().push(first, events);
        }
        self.shared.last.send_replace(self.position);
        if !self.shared.writable.swap(true, Ordering::Relaxed) {
            tracing::info!("the journal can be written again");
        }
    }

    fn failed(&self, error: &sqlx::Error) {
        self.metrics.failures.increment(1);
        if self.shared.writable.swap(false, Ordering::Relaxed) {
            let reason = "new sessions are refused, departures wait";
            tracing::error!(%error, reason, "cannot write the journal");
        }
    }

    /// Has sessions leave that others have closed, and arrive again as others. Not refused when the journal is
    /// full: it then holds one arrival more for each.
    async fn write_again(&mut self) -> bool {
        let Some((sessions, _)) = self.again.front() else {
            return true;
        };
        let (mut events, mut continued) = (Vec::new(), Vec::new());
        {
            let roll = self.shared.roll();
            for id in sessions {
                if !roll.has(*id) {
                    continue;
                }
                let origin = roll.origin(*id);
                let session = roll.current(origin).expect("invariant: just seen");
                let again = Session {
                    id: id.again(),
                    ..(**session).clone()
                };
                continued.push((again.id, origin));
                let at = Timestamp::now();
                let changes = [
                    (Arc::clone(session), Change::Left(Farewell::InstanceFailed)),
                    (Arc::new(again), Change::Arrived),
                ];
                events.extend(changes.map(|(session, change)| Presence {
                    session,
                    change,
                    at,
                }));
            }
        }
        let first = self.position + 1;
        let instance = Arc::clone(&self.shared.instance);
        if !events.is_empty()
            && let Err(error) = self.insert(&mut events, &instance).await
        {
            self.failed(&error);
            return false;
        }
        self.metrics.offered(events.len());
        self.committed(first, events, &continued);
        if let Some((_, done)) = self.again.pop_front() {
            // Whoever asked may have gone away.
            let _ = done.send(());
        }
        true
    }

    /// The next group: what is owed, then whole batches as they came.
    async fn gather(&mut self) -> Group {
        let mut group = Group::default();
        for event in std::mem::take(&mut self.owed) {
            group.bytes += cost(&event);
            group.events.push(event);
        }
        while let Some((batch, _)) = self.waiting.front() {
            if !group.events.is_empty() && group.events.len() + batch.len() > MAX_GROUP {
                break;
            }
            let (batch, kept) = self.waiting.pop_front().expect("invariant: just seen");
            let arrivals = self.arrivals(&batch, group.bytes).await;
            self.add(&mut group, batch, arrivals);
            group.answers.push((kept, arrivals));
        }
        group
    }

    /// Whether there is room for the arrivals of a batch, and for their departures, besides `grouped` bytes
    /// that are to be committed with it.
    async fn arrivals(&mut self, batch: &[Presence], grouped: u64) -> Arrivals {
        let arriving = batch.iter().filter(|event| event.change == Change::Arrived);
        let (mut count, mut needed) = (0, 0);
        for event in arriving {
            count += 1;
            needed += 2 * cost(event);
        }
        if count == 0 {
            return Arrivals::Kept;
        }
        needed += grouped + ROW_BYTES;
        let reserved = self.shared.roll().reserved_bytes;
        let fits = |bytes: u64| bytes.saturating_add(reserved + needed);
        if fits(self.bytes) > self.max_bytes / 2 {
            // Relayed events go first, in good time and some at a time: others wait for their commit meanwhile.
            let half = (self.max_bytes / 2).saturating_sub(reserved + needed);
            let relayed = self.shared.marks().relayed;
            self.trim(half.max(self.bytes.saturating_sub(TRIM_BYTES)), relayed)
                .await;
            if fits(self.bytes) > self.max_bytes {
                self.trim(half, relayed).await;
            }
        }
        if fits(self.bytes) > self.max_bytes && self.when_full == WhenFull::DropOldest {
            let target = self.max_bytes.saturating_sub(reserved + needed);
            let gone = self.shared.marks().relayed.max(self.dropped);
            let end = self.trim(target, self.position).await;
            self.dropped = end.max(self.dropped);
            self.metrics.dropped.increment(end.saturating_sub(gone));
        }
        if fits(self.bytes) > self.max_bytes {
            self.metrics.settled(&self.metrics.refused, count);
            return Arrivals::Full;
        }
        Arrivals::Kept
    }

    /// Departures of sessions that are neither on the roll nor about to be are of arrivals refused.
    fn add(&self, group: &mut Group, batch: Vec<Presence>, arrivals: Arrivals) {
        let roll = self.shared.roll();
        for mut event in batch {
            if event.change != Change::Arrived
                && let Some(session) = roll.current(event.session.id)
            {
                event.session = Arc::clone(session);
            }
            let id = event.session.id;
            let keep = match event.change {
                Change::Arrived => arrivals == Arrivals::Kept && group.arrived.insert(id),
                Change::Left(_) => roll.has(id) || group.arrived.contains(&id),
            };
            if keep {
                // An arrival takes the room of its departure along.
                group.bytes += cost(&event)
                    * if event.change == Change::Arrived {
                        2
                    } else {
                        1
                    };
                group.events.push(event);
            } else if event.change != Change::Arrived || arrivals == Arrivals::Kept {
                self.metrics.settled(&self.metrics.moot, 1);
            }
        }
    }

    /// Writes `events` as one row, which is one transaction, and gives them their final times.
    async fn insert(&mut self, events: &mut [Presence], instance: &str) -> Result<(), sqlx::Error> {
        let mut bytes = Vec::with_capacity(events.len() * (group::EVENT_BYTES + 16));
        let mut at = self.at;
        for event in events.iter_mut() {
            at = event.at.max(at.next());
            event.at = at;
            group::encode(&mut bytes, event);
        }
        let (first, last) = (self.position + 1, self.position + events.len() as u64);
        let len = bytes.len() as u64;
        sqlx::query("INSERT INTO groups (first, last, instance, events) VALUES (?, ?, ?, ?)")
            .bind(first.cast_signed())
            .bind(last.cast_signed())
            .bind(instance)
            .bind(bytes)
            .execute(&self.pool)
            .await?;
        (self.position, self.at) = (last, at);
        self.bytes += len + ROW_BYTES;
        Ok(())
    }

    /// Deletes the oldest groups, none with an event after `upto`, until no more than `target` bytes are
    /// kept. Returns the position of the last event that was deleted, or 0.
    async fn trim(&mut self, target: u64, upto: u64) -> u64 {
        let mut end = 0;
        if upto <= self.trimmed {
            return end;
        }
        if self.checkpoint < upto
            && let Err(error) = self.keep_roll().await
        {
            tracing::warn!(%error, "cannot keep the roll, so no events are deleted");
            return end;
        }
        let upto = upto.min(self.checkpoint);
        while self.bytes > target {
            match delete_oldest(&self.pool, self.bytes - target, upto).await {
                Ok((_, 0)) => {
                    self.trimmed = upto;
                    break;
                }
                Ok((last, freed)) => {
                    end = last;
                    self.bytes = self.bytes.saturating_sub(freed);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot delete old events of the journal");
                    break;
                }
            }
        }
        self.shared.tail().forget(end);
        end
    }

    /// Keeps the roll as it is now, so that no event up to here is needed to know it.
    async fn keep_roll(&mut self) -> Result<(), sqlx::Error> {
        let roll = self.shared.roll().encode();
        sqlx::query("UPDATE journal SET roll_position = ?, roll_at = ?, roll = ?")
            .bind(self.position.cast_signed())
            .bind(self.at.0.cast_signed())
            .bind(roll)
            .execute(&self.pool)
            .await?;
        self.checkpoint = self.position;
        Ok(())
    }

    /// Notes that this instance is alive while anyone is on the roll, and what was relayed.
    async fn beat(&mut self) {
        let marks = {
            let mut marks = self.shared.marks();
            let now = *marks;
            marks.changed = false;
            now
        };
        if !marks.changed && self.shared.roll().len() == 0 {
            return;
        }
        let result = sqlx::query("UPDATE journal SET relayed = ?, alive_at = ?")
            .bind(marks.relayed.cast_signed())
            .bind(Timestamp::now().0.cast_signed())
            .execute(&self.pool)
            .await;
        if let Err(error) = result {
            self.shared.marks().changed |= marks.changed;
            tracing::debug!(%error, "cannot note that the instance is alive");
        }
    }
}

/// Deletes some of the oldest groups, to free about `excess` bytes. Returns the position of the last event
/// deleted, and the bytes.
async fn delete_oldest(
    pool: &SqlitePool,
    excess: u64,
    upto: u64,
) -> Result<(u64, u64), sqlx::Error> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        // Bounded by what is indexed, too: there may be millions of others.
        "SELECT last, LENGTH(events) FROM groups WHERE first <= ?1 AND last <= ?1
         ORDER BY first LIMIT ?2",
    )
    .bind(upto.cast_signed())
    .bind(TRIM_ROWS)
    .fetch_all(pool)
    .await?;
    let (mut freed, mut end) = (0, 0_i64);
    for (last, len) in rows {
        if freed >= excess {
            break;
        }
        freed += len.cast_unsigned() + ROW_BYTES;
        end = last;
    }
    if freed > 0 {
        sqlx::query("DELETE FROM groups WHERE first <= ?")
            .bind(end)
            .execute(pool)
            .await?;
    }
    Ok((end.cast_unsigned(), freed))
}
