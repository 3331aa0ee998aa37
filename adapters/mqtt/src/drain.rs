//! Stopping: nobody new comes in, and those who are here are seen out one after the other, so that they do
//! not all come to another server at once.
//!
//! Until its turn comes, a client is served as ever; told so it would have to go, since nothing may follow a
//! DISCONNECT [MQTT5-3.14.4-1].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rollcall_domain::presence::Farewell;

use crate::agenda::Timer;
use crate::connection::Stage;
use crate::worker::Worker;

/// Those who are still to go.
pub(crate) struct Drain {
    leaving: VecDeque<(usize, u32)>,
    total: usize,
    begin: Instant,
    /// How long it takes until the last one is told.
    spread: Duration,
}

impl Drain {
    /// How many should be gone at `now`.
    fn due(&self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.begin).as_millis();
        match self.spread.as_millis() {
            spread if passed >= spread => self.total,
            spread => (self.total as u128 * passed / spread) as usize,
        }
    }
}

impl Worker {
    /// Stops accepting, and begins to see everybody out. Told once more, it hurries.
    pub(crate) fn stop(&mut self, spread: Duration) {
        self.stopping = true;
        // Closed, they are no longer watched.
        self.doors.clear();
        self.accepting.clear();
        let leaving: VecDeque<_> = self
            .connections
            .iter()
            .map(|(token, it)| (token, it.generation))
            .collect();
        self.drain = Some(Drain {
            total: leaving.len(),
            leaving,
            begin: self.now,
            spread,
        });
        self.go_on_stopping();
    }

    /// Sees out those whose turn has come.
    pub(crate) fn go_on_stopping(&mut self) {
        let Some(drain) = &mut self.drain else {
            return;
        };
        let due = drain.due(self.now);
        let stay = drain.total - due;
        let mut gone: Vec<_> = drain.leaving.drain(..drain.leaving.len() - stay).collect();
        if stay == 0 {
            // Those who came meanwhile from another worker.
            let late = self.connections.iter();
            gone.extend(late.map(|(token, it)| (token, it.generation)));
        }
        for (token, generation) in gone {
            let known = self.connections.get(token);
            let here = known.is_some_and(|it| {
                it.generation == generation && !matches!(it.stage, Stage::Closing { .. })
            });
            if here {
                self.end(token, Farewell::ServerShutdown);
            }
        }
        if !self.connections.is_empty() {
            self.timers.set(self.tick.saturating_add(1), Timer::Drain);
        }
    }
}
