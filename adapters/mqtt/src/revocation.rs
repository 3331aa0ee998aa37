//! What others take away from clients while they are here, or away: grants, and whole sessions.
//!
//! What is revoked in this process is known exactly, so it is taken away at once, without a question. Of what
//! is heard from elsewhere, and may be old, the things service is asked; a client keeps what is in doubt for
//! a while at most.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rollcall_domain::access::{Action, AuthorityError, Credentials, Revoked, Verdict};
use rollcall_domain::identity::{ChannelId, SessionId};
use rollcall_domain::presence::{Farewell, Kick, Kicked, Whom};
use rollcall_domain::things::Actions;
use rollcall_domain::topic::{SubscriptionFilter, TopicName};

use crate::agenda::Timer;
use crate::connection::Standing;
use crate::gate::{Answered, Asker, Question};
use crate::message::Message;
use crate::principal::Principal;
use crate::reason;
use crate::session::Session;
use crate::timers::ticks;
use crate::worker::Worker;

/// How long to leave the things service alone that could not say whether something was revoked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Something that one session may have lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    slot: usize,
    generation: u32,
    /// Which of its connections it was asked for: the next one may come with another key.
    departures: u32,
    what: Revoked,
    /// Of a grant: what is asked about, one after the other, and what has been found to be left.
    action: Action,
    left: Actions,
    /// `None` if there is no reason for it but time: then no answer is no answer.
    since: Option<Instant>,
}

impl Worker {
    /// Access was taken away: sessions, live or absent, lose exactly that.
    pub(crate) fn revoke(&mut self, revoked: &[Revoked]) {
        for (slot, what) in self.concerned(revoked) {
            self.take_away(slot, what);
        }
    }

    /// Access may have been taken away: finds out.
    pub(crate) fn doubt(&mut self, revoked: &[Revoked]) {
        for (slot, what) in self.concerned(revoked) {
            self.doubt_of(slot, what, Some(self.now));
        }
    }

    /// Finds out whether a session has lost something.
    pub(crate) fn doubt_of(&mut self, slot: usize, what: Revoked, since: Option<Instant>) {
        let session = &self.sessions[slot];
        let action = match what {
            Revoked::Thing(_) | Revoked::Key(_) => Action::Read,
            Revoked::Channel(channel) | Revoked::Grant { channel, .. }
                if !self.holds_of(session, channel) =>
            {
                return;
            }
            Revoked::Grant { left, .. } if left.read => Action::Write,
            Revoked::Channel(_) | Revoked::Grant { .. } => Action::Read,
        };
        self.ask_about(Doubt {
            slot,
            generation: session.generation,
            departures: session.departures,
            what,
            action,
            left: Actions::ALL,
            since,
        });
    }

    /// Asks the things service about a doubt, if the session is still there.
    pub(crate) fn ask_about(&mut self, mut doubt: Doubt) {
        if !self.awaits_doubt(&doubt) {
            return;
        }
        let session = &self.sessions[doubt.slot];
        doubt.departures = session.departures;
        let Principal::Thing { thing, proof } = session.principal.clone() else {
            return self.deny_wills(doubt);
        };
        let question = match doubt.what {
            Revoked::Thing(_) | Revoked::Key(_) => Question::Identify(Credentials {
                thing: Some(thing.thing()),
                proof,
            }),
            Revoked::Channel(channel) | Revoked::Grant { channel, .. } => Question::Authorize {
                thing,
                proof,
                channel,
                action: doubt.action,
            },
        };
        if self
            .shared
            .gate
            .ask(question, Asker::Doubt(doubt), &self.inbox)
            .is_err()
        {
            self.stay_in_doubt(doubt);
        }
    }

    /// Nobody can be asked about somebody who has not shown a key since the start. What it may read is found out
    /// when it does; a will that may be denied is not published.
    fn deny_wills(&mut self, doubt: Doubt) {
        let (channel, write) = match doubt.what {
            Revoked::Thing(_) | Revoked::Key(_) => (None, false),
            Revoked::Channel(channel) => (Some(channel), false),
            Revoked::Grant { channel, left, .. } => (Some(channel), left.write),
        };
        let testament = self.sessions[doubt.slot].testament.as_ref();
        let will = testament.and_then(|it| channel_of(&it.message));
        if let Some(will) = will.filter(|it| !write && channel.is_none_or(|one| one == *it)) {
            let left = Actions { read: true, write };
            self.lose_channel(doubt.slot, will, left);
        }
    }

    pub(crate) fn awaits_doubt(&self, doubt: &Doubt) -> bool {
        self.session_ref_if(doubt.slot, doubt.generation).is_some()
    }

