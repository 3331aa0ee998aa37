//! From CONNECT to CONNACK: who it is, its session, its arrival; all of them, or one reason to refuse.
//!
//! The CONNECT stays at the front of the connection's input until it is decided on. It is looked at once
//! more whenever an answer comes that it waited for, and a last time when the arrival is kept.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_domain::access::{Authenticated, Credentials, Proof, Verdict};
use rollcall_domain::identity::{Secret, SessionId, Timestamp};
use rollcall_domain::presence::{self, Arrivals, Change, Farewell, Presence, Protocol};

use crate::aliases::Aliases;
use crate::certificates;
use crate::codec::{self};
use crate::config::{AccessMode, CertificateLogin};
use crate::connection::Stage;
use crate::gate::{Answer, Answered, Asker, Question};
use crate::packet::{Connect, Packet};
use crate::principal::{Open, Principal};
use crate::reason::{self, Refusal};
use crate::session::{ClientKey, Session};
use crate::timers::ticks;
use crate::worker::{Flow, Worker};

/// Client ids are kept with the session and named in events, so they are bounded (in bytes).
const MAX_CLIENT_ID: usize = 1024;
/// What 3.1 allows for a client id, in its own words: 1 to 23 characters, taken as bytes here.
const MQTT31_CLIENT_ID: std::ops::RangeInclusive<usize> = 1..=23;
/// How long to leave the things service alone that did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is left to do for a client that is let in.
enum Admitted {
    /// The CONNACK waits for the arrival to be kept.
    Arriving,
    /// Nothing: it is not on the roll.
    Unlisted,
}

/// Why a packet is not decided on yet, or never will be.
pub(crate) enum Hold {
    /// The answer to a question is awaited.
    Asked,
    Refused(Refusal),
}

impl From<Refusal> for Hold {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Worker {
    /// Decides on a CONNECT; `input` begins with it.
    pub(crate) fn connect(&mut self, token: usize, connect: &Connect<'_>, input: &[u8]) -> Flow {
        if self.connections[token].stage != Stage::Greeting {
            // A second CONNECT is a protocol error [MQTT5-3.1.0-2].
            return self.violation(token, reason::PROTOCOL_ERROR);
        }
        let connection = &mut self.connections[token];
        connection.max_packet = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        connection.wants_reasons = connect.properties.request_problem_information;
        if !self.connections[token].settled {
            self.connections[token].settled = true;
            let home = self.home(&self.username(token, connect), connect.client_id);
            if home != usize::from(self.id) {
                self.move_to(token, home, input);
                return Flow::Over;
            }
        }
        match self.admit(token, connect) {
            Ok(Admitted::Arriving) | Err(Hold::Asked) => Flow::Wait,
            Ok(Admitted::Unlisted) => {
                self.welcome(token, connect);
                Flow::Next
            }
            Err(Hold::Refused(Refusal::BadCredentials)) => self.refuse_login(token, connect),
            Err(Hold::Refused(refusal)) => self.refuse(token, connect.protocol, refusal),
        }
    }

