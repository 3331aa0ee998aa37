//! Messages of shared subscriptions: who gets them, and who else if they cannot stay there [MQTT5-4.8.2].
//!
//! What a member has not been sent yet goes to another one when it disconnects; what it has not
//! acknowledged goes with its session, at QoS 1 alone: who was sent a message at QoS 2 may have it already
//! [MQTT5-4.8.2-5]. Nothing is handed over in the middle of something else, but at the end of the turn.

use std::sync::Arc;

use crate::groups::{Availability, Group, Member, Reach, Whom};
use crate::message::Message;
use crate::packet::QoS;
use crate::window::{Queued, Window};
use crate::worker::Worker;

impl Worker {
    /// One member of each group.
    pub(crate) fn choose(&mut self, groups: &[Arc<Group>], qos: QoS) -> Vec<Arc<Member>> {
        let mut chosen = Vec::with_capacity(groups.len());
        for group in groups {
            match group.choose(qos, Whom::Anyone) {
                Some(member) => chosen.push(member),
                None => self.tally.dropped_unshared += u64::from(qos != QoS::AtMostOnce),
            }
        }
        chosen
    }

    /// Whether a message can be sent as it is to a member that was chosen for it, or wait for its window.
    pub(crate) fn is_served(&self, member: &Member, qos: QoS) -> bool {
        let to = member.receiver.session;
        let Some(session) = self.sessions.get(to.slot as usize) else {
            return false;
        };
        let served = session.generation == to.generation
            && !session.overflowed
            && session.connection.is_some()
            && session.protocol == Some(member.receiver.terms.protocol);
        if served && member.qos(qos) != QoS::AtMostOnce {
            member.availability.on_arrival();
        }
        served
    }

    /// A message has come for a member that lives here: if it is gone it goes to another one.
    pub(crate) fn take_in(&mut self, member: &Member, message: &Arc<Message>) {
        let receiver = &member.receiver;
        let slot = receiver.session.slot as usize;
        let group = receiver.group().expect("invariant: a member");
        let qos = member.qos(message.qos);
        let known = self.session_ref_if(slot, receiver.session.generation);
        if known.is_none() || self.sessions[slot].overflowed {
            // What was kept of it may have gone with the session.
            let message = &Arc::new(Message::clone(message).unnumbered());
            if !self.hand_over(group, message, Whom::Anyone) {
                self.tally.dropped_unshared += u64::from(qos != QoS::AtMostOnce);
            }
            return;
        }
        if qos != QoS::AtMostOnce {
            member.availability.on_arrival();
        }
        let absent = self.sessions[slot].connection.is_none();
        if absent && self.hand_over(group, message, Whom::Connected) {
            self.note_not_found(message, receiver);
        } else {
            self.send_message(
                slot,
                Queued {
                    message: Arc::clone(message),
                    qos,
                    retain: message.retain && receiver.terms.retain_as_published,
                    via: receiver.via.clone(),
                },
            );
        }
        self.tell_room(slot);
    }

    /// A member has no room for a message it was chosen for. It is not chosen again before it has got
    /// something off its queue, so a message that nobody has room for comes to an end: it is counted.
    pub(crate) fn turn_away(&mut self, slot: usize, group: &Group, message: &Arc<Message>) {
        if let Some(availability) = &self.sessions[slot].availability {
            availability.set_full(true);
        }
        let too_large = message.len() > self.shared.session_queue_bytes;
        if too_large || !self.hand_over(group, message, Whom::Anyone) {
            self.tally.dropped_unshared += 1;
        }
    }

    /// Whether a member has room again.
    pub(crate) fn relieve(&self, slot: usize) {
        let session = &self.sessions[slot];
        if let Some(availability) = &session.availability {
            let window = &session.window;
            let full = window.queued() >= self.shared.config.session_queue_messages
                || window.queued_bytes() > self.shared.session_queue_bytes / 2;
            availability.set_full(full);
        }
    }

    /// Finds another member for a message; returns whether there is one.
    fn hand_over(&mut self, group: &Group, message: &Arc<Message>, whom: Whom) -> bool {
        let Some(member) = group.choose(message.qos, whom) else {
            return false;
        };
        let message = self.note_found(message, &member.receiver);
        self.handed_over.push_back((member, message));
        true
    }

