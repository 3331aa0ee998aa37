//! A client that uses two instances: the one of the model, and another that nothing ever happens to.
//!
//! Places of those who were closed by survivors are not freed here: what a place says need not be so.

use crate::state::{Broken, Redis, SESSIONS, State, Told};
use crate::{Model, Rule};

/// Who has the place of the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Holder {
    Own(usize),
    Other,
}

/// Sessions that an instance is to end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) enum Ousted {
    #[default]
    No,
    /// The stream has the disconnect.
    Closed,
    Open,
}

/// The session at the other instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Other {
    came: bool,
    left: bool,
    /// The one session here had come before.
    is_newer: bool,
}

/// What Redis has of that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Clients {
    pub(crate) place: Option<Holder>,
    pub(crate) ousted: [Ousted; SESSIONS],
    /// The session at the other instance, and how many of its events came.
    other: Told,
    other_relayed: u8,
    other_ousted: Ousted,
}

impl Clients {
    pub(crate) fn is_other_online(&self) -> bool {
        self.other == Told::Here
    }
}

impl Redis {
    /// `arrive` of `clients.lua`, for a session here.
    pub(crate) fn arrive(
        &mut self,
        session: usize,
        other: Other,
        model: &Model,
    ) -> Result<(), Broken> {
        let clients = &mut self.clients;
        if clients.place == Some(Holder::Other) && clients.other == Told::Here {
            if other.is_newer && model.without != Some(Rule::LateGivesWay) {
                if model.without != Some(Rule::LateIsEnded) {
                    clients.ousted[session] = Ousted::Open;
                }
                return Ok(());
            }
            if other.is_newer {
                return Err("who has come later is closed");
            }
            clients.other = Told::Gone;
            clients.other_ousted = Ousted::Closed;
        }
        clients.place = Some(Holder::Own(session));
        Ok(())
    }

    pub(crate) fn depart(&mut self, session: usize) {
        self.clients.ousted[session] = Ousted::No;
        if self.clients.place == Some(Holder::Own(session)) {
            self.clients.place = None;
        }
    }

    /// The other instance relays its next event.
    fn relay_other(&mut self, other: Other, model: &Model) -> Result<(), Broken> {
        self.clients.other_relayed += 1;
        if self.clients.other_relayed == 2 {
            if self.clients.other == Told::Here {
                self.clients.other = Told::Gone;
            }
            self.clients.other_ousted = Ousted::No;
            if self.clients.place == Some(Holder::Other) {
                self.clients.place = None;
            }
            return Ok(());
        }
        self.clients.other = Told::Here;
        if let Some(Holder::Own(session)) = self.clients.place
            && (self.roll[session] || model.without == Some(Rule::TakeOverLooksAtRoll))
        {
            if !other.is_newer {
                self.clients.other_ousted = Ousted::Open;
                return Ok(());
            }
            let before = self.at;
            self.append(session, false, before + 1)?;
            if model.without == Some(Rule::TakeOverMovesTime) {
                self.at = before;
            }
            if model.without != Some(Rule::TakeOverTakesOffRoll) {
                self.roll[session] = false;
            }
            if model.without != Some(Rule::TakeOverIsTold) {
                self.clients.ousted[session] = Ousted::Closed;
            }
        }
        self.clients.place = Some(Holder::Other);
        Ok(())
    }
}

impl State {
    /// All that can happen next because there is another instance.
    pub(crate) fn move_clients(&self, model: &Model, next: &mut Vec<Self>) -> Result<(), Broken> {
        if !model.moves {
            return Ok(());
        }
        if !self.other.came {
            let mut state = self.clone();
            state.other.came = true;
            state.other.is_newer = self.instance.moves != [false; SESSIONS];
            next.push(state);
        } else if !self.other.left {
            // By itself, or since it was ousted.
            let mut state = self.clone();
            state.other.left = true;
            next.push(state);
        }
        if self.redis.clients.other_relayed < self.other_events() {
            let mut state = self.clone();
            state.redis.relay_other(self.other, model)?;
            next.push(state);
        }
        for session in 0..SESSIONS {
            if self.redis.clients.ousted[session] != Ousted::No && self.instance.is_live(session) {
                let mut state = self.clone();
                state.instance.note(session, false);
                next.push(state);
            }
        }
        Ok(())
    }

    fn other_events(&self) -> u8 {
        u8::from(self.other.came) + u8::from(self.other.left)
    }

    /// Nobody is to be ended, and the other instance has told all.
    pub(crate) fn are_clients_at_rest(&self) -> bool {
        let clients = &self.redis.clients;
        let is_to_end = |session: usize| {
            clients.ousted[session] != Ousted::No && self.instance.is_live(session)
        };
        clients.other_relayed == self.other_events()
            && !(0..SESSIONS).any(is_to_end)
            && (clients.other_ousted == Ousted::No || self.other.left)
    }
}
