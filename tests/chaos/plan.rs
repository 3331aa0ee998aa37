//! What is done to the system, when and for how long: the same for the same seed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::dice::Dice;

/// How long the others wait for an instance.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// An instance is killed, and starts again on its journal.
    Kill,
    /// It is killed for good: its folder is gone, too. Another one comes later.
    Lose,
    /// It stands still, mostly longer than its lease.
    Freeze,
    /// It is told to stop, and starts again.
    Drain,
    /// Its disk is full for a while.
    FillDisk,
    /// Its clients are cut off, and let in later.
    CutClients,
    /// Nothing goes between it and its clients, or nothing in one direction.
    StallClients,
    /// Only one side hears that the connections are over.
    ForgetClients,
    /// Drop by drop.
    SlowClients,
    /// Redis is cut off from it.
    CutRedis,
    /// What it says to Redis, or what Redis answers, does not come through for a while.
    StallRedis,
    SlowRedis,
    /// It is alone: its network is down.
    Partition,
    /// Redis is killed, and starts again on its file.
    KillRedis,
    /// Redis stands still.
    FreezeRedis,
    /// Redis holds up everybody (CLIENT PAUSE).
    PauseRedis,
    /// Redis has no memory left.
    FillRedis,
    /// Redis forgets the scripts.
    FlushScripts,
    /// Redis ends all connections.
    ResetRedis,
    /// The replica takes over; the master may have taken what the replica has not got.
    FailOver,
    Trim,
    Delete,
    /// PostgreSQL is stopped, and started again.
    StopPostgres,
    /// All sessions of a thing on an instance are ended by hand.
    Kick,
    /// A thing is disabled, and later enabled again.
    Revoke,
}

/// What a fault needs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The process of an instance.
    Process(usize),
    /// Between its clients and an instance.
    Door(usize),
    /// Between an instance and Redis.
    Line(usize),
    Redis,
    Postgres,
    Things,
}

impl Kind {
    /// How often each is dealt, in a deck of all.
    const DECK: [(Self, usize); 25] = [
        (Self::Kill, 3),
        (Self::Lose, 2),
        (Self::Freeze, 3),
        (Self::Drain, 1),
        (Self::FillDisk, 1),
        (Self::CutClients, 1),
        (Self::StallClients, 1),
        (Self::ForgetClients, 2),
        (Self::SlowClients, 1),
        (Self::CutRedis, 2),
        (Self::StallRedis, 2),
        (Self::SlowRedis, 1),
        (Self::Partition, 2),
        (Self::KillRedis, 1),
        (Self::FreezeRedis, 1),
        (Self::PauseRedis, 1),
        (Self::FillRedis, 1),
        (Self::FlushScripts, 1),
        (Self::ResetRedis, 1),
        (Self::FailOver, 2),
        (Self::Trim, 1),
        (Self::Delete, 1),
        (Self::StopPostgres, 1),
        (Self::Kick, 1),
        (Self::Revoke, 1),
    ];

    /// How long it lasts: at least, and how much longer.
    const fn length(self) -> (u64, u64) {
        let lease = LEASE.as_millis() as u64;
        match self {
            // Until the others must have closed everything.
            Self::Lose => (lease + 2_100, 300),
            Self::Freeze | Self::Partition | Self::StallRedis => (lease / 2, 2 * lease),
            Self::Kill | Self::Drain => (0, 2_000),
            Self::KillRedis | Self::FreezeRedis | Self::CutRedis => (100, lease + 500),
            Self::FailOver => (200, 800),
            Self::FlushScripts | Self::ResetRedis | Self::Trim | Self::Delete | Self::Kick => {
                (0, 1)
            }
            _ => (300, 1_700),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Which instance, if it is about one.
    pub(crate) slot: usize,
    /// After the fault before.
    pub(crate) pause: Duration,
    pub(crate) length: Duration,
    /// Which of several ways.
    pub(crate) way: u64,
}

impl Fault {
    pub(crate) fn parts(&self) -> BTreeSet<Part> {
        let slot = self.slot;
        let parts: &[Part] = match self.kind {
            Kind::Kill | Kind::Lose | Kind::Freeze | Kind::Drain | Kind::FillDisk | Kind::Kick => {
                &[Part::Process(slot)]
            }
            Kind::CutClients | Kind::StallClients | Kind::ForgetClients | Kind::SlowClients => {
                &[Part::Door(slot)]
            }
            Kind::CutRedis | Kind::StallRedis | Kind::SlowRedis => &[Part::Line(slot)],
            Kind::Partition => &[Part::Door(slot), Part::Line(slot)],
            Kind::KillRedis
            | Kind::FreezeRedis
            | Kind::PauseRedis
            | Kind::FillRedis
            | Kind::FlushScripts
            | Kind::ResetRedis
            | Kind::FailOver
            | Kind::Trim
            | Kind::Delete => &[Part::Redis],
            Kind::StopPostgres => &[Part::Postgres],
            Kind::Revoke => &[Part::Things],
        };
        parts.iter().copied().collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if !self
            .parts()
            .iter()
            .any(|it| matches!(it, Part::Redis | Part::Postgres | Part::Things))
        {
            write!(f, " of {}", self.slot)?;
        }
        write!(f, " for {} ms", self.length.as_millis())
    }
}

/// So many faults, on so many instances.
pub(crate) fn draw(seed: u64, faults: usize, slots: usize) -> Vec<Fault> {
    let mut dice = Dice::new(seed, u64::MAX);
    let mut deck = Vec::new();
    let mut plan = Vec::new();
    while plan.len() < faults {
        if deck.is_empty() {
            let all = Kind::DECK.iter();
            deck.extend(all.flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)));
        }
        let kind = deck.swap_remove(dice.below(deck.len() as u64) as usize);
        let (least, more) = kind.length();
        plan.push(Fault {
            kind,
            slot: dice.below(slots as u64) as usize,
            pause: Duration::from_millis(100 + dice.below(900)),
            length: Duration::from_millis(least + dice.below(more)),
            way: dice.below(1 << 20),
        });
    }
    plan
}

#[test]
fn a_seed_draws_the_same_plan_again_and_every_kind_comes() {
    let plan = draw(7, 100, 3);
    assert_eq!(plan, draw(7, 100, 3));
    assert_ne!(plan, draw(8, 100, 3));
    let kinds: BTreeSet<Kind> = plan.iter().map(|it| it.kind).collect();
    assert_eq!(kinds.len(), Kind::DECK.len());
}
