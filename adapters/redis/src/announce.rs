//! Presence on its way to its stream, and the roll that is kept in step with it.
//!
//! The script that appends an event changes the part of this instance too and notes the id of the event as that at which
//! the part is valid. A disconnect is appended only if its session is on the roll: so whoever ended it first has the only
//! word.

use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisWrite};
use rollcall_domain::event;
use rollcall_domain::identity::{SessionId, Timestamp};
use rollcall_domain::ports::{EventLog, LogError};
use rollcall_domain::presence::{Change, Journal, Noted, Online, Presence, Session};
use tokio::sync::watch;

use crate::Config;
use crate::clock::RedisClock;
use crate::lease::{Held, Keeper};
use crate::relay::{Carried, Passage, Trouble};
use crate::roll::{self, Keys};
use crate::script::{Script, Target};

static APPEND: Script = Script::new(concat!(
    include_str!("append.lua"),
    include_str!("left.lua"),
    include_str!("clients.lua"),
    include_str!("announce.lua")
));
static REBUILD: Script = Script::new(concat!(
    include_str!("left.lua"),
    include_str!("clients.lua"),
    include_str!("rebuild.lua")
));
static RESTORE: Script = Script::new(concat!(
    include_str!("left.lua"),
    include_str!("clients.lua"),
    include_str!("restore.lua")
));
static ADOPT: Script = Script::new(include_str!("adopt.lua"));

/// Sessions of one script call, where not `redis.batch` says.
const STEP: usize = 256;
/// Arguments of an event, and their bytes: at least what most have.
const ARGUMENTS: usize = 16;
const ARGUMENTS_BYTES: usize = 512;

/// From the journal of presence to its stream.
pub(crate) struct Presences {
    journal: Arc<dyn Journal>,
    extended: bool,
    config: Config,
    keys: Keys,
    instance: String,
    target: Target,
    /// The lease as it comes and goes, and who to tell that it is over.
    leases: watch::Receiver<Held>,
    doubted: watch::Sender<String>,
    held: Held,
    /// The epoch up to which nobody has closed sessions that are not announced anew.
    settled: String,
    /// The epoch that was found to be over.
    over: Option<String>,
    clock: RedisClock,
    /// When this run began.
    began: Timestamp,
    /// The part of the roll is made anew, and whole when this position is reached.
    rebuilding: Option<u64>,
    /// The part is to be made anew when there is nothing else to do.
    gapped: bool,
    /// What comes next, made while Redis was at work on what came before it.
    ahead: Option<Load>,
    metrics: Metrics,
}

/// Events made ready to be sent.
struct Load {
    /// The position before them, and that of the last.
    after: u64,
    last: u64,
    pipeline: Pipeline,
}

struct Metrics {
    rebuilt: Counter,
    reannounced: Counter,
    taken_over: Counter,
}

impl Presences {
    pub(crate) fn new(
        config: Config,
        journal: Arc<dyn Journal>,
        extended: bool,
        keeper: &Keeper,
    ) -> Self {
        describe_counter!(
            "rollcall_sessions_reannounced_total",
            "Live sessions announced again since others had closed them"
        );
        describe_counter!(
            "rollcall_roll_rebuilt_total",
            "Times the roll in Redis was made anew from the journal"
        );
        describe_counter!(
            "rollcall_sessions_taken_over_total",
            "Sessions of other instances that arrivals of the same client here have ended"
        );
        Self {
            extended,
            keys: Keys::new(&config.prefix),
            instance: journal.instance().to_owned(),
            target: Target::new(&config, &*journal),
            leases: keeper.held(),
            doubted: keeper.doubted(),
            held: Held::default(),
            settled: String::new(),
            over: None,
            clock: RedisClock::default(),
            began: Timestamp::now(),
            rebuilding: None,
            gapped: false,
            ahead: None,
            metrics: Metrics {
                rebuilt: counter!("rollcall_roll_rebuilt_total"),
                reannounced: counter!("rollcall_sessions_reannounced_total"),
                taken_over: counter!("rollcall_sessions_taken_over_total"),
            },
            journal,
            config,
        }
    }

