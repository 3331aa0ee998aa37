//! What became of the events of a log, in numbers that add up, whatever happens to Redis:
//!
//! accepted + again = before + relayed + found + skipped + missing + waiting
//!
//! All move together and without a pause in between, so this holds whenever somebody looks.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::relay::Carried;

pub(crate) struct Account {
    /// How far the stream has the log.
    position: u64,
    relayed: Counter,
    found: Counter,
    skipped: Counter,
    missing: Counter,
    again: Counter,
    accepted: Gauge,
    waiting: Gauge,
}

impl Account {
    /// `before` is the position up to which the log counts as relayed now.
    pub(crate) fn open(stream: &'static str, before: u64, last: u64) -> Self {
        describe();
        let counter = |name: &'static str| counter!(name, "stream" => stream);
        gauge!("rollcall_relay_events_before", "stream" => stream).set(before as f64);
        let account = Self {
            position: before,
            relayed: counter("rollcall_relay_events_total"),
            found: counter("rollcall_relay_events_found_total"),
            skipped: counter("rollcall_relay_events_skipped_total"),
            missing: counter("rollcall_relay_events_missing_total"),
            again: counter("rollcall_relay_events_again_total"),
            accepted: gauge!("rollcall_relay_events_accepted", "stream" => stream),
            waiting: gauge!("rollcall_relay_lag_events", "stream" => stream),
        };
        account.wait(last);
        account
    }

    /// A connection finds that the stream has the log up to `position`, which may be any other than thought.
    pub(crate) fn find(&mut self, position: u64, last: u64) {
        self.found.increment(position.saturating_sub(self.position));
        self.again.increment(self.position.saturating_sub(position));
        self.position = position;
        self.wait(last);
    }

    pub(crate) fn carry(&mut self, carried: &Carried, last: u64) {
        let moved = carried.reached.saturating_sub(self.position);
        let missing = carried.missing.min(moved);
        let relayed = carried.appended.min(moved - missing);
        self.missing.increment(missing);
        self.relayed.increment(relayed);
        self.skipped.increment(moved - missing - relayed);
        self.position += moved;
        self.wait(last);
    }

    /// The log has events up to `last` now.
    pub(crate) fn wait(&self, last: u64) {
        let accepted = last.max(self.position);
        self.accepted.set(accepted as f64);
        self.waiting.set((accepted - self.position) as f64);
    }
}

fn describe() {
    describe_gauge!(
        "rollcall_relay_events_accepted",
        "Events that the log has ever had; with those sent again, the sum of before, relayed (_total), found, skipped, \
         missing and lag"
    );
    describe_gauge!(
        "rollcall_relay_events_before",
        "Events that counted as relayed when this process began"
    );
    describe_counter!("rollcall_relay_events_total", "Events appended to a stream");
    describe_counter!(
        "rollcall_relay_events_found_total",
        "Events that were in the stream though no answer had said so"
    );
    describe_counter!(
        "rollcall_relay_events_skipped_total",
        "Events not relayed: disconnects of sessions that were off the roll already, or what another process has relayed"
    );
    describe_counter!(
        "rollcall_relay_events_missing_total",
        "Events that were dropped from the journal before they were in the stream"
    );
    describe_counter!(
        "rollcall_relay_events_again_total",
        "Events to be relayed again since Redis had lost them"
    );
    describe_gauge!(
        "rollcall_relay_lag_events",
        "Events that are not in the stream yet"
    );
}
