//! What outlives this process: noted as it happens, handed to the store once a turn.
//!
//! Whatever a client is told that promises something waits in its outbox until the notes before it are
//! committed, and nothing else does. The worker that a message comes to notes all it is queued for, in one batch
//! with the identifier that it came under: after a crash it is either there for everybody or comes again.
//! At QoS 2 a message, and its release, leave when it is committed under which identifier they do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_domain::identity::Timestamp;
use rollcall_domain::presence::Farewell;
use rollcall_domain::sessions::{
    self, Change, Delivery, MessageNumber, SessionNumber, SessionStore, Subscription,
};

use crate::connection::Stage;
use crate::inbox::Mail;
use crate::message::Message;
use crate::outbox::{Ticket, Written};
use crate::packet::QoS;
use crate::route::{Receiver, SessionRef, Terms, Via};
use crate::session::{Expiry, Session};
use crate::window::Queued;
use crate::worker::Worker;

/// No more is read while more than this waits to be written.
const MAX_BACKLOG: usize = 32 * 1024 * 1024;
/// The same, of a store that fails. What it would be needed for is refused then, and the rest goes on; but
/// subscriptions, wills and ends of sessions are still noted.
const MAX_FAILING_BACKLOG: usize = 4 * MAX_BACKLOG;

/// What a worker has noted.
pub(crate) struct Notes {
    pub(crate) store: Option<Arc<dyn SessionStore>>,
    /// Of this turn.
    changes: Vec<Change>,
    /// Something else was given to the store in this turn, and is to be waited for.
    fence: bool,
    /// Of the last batch that was handed over.
    issued: Ticket,
    /// Of the last batch that is known to be committed.
    known: Ticket,
    /// Connections that hold something back.
    held: Vec<(usize, u32)>,
}

