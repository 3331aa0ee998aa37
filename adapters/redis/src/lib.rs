//! The Redis edge: events go from the logs to streams, once and in order ([`relay`]), and are read there
//! ([`stream`]); what is revoked elsewhere is heard from there ([`follow`]).

mod announce;
pub mod follow;
pub mod lease;
pub mod relay;
pub mod repair;
pub mod roll;
mod script;
pub mod stream;

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Redis is; empty for no relay.
    pub url: Url,
    /// What comes before the dot of a stream's name.
    pub prefix: String,
    /// Events of one script call.
    pub batch: usize,
    /// Script calls on their way at one time.
    pub pipeline: usize,
    /// Entries after which Redis may drop the oldest of a stream; 0 keeps all.
    pub max_stream_length: u64,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// The pause after a failure; doubled after each further one, up to `retry_max`.
    #[serde(with = "humantime_serde")]
    pub retry_min: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// How long a stop waits for what has not been relayed yet.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// The address of a Redis: `redis://[user][:password]@host[:port][/database]` or `redis+unix:///path`.
/// It may hold a password, so it does not print as it is.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without what comes before the `@`.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://***@{host}"),
            _ => f.write_str(&self.0),
        }
    }
}

/// The address makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{url} is no Redis address: write redis://host:6379 or redis+unix:///path/to/socket")]
pub struct BadUrl {
    url: Url,
    #[source]
    source: RedisError,
}

fn client(url: &Url) -> Result<Client, BadUrl> {
    Client::open(url.0.as_str()).map_err(|source| BadUrl {
        url: url.clone(),
        source,
    })
}

/// A connection of its own; it does not reconnect by itself, since what was sent may or may not have arrived.
async fn connect(
    client: &Client,
    connect_timeout: Duration,
    response_timeout: Option<Duration>,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(response_timeout);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Between a half and the whole of `pause`, so that many instances do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let part = uuid::Uuid::new_v4().as_bytes()[0];
    pause / 2 + pause.mul_f64(f64::from(part) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_show_its_password() {
        for (url, shown) in [
            ("redis://:s3cret@db:6379/1", "redis://***@db:6379/1"),
            ("redis://me:p@ss@db", "redis://***@db"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
            ),
        ] {
            assert_eq!(Url::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", Url::new(url)), shown);
        }
    }
}
