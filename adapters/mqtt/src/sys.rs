//! `$SYS`: how the server is doing, on the topics that other brokers use for it.
//!
//! All workers count; the first one publishes. Subscribers get what was published last at once, then what
//! has changed. Nothing of it is kept with retained messages, in sessions or on disk.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rollcall_domain::identity::ThingId;
use rollcall_domain::presence::Protocol;
use rollcall_domain::setting::one_or_many;
use rollcall_domain::topic::{SubscriptionFilter, TopicFilter, TopicName};
use serde::Deserialize;

use crate::agenda::Timer;
use crate::codec::{self, OutgoingPublish};
use crate::delivery::Origin;
use crate::front::Shared;
use crate::message::Message;
use crate::metrics::Tally;
use crate::packet::{PublishProperties, QoS};
use crate::principal::{Deed, Finding};
use crate::timers::ticks;
use crate::worker::Worker;

/// What can be set about it (`[mqtt.sys]`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Between two publications; 0 is none.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Things that may subscribe to it.
    #[serde(deserialize_with = "one_or_many")]
    pub readers: Vec<ThingId>,
}

/// What is counted, and what was published last.
pub(crate) struct Board {
    started: Instant,
    readers: HashSet<ThingId>,
    /// Clients that are connected, and the most there ever were.
    connected: AtomicUsize,
    most: AtomicUsize,
    expired: AtomicUsize,
    /// QoS 1 and 2 messages that wait for sessions.
    queued: AtomicUsize,
    packets: Flow,
    publishes: Flow,
    bytes: Flow,
    dropped: AtomicU64,
    shown: RwLock<Vec<Shown>>,
}

#[derive(Default)]
struct Flow {
    received: AtomicU64,
    sent: AtomicU64,
}

struct Shown {
    topic: &'static str,
    value: String,
    message: Arc<Message>,
}

