//! What was granted once is looked at again, now and then: not everything that is revoked elsewhere is heard of.
//!
//! Each live session comes up once in the time that an answer of the things service is trusted, a few every
//! second. Only what is no longer remembered is asked about, and no answer changes nothing.

use std::collections::HashSet;
use std::time::Duration;

use rollcall_domain::access::{Action, Credentials, Revoked, Verdict};
use rollcall_domain::identity::ChannelId;
use rollcall_domain::things::Actions;

use crate::agenda::Timer;
use crate::principal::Principal;
use crate::revocation::channel_of_filter;
use crate::timers::ticks;
use crate::worker::Worker;

const PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks at the next few sessions.
    pub(crate) fn go_round(&mut self) {
        let tick = self.tick.saturating_add(ticks(PAUSE));
        self.timers.set(tick, Timer::Round);
        let access = &self.shared.gate.access;
        let pauses = access.ttl().as_secs().max(1) as usize;
        // Places may be empty, so there are as many as the table has.
        let places = self.sessions.capacity();
        let few = places.div_ceil(pauses);
        for _ in 0..few {
            self.round = (self.round + 1) % places.max(1);
            self.look_again(self.round);
        }
    }

    fn look_again(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let (Principal::Thing { thing, proof }, Some(_)) = (&session.principal, session.connection)
        else {
            return;
        };
        let (access, now, thing) = (&self.shared.gate.access, self.now, *thing);
        let credentials = Credentials {
            thing: Some(thing.thing()),
            proof: proof.clone(),
        };
        let channels: HashSet<ChannelId> = session
            .subscriptions
            .iter()
            .filter_map(|(filter, _)| channel_of_filter(filter))
            .filter(|&channel| {
                let verdict = access.authorize(thing, channel, Action::Read, now);
                matches!(verdict, Verdict::Unknown)
            })
            .collect();
        if matches!(access.authenticate(&credentials, now), Verdict::Unknown) {
            self.doubt_of(slot, Revoked::Key(thing.thing()), None);
        }
        for channel in channels {
            let what = Revoked::Grant {
                thing: thing.thing(),
                channel,
                // Of writing it is asked when something is published.
                left: Actions {
                    read: false,
                    write: true,
                },
            };
            self.doubt_of(slot, what, None);
        }
    }
}
