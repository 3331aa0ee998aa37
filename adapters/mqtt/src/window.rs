//! QoS 1 and 2 messages on their way to one client: what is in flight, and what waits behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use rollcall_domain::sessions::MessageNumber;

use crate::groups::Group;
use crate::message::Message;
use crate::packet::{AckKind, QoS};
use crate::route::Via;

/// Packet identifiers are 1..=65,535 [MQTT5-2.2.1-3].
const IDS: u16 = u16::MAX;

/// Messages in flight, in the order they were sent, and the queue behind them.
///
/// Identifiers are given out in order, so a message is found by the distance of its identifier from the
/// oldest one that is still in flight.
#[derive(Debug)]
pub(crate) struct Window {
    /// Gaps are messages that were acknowledged before older ones.
    flights: VecDeque<Option<Flight>>,
    /// Place of the first flight among all that was ever sent, from 1 on: identifiers follow from it.
    first: u64,
    /// QoS 2 messages whose PUBREC has come, in that order, up to their PUBCOMP.
    released: VecDeque<u16>,
    /// How many of those, from the front, need not be released again.
    rereleased: usize,
    /// Flights before this one need not be sent again.
    resent: usize,
    /// Flights that were sent on this connection.
    active: u16,
    /// Receive maximum: of the client and of this server, whichever is less.
    max: u16,
    /// Bytes of messages that are kept until they are acknowledged, and beyond which no more are sent: a client
    /// that reads but acknowledges nothing must not fill the memory.
    flying_bytes: usize,
    max_flying_bytes: usize,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// How many of the queue expire.
    expiring: usize,
    /// Whether messages of this session are kept beyond this process.
    keeps: bool,
    /// Kept messages that are done with, one way or another, and not taken note of yet.
    gone: Vec<MessageNumber>,
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// PUBREC has come, PUBREL was sent.
    pub(crate) released: bool,
    /// Sent on this connection, not only on an earlier one.
    pub(crate) sent: bool,
    /// Kept only if it may be sent again, to this client or to another member of a group.
    pub(crate) message: Option<Arc<Message>>,
    /// Of the message, also when that is no longer there.
    pub(crate) number: Option<MessageNumber>,
    pub(crate) via: Option<Arc<Via>>,
}

impl Flight {
    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.len())
    }
}

/// A message that waits for room in the window.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) via: Option<Arc<Via>>,
}

impl Queued {
    /// Who else could have it.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        self.via.as_ref()?.group.clone()
    }
}

