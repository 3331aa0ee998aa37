//! QoS 1 and 2 on their way to a client: what waits for the window, what is sent again, what is acknowledged.

use std::sync::Arc;

use rollcall_domain::presence::{Farewell, Protocol};
use rollcall_domain::sessions::Change;

use crate::codec;
use crate::message::{self, Envelope, Message};
use crate::outbox::PERSONAL;
use crate::packet::{Ack, AckKind, QoS};
use crate::reason;
use crate::route::{SessionRef, Via};
use crate::window::{Acked, Flight, Queued};
use crate::worker::{Flow, Worker};

/// Calls of [`Worker::sweep_queues`] that it takes to look through all queues.
const SWEEPS: usize = 8;

impl Worker {
    /// Has a message wait for room in the window.
    pub(crate) fn enqueue(&mut self, slot: usize, queued: Queued) {
        if self.has_room(slot, &queued) || self.drop_expired(slot) && self.has_room(slot, &queued) {
            self.sessions[slot].window.enqueue(queued);
            self.count_queued(slot);
            return self.tell_room(slot);
        }
        match queued.group() {
            Some(group) => {
                self.turn_away(slot, &group, &queued.message);
                self.note_undelivered(slot, queued.message.number());
            }
            None => self.overflow(slot),
        }
    }

    fn has_room(&self, slot: usize, queued: &Queued) -> bool {
        let window = &self.sessions[slot].window;
        let bytes = window.queued_bytes() + queued.message.len();
        window.queued() < self.shared.config.session_queue_messages
            && bytes <= self.shared.session_queue_bytes
    }

    /// Drops what has expired while it waited, and counts it. Returns whether there was any.
    pub(crate) fn drop_expired(&mut self, slot: usize) -> bool {
        let window = &mut self.sessions[slot].window;
        let (before, now) = (window.queued(), self.now);
        window.retain_queued(|queued| !queued.message.is_expired(now));
        let dropped = before - window.queued();
        self.note_gone(slot);
        self.shared
            .metrics
            .dropped_expired
            .increment(dropped as u64);
        self.count_queued(slot);
        dropped > 0
    }

    /// Looks through a part of the queues for what has expired; through all of them in some seconds.
    pub(crate) fn sweep_queues(&mut self) {
        let places = self.sessions.capacity();
        for _ in 0..places.div_ceil(SWEEPS) {
            self.swept = (self.swept + 1) % places;
            let session = self.sessions.get(self.swept);
            if session.is_some_and(|session| session.window.may_expire()) {
                self.drop_expired(self.swept);
                self.tell_room(self.swept);
                self.relieve(self.swept);
            }
        }
    }

    /// Has a session discarded at the end of the turn, since a message for it cannot be kept: its client
    /// is told, or finds no session when it comes back, so that nothing is lost in silence.
    pub(crate) fn overflow(&mut self, slot: usize) {
        self.sessions[slot].overflowed = true;
        self.overflowed.push(self.session_ref(slot));
    }

    pub(crate) fn discard(&mut self, session: SessionRef) {
        let slot = session.slot as usize;
        if self.session_ref_if(slot, session.generation).is_none() {
            return;
        }
        self.shared.metrics.sessions_overflowed.increment(1);
        let session = &self.sessions[slot];
        match (session.connection, session.claim) {
            (Some(token), _) => self.end(token, Farewell::TooSlow),
            (None, Some(_)) => self.reset_session(slot),
            (None, None) => self.remove_session(slot),
        }
    }

    /// Sends again what was in flight when an earlier connection ended, then what has waited: as much as the
    /// window has room for, oldest first [MQTT5-4.4.0-1], [MQTT5-4.6.0-1].
    pub(crate) fn catch_up(&mut self, slot: usize) {
        let Some(token) = self.sessions[slot].connection else {
            return;
        };
        let protocol = self.sessions[slot].protocol.expect("invariant: connected");
        while let Some((id, flight)) = self.sessions[slot].window.resend() {
            let Some(message) = &flight.message else {
                // The message has arrived; its release may not have [MQTT5-4.3.3-7].
                self.reply(token, |out| {
                    codec::ack(out, protocol, AckKind::PubRel, id, 0)
                });
                continue;
            };
            let (message, via) = (Arc::clone(message), flight.via.clone());
            let envelope = Envelope {
                qos: flight.qos,
                dup: true,
                retain: flight.retain,
                packet_id: Some(id),
                properties: identifiers(protocol, via.as_ref()),
                ..Envelope::plain(protocol)
            };
            if !self.send_kept(token, &message, envelope) {
                self.sessions[slot].window.abandon(id);
            }
        }
        while let Some(queued) = self.sessions[slot].window.dequeue() {
            self.send_queued(slot, token, queued);
        }
        self.note_gone(slot);
        self.tell_room(slot);
        self.count_queued(slot);
    }