    fn append(&self, after: u64, noted: &[Noted]) -> Cmd {
        let mut call = APPEND.call_with(ARGUMENTS * noted.len(), ARGUMENTS_BYTES * noted.len());
        let takes = self.config.take_over;
        let (keys, instance) = (&self.keys, &*self.instance);
        call.arg(7)
            .arg(&self.target.stream)
            .arg(&self.target.producers)
            .arg(keys.roll())
            .arg(keys.part(instance))
            .arg(keys.record(instance))
            .arg(keys.ousted(instance))
            .arg(keys.clients());
        call.arg(instance)
            .arg(&self.held.epoch)
            .arg(&self.target.producer)
            .arg(after)
            .arg(self.config.max_stream_length)
            .arg(u8::from(self.target.is_guarded))
            .arg(u8::from(self.extended))
            .arg(self.clock.ahead())
            .arg(self.clock.doubt());
        for Noted {
            position,
            instance,
            presence,
        } in noted
        {
            let session = &presence.session;
            call.arg(*position).write_arg_fmt(session.id);
            match presence.change {
                Change::Arrived => roll::add_row(&mut call, session, presence.at, instance),
                Change::Left(_) => {
                    // Of an earlier run nobody knows whether its sessions took places.
                    let is_sure = takes && session.id.began() > self.began;
                    call.arg(if is_sure { "-" } else { "" });
                }
            }
            self.add_client(&mut call, session);
            add_event(&mut call, presence, instance, self.extended);
        }
        call
    }

    async fn read(&self, position: u64) -> Result<Vec<Noted>, LogError> {
        let limit = self.config.batch * self.config.pipeline;
        self.journal.read_changes(position, limit).await
    }

    fn load(&self, after: u64, noted: &[Noted]) -> Load {
        let mut pipeline = Pipeline::with_capacity(noted.len().div_ceil(self.config.batch));
        let mut last = after;
        for batch in noted.chunks(self.config.batch) {
            pipeline.add_command(self.append(last, batch));
            last = batch.last().map_or(last, |noted| noted.position);
        }
        Load {
            after,
            last,
            pipeline,
        }
    }

    /// What comes after `after`, if it is much: little had better go out with what comes meanwhile.
    async fn look_ahead(&self, after: u64) -> Result<Option<Load>, LogError> {
        if self.journal.last() < after + self.config.batch as u64 {
            return Ok(None);
        }
        let noted = self.read(after).await?;
        // What is missing is to be restored before anything else is sent.
        let follows = noted.first().is_some_and(|it| it.position == after + 1);
        Ok(follows.then(|| self.load(after, &noted)))
    }

    /// Sessions whose arrival the journal and the stream have both lost, as if they arrived now.
    async fn restore(
        &self,
        redis: &mut MultiplexedConnection,
        lost: std::ops::Range<u64>,
    ) -> Result<u64, RedisError> {
        let mut online = self.journal.snapshot().online;
        online.retain(|(position, _)| lost.contains(position));
        let mut restored = 0;
        for step in online.chunks(STEP) {
            let mut call = RESTORE.call();
            self.add_keys(&mut call);
            call.arg(self.config.max_stream_length)
                .arg(u8::from(self.extended))
                .arg(self.clock.ahead())
                .arg(self.clock.doubt());
            for (_, Online { session, since }) in step {
                let presence = Presence {
                    session: Arc::clone(session),
                    change: Change::Arrived,
                    at: *since,
                };
                call.write_arg_fmt(session.id);
                roll::add_row(&mut call, session, presence.at, &self.instance);
                self.add_client(&mut call, session);
                add_event(&mut call, &presence, &self.instance, self.extended);
            }
            restored += call.query_async::<u64>(redis).await?;
        }
        Ok(restored)
    }

    /// The lease, once there is another than the one that is over.
    async fn lease(&mut self) -> Held {
        let (producer, over) = (self.journal.producer(), self.over.take());
        let is_good = |held: &Held| {
            let epoch = &held.epoch;
            held.producer == producer && !epoch.is_empty() && over.as_ref() != Some(epoch)
        };
        let held = self.leases.wait_for(is_good).await.ok();
        let Some(held) = held.map(|held| held.clone()) else {
            // The keeper has ended, so this is about to.
            return std::future::pending().await;
        };
        held
    }

    fn fenced(&mut self) -> Trouble {
        self.over = Some(self.held.epoch.clone());
        self.doubted.send_replace(self.held.epoch.clone());
        Trouble::Fenced
    }

