//! The Redis edge: events go from the logs to streams, once and in order ([`relay`]), and are read there
//! ([`stream`], as part of a group [`consume`]); what is revoked elsewhere is heard from there ([`follow`]).

mod account;
mod address;
mod announce;
pub mod attendance;
mod clock;
mod connect;
pub mod consume;
pub mod follow;
pub mod lease;
mod oust;
mod recover;
pub mod relay;
pub mod repair;
mod replicas;
pub mod roll;
mod script;
mod seen;
pub mod stream;

use std::time::Duration;

use serde::Deserialize;

pub use address::{BadUrl, Url};

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
    /// Whether a client that arrives here ends its session on another instance, and the reverse.
    pub take_over: bool,
    /// Entries after which Redis may drop the oldest of a stream; 0 keeps all.
    pub max_stream_length: u64,
    /// The age at which Redis may drop entries of a stream; zero keeps all.
    #[serde(with = "humantime_serde")]
    pub max_stream_age: Duration,
    /// How many replicas have to have an event before the journal may forget it.
    pub wait_replicas: u32,
    /// How long a batch waits for them before the next one goes out.
    #[serde(with = "humantime_serde")]
    pub wait_timeout: Duration,
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

impl Config {
    /// What makes no sense: the key, and how it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        for (time, key) in [
            (self.connect_timeout, "redis.connect_timeout"),
            (self.response_timeout, "redis.response_timeout"),
            (self.retry_min, "redis.retry_min"),
        ] {
            if time.is_zero() {
                return Some((key, "longer than 0s"));
            }
        }
        if self.retry_max < self.retry_min {
            return Some(("redis.retry_max", "at least redis.retry_min"));
        }
        let (age, wait) = (self.max_stream_age, self.wait_timeout);
        [
            (self.batch == 0, "redis.batch", "at least 1"),
            // More fields than Lua can pass on.
            (self.batch > 4096, "redis.batch", "at most 4096"),
            (self.pipeline == 0, "redis.pipeline", "at least 1"),
            (self.prefix.is_empty(), "redis.prefix", "must not be empty"),
            (
                !age.is_zero() && age < Duration::from_secs(1),
                "redis.max_stream_age",
                "0s, or at least 1s",
            ),
            (
                self.wait_replicas > 0 && (wait.is_zero() || wait >= self.response_timeout),
                "redis.wait_timeout",
                "longer than 0s and shorter than redis.response_timeout",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }
}

/// Between a half and the whole of `pause`, so that many instances do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let part = uuid::Uuid::new_v4().as_bytes()[0];
    pause / 2 + pause.mul_f64(f64::from(part) / 512.0)
}
