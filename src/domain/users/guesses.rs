//! How often somebody may be wrong.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::refusal::Refusal;

/// Counts attempts per name and in all, within windows of time. An attempt counts as wrong until it has proved
/// right, so many at one time get no further than many in a row.
///
/// There is an entry for each name with an attempt in the window: never more than attempts in all.
pub(super) struct Guesses {
    each: u32,
    all: u32,
    window: Duration,
    counts: Mutex<Counts>,
}

struct Counts {
    since: Instant,
    all: u32,
    of: HashMap<Box<str>, u32>,
}

/// An attempt under way. Dropped, it counts.
pub(super) struct Attempt<'a> {
    guesses: &'a Guesses,
    name: &'a str,
    since: Instant,
}

impl Guesses {
    pub(super) fn new(each: u32, all: u32, window: Duration) -> Self {
        let counts = Counts {
            since: Instant::now(),
            all: 0,
            of: HashMap::new(),
        };
        Self {
            each,
            all,
            window,
            counts: Mutex::new(counts),
        }
    }

    /// # Errors
    /// [`Refusal::Busy`].
    pub(super) fn attempt<'a>(&'a self, name: &'a str) -> Result<Attempt<'a>, Refusal> {
        let now = Instant::now();
        let mut counts = self.counts();
        if now.duration_since(counts.since) >= self.window {
            counts.since = now;
            counts.all = 0;
            counts.of.clear();
        }
        let of = counts.of.get(name).copied().unwrap_or_default();
        if of >= self.each || counts.all >= self.all {
            return Err(Refusal::Busy);
        }
        counts.all += 1;
        counts.of.insert(name.into(), of + 1);
        Ok(Attempt {
            guesses: self,
            name,
            since: counts.since,
        })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        let counts = self.counts.lock();
        counts.expect("invariant: no panic under the lock")
    }
}

impl Attempt<'_> {
    /// It was no guess: it does not count.
    pub(super) fn right(self) {
        let mut counts = self.guesses.counts();
        if counts.since != self.since {
            return;
        }
        counts.all = counts.all.saturating_sub(1);
        if let Some(of) = counts.of.get_mut(self.name) {
            *of -= 1;
            if *of == 0 {
                counts.of.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_is_not_heard_for_a_while_and_others_are() {
        let guesses = Guesses::new(3, 5, Duration::from_secs(3_600));
        for _ in 0..3 {
            guesses.attempt("a").expect("heard");
        }
        assert!(matches!(guesses.attempt("a"), Err(Refusal::Busy)));
        for _ in 0..100 {
            guesses.attempt("b").expect("heard").right();
        }
        guesses.attempt("b").expect("heard");
        guesses.attempt("c").expect("heard");
        // Five in all.
        assert!(matches!(guesses.attempt("d"), Err(Refusal::Busy)));
    }

    #[test]
    fn attempts_at_one_time_are_counted_before_they_end() {
        let guesses = Guesses::new(2, 100, Duration::from_secs(3_600));
        let (first, second) = (guesses.attempt("a"), guesses.attempt("a"));
        assert!(guesses.attempt("a").is_err());
        first.expect("heard").right();
        assert!(guesses.attempt("a").is_ok());
        drop(second);
        assert!(guesses.attempt("a").is_err());
    }

    #[test]
    fn a_window_ends() {
        let guesses = Guesses::new(1, 1, Duration::ZERO);
        let first = guesses.attempt("a").expect("heard");
        guesses.attempt("a").expect("heard again");
        // What began in an earlier window takes nothing off a later one.
        first.right();
        assert_eq!(guesses.counts().all, 1);
    }
}