    /// The answer about a doubt: what is not granted now is gone.
    pub(crate) fn on_certainty(&mut self, doubt: Doubt, verdict: &Answered) {
        if !self.awaits_doubt(&doubt) {
            return;
        }
        if self.sessions[doubt.slot].departures != doubt.departures {
            return self.ask_about(doubt);
        }
        let denied = match verdict {
            Answered::Identity(identity) => identity.as_ref().err(),
            Answered::Grant(_, _, grant) => grant.as_ref().err(),
        };
        match denied {
            None => self.settle(doubt, true),
            Some(AuthorityError::Denied) => self.settle(doubt, false),
            Some(AuthorityError::Unavailable(_)) => self.stay_in_doubt(doubt),
        }
    }

    fn stay_in_doubt(&mut self, doubt: Doubt) {
        let Some(since) = doubt.since else {
            return;
        };
        if self.now.duration_since(since) >= self.shared.gate.access.recheck_timeout() {
            self.shared.metrics.doubts_expired.increment(1);
            return self.settle(doubt, false);
        }
        let tick = self.tick.saturating_add(ticks(RETRY_PAUSE));
        self.timers.set(tick, Timer::Doubt(doubt));
    }

    /// What was asked about is known.
    fn settle(&mut self, mut doubt: Doubt, granted: bool) {
        let (channel, told) = match doubt.what {
            Revoked::Thing(_) | Revoked::Key(_) if granted => return,
            what @ (Revoked::Thing(_) | Revoked::Key(_)) => {
                return self.take_away(doubt.slot, what);
            }
            Revoked::Channel(channel) => (channel, Actions::NONE),
            Revoked::Grant { channel, left, .. } => (channel, left),
        };
        match doubt.action {
            Action::Read => doubt.left.read = granted,
            Action::Write => doubt.left.write = granted,
        }
        if doubt.action == Action::Read && !told.write {
            doubt.action = Action::Write;
            return self.ask_about(doubt);
        }
        if doubt.left != Actions::ALL {
            self.lose_channel(doubt.slot, channel, doubt.left);
        }
    }

    /// The sessions that `revoked` is about, with what each loses.
    fn concerned(&self, revoked: &[Revoked]) -> Vec<(usize, Revoked)> {
        let mut concerned = Vec::new();
        for &what in revoked {
            match what {
                Revoked::Thing(thing) | Revoked::Key(thing) | Revoked::Grant { thing, .. } => {
                    let slots = self.directory.of_thing(thing);
                    concerned.extend(slots.iter().map(|&slot| (slot, what)));
                }
                Revoked::Channel(_) => {
                    let sessions = self.sessions.iter();
                    // Of who owes nothing to a grant, none is taken.
                    let of_things = sessions.filter(|(_, it)| it.key.thing.is_some());
                    concerned.extend(of_things.map(|(slot, _)| (slot, what)));
                }
            }
        }
        concerned
    }

    /// Whether a session has anything that a channel's end would take.
    fn holds_of(&self, session: &Session, channel: ChannelId) -> bool {
        let mut filters = session.subscriptions.iter();
        let there = |message: &Message| channel_of(message) == Some(channel);
        let will = session
            .connection
            .and_then(|token| self.connections[token].will.as_ref());
        let testament = session.testament.as_ref();
        filters.any(|(filter, _)| channel_of_filter(filter) == Some(channel))
            || session.window.is_behind()
            || will.is_some_and(|will| there(&will.message))
            || testament.is_some_and(|testament| there(&testament.message))
    }

    fn take_away(&mut self, slot: usize, what: Revoked) {
        // It may have been discarded over something before this.
        if !self.sessions.contains(slot) {
            return;
        }
        match what {
            Revoked::Thing(_) => {
                self.shut_out(slot, "the thing was disabled");
                if self.sessions.contains(slot) {
                    self.remove_session(slot);
                }
            }
            // Who came with a certificate has shown no key.
            Revoked::Key(_) if self.sessions[slot].principal.is_certified() => {}
            Revoked::Key(_) => self.shut_out(slot, "the key of the thing no longer holds"),
            Revoked::Channel(channel) => self.lose_channel(slot, channel, Actions::NONE),
            Revoked::Grant { channel, left, .. } => self.lose_channel(slot, channel, left),
        }
    }

    /// Ends the connections of a session whose credentials hold no longer. Its wills are not published: who
    /// left them is nobody now.
    fn shut_out(&mut self, slot: usize, why: &str) {
        let session = &mut self.sessions[slot];
        let mut wills = u64::from(session.testament.take().is_some());
        for token in [session.connection, session.claim].into_iter().flatten() {
            wills += u64::from(self.connections[token].will.take().is_some());
            let code = reason::disconnect(Farewell::Revoked);
            self.end_because(token, Farewell::Revoked, code, Some(why));
        }
        if wills > 0 && self.sessions.contains(slot) {
            self.note_will_gone(slot);
        }
        self.shared.metrics.denied_wills.increment(wills);
    }