impl Notes {
    pub(crate) fn new(store: Option<Arc<dyn SessionStore>>) -> Self {
        Self {
            store,
            changes: Vec::new(),
            fence: false,
            issued: 0,
            known: 0,
            held: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn known(&self) -> Ticket {
        self.known
    }

    /// Whether the store cannot write now.
    pub(crate) fn is_failing(&self) -> bool {
        self.store.as_ref().is_some_and(|it| it.is_failing())
    }

    /// Whether the store cannot keep up.
    pub(crate) fn is_behind(&self) -> bool {
        self.store.as_ref().is_some_and(|it| {
            it.backlog() > MAX_BACKLOG && (!it.is_failing() || it.backlog() > MAX_FAILING_BACKLOG)
        })
    }
}

impl Session {
    /// What messages for it are kept under.
    pub(crate) fn keeps_as(&self) -> Option<SessionNumber> {
        self.number.filter(|_| self.may_resume())
    }
}

impl Worker {
    /// What the client is told in this turn, and from then on, waits until everything noted so far is kept.
    pub(crate) fn promise(&mut self, token: usize) {
        let notes = &self.notes;
        let pending = notes.fence || !notes.changes.is_empty();
        let ticket = notes.issued + u64::from(pending);
        self.connections[token].outbox.hold(ticket);
    }

    /// Like [`Worker::promise`], about something that is noted in this turn, but not yet.
    pub(crate) fn promise_after(&mut self, token: usize) {
        self.fence();
        self.promise(token);
    }

    /// The next promise is about something that was given to the store at once.
    pub(crate) fn fence(&mut self) {
        self.notes.fence = self.notes.store.is_some();
    }

    /// Hands what was noted to the store.
    pub(crate) fn hand_over_notes(&mut self) {
        let notes = &mut self.notes;
        if !notes.fence && notes.changes.is_empty() {
            return;
        }
        let store = notes.store.as_ref().expect("invariant: something is noted");
        notes.fence = false;
        notes.issued += 1;
        let (ticket, inbox) = (notes.issued, Arc::clone(&self.inbox));
        let kept = Box::new(move || inbox.post(Mail::Committed(ticket)));
        store.keep(std::mem::take(&mut notes.changes), kept);
    }

    /// A batch is committed: what waited for it leaves.
    pub(crate) fn on_committed(&mut self, ticket: Ticket) {
        self.notes.known = ticket;
        for (token, generation) in std::mem::take(&mut self.notes.held) {
            let known = self.connections.get_mut(token);
            let Some(connection) = known.filter(|it| it.generation == generation) else {
                continue;
            };
            connection.held = false;
            let before = connection.outbox.len();
            let written = connection
                .outbox
                .write_backlog(&mut connection.transport, ticket);
            self.tally.bytes_sent += (before - connection.outbox.len()) as u64;
            self.on_written(token, written);
        }
    }

    /// A connection has something to say that must wait.
    pub(crate) fn hold_back(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !std::mem::replace(&mut connection.held, true) {
            self.notes.held.push((token, connection.generation));
        }
        if connection.stage == (Stage::Closing { linger: false }) {
            self.linger(token);
        }
    }

    /// What became of writing what earlier turns left.
    pub(crate) fn on_written(&mut self, token: usize, written: io::Result<Written>) {
        match written {
            Ok(Written::All) => {
                if self.connections[token].shares {
                    self.tell_reach(token);
                }
                self.close_if_done(token);
            }
            Ok(Written::Part) => self.await_room(token),
            Ok(Written::Held) => self.hold_back(token),
            Err(_) => self.end(token, Farewell::ConnectionLost),
        }
        if self.connections.contains(token) {
            self.count_unread(token);
        }
    }

    pub(crate) fn next_number(&self) -> SessionNumber {
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        SessionNumber::new(number).expect("invariant: numbers begin at 1")
    }

    /// A session has its connection: if it is to outlive it, or leaves a will, it is kept.
    pub(crate) fn note_connected(&mut self, slot: usize, token: usize) {
        if self.notes.store.is_none() {
            return;
        }
        let session = &self.sessions[slot];
        let will = self.connections[token].will.as_deref();
        if session.number.is_none() && !session.may_resume() && will.is_none() {
            return;
        }
        let number = session.number.unwrap_or_else(|| self.next_number());
        let (now, at) = (self.now, Timestamp::now());
        let will = will.map(|will| sessions::Will {
            message: sessions::Message {
                expires: None,
                ..will.message.to_kept(now, at)
            },
            delay: Duration::from_secs(will.delay.into()),
        });
        let session = &mut self.sessions[slot];
        let lasts = session.may_resume();
        session.number = Some(number);
        if lasts {
            session.window.keep();
        }
        let kept = sessions::Session {
            thing: session.key.thing,
            client_id: session.key.client_id.clone(),
            protocol: session.protocol.expect("invariant: connected"),
            expiry: match session.expiry {
                Expiry::AtOnce => Duration::ZERO,
                Expiry::After(time) => time,
            },
        };
        self.notes.add(Change::Connected(number, kept, will));
        if lasts {
            self.promise(token);
        }
    }

    /// A session goes on without a connection for so long; its will, if it still has one, waits this long.
    pub(crate) fn note_left(&mut self, slot: usize, expiry: Duration, will: Option<Duration>) {
        let Some(session) = self.sessions[slot].number else {
            return;
        };
        let now = Timestamp::now();
        let after = |time: Duration| {
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            Timestamp(now.0.saturating_add(time))
        };
        self.notes.add(Change::Left {
            session,
            ends: after(expiry),
            will: will.map(after),
        });
    }

    pub(crate) fn note_will_gone(&mut self, slot: usize) {
        if let Some(session) = self.sessions[slot].number {
            self.notes.add(Change::WillGone(session));
        }
    }

    /// Nothing is left of a session.
    pub(crate) fn note_ended(&mut self, slot: usize) {
        if let Some(session) = self.sessions[slot].number.take() {
            self.notes.add(Change::Ended(session));
        }
    }

    pub(crate) fn note_subscribed(&mut self, slot: usize, filter: &str, terms: &Terms) {
        if let Some(session) = terms.number {
            let subscription = Subscription {
                filter: filter.into(),
                options: terms.options(),
                identifier: terms.identifier.map(|it| it.get()),
            };
            debug_assert_eq!(self.sessions[slot].number, Some(session));
            self.notes.add(Change::Subscribed(session, subscription));
        }
    }

    pub(crate) fn note_unsubscribed(&mut self, slot: usize, filter: &str) {
        if let Some(session) = self.sessions[slot].keeps_as() {
            self.notes.add(Change::Unsubscribed(session, filter.into()));
        }
    }

    /// Keeps a message for those who are to have it at QoS 1 or 2 and keep what they get. `None` if nobody
    /// is, else the message with its number.
    pub(crate) fn note_message<'a>(
        &mut self,
        message: Message,
        receivers: impl Iterator<Item = &'a Receiver>,
        from: Option<SessionRef>,
    ) -> Option<Arc<Message>> {
        let number = self.next_number();
        let place = self.notes.changes.len();
        for receiver in receivers.filter_map(|it| it.toward(from)) {
            self.note_queued(number, &message, receiver);
        }
        if self.notes.changes.len() == place {
            return None;
        }
        Some(self.note_content(place, message, number))
    }

    /// Notes a message that a session has been found for since it came; returns it with a number.
    pub(crate) fn note_found(
        &mut self,
        message: &Arc<Message>,
        receiver: &Receiver,
    ) -> Arc<Message> {
        if receiver.terms.number.is_none() || message.qos.min(receiver.terms.qos) == QoS::AtMostOnce
        {
            return Arc::clone(message);
        }
        let message = self.numbered(message);
        let number = message.number().expect("invariant: just numbered");
        self.note_queued(number, &message, receiver);
        message
    }

    /// A message that a session was found for is not for it after all.
    pub(crate) fn note_not_found(&mut self, message: &Message, receiver: &Receiver) {
        if let (Some(session), Some(message)) = (receiver.terms.number, message.number()) {
            self.notes.add(Change::Done(session, message));
        }
    }

    /// Notes what is about to wait for one session, other than what was published just now.
    pub(crate) fn note_waiting(&mut self, slot: usize, mut queued: Queued) -> Queued {
        if let Some(session) = self.sessions[slot].keeps_as()
            && queued.qos != QoS::AtMostOnce
        {
            queued.message = self.numbered(&queued.message);
            let number = queued.message.number().expect("invariant: just numbered");
            let delivery = delivery(number, queued.qos, queued.retain, queued.via.as_deref());
            self.notes.add(Change::Queued(session, delivery));
        }
        queued
    }

    fn numbered(&mut self, message: &Arc<Message>) -> Arc<Message> {
        if message.number().is_some() {
            return Arc::clone(message);
        }
        let (place, number) = (self.notes.changes.len(), self.next_number());
        self.note_content(place, Message::clone(message), number)
    }

    fn note_content(
        &mut self,
        place: usize,
        message: Message,
        number: MessageNumber,
    ) -> Arc<Message> {
        let content = message.to_kept(self.now, Timestamp::now());
        self.notes
            .changes
            .insert(place, Change::Message(number, content));
        Arc::new(message.numbered(number))
    }

    fn note_queued(&mut self, number: MessageNumber, message: &Message, receiver: &Receiver) {
        let terms = &receiver.terms;
        let qos = message.qos.min(terms.qos);
        if let Some(session) = terms.number
            && qos != QoS::AtMostOnce
        {
            let retain = message.retain && terms.retain_as_published;
            let delivery = delivery(number, qos, retain, receiver.via.as_deref());
            self.notes.add(Change::Queued(session, delivery));
        }
    }

    /// A message was put under way in this place. At QoS 2 it leaves when that is kept.
    pub(crate) fn note_sent(
        &mut self,
        slot: usize,
        token: usize,
        message: Option<MessageNumber>,
        place: u64,
        qos: QoS,
    ) {
        if let (Some(session), Some(message)) = (self.sessions[slot].keeps_as(), message) {
            self.notes.add(Change::Sent(session, message, place));
            if qos == QoS::ExactlyOnce {
                self.promise(token);
            }
        }
    }

    /// What was done with in the window of a session need not be kept any longer.
    pub(crate) fn note_gone(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        let gone = session.window.take_gone();
        if let Some(session) = session.number {
            let done = gone.into_iter().map(|it| Change::Done(session, it));
            self.notes.changes.extend(done);
        }
    }

    /// A delivery that was noted does not take place.
    pub(crate) fn note_undelivered(&mut self, slot: usize, message: Option<MessageNumber>) {
        if let (Some(session), Some(message)) = (self.sessions[slot].number, message) {
            self.notes.add(Change::Done(session, message));
        }
    }
}

fn delivery(number: MessageNumber, qos: QoS, retain: bool, via: Option<&Via>) -> Delivery {
    let group = via.and_then(|via| via.group.as_ref());
    Delivery {
        message: number,
        qos: qos as u8,
        retain,
        properties: via.map_or_else(Box::default, |via| via.identifiers.clone()),
        group: group.map(|group| group.filter().into()),
        place: None,
        released: None,
    }
}

#[cfg(test)]
mod tests {
    use rollcall_domain::sessions::Kept;

    use super::*;

    struct Store {
        failing: bool,
        backlog: usize,
    }

    impl SessionStore for Store {
        fn keep(&self, _: Vec<Change>, _: Kept) {}

        fn is_failing(&self) -> bool {
            self.failing
        }

        fn backlog(&self) -> usize {
            self.backlog
        }
    }

    #[test]
    fn what_waits_for_the_store_is_bounded_also_while_it_fails() {
        let is_behind = |failing, backlog| {
            let store: Arc<dyn SessionStore> = Arc::new(Store { failing, backlog });
            Notes::new(Some(store)).is_behind()
        };
        assert!(!is_behind(false, MAX_BACKLOG));
        assert!(is_behind(false, MAX_BACKLOG + 1));
        assert!(!is_behind(true, MAX_FAILING_BACKLOG));
        assert!(is_behind(true, MAX_FAILING_BACKLOG + 1));
        assert!(!Notes::new(None).is_behind());
    }
}
