//! What the journal counts.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

pub(super) struct Metrics {
    /// Of what is offered, this waits, and the next four tell the rest.
    offered: Counter,
    waiting: Gauge,
    pub(super) events: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) moot: Counter,
    pub(super) dropped: Counter,
    pub(super) failures: Counter,
    pub(super) bytes: Gauge,
    pub(super) online: Gauge,
    pub(super) commit: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Self {
        describe_counter!(
            "rollcall_journal_events_offered_total",
            "Events that came to the journal: the sum of committed (rollcall_journal_events_total), refused, failed, moot and \
             waiting ones"
        );
        describe_gauge!(
            "rollcall_journal_events_waiting",
            "Events that are to be committed"
        );
        describe_counter!(
            "rollcall_journal_events_failed_total",
            "Events given up, arrivals all but always, since the file could not be written"
        );
        describe_counter!(
            "rollcall_journal_events_moot_total",
            "Departures of sessions that were not on the roll: their arrivals were refused"
        );
        describe_counter!("rollcall_journal_events_total", "Events committed");
        describe_counter!(
            "rollcall_journal_arrivals_refused_total",
            "Arrivals refused because the journal was full"
        );
        describe_counter!(
            "rollcall_journal_events_dropped_total",
            "Events that made room for newer ones before they were relayed"
        );
        describe_counter!("rollcall_journal_failures_total", "Commits that failed");
        describe_gauge!("rollcall_journal_bytes", "Bytes of events that are kept");
        describe_gauge!("rollcall_sessions_online", "Sessions on the roll");
        describe_histogram!("rollcall_journal_commit_seconds", "How long commits took");
        Self {
            offered: counter!("rollcall_journal_events_offered_total"),
            waiting: gauge!("rollcall_journal_events_waiting"),
            failed: counter!("rollcall_journal_events_failed_total"),
            moot: counter!("rollcall_journal_events_moot_total"),
            events: counter!("rollcall_journal_events_total"),
            refused: counter!("rollcall_journal_arrivals_refused_total"),
            dropped: counter!("rollcall_journal_events_dropped_total"),
            failures: counter!("rollcall_journal_failures_total"),
            bytes: gauge!("rollcall_journal_bytes"),
            online: gauge!("rollcall_sessions_online"),
            commit: histogram!("rollcall_journal_commit_seconds"),
        }
    }

    pub(super) fn offered(&self, events: usize) {
        self.offered.increment(events as u64);
        self.waiting.increment(events as f64);
    }

    /// What waited has come to this.
    pub(super) fn settled(&self, outcome: &Counter, events: usize) {
        outcome.increment(events as u64);
        self.waiting.decrement(events as f64);
    }
}
