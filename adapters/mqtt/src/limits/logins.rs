//! Logins that fail: whoever goes on guessing waits longer and longer for the answer.
//!
//! Failures are counted for the address, for the name, and for both together. Beyond what is allowed an answer
//! waits, twice as long after each failure; meanwhile the same address is not heard for the same name. So
//! nobody is kept out by what happens at other addresses, or is done in other names at their own (there
//! may be thousands behind one address). When a name is guessed at from many addresses, each of them
//! waits from its first failure on.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::{Duration, Instant};

use super::addresses::Origin;
use super::bucket::Nanos;
use super::table::{Record, Table};

/// The first answer that waits does so for as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Failures that are forgiven; 0 is all.
    pub(crate) allowed: u32,
    /// After so long without a failure, earlier ones are forgotten.
    pub(crate) window: Duration,
    pub(crate) max_delay: Duration,
}

pub(crate) struct Logins {
    patience: Patience,
    table: Table<Suspect, Failures>,
    /// How many records there are: nobody needs to be looked up while there are none.
    suspects: AtomicIsize,
    names: RandomState,
}

/// Of names a hash is enough: they are as long as strangers like.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Suspect {
    Address(Origin),
    Name(u64),
    Both(Origin, u64),
}

#[derive(Default)]
struct Failures {
    count: u32,
    /// When they will be forgotten.
    forgotten: Nanos,
    /// Nothing is heard before.
    until: Nanos,
}

impl Record for Failures {
    fn is_held(&self) -> bool {
        false
    }

    fn is_blank(&self, now: Nanos) -> bool {
        self.count == 0 || self.forgotten <= now
    }
}

impl Logins {
    pub(crate) fn new(patience: Patience, start: Instant) -> Self {
        Self {
            patience,
            table: Table::new(start),
            suspects: AtomicIsize::new(0),
            names: RandomState::new(),
        }
    }

    pub(crate) fn purge(&self, now: Instant) {
        let purged = self.table.purge(self.table.nanos(now));
        self.suspects.fetch_sub(purged as isize, Ordering::Relaxed);
    }

    fn is_quiet(&self) -> bool {
        self.suspects.load(Ordering::Relaxed) <= 0
    }

    /// Whether a login may be looked at now.
    pub(crate) fn may_try(&self, address: IpAddr, name: &str, now: Instant) -> bool {
        if self.is_quiet() {
            return true;
        }
        let now = self.table.nanos(now);
        let both = Suspect::Both(address.into(), self.names.hash_one(name));
        let until = self.table.look(&both, |failures| failures.until);
        until.is_none_or(|until| until <= now)
    }

    /// A login has failed. Returns how long the answer is to wait.
    pub(crate) fn failed(&self, address: IpAddr, name: &str, now: Instant) -> Duration {
        let Patience {
            allowed, max_delay, ..
        } = self.patience;
        if allowed == 0 {
            return Duration::ZERO;
        }
        let now = self.table.nanos(now);
        let (origin, name) = (Origin::from(address), self.names.hash_one(name));
        let of_address = self.count(Suspect::Address(origin), now);
        let of_name = self.count(Suspect::Name(name), now);
        let both = Suspect::Both(origin, name);
        let of_both = self.count(both, now);
        // Of a name only what this address adds.
        let excess = of_address
            .saturating_sub(allowed)
            .max(of_name.saturating_sub(allowed).min(of_both));
        if excess == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST_DELAY.saturating_mul(1 << (excess - 1).min(24));
        let delay = doubled.min(max_delay);
        self.change(both, now, |failures| {
            failures.until = now.saturating_add(nanos(delay));
        });
        delay
    }

    /// A login has succeeded: failures in that name, at that address, were mistakes.
    pub(crate) fn succeeded(&self, address: IpAddr, name: &str, now: Instant) {
        if self.is_quiet() {
            return;
        }
        let (origin, name) = (Origin::from(address), self.names.hash_one(name));
        let both = Suspect::Both(origin, name);
        let Some(mistakes) = self.table.look(&both, |failures| failures.count) else {
            return;
        };
        let now = self.table.nanos(now);
        for suspect in [both, Suspect::Address(origin), Suspect::Name(name)] {
            self.change(suspect, now, |failures| {
                failures.count = failures.count.saturating_sub(mistakes);
            });
        }
    }

