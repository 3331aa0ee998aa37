//! What waits to be sent, of all sessions together: each worker adds up its own and says so once a turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;

use crate::metrics::level;

/// From this part of the bound on, slow readers get no more QoS 0: of 8.
const TIGHT: usize = 7;
/// When sessions are ended, so many that this part of the bound is free again: one of 16.
const FREED: usize = 16;

pub(crate) struct Queues {
    /// Bytes; 0 is no bound.
    max: usize,
    total: AtomicUsize,
    by_worker: Box<[AtomicUsize]>,
    gauge: Gauge,
}

impl Queues {
    pub(crate) fn new(max: usize, workers: usize) -> Self {
        Self {
            max,
            total: AtomicUsize::new(0),
            by_worker: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            gauge: level(
                "queued_bytes",
                "What waits to be sent to all sessions, connected or not",
            ),
        }
    }

    /// What waits at `worker` has become `bytes`.
    pub(crate) fn report(&self, worker: usize, bytes: usize) {
        let before = self.by_worker[worker].swap(bytes, Ordering::Relaxed);
        // Wraps around: what is less by as much.
        let change = bytes.wrapping_sub(before);
        let total = self.total.fetch_add(change, Ordering::Relaxed);
        self.gauge.set(total.wrapping_add(change) as f64);
    }

    /// Bytes that wait.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether there is so little room that slow readers are to get no more QoS 0.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.max > 0 && self.total.load(Ordering::Relaxed) > self.max / 8 * TIGHT
    }

    /// How many bytes are to be freed, if there are too many.
    #[inline]
    pub(crate) fn excess(&self) -> Option<usize> {
        let total = self.total.load(Ordering::Relaxed);
        (self.max > 0 && total > self.max).then(|| total - self.max + self.max / FREED)
    }

    /// The worker with most of it.
    pub(crate) fn heaviest(&self) -> usize {
        let loads = self.by_worker.iter().enumerate();
        let heaviest = loads.max_by_key(|(_, load)| load.load(Ordering::Relaxed));
        heaviest.map_or(0, |(worker, _)| worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let queues = Queues::new(1600, 3);
        queues.report(0, 500);
        queues.report(1, 900);
        assert!(!queues.is_tight() && queues.excess().is_none());
        queues.report(2, 100);
        assert!(queues.is_tight() && queues.excess().is_none());
        queues.report(2, 300);
        assert_eq!(queues.excess(), Some(100 + 100));
        assert_eq!(queues.heaviest(), 1);
        queues.report(1, 0);
        assert_eq!(queues.heaviest(), 0);
        assert!(!queues.is_tight() && queues.excess().is_none());
    }

    #[test]
    fn no_bound_is_no_bound() {
        let queues = Queues::new(0, 1);
        queues.report(0, usize::MAX / 2);
        assert!(!queues.is_tight() && queues.excess().is_none());
    }
}
