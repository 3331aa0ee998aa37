//! Deadlines of a worker, in ticks of a tenth of a second.
//!
//! A connection has one timer under way at a time: when it fires, the connection looks at what became of
//! it and sets the next. So a packet costs no work on timers. None is taken back: whoever it was for may be
//! gone when it comes up. As all come up within a minute, whether due or not, those do not pile up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tenths of a second since the worker began.
pub(crate) type Tick = u32;

const TICK: Duration = Duration::from_millis(100);
/// How far ahead a timer comes up, at most.
const HORIZON: Tick = 600;

#[derive(Debug)]
pub(crate) struct Timers<T> {
    start: Instant,
    now: Tick,
    /// When they come up, and when they are due.
    upcoming: BTreeMap<Tick, Vec<(Tick, T)>>,
}

impl<T> Timers<T> {
    pub(crate) const fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            upcoming: BTreeMap::new(),
        }
    }

    /// The tick that `at` lies in.
    pub(crate) fn tick(&self, at: Instant) -> Tick {
        let ticks = at.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        Tick::try_from(ticks).unwrap_or(Tick::MAX)
    }

    /// Has `timer` come up at `due` or sooner, at the earliest with the next call of [`Timers::pop`].
    pub(crate) fn set(&mut self, due: Tick, timer: T) {
        let tick = due.min(self.now.saturating_add(HORIZON));
        self.upcoming.entry(tick).or_default().push((due, timer));
    }

    /// The timers that come up at `now`, each with when it is due: one that is due later is to be set again.
    pub(crate) fn pop(&mut self, now: Instant) -> Vec<(Tick, T)> {
        self.now = self.tick(now);
        let mut timers = Vec::new();
        while let Some(entry) = self.upcoming.first_entry()
            && *entry.key() <= self.now
        {
            timers.append(&mut entry.remove());
        }
        timers
    }

    /// How long a worker may sleep.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let (tick, _) = self.upcoming.first_key_value()?;
        Some((self.start + TICK * *tick).saturating_duration_since(now))
    }
}

/// `duration` in ticks, rounded up and at least one.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    Tick::try_from(ticks).unwrap_or(Tick::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_up_in_order_and_once() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.set(30, "late");
        timers.set(10, "early");
        timers.set(10, "early too");
        assert_eq!(timers.next(start), Some(Duration::from_secs(1)));
        assert!(timers.pop(start + Duration::from_millis(999)).is_empty());
        assert_eq!(
            timers.pop(start + Duration::from_secs(1)),
            [(10, "early"), (10, "early too")]
        );
        assert_eq!(timers.pop(start + Duration::from_secs(9)), [(30, "late")]);
        assert_eq!(timers.next(start), None);
    }

    #[test]
    fn a_far_timer_comes_up_before_it_is_due() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let due = ticks(Duration::from_secs(100));
        timers.set(due, ());
        let first = start + TICK * HORIZON;
        assert_eq!(timers.next(start), Some(TICK * HORIZON));
        assert_eq!(timers.pop(first), [(due, ())]);
        timers.set(due, ());
        assert_eq!(timers.next(first), Some(TICK * (due - HORIZON)));
        assert_eq!(timers.pop(start + TICK * due), [(due, ())]);
    }
}
