//! Why a session ended, and whether it can have.

use std::collections::HashMap;

use super::{Deed, Evidence};
use crate::crowd::{Attempt, End};
use crate::plan::{Kind, Part};

/// How long a fault is felt after it is over, in milliseconds.
const fn aftermath(kind: Kind) -> u64 {
    match kind {
        // Sockets send again with longer and longer pauses.
        Kind::Partition => 12_000,
        // Until the side that was not told has noticed.
        Kind::ForgetClients => 8_000,
        _ => 3_000,
    }
}

/// How long after its end a session may be found to be over.
const AFTER: u64 = 8_000;

/// Milliseconds that an answer takes on no sound machine.
const SLOW: u64 = 1_000;

/// What was done, to explain what happened.
pub(crate) struct Deeds<'a> {
    evidence: &'a Evidence<'a>,
    /// Attempts of a client, by its client id.
    by_name: HashMap<&'a str, Vec<u64>>,
}

impl<'a> Deeds<'a> {
    pub(crate) fn new(evidence: &'a Evidence<'a>) -> Self {
        let mut by_name: HashMap<&str, Vec<u64>> = HashMap::new();
        for (number, attempt) in evidence.attempts.iter().enumerate() {
            let name = &*evidence.clients[attempt.client].client_id;
            by_name.entry(name).or_default().push(number as u64);
        }
        Self { evidence, by_name }
    }

    fn any(&self, attempt: &Attempt, is: impl Fn(&Deed) -> bool) -> bool {
        let ended = attempt.ended.map_or(u64::MAX, |(at, _)| at);
        let deeds = self.evidence.deeds.iter();
        let mut during = deeds.filter(|it| {
            it.from <= ended.saturating_add(AFTER)
                && it.to + aftermath(it.fault.kind) >= attempt.began
        });
        during.any(is)
    }

    /// Whether the way between the client and its instance, or the instance itself, was touched, or the machine
    /// was so busy that the client noticed.
    fn is_touched(&self, attempt: &Attempt) -> bool {
        if attempt.waited > SLOW || attempt.ended.is_some_and(|(_, end)| end == End::GaveUp) {
            return true;
        }
        self.any(attempt, |deed| {
            let mut parts = deed.fault.parts().into_iter();
            parts
                .any(|part| [Part::Process(attempt.slot), Part::Door(attempt.slot)].contains(&part))
        })
    }

    /// # Errors
    /// Why it cannot have been.
    pub(super) fn explain(
        &self,
        number: u64,
        attempt: &Attempt,
        reason: &str,
    ) -> Result<(), &'static str> {
        let thing = &self.evidence.clients[attempt.client].thing;
        let of_thing =
            |kind| move |deed: &Deed| deed.fault.kind == kind && deed.thing.as_ref() == Some(thing);
        let end = attempt.ended.map(|(_, end)| end);
        let right = match reason {
            "disconnected" => {
                return match end {
                    Some(End::Goodbye) => Ok(()),
                    _ => Err("the client has not said so"),
                };
            }
            "connection_lost" => {
                // The server had no cause to believe so.
                let by_server = matches!(end, Some(End::Ended(_)));
                !by_server || self.is_touched(attempt)
            }
            "keep_alive_timeout" => attempt.silent.is_some() || self.is_touched(attempt),
            "taken_over" => self.has_rival(number, attempt),
            "kicked" => self.any(attempt, of_thing(Kind::Kick)),
            "revoked" => self.any(attempt, of_thing(Kind::Revoke)),
            // At the end all are told to stop, when nobody is there any more.
            "server_shutdown" => self.any(attempt, |deed| {
                deed.fault.kind == Kind::Drain && deed.fault.slot == attempt.slot
            }),
            // That the lease ran out is for Redis to say.
            "instance_failed" => true,
            _ => false,
        };
        right.then_some(()).ok_or("nobody has done that")
    }

    /// Whether another came with the same client id.
    fn has_rival(&self, number: u64, attempt: &Attempt) -> bool {
        let ended = attempt.ended.map_or(u64::MAX, |(at, _)| at);
        let rivals = &self.by_name[&*self.evidence.clients[attempt.client].client_id];
        rivals.iter().filter(|it| **it != number).any(|rival| {
            let rival = &self.evidence.attempts[*rival as usize];
            rival.asked
                && rival.began <= ended.saturating_add(AFTER)
                && rival.began + AFTER >= attempt.began
        })
    }
}
