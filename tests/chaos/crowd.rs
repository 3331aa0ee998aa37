//! Thousands of clients on one thread, and what they have seen: when each was let in, when its socket ended, and
//! who ended it.

mod letters;
mod visit;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::watch;

use crate::dice::Dice;
use crate::world::Thing;
pub(crate) use letters::Post;

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said DISCONNECT.
    Goodbye,
    /// The client closed it.
    Closed,
    /// The client reset it.
    Reset,
    /// The client got no answer, and closed it.
    GaveUp,
    /// Refused, with this code.
    Refused(u8),
    /// The other side closed it; in MQTT 5 it may have said why.
    Ended(Option<u8>),
    /// It broke, or never was.
    Broken,
}

/// Who somebody says to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// With the right key.
    Honest,
    /// With a wrong one.
    Impostor,
    /// Says nothing of MQTT.
    Scan,
}

/// One socket of a client. Times are milliseconds of the game.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) client: usize,
    /// By which door it came.
    pub(crate) slot: usize,
    pub(crate) guest: Guest,
    pub(crate) began: u64,
    /// All of the CONNECT was sent.
    pub(crate) asked: bool,
    /// When it was let in.
    pub(crate) admitted: Option<u64>,
    /// The longest it waited for an answer.
    pub(crate) waited: u64,
    /// It said nothing from then on.
    pub(crate) silent: Option<u64>,
    pub(crate) ended: Option<(u64, End)>,
}

impl Attempt {
    pub(crate) fn was_refused(&self) -> bool {
        matches!(self.ended, Some((_, End::Refused(_))))
    }
}

/// Who a client is.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) thing: String,
    pub(crate) client_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Play,
    /// Who is connected stays, nobody else comes.
    Rest,
    /// All leave.
    Over,
}

pub(crate) struct Crowd {
    began: Instant,
    doors: Vec<SocketAddr>,
    pub(crate) names: Vec<Name>,
    things: Vec<Thing>,
    /// Where letters go.
    channel: String,
    posts: Mutex<Vec<Post>>,
    attempts: Mutex<Vec<Attempt>>,
    phase: watch::Sender<Phase>,
}

/// The address from which an attempt seems to come: each from another, so that none pays for the faults of others.
pub(crate) fn peer(attempt: u64) -> SocketAddr {
    let [.., port, a, b, c] = attempt.to_be_bytes();
    SocketAddr::from(([11, a, b, c], 1 + u16::from(port)))
}

/// Whose address it is.
pub(crate) fn attempt_of(peer: &str) -> Option<u64> {
    let SocketAddr::V4(peer) = peer.parse().ok()? else {
        return None;
    };
    let [11, a, b, c] = peer.ip().octets() else {
        return None;
    };
    let port = u8::try_from(peer.port().checked_sub(1)?).ok()?;
    Some(u32::from_be_bytes([port, a, b, c]).into())
}

impl Crowd {
    /// So many clients of these things, every tenth with the client id of another; then a reader and a writer of letters for
    /// each door, which are things of their own, the last ones.
    pub(crate) fn gather(
        began: Instant,
        doors: Vec<SocketAddr>,
        things: Vec<Thing>,
        channel: String,
        clients: usize,
    ) -> Arc<Self> {
        let others = things.len() - 2 * doors.len();
        let name = |n: usize| {
            let n = if n % 10 == 9 { n - 1 } else { n };
            Name {
                thing: things[n % others].id.clone(),
                client_id: format!("client-{n}"),
            }
        };
        let mut names: Vec<Name> = (0..clients).map(name).collect();
        names.extend(things[others..].iter().enumerate().map(|(n, thing)| Name {
            thing: thing.id.clone(),
            client_id: format!("post-{n}"),
        }));
        Arc::new(Self {
            began,
            posts: Mutex::new(vec![Post::default(); doors.len()]),
            doors,
            names,
            things,
            channel,
            attempts: Mutex::default(),
            phase: watch::Sender::new(Phase::Play),
        })
    }

    /// Sets all of them on their ways.
    pub(crate) fn begin(self: &Arc<Self>, runtime: &tokio::runtime::Handle, seed: u64) {
        let doors = self.doors.len();
        let others = self.names.len() - 2 * doors;
        for slot in 0..doors {
            let (reader, writer) = (others + slot, others + doors + slot);
            runtime.spawn(Arc::clone(self).read_letters(slot, reader));
            runtime.spawn(Arc::clone(self).write_letters(slot, writer));
        }
        for client in 0..others {
            let dice = Dice::new(seed, client as u64);
            runtime.spawn(Arc::clone(self).come_and_go(client, dice));
        }
        for number in 0..2 {
            let dice = Dice::new(seed, 1 << 32 | number);
            runtime.spawn(Arc::clone(self).disturb(dice));
        }
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(|it| it.into_inner())
    }

    /// The letters of each door.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts
            .lock()
            .unwrap_or_else(|it| it.into_inner())
            .clone()
    }

    fn thing_of(&self, client: usize) -> Thing {
        let id = &self.names[client].thing;
        let thing = self.things.iter().find(|it| it.id == *id);
        thing.expect("one of these").clone()
    }

    /// Attempts that were let in and have not ended.
    pub(crate) fn live(&self) -> BTreeSet<u64> {
        let attempts = self.attempts();
        let live = attempts.iter().enumerate();
        let live = live.filter(|(_, it)| it.admitted.is_some() && it.ended.is_none());
        live.map(|(number, _)| number as u64).collect()
    }

    /// Nobody waits for an answer or is about to come.
    pub(crate) fn is_at_rest(&self) -> bool {
        let attempts = self.attempts();
        attempts
            .iter()
            .all(|it| it.admitted.is_some() || it.ended.is_some())
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn note(&self, attempt: u64, what: impl FnOnce(&mut Attempt, u64)) {
        let now = self.now();
        what(&mut self.attempts()[attempt as usize], now);
    }

    fn come(&self, client: usize, slot: usize, guest: Guest) -> u64 {
        let began = self.now();
        let mut attempts = self.attempts();
        attempts.push(Attempt {
            client,
            slot,
            guest,
            began,
            asked: false,
            admitted: None,
            waited: 0,
            silent: None,
            ended: None,
        });
        attempts.len() as u64 - 1
    }

    async fn wait_for(&self, phase: Phase) {
        let _ = self.phase.subscribe().wait_for(|now| *now == phase).await;
    }

    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() == phase
    }
}
