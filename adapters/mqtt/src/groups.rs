//! Shared subscriptions: groups whose members share out the messages of a filter [MQTT5-4.8.2].

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::packet::QoS;
use crate::route::{Receiver, SessionRef};

/// All who named the same filter `$share/{name}/{topics}`.
#[derive(Debug)]
pub(crate) struct Group {
    filter: Box<str>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) receiver: Receiver,
    pub(crate) availability: Arc<Availability>,
}

/// Who may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Who can send it on at once.
    Free,
    Connected,
    /// Also those who are away, if nobody else is there.
    Anyone,
}

impl Group {
    pub(crate) fn new(filter: &str) -> Self {
        Self {
            filter: filter.into(),
            members: Mutex::default(),
        }
    }

    /// `$share/{name}/{topics}`.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members
            .lock()
            .expect("invariant: no panic under the lock")
    }

    /// Adds a member, or replaces what its session had here.
    pub(crate) fn join(&self, member: Member) {
        let mut members = self.members();
        let member = Arc::new(member);
        let session = member.receiver.session;
        let known = members
            .list
            .iter_mut()
            .find(|known| known.receiver.session == session);
        match known {
            Some(known) => *known = member,
            None => members.list.push(member),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members().list.len()
    }

    pub(crate) fn leave(&self, session: SessionRef) {
        let mut members = self.members();
        members
            .list
            .retain(|member| member.receiver.session != session);
    }

    /// Who is to have a message that was published at `qos`, and is expected to have it from now on: those
    /// who can send it on at once take turns; if none can, the one with the fewest to send.
    pub(crate) fn choose(&self, qos: QoS, whom: Whom) -> Option<Arc<Member>> {
        let mut members = self.members();
        let count = members.list.len();
        let mut places = (0..count).map(|n| (members.next + n) % count);
        if let Some(place) = places.find(|&place| members.list[place].is_free(qos)) {
            members.next = place + 1;
            let member = &members.list[place];
            member.expect(qos);
            return Some(Arc::clone(member));
        }
        if whom == Whom::Free {
            return None;
        }
        let able = members.list.iter().filter(|it| it.takes(qos, whom));
        let member = able.max_by_key(|member| {
            let availability = &member.availability;
            (availability.is_connected(), availability.room())
        })?;
        member.expect(qos);
        Some(Arc::clone(member))
    }
}

impl Member {
    /// At which QoS it gets what was published at `qos`.
    pub(crate) fn qos(&self, qos: QoS) -> QoS {
        qos.min(self.receiver.terms.qos)
    }

    /// Whether a message would be sent on at once.
    fn is_free(&self, qos: QoS) -> bool {
        let (availability, qos) = (&self.availability, self.qos(qos));
        availability.reach() == Reach::Ready && (qos == QoS::AtMostOnce || availability.room() > 0)
    }

    fn takes(&self, qos: QoS, whom: Whom) -> bool {
        let (availability, qos) = (&self.availability, self.qos(qos));
        if qos == QoS::AtMostOnce {
            return availability.is_connected();
        }
        (whom == Whom::Anyone || availability.is_connected())
            && !availability.full.load(Ordering::Relaxed)
    }

