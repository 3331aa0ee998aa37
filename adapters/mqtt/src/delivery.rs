//! Messages on their way to subscribers: encoded once per protocol version, and handed over in batches.

use std::sync::Arc;

use rollcall_domain::presence::Protocol;

use crate::groups::Member;
use crate::message::{self, Envelope, Message, Parts};
use crate::outbox::{SHARED, Segment, Source};
use crate::packet::QoS;
use crate::route::{Receiver, Route, SessionRef};
use crate::window::{Flight, Queued};
use crate::worker::Worker;

/// Payloads from this size on are not copied behind a head of their own, but written from where they are.
const SPLIT_BYTES: usize = 512;

/// A message for the receivers of a route, or for the one that was chosen of a group.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) to: Recipients,
    /// The QoS 0 packet for each protocol version; empty if nobody needs it.
    frames: [Segment; 2],
    qos: QoS,
    retain: bool,
    /// Who published it, for subscriptions that are not to hear from themselves.
    from: Option<SessionRef>,
    /// The message, if it is kept beyond this process.
    kept: Option<Arc<Message>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    All(Arc<Route>),
    One(Arc<Member>),
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
    /// Sends a message to everybody on `route`; `write` encodes it as a QoS 0 packet. Returns whether it is
    /// kept for any of them beyond this process.
    pub(crate) fn dispatch(
        &mut self,
        route: &Arc<Route>,
        origin: Origin,
        write: impl Fn(&mut Vec<u8>, Protocol),
    ) -> bool {
        let chosen = match route.groups.is_empty() {
            true => Vec::new(),
            false => self.choose(&route.groups, origin.qos),
        };
        let mut needed = [route.mqtt311, route.mqtt5];
        for member in &chosen {
            needed[index(member.receiver.terms.protocol)] = true;
        }
        let mut frame = |needed: bool, protocol| match needed {
            true => self.turn.write(SHARED, |out| write(out, protocol)),
            false => Segment::EMPTY,
        };
        let frames = [
            frame(needed[0], Protocol::Mqtt311),
            frame(needed[1], Protocol::Mqtt5),
        ];
        let Origin { qos, retain, from } = origin;
        let keeps = |member: &Arc<Member>| member.receiver.terms.number.is_some();
        let kept = if (route.keeps || chosen.iter().any(keeps)) && qos != QoS::AtMostOnce {
            let protocol = if needed[1] {
                Protocol::Mqtt5
            } else {
                Protocol::Mqtt311
            };
            let bytes = self.turn.bytes(frames[index(protocol)]);
            let message = Message::keep(bytes, protocol, qos, retain, self.now);
            let members = chosen.iter().map(|member| &member.receiver);
            self.note_message(
                message,
                route.receivers.iter().flatten().chain(members),
                from,
            )
        } else {
            None
        };
        let is_kept = kept.is_some();
        let parcel = Parcel {
            to: Recipients::All(Arc::clone(route)),
            frames,
            qos,
            retain,
            from,
            kept,
        };
        for (worker, receivers) in route.receivers.iter().enumerate() {
            if !receivers.is_empty() {
                self.pass(worker, &parcel);
            }
        }
        for member in chosen {
            let worker = member.receiver.session.worker.into();
            let to = Recipients::One(member);
            let parcel = Parcel {
                to,
                ..parcel.clone()
            };
            self.pass(worker, &parcel);
        }
        is_kept
    }

    /// Sends a kept message to a member that was chosen for it, on another worker.
    pub(crate) fn send_across(&mut self, member: &Arc<Member>, message: &Arc<Message>) {
        let protocol = member.receiver.terms.protocol;
        let now = self.now;
        let frame = self.turn.write(SHARED, |out| {
            out.extend_from_slice(&message.frame(protocol, now));
        });
        let mut frames = [Segment::EMPTY; 2];
        frames[index(protocol)] = frame;
        let parcel = Parcel {
            to: Recipients::One(Arc::clone(member)),
            frames,
            qos: message.qos,
            retain: message.retain,
            from: None,
            kept: message.number().map(|_| Arc::clone(message)),
        };
        self.pass(member.receiver.session.worker.into(), &parcel);
    }

    fn pass(&mut self, worker: usize, parcel: &Parcel) {
        if worker == usize::from(self.id) {
            self.deliver(parcel);
        } else {
            self.crossings[worker].push(parcel.clone());
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
        match &parcel.to {
            Recipients::All(route) => {
                for receiver in &route.receivers[usize::from(self.id)] {
                    self.deliver_to(receiver, parcel, &mut keeping);
                }
            }
            Recipients::One(member) if self.is_served(member, parcel.qos) => {
                self.deliver_to(&member.receiver, parcel, &mut keeping);
                self.tell_room(member.receiver.session.slot as usize);
            }
            Recipients::One(member) => {
                let message = self.keep(parcel, member.receiver.terms.protocol);
                self.take_in(member, &message);
            }
        }
    }

    #[inline]
    fn deliver_to(&mut self, receiver: &Receiver, parcel: &Parcel, keeping: &mut Keeping) {
        let to = receiver.session;
        let Some(session) = self.sessions.get(to.slot as usize) else {
            return;
        };
        if session.generation != to.generation || session.overflowed {
            return;
        }
        let Some(receiver) = receiver.toward(parcel.from) else {
            return;
        };
        let terms = receiver.terms;
        let qos = parcel.qos.min(terms.qos);
        let retain = parcel.retain && terms.retain_as_published;
        if session.protocol != Some(terms.protocol) {
            // It came back with another version while the message was on its way.
            let message = self.keep(parcel, terms.protocol);
            let via = receiver.via.clone();
            let queued = Queued {
                message,
                qos,
                retain,
                via,
            };
            return self.send_message(to.slot as usize, queued);
        }
        if qos == QoS::AtMostOnce {
            if let Some(token) = session.connection {
                let frame = parcel.frames[index(terms.protocol)];
                self.send_once(token, frame, receiver, retain);
            }
        } else {
            self.deliver_surely(receiver, parcel, qos, retain, keeping);
        }
    }

    fn keep(&self, parcel: &Parcel, protocol: Protocol) -> Arc<Message> {
        if let Some(kept) = &parcel.kept {
            return Arc::clone(kept);
        }
        let bytes = self.turn.bytes(parcel.frames[index(protocol)]);
        let (qos, retain) = (parcel.qos, parcel.retain);
        Arc::new(Message::keep(bytes, protocol, qos, retain, self.now))
    }

    /// Sends a QoS 0 message, or drops and counts it if the client has too much unread.
    #[inline]
    fn send_once(&mut self, token: usize, frame: Segment, receiver: &Receiver, retain: bool) {
        let connection = &mut self.connections[token];
        if connection.outbox.len() + frame.len as usize > self.max_unread {
            self.tally.dropped_full += 1;
            return;
        }
        if retain || receiver.via.is_some() || connection.outgoing_aliases.is_some() {
            let envelope = Envelope {
                retain,
                properties: receiver.identifiers(),
                ..Envelope::plain(receiver.terms.protocol)
            };
            if self.fits(token, frame, &envelope) {
                self.push_addressed(token, frame, envelope);
            }
            return;
        }
        if frame.len > connection.max_packet {
            // As if it had been sent [MQTT5-3.1.2-25].
            self.tally.dropped_large += 1;
            return;
        }
        self.tally.sent += 1;
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        connection.outbox.push(frame, &mut self.turn);
    }

    /// Sends a QoS 1 or 2 message, or queues it: it is kept until the client has it.
    fn deliver_surely(
        &mut self,
        receiver: &Receiver,
        parcel: &Parcel,
        qos: QoS,
        retain: bool,
        keeping: &mut Keeping,
    ) {
        let slot = receiver.session.slot as usize;
        let protocol = receiver.terms.protocol;
        let frame = parcel.frames[index(protocol)];
        let session = &self.sessions[slot];
        if session.connection.is_none() && !session.keeps(qos) {
            return;
        }
        let mut kept = || {
            let kept = &mut keeping[index(protocol)];
            Arc::clone(kept.get_or_insert_with(|| self.keep(parcel, protocol)))
        };
        let Some(token) = session.connection.filter(|_| session.window.is_open()) else {
            let queued = Queued {
                message: kept(),
                qos,
                retain,
                via: receiver.via.clone(),
            };
            return self.enqueue(slot, queued);
        };
        let message = (session.may_resume() || receiver.group().is_some()).then(kept);
        let mut envelope = Envelope {
            qos,
            retain,
            // Not known yet; any is as long.
            packet_id: Some(1),
            properties: receiver.identifiers(),
            ..Envelope::plain(protocol)
        };
        let number = parcel.kept.as_ref().and_then(|kept| kept.number());
        if !self.fits(token, frame, &envelope) {
            return self.note_undelivered(slot, number);
        }
        let unread = self.connections[token].outbox.len() + frame.len as usize;
        if unread > self.shared.session_queue_bytes {
            return match (receiver.group(), message) {
                (Some(group), Some(message)) => {
                    self.turn_away(slot, group, &message);
                    self.note_undelivered(slot, number);
                }
                _ => self.overflow(slot),
            };
        }
        let (id, place) = self.sessions[slot].window.send(Flight {
            qos,
            retain,
            released: false,
            sent: true,
            message,
            number,
            via: receiver.via.clone(),
        });
        envelope.packet_id = Some(id);
        if number.is_some() {
            self.note_sent(slot, token, number, place, qos);
        }
        self.push_addressed(token, frame, envelope);
        self.count_queued(slot);
        self.tell_room(slot);
    }

    /// Whether the client takes a packet this large; one that it does not take counts as if it had been
    /// sent [MQTT5-3.1.2-25].
    fn fits(&mut self, token: usize, frame: Segment, envelope: &Envelope<'_>) -> bool {
        let max = self.connections[token].max_packet;
        let fits = message::fits(self.turn.bytes(frame), envelope, max);
        self.tally.dropped_large += u64::from(!fits);
        fits
    }

    /// Notes `frame` for a client, in an envelope of its own.
    fn push_addressed(&mut self, token: usize, frame: Segment, mut envelope: Envelope<'_>) {
        let connection = &mut self.connections[token];
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        self.tally.sent += 1;
        let bytes = self.turn.bytes(frame);
        envelope.alias = connection.choose_alias(bytes, envelope);
        let parts = Parts::of(bytes, &envelope);
        let head = parts.rest as u32;
        if ((frame.len - head) as usize) < SPLIT_BYTES {
            let packet = self.turn.rewrite(frame, |frame, out| {
                message::address(frame, out, &envelope);
            });
            connection.outbox.push(packet, &mut self.turn);
            return;
        }
        let front = Segment { len: head, ..frame };
        let rest = Segment {
            start: frame.start + head,
            len: frame.len - head,
            ..frame
        };
        let front = self.turn.rewrite(front, |front, out| {
            parts.write_head(front, frame.len as usize, out, &envelope);
        });
        connection.outbox.push(front, &mut self.turn);
        connection.outbox.push(rest, &mut self.turn);
    }
}
