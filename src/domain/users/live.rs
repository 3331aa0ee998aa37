//! Logins that were found to be good a moment ago.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::caller::Caller;
use crate::identity::UserId;

use super::model::LoginId;

/// How long a login is believed without looking. What ends it in this process counts at once; another process
/// on the same database is heard of after this time.
const TTL: Duration = Duration::from_secs(1);
/// Logins that are remembered; then all are forgotten.
const MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Live(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Changes whenever something is forgotten: what was read before may be out of date.
    epoch: u64,
    callers: HashMap<LoginId, (Caller, Instant)>,
}

/// Forgets when it is dropped: whether or not the one who is about to end logins lives to see it done.
pub(super) struct Ending<'a> {
    live: &'a Live,
    whose: Whose,
}

#[derive(Clone, Copy)]
pub(super) enum Whose {
    Login(LoginId),
    User(UserId),
}

impl Live {
    /// The caller with this login, or else the epoch for [`Self::keep`].
    pub(super) fn get(&self, login: LoginId) -> Result<Caller, u64> {
        let known = self.known();
        match known.callers.get(&login) {
            Some((caller, until)) if Instant::now() < *until => Ok(*caller),
            _ => Err(known.epoch),
        }
    }

    /// Remembers what was read since `epoch`.
    pub(super) fn keep(&self, login: LoginId, caller: Caller, epoch: u64) {
        let mut known = self.known();
        if known.epoch != epoch {
            return;
        }
        if known.callers.len() >= MAX {
            known.callers.clear();
        }
        known.callers.insert(login, (caller, Instant::now() + TTL));
    }

    pub(super) const fn ending(&self, whose: Whose) -> Ending<'_> {
        Ending { live: self, whose }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        let known = self.0.lock();
        known.expect("invariant: no panic under the lock")
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut known = self.live.known();
        known.epoch += 1;
        match self.whose {
            Whose::Login(login) => {
                known.callers.remove(&login);
            }
            Whose::User(user) => known.callers.retain(|_, (caller, _)| caller.user != user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_login_ended_is_not_believed_after() {
        let (live, login) = (Live::default(), LoginId::generate());
        let caller = Caller {
            user: UserId::generate(),
            admin: false,
        };
        let epoch = live.get(login).expect_err("not known yet");
        live.keep(login, caller, epoch);
        assert_eq!(live.get(login), Ok(caller));
        for whose in [Whose::Login(login), Whose::User(caller.user)] {
            let known = live.get(login).unwrap_or_else(|epoch| {
                live.keep(login, caller, epoch);
                live.get(login).expect("known")
            });
            assert_eq!(known, caller);
            drop(live.ending(whose));
            let epoch = live.get(login).expect_err("forgotten");
            drop(live.ending(Whose::User(UserId::generate())));
            live.keep(login, caller, epoch);
            assert!(live.get(login).is_err());
        }
    }

    #[test]
    fn no_more_logins_are_remembered_than_there_is_room_for() {
        let live = Live::default();
        let caller = Caller {
            user: UserId::generate(),
            admin: false,
        };
        for _ in 0..=MAX {
            live.keep(LoginId::generate(), caller, 0);
        }
        assert_eq!(live.known().callers.len(), 1);
    }
}
