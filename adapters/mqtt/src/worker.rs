//! A thread that owns its sockets and sessions, and the turns it takes.
//!
//! One turn: take what sockets and other threads have brought, look at every packet, note what is to be
//! written; then hand changes of the roll to the journal, messages to other workers, and bytes to sockets:
//! each once for all that the turn brought.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rollcall_domain::presence::{Farewell, Presence, Protocol};
use slab::Slab;

use crate::agenda::Timer;
use crate::codec;
use crate::connection::{Connection, Stage};
use crate::delivery::Parcel;
use crate::directory::Directory;
use crate::drain::Drain;
use crate::front::Shared;
use crate::groups::Member;
use crate::inbox::{Inbox, Mail};
use crate::keeping::Notes;
use crate::listener::Watched;
use crate::message::Message;
use crate::metrics::Tally;
use crate::outbox::{SHARED, Turn, Written};
use crate::packet::{AckKind, Packet};
use crate::reason;
use crate::retained::EFFORT;
use crate::route::{Route, SessionRef};
use crate::session::Session;
use crate::sockets::READ_BYTES;
use crate::storm::Storm;
use crate::timers::{Tick, Timers, ticks};

pub(crate) const WAKER: Token = Token(usize::MAX);
/// Tokens of doors count down from here.
const DOORS: usize = usize::MAX - 1;

/// A CONNECT: room for a will, an id and credentials as long as MQTT lets them be, but not for all of it twice.
pub(crate) const MAX_CONNECT: u32 = 160 * 1024;
/// How long a client may take to read a last packet and close.
const LINGER: Duration = Duration::from_secs(1);
/// Topics whose routes are remembered.
const ROUTES: usize = 16 * 1024;
/// How long to leave other workers alone that have not yet delivered what they got.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Worker {
    pub(crate) id: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) poll: Poll,
    pub(crate) doors: Vec<Watched>,
    /// Doors with more to accept.
    pub(crate) accepting: Vec<usize>,
    pub(crate) connections: Slab<Connection>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) directory: Directory,
    pub(crate) generation: u32,
    /// The place of the session that was looked at last.
    pub(crate) round: usize,
    pub(crate) turn: Turn,
    /// Connections that have something to write this turn.
    pub(crate) dirty: Vec<usize>,
    /// Steps of handshakes of this turn.
    pub(crate) handshakes: u32,
    /// Connections with more to read, and those of them that are in the middle of a long packet.
    pub(crate) again: Vec<usize>,
    pub(crate) long: Vec<usize>,
    /// Connections found to be at an end while something else went on.
    pub(crate) doomed: Vec<(usize, u32, Farewell)>,
    /// Sessions that were to queue more than they may.
    pub(crate) overflowed: Vec<SessionRef>,
    /// The session whose queue was looked through last for expired messages.
    pub(crate) swept: usize,
    /// Connections whose clients have read what there was, and are to get more retained messages.
    pub(crate) replaying: Vec<usize>,
    /// What is left of it for look-ups of retained messages in this turn.
    pub(crate) effort: usize,
    /// Messages that could not stay where they were, and the members that are to have them.
    pub(crate) handed_over: VecDeque<(Arc<Member>, Arc<Message>)>,
    /// Messages for other workers, by worker.
    pub(crate) crossings: Vec<Vec<Parcel>>,
    /// Changes of the roll of this turn, and the connections that wait for them to be kept.
    pub(crate) changes: Vec<Presence>,
    pub(crate) arrivals: Vec<(usize, u32)>,
    /// Arrivals of earlier turns, the oldest first.
    pub(crate) batches: VecDeque<Vec<(usize, u32)>>,
    pub(crate) notes: Notes,
    pub(crate) routes: HashMap<Box<str>, Arc<Route>>,
    pub(crate) timers: Timers<Timer>,
    pub(crate) tally: Tally,
    /// Bytes that wait here, past the end of a turn, and what was last said of it.
    pub(crate) queued: usize,
    pub(crate) reported: usize,
    /// QoS 0 beyond this is dropped.
    pub(crate) max_unread: usize,
    pub(crate) now: Instant,
    pub(crate) tick: Tick,
    pub(crate) read: Vec<u8>,
    mail: Vec<Mail>,
    pub(crate) stopping: bool,
    pub(crate) drain: Option<Drain>,
}

/// Whether the packets of a connection go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    /// The packet waits and will be looked at again.
    Wait,
    /// The connection is over, or no longer here.
    Over,
}