    /// Has sessions arrive again that others have closed, though they are alive.
    async fn reannounce(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), Trouble> {
        let online = self.journal.snapshot().online.into_iter();
        let mut announced: Vec<SessionId> = online
            .filter(|(arrival, _)| *arrival <= position)
            .map(|(_, online)| online.session.id)
            .collect();
        if announced.is_empty() || !self.is_whole(redis, position).await? {
            // Nobody can have been closed, or the part is made anew.
            return Ok(());
        }
        for step in announced.chunks_mut(STEP) {
            let mut call = redis::cmd("HMGET");
            call.arg(self.keys.part(&self.instance));
            for session in step.iter() {
                call.arg(session.to_string());
            }
            let rows: Vec<Option<String>> = call.query_async(redis).await?;
            let mut call = redis::cmd("HMGET");
            call.arg(self.keys.ousted(&self.instance));
            for session in step.iter() {
                call.arg(session.to_string());
            }
            // These are about to be ended.
            let ousted: Vec<Option<String>> = call.query_async(redis).await?;
            let rows = rows.into_iter().zip(ousted).map(|(row, it)| row.or(it));
            let closed = step.iter().zip(rows).filter(|(_, row)| row.is_none());
            let closed: Vec<SessionId> = closed.map(|(session, _)| *session).collect();
            if !closed.is_empty() {
                self.metrics.reannounced.increment(closed.len() as u64);
                tracing::warn!(
                    sessions = closed.len(),
                    "others have closed sessions that are alive: they are announced anew"
                );
                self.journal.reannounce(closed).await;
            }
        }
        Ok(())
    }

    /// Whether the part is on the roll, and has all that was announced and not taken back.
    async fn is_whole(
        &self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<bool, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HLEN").arg(self.keys.part(&self.instance));
        pipeline.cmd("HGET").arg(self.keys.record(&self.instance));
        pipeline.arg("sessions");
        pipeline
            .cmd("HGET")
            .arg(self.keys.roll())
            .arg(&self.instance);
        type Found = (u64, Option<String>, Option<String>);
        let (sessions, expected, valid): Found = pipeline.query_async(redis).await?;
        Ok(match expected {
            Some(expected) => expected == sessions.to_string() && valid.is_some(),
            None => position == 0,
        })
    }

    /// Takes along what this producer has of the roll under an earlier name of the instance.
    async fn adopt(&self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let keys = &self.keys;
        let instances: Vec<String> = Cmd::hkeys(keys.roll()).query_async(redis).await?;
        for earlier in instances {
            let producer: Option<String> = Cmd::hget(keys.record(&earlier), "producer")
                .query_async(redis)
                .await?;
            if earlier == self.instance || producer.as_ref() != Some(&self.target.producer) {
                continue;
            }
            let mut call = ADOPT.call();
            call.arg(7).arg(keys.roll());
            call.arg(keys.part(&earlier)).arg(keys.record(&earlier));
            call.arg(keys.part(&self.instance))
                .arg(keys.record(&self.instance));
            call.arg(keys.ousted(&earlier))
                .arg(keys.ousted(&self.instance));
            call.arg(&earlier)
                .arg(&self.instance)
                .arg(&self.target.producer);
            call.query_async::<u64>(redis).await?;
            tracing::info!(
                earlier,
                "sessions on the roll are those of this instance now"
            );
        }
        Ok(())
    }

    /// Begins to make the part of the roll anew: it becomes what the journal's roll is now, and true when the
    /// stream has come as far.
    async fn rebuild(
        &mut self,
        redis: &mut MultiplexedConnection,
        reached: u64,
    ) -> Result<(), RedisError> {
        // Who arrived later is yet to be announced.
        let mut snapshot = self.journal.snapshot();
        snapshot.online.retain(|(arrival, _)| *arrival <= reached);
        tracing::warn!(
            sessions = snapshot.online.len(),
            "the roll in redis is made anew"
        );
        self.metrics.rebuilt.increment(1);
        self.rebuild_step(redis, "begin", &[]).await?;
        for step in snapshot.online.chunks(STEP) {
            self.rebuild_step(redis, "add", step).await?;
        }
        self.rebuilding = Some(snapshot.position);
        self.gapped = false;
        Ok(())
    }

    async fn rebuild_step(
        &self,
        redis: &mut MultiplexedConnection,
        step: &str,
        online: &[(u64, Online)],
    ) -> Result<(), RedisError> {
        let mut call = REBUILD.call();
        self.add_keys(&mut call);
        call.arg(step);
        for (_, Online { session, since }) in online {
            call.write_arg_fmt(session.id);
            roll::add_row(&mut call, session, *since, &self.instance);
            self.add_client(&mut call, session);
        }
        call.query_async(redis).await
    }

