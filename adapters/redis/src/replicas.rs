//! What replicas have, so that it outlives a master.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use crate::Config;

/// While some lag behind, nothing waits for them: they are only asked.
const GLANCE: Duration = Duration::from_millis(1);

/// As many replicas as are to have an event before it counts as relayed.
pub(crate) struct Replicas {
    wanted: u32,
    timeout: Duration,
    stream: String,
    are_behind: bool,
}

impl Replicas {
    pub(crate) fn new(config: &Config, stream: String) -> Self {
        Self {
            wanted: config.wait_replicas,
            timeout: config.wait_timeout,
            stream,
            are_behind: false,
        }
    }

    /// Begins with a new connection.
    pub(crate) async fn open(&self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        if self.wanted == 0 {
            return Ok(());
        }
        // WAIT answers for what this very connection has written last; who has written nothing is told yes.
        let mut write = redis::cmd("SET");
        write.arg(format!("{{{}}}.waited", self.stream));
        write.arg("1").arg("PX").arg(1000);
        write.query_async(redis).await
    }

    /// Whether they have all that Redis has had before.
    pub(crate) async fn have_all(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> Result<bool, RedisError> {
        if self.wanted == 0 {
            return Ok(true);
        }
        let patience = match self.are_behind {
            true => GLANCE,
            false => self.timeout,
        };
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.wanted).arg(patience.as_millis() as u64);
        let replicas: u32 = wait.query_async(redis).await?;
        let are_behind = replicas < self.wanted;
        if are_behind != std::mem::replace(&mut self.are_behind, are_behind) {
            let (stream, wanted) = (&self.stream, self.wanted);
            match are_behind {
                true => tracing::warn!(
                    stream,
                    replicas,
                    wanted,
                    "too few replicas have the events; they are kept in the journal"
                ),
                false => tracing::info!(stream, "replicas have all events"),
            }
        }
        Ok(!are_behind)
    }
}
