//! Ends sessions here whose clients have gone to other instances.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use rollcall_domain::presence::{Journal, Sessions};
use tokio::time::MissedTickBehavior;

use crate::connect::Client;
use crate::roll::Keys;
use crate::{Config, jittered};

/// How often Redis is asked who is to be ended.
const PAUSE: Duration = Duration::from_millis(250);
/// Sessions that Redis names at one time.
const STEP: usize = 1_000;

/// Asks Redis which sessions of this instance are to be ended, and ends them.
pub(crate) struct Ouster {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) sessions: Arc<dyn Sessions>,
}

impl Ouster {
    /// Never returns. Without Redis nobody is ended, and whoever is to be is found when it is back.
    pub(crate) async fn run(self) -> std::convert::Infallible {
        let most = self.config.retry_max.min(Duration::from_secs(1));
        let mut pause = self.config.retry_min.min(most);
        loop {
            let error = match self.watch(&mut pause).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(%error, "cannot ask who has gone to other instances");
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(most);
        }
    }

    async fn watch(&self, pause: &mut Duration) -> Result<std::convert::Infallible, RedisError> {
        let keys = Keys::new(&self.config.prefix);
        let (connect, timeout) = (self.config.connect_timeout, self.config.response_timeout);
        let connection = self.client.connect(&keys.stream, connect, Some(timeout));
        let mut redis = connection.await?;
        let ousted = keys.ousted(self.journal.instance());
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(&mut redis, &ousted).await?;
            *pause = self.config.retry_min.min(*pause);
        }
    }

    /// Who is named stays named until the journal's disconnect has come to Redis, so nobody is missed.
    async fn look(
        &self,
        redis: &mut MultiplexedConnection,
        ousted: &str,
    ) -> Result<(), RedisError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(ousted).arg(&cursor).arg("COUNT").arg(STEP);
            let named: Vec<(String, String)>;
            (cursor, named) = scan.query_async(redis).await?;
            let ids = named.iter().filter_map(|(session, _)| session.parse().ok());
            let ids: HashSet<_> = ids.map(|id| self.journal.admitted_as(id)).collect();
            if !ids.is_empty() {
                self.sessions.take_over(ids);
            }
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
