//! What clients may take of this server, beyond what each connection is allowed.

pub(crate) mod addresses;
pub(crate) mod bucket;
pub(crate) mod logins;
pub(crate) mod memory;
pub(crate) mod queues;
mod table;
pub(crate) mod things;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rollcall_domain::setting::choice;
use serde::Deserialize;

use self::addresses::Addresses;
use self::bucket::Rate;
use self::logins::{Logins, Patience};
use self::memory::Memory;
pub use self::memory::MemoryMark;
use self::queues::Queues;
use self::things::{ThingAllowance, Things};

/// What can be set about limits (`[mqtt.limits]`). Of counts and rates 0 is no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of an address at one time.
    pub max_connections_per_address: u32,
    /// Connections a second of an address.
    pub connect_rate_per_address: u32,
    /// How much time's worth of them may come at once.
    #[serde(with = "humantime_serde")]
    pub connect_burst: Duration,
    /// Failed logins of an address, or in one name, before answers begin to wait.
    pub failed_logins: u32,
    /// After so long without one they are forgotten.
    #[serde(with = "humantime_serde")]
    pub failed_login_window: Duration,
    /// The longest an answer waits.
    #[serde(with = "humantime_serde")]
    pub failed_login_delay_max: Duration,
    /// Connections of a thing at one time.
    pub max_connections_per_thing: u32,
    /// Bytes of a topic name or filter.
    pub max_topic_length: u16,
    /// Levels of a topic name or filter.
    pub max_topic_levels: u16,
    /// Messages a second that a thing may publish.
    pub max_publish_rate: u32,
    /// Bytes a second, topics and payloads.
    pub max_publish_bytes: ByteSize,
    /// How much time's worth of them may come at once.
    #[serde(with = "humantime_serde")]
    pub publish_burst: Duration,
    #[serde(deserialize_with = "choice")]
    pub rate_action: RateAction,
    /// What may wait to be sent, of all sessions together: sent but not taken, and queued behind windows.
    pub max_queue_bytes: ByteSize,
    /// Resident memory beyond which nothing new is taken on.
    pub memory_high_water: MemoryMark,
}

/// What happens to a thing that publishes too much.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RateAction {
    /// Its messages wait in its socket.
    Delay,
    Disconnect,
}

/// The shortest burst: a worker looks at what waits ten times a second.
const SHORTEST_BURST: Duration = Duration::from_millis(100);

impl Limits {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let bursts = "at least 100ms";
        [
            (
                self.connect_burst < SHORTEST_BURST,
                "mqtt.limits.connect_burst",
                bursts,
            ),
            (
                self.publish_burst < SHORTEST_BURST,
                "mqtt.limits.publish_burst",
                bursts,
            ),
            (
                self.failed_login_window.is_zero(),
                "mqtt.limits.failed_login_window",
                "longer than 0s",
            ),
            (
                self.max_topic_length == 0,
                "mqtt.limits.max_topic_length",
                "at least 1",
            ),
            (
                // A look-up goes down level by level: deeper ones would take too much stack.
                !(1..=1000).contains(&self.max_topic_levels),
                "mqtt.limits.max_topic_levels",
                "from 1 to 1000",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }

    /// Whether a topic name or filter is short and flat enough.
    pub(crate) fn admit_topic(&self, topic: &str) -> bool {
        topic.len() <= usize::from(self.max_topic_length)
            && memchr::memchr_iter(b'/', topic.as_bytes()).count()
                < usize::from(self.max_topic_levels)
    }
}

/// The state behind the limits that all workers share.
pub(crate) struct Counts {
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) logins: Logins,
    pub(crate) memory: Arc<Memory>,
    pub(crate) queues: Queues,
    pub(crate) things: Arc<Things>,
}

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks records that say nothing any more are forgotten.
const PURGE: u32 = 60;

impl Counts {
    /// Keeps `counts` true, as long as they are there.
    pub(crate) async fn watch(counts: Weak<Self>) {
        for look in 1u32.. {
            tokio::time::sleep(LOOK).await;
            let Some(counts) = counts.upgrade() else {
                return;
            };
            counts.memory.look();
            if look % PURGE == 0 {
                let now = Instant::now();
                counts.addresses.purge(now);
                counts.logins.purge(now);
                counts.things.purge(now);
            }
        }
    }

    pub(crate) fn new(limits: &Limits, workers: usize, start: Instant) -> Self {
        let patience = Patience {
            allowed: limits.failed_logins,
            window: limits.failed_login_window,
            max_delay: limits.failed_login_delay_max,
        };
        let of_thing = ThingAllowance {
            max_connections: limits.max_connections_per_thing,
            messages: Rate::new(limits.max_publish_rate.into(), limits.publish_burst),
            bytes: Rate::new(limits.max_publish_bytes.as_u64(), limits.publish_burst),
        };
        Self {
            addresses: Arc::new(Addresses::new(start)),
            logins: Logins::new(patience, start),
            queues: Queues::new(
                usize::try_from(limits.max_queue_bytes.as_u64()).unwrap_or(usize::MAX),
                workers,
            ),
            memory: Arc::new(Memory::new(limits.memory_high_water)),
            things: Arc::new(Things::new(of_thing, start)),
        }
    }
}