    fn send_queued(&mut self, slot: usize, token: usize, queued: Queued) {
        let Queued {
            message,
            qos,
            retain,
            via,
        } = queued;
        if message.is_expired(self.now) {
            self.shared.metrics.dropped_expired.increment(1);
            return self.note_undelivered(slot, message.number());
        }
        let session = &mut self.sessions[slot];
        let protocol = session.protocol.expect("invariant: connected");
        let shared = via.as_ref().is_some_and(|via| via.group.is_some());
        let kept = session.may_resume() || shared;
        let number = message.number();
        let (id, place) = session.window.send(Flight {
            qos,
            retain,
            released: false,
            sent: true,
            message: kept.then(|| Arc::clone(&message)),
            number,
            via: via.clone(),
        });
        let envelope = Envelope {
            qos,
            retain,
            packet_id: Some(id),
            properties: identifiers(protocol, via.as_ref()),
            ..Envelope::plain(protocol)
        };
        if self.send_kept(token, &message, envelope) {
            self.tally.sent += 1;
            self.note_sent(slot, token, number, place, qos);
        } else {
            self.sessions[slot].window.abandon(id);
        }
    }

    /// Returns whether the client takes a packet this large; one that it does not take counts as if it had
    /// been sent [MQTT5-3.1.2-25].
    fn send_kept(&mut self, token: usize, message: &Message, mut envelope: Envelope<'_>) -> bool {
        let connection = &mut self.connections[token];
        let frame = message.frame(envelope.protocol, self.now);
        if !message::fits(&frame, &envelope, connection.max_packet) {
            self.tally.dropped_large += 1;
            return false;
        }
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        envelope.alias = connection.choose_alias(&frame, envelope);
        let packet = self.turn.write(PERSONAL, |out| {
            message::address(&frame, out, &envelope);
        });
        connection.outbox.push(packet, &mut self.turn);
        true
    }

    /// Sends a kept message to a live session: a retained one, or one that was meant for another session.
    pub(crate) fn send_message(&mut self, slot: usize, queued: Queued) {
        if queued.qos != QoS::AtMostOnce {
            self.enqueue(slot, queued);
            return self.catch_up(slot);
        }
        let session = &self.sessions[slot];
        let Some(token) = session.connection else {
            return;
        };
        let protocol = session.protocol.expect("invariant: connected");
        let unread = self.connections[token].outbox.len() + queued.message.len();
        if unread > self.max_unread {
            self.tally.dropped_full += 1;
            return;
        }
        let envelope = Envelope {
            retain: queued.retain,
            properties: identifiers(protocol, queued.via.as_ref()),
            ..Envelope::plain(protocol)
        };
        if self.send_kept(token, &queued.message, envelope) {
            self.tally.sent += 1;
        }
    }

    /// An acknowledgement of something that was sent to the client, or the release of what it sent.
    pub(crate) fn acknowledge(&mut self, token: usize, ack: Ack) -> Flow {
        let connection = &self.connections[token];
        let slot = connection.session.expect("invariant: live");
        let protocol = connection.protocol.expect("invariant: live");
        let session = &mut self.sessions[slot];
        let id = ack.packet_id;
        if ack.kind == AckKind::PubRel {
            let known = session.received.iter().position(|received| *received == id);
            if let Some(place) = known {
                session.received.swap_remove(place);
                if let Some(session) = session.keeps_as() {
                    self.notes.add(Change::Unreceived(session, id));
                    self.promise(token);
                }
            }
            let code = if known.is_some() {
                reason::SUCCESS
            } else {
                reason::PACKET_ID_NOT_FOUND
            };
            self.reply_ack(token, AckKind::PubComp, id, code);
            return Flow::Next;
        }
        match session
            .window
            .acknowledge(ack.kind, id, ack.reason >= reason::UNSPECIFIED)
        {
            Acked::Done if session.window.is_behind() => {
                self.catch_up(slot);
                self.relieve(slot);
            }
            Acked::Done => {}
            Acked::Release(number) => {
                if let (Some(session), Some(number)) = (session.keeps_as(), number) {
                    let order = self.next_number();
                    self.notes.add(Change::Released(session, number, order));
                    self.promise(token);
                }
                self.reply(token, |out| {
                    codec::ack(out, protocol, AckKind::PubRel, id, 0)
                });
            }
            Acked::Unknown if ack.kind == AckKind::PubRec => {
                self.reply_ack(token, AckKind::PubRel, id, reason::PACKET_ID_NOT_FOUND);
            }
            // The QoS of a message says how it is answered [MQTT5-3.3.4-1], [MQTT-3.3.4-1].
            Acked::Wrong => return self.violation(token, reason::PROTOCOL_ERROR),
            // An acknowledgement of nothing changes nothing.
            Acked::Unknown => {}
        }
        self.count_queued(slot);
        self.note_gone(slot);
        if self.connections[token].replays {
            self.replay(slot);
        }
        self.tell_room(slot);
        Flow::Next
    }
}

fn identifiers(protocol: Protocol, via: Option<&Arc<Via>>) -> &[u8] {
    match (protocol, via) {
        (Protocol::Mqtt5, Some(via)) => &via.identifiers,
        _ => &[],
    }
}