impl Worker {
    pub(crate) fn new(
        id: u16,
        shared: Arc<Shared>,
        poll: Poll,
        mut doors: Vec<Watched>,
    ) -> io::Result<Self> {
        for (n, door) in doors.iter_mut().enumerate() {
            door.register(poll.registry(), Token(DOORS - n))?;
        }
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.set(0, Timer::Purge);
        if !shared.gate.access.hears_of_revocations() {
            timers.set(0, Timer::Round);
        }
        if id == 0 && !shared.config.sys.interval.is_zero() {
            timers.set(0, Timer::Sys);
        }
        Ok(Self {
            id,
            inbox: Arc::clone(&shared.inboxes[usize::from(id)]),
            poll,
            doors,
            accepting: Vec::new(),
            connections: Slab::new(),
            sessions: Slab::new(),
            directory: Directory::default(),
            generation: 0,
            round: 0,
            turn: Turn::default(),
            dirty: Vec::new(),
            handshakes: 0,
            again: Vec::new(),
            long: Vec::new(),
            doomed: Vec::new(),
            overflowed: Vec::new(),
            swept: 0,
            replaying: Vec::new(),
            effort: EFFORT,
            handed_over: VecDeque::new(),
            crossings: shared.inboxes.iter().map(|_| Vec::new()).collect(),
            changes: Vec::new(),
            arrivals: Vec::new(),
            batches: VecDeque::new(),
            notes: Notes::new(shared.store.clone()),
            routes: HashMap::new(),
            timers,
            tally: Tally::default(),
            queued: 0,
            reported: 0,
            max_unread: shared.session_queue_bytes,
            now,
            tick: 0,
            read: vec![0; READ_BYTES],
            mail: Vec::new(),
            stopping: false,
            drain: None,
            shared,
        })
    }

