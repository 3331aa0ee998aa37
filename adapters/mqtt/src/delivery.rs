//! Messages on their way to subscribers: encoded once per protocol version, and handed over in batches.

use std::sync::Arc;

use rollcall_domain::presence::{Farewell, Protocol};
use rollcall_domain::topic::TopicName;

use crate::codec;
use crate::message::{self, Envelope, Message};
use crate::outbox::{PERSONAL, SHARED, Segment, Source};
use crate::packet::{AckKind, QoS};
use crate::reason;
use crate::router::{Receiver, Route, SessionRef};
use crate::window::{Flight, Queued};
use crate::worker::Worker;

/// Payloads from this size on are not copied behind a packet identifier, but written from where they are.
const SPLIT_BYTES: usize = 512;

/// A message for the receivers of a route.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) route: Arc<Route>,
    /// The QoS 0 packet for each protocol version; empty if nobody needs it.
    frames: [Segment; 2],
    qos: QoS,
    retain: bool,
    /// Who published it, for subscriptions that are not to hear from themselves.
    from: Option<SessionRef>,
}

/// How a message was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) from: Option<SessionRef>,
}

/// Messages that are to be kept, made when the first receiver needs one.
type Keeping = [Option<Arc<Message>>; 2];

const fn index(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Mqtt311 => 0,
        Protocol::Mqtt5 => 1,
    }
}

impl Worker {
    /// Sends a message to everybody on `route`; `write` encodes it as a QoS 0 packet.
    pub(crate) fn dispatch(
        &mut self,
        route: &Arc<Route>,
        origin: Origin,
        write: impl Fn(&mut Vec<u8>, Protocol),
    ) {
        let mut frame = |needed: bool, protocol| match needed {
            true => self.turn.write(SHARED, |out| write(out, protocol)),
            false => Segment::EMPTY,
        };
        let frames = [
            frame(route.mqtt311, Protocol::Mqtt311),
            frame(route.mqtt5, Protocol::Mqtt5),
        ];
        let Origin { qos, retain, from } = origin;
        let parcel = Parcel {
            route: Arc::clone(route),
            frames,
            qos,
            retain,
            from,
        };
        for (worker, receivers) in route.receivers.iter().enumerate() {
            if receivers.is_empty() {
                continue;
            }
            if worker == usize::from(self.id) {
                self.deliver(&parcel);
            } else {
                self.crossings[worker].push(parcel.clone());
            }
        }
    }

    /// Delivers what another worker handed over.
    pub(crate) fn deliver_crossing(&mut self, bytes: &Arc<Vec<u8>>, parcels: Vec<Parcel>) {
        let mut source: Source = self.turn.adopt(Arc::clone(bytes));
        for mut parcel in parcels {
            if self.turn.is_full() {
                self.flush();
                source = self.turn.adopt(Arc::clone(bytes));
            }
            for frame in &mut parcel.frames {
                frame.source = source;
            }
            self.deliver(&parcel);
        }
    }

    /// Delivers to the receivers that live here.
    fn deliver(&mut self, parcel: &Parcel) {
        let mut keeping = Keeping::default();
        for receiver in &parcel.route.receivers[usize::from(self.id)] {
            let Receiver { session: to, terms } = receiver;
            let slot = to.slot as usize;
            let Some(session) = self.sessions.get(slot) else {
                continue;
            };
            if session.generation != to.generation
                || session.overflowed
                || (terms.no_local && parcel.from == Some(*to))
            {
                continue;
            }
            let frame = parcel.frames[index(terms.protocol)];
            let qos = parcel.qos.min(terms.qos);
            let retain = parcel.retain && terms.retain_as_published;
            if qos == QoS::AtMostOnce {
                if let Some(token) = session.connection {
                    self.send_once(token, frame, terms.protocol, retain);
                }
            } else {
                self.deliver_surely(
                    slot,
                    frame,
                    terms.protocol,
                    qos,
                    retain,
                    parcel,
                    &mut keeping,
                );
            }
        }
    }

    /// Sends a QoS 0 message, or drops and counts it if the client has too much unread.
    #[inline]
    fn send_once(&mut self, token: usize, frame: Segment, protocol: Protocol, retain: bool) {
        let connection = &mut self.connections[token];
        if connection.outbox.len() + frame.len as usize > self.shared.session_queue_bytes {
            self.tally.dropped_full += 1;
            return;
        }
        if frame.len > connection.max_packet {
            // As if it had been sent [MQTT5-3.1.2-25].
            self.tally.dropped_large += 1;
            return;
        }
        self.tally.sent += 1;
        let frame = match retain {
            false => frame,
            true => {
                let qos = QoS::AtMostOnce;
                let envelope = Envelope {
                    protocol,
                    qos,
                    dup: false,
                    retain,
                    packet_id: None,
                };
                self.turn
                    .rewrite(frame, |frame, out| message::address(frame, out, envelope))
            }
        };
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        connection.outbox.push(frame, &mut self.turn);
    }

