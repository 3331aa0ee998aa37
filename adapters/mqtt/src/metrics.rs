//! What is counted.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use rollcall_domain::presence::Farewell;

use crate::limits::addresses::TurnedAway;
use crate::reason::{self, Refusal};
use crate::sys::Board;
use crate::transport::Fault;

pub(crate) struct Metrics {
    pub(crate) turned_away: Counter,
    turned_away_many: Counter,
    turned_away_fast: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) greetings_timed_out: Counter,
    pub(crate) faulty_greetings: Counter,
    pub(crate) violations: ByCode<4>,
    pub(crate) sessions: Gauge,
    /// By [`Refusal`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
    /// By [`Farewell`].
    pub(crate) sessions_ended: [Counter; Farewell::ALL.len()],
    pub(crate) sessions_expired: Counter,
    pub(crate) sessions_overflowed: Counter,
    pub(crate) sessions_shed: Counter,
    pub(crate) failed_logins_delayed: Counter,
    pub(crate) topics_refused: Counter,
    pub(crate) publishes_delayed: Counter,
    pub(crate) denied_wills: Counter,
    pub(crate) denied_publishes: Counter,
    pub(crate) payloads_refused: Counter,
    pub(crate) denied_subscriptions: ByCode<3>,
    pub(crate) subscriptions_revoked: Counter,
    pub(crate) doubts_expired: Counter,
    pub(crate) publishes_unkept: Counter,
    pub(crate) retained_refused: Counter,
    pub(crate) retained_expired: Counter,
    pub(crate) retained_messages: Gauge,
    pub(crate) retained_bytes: Gauge,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) dropped_full: Counter,
    pub(crate) dropped_large: Counter,
    pub(crate) dropped_unshared: Counter,
    pub(crate) dropped_expired: Counter,
    pub(crate) dropped_revoked: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let turned_away = "rollcall_mqtt_connections_turned_away_total";
        describe_counter!(
            turned_away,
            "Connections closed unread, by the limit they met"
        );
        let refused = "rollcall_mqtt_connects_refused_total";
        describe_counter!(refused, "CONNECTs refused, by reason");
        let ended = "rollcall_mqtt_connections_ended_total";
        describe_counter!(ended, "Connections of admitted sessions that ended, by how");
        let dropped = "rollcall_mqtt_messages_dropped_total";
        describe_counter!(dropped, "Messages not passed on to a session, by reason");
        Self {
            turned_away: counter!(turned_away, "reason" => "max_connections"),
            turned_away_many: counter!(turned_away, "reason" => "max_connections_per_address"),
            turned_away_fast: counter!(turned_away, "reason" => "connect_rate_per_address"),
            accept_failures: count(
                "accept_failures",
                "Connections that could not be accepted, as when no file may be opened",
            ),
            greetings_timed_out: count(
                "connect_timeouts",
                "Connections closed because no CONNECT came in time",
            ),
            faulty_greetings: count(
                "connect_faults",
                "Connections that began with something else than a well-formed CONNECT",
            ),
            violations: ByCode::new(
                "protocol_errors",
                "Connections of sessions closed because the client broke the protocol or a bound it was told of",
                [
                    (reason::PROTOCOL_ERROR, "protocol_error"),
                    (reason::RECEIVE_MAXIMUM_EXCEEDED, "receive_maximum_exceeded"),
                    (reason::TOPIC_ALIAS_INVALID, "topic_alias_invalid"),
                    (reason::PACKET_TOO_LARGE, "packet_too_large"),
                ],
            ),
            sessions: level("sessions", "Sessions, connected or not"),
            refused: Refusal::ALL.map(|refusal| counter!(refused, "reason" => refusal.label())),
            sessions_ended: Farewell::ALL
                .map(|farewell| counter!(ended, "reason" => farewell.as_str())),
            sessions_expired: count("sessions_expired", "Absent sessions that expired"),
            sessions_overflowed: count(
                "sessions_overflowed",
                "Sessions ended because they left too much unread",
            ),
            sessions_shed: count(
                "sessions_shed",
                "Sessions ended because too much waited for all and they had the most",
            ),
            failed_logins_delayed: count(
                "failed_logins_delayed",
                "Failed logins answered late because there were mqtt.limits.failed_logins before",
            ),
            topics_refused: count(
                "topics_refused",
                "Topic names of PUBLISHes and wills that were too long or had too many levels",
            ),
            publishes_delayed: count(
                "publishes_delayed",
                "PUBLISHes that had to wait because their thing had published as much as it may",
            ),
            denied_wills: count("wills_denied", "Wills not published for lack of a grant"),
            payloads_refused: count(
                "payloads_refused",
                "PUBLISHes refused because their payload is not the UTF-8 that they say it is",
            ),
            denied_publishes: count("publishes_denied", "PUBLISHes denied for lack of a grant"),
            denied_subscriptions: ByCode::new(
                "subscriptions_denied",
                "Topic filters that were not subscribed to, by reason",
                [
                    (reason::NOT_AUTHORIZED, "not_authorized"),
                    (reason::TOPIC_FILTER_INVALID, "topic_filter_invalid"),
                    (reason::QUOTA_EXCEEDED, "quota_exceeded"),
                ],
            ),
            subscriptions_revoked: count(
                "subscriptions_revoked",
                "Subscriptions ended because their grant was taken away",
            ),
            doubts_expired: count(
                "doubts_expired",
                "Grants taken away since the things service did not say in time whether they still hold",
            ),
            publishes_unkept: count(
                "publishes_unkept",
                "PUBLISHes refused, or put off, because the disk could not take them",
            ),
            retained_refused: count(
                "retained_refused",
                "Messages not retained because there was no room",
            ),
            retained_expired: count(
                "retained_expired",
                "Retained messages that expired and were purged",
            ),
            retained_messages: level("retained_messages", "Retained messages that are kept"),
            retained_bytes: level("retained_bytes", "Bytes of retained messages that are kept"),
            bytes_received: count("bytes_received", "Bytes of packets received from clients"),
            bytes_sent: count("bytes_sent", "Bytes of packets sent to clients"),
            received: count("messages_received", "PUBLISHes received from clients"),
            sent: count("messages_sent", "PUBLISHes sent to clients"),
            dropped_full: counter!(dropped, "reason" => "queue_full"),
            dropped_large: counter!(dropped, "reason" => "packet_too_large"),
            dropped_unshared: counter!(dropped, "reason" => "no_member"),
            dropped_expired: counter!(dropped, "reason" => "expired"),
            dropped_revoked: counter!(dropped, "reason" => "revoked"),
        }
    }
}

