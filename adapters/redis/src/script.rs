//! The script that makes appending to a stream happen once.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError};
use rollcall_domain::event::Entry;

const SOURCE: &str = include_str!("relay.lua");

/// Where events go.
pub(crate) struct Target {
    pub(crate) stream: String,
    /// Producers and how far each has come. In one slot with the stream, whatever its name.
    pub(crate) producers: String,
    pub(crate) producer: String,
    pub(crate) max_length: u64,
    sha: String,
}

/// What the script says of one batch.
#[derive(Debug)]
pub(crate) struct Report {
    /// The position of the last event that is in the stream.
    pub(crate) position: u64,
    /// Empty, or why the batch was not appended to its end.
    pub(crate) failure: String,
}

impl Target {
    pub(crate) fn new(prefix: &str, stream: &str, producer: String, max_length: u64) -> Self {
        let stream = format!("{prefix}.{stream}");
        let producers = format!("{{{stream}}}.producers");
        Self {
            stream,
            producers,
            producer,
            max_length,
            sha: String::new(),
        }
    }

    /// Makes the script known to Redis. To be done on every connection: Redis may have been restarted.
    pub(crate) async fn load(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        self.sha = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(SOURCE)
            .query_async(redis)
            .await?;
        Ok(())
    }

    /// How far the producer has come.
    pub(crate) async fn position(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<u64, RedisError> {
        let position: Option<u64> = redis::cmd("HGET")
            .arg(&self.producers)
            .arg(&self.producer)
            .query_async(redis)
            .await?;
        Ok(position.unwrap_or(0))
    }

    /// Says that everything up to `position` of a new producer is here under the name of another.
    pub(crate) async fn set_position(
        &self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> Result<(), RedisError> {
        redis::cmd("HSET")
            .arg(&self.producers)
            .arg(&self.producer)
            .arg(position)
            .query_async(redis)
            .await
    }

    /// Appends `entries`, which follow `after`, in batches that are all on their way at one time. A batch
    /// whose predecessor failed does nothing.
    pub(crate) async fn append(
        &self,
        redis: &mut MultiplexedConnection,
        after: u64,
        entries: &[Entry],
        batch: usize,
    ) -> Result<Vec<Report>, RedisError> {
        let mut pipeline = Pipeline::with_capacity(entries.len().div_ceil(batch));
        let mut after = after;
        for batch in entries.chunks(batch) {
            pipeline.add_command(self.call(after, batch));
            after = batch.last().map_or(after, |entry| entry.position);
        }
        let reports: Vec<(u64, String)> = pipeline.query_async(redis).await?;
        Ok(reports
            .into_iter()
            .map(|(position, failure)| Report { position, failure })
            .collect())
    }

    fn call(&self, after: u64, entries: &[Entry]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.sha)
            .arg(2)
            .arg(&self.stream)
            .arg(&self.producers);
        call.arg(&self.producer).arg(after).arg(self.max_length);
        for entry in entries {
            call.arg(entry.position).arg(2 * entry.fields.len());
            for (name, value) in &entry.fields {
                call.arg(name.as_bytes()).arg(value.as_bytes());
            }
        }
        call
    }
}
