//! Retained messages for new subscriptions: as many at a time as a client takes, so that a filter may find
//! more of them than may wait for anybody.
//!
//! What is retained is looked up when it is sent, so a change that comes in between is not followed by what
//! was before it.

use std::sync::Arc;

use rollcall_domain::topic::TopicFilter;

use crate::packet::QoS;
use crate::retained::Branch;
use crate::route::{Terms, Via};
use crate::window::Queued;
use crate::worker::Worker;

/// Bytes that are sent before the client is to have read them.
const AT_ONCE: usize = 64 * 1024;
/// QoS 1 and 2 messages that may wait behind a full window: live ones may keep it full.
const WAITING: usize = 16;

/// A subscription whose retained messages are being sent.
#[derive(Debug)]
pub(crate) struct Replay {
    filter: Box<str>,
    qos: QoS,
    via: Option<Arc<Via>>,
    /// What was sent last.
    after: Option<Branch>,
}

impl Replay {
    pub(crate) fn new(filter: TopicFilter<'_>, terms: &Terms) -> Self {
        Self {
            filter: filter.as_str().into(),
            qos: terms.qos,
            via: Via::of(terms),
            after: None,
        }
    }
}

impl Worker {
    /// Sends retained messages that are due, if the client has room for them.
    pub(crate) fn replay(&mut self, slot: usize) {
        let Some(token) = self.sessions[slot].connection else {
            return;
        };
        while let Some(replay) = self.sessions[slot].replays.pop_front() {
            if self.effort == 0 {
                // Others have their turn before it goes on.
                self.sessions[slot].replays.push_front(replay);
                self.replay_soon(token);
                break;
            }
            let (count, bytes) = self.room_for(slot, token, replay.qos);
            if count == 0 || bytes == 0 {
                self.sessions[slot].replays.push_front(replay);
                break;
            }
            let filter = TopicFilter::parse(&replay.filter).expect("invariant: granted");
            let retained = &self.shared.retained;
            let after = replay.after.as_ref();
            let (mut found, next) =
                retained.matching(filter, after, self.now, count, bytes, &mut self.effort);
            if next.is_none() {
                found.extend(self.shared.board.matching(filter));
            }
            for message in found {
                let queued = Queued {
                    qos: message.qos.min(replay.qos),
                    message,
                    retain: true,
                    via: replay.via.clone(),
                };
                let queued = self.note_waiting(slot, queued);
                self.send_message(slot, queued);
                if self.sessions[slot].overflowed {
                    return;
                }
            }
            if next.is_some() {
                let replay = Replay {
                    after: next,
                    ..replay
                };
                self.sessions[slot].replays.push_front(replay);
            }
        }
        self.connections[token].replays = !self.sessions[slot].replays.is_empty();
    }

    /// How many messages and bytes may be sent now.
    fn room_for(&self, slot: usize, token: usize, qos: QoS) -> (usize, usize) {
        let unread = self.connections[token].outbox.len();
        let bytes = AT_ONCE.min(self.max_unread / 2).saturating_sub(unread);
        if qos == QoS::AtMostOnce {
            return (usize::MAX, bytes);
        }
        let waiting = WAITING.min(self.shared.config.session_queue_messages / 2);
        let window = &self.sessions[slot].window;
        let room = i64::from(window.room()) + waiting as i64;
        // The window may be closed for bytes, so that what is sent waits.
        let free = (self.shared.session_queue_bytes / 2).saturating_sub(window.queued_bytes());
        (usize::try_from(room).unwrap_or(0), bytes.min(free))
    }

    pub(crate) fn replay_soon(&mut self, token: usize) {
        if !std::mem::replace(&mut self.connections[token].replaying, true) {
            self.replaying.push(token);
        }
    }

    /// Goes on with those who have read what there was, as far as it goes in this turn.
    pub(crate) fn replay_more(&mut self) {
        let mut due = std::mem::take(&mut self.replaying).into_iter();
        while self.effort > 0
            && let Some(token) = due.next()
        {
            let Some(connection) = self.connections.get_mut(token) else {
                continue;
            };
            connection.replaying = false;
            if connection.replays
                && let Some(slot) = connection.session
            {
                self.replay(slot);
            }
            if self.turn.is_full() {
                self.flush();
            }
        }
        self.replaying.splice(0..0, due);
    }

    /// A subscription is over, or another one has its place.
    pub(crate) fn forget_replay(&mut self, slot: usize, filter: &str) {
        let replays = &mut self.sessions[slot].replays;
        replays.retain(|replay| *replay.filter != *filter);
    }
}