    /// Takes turns until told to stop and everybody is gone.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut storm = Storm::new(self.now);
        loop {
            if let Some(rest) = storm.rest(Instant::now()) {
                std::thread::sleep(rest);
            }
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for sockets");
                return;
            }
            self.now = Instant::now();
            self.tick = self.timers.tick(self.now);
            storm.begin_turn(self.now);
            self.effort = EFFORT;
            self.tighten();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(n) if n > DOORS - self.doors.len() => {
                        self.accepting.push(DOORS - n);
                        storm.on_connections();
                    }
                    Token(token) => self.on_socket(token, event),
                }
            }
            self.on_mail();
            self.fire();
            self.accept();
            self.read_again();
            self.replay_more();
            self.end_turn();
            if self.stopping && self.connections.is_empty() && self.batches.is_empty() {
                return;
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        let busy = !self.again.is_empty()
            || !self.long.is_empty()
            || !self.accepting.is_empty()
            || !self.doomed.is_empty()
            || !self.replaying.is_empty();
        if busy {
            return Some(if self.is_crowded() {
                CROWDED_PAUSE
            } else {
                Duration::ZERO
            });
        }
        self.timers.next(self.now)
    }

    /// Whether another worker has more to deliver than it should: take no new messages before it has.
    pub(crate) fn is_crowded(&self) -> bool {
        self.notes.is_behind() || self.shared.inboxes.iter().any(|inbox| inbox.is_crowded())
    }

    fn on_socket(&mut self, token: usize, event: &mio::event::Event) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        if event.is_writable() {
            if connection.transport.is_layered() {
                // It may not have read on because it could not write.
                connection.readable = true;
                self.again.push(token);
            }
            if connection.transport.push().is_err() {
                return self.end(token, Farewell::ConnectionLost);
            }
            let known = self.notes.known();
            let before = connection.outbox.len();
            let written = connection
                .outbox
                .write_backlog(&mut connection.transport, known);
            self.tally.bytes_sent += (before - connection.outbox.len()) as u64;
            self.on_written(token, written);
        }
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() {
            connection.readable = true;
            connection.hangup |= event.is_read_closed();
            self.again.push(token);
        }
    }

    fn on_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.inbox.take(&mut mail);
        for letter in mail.drain(..) {
            match letter {
                Mail::Guest(guest) => self.welcome_guest(*guest),
                Mail::Crossing { bytes, parcels } => self.deliver_crossing(&bytes, parcels),
                Mail::Answer(answer) => self.on_answer(answer),
                Mail::Kept(arrivals) => self.on_kept(arrivals),
                Mail::Committed(ticket) => self.on_committed(ticket),
                Mail::Revoked(what) => self.revoke(&what),
                Mail::Doubted(what) => self.doubt(&what),
                Mail::Kick(kick, answer) => {
                    // Whoever asked may have gone away.
                    let _ = answer.send(self.kick(&kick));
                }
                Mail::TakenOver(sessions) => self.take_over(&sessions),
                Mail::Shed => self.shed(),
                Mail::Stop { spread } => self.stop(spread),
            }
            if self.turn.is_full() {
                self.flush();
            }
        }
        self.mail = mail;
    }

    /// Looks again at the packets that waited, then at what the socket has.
    pub(crate) fn resume(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        let mut input = std::mem::take(&mut connection.input);
        let taken = self.process(token, &input);
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        input.drain(..taken);
        connection.input = if input.is_empty() { Vec::new() } else { input };
        if connection.readable && connection.listens() {
            self.again.push(token);
        }
    }

    /// Looks at the packets in `input`. Returns how many bytes are done with.
    pub(crate) fn process(&mut self, token: usize, input: &[u8]) -> usize {
        let mut done = 0;
        while done < input.len() {
            let Some(connection) = self.connections.get(token) else {
                break;
            };
            if matches!(connection.stage, Stage::Closing { .. }) {
                return input.len();
            }
            if !connection.listens() {
                break;
            }
            if self.turn.is_full() {
                self.flush();
                continue;
            }
            let protocol = connection.protocol;
            let limit = self.limit_now(connection);
            let (packet, len) = match codec::decode(&input[done..], protocol, limit) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(fault) => {
                    self.on_fault(token, fault, &input[done..]);
                    return input.len();
                }
            };
            match self.handle(token, packet, &input[done..]) {
                Flow::Next => {
                    done += len;
                    self.tally.packets_received += 1;
                    self.tally.bytes_received += len as u64;
                }
                Flow::Wait => break,
                Flow::Over => return input.len(),
            }
        }
        done
    }

    /// The largest packet: a stranger is given no more room than the largest sensible CONNECT takes.
    pub(crate) fn limit(&self, connection: &Connection) -> u32 {
        let max = self.shared.listeners[connection.listener].max_packet;
        match connection.protocol {
            Some(_) => max,
            None => max.min(MAX_CONNECT),
        }
    }

    #[inline]
    fn handle(&mut self, token: usize, packet: Packet<'_>, input: &[u8]) -> Flow {
        match packet {
            Packet::Publish(publish) => self.publish(token, publish),
            Packet::Ack(ack) => self.acknowledge(token, ack),
            Packet::Connect(connect) => self.connect(token, &connect, input),
            Packet::Subscribe(subscribe) => self.subscribe(token, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(token, &unsubscribe),
            Packet::PingReq => {
                self.reply(token, codec::pingresp);
                Flow::Next
            }
            Packet::Disconnect(disconnect) => self.disconnect(token, &disconnect),
            // Enhanced authentication was not begun, so none can go on [MQTT5-4.12.0-6].
            Packet::Auth(_) => self.violation(token, reason::PROTOCOL_ERROR),
        }
    }

    /// Notes a packet for the client of a connection.
    pub(crate) fn reply(&mut self, token: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let connection = &mut self.connections[token];
        if connection.outbox.is_stale() {
            self.dirty.push(token);
        }
        let segment = self.turn.write(crate::outbox::REPLIES, write);
        self.tally.replies += 1;
        connection.outbox.push(segment, &mut self.turn);
    }

    /// Like [`Worker::reply`], of a packet that can leave out what need not be said: the second argument of
    /// `write` is false when all of it would be larger than the client takes [MQTT5-3.1.2-24].
    pub(crate) fn reply_within(&mut self, token: usize, write: impl Fn(&mut Vec<u8>, bool)) {
        let most = self.connections[token].max_packet as usize;
        self.reply(token, |out| {
            let start = out.len();
            write(out, true);
            if out.len() - start > most {
                out.truncate(start);
                write(out, false);
            }
        });
    }

    /// Notes an acknowledgement; one that says no says why, if the client wants to know.
    pub(crate) fn reply_ack(&mut self, token: usize, kind: AckKind, id: u16, code: u8) {
        let connection = &self.connections[token];
        let protocol = connection.protocol.expect("invariant: live");
        let wants_reason = protocol == Protocol::Mqtt5 && connection.wants_reasons;
        match reason::explain(code).filter(|_| wants_reason) {
            None => self.reply(token, |out| codec::ack(out, protocol, kind, id, code)),
            Some(why) => self.reply_within(token, |out, all| match all {
                true => codec::ack_because(out, kind, id, code, why),
                false => codec::ack(out, protocol, kind, id, code),
            }),
        }
    }

    fn end_turn(&mut self) {
        self.handshakes = 0;
        for (token, generation, farewell) in std::mem::take(&mut self.doomed) {
            let known = self.connections.get(token);
            if known.is_some_and(|connection| connection.generation == generation) {
                self.end(token, farewell);
            }
        }
        for session in std::mem::take(&mut self.overflowed) {
            self.discard(session);
        }
        self.report_queued();
        self.make_room();
        self.hand_out();
        self.append_changes();
        self.flush();
        self.report_queued();
        self.tally.report(&self.shared.metrics, &self.shared.board);
    }

    fn append_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes);
        let presence = self.shared.presence.as_ref();
        let presence = presence.expect("invariant: who is on no roll changes none");
        if self.arrivals.is_empty() {
            return presence.append(changes, Box::new(|_| {}));
        }
        self.batches.push_back(std::mem::take(&mut self.arrivals));
        let inbox = Arc::clone(&self.inbox);
        let kept = Box::new(move |arrivals| inbox.post(Mail::Kept(arrivals)));
        presence.append(changes, kept);
    }

    /// Hands messages to the other workers and bytes to the sockets; what was noted so far is done with.
    pub(crate) fn flush(&mut self) {
        // Before anybody else can note what became of it.
        self.hand_over_notes();
        let known = self.notes.known();
        for worker in 0..self.crossings.len() {
            if !self.crossings[worker].is_empty() {
                let parcels = std::mem::take(&mut self.crossings[worker]);
                let bytes = self.turn.freeze(SHARED);
                self.shared.inboxes[worker].post(Mail::Crossing { bytes, parcels });
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(token) else {
                continue;
            };
            let before = connection.outbox.len();
            let written = connection
                .outbox
                .flush(&mut connection.transport, &mut self.turn, known);
            self.tally.bytes_sent += (before - connection.outbox.len()) as u64;
            let (stage, generation) = (connection.stage, connection.generation);
            if connection.shares {
                self.tell_reach(token);
            }
            match written {
                Ok(Written::All) => self.close_if_done(token),
                // Who does not linger gets what the socket takes.
                Ok(Written::Part) => match stage {
                    Stage::Closing { linger: false } => self.remove(token),
                    _ => self.await_room(token),
                },
                Ok(Written::Held) => self.hold_back(token),
                Err(_) => match stage {
                    Stage::Closing { .. } => self.remove(token),
                    _ => self
                        .doomed
                        .push((token, generation, Farewell::ConnectionLost)),
                },
            }
            if self.connections.contains(token) {
                self.count_unread(token);
            }
        }
        self.dirty = dirty;
        self.turn.clear();
    }

    /// Closes a connection that is over and has nothing more to say.
    pub(crate) fn close_if_done(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if connection.outbox.len() > 0 {
            return;
        }
        match connection.stage {
            Stage::Closing { linger: false } => self.remove(token),
            Stage::Closing { linger: true } => {
                if connection.transport.close().is_err() {
                    self.remove(token);
                }
            }
            Stage::Live if connection.replays => self.replay_soon(token),
            Stage::Greeting | Stage::Arriving | Stage::Live => {}
        }
    }

    /// Lets a connection that is over linger until the client has read why.
    pub(crate) fn linger(&mut self, token: usize) {
        self.set_timer(token, ticks(LINGER));
    }

    pub(crate) fn remove(&mut self, token: usize) {
        let mut connection = self.connections.remove(token);
        self.queued -= connection.counted;
        if connection.transport.is_layered() {
            // It has a goodbye of its own; whether that arrives does not matter.
            let _ = connection.transport.close();
        }
        let listener = &self.shared.listeners[connection.listener];
        listener.connections.fetch_sub(1, Ordering::Relaxed);
        listener.open.decrement(1.0);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn session_ref(&self, slot: usize) -> SessionRef {
        let generation = self.sessions[slot].generation;
        SessionRef {
            worker: self.id,
            slot: slot as u32,
            generation,
        }
    }

    /// The session that is in `slot` now, if it is still the one of this generation.
    pub(crate) fn session_ref_if(&self, slot: usize, generation: u32) -> Option<SessionRef> {
        let session = self.sessions.get(slot)?;
        (session.generation == generation).then(|| self.session_ref(slot))
    }

    /// The route of `topic`: the remembered one if it still holds.
    pub(crate) fn route(&mut self, topic: rollcall_domain::topic::TopicName<'_>) -> Arc<Route> {
        if let Some(route) = self.routes.get(topic.as_str())
            && self.shared.router.holds(route)
        {
            return Arc::clone(route);
        }
        if self.routes.len() >= ROUTES {
            self.routes.clear();
        }
        let route = Arc::new(self.shared.router.route(topic));
        self.routes
            .insert(topic.as_str().into(), Arc::clone(&route));
        route
    }
}
