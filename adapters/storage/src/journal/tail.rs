//! The latest events in memory: who follows the journal closely reads nothing from disk.

use std::collections::VecDeque;

use rollcall_domain::presence::Presence;

/// Events that are kept here, but for a group that is larger itself.
const MAX_EVENTS: usize = 4096;

#[derive(Default)]
pub(super) struct Tail {
    /// Groups without a gap between them, each with the position of its first event.
    groups: VecDeque<(u64, Vec<Presence>)>,
    events: usize,
}

impl Tail {
    /// Adds a group that was committed; `first` follows what was added last.
    pub(super) fn push(&mut self, first: u64, group: Vec<Presence>) {
        self.events += group.len();
        self.groups.push_back((first, group));
        while self.events > MAX_EVENTS
            && self.groups.len() > 1
            && let Some((_, oldest)) = self.groups.pop_front()
        {
            self.events -= oldest.len();
        }
    }

    /// Forgets the groups with no event after `upto`, as they are no longer in the journal either.
    pub(super) fn forget(&mut self, upto: u64) {
        while let Some((first, oldest)) = self.groups.front()
            && *first + oldest.len() as u64 <= upto + 1
        {
            self.events -= oldest.len();
            self.groups.pop_front();
        }
    }

    /// Up to `limit` events after `position`; `None` if some of them are no longer here.
    pub(super) fn read(&self, position: u64, limit: usize) -> Option<Vec<(u64, Presence)>> {
        let (oldest, _) = self.groups.front()?;
        if position + 1 < *oldest {
            return None;
        }
        let begin = self.groups.partition_point(|(first, _)| *first <= position);
        let events = self.groups.range(begin.saturating_sub(1)..);
        let events = events.flat_map(|(first, group)| (*first..).zip(group));
        let events = events.skip_while(|(at, _)| *at <= position).take(limit);
        Some(events.map(|(at, event)| (at, event.clone())).collect())
    }
}
