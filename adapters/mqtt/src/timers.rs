//! Deadlines of a worker, in ticks of a tenth of a second.
//!
//! A connection has one timer under way at a time: when it fires, the connection looks at what became of
//! it and sets the next. So a packet costs no work on timers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tenths of a second since the worker began.
pub(crate) type Tick = u32;

const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Timers<T> {
    start: Instant,
    due: BTreeMap<Tick, Vec<T>>,
}

impl<T> Timers<T> {
    pub(crate) const fn new(start: Instant) -> Self {
        Self {
            start,
            due: BTreeMap::new(),
        }
    }

    /// The tick that `at` lies in.
    pub(crate) fn tick(&self, at: Instant) -> Tick {
        let ticks = at.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        Tick::try_from(ticks).unwrap_or(Tick::MAX)
    }

    /// Fires `timer` at `tick`, at the earliest with the next call of [`Timers::fire`].
    pub(crate) fn set(&mut self, tick: Tick, timer: T) {
        self.due.entry(tick).or_default().push(timer);
    }

    /// All timers due at `now`.
    pub(crate) fn fire(&mut self, now: Instant) -> Vec<T> {
        let now = self.tick(now);
        let mut fired = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| *entry.key() <= now) {
            fired.append(&mut entry.remove());
        }
        fired
    }

    /// How long a worker may sleep.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let (tick, _) = self.due.first_key_value()?;
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
    fn timers_fire_in_order_and_once() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.set(30, "late");
        timers.set(10, "early");
        timers.set(10, "early too");
        assert_eq!(timers.next(start), Some(Duration::from_secs(1)));
        assert!(timers.fire(start + Duration::from_millis(999)).is_empty());
        assert_eq!(
            timers.fire(start + Duration::from_secs(1)),
            ["early", "early too"]
        );
        assert_eq!(timers.fire(start + Duration::from_secs(9)), ["late"]);
        assert_eq!(timers.next(start), None);
    }
}