    fn count(&self, suspect: Suspect, now: Nanos) -> u32 {
        let window = nanos(self.patience.window);
        self.change(suspect, now, |failures| {
            if failures.forgotten <= now {
                *failures = Failures::default();
            }
            failures.count = failures.count.saturating_add(1);
            failures.forgotten = now.saturating_add(window);
            failures.count
        })
    }

    fn change<R>(
        &self,
        suspect: Suspect,
        now: Nanos,
        change: impl FnOnce(&mut Failures) -> R,
    ) -> R {
        let (result, more) = self.table.change(suspect, now, change);
        if more != 0 {
            self.suspects.fetch_add(more, Ordering::Relaxed);
        }
        result
    }
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door {
        logins: Logins,
        start: Instant,
    }

    impl Door {
        fn new() -> Self {
            let start = Instant::now();
            let patience = Patience {
                allowed: 3,
                window: Duration::from_secs(60),
                max_delay: Duration::from_secs(1),
            };
            Self {
                logins: Logins::new(patience, start),
                start,
            }
        }

        /// Milliseconds that the answer waits.
        fn fail(&self, address: u8, name: &str, second: f64) -> u128 {
            let delay = self.logins.failed(ip(address), name, self.at(second));
            delay.as_millis()
        }

        fn may_try(&self, address: u8, name: &str, second: f64) -> bool {
            self.logins.may_try(ip(address), name, self.at(second))
        }

        fn at(&self, second: f64) -> Instant {
            self.start + Duration::from_secs_f64(second)
        }
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn answers_to_a_guesser_wait_twice_as_long_each_time() {
        let door = Door::new();
        let delays: Vec<u128> = (0..9).map(|_| door.fail(1, "lamp", 0.0)).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1000, 1000]);
        assert!(!door.may_try(1, "lamp", 0.9));
        assert!(door.may_try(1, "lamp", 1.1));
        assert_eq!(door.fail(1, "lamp", 1.1), 1000);
        // Quiet for a while, and it is forgotten.
        assert_eq!(door.fail(1, "lamp", 62.0), 0);
        assert!(!door.logins.is_quiet());
        door.logins.purge(door.at(121.0));
        assert!(!door.logins.is_quiet());
        door.logins.purge(door.at(122.0));
        assert!(door.logins.is_quiet());
    }

    #[test]
    fn who_guesses_names_waits_too_and_others_at_the_address_are_heard() {
        let door = Door::new();
        let delays: Vec<u128> = (0..6).map(|n| door.fail(1, &n.to_string(), 0.0)).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 400]);
        assert!(door.may_try(1, "honest", 0.0));
    }

    #[test]
    fn a_name_guessed_at_from_many_addresses_is_not_locked() {
        let door = Door::new();
        for address in 1..=3 {
            assert_eq!(door.fail(address, "lamp", 0.0), 0);
        }
        for address in 4..100 {
            assert_eq!(door.fail(address, "lamp", 0.0), 100, "at once");
        }
        assert!(door.may_try(200, "lamp", 0.0), "its owner, elsewhere");
        assert!(!door.may_try(50, "lamp", 0.0));
        assert_eq!(door.fail(50, "other", 0.0), 0);
    }

    #[test]
    fn success_forgives_what_was_done_in_that_name_alone() {
        let door = Door::new();
        for _ in 0..3 {
            door.fail(1, "lamp", 0.0);
        }
        door.logins.succeeded(ip(1), "lamp", door.at(0.0));
        assert_eq!(door.logins.suspects.load(Ordering::Relaxed), 0);
        assert_eq!(door.fail(1, "lamp", 0.0), 0);
        // A thing of one's own does not help with guessing at others.
        for n in 0..2 {
            assert_eq!(door.fail(1, &format!("other {n}"), 0.0), 0);
            door.logins.succeeded(ip(1), "own", door.at(0.0));
        }
        assert_eq!(door.fail(1, "lamp", 0.0), 100);
    }
}