/// What an acknowledgement leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The message is done with; there may be room for another.
    Done,
    /// Answer PUBREC with PUBREL. With the number of the message, if it is kept.
    Release(Option<MessageNumber>),
    /// No such message is in flight.
    Unknown,
    /// Not the answer to the message that is in flight under this identifier, or to its PUBREL.
    Wrong,
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            flights: VecDeque::new(),
            first: 1,
            released: VecDeque::new(),
            rereleased: 0,
            resent: 0,
            active: 0,
            max: 0,
            flying_bytes: 0,
            max_flying_bytes: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            expiring: 0,
            keeps: false,
            gone: Vec::new(),
        }
    }

    /// What an earlier run left: what was sent, by its place, in order; the places of what was released, in
    /// the order of that; and what waits.
    pub(crate) fn restore(
        sent: Vec<(u64, Flight)>,
        released: impl Iterator<Item = u64>,
        queue: Vec<Queued>,
    ) -> Self {
        let mut window = Self::new();
        window.keeps = true;
        window.first = sent.first().map_or(1, |(place, _)| *place);
        for (place, flight) in sent {
            let index = usize::try_from(place - window.first).unwrap_or(usize::MAX);
            // Nothing that is further apart was ever under way at one time.
            if index < usize::from(IDS) {
                window.flights.resize(index.max(window.flights.len()), None);
                window.flying_bytes += flight.bytes();
                window.flights.push_back(Some(flight));
            }
        }
        for place in released {
            if window.flight(id(place)).is_some_and(|it| it.released) {
                window.released.push_back(id(place));
            }
        }
        for queued in queue {
            window.enqueue(queued);
        }
        window
    }

    /// From now on messages are kept beyond this process.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
    }

    /// Kept messages that were done with since the last call.
    pub(crate) fn take_gone(&mut self) -> Vec<MessageNumber> {
        std::mem::take(&mut self.gone)
    }

    /// Begins a new connection with its receive maximum: what was in flight is to be sent again.
    pub(crate) fn resume(&mut self, max: u16, max_flying_bytes: usize) {
        self.max = max;
        self.max_flying_bytes = max_flying_bytes;
        self.active = 0;
        self.resent = 0;
        self.rereleased = 0;
        for place in &mut self.flights {
            // What may not be sent again counts as done with.
            if place
                .as_ref()
                .is_some_and(|it| it.message.is_none() && !it.released)
            {
                self.gone.extend(place.take().and_then(|it| it.number));
            } else if let Some(flight) = place {
                flight.sent = false;
            }
        }
        self.pop_done();
    }

    /// Drops messages that may no longer be delivered: what waits, and the content of what is in flight, which
    /// is not sent again (its identifier stays taken as long as this connection may acknowledge it).
    /// Returns how many.
    pub(crate) fn forget(&mut self, is_meant: impl Fn(&Message) -> bool) -> u64 {
        let before = self.queue.len();
        self.retain_queued(|queued| !is_meant(&queued.message));
        let mut dropped = (before - self.queue.len()) as u64;
        for place in &mut self.flights {
            let Some(flight) = place else { continue };
            if let Some(message) = flight.message.take_if(|it| is_meant(it)) {
                self.flying_bytes -= message.len();
                dropped += 1;
                if !flight.sent {
                    self.gone.extend(place.take().and_then(|it| it.number));
                }
            }
        }
        self.pop_done();
        dropped
    }

    fn pop_done(&mut self) {
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.first += 1;
            self.resent = self.resent.saturating_sub(1);
        }
    }

    /// Whether a message may be sent at once: there is room, and nothing older waits.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_behind() && self.has_room() && self.has_room_for_bytes()
    }

    /// Whether messages wait to be sent, for the first time or again.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
            || self.resent < self.flights.len()
            || self.rereleased < self.released.len()
    }

    fn has_room(&self) -> bool {
        self.active < self.max && self.flights.len() < usize::from(IDS)
    }

    /// Messages that were in flight before are sent again in any case: they are there already.
    fn has_room_for_bytes(&self) -> bool {
        self.flying_bytes < self.max_flying_bytes
    }

    /// Takes a message into the window and gives it its packet identifier and its place. Ask
    /// [`Window::is_open`] first.
    pub(crate) fn send(&mut self, mut flight: Flight) -> (u16, u64) {
        let place = self.first + self.flights.len() as u64;
        if !self.keeps {
            flight.number = None;
        }
        self.flying_bytes += flight.bytes();
        self.flights.push_back(Some(flight));
        self.resent = self.flights.len();
        self.active += 1;
        (id(place), place)
    }

    pub(crate) fn enqueue(&mut self, queued: Queued) {
        self.queued_bytes += queued.message.len();
        self.expiring += usize::from(queued.message.expires().is_some());
        self.queue.push_back(queued);
    }

    /// The next message that was in flight on an earlier connection and is to be sent again, if the window
    /// has room for it, oldest first [MQTT5-4.4.0-1], [MQTT5-4.6.0-1]. Where one is to be released, the next
    /// one is that was to be: in the order of the PUBRECs [MQTT5-4.6.0-4].
    pub(crate) fn resend(&mut self) -> Option<(u16, &Flight)> {
        while self.has_room() && self.resent < self.flights.len() {
            let n = self.resent;
            self.resent += 1;
            let id = match &self.flights[n] {
                Some(flight) if flight.released => self.rerelease(),
                Some(flight) if !flight.sent => Some(id(self.first + n as u64)),
                _ => None,
            };
            if let Some(id) = id {
                return self.sent_again(id);
            }
        }
        // One that was released out of turn, and is done with since, has left its turn to nobody.
        while self.has_room() && self.rereleased < self.released.len() {
            if let Some(id) = self.rerelease() {
                return self.sent_again(id);
            }
        }
        None
    }

    fn rerelease(&mut self) -> Option<u16> {
        while let Some(&id) = self.released.get(self.rereleased) {
            self.rereleased += 1;
            let place = self.flights.get(self.index(id));
            if let Some(Some(flight)) = place
                && !flight.sent
            {
                return Some(id);
            }
        }
        None
    }

    fn sent_again(&mut self, id: u16) -> Option<(u16, &Flight)> {
        self.active += 1;
        let place = self.flights.get_mut(self.index(id));
        let flight = place?.as_mut()?;
        flight.sent = true;
        Some((id, flight))
    }

    /// The next message of the queue, if the window has room for it.
    pub(crate) fn dequeue(&mut self) -> Option<Queued> {
        if !self.has_room() || !self.has_room_for_bytes() {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.message.len();
        self.expiring -= usize::from(queued.message.expires().is_some());
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(queued)
    }

    /// Messages that can be sent before others have to wait; below 0, how many wait.
    pub(crate) fn room(&self) -> i32 {
        let open = i32::from(self.max) - i32::from(self.active);
        let waiting = self.queue.len() + self.flights.len() - self.resent;
        open - i32::try_from(waiting).unwrap_or(i32::MAX)
    }

    /// Drops what `keeps` does not keep of the queue.
    pub(crate) fn retain_queued(&mut self, mut keeps: impl FnMut(&Queued) -> bool) {
        let (bytes, expiring) = (&mut self.queued_bytes, &mut self.expiring);
        let (gone, keeps_numbers) = (&mut self.gone, self.keeps);
        self.queue.retain(|queued| {
            let stays = keeps(queued);
            if !stays {
                *bytes -= queued.message.len();
                *expiring -= usize::from(queued.message.expires().is_some());
                gone.extend(queued.message.number().filter(|_| keeps_numbers));
            }
            stays
        });
    }

    /// What is in flight, oldest first.
    pub(crate) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter().flatten()
    }

    /// What waits, oldest first.
    pub(crate) fn queue(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter()
    }

    /// Everything that may still be sent.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        let flights = self.flights().filter_map(|it| it.message.as_deref());
        flights.chain(self.queue.iter().map(|it| &*it.message))
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether any of the queue expires.
    pub(crate) const fn may_expire(&self) -> bool {
        self.expiring > 0
    }

    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Of everything that may still be sent.
    pub(crate) const fn bytes(&self) -> usize {
        self.queued_bytes + self.flying_bytes
    }

    /// Takes an acknowledgement from the client; `failed` is one with a reason code of 0x80 or more.
    pub(crate) fn acknowledge(&mut self, kind: AckKind, id: u16, failed: bool) -> Acked {
        let index = self.index(id);
        let Some(Some(flight)) = self.flights.get_mut(index) else {
            return Acked::Unknown;
        };
        match (kind, flight.qos, flight.released) {
            (AckKind::PubAck, QoS::AtLeastOnce, _) | (AckKind::PubComp, QoS::ExactlyOnce, true) => {
            }
            // A refused message is done with [MQTT5-4.3.3-4].
            (AckKind::PubRec, QoS::ExactlyOnce, false) if failed => {}
            (AckKind::PubRec, QoS::ExactlyOnce, _) => {
                if !flight.released {
                    flight.released = true;
                    // Unless earlier ones are yet to be released again, none is.
                    self.rereleased += usize::from(self.rereleased == self.released.len());
                    self.released.push_back(id);
                }
                // The message may no longer be sent, only its PUBREL [MQTT5-4.3.3-5].
                self.flying_bytes -= flight.bytes();
                flight.message = None;
                return Acked::Release(flight.number);
            }
            _ => return Acked::Wrong,
        }
        self.finish(index);
        Acked::Done
    }

    /// Gives a message up that cannot be sent.
    pub(crate) fn abandon(&mut self, id: u16) {
        self.finish(self.index(id));
    }

    fn flight(&self, id: u16) -> Option<&Flight> {
        self.flights.get(self.index(id))?.as_ref()
    }

    /// How far behind the first flight the one with this identifier is.
    fn index(&self, id: u16) -> usize {
        let (first, id) = (usize::from(self::id(self.first)), usize::from(id));
        (id + usize::from(IDS) - first) % usize::from(IDS)
    }

    fn finish(&mut self, index: usize) {
        let Some(flight) = self.flights.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.active -= u16::from(flight.sent);
        self.flying_bytes -= flight.bytes();
        if flight.released {
            let id = id(self.first + index as u64);
            let place = self.released.iter().position(|it| *it == id);
            let place = place.expect("invariant: noted when it was released");
            self.released.remove(place);
            self.rereleased -= usize::from(place < self.rereleased);
        }
        self.gone.extend(flight.number);
        self.pop_done();
        if self.flights.is_empty() && self.flights.capacity() > 64 {
            self.flights = VecDeque::new();
        }
    }
}

/// The packet identifier of what is sent in this place.
fn id(place: u64) -> u16 {
    ((place - 1) % u64::from(IDS)) as u16 + 1
}

#[cfg(test)]
mod tests;