    /// Brings messages to the members that were found for them.
    pub(crate) fn hand_out(&mut self) {
        while let Some((member, message)) = self.handed_over.pop_front() {
            if message.is_expired(self.now) {
                member.expect_no_more(message.qos);
                self.shared.metrics.dropped_expired.increment(1);
                self.note_not_found(&message, &member.receiver);
                continue;
            }
            if member.receiver.session.worker == self.id {
                self.take_in(&member, &message);
            } else {
                self.send_across(&member, &message);
            }
            if self.turn.is_full() {
                self.flush();
            }
        }
    }

    /// What waits for a client goes to other members that are connected. With `only`, what came by that
    /// group; else what came by any.
    pub(crate) fn share_queue(&mut self, slot: usize, only: Option<&str>) {
        let before = self.handed_over.len();
        let handed_over = &mut self.handed_over;
        self.sessions[slot].window.retain_queued(|queued| {
            let group = queued.group();
            let Some(group) = group.filter(|it| only.is_none_or(|only| it.filter() == only)) else {
                return true;
            };
            match group.choose(queued.message.qos, Whom::Connected) {
                Some(member) => {
                    handed_over.push_back((member, Arc::clone(&queued.message)));
                    false
                }
                None => true,
            }
        });
        self.count_queued(slot);
        for n in before..self.handed_over.len() {
            let (member, message) = self.handed_over[n].clone();
            self.handed_over[n].1 = self.note_found(&message, &member.receiver);
        }
        self.note_gone(slot);
        self.tell_room(slot);
    }

    /// The session is over, and has left its groups: what it did not get, or did not acknowledge, goes to
    /// other members. If too much waits already, none of it is to wait elsewhere.
    pub(crate) fn share_rest(&mut self, slot: usize) {
        let whom = match self.shared.counts.queues.excess() {
            Some(_) => Whom::Free,
            None => Whom::Anyone,
        };
        let window = std::mem::replace(&mut self.sessions[slot].window, Window::new());
        let flights = window
            .flights()
            .filter(|flight| flight.qos == QoS::AtLeastOnce)
            .filter_map(|flight| Some((flight.via.as_ref()?, flight.message.as_ref()?)));
        let queue = window
            .queue()
            .filter_map(|queued| Some((queued.via.as_ref()?, &queued.message)));
        for (via, message) in flights.chain(queue) {
            if let Some(group) = &via.group
                && !self.hand_over(group, message, whom)
            {
                self.tally.dropped_unshared += 1;
            }
        }
    }

    /// A session with groups is connected: it may be chosen from now on.
    pub(crate) fn set_availability(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let Some(availability) = &session.availability else {
            return;
        };
        match session.connection {
            Some(token) => {
                self.connections[token].shares = true;
                self.tell_reach(token);
            }
            None => availability.set_reach(Reach::Absent),
        }
        // It may have been turned away for what it had left unread.
        self.relieve(slot);
        self.tell_room(slot);
    }

    /// Tells those who choose members what room a session has.
    #[inline]
    pub(crate) fn tell_room(&self, slot: usize) {
        let session = &self.sessions[slot];
        if let Some(availability) = &session.availability {
            availability.settle(session.window.room());
        }
    }

    /// Tells those who choose members whether a client reads what it is sent.
    pub(crate) fn tell_reach(&self, token: usize) {
        let connection = &self.connections[token];
        let Some(slot) = connection.session else {
            return;
        };
        let session = &self.sessions[slot];
        if let Some(availability) = session.availability.as_ref()
            && session.connection == Some(token)
        {
            let congested = connection.outbox.len() > self.max_unread / 2;
            availability.set_reach(match congested {
                true => Reach::Congested,
                false => Reach::Ready,
            });
        }
    }

    /// How a session stands, from when it joins its first group.
    pub(crate) fn availability(&mut self, slot: usize) -> Arc<Availability> {
        let session = &mut self.sessions[slot];
        if session.availability.is_none() {
            session.availability = Some(Arc::default());
            self.set_availability(slot);
        }
        let availability = self.sessions[slot].availability.as_ref();
        Arc::clone(availability.expect("invariant: just made"))
    }
}