    /// The user name as far as it tells sessions apart: nobody has one on an open listener.
    fn username<'a>(&self, token: usize, connect: &Connect<'a>) -> Cow<'a, str> {
        let connection = &self.connections[token];
        match (self.shared.access_mode(connection), connect.username) {
            (AccessMode::Open, _) => "".into(),
            (AccessMode::Things, Some(name)) => name.into(),
            (AccessMode::Things, None) => {
                let certificate = connection.transport.client_certificate();
                let thing = certificate.and_then(certificates::thing);
                thing.map(|it| it.to_string()).unwrap_or_default().into()
            }
        }
    }

    /// A client without an id gets one that lives here.
    fn home(&self, username: &str, client_id: &str) -> usize {
        if client_id.is_empty() {
            usize::from(self.id)
        } else {
            self.shared.home(username, client_id)
        }
    }

    /// Checks everything that can be refused, then takes over the session and announces the arrival.
    fn admit(&mut self, token: usize, connect: &Connect<'_>) -> Result<Admitted, Hold> {
        if self.stopping {
            return Err(Refusal::ShuttingDown.into());
        }
        if connect.properties.authentication_method.is_some() {
            return Err(Refusal::BadAuthenticationMethod.into());
        }
        let id_len = connect.client_id.len();
        if connect.protocol == Protocol::Mqtt31 {
            if !self.shared.config.mqtt31 {
                return Err(Refusal::Version.into());
            }
            if !MQTT31_CLIENT_ID.contains(&id_len) {
                return Err(Refusal::BadClientId.into());
            }
        }
        if id_len > MAX_CLIENT_ID {
            return Err(Refusal::BadClientId.into());
        }
        if !self.has_room_for_connack(token, connect) {
            return Err(Refusal::PacketTooLarge.into());
        }
        let principal = self.principal(token, connect)?;
        let will = self.admit_will(token, connect, &principal)?;

        if self.notes.is_failing()
            && (!connect.clean_start || connect.properties.session_expiry > 0)
        {
            return Err(Refusal::StoreFailed.into());
        }
        let client_id: Box<str> = match connect.client_id {
            "" => self.assign_client_id(&self.username(token, connect)),
            id => id.into(),
        };
        let thing = principal.thing();
        let key = Arc::new(ClientKey {
            thing,
            client_id: client_id.clone(),
        });
        let lost = match connect.clean_start {
            true => Vec::new(),
            false => self.review(token, &key, &principal)?,
        };
        let member = match thing {
            Some(thing) => {
                let things = &self.shared.counts.things;
                let entered = things.enter(thing, self.takes_over(&key), self.now);
                entered.map_err(|_| Refusal::TooManyConnections)?
            }
            None => None,
        };
        let slot = self.claim(key, principal)?;
        self.withdraw(slot, lost);
        self.sessions[slot].claim = Some(token);

        let connection = &mut self.connections[token];
        connection.session = Some(slot);
        connection.will = will;
        connection.member = member;
        connection.answers = Vec::new();
        let Some(thing) = thing.filter(|_| self.shared.presence.is_some()) else {
            return Ok(Admitted::Unlisted);
        };
        let session = Arc::new(presence::Session {
            id: SessionId::generate(),
            thing,
            client_id,
            protocol: connect.protocol,
            peer: connection.peer,
        });
        connection.presence = Some(Arc::clone(&session));
        connection.stage = Stage::Arriving;
        self.arrivals.push((token, connection.generation));
        self.changes.push(Presence {
            session,
            change: Change::Arrived,
            at: Timestamp::now(),
        });
        Ok(Admitted::Arriving)
    }

    /// Who it is.
    fn principal(&mut self, token: usize, connect: &Connect<'_>) -> Result<Principal, Hold> {
        if let Some(open) = Open::by(self.shared.access_mode(&self.connections[token])) {
            return Ok(Principal::Anyone(open));
        }
        if !self.may_try(token, connect) {
            return Err(Refusal::TooManyFailedLogins.into());
        }
        let credentials = self.credentials(token, connect)?;
        let thing = self.authenticated(token, &credentials)?;
        self.login_succeeded(token, connect);
        let proof = credentials.proof;
        Ok(Principal::Thing { thing, proof })
    }

    /// What is to be believed of what a client says, and shows below MQTT, before its key is looked at.
    fn credentials(&self, token: usize, connect: &Connect<'_>) -> Result<Credentials, Refusal> {
        let said = credentials(connect);
        let connection = &self.connections[token];
        let Some(certificate) = connection.transport.client_certificate() else {
            return Ok(said);
        };
        // A certificate is bound to one thing: nobody is another one with it, or nobody at all.
        let named = certificates::thing(certificate).ok_or(Refusal::BadCredentials)?;
        match self.shared.listeners[connection.listener].certificate_login {
            CertificateLogin::WithKey if said.thing == Some(named) => Ok(said),
            CertificateLogin::InsteadOfKey
                if connect.username.is_none() || said.thing == Some(named) =>
            {
                Ok(Credentials {
                    thing: Some(named),
                    proof: Proof::Certificate,
                })
            }
            _ => Err(Refusal::BadCredentials),
        }
    }

    fn authenticated(
        &mut self,
        token: usize,
        credentials: &Credentials,
    ) -> Result<Authenticated, Hold> {
        match self.shared.gate.access.authenticate(credentials, self.now) {
            Verdict::Granted(thing) => return Ok(thing),
            Verdict::Denied => return Err(Refusal::BadCredentials.into()),
            Verdict::Unknown => {}
        }
        let access = &self.shared.gate.access;
        for answer in &self.connections[token].answers {
            match answer {
                // Something was revoked meanwhile, perhaps this: it is asked again.
                Answered::Identity(Ok(thing)) if !access.still_knows(thing) => {}
                Answered::Identity(identity) => {
                    return identity
                        .as_ref()
                        .copied()
                        .map_err(|error| Refusal::from(error).into());
                }
                Answered::Grant(..) => {}
            }
        }
        Err(self.ask(token, Question::Identify(credentials.clone())))
    }

    /// Asks on behalf of a CONNECT.
    pub(crate) fn ask(&mut self, token: usize, question: Question) -> Hold {
        match self.ask_for(token, question) {
            Ok(()) => Hold::Asked,
            Err(_) => Refusal::TooManyQuestions.into(),
        }
    }

    /// Asks on behalf of the packet that a connection has at the front of its input.
    pub(crate) fn ask_for(
        &mut self,
        token: usize,
        question: Question,
    ) -> Result<(), crate::gate::Busy> {
        let connection = &mut self.connections[token];
        let asker = Asker::Connection {
            token,
            generation: connection.generation,
        };
        self.shared.gate.ask(question, asker, &self.inbox)?;
        connection.waiting += 1;
        Ok(())
    }

    /// Has the packet at the front of the input tried again, as if nothing had been asked.
    pub(crate) fn retry_later(&mut self, token: usize) -> Flow {
        self.connections[token].answers = Vec::new();
        self.wait(token, RETRY_PAUSE)
    }

    pub(crate) fn on_answer(&mut self, answer: Answer) {
        match answer.asker {
            Asker::Connection { token, generation } => {
                let known = self.connections.get_mut(token);
                let Some(connection) = known.filter(|it| {
                    it.generation == generation && !matches!(it.stage, Stage::Closing { .. })
                }) else {
                    return;
                };
                connection.answers.push(answer.verdict);
                connection.waiting = connection.waiting.saturating_sub(1);
                if connection.waiting == 0 {
                    self.resume(token);
                }
            }
            Asker::Will(message) => match answer.verdict {
                Answered::Grant(_, _, Ok(_)) => self.publish_message(message),
                _ => self.shared.metrics.denied_wills.increment(1),
            },
            Asker::Doubt(doubt) => self.on_certainty(doubt, &answer.verdict),
        }
    }

    /// An id for a client that has none [MQTT5-3.1.3-6]. A client that returns with it must find its
    /// session, so this worker must be home to it.
    fn assign_client_id(&self, username: &str) -> Box<str> {
        loop {
            let id = format!("auto-{}", SessionId::generate());
            if self.shared.home(username, &id) == usize::from(self.id) {
                return id.into();
            }
        }
    }

    fn takes_over(&self, key: &ClientKey) -> bool {
        let session = self.directory.get(key).map(|&slot| &self.sessions[slot]);
        session.is_some_and(|it| it.connection.is_some() || it.claim.is_some())
    }

    /// The session of `key`, without the connection that had it [MQTT5-3.1.4-3], or a new one.
    fn claim(&mut self, key: Arc<ClientKey>, principal: Principal) -> Result<usize, Refusal> {
        if let Some(&slot) = self.directory.get(&key)
            && let Some(token) = self.sessions[slot].connection
        {
            self.hear_out(token);
        }
        if let Some(&slot) = self.directory.get(&key) {
            let session = &self.sessions[slot];
            for token in [session.connection, session.claim].into_iter().flatten() {
                self.end(token, Farewell::TakenOver);
            }
        }
        // The session may have ended with its connection.
        if let Some(&slot) = self.directory.get(&key) {
            let session = &mut self.sessions[slot];
            session.principal = principal;
            return Ok(slot);
        }
        if self.shared.counts.memory.is_short() {
            return Err(Refusal::MemoryShort);
        }
        let before = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        if before >= self.shared.config.max_sessions {
            self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::TooManySessions);
        }
        self.shared.metrics.sessions.increment(1.0);
        self.generation = self.generation.wrapping_add(1);
        let session = Session::new(Arc::clone(&key), self.generation, principal);
        let slot = self.sessions.insert(session);
        self.directory.insert(key, slot);
        Ok(slot)
    }

    /// The fate of the oldest batch of arrivals is known.
    pub(crate) fn on_kept(&mut self, arrivals: Arrivals) {
        let batch = self
            .batches
            .pop_front()
            .expect("invariant: one answer for each batch");
        for (token, generation) in batch {
            let known = self.connections.get(token);
            if !known.is_some_and(|it| it.generation == generation && it.stage == Stage::Arriving) {
                continue;
            }
            match arrivals {
                Arrivals::Kept => self.on_arrival(token),
                Arrivals::Full => self.turn_back(token, Refusal::JournalFull),
                Arrivals::Failed => self.turn_back(token, Refusal::JournalFailed),
            }
        }
    }

    /// The arrival was not kept, so it has not happened: nothing will be said of a departure.
    fn turn_back(&mut self, token: usize, refusal: Refusal) {
        let connection = &mut self.connections[token];
        connection.will = None;
        connection.member = None;
        let session = connection.presence.take().expect("invariant: arriving");
        let slot = connection.session.take().expect("invariant: arriving");
        self.leave_session(slot, token, Farewell::Disconnected, None);
        self.refuse(token, session.protocol, refusal);
    }

    /// The arrival is kept: the client may hear of it.
    fn on_arrival(&mut self, token: usize) {
        let mut input = std::mem::take(&mut self.connections[token].input);
        let (connect, len) = match codec::decode(&input, None, self.limit(&self.connections[token]))
        {
            Ok(Some((Packet::Connect(connect), len))) => (connect, len),
            other => unreachable!("invariant: the CONNECT is at the front, not {other:?}"),
        };
        self.welcome(token, &connect);
        self.tally.packets_received += 1;
        self.tally.bytes_received += len as u64;
        input.drain(..len);
        self.connections[token].input = if input.is_empty() { Vec::new() } else { input };
        self.resume(token);
    }

    /// The session begins or goes on.
    fn welcome(&mut self, token: usize, connect: &Connect<'_>) {
        let slot = self.connections[token]
            .session
            .expect("invariant: admitted");
        let present = self.begin_session(slot, token, connect);
        self.begin_connection(token, connect);
        self.greet_back(slot, token, connect, present);
        if present {
            self.review_sys(slot);
            self.catch_up(slot);
            self.replay(slot);
        }
    }

    /// Returns whether there is an earlier state that goes on.
    fn begin_session(&mut self, slot: usize, token: usize, connect: &Connect<'_>) -> bool {
        if connect.clean_start {
            if self.sessions[slot].number.is_some() {
                // To be let in is to hear that nothing is left of it.
                self.promise_after(token);
            }
            self.reset_session(slot);
        }
        let expiry = self.shared.session_expiry(connect);
        let session = &mut self.sessions[slot];
        let present = session.resumable;
        session.claim = None;
        session.connection = Some(token);
        session.resumable = true;
        // The client is back before its will was due [MQTT5-3.1.3-9].
        session.testament = None;
        session.expiry = expiry;
        let receive_maximum = connect.properties.receive_maximum;
        session.window.resume(
            receive_maximum.min(self.shared.config.max_inflight),
            self.shared.session_queue_bytes,
        );
        if session.protocol.replace(connect.protocol) != Some(connect.protocol) {
            let mut subscriptions = std::mem::take(&mut session.subscriptions);
            for (filter, terms) in &mut subscriptions {
                terms.protocol = connect.protocol;
                self.route_to(slot, filter, *terms);
            }
            self.sessions[slot].subscriptions = subscriptions;
        }
        self.note_gone(slot);
        self.note_connected(slot, token);
        self.set_availability(slot);
        present
    }

    fn begin_connection(&mut self, token: usize, connect: &Connect<'_>) {
        let connection = &mut self.connections[token];
        connection.stage = Stage::Live;
        connection.transport.welcome();
        self.shared.board.on_arrival();
        connection.protocol = Some(connect.protocol);
        let aliases = connect.properties.topic_alias_maximum;
        let aliases = aliases.min(self.shared.config.max_topic_alias_out);
        connection.outgoing_aliases = (aliases > 0).then(|| Box::new(Aliases::new(aliases)));
        connection.heard = self.tick;
        let keep_alive = self.shared.keep_alive(connect);
        if keep_alive == 0 {
            connection.patience = 0;
            connection.timer = 0;
        } else {
            // One and a half times the keep-alive [MQTT5-3.1.2-22].
            let patience = Duration::from_millis(u64::from(keep_alive) * 1500);
            connection.patience = ticks(patience);
            self.set_timer(token, ticks(patience));
        }
    }
}

/// The id of a thing as user name and its key as password. Anything else is nobody, which is found out in
/// the same way as that a key is wrong.
fn credentials(connect: &Connect<'_>) -> Credentials {
    let key = String::from_utf8_lossy(connect.password.unwrap_or_default());
    Credentials {
        thing: connect.username.and_then(|name| name.parse().ok()),
        proof: Proof::Key(Secret::new(key)),
    }
}