impl Metrics {
    pub(crate) const fn turned_away_for(&self, why: TurnedAway) -> &Counter {
        match why {
            TurnedAway::TooMany => &self.turned_away_many,
            TurnedAway::TooFast => &self.turned_away_fast,
        }
    }
}

/// Counters by reason code: of those with a name each its own, and one for the others.
pub(crate) struct ByCode<const N: usize> {
    named: [(u8, Counter); N],
    others: Counter,
}

impl<const N: usize> ByCode<N> {
    fn new(what: &str, help: &'static str, named: [(u8, &'static str); N]) -> Self {
        let name = format!("rollcall_mqtt_{what}_total");
        describe_counter!(name.clone(), help);
        Self {
            named: named.map(|(code, label)| (code, counter!(name.clone(), "reason" => label))),
            others: counter!(name, "reason" => "other"),
        }
    }

    pub(crate) fn count(&self, code: u8) {
        let named = self.named.iter().find(|(known, _)| *known == code);
        named
            .map_or(&self.others, |(_, counter)| counter)
            .increment(1);
    }
}

pub(crate) fn count(what: &str, help: &'static str) -> Counter {
    let name = format!("rollcall_mqtt_{what}_total");
    describe_counter!(name.clone(), help);
    counter!(name)
}

pub(crate) fn level(what: &str, help: &'static str) -> Gauge {
    let name = format!("rollcall_mqtt_{what}");
    describe_gauge!(name.clone(), help);
    gauge!(name)
}

/// Like `count`, for one listener.
pub(crate) fn of_listener_count(what: &str, help: &'static str, listener: &str) -> Counter {
    let name = format!("rollcall_mqtt_{what}_total");
    describe_counter!(name.clone(), help);
    counter!(name, "listener" => listener.to_owned())
}

pub(crate) fn of_listener_level(what: &str, help: &'static str, listener: &str) -> Gauge {
    let name = format!("rollcall_mqtt_{what}");
    describe_gauge!(name.clone(), help);
    gauge!(name, "listener" => listener.to_owned())
}

pub(crate) fn fault_count(listener: &str, fault: Fault) -> Counter {
    let name = "rollcall_mqtt_handshake_failures_total";
    describe_counter!(
        name,
        "Connections closed for what came before MQTT or beneath it, by listener and reason"
    );
    counter!(name, "listener" => listener.to_owned(), "reason" => fault.label())
}

/// What a worker counts during a turn, added up at its end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Packets of all kinds.
    pub(crate) packets_received: u64,
    /// Packets sent that are no PUBLISH.
    pub(crate) replies: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) dropped_full: u64,
    pub(crate) dropped_large: u64,
    /// No member of a group could take it.
    pub(crate) dropped_unshared: u64,
    pub(crate) denied_publishes: u64,
}

impl Tally {
    pub(crate) fn report(&mut self, metrics: &Metrics, board: &Board) {
        board.add(self);
        let Self {
            packets_received: _,
            replies: _,
            bytes_received,
            bytes_sent,
            received,
            sent,
            dropped_full,
            dropped_large,
            dropped_unshared,
            denied_publishes,
        } = std::mem::take(self);
        for (counter, count) in [
            (&metrics.bytes_received, bytes_received),
            (&metrics.bytes_sent, bytes_sent),
            (&metrics.received, received),
            (&metrics.sent, sent),
            (&metrics.dropped_full, dropped_full),
            (&metrics.dropped_large, dropped_large),
            (&metrics.dropped_unshared, dropped_unshared),
            (&metrics.denied_publishes, denied_publishes),
        ] {
            if count > 0 {
                counter.increment(count);
            }
        }
    }
}
