//! By how much the clock of Redis is ahead of the one here: sessions of several instances are compared by it.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use rollcall_domain::identity::Timestamp;
use tokio::time::Instant;

/// How often the clock is looked at.
const PAUSE: Duration = Duration::from_secs(1);
/// How far two clocks may go apart between two looks, in microseconds.
const DRIFT: i64 = 200;

/// By how many microseconds the clock of Redis is ahead of the one here: between two bounds.
#[derive(Debug, Default)]
pub(crate) struct RedisClock {
    least: i64,
    most: i64,
    asked: Option<Instant>,
}

impl RedisClock {
    pub(crate) async fn ask(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let before = Timestamp::now();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(redis).await?;
        self.see(before, seconds * 1_000_000 + micros, Timestamp::now());
        Ok(())
    }

    /// Asks if that was some time ago.
    pub(crate) async fn ask_again(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        match self.asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            true => Ok(()),
            false => self.ask(redis).await,
        }
    }

    /// Redis had `time` at some moment between two moments here.
    fn see(&mut self, before: Timestamp, time: i64, after: Timestamp) {
        let micros = |at: Timestamp| (at.0 / 1_000).cast_signed();
        let (least, most) = (time - micros(after) - 1, time - micros(before) + 1);
        let is_first = self.asked.replace(Instant::now()).is_none();
        self.least = least.max(self.least - DRIFT);
        self.most = most.min(self.most + DRIFT);
        if is_first || self.least > self.most {
            // One of the clocks was set.
            (self.least, self.most) = (least, most);
        }
    }

    /// By how much the clock of Redis is ahead, at least.
    pub(crate) const fn ahead(&self) -> i64 {
        self.least
    }

    /// By how much it may be more, and the time in a session's id, cut to a millisecond, too early.
    pub(crate) const fn doubt(&self) -> i64 {
        self.most - self.least + 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn clock(looks: &[(u64, i64, u64)]) -> RedisClock {
        let mut clock = RedisClock::default();
        for &(before, time, after) in looks {
            let [before, after] = [before, after].map(|at| Timestamp(at * SECOND));
            clock.see(before, time * 1_000_000, after);
        }
        clock
    }

    #[test]
    fn of_slow_answers_and_fast_ones_the_fast_ones_count() {
        let sharp = clock(&[(100, 165, 110), (120, 180, 120), (130, 200, 150)]);
        assert!((sharp.ahead() - 60_000_000).abs() < 2_000, "{sharp:?}");
        assert!(sharp.doubt() < 5_000, "{sharp:?}");
        let vague = clock(&[(100, 165, 110)]);
        assert_eq!(vague.ahead(), 54_999_999);
        assert_eq!(vague.doubt(), 10_001_002);
    }

    #[test]
    fn a_clock_that_was_set_is_believed_anew() {
        let clock = clock(&[(100, 100, 100), (200, 500, 200)]);
        assert!((clock.ahead() - 300_000_000).abs() < 2_000, "{clock:?}");
    }
}
