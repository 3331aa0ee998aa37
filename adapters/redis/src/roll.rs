//! Presence on its way to its stream, and the roll that is kept in step with it.
//!
//! Each instance has a part of the roll, and writes no other's. The script that appends an event changes the part
//! too and notes the id of the event as that at which the part is valid. A disconnect is appended only if its
//! session is on the roll: so whoever ended it first has the only word.

use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError};
use rollcall_domain::event::{self, Fields};
use rollcall_domain::identity::Timestamp;
use rollcall_domain::ports::EventLog;
use rollcall_domain::presence::{Change, Journal, Noted, Online, Presence, Session};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::relay::{Carried, Passage, Trouble};
use crate::script::{Script, Target};

static APPEND: Script = Script::new(include_str!("roll.lua"));
static REBUILD: Script = Script::new(include_str!("rebuild.lua"));
static ADOPT: Script = Script::new(include_str!("adopt.lua"));
static RESTORE: Script = Script::new(include_str!("restore.lua"));

/// Sessions of one script call, where not `redis.batch` says.
const STEP: usize = 256;

/// The names of what is kept of the roll beside the stream, all in one slot with it.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) stream: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            stream: format!("{prefix}.mqtt"),
        }
    }

    /// Of each instance the id of the entry at which its part is valid.
    pub(crate) fn roll(&self) -> String {
        format!("{{{}}}.roll", self.stream)
    }

    /// The sessions of an instance, each with its [`Row`].
    pub(crate) fn part(&self, instance: &str) -> String {
        format!("{{{}}}.roll:{instance}", self.stream)
    }

    /// What else is known of an instance: its producer, how many sessions the part has, when the last event was.
    pub(crate) fn record(&self, instance: &str) -> String {
        format!("{{{}}}.instance:{instance}", self.stream)
    }
}

/// What the roll says of a session, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub thing_id: String,
    pub instance: String,
    /// The `occurred_at` of its connect.
    pub since: String,
    pub client_id: String,
    pub protocol: String,
    pub peer: String,
}

impl Row {
    fn new(session: &Session, since: Timestamp, instance: &str) -> Self {
        Self {
            thing_id: session.thing.to_string(),
            instance: instance.to_owned(),
            since: since.to_string(),
            client_id: session.client_id.to_string(),
            protocol: session.protocol.as_str().to_owned(),
            peer: session.peer.to_string(),
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("invariant: text")
    }
}

/// From the journal of presence to its stream.
pub(crate) struct Presences {
    journal: Arc<dyn Journal>,
    extended: bool,
    config: Config,
    keys: Keys,
    instance: String,
    target: Target,
    /// The part of the roll is made anew, and whole when this position is reached.
    rebuilding: Option<u64>,
    /// The part is to be made anew when there is nothing else to do.
    doubted: bool,
    metrics: Metrics,
}

struct Metrics {
    skipped: Counter,
    rebuilt: Counter,
}

impl Presences {
    pub(crate) fn new(config: Config, journal: Arc<dyn Journal>, extended: bool) -> Self {
        describe_counter!(
            "rollcall_relay_events_skipped_total",
            "Disconnects not relayed since the session was off the roll already"
        );
        describe_counter!(
            "rollcall_roll_rebuilt_total",
            "Times the roll in Redis was made anew from the journal"
        );
        Self {
            extended,
            keys: Keys::new(&config.prefix),
            instance: journal.instance().to_owned(),
            target: Target::new(&config, &*journal),
            rebuilding: None,
            doubted: false,
            metrics: Metrics {
                skipped: counter!("rollcall_relay_events_skipped_total"),
                rebuilt: counter!("rollcall_roll_rebuilt_total"),
            },
            journal,
            config,
        }
    }