    /// Ends what [`Presences::rebuild`] began, if it is time.
    async fn complete(
        &mut self,
        redis: &mut MultiplexedConnection,
        reached: u64,
    ) -> Result<(), RedisError> {
        if self.rebuilding.is_some_and(|position| reached >= position) {
            self.rebuild_step(redis, "end", &[]).await?;
            self.rebuilding = None;
        }
        Ok(())
    }

    fn add_keys(&self, call: &mut Cmd) {
        call.arg(6)
            .arg(&self.target.stream)
            .arg(self.keys.roll())
            .arg(self.keys.part(&self.instance))
            .arg(self.keys.record(&self.instance))
            .arg(self.keys.ousted(&self.instance))
            .arg(self.keys.clients())
            .arg(&self.instance)
            .arg(&self.held.epoch);
    }

    /// Adds whose place a session takes, if any.
    fn add_client(&self, call: &mut Cmd, session: &Session) {
        match self.config.take_over {
            true => roll::add_client(call, session.thing, &session.client_id),
            false => {
                call.arg("");
            }
        }
    }
}

/// Adds how many fields and values there are, and these.
fn add_event(call: &mut Cmd, presence: &Presence, instance: &str, extended: bool) {
    let mut fields = 0;
    event::tell_presence(presence, instance, extended, &mut |_, _| fields += 1);
    call.arg(2 * fields);
    event::tell_presence(presence, instance, extended, &mut |name, value| {
        call.arg(name).write_arg_fmt(value);
    });
}

impl Passage for Presences {
    fn log(&self) -> &dyn EventLog {
        &*self.journal
    }

    async fn open(&mut self, redis: &mut MultiplexedConnection) -> Result<u64, Trouble> {
        for script in [&APPEND, &REBUILD, &RESTORE, &ADOPT] {
            script.load(redis).await?;
        }
        self.rebuilding = None;
        self.ahead = None;
        self.held = self.lease().await;
        let position = self.target.find_position(redis, &*self.journal).await?;
        if self.held.producer != self.journal.producer() {
            return Err(self.fenced());
        }
        self.adopt(redis).await?;
        self.clock.ask(redis).await?;
        if self.held.epoch != self.settled && self.held.before != self.settled {
            self.reannounce(redis, position).await?;
        }
        self.settled.clone_from(&self.held.epoch);
        Ok(position)
    }

    async fn carry(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<Option<Carried>, Trouble> {
        self.clock.ask_again(redis).await?;
        let mut missing = 0;
        let load = match self.ahead.take() {
            Some(load) if load.after == position => load,
            _ => {
                let noted = self.read(position).await?;
                let Some(first) = noted.first() else {
                    return Ok(None);
                };
                missing = first.position - position - 1;
                if missing > 0 {
                    let restored = self.restore(redis, position + 1..first.position).await?;
                    tracing::warn!(missing, restored, "sessions of lost events are announced");
                    self.gapped = true;
                }
                self.load(position, &noted)
            }
        };
        let last = load.last;
        let sent = load.pipeline.query_async(redis);
        let (reports, ahead) = tokio::join!(sent, self.look_ahead(last));
        let reports: Vec<(u64, String, bool, u64, u64)> = reports?;
        self.ahead = ahead?;
        let reached = reports.last().map_or(position, |report| report.0);
        let appended = reports.iter().map(|report| report.3).sum();
        let whole = reports.iter().all(|report| report.2);
        let taken_over = reports.iter().map(|report| report.4).sum();
        self.metrics.taken_over.increment(taken_over);
        let mut failures = reports.into_iter().map(|report| report.1);
        let failure = failures.find(|failure| !failure.is_empty());
        if failure.as_deref() == Some("FENCED") {
            return Err(self.fenced());
        }
        let carried = Carried {
            last,
            missing,
            reached,
            appended,
            failure,
        };
        if !whole && self.rebuilding.is_none() {
            self.rebuild(redis, reached).await?;
        }
        self.complete(redis, reached).await?;
        Ok(Some(carried))
    }

    async fn tend(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), Trouble> {
        if self.leases.borrow().epoch != self.held.epoch {
            // The keeper has found out that it was over, and has another.
            return Err(Trouble::Fenced);
        }
        let known = self.target.position(redis).await?;
        if known != position {
            return Err(Trouble::Lost);
        }
        self.clock.ask_again(redis).await?;
        let whole = self.is_whole(redis, known).await?;
        if (!whole || self.gapped) && self.rebuilding.is_none() {
            self.rebuild(redis, position).await?;
        }
        self.complete(redis, position).await?;
        Ok(())
    }
}
