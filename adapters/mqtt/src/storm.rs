//! A storm of connections: turns are spaced out, so that each has some of them to deal with.
//!
//! Otherwise a worker wakes up and falls asleep for each packet of a greeting, which costs more than the
//! greeting itself.

use std::time::{Duration, Instant};

/// The least time between the beginnings of turns in a storm.
const SPACING: Duration = Duration::from_micros(500);
/// Connections that come closer together are a storm.
const CLOSE: Duration = Duration::from_millis(1);

pub(crate) struct Storm {
    turn: Instant,
    /// When the last turn with connections to accept began.
    connections: Instant,
    raging: bool,
}

impl Storm {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            turn: now,
            connections: now,
            raging: false,
        }
    }

    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.turn = now;
        self.raging = false;
    }

    /// There are connections to accept in this turn.
    pub(crate) fn on_connections(&mut self) {
        self.raging = self.turn - self.connections < CLOSE;
        self.connections = self.turn;
    }

    /// How long to let work gather before the next turn.
    pub(crate) fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = (self.turn + SPACING).checked_duration_since(now);
        rest.filter(|_| self.raging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_in_a_storm_are_spaced_out() {
        let start = Instant::now();
        let mut storm = Storm::new(start);
        let mut turn = |micros, connections: bool| {
            let now = start + Duration::from_micros(micros);
            storm.begin_turn(now);
            if connections {
                storm.on_connections();
            }
            storm.rest(now + Duration::from_micros(100))
        };
        let spaced = Some(Duration::from_micros(400));
        assert_eq!(turn(5000, true), None, "the first");
        assert_eq!(turn(5100, false), None);
        assert_eq!(turn(5200, true), spaced, "soon after it");
        assert_eq!(turn(5700, true), spaced);
        assert_eq!(turn(6200, false), None, "nobody came");
        assert_eq!(turn(7000, true), None, "the storm is over");
    }
}
