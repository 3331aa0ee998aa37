//! What is counted.

use metrics::{Counter, Gauge, counter, gauge};
use rollcall_domain::presence::Farewell;

use crate::reason::Refusal;

pub(crate) struct Metrics {
    pub(crate) accepted: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) greetings_timed_out: Counter,
    pub(crate) faulty_greetings: Counter,
    pub(crate) violations: Counter,
    pub(crate) connections: Gauge,
    pub(crate) sessions: Gauge,
    /// By [`Refusal`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
    /// By [`Farewell`].
    pub(crate) sessions_ended: [Counter; Farewell::ALL.len()],
    pub(crate) sessions_expired: Counter,
    pub(crate) sessions_overflowed: Counter,
    pub(crate) denied_wills: Counter,
    pub(crate) denied_publishes: Counter,
    pub(crate) denied_subscriptions: Counter,
    pub(crate) subscriptions_revoked: Counter,
    pub(crate) retained_refused: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) dropped_full: Counter,
    pub(crate) dropped_large: Counter,
    pub(crate) dropped_expired: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let dropped = |why| counter!("rollcall_mqtt_messages_dropped_total", "reason" => why);
        Self {
            accepted: counter!("rollcall_mqtt_connections_accepted_total"),
            turned_away: counter!("rollcall_mqtt_connections_turned_away_total"),
            accept_failures: counter!("rollcall_mqtt_accept_failures_total"),
            greetings_timed_out: counter!("rollcall_mqtt_connect_timeouts_total"),
            faulty_greetings: counter!("rollcall_mqtt_connect_faults_total"),
            violations: counter!("rollcall_mqtt_protocol_errors_total"),
            connections: gauge!("rollcall_mqtt_connections"),
            sessions: gauge!("rollcall_mqtt_sessions"),
            refused: Refusal::ALL.map(|refusal| {
                counter!("rollcall_mqtt_connects_refused_total", "reason" => refusal.label())
            }),
            sessions_ended: Farewell::ALL.map(|farewell| {
                counter!("rollcall_mqtt_connections_ended_total", "reason" => farewell.as_str())
            }),
            sessions_expired: counter!("rollcall_mqtt_sessions_expired_total"),
            sessions_overflowed: counter!("rollcall_mqtt_sessions_overflowed_total"),
            denied_wills: counter!("rollcall_mqtt_wills_denied_total"),
            denied_publishes: counter!("rollcall_mqtt_publishes_denied_total"),
            denied_subscriptions: counter!("rollcall_mqtt_subscriptions_denied_total"),
            subscriptions_revoked: counter!("rollcall_mqtt_subscriptions_revoked_total"),
            retained_refused: counter!("rollcall_mqtt_retained_refused_total"),
            received: counter!("rollcall_mqtt_messages_received_total"),
            sent: counter!("rollcall_mqtt_messages_sent_total"),
            dropped_full: dropped("queue_full"),
            dropped_large: dropped("packet_too_large"),
            dropped_expired: dropped("expired"),
        }
    }
}

/// What a worker counts during a turn, added up at its end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) dropped_full: u64,
    pub(crate) dropped_large: u64,
    pub(crate) denied_publishes: u64,
}

impl Tally {
    pub(crate) fn report(&mut self, metrics: &Metrics) {
        let Self {
            received,
            sent,
            dropped_full,
            dropped_large,
            denied_publishes,
        } = std::mem::take(self);
        for (counter, count) in [
            (&metrics.received, received),
            (&metrics.sent, sent),
            (&metrics.dropped_full, dropped_full),
            (&metrics.dropped_large, dropped_large),
            (&metrics.denied_publishes, denied_publishes),
        ] {
            if count > 0 {
                counter.increment(count);
            }
        }
    }
}
