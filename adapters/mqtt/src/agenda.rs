//! What a worker does later: its timers, and whether what they were set for is still to come.

use std::time::Duration;

use rollcall_domain::presence::Farewell;

use crate::connection::Stage;
use crate::revocation::Doubt;
use crate::timers::{Tick, ticks};
use crate::transport::Fault;
use crate::worker::Worker;

pub(crate) enum Timer {
    /// The door may be tried again.
    Accept {
        door: usize,
    },
    Connection {
        token: usize,
        generation: u32,
    },
    /// The packet that waits may be tried again.
    Retry {
        token: usize,
        generation: u32,
    },
    SessionExpiry {
        slot: usize,
        generation: u32,
        departures: u32,
    },
    Testament {
        slot: usize,
        generation: u32,
        number: u32,
    },
    /// What has expired is purged.
    Purge,
    /// More of those who are to go have their turn.
    Drain,
    /// `$SYS` topics are published.
    Sys,
    /// The things service may be asked again.
    Doubt(Doubt),
    /// A few sessions are looked at again.
    Round,
}

impl Worker {
    pub(crate) fn fire(&mut self) {
        for (due, timer) in self.timers.pop(self.now) {
            if !self.awaits(due, &timer) {
                continue;
            }
            if due > self.tick {
                self.timers.set(due, timer);
                continue;
            }
            match timer {
                Timer::Accept { door } => self.accepting.push(door),
                Timer::Drain => self.go_on_stopping(),
                Timer::Connection { token, .. } => self.on_timer(token),
                Timer::Retry { token, .. } => {
                    self.connections[token].waiting = 0;
                    self.resume(token);
                }
                Timer::SessionExpiry { slot, .. } if self.sessions[slot].claim.is_some() => {
                    self.timers.set(self.tick.saturating_add(1), timer);
                }
                Timer::SessionExpiry { slot, .. } => self.expire(slot),
                Timer::Testament { slot, .. } => self.publish_testament(slot),
                Timer::Purge => self.purge(),
                Timer::Sys => self.publish_sys(),
                Timer::Doubt(doubt) => self.ask_about(doubt),
                Timer::Round => self.go_round(),
            }
        }
    }

    /// Whether what a timer was set for is still to come.
    fn awaits(&self, due: Tick, timer: &Timer) -> bool {
        match *timer {
            Timer::Purge | Timer::Sys | Timer::Round => !self.stopping,
            Timer::Drain => self.drain.is_some(),
            Timer::Accept { door } => door < self.doors.len(),
            Timer::Doubt(ref doubt) => self.awaits_doubt(doubt),
            Timer::Connection { token, generation } => self
                .connections
                .get(token)
                .is_some_and(|it| it.generation == generation && it.timer == due),
            Timer::Retry { token, generation } => self
                .connections
                .get(token)
                .is_some_and(|it| it.generation == generation),
            Timer::SessionExpiry {
                slot,
                generation,
                departures,
            } => self.sessions.get(slot).is_some_and(|it| {
                it.generation == generation
                    && it.departures == departures
                    && it.connection.is_none()
            }),
            Timer::Testament {
                slot,
                generation,
                number,
            } => self.sessions.get(slot).is_some_and(|it| {
                let testament = it.testament.as_ref();
                it.generation == generation && testament.is_some_and(|it| it.number == number)
            }),
        }
    }

    fn on_timer(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        match connection.stage {
            Stage::Greeting if connection.sentence.is_some() => self.pronounce(token),
            Stage::Greeting => {
                self.shared.metrics.greetings_timed_out.increment(1);
                if connection.proxy_header.is_some() || connection.transport.is_handshaking() {
                    self.shared.listeners[connection.listener].count(Fault::Timeout);
                }
                self.remove(token);
            }
            Stage::Closing { .. } => self.remove(token),
            // The journal answers, sooner or later.
            Stage::Arriving => self.set_timer(token, ticks(Duration::from_secs(1))),
            Stage::Live if connection.patience == 0 => {}
            Stage::Live => {
                if connection.waiting > 0 || connection.readable {
                    // Not heard because not listened to: its packet waits, or what it sent is not read yet
                    // since other workers or the disk are behind.
                    connection.heard = self.tick;
                }
                let left = (connection.heard + connection.patience).saturating_sub(self.tick);
                if left == 0 {
                    return self.end(token, Farewell::KeepAliveTimeout);
                }
                self.set_timer(token, left);
            }
        }
    }

    /// Sets the one timer of a connection, `after` so many ticks.
    pub(crate) fn set_timer(&mut self, token: usize, after: Tick) {
        let connection = &mut self.connections[token];
        let tick = self.tick.saturating_add(after);
        connection.timer = tick;
        let generation = connection.generation;
        self.timers
            .set(tick, Timer::Connection { token, generation });
    }
}
