//! The protocol of leases, epochs and the watermark as a model: every order in which things can happen, within bounds.
//!
//! One instance keeps a journal and relays it; it may sleep, lose answers, be killed and come back. What it sent on a
//! connection that it gave up may arrive much later. Two survivors look after it. Redis lets leases run out whenever it likes,
//! and may once fail over to an earlier state. Its client may
//! use another instance, too, which is always awake. Each step here is one script or one command there. A [`Rule`] that is left
//! out has to break a promise, or the model would prove nothing about it.

mod moves;
mod state;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use state::{Broken, State};

/// How far the model goes.
#[derive(Clone, Copy)]
struct Model {
    without: Option<Rule>,
    /// What of the sessions clients begin, and how many events of the journal they cause.
    clients: usize,
    events: usize,
    /// Batches on their way.
    flying: usize,
    /// Connections of the relay.
    connections: u8,
    /// Epochs that are ever given, by whom ever; the first is 1.
    epochs: u8,
    /// Whether the process is ever killed, and Redis ever fails over.
    kills: bool,
    fails_over: bool,
    survivors: usize,
    /// Whether the first client goes to another instance, too, or has come from there.
    moves: bool,
}

/// It is killed once, and comes back.
const KILLED: Model = Model {
    without: None,
    clients: 2,
    events: 2,
    flying: 2,
    connections: 2,
    epochs: 3,
    kills: true,
    fails_over: false,
    survivors: 1,
    moves: false,
};

/// Two survivors are at it at one time.
const RACED: Model = Model {
    flying: 1,
    kills: false,
    survivors: 2,
    ..KILLED
};

/// A replica takes over that has not got all.
const FAILED_OVER: Model = Model {
    fails_over: true,
    survivors: 1,
    ..RACED
};

/// The first client uses another instance, too.
const MOVED: Model = Model {
    clients: 1,
    flying: 1,
    moves: true,
    ..KILLED
};

/// And a replica takes over that has not got all.
const MOVED_AND_FAILED_OVER: Model = Model {
    kills: false,
    fails_over: true,
    epochs: 2,
    survivors: 0,
    ..MOVED
};

/// And there is another client, who stays.
const MOVED_BESIDE: Model = Model {
    clients: 2,
    fails_over: false,
    epochs: 1,
    ..MOVED_AND_FAILED_OVER
};

const MODELS: [Model; 6] = [
    KILLED,
    RACED,
    FAILED_OVER,
    MOVED,
    MOVED_AND_FAILED_OVER,
    MOVED_BESIDE,
];

/// What the scripts, and those who call them, keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// `announce.lua`: a batch of an epoch that is over does nothing. A second lock: that it lifts times does it alone.
    AppendComparesEpoch,
    /// `announce.lua`: an event that is not behind the watermark is not appended again.
    AppendComparesPosition,
    /// `announce.lua`: a batch that takes for granted what is not there does nothing.
    AppendComparesBelief,
    /// `announce.lua`: a disconnect is appended only if its session is on the roll.
    AppendLooksAtRoll,
    /// `announce.lua`: the watermark moves with the events.
    AppendMovesWatermark,
    /// `close.lua`: nothing is closed while the lease is there.
    CloseLooksAtLease,
    /// `close.lua`: a survivor that saw another epoch does nothing. A second lock: the next rule does it alone.
    CloseComparesEpoch,
    /// `close.lua`: a survivor that saw another last event does nothing.
    CloseComparesTime,
    /// `close.lua`: whoever is closed cannot write under its epoch any longer.
    CloseEndsEpoch,
    /// `acquire.lua`: an epoch is never given twice.
    AcquireIsNew,
    /// `renew.lua`: a lease of an epoch that is over is not renewed.
    RenewComparesEpoch,
    /// `announce.rs`: who was closed while it lived is announced again.
    Reannounce,
    /// `announce.lua`: events that disconnects by others have overtaken are lifted behind them.
    AppendLifts,
    /// `clients.lua`: only who is on the roll is closed, whatever the place of the client says.
    TakeOverLooksAtRoll,
    /// `clients.lua`: who is closed is off the roll.
    TakeOverTakesOffRoll,
    /// `clients.lua`: the disconnect is the last event of its instance.
    TakeOverMovesTime,
    /// `clients.lua`: who is closed is ended where it is, sooner or later.
    TakeOverIsTold,
    /// `clients.lua`: an arrival that is told late closes nobody who has come later.
    LateGivesWay,
    /// `clients.lua`: and is ended.
    LateIsEnded,
}

/// Those that something depends on.
const RULES: [Rule; 17] = [
    Rule::AppendComparesPosition,
    Rule::AppendComparesBelief,
    Rule::AppendLooksAtRoll,
    Rule::AppendMovesWatermark,
    Rule::CloseLooksAtLease,
    Rule::CloseComparesTime,
    Rule::CloseEndsEpoch,
    Rule::AcquireIsNew,
    Rule::RenewComparesEpoch,
    Rule::Reannounce,
    Rule::AppendLifts,
    Rule::TakeOverLooksAtRoll,
    Rule::TakeOverTakesOffRoll,
    Rule::TakeOverMovesTime,
    Rule::TakeOverIsTold,
    Rule::LateGivesWay,
    Rule::LateIsEnded,
];

struct Explored {
    states: usize,
    at_rest: usize,
}

/// Looks at every state that can be, nearest first, up to one that breaks a promise.
fn explore(model: &Model) -> Result<Explored, Broken> {
    let hash = |state: &State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let first = State::first();
    let mut seen = HashSet::from([hash(&first)]);
    let mut waiting = VecDeque::from([first]);
    let mut at_rest = 0;
    while let Some(state) = waiting.pop_front() {
        state.check(model)?;
        at_rest += usize::from(state.is_at_rest(model));
        for next in state.steps(model)? {
            if seen.insert(hash(&next)) {
                waiting.push_back(next);
            }
        }
    }
    let states = seen.len();
    Ok(Explored { states, at_rest })
}

#[test]
fn no_order_of_things_breaks_a_promise() {
    for model in MODELS {
        let Explored { states, at_rest } = explore(&model).expect("all promises are kept");
        println!("{states} states, {at_rest} at rest");
        assert!(states > 1_000, "{states}: the bounds are too narrow");
        assert!(at_rest > 50, "{at_rest}: nothing ever comes to rest");
    }
}

#[test]
fn whatever_rule_is_left_out_a_promise_is_broken() {
    for rule in RULES {
        let without = Some(rule);
        let mut models = MODELS.into_iter();
        let broken = models.find_map(|model| explore(&Model { without, ..model }).err());
        let broken = broken.unwrap_or_else(|| panic!("nobody misses {rule:?}"));
        println!("without {rule:?}: {broken}");
    }
}

#[test]
fn where_times_are_compared_epochs_need_not_be() {
    for rule in [Rule::CloseComparesEpoch, Rule::AppendComparesEpoch] {
        for model in [KILLED, RACED] {
            let without = Some(rule);
            assert!(explore(&Model { without, ..model }).is_ok(), "{rule:?}");
        }
    }
}
