//! Every way a connection ends, and what is left of its session.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_domain::identity::Timestamp;
use rollcall_domain::presence::{Change, Farewell, Presence, Protocol};
use rollcall_domain::topic::SubscriptionFilter;

use crate::agenda::Timer;
use crate::codec::{self, DisconnectProperties, Fault};
use crate::connection::{Stage, Will};
use crate::packet::Disconnect;
use crate::reason;
use crate::session::{Expiry, Testament};
use crate::timers::ticks;
use crate::worker::{Flow, Worker};

impl Worker {
    /// Ends a connection, whatever stage it is in. Whoever was admitted leaves the roll, once.
    pub(crate) fn end(&mut self, token: usize, farewell: Farewell) {
        self.end_with(token, farewell, reason::disconnect(farewell));
    }

    /// Like [`Worker::end`], with a reason code of its own for the client.
    pub(crate) fn end_with(&mut self, token: usize, farewell: Farewell, code: u8) {
        self.end_because(token, farewell, code, None);
    }

    /// Like [`Worker::end_with`], and says why.
    pub(crate) fn end_because(
        &mut self,
        token: usize,
        farewell: Farewell,
        code: u8,
        why: Option<&str>,
    ) {
        let connection = &mut self.connections[token];
        let was = connection.stage;
        if matches!(was, Stage::Closing { .. }) {
            // The client closed its side: nothing to wait for.
            return self.remove(token);
        }
        let told = was == Stage::Live
            && connection.protocol == Some(Protocol::Mqtt5)
            && !matches!(farewell, Farewell::Disconnected | Farewell::ConnectionLost);
        // A stop writes what waits; others who are not told anything get what the socket takes.
        let unread = farewell == Farewell::ServerShutdown && connection.outbox.len() > 0;
        connection.stage = Stage::Closing {
            linger: told || unread,
        };
        self.queued -= std::mem::take(&mut connection.counted);
        if was == Stage::Live {
            self.shared.board.on_departure();
        }
        connection.waiting = 0;
        connection.input = Vec::new();
        connection.member = None;
        if let Some(session) = connection.presence.take() {
            let change = Change::Left(farewell);
            self.changes.push(Presence {
                session,
                change,
                at: Timestamp::now(),
            });
        }
        let will = connection.will.take();
        if let Some(slot) = connection.session.take() {
            self.shared.metrics.sessions_ended[farewell as usize].increment(1);
            self.leave_session(slot, token, farewell, will);
        }
        if told {
            self.say_goodbye(token, code, why);
            self.linger(token);
        } else if unread {
            self.linger(token);
        } else if farewell == Farewell::ConnectionLost || self.connections[token].outbox.len() == 0
        {
            self.remove(token);
        }
        // Otherwise it is removed when the turn has written what it has.
    }

    fn say_goodbye(&mut self, token: usize, code: u8, why: Option<&str>) {
        let why = why.or(reason::explain(code));
        let why = why.filter(|_| self.connections[token].wants_reasons);
        let elsewhere = self.shared.server_reference();
        let elsewhere = elsewhere.filter(|_| reason::may_refer(code)).cloned();
        self.reply_within(token, |out, all| {
            let properties = DisconnectProperties {
                reason_string: why.filter(|_| all),
                server_reference: elsewhere.as_deref().filter(|_| all),
            };
            codec::disconnect(out, code, &properties);
        });
    }

