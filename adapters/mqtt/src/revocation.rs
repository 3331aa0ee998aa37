//! What others take away from clients while they are here: sessions.

use rollcall_domain::presence::{Farewell, Kick, Kicked, Whom};

use crate::reason;
use crate::worker::Worker;

impl Worker {
    /// Ends sessions because an administrator says so.
    pub(crate) fn kick(&mut self, kick: &Kick) -> Kicked {
        let mut kicked = Kicked::default();
        for slot in self.sessions_of(kick.whom) {
            let session = &self.sessions[slot];
            let generation = session.generation;
            let reason = kick.reason.as_ref().map(|reason| reason.as_str());
            for token in [session.connection, session.claim].into_iter().flatten() {
                let code = reason::disconnect(Farewell::Kicked);
                self.end_because(token, Farewell::Kicked, code, reason);
                kicked.ended += 1;
            }
            if kick.forget {
                kicked.forgotten += 1;
                // It may have ended with its connection.
                if self.session_ref_if(slot, generation).is_some() {
                    self.remove_session(slot);
                }
            }
        }
        kicked
    }

    fn sessions_of(&self, whom: Whom) -> Vec<usize> {
        let is_meant = |session: &crate::session::Session| match whom {
            Whom::Thing(thing) => session.key.thing == thing,
            Whom::Session(id) => [session.connection, session.claim]
                .into_iter()
                .flatten()
                .filter_map(|token| self.connections[token].presence.as_ref())
                .any(|presence| presence.id == id),
        };
        let meant = self.sessions.iter().filter(|(_, it)| is_meant(it));
        meant.map(|(slot, _)| slot).collect()
    }
}