    fn append(&self, after: u64, noted: &[Noted]) -> Cmd {
        let mut call = APPEND.call();
        let (keys, instance) = (&self.keys, &*self.instance);
        call.arg(5)
            .arg(&self.target.stream)
            .arg(&self.target.producers)
            .arg(keys.roll())
            .arg(keys.part(instance))
            .arg(keys.record(instance));
        call.arg(instance)
            .arg(&self.target.producer)
            .arg(after)
            .arg(self.config.max_stream_length);
        for Noted {
            position,
            instance,
            presence,
        } in noted
        {
            let session = &presence.session;
            call.arg(*position).arg(session.id.to_string());
            match presence.change {
                Change::Arrived => call.arg(Row::new(session, presence.at, instance).text()),
                Change::Left(_) => call.arg(""),
            };
            add_event(&mut call, presence, instance, self.extended);
        }
        call
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
            call.arg(self.config.max_stream_length);
            for (_, Online { session, since }) in step {
                call.arg(session.id.to_string());
                call.arg(Row::new(session, *since, &self.instance).text());
                let presence = Presence {
                    session: Arc::clone(session),
                    change: Change::Arrived,
                    at: *since,
                };
                add_event(&mut call, &presence, &self.instance, self.extended);
            }
            restored += call.query_async::<u64>(redis).await?;
        }
        Ok(restored)
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
            call.arg(5).arg(keys.roll());
            call.arg(keys.part(&earlier)).arg(keys.record(&earlier));
            call.arg(keys.part(&self.instance))
                .arg(keys.record(&self.instance));
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
    async fn rebuild(&mut self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let snapshot = self.journal.snapshot();
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
        self.doubted = false;
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
            call.arg(session.id.to_string());
            call.arg(Row::new(session, *since, &self.instance).text());
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
        call.arg(4)
            .arg(&self.target.stream)
            .arg(self.keys.roll())
            .arg(self.keys.part(&self.instance))
            .arg(self.keys.record(&self.instance))
            .arg(&self.instance);
    }
}

/// Adds when it was, how many fields and values there are, and these.
fn add_event(call: &mut Cmd, presence: &Presence, instance: &str, extended: bool) {
    call.arg(presence.at.0);
    let fields: Fields = event::presence(presence, instance, extended);
    call.arg(2 * fields.len());
    for (name, value) in &fields {
        call.arg(name.as_bytes()).arg(value.as_bytes());
    }
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
        let position = self.target.find_position(redis, &*self.journal).await?;
        self.adopt(redis).await?;
        Ok(position)
    }

    async fn carry(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<Option<Carried>, Trouble> {
        let limit = self.config.batch * self.config.pipeline;
        let noted = self.journal.read_changes(position, limit).await?;
        let (Some(first), Some(last)) = (noted.first(), noted.last()) else {
            return Ok(None);
        };
        let missing = first.position - position - 1;
        if missing > 0 {
            let restored = self.restore(redis, position + 1..first.position).await?;
            tracing::warn!(missing, restored, "sessions of lost events are announced");
            self.doubted = true;
        }
        let mut pipeline = Pipeline::with_capacity(noted.len().div_ceil(self.config.batch));
        let mut after = position;
        for batch in noted.chunks(self.config.batch) {
            pipeline.add_command(self.append(after, batch));
            after = batch.last().map_or(after, |noted| noted.position);
        }
        let reports: Vec<(u64, String, bool, u64)> = pipeline.query_async(redis).await?;
        let reached = reports.last().map_or(position, |report| report.0);
        let appended = reports.iter().map(|report| report.3).sum();
        self.metrics
            .skipped
            .increment(reached.saturating_sub(position + missing + appended));
        let whole = reports.iter().all(|report| report.2);
        let failure = reports.into_iter().map(|report| report.1);
        let carried = Carried {
            last: last.position,
            missing,
            reached,
            appended,
            failure: failure.into_iter().find(|failure| !failure.is_empty()),
        };
        if !whole && self.rebuilding.is_none() {
            self.rebuild(redis).await?;
        }
        self.complete(redis, reached).await?;
        Ok(Some(carried))
    }

    async fn tend(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), Trouble> {
        let known = self.target.position(redis).await?;
        if known != position {
            return Err(Trouble::Lost);
        }
        let (part, record) = (
            self.keys.part(&self.instance),
            self.keys.record(&self.instance),
        );
        let mut pipeline = redis::pipe();
        pipeline.cmd("HLEN").arg(&part);
        pipeline.cmd("HGET").arg(&record).arg("sessions");
        let (sessions, expected): (u64, Option<String>) = pipeline.query_async(redis).await?;
        let whole = match expected {
            Some(expected) => expected == sessions.to_string(),
            None => known == 0,
        };
        if (!whole || self.doubted) && self.rebuilding.is_none() {
            self.rebuild(redis).await?;
        }
        self.complete(redis, position).await?;
        Ok(())
    }
}
