//! Who has sent what, and what has come of it: every message is accounted for, in order.

use crate::mqtt::{self, Label};
use crate::report::Faults;
use hdrhistogram::Histogram;

/// Messages of one publisher under way at most, and PUBLISH packets it has unacknowledged.
pub(crate) const WINDOW: u32 = 64;

#[derive(Clone, Copy, Default)]
struct Publisher {
    sent: u32,
    /// Deliveries of its messages, over all of its subscribers; those skipped are not waited for.
    accounted: u64,
    acked: u32,
    queued: bool,
}

/// What one subscriber has of one publisher: the latest sequence number, and which of those before it.
#[derive(Clone, Copy, Default)]
struct Trail {
    latest: u32,
    /// Bit `n` stands for `latest - n`.
    recent: u64,
}

enum Step {
    /// So many numbers further; all but one of them were skipped.
    Ahead(u32),
    /// Skipped before, here now.
    Late,
    Repeated,
}

impl Trail {
    #[inline]
    fn step(&mut self, sequence: u32) -> Step {
        if sequence > self.latest {
            let steps = sequence - self.latest;
            self.latest = sequence;
            self.recent = self.recent.checked_shl(steps).unwrap_or(0) | 1;
            return Step::Ahead(steps);
        }
        // What is older than the window has been given up by its publisher, or counted.
        let bit = 1u64.checked_shl(self.latest - sequence).unwrap_or(u64::MAX);
        if self.recent & bit != 0 {
            return Step::Repeated;
        }
        self.recent |= bit;
        Step::Late
    }
}

pub(crate) struct Ledger {
    publishers: Vec<Publisher>,
    /// Subscribers every message goes to.
    audience: u64,
    acknowledged: bool,
    /// By subscriber and publisher.
    trails: Vec<Trail>,
    /// Publishers whose window may have room again.
    ready: Vec<usize>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) faults: Faults,
    burst: Burst,
}

/// Messages in a row that were sent at one moment and came with one read: one entry for them all.
#[derive(Default)]
struct Burst {
    sent_nanos: u64,
    messages: u64,
}

impl Ledger {
    pub(crate) fn new(
        publishers: usize,
        subscribers: usize,
        audience: u64,
        acknowledged: bool,
    ) -> Self {
        Self {
            publishers: vec![
                Publisher {
                    queued: true,
                    ..Publisher::default()
                };
                publishers
            ],
            audience,
            acknowledged,
            trails: vec![Trail::default(); publishers * subscribers],
            ready: (0..publishers).collect(),
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 2)
                .expect("invariant: sound bounds"),
            sent: 0,
            delivered: 0,
            faults: Faults::default(),
            burst: Burst::default(),
        }
    }

    /// Takes all publishers worth a look into `turn`, which is empty.
    pub(crate) fn take_ready(&mut self, turn: &mut Vec<usize>) {
        std::mem::swap(&mut self.ready, turn);
        for &publisher in turn.iter() {
            self.publishers[publisher].queued = false;
        }
    }

    pub(crate) fn wake(&mut self, publisher: usize) {
        let entry = &mut self.publishers[publisher];
        if !entry.queued {
            entry.queued = true;
            self.ready.push(publisher);
        }
    }

    /// How many messages the publisher may send now.
    pub(crate) fn room(&self, publisher: usize) -> u32 {
        let entry = &self.publishers[publisher];
        let due = u64::from(entry.sent) * self.audience;
        let under_way = due.saturating_sub(entry.accounted).div_ceil(self.audience);
        let room = u64::from(WINDOW).saturating_sub(under_way) as u32;
        if self.acknowledged {
            room.min(WINDOW - (entry.sent - entry.acked))
        } else {
            room
        }
    }

    /// The sequence number of the message the publisher sends next.
    pub(crate) fn send(&mut self, publisher: usize) -> u32 {
        self.sent += 1;
        let entry = &mut self.publishers[publisher];
        entry.sent += 1;
        entry.sent
    }

    /// Notes a message that came to a subscriber `now`.
    #[inline]
    pub(crate) fn deliver(&mut self, subscriber: usize, label: Label, now: u64) {
        let publisher = label.publisher as usize;
        let known = self
            .publishers
            .get(publisher)
            .is_some_and(|entry| label.sequence <= entry.sent);
        if !known {
            self.faults.strange += 1;
            return;
        }
        self.delivered += 1;
        match self.trails[subscriber * self.publishers.len() + publisher].step(label.sequence) {
            Step::Ahead(steps) => {
                self.publishers[publisher].accounted += u64::from(steps);
                self.wake(publisher);
            }
            Step::Late => self.faults.late += 1,
            Step::Repeated => self.faults.repeated += 1,
        }
        if label.nanos != self.burst.sent_nanos {
            self.end_burst(now);
            self.burst.sent_nanos = label.nanos;
        }
        self.burst.messages += 1;
    }

    /// Notes the end of what one read gave.
    #[inline]
    pub(crate) fn end_burst(&mut self, now: u64) {
        let Burst {
            sent_nanos,
            messages,
        } = std::mem::take(&mut self.burst);
        if messages > 0 {
            self.latency
                .saturating_record_n(now.saturating_sub(sent_nanos), messages);
        }
    }

    /// Notes a PUBACK. They come in the order of the messages [MQTT311-4.6.0-2].
    #[inline]
    pub(crate) fn acknowledge(&mut self, publisher: usize, id: u16) {
        let entry = &mut self.publishers[publisher];
        if entry.acked < entry.sent && id == mqtt::packet_id(entry.acked + 1) {
            entry.acked += 1;
            self.wake(publisher);
        } else {
            self.faults.strange += 1;
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.delivered >= self.sent * self.audience && (!self.acknowledged || self.unacked() == 0)
    }

    /// All faults, with what never came.
    pub(crate) fn close(mut self) -> (Histogram<u64>, Faults) {
        self.faults.missing =
            (self.sent * self.audience).saturating_sub(self.delivered - self.faults.repeated);
        self.faults.unacked = if self.acknowledged { self.unacked() } else { 0 };
        (self.latency, self.faults)
    }

    fn unacked(&self) -> u64 {
        self.publishers
            .iter()
            .map(|entry| u64::from(entry.sent - entry.acked))
            .sum()
    }
}