/// Whether nobody may publish on a topic, or a filter looks nowhere else: both begin with the same level.
pub(crate) fn is_meant(topic_or_filter: &str) -> bool {
    topic_or_filter
        .strip_prefix("$SYS")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Board {
    pub(crate) fn new(config: &Config, started: Instant) -> Self {
        Self {
            started,
            readers: config.readers.iter().copied().collect(),
            connected: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            expired: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            packets: Flow::default(),
            publishes: Flow::default(),
            bytes: Flow::default(),
            dropped: AtomicU64::new(0),
            shown: RwLock::default(),
        }
    }

    pub(crate) fn may_read(&self, thing: ThingId) -> bool {
        self.readers.contains(&thing)
    }

    pub(crate) fn on_arrival(&self) {
        let now = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn on_departure(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn on_expiry(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Instead of `before`, `now` messages wait for a session.
    pub(crate) fn on_queue(&self, before: usize, now: usize) {
        // Wraps around: what is less by as much.
        self.queued
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// What a worker counted during a turn.
    pub(crate) fn add(&self, tally: &Tally) {
        self.packets
            .add(tally.packets_received, tally.replies + tally.sent);
        self.publishes.add(tally.received, tally.sent);
        self.bytes.add(tally.bytes_received, tally.bytes_sent);
        let dropped = tally.dropped_full + tally.dropped_large + tally.dropped_unshared;
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// What was published last, for a new subscription.
    pub(crate) fn matching(&self, filter: TopicFilter<'_>) -> Vec<Arc<Message>> {
        if !is_meant(filter.as_str()) {
            return Vec::new();
        }
        let shown = self.shown.read();
        let shown = shown.expect("invariant: no panic under the lock");
        let found = shown.iter().filter(|shown| {
            TopicName::parse(shown.topic).is_some_and(|topic| filter.matches(topic))
        });
        found.map(|shown| Arc::clone(&shown.message)).collect()
    }

    /// Takes over what is true now; returns what has changed.
    fn show(&self, values: Vec<(&'static str, String)>, now: Instant) -> Vec<Arc<Message>> {
        let mut shown = self
            .shown
            .write()
            .expect("invariant: no panic under the lock");
        let mut news = Vec::new();
        for (topic, value) in values {
            let known = shown.iter().position(|known| known.topic == topic);
            if known.is_some_and(|place| shown[place].value == value) {
                continue;
            }
            let message = message(topic, &value, now);
            news.push(Arc::clone(&message));
            let new = Shown {
                topic,
                value,
                message,
            };
            match known {
                Some(place) => shown[place] = new,
                None => shown.push(new),
            }
        }
        news
    }

    /// In the words and units of mosquitto(8), as far as they mean something here.
    fn values(&self, shared: &Shared, now: Instant) -> Vec<(&'static str, String)> {
        let total = shared.sessions.load(Ordering::Relaxed);
        let connected = self.connected.load(Ordering::Relaxed);
        let absent = total.saturating_sub(connected);
        let (subscriptions, in_groups) = shared.router.subscriptions();
        let (retained, retained_bytes) = shared.retained.size();
        let stored = retained + self.queued.load(Ordering::Relaxed);
        let stored_bytes = retained_bytes + shared.counts.queues.total();
        let uptime = now.duration_since(self.started).as_secs();
        let most = self.most.load(Ordering::Relaxed);
        let expired = self.expired.load(Ordering::Relaxed);
        let dropped = self.dropped.load(Ordering::Relaxed);
        let received = |flow: &Flow| flow.received.load(Ordering::Relaxed).to_string();
        let sent = |flow: &Flow| flow.sent.load(Ordering::Relaxed).to_string();
        vec![
            (
                "$SYS/broker/version",
                concat!("rollcall ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("$SYS/broker/uptime", format!("{uptime} seconds")),
            ("$SYS/broker/clients/total", total.to_string()),
            ("$SYS/broker/clients/connected", connected.to_string()),
            ("$SYS/broker/clients/active", connected.to_string()),
            ("$SYS/broker/clients/disconnected", absent.to_string()),
            ("$SYS/broker/clients/inactive", absent.to_string()),
            ("$SYS/broker/clients/maximum", most.to_string()),
            ("$SYS/broker/clients/expired", expired.to_string()),
            ("$SYS/broker/messages/received", received(&self.packets)),
            ("$SYS/broker/messages/sent", sent(&self.packets)),
            ("$SYS/broker/messages/stored", stored.to_string()),
            ("$SYS/broker/store/messages/count", stored.to_string()),
            ("$SYS/broker/store/messages/bytes", stored_bytes.to_string()),
            ("$SYS/broker/retained messages/count", retained.to_string()),
            ("$SYS/broker/subscriptions/count", subscriptions.to_string()),
            (
                "$SYS/broker/shared_subscriptions/count",
                in_groups.to_string(),
            ),
            (
                "$SYS/broker/publish/messages/received",
                received(&self.publishes),
            ),
            ("$SYS/broker/publish/messages/sent", sent(&self.publishes)),
            ("$SYS/broker/publish/messages/dropped", dropped.to_string()),
            ("$SYS/broker/bytes/received", received(&self.bytes)),
            ("$SYS/broker/bytes/sent", sent(&self.bytes)),
        ]
    }
}

impl Flow {
    fn add(&self, received: u64, sent: u64) {
        for (counter, count) in [(&self.received, received), (&self.sent, sent)] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

fn message(topic: &str, value: &str, now: Instant) -> Arc<Message> {
    let mut frame = Vec::new();
    let (protocol, qos) = (Protocol::Mqtt5, QoS::AtMostOnce);
    let outgoing = OutgoingPublish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: None,
        properties: &PublishProperties::default(),
        subscription_identifiers: &[],
        payload: value.as_bytes(),
    };
    codec::publish(&mut frame, protocol, &outgoing);
    Arc::new(Message::keep(&frame, protocol, qos, true, now))
}

impl Worker {
    /// Takes from a session that goes on what its thing may read no longer: that is set at the start alone.
    pub(crate) fn review_sys(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let is_lost = |filter: &str| {
            filter.contains("$SYS")
                && SubscriptionFilter::parse(filter).is_some_and(|filter| {
                    let deed = Deed::Subscribe(filter.topics());
                    is_meant(filter.topics().as_str())
                        && matches!(self.recall(&session.principal, deed), Finding::Denied)
                })
        };
        let filters = session.subscriptions.iter().map(|(filter, _)| filter);
        let lost: Vec<Box<str>> = filters.filter(|it| is_lost(it)).cloned().collect();
        for filter in lost {
            let subscriptions = &mut self.sessions[slot].subscriptions;
            subscriptions.retain(|(known, _)| *known != filter);
            self.unroute(slot, &filter);
            self.note_unsubscribed(slot, &filter);
            self.shared.metrics.subscriptions_revoked.increment(1);
        }
    }

    /// Publishes what has changed, now and every interval from now on.
    pub(crate) fn publish_sys(&mut self) {
        let board = &self.shared.board;
        let values = board.values(&self.shared, self.now);
        for message in board.show(values, self.now) {
            let publish = message.publish();
            let topic = TopicName::parse(publish.topic).expect("invariant: one of ours");
            let route = self.route(topic);
            if route.is_empty() {
                continue;
            }
            let origin = Origin {
                qos: message.qos,
                retain: message.retain,
                from: None,
            };
            let now = self.now;
            self.dispatch(&route, origin, |out, protocol| {
                out.extend_from_slice(&message.frame(protocol, now));
            });
        }
        let interval = self.shared.config.sys.interval;
        let tick = self.tick.saturating_add(ticks(interval));
        self.timers.set(tick, Timer::Sys);
    }
}