    /// Takes from a session what it may no longer do on a channel: subscriptions and what waits for it of
    /// them; wills. Of a PUBLISH to come it hears when it sends it.
    pub(crate) fn lose_channel(&mut self, slot: usize, channel: ChannelId, left: Actions) {
        let there = |message: &Message| channel_of(message) == Some(channel);
        if !left.write {
            let session = &mut self.sessions[slot];
            let mut wills = u64::from(session.testament.take_if(|it| there(&it.message)).is_some());
            for token in [session.connection, session.claim].into_iter().flatten() {
                let will = &mut self.connections[token].will;
                wills += u64::from(will.take_if(|it| there(&it.message)).is_some());
            }
            if wills > 0 {
                self.note_will_gone(slot);
            }
            self.shared.metrics.denied_wills.increment(wills);
        }
        if left.read {
            return;
        }
        let had_some = self.drop_subscriptions(slot, channel);
        let dropped = self.sessions[slot].window.forget(there);
        self.count_queued(slot);
        self.note_gone(slot);
        self.shared.metrics.dropped_revoked.increment(dropped);
        self.tell_room(slot);
        if !had_some {
            return;
        }
        // A client that has nothing to wait for is told so, unless it is here to publish.
        let session = &self.sessions[slot];
        if let Some(token) = session.connection
            && session.subscriptions.is_empty()
            && !left.write
            && !self.publishes_elsewhere(slot, token, channel)
        {
            let code = reason::disconnect(Farewell::Revoked);
            let why = "no longer authorized for what was subscribed to";
            self.end_because(token, Farewell::Revoked, code, Some(why));
        }
    }

    /// Returns whether there were any.
    fn drop_subscriptions(&mut self, slot: usize, channel: ChannelId) -> bool {
        let session = &mut self.sessions[slot];
        let gone = session
            .subscriptions
            .extract_if(.., |(filter, _)| channel_of_filter(filter) == Some(channel));
        let gone: Vec<_> = gone.collect();
        for (filter, _) in &gone {
            self.unroute(slot, filter);
            self.note_unsubscribed(slot, filter);
        }
        let count = gone.len() as u64;
        self.shared.metrics.subscriptions_revoked.increment(count);
        count > 0
    }

    /// Whether what the client published last was on another channel, and may be done again.
    fn publishes_elsewhere(&self, slot: usize, token: usize, channel: ChannelId) -> bool {
        let Some(memo) = self.connections[token].memo.as_deref() else {
            return false;
        };
        let topic = TopicName::parse(&memo.topic);
        let other = topic
            .and_then(TopicName::channel)
            .filter(|it| *it != channel);
        let (Some(other), Standing::Granted(_)) = (other, memo.standing) else {
            return false;
        };
        let Principal::Thing { thing, .. } = &self.sessions[slot].principal else {
            return true;
        };
        let access = &self.shared.gate.access;
        let verdict = access.authorize(*thing, other, Action::Write, self.now);
        matches!(verdict, Verdict::Granted(_))
    }

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

    /// Ends sessions whose clients are on other instances now, and forgets what was kept for them.
    pub(crate) fn take_over(&mut self, gone: &HashSet<SessionId>) {
        let live = |(slot, session): (usize, &Session)| {
            let token = session.connection?;
            let presence = self.connections[token].presence.as_ref()?;
            gone.contains(&presence.id).then_some((slot, token))
        };
        let ended: Vec<_> = self.sessions.iter().filter_map(live).collect();
        for (slot, token) in ended {
            let generation = self.sessions[slot].generation;
            self.hear_out(token);
            let is_same = |worker: &Self| worker.session_ref_if(slot, generation).is_some();
            if is_same(self) && self.sessions[slot].connection == Some(token) {
                self.end(token, Farewell::TakenOver);
            }
            // It may have ended with its connection, or the client is coming back here.
            if is_same(self) && self.sessions[slot].claim.is_none() {
                self.remove_session(slot);
            }
        }
    }

    fn sessions_of(&self, whom: Whom) -> Vec<usize> {
        match whom {
            Whom::Thing(thing) => self.directory.of_thing(thing).to_vec(),
            Whom::Session(id) => {
                let is_meant = |session: &Session| {
                    let tokens = [session.connection, session.claim].into_iter().flatten();
                    tokens
                        .filter_map(|token| self.connections[token].presence.as_ref())
                        .any(|presence| presence.id == id)
                };
                let mut meant = self.sessions.iter().filter(|(_, it)| is_meant(it));
                meant.next().map(|(slot, _)| slot).into_iter().collect()
            }
        }
    }
}

/// The channel that a subscription looks into, alone or shared.
pub(crate) fn channel_of_filter(filter: &str) -> Option<ChannelId> {
    SubscriptionFilter::parse(filter)?.topics().channel()
}

fn channel_of(message: &Message) -> Option<ChannelId> {
    TopicName::parse(message.publish().topic).and_then(TopicName::channel)
}
