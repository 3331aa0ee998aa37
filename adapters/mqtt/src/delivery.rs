//! Messages on their way to subscribers: encoded once per protocol version, and handed over in batches.

use std::sync::Arc;

use rollcall_domain::presence::Protocol;

use crate::message::{self, Envelope, Message};
use crate::outbox::{SHARED, Segment, Source};
use crate::packet::QoS;
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
        Protocol::Mqtt31 | Protocol::Mqtt311 => 0,
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
}
