//! What waits for clients, counted; and who has to go when there is too much of it.
//!
//! First slow readers get no more QoS 0. If that is not enough, sessions end, the largest first: its client is
//! told (0x97), or finds no session when it comes back. So nothing that was acknowledged is lost in
//! silence, publishers are not held up by those who do not read, and who reads loses nothing.

use crate::connection::{Connection, Stage};
use crate::inbox::Mail;
use crate::outbox::TURN_BYTES;
use crate::worker::Worker;

/// With more unread than this a client is slow: more than one turn brings to one that keeps up.
const SLOW: usize = TURN_BYTES + 64 * 1024;

/// A CONNECT that is as long as most: ids, a key, a short will.
const PLAIN_CONNECT: u32 = 8 * 1024;

impl Worker {
    /// The largest packet at this moment: strangers are given less room while memory is short.
    #[inline]
    pub(crate) fn limit_now(&self, connection: &Connection) -> u32 {
        let most = self.limit(connection);
        if connection.protocol.is_none() && self.shared.counts.memory.is_short() {
            return most.min(PLAIN_CONNECT);
        }
        most
    }

    /// How much of QoS 0 a client may leave unread in this turn.
    pub(crate) fn tighten(&mut self) {
        let most = self.shared.session_queue_bytes;
        let counts = &self.shared.counts;
        self.max_unread = if counts.memory.is_short() || counts.queues.is_tight() {
            most.min(SLOW)
        } else {
            most
        };
    }

    /// Counts what a connection has left from earlier turns. Of one that is over nothing counts: it is gone
    /// in a moment.
    #[inline]
    pub(crate) fn count_unread(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        let over = matches!(connection.stage, Stage::Closing { .. });
        let bytes = if over { 0 } else { connection.outbox.len() };
        let before = std::mem::replace(&mut connection.counted, bytes);
        self.queued = self.queued + bytes - before;
    }

    /// Counts what waits for a session.
    pub(crate) fn count_queued(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        let bytes = session.window.bytes();
        let before = std::mem::replace(&mut session.counted, bytes);
        self.queued = self.queued + bytes - before;
        let messages = session.window.queued();
        let before = std::mem::replace(&mut session.counted_messages, messages);
        if messages != before {
            self.shared.board.on_queue(before, messages);
        }
    }

    /// Says what waits here, if that is news.
    #[inline]
    pub(crate) fn report_queued(&mut self) {
        if self.queued != self.reported {
            self.reported = self.queued;
            let queues = &self.shared.counts.queues;
            queues.report(usize::from(self.id), self.queued);
        }
    }

    /// Has sessions ended if too much waits everywhere: on the worker that has most of it.
    #[inline]
    pub(crate) fn make_room(&mut self) {
        let queues = &self.shared.counts.queues;
        if queues.excess().is_none() {
            return;
        }
        match queues.heaviest() {
            own if own == usize::from(self.id) => self.shed(),
            other => self.shared.inboxes[other].post(Mail::Shed),
        }
    }

    /// Ends the largest sessions here, until there is room.
    #[cold]
    pub(crate) fn shed(&mut self) {
        let Some(mut excess) = self.shared.counts.queues.excess() else {
            return;
        };
        let mut loads: Vec<(usize, usize)> = self
            .sessions
            .iter()
            .map(|(slot, session)| {
                let unread = session.connection.map(|it| self.connections[it].counted);
                (session.counted + unread.unwrap_or(0), slot)
            })
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        loads.sort_unstable_by(|one, other| other.cmp(one));
        for (bytes, slot) in loads {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            self.shared.metrics.sessions_shed.increment(1);
            self.discard(self.session_ref(slot));
        }
        self.report_queued();
    }
}