    /// Sends a QoS 1 or 2 message, or queues it: it is kept until the client has it.
    #[expect(
        clippy::too_many_arguments,
        reason = "what differs between receivers of one parcel"
    )]
    fn deliver_surely(
        &mut self,
        slot: usize,
        frame: Segment,
        protocol: Protocol,
        qos: QoS,
        retain: bool,
        parcel: &Parcel,
        keeping: &mut Keeping,
    ) {
        let session = &mut self.sessions[slot];
        if session.connection.is_none() && !session.keeps(qos) {
            return;
        }
        let kept = &mut keeping[index(protocol)];
        let (turn, now) = (&self.turn, self.now);
        let mut keep = || {
            Arc::clone(kept.get_or_insert_with(|| {
                let bytes = turn.bytes(frame);
                Arc::new(Message::keep(
                    bytes,
                    protocol,
                    parcel.qos,
                    parcel.retain,
                    now,
                ))
            }))
        };
        let Some(token) = session.connection.filter(|_| session.window.is_open()) else {
            let queued = Queued {
                message: keep(),
                qos,
                retain,
            };
            return self.enqueue(slot, queued);
        };
        let connection = &mut self.connections[token];
        if frame.len.saturating_add(2) > connection.max_packet {
            self.tally.dropped_large += 1;
            return;
        }
        let unread = connection.outbox.len() + frame.len as usize;
        if unread > self.shared.session_queue_bytes {
            return self.overflow(slot);
        }
        let message = session.may_resume().then(keep);
        let packet_id = Some(session.window.send(Flight {
            qos,
            retain,
            released: false,
            sent: true,
            message,
        }));
        let envelope = Envelope {
            protocol,
            qos,
            dup: false,
            retain,
            packet_id,
        };
        self.tally.sent += 1;
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        let (head, payload) = message::split(self.turn.bytes(frame));
        let (head, payload) = (head.len() as u32, payload.len() as u32);
        if (payload as usize) < SPLIT_BYTES {
            let packet = self
                .turn
                .rewrite(frame, |frame, out| message::address(frame, out, envelope));
            connection.outbox.push(packet, &mut self.turn);
        } else {
            let front = Segment { len: head, ..frame };
            let rest = Segment {
                start: frame.start + head,
                len: payload,
                ..frame
            };
            let front = self.turn.rewrite(front, |front, out| {
                message::address_head(front, payload as usize, out, envelope);
            });
            connection.outbox.push(front, &mut self.turn);
            connection.outbox.push(rest, &mut self.turn);
        }
    }

    fn enqueue(&mut self, slot: usize, queued: Queued) {
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
    fn overflow(&mut self, slot: usize) {
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
        if message.frame_len() > self.connections[token].max_packet as usize {
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

    /// Publishes a message that was kept: a will.
    pub(crate) fn publish_message(&mut self, message: Message) {
        let message = Arc::new(message);
        let publish = message.publish();
        let topic = TopicName::parse(publish.topic).expect("invariant: checked when it was kept");
        if message.retain
            && !self.retain(topic, publish.payload.is_empty(), || Arc::clone(&message))
        {
            self.shared.metrics.retained_refused.increment(1);
        }
        let route = self.route(topic);
        let (retain, now) = (message.retain, self.now);
        let origin = Origin {
            qos: message.qos,
            retain,
            from: None,
        };
        self.dispatch(&route, origin, |out, protocol| {
            let qos = QoS::AtMostOnce;
            let envelope = Envelope {
                protocol,
                qos,
                dup: false,
                retain: false,
                packet_id: None,
            };
            message.write(out, envelope, now);
        });
    }

    /// Keeps or clears the retained message of a topic. Returns whether there was room.
    pub(crate) fn retain(
        &self,
        topic: TopicName<'_>,
        empty: bool,
        message: impl FnOnce() -> Arc<Message>,
    ) -> bool {
        if empty {
            self.shared.retained.clear(topic);
            return true;
        }
        self.shared.retained.set(topic, message()).is_ok()
    }

    /// An acknowledgement of something that was sent to the client, or the release of what it sent.
    pub(crate) fn acknowledge(
        &mut self,
        token: usize,
        ack: crate::packet::Ack,
    ) -> crate::worker::Flow {
        use crate::window::Acked;
        use crate::worker::Flow;

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
