//! Rates: so many a second, and how far ahead of that one may run for a while.
//!
//! A bucket is one number: the moment at which it is full again. Taking moves it on, and whoever would
//! move it further ahead of now than the burst allows must wait. The last taker may overdraw, so what is
//! larger than the whole bucket gets through as well, and is paid for afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the front was started.
pub(crate) type Nanos = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
    burst: Nanos,
}

impl Rate {
    /// `None` if there is no limit, which is what 0 says. `burst` is how much time's worth may come at once.
    pub(crate) fn new(per_second: u64, burst: Duration) -> Option<Self> {
        let burst = Nanos::try_from(burst.as_nanos()).unwrap_or(Nanos::MAX);
        (per_second > 0).then_some(Self { per_second, burst })
    }

    /// When a bucket that is full at `full` is full after `n` were taken; or how long to wait before that.
    #[inline]
    fn take(self, full: Nanos, n: u64, now: Nanos) -> Result<Nanos, Duration> {
        let most = now.saturating_add(self.burst);
        if full >= most {
            return Err(Duration::from_nanos(full - most + 1));
        }
        Ok(full.max(now).saturating_add(self.cost(n)))
    }

    const fn cost(self, n: u64) -> Nanos {
        n.saturating_mul(SECOND) / self.per_second
    }
}

/// Of one owner.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket(Nanos);

impl Bucket {
    /// # Errors
    /// How long to wait: the bucket is empty.
    pub(crate) fn take(&mut self, rate: Rate, n: u64, now: Nanos) -> Result<(), Duration> {
        self.0 = rate.take(self.0, n, now)?;
        Ok(())
    }

    pub(crate) const fn is_full(self, now: Nanos) -> bool {
        self.0 <= now
    }
}

/// Of all workers.
#[derive(Debug, Default)]
pub(crate) struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// # Errors
    /// How long to wait: the bucket is empty.
    #[inline]
    pub(crate) fn take(&self, rate: Rate, n: u64, now: Nanos) -> Result<(), Duration> {
        let mut full = self.0.load(Ordering::Relaxed);
        loop {
            let next = rate.take(full, n, now)?;
            match self.swap(full, next) {
                Ok(_) => return Ok(()),
                Err(other) => full = other,
            }
        }
    }

    fn swap(&self, full: Nanos, next: Nanos) -> Result<Nanos, Nanos> {
        let order = Ordering::Relaxed;
        self.0.compare_exchange_weak(full, next, order, order)
    }

    /// Takes in any case.
    #[inline]
    pub(crate) fn overdraw(&self, rate: Rate, n: u64, now: Nanos) {
        let mut full = self.0.load(Ordering::Relaxed);
        while let Err(other) = self.swap(full, full.max(now).saturating_add(rate.cost(n))) {
            full = other;
        }
    }

    /// How long to wait before anything can be taken.
    #[inline]
    pub(crate) fn wait(&self, rate: Rate, now: Nanos) -> Option<Duration> {
        let full = self.0.load(Ordering::Relaxed);
        rate.take(full, 0, now).err()
    }

    pub(crate) fn is_full(&self, now: Nanos) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1)).expect("a limit");
        let mut bucket = Bucket::default();
        let start = 7 * SECOND;
        for _ in 0..10 {
            assert_eq!(bucket.take(rate, 1, start), Ok(()));
        }
        let wait = bucket.take(rate, 1, start).expect_err("empty");
        assert!(wait <= Duration::from_millis(1), "{wait:?}");
        assert_eq!(bucket.take(rate, 1, start + MS), Ok(()), "a started one");
        let wait = bucket.take(rate, 1, start + MS).expect_err("empty");
        assert!(wait > Duration::from_millis(98), "{wait:?}");
        assert!(!bucket.is_full(start + SECOND));
        assert!(bucket.is_full(start + 2 * SECOND));
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_and_is_paid_for() {
        let rate = Rate::new(1000, Duration::from_secs(1)).expect("a limit");
        let bucket = SharedBucket::default();
        assert_eq!(bucket.take(rate, 5000, 0), Ok(()));
        let wait = bucket.take(rate, 1, 0).expect_err("overdrawn");
        assert_eq!(wait.as_secs(), 4);
        assert_eq!(bucket.wait(rate, 0), Some(wait));
        assert_eq!(bucket.wait(rate, 5 * SECOND), None);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!(Rate::new(0, Duration::from_secs(1)), None);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate_allow(
            per_second in 1u64..10_000,
            burst_ms in 100u64..5_000,
            steps in prop::collection::vec((0u64..400, 1u64..50), 1..200),
        ) {
            let rate = Rate::new(per_second, Duration::from_millis(burst_ms)).expect("a limit");
            let mut bucket = Bucket::default();
            let shared = SharedBucket::default();
            let (mut now, mut taken, mut largest) = (SECOND, 0, 0);
            for (pause, n) in steps {
                now += pause * MS;
                let took = bucket.take(rate, n, now);
                prop_assert_eq!(took, shared.take(rate, n, now));
                match took {
                    Ok(()) => taken += n,
                    Err(wait) => {
                        let later = now + Nanos::try_from(wait.as_nanos()).expect("short");
                        let mut copy = bucket;
                        prop_assert!(copy.take(rate, n, later - 1).is_err(), "the wait is no longer than needed");
                        prop_assert!(copy.take(rate, n, later).is_ok(), "and long enough");
                    }
                }
                largest = largest.max(n);
                // The last one may overdraw.
                let allowed = (now - SECOND + burst_ms * MS) * per_second / SECOND + largest + 1;
                prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
            }
        }
    }
}
