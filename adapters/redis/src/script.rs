//! Scripts, and the one that makes appending to a stream happen once.

use std::sync::{Arc, OnceLock};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError};
use rollcall_domain::event::Entry;
use rollcall_domain::ports::EventLog;

use crate::relay::{Carried, Passage, Trouble};
use crate::{Config, recover};

static APPEND: Script = Script::new(concat!(
    include_str!("append.lua"),
    include_str!("relay.lua")
));
static GUARD: Script = Script::new(concat!(
    include_str!("append.lua"),
    include_str!("guard.lua")
));

/// A script that Redis knows by its hash.
pub(crate) struct Script {
    source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(source: &'static str) -> Self {
        Self {
            source,
            sha: OnceLock::new(),
        }
    }

    /// Makes the script known to Redis. To be done on every connection: Redis may have been restarted.
    pub(crate) async fn load(&self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut load = redis::cmd("SCRIPT");
        let sha: String = load.arg("LOAD").arg(self.source).query_async(redis).await?;
        let _ = self.sha.set(sha);
        Ok(())
    }

    /// A call, to be given keys and arguments.
    pub(crate) fn call(&self) -> Cmd {
        self.call_with(0, 0)
    }

    /// The same with room for so many `arguments`, which have so many `bytes`.
    pub(crate) fn call_with(&self, arguments: usize, bytes: usize) -> Cmd {
        let mut call = Cmd::with_capacity(arguments, bytes);
        call.arg("EVALSHA");
        call.arg(self.sha.get().expect("invariant: loaded before"));
        call
    }
}

/// Where events go, and under which name.
pub(crate) struct Target {
    pub(crate) stream: String,
    /// Producers and how far each has come. In one slot with the stream, whatever its name.
    pub(crate) producers: String,
    pub(crate) producer: String,
    /// Redis tells by itself what it has of a producer, if the table does not.
    pub(crate) is_guarded: bool,
    /// What Redis has is relayed only when replicas have it too.
    waits: bool,
}

impl Target {
    pub(crate) fn new(config: &Config, log: &dyn EventLog) -> Self {
        let stream = format!("{}.{}", config.prefix, log.stream().as_str());
        let producers = format!("{{{stream}}}.producers");
        Self {
            stream,
            producers,
            producer: log.producer().to_string(),
            is_guarded: false,
            waits: config.wait_replicas > 0,
        }
    }