    fn expect(&self, qos: QoS) {
        if self.qos(qos) != QoS::AtMostOnce {
            self.availability.room.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What it was chosen for does not come.
    pub(crate) fn expect_no_more(&self, qos: QoS) {
        if self.qos(qos) != QoS::AtMostOnce {
            self.availability.room.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a session can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reach {
    Absent,
    /// Connected, but it leaves much unread.
    Congested,
    Ready,
}

/// How a session stands, for those who choose among members, on any worker. Only the worker that owns the
/// session changes it, but for messages that others send on their way.
#[derive(Debug, Default)]
pub(crate) struct Availability {
    reach: AtomicU8,
    /// QoS 1 and 2 messages that can be sent before others have to wait; below 0, how many wait. Those that
    /// are on their way from other workers count already.
    room: AtomicI32,
    /// `room` as the owner knows it: without those that are on their way.
    known: AtomicI32,
    /// Its queue takes no more.
    full: AtomicBool,
}

impl Availability {
    fn reach(&self) -> Reach {
        match self.reach.load(Ordering::Relaxed) {
            0 => Reach::Absent,
            1 => Reach::Congested,
            _ => Reach::Ready,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.reach() != Reach::Absent
    }

    fn room(&self) -> i32 {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reach(&self, reach: Reach) {
        self.reach.store(reach as u8, Ordering::Relaxed);
    }

    /// A message for which the session was chosen is here.
    pub(crate) fn on_arrival(&self) {
        self.known.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells others what room there is now.
    pub(crate) fn settle(&self, room: i32) {
        let known = self.known.swap(room, Ordering::Relaxed);
        if known != room {
            self.room
                .fetch_add(room.wrapping_sub(known), Ordering::Relaxed);
        }
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rollcall_domain::presence::Protocol;

    use super::*;
    use crate::route::Terms;

    /// A group of sessions with this room each.
    fn group(rooms: &[i32]) -> (Group, Vec<Arc<Availability>>) {
        let group = Group::new("$share/g/a");
        let mut all = Vec::new();
        for (slot, &room) in rooms.iter().enumerate() {
            let availability = Arc::new(Availability::default());
            availability.set_reach(Reach::Ready);
            availability.settle(room);
            all.push(Arc::clone(&availability));
            let session = SessionRef {
                worker: 0,
                slot: slot as u32,
                generation: 0,
            };
            let terms = Terms {
                protocol: Protocol::Mqtt5,
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                identifier: None,
                number: None,
            };
            let receiver = Receiver {
                session,
                terms,
                via: None,
            };
            group.join(Member {
                receiver,
                availability,
            });
        }
        (group, all)
    }

    /// Who is chosen for so many messages.
    fn chosen(group: &Group, count: usize, qos: QoS, whom: Whom) -> Vec<Option<u32>> {
        let choose = |_| group.choose(qos, whom).map(|it| it.receiver.session.slot);
        (0..count).map(choose).collect()
    }

    const ONE: QoS = QoS::AtLeastOnce;

    #[test]
    fn members_take_turns_and_who_has_no_room_is_passed_over() {
        let (group, all) = group(&[9, 2, 9]);
        let turns = chosen(&group, 8, ONE, Whom::Anyone);
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 2].map(Some));
        all[0].set_reach(Reach::Congested);
        all[2].set_reach(Reach::Absent);
        all[1].on_arrival();
        all[1].on_arrival();
        all[1].settle(1);
        assert_eq!(chosen(&group, 1, ONE, Whom::Anyone), [Some(1)]);
        // QoS 0 needs no room in the window.
        assert_eq!(
            chosen(&group, 2, QoS::AtMostOnce, Whom::Anyone),
            [Some(1); 2]
        );
    }

    #[test]
    fn when_nobody_has_room_the_shortest_queue_grows() {
        let (group, all) = group(&[0, -3, -1]);
        let turns = chosen(&group, 5, ONE, Whom::Anyone);
        assert_eq!(turns, [0, 2, 0, 2, 0].map(Some));
        all[0].set_full(true);
        all[2].set_full(true);
        assert_eq!(chosen(&group, 1, ONE, Whom::Anyone), [Some(1)]);
        all[1].set_full(true);
        assert_eq!(chosen(&group, 1, ONE, Whom::Anyone), [None]);
    }

    #[test]
    fn nobody_is_free_who_would_let_it_wait() {
        let (group, _) = group(&[1, 0]);
        let turns = chosen(&group, 2, ONE, Whom::Free);
        assert_eq!(turns, [Some(0), None]);
    }

    #[test]
    fn those_who_are_away_are_chosen_if_nobody_is_there() {
        let (group, all) = group(&[5, -7]);
        all[0].set_reach(Reach::Absent);
        assert_eq!(chosen(&group, 1, ONE, Whom::Connected), [Some(1)]);
        assert_eq!(chosen(&group, 1, ONE, Whom::Anyone), [Some(1)]);
        all[1].set_reach(Reach::Absent);
        assert_eq!(chosen(&group, 1, ONE, Whom::Connected), [None]);
        assert_eq!(chosen(&group, 1, ONE, Whom::Anyone), [Some(0)]);
        assert_eq!(chosen(&group, 1, QoS::AtMostOnce, Whom::Anyone), [None]);
    }
}