    pub(crate) fn leave_session(
        &mut self,
        slot: usize,
        token: usize,
        farewell: Farewell,
        will: Option<Box<Will>>,
    ) {
        let session = &mut self.sessions[slot];
        if session.claim == Some(token) {
            session.claim = None;
            if session.connection.is_none() && !session.resumable {
                self.remove_session(slot);
            }
            return;
        }
        session.connection = None;
        session.departures = session.departures.wrapping_add(1);
        self.set_availability(slot);
        let session = &self.sessions[slot];
        let (generation, departures) = (session.generation, session.departures);
        let expiry = match session.expiry {
            // A session that missed messages must not look as if it had not.
            _ if farewell == Farewell::TooSlow => Duration::ZERO,
            Expiry::AtOnce => Duration::ZERO,
            Expiry::After(time) => time,
        };
        let mut waits = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(will.delay.into()).min(expiry);
            if delay.is_zero() {
                self.publish_will(slot, *will);
            } else {
                let tick = self.tick.saturating_add(ticks(delay));
                let testament = Testament {
                    message: will.message,
                    number: departures,
                };
                self.sessions[slot].testament = Some(testament);
                waits = Some(delay);
                self.timers.set(
                    tick,
                    Timer::Testament {
                        slot,
                        generation,
                        number: departures,
                    },
                );
            }
        }
        if expiry.is_zero() {
            self.remove_session(slot);
        } else {
            self.note_left(slot, expiry, waits);
            // When everybody leaves, everything stays where it is.
            if !self.stopping {
                self.share_queue(slot, None);
            }
            let tick = self.tick.saturating_add(ticks(expiry));
            self.timers.set(
                tick,
                Timer::SessionExpiry {
                    slot,
                    generation,
                    departures,
                },
            );
        }
    }

    pub(crate) fn publish_testament(&mut self, slot: usize) {
        if let Some(testament) = self.sessions[slot].testament.take() {
            self.note_will_gone(slot);
            self.publish_message(testament.message);
        }
    }

    pub(crate) fn expire(&mut self, slot: usize) {
        self.shared.metrics.sessions_expired.increment(1);
        self.shared.board.on_expiry();
        self.remove_session(slot);
    }

    /// Forgets a session. A will that was waiting is published now [MQTT5-3.1.2-8].
    pub(crate) fn remove_session(&mut self, slot: usize) {
        self.reset_session(slot);
        let session = self.sessions.remove(slot);
        self.directory.remove(&session.key);
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.sessions.decrement(1.0);
    }

    /// Forgets what a session holds, but not the session.
    pub(crate) fn reset_session(&mut self, slot: usize) {
        let me = self.session_ref(slot);
        let session = &mut self.sessions[slot];
        for (filter, _) in std::mem::take(&mut session.subscriptions) {
            if let Some(filter) = SubscriptionFilter::parse(&filter) {
                self.shared.router.unsubscribe(filter, me);
            }
        }
        if session.availability.is_some() {
            self.share_rest(slot);
        }
        let session = &mut self.sessions[slot];
        session.window = crate::window::Window::new();
        session.replays = VecDeque::new();
        session.received = Vec::new();
        session.resumable = false;
        session.overflowed = false;
        self.count_queued(slot);
        self.publish_testament(slot);
        self.note_ended(slot);
    }

    /// The client says goodbye.
    pub(crate) fn disconnect(&mut self, token: usize, disconnect: &Disconnect<'_>) -> Flow {
        let connection = &mut self.connections[token];
        if let (Some(seconds), Some(slot)) = (disconnect.session_expiry, connection.session) {
            let session = &mut self.sessions[slot];
            // A session that was to end with the connection cannot be kept after all [MQTT5-3.14.2.2.2].
            if session.expiry == Expiry::AtOnce && seconds > 0 {
                return self.violation(token, reason::PROTOCOL_ERROR);
            }
            session.expiry = self.shared.expiry(seconds);
        }
        if disconnect.reason == reason::SUCCESS {
            // A will is for who does not say goodbye, or says that it is none [MQTT5-3.14.4-3].
            connection.will = None;
        }
        self.end(token, Farewell::Disconnected);
        Flow::Over
    }

    /// The client broke the protocol: it is told how, and the connection is closed [MQTT5-4.13.1-1].
    pub(crate) fn violation(&mut self, token: usize, code: u8) -> Flow {
        self.violation_because(token, code, None)
    }

    /// Like [`Worker::violation`], and says why.
    pub(crate) fn violation_because(&mut self, token: usize, code: u8, why: Option<&str>) -> Flow {
        self.shared.metrics.violations.count(code);
        self.end_because(token, Farewell::ProtocolError, code, why);
        Flow::Over
    }

    /// The client sent bytes that are no packet, or a packet that may not be sent.
    pub(crate) fn on_fault(&mut self, token: usize, fault: Fault, input: &[u8]) {
        let connection = &self.connections[token];
        tracing::debug!(peer = %connection.peer, %fault, "cannot read a packet");
        if connection.stage != Stage::Greeting {
            self.violation_because(token, fault.reason(), Some(&fault.to_string()));
            return;
        }
        self.shared.metrics.faulty_greetings.increment(1);
        // Only who spoke MQTT gets an answer; what it is depends on the version asked for.
        match codec::refusal(fault, input) {
            Some((protocol, code)) => self.refuse_with(token, protocol, code, None, None),
            None => self.remove(token),
        }
    }
}
