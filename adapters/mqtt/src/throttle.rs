//! What happens to clients that want too much: they wait, or are told so.

use std::time::Duration;

use rollcall_domain::presence::Farewell;

use crate::agenda::Timer;
use crate::limits::RateAction;
use crate::packet::{Connect, Publish};
use crate::reason::{self, Refusal};
use crate::timers::ticks;
use crate::worker::{Flow, Worker};

impl Worker {
    /// Takes a place among the connections of an address, as soon as it is known: with a PROXY header that is
    /// what the header says. Programs of this machine need none. Without one the connection is closed unread
    /// and counted.
    pub(crate) fn take_seat(&mut self, token: usize) -> bool {
        let connection = &mut self.connections[token];
        let Some(address) = connection.peer.ip() else {
            return true;
        };
        let allowance = self.shared.listeners[connection.listener].per_address;
        match self
            .shared
            .counts
            .addresses
            .enter(address, allowance, self.now)
        {
            Ok(seat) => {
                connection.seat = seat;
                true
            }
            Err(why) => {
                self.shared.metrics.turned_away_for(why).increment(1);
                self.remove(token);
                false
            }
        }
    }

    /// Whether a CONNECT may be looked at: nobody is heard for a name while an answer to an earlier guess
    /// at it waits.
    pub(crate) fn may_try(&self, token: usize, connect: &Connect<'_>) -> bool {
        let Some(address) = self.connections[token].peer.ip() else {
            return true;
        };
        let name = connect.username.unwrap_or("");
        self.shared.counts.logins.may_try(address, name, self.now)
    }

    pub(crate) fn login_succeeded(&self, token: usize, connect: &Connect<'_>) {
        if let Some(address) = self.connections[token].peer.ip() {
            let name = connect.username.unwrap_or("");
            self.shared.counts.logins.succeeded(address, name, self.now);
        }
    }

    /// Refuses credentials: at once, or late if there were many like these.
    pub(crate) fn refuse_login(&mut self, token: usize, connect: &Connect<'_>) -> Flow {
        let name = connect.username.unwrap_or("");
        // Who names nothing or shows no key guesses nothing.
        let guess = connect.username.is_some() && connect.password.is_some();
        let delay = match self.connections[token].peer.ip() {
            Some(address) if guess => self.shared.counts.logins.failed(address, name, self.now),
            _ => Duration::ZERO,
        };
        if delay.is_zero() {
            return self.refuse(token, connect.protocol, Refusal::BadCredentials);
        }
        self.shared.metrics.failed_logins_delayed.increment(1);
        let connection = &mut self.connections[token];
        connection.sentence = Some((connect.protocol, Refusal::BadCredentials));
        // Nothing else is read; of what was read nothing is kept.
        connection.waiting = 1;
        connection.answers = Vec::new();
        // The tick that goes on now does not count.
        self.set_timer(token, ticks(delay).saturating_add(1));
        Flow::Over
    }

    /// Answers a CONNECT whose answer had to wait.
    pub(crate) fn pronounce(&mut self, token: usize) {
        if let Some((protocol, refusal)) = self.connections[token].sentence.take() {
            self.refuse(token, protocol, refusal);
        }
    }

    /// The thing has published more than it may: its messages wait in its socket, or it is sent away.
    #[cold]
    pub(crate) fn slow_down(&mut self, token: usize, wait: Duration) -> Flow {
        match self.shared.config.limits.rate_action {
            RateAction::Delay => {
                self.shared.metrics.publishes_delayed.increment(1);
                self.wait(token, wait)
            }
            RateAction::Disconnect => {
                let code = reason::MESSAGE_RATE_TOO_HIGH;
                self.end_with(token, Farewell::RateExceeded, code);
                Flow::Over
            }
        }
    }

    /// Has the packet at the front of the input looked at again after a while.
    pub(crate) fn wait(&mut self, token: usize, time: Duration) -> Flow {
        let connection = &mut self.connections[token];
        if connection.waiting == 0 {
            connection.waiting = 1;
            let generation = connection.generation;
            let tick = self.tick.saturating_add(ticks(time));
            self.timers.set(tick, Timer::Retry { token, generation });
        }
        Flow::Wait
    }

    /// A topic that is too long or too deep, though not malformed. In 3.1.1 the message is acknowledged and goes
    /// nowhere, like one that is denied [MQTT-3.3.5-2]: hanging up would only bring it back.
    #[cold]
    pub(crate) fn refuse_topic(&mut self, token: usize, publish: &Publish<'_>) -> Flow {
        self.shared.metrics.topics_refused.increment(1);
        self.answer_publish(token, publish, reason::TOPIC_NAME_INVALID)
    }
}