    /// How far the producer has come.
    pub(crate) async fn position(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<u64, RedisError> {
        Ok(self.noted_position(redis).await?.unwrap_or(0))
    }

    async fn noted_position(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<Option<u64>, RedisError> {
        redis::cmd("HGET")
            .arg(&self.producers)
            .arg(&self.producer)
            .query_async(redis)
            .await
    }

    /// Says that everything up to `position` of a new producer is here under the name of another, unless another
    /// process that relays the same log has said so already.
    async fn set_position(
        &self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), RedisError> {
        redis::cmd("HSETNX")
            .arg(&self.producers)
            .arg(&self.producer)
            .arg(position)
            .query_async(redis)
            .await
    }

    /// Notes how far the producer has come, if the stream tells.
    async fn recover_position(
        &self,
        redis: &mut MultiplexedConnection,
        log: &dyn EventLog,
    ) -> Result<u64, Trouble> {
        let Some(position) = recover::find(redis, &self.stream, log).await? else {
            return Ok(0);
        };
        let stream = &self.stream;
        tracing::warn!(
            stream,
            position,
            "redis has forgotten how far the stream is; its end tells"
        );
        self.set_position(redis, position).await?;
        Ok(self.position(redis).await?)
    }

    /// Where to go on: after what Redis has of this log.
    pub(crate) async fn find_position(
        &mut self,
        redis: &mut MultiplexedConnection,
        log: &dyn EventLog,
    ) -> Result<u64, Trouble> {
        let stream = log.stream().as_str();
        let relayed = log.relayed();
        self.producer = log.producer().to_string();
        GUARD.load(redis).await?;
        let mut guard = GUARD.call();
        self.is_guarded = guard.arg(1).arg(&self.stream).query_async(redis).await?;
        let noted = self.noted_position(redis).await?;
        // In this order: what another process has relayed, it had appended before.
        log.refresh().await?;
        if self.producer != log.producer().to_string() {
            // Another process has just renewed it.
            return Err(Trouble::Lost);
        }
        let last = log.last();
        let known = match noted {
            Some(known) => known,
            None => self.recover_position(redis, log).await?,
        };
        if known > last {
            // The log is older than what it has sent: a copy was put back. Its next events are new ones.
            tracing::warn!(stream, known, last, "the journal was put back in time");
            self.producer = log.renew_producer().await?.to_string();
            self.set_position(redis, log.relayed()).await?;
            return Ok(self.position(redis).await?);
        }
        if known < relayed {
            tracing::warn!(
                stream,
                known,
                relayed,
                "redis has lost events; they are sent again"
            );
        }
        if known < relayed || !self.waits {
            log.set_relayed(known).await?;
        }
        Ok(known)
    }
}

/// From the log of a service to its stream.
pub(crate) struct Services {
    log: Arc<dyn EventLog>,
    target: Target,
    batch: usize,
    pipeline: usize,
    max_length: u64,
}

impl Services {
    pub(crate) fn new(config: &Config, log: Arc<dyn EventLog>) -> Self {
        Self {
            target: Target::new(config, &*log),
            log,
            batch: config.batch,
            pipeline: config.pipeline,
            max_length: config.max_stream_length,
        }
    }

    fn append(&self, after: u64, entries: &[Entry]) -> Cmd {
        let mut call = APPEND.call();
        call.arg(2)
            .arg(&self.target.stream)
            .arg(&self.target.producers);
        call.arg(&self.target.producer)
            .arg(after)
            .arg(self.max_length)
            .arg(u8::from(self.target.is_guarded));
        for entry in entries {
            call.arg(entry.position).arg(2 * entry.fields.len());
            for (name, value) in &entry.fields {
                call.arg(name.as_bytes()).arg(value.as_bytes());
            }
        }
        call
    }
}

impl Passage for Services {
    fn log(&self) -> &dyn EventLog {
        &*self.log
    }

    async fn open(&mut self, redis: &mut MultiplexedConnection) -> Result<u64, Trouble> {
        APPEND.load(redis).await?;
        self.target.find_position(redis, &*self.log).await
    }

    /// In batches that are all on their way at one time: one whose predecessor failed does nothing.
    async fn carry(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<Option<Carried>, Trouble> {
        let entries = self.log.read(position, self.batch * self.pipeline).await?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(None);
        };
        let mut pipeline = Pipeline::with_capacity(entries.len().div_ceil(self.batch));
        let mut after = position;
        for batch in entries.chunks(self.batch) {
            pipeline.add_command(self.append(after, batch));
            after = batch.last().map_or(after, |entry| entry.position);
        }
        let reports: Vec<(u64, String, u64)> = pipeline.query_async(redis).await?;
        let reached = reports.last().map_or(position, |report| report.0);
        let appended = reports.iter().map(|report| report.2).sum();
        let mut failures = reports.into_iter().map(|report| report.1);
        Ok(Some(Carried {
            last: last.position,
            missing: first.position - position - 1,
            reached,
            appended,
            failure: failures.find(|failure| !failure.is_empty()),
        }))
    }

    async fn tend(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), Trouble> {
        let known = self.target.position(redis).await?;
        if known > position {
            // Another process relays the same log.
            self.log.refresh().await?;
        }
        let is_ours = self.target.producer == self.log.producer().to_string();
        match is_ours && (position..=self.log.last()).contains(&known) {
            true => Ok(()),
            false => Err(Trouble::Lost),
        }
    }
}
