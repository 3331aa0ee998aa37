//! QoS 1 and 2 on their way to a client: what waits for the window, what is sent again, what is acknowledged.

use std::sync::Arc;

use rollcall_domain::presence::Farewell;

use crate::codec;
use crate::message::{Envelope, Message};
use crate::outbox::PERSONAL;
use crate::packet::{Ack, AckKind, QoS};
use crate::reason;
use crate::router::SessionRef;
use crate::window::{Acked, Flight, Queued};
use crate::worker::{Flow, Worker};

impl Worker {
    pub(crate) fn enqueue(&mut self, slot: usize, queued: Queued) {
        let session = &mut self.sessions[slot];
        let window = &mut session.window;
        let bytes = window.queued_bytes() + queued.message.len();
        if window.queued() >= self.shared.config.session_queue_messages
            || bytes > self.shared.session_queue_bytes
        {
            return self.overflow(slot);
        }
        window.enqueue(queued);
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

    /// Sends again what was in flight when an earlier connection ended, then what has waited.
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
            let (message, qos, retain) = (Arc::clone(message), flight.qos, flight.retain);
            let envelope = Envelope {
                protocol,
                qos,
                dup: true,
                retain,
                packet_id: Some(id),
            };
            self.send_kept(token, &message, envelope);
        }
        while let Some(queued) = self.sessions[slot].window.dequeue() {
            self.send_queued(slot, token, queued);
        }
    }

    fn send_queued(&mut self, slot: usize, token: usize, queued: Queued) {
        let Queued {
            message,
            qos,
            retain,
        } = queued;
        if message.is_expired(self.now) {
            self.shared.metrics.dropped_expired.increment(1);
            return;
        }
        let session = &mut self.sessions[slot];
        let protocol = session.protocol.expect("invariant: connected");
        // With its packet identifier.
        if message.frame_len() + 2 > self.connections[token].max_packet as usize {
            self.tally.dropped_large += 1;
            return;
        }
        let kept = session.may_resume().then(|| Arc::clone(&message));
        let packet_id = Some(session.window.send(Flight {
            qos,
            retain,
            released: false,
            sent: true,
            message: kept,
        }));
        self.tally.sent += 1;
        self.send_kept(
            token,
            &message,
            Envelope {
                protocol,
                qos,
                dup: false,
                retain,
                packet_id,
            },
        );
    }

    fn send_kept(&mut self, token: usize, message: &Message, envelope: Envelope) {
        let connection = &mut self.connections[token];
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        let now = self.now;
        let packet = self
            .turn
            .write(PERSONAL, |out| message.write(out, envelope, now));
        connection.outbox.push(packet, &mut self.turn);
    }

    /// Sends a retained message to a new subscription.
    pub(crate) fn send_retained(&mut self, slot: usize, message: &Arc<Message>, granted: QoS) {
        let qos = message.qos.min(granted);
        let session = &self.sessions[slot];
        let Some(token) = session.connection.filter(|_| !session.overflowed) else {
            return;
        };
        if qos != QoS::AtMostOnce {
            self.enqueue(
                slot,
                Queued {
                    message: Arc::clone(message),
                    qos,
                    retain: true,
                },
            );
            return self.catch_up(slot);
        }
        let protocol = session.protocol.expect("invariant: connected");
        let connection = &self.connections[token];
        if connection.outbox.len() + message.len() > self.shared.session_queue_bytes {
            self.tally.dropped_full += 1;
        } else if message.frame_len() > connection.max_packet as usize {
            self.tally.dropped_large += 1;
        } else {
            self.tally.sent += 1;
            let retain = true;
            let envelope = Envelope {
                protocol,
                qos,
                dup: false,
                retain,
                packet_id: None,
            };
            self.send_kept(token, message, envelope);
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
            }
            let code = if known.is_some() {
                reason::SUCCESS
            } else {
                reason::PACKET_ID_NOT_FOUND
            };
            self.reply(token, |out| {
                codec::ack(out, protocol, AckKind::PubComp, id, code)
            });
            return Flow::Next;
        }
        match session
            .window
            .acknowledge(ack.kind, id, ack.reason >= reason::UNSPECIFIED)
        {
            Acked::Done if session.window.is_behind() => self.catch_up(slot),
            Acked::Done => {}
            Acked::Release => {
                self.reply(token, |out| {
                    codec::ack(out, protocol, AckKind::PubRel, id, 0)
                });
            }
            Acked::Unknown if ack.kind == AckKind::PubRec => {
                let code = reason::PACKET_ID_NOT_FOUND;
                self.reply(token, |out| {
                    codec::ack(out, protocol, AckKind::PubRel, id, code)
                });
            }
            // An acknowledgement of nothing changes nothing.
            Acked::Unknown => {}
        }
        Flow::Next
    }
}
