//! What there is, and what can happen to it.

use crate::moves::{Clients, Other, Ousted};
use crate::{Model, Rule};

/// Sessions that ever are, those that are announced again among them.
pub(crate) const SESSIONS: usize = 3;

/// The epoch that the instance begins with.
const FIRST: u8 = 1;

pub(crate) type Broken = &'static str;
type Sessions = [bool; SESSIONS];

/// What the stream says of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) enum Told {
    #[default]
    Nothing,
    Here,
    Gone,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Redis {
    stream: [Told; SESSIONS],
    /// `occurred_at` of the last entry.
    last: u8,
    watermark: u8,
    pub(crate) roll: Sessions,
    lease: bool,
    epoch: u8,
    pub(crate) at: u8,
    alive: u8,
    pub(crate) clients: Clients,
}

impl Redis {
    pub(crate) fn append(&mut self, session: usize, arrives: bool, at: u8) -> Result<(), Broken> {
        self.stream[session] = match (self.stream[session], arrives) {
            (Told::Nothing, true) => Told::Here,
            (Told::Here, false) => Told::Gone,
            (_, true) => return Err("a session connects twice"),
            (Told::Nothing, false) => return Err("a session disconnects before it connects"),
            (Told::Gone, false) => return Err("a session disconnects twice"),
        };
        if at <= self.last {
            return Err("occurred_at does not grow");
        }
        (self.last, self.at) = (at, at);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Event {
    session: usize,
    arrives: bool,
    at: u8,
}

/// A call of `announce.lua` on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Batch {
    connection: u8,
    epoch: u8,
    believed: u8,
    events: Vec<(u8, Event)>,
}

/// The relay's end of a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Link {
    Down,
    /// Knows how far the stream is, and has yet to look who was closed.
    Opening {
        epoch: u8,
        position: u8,
    },
    Open {
        epoch: u8,
        position: u8,
        /// What was sent goes as far.
        sent: u8,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Instance {
    is_running: bool,
    journal: Vec<Event>,
    roll: Sessions,
    sessions: usize,
    /// Those of the client that uses the other instance, too.
    pub(crate) moves: Sessions,
    /// The epoch that it has, and the one before.
    held: u8,
    before: u8,
    settled: u8,
    /// The epoch that the relay was told is over.
    over: u8,
    link: Link,
    connection: u8,
}

/// What a survivor has seen so far.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Survivor {
    Idle,
    Record(Seen),
    Rows(Seen, Sessions),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Seen {
    epoch: u8,
    at: u8,
    alive: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) redis: Redis,
    /// What a replica has, as long as there is one.
    replica: Option<Redis>,
    epochs: u8,
    pub(crate) instance: Instance,
    /// The same client at another instance.
    pub(crate) other: Other,
    flying: Vec<Batch>,
    survivors: [Survivor; 2],
    was_killed: bool,
}

impl State {
    pub(crate) fn first() -> Self {
        let redis = Redis {
            lease: true,
            epoch: FIRST,
            ..Redis::default()
        };
        Self {
            replica: Some(redis.clone()),
            redis,
            epochs: FIRST,
            instance: Instance {
                is_running: true,
                journal: Vec::new(),
                roll: [false; SESSIONS],
                sessions: 0,
                moves: [false; SESSIONS],
                held: FIRST,
                before: 0,
                settled: 0,
                over: 0,
                link: Link::Down,
                connection: 0,
            },
            other: Other::default(),
            flying: Vec::new(),
            survivors: [Survivor::Idle, Survivor::Idle],
            was_killed: false,
        }
    }

    /// Nothing is under way, and the instance has no reason to think that anything is wrong.
    pub(crate) fn is_at_rest(&self, model: &Model) -> bool {
        let Link::Open {
            epoch, position, ..
        } = self.instance.link
        else {
            return false;
        };
        self.instance.is_running
            && self.flying.is_empty()
            && self.are_clients_at_rest()
            && self.redis.lease
            && epoch == self.instance.held
            && usize::from(position) == self.instance.journal.len()
            // What its next looks would change is yet to come.
            && self.redis.watermark == position
            && (self.redis.epoch == epoch || model.without == Some(Rule::RenewComparesEpoch))
    }

    pub(crate) fn check(&self, model: &Model) -> Result<(), Broken> {
        if !self.is_at_rest(model) {
            return Ok(());
        }
        let online = self.redis.stream.map(|told| told == Told::Here);
        if self.redis.roll != online {
            return Err("at rest the roll is not what the stream adds up to");
        }
        if online != self.instance.roll {
            return Err("at rest those who are here are not those who are said to be");
        }
        let is_here = (0..SESSIONS).any(|it| online[it] && self.instance.moves[it]);
        if self.redis.clients.is_other_online() && is_here {
            return Err("at rest a client is online twice");
        }
        Ok(())
    }

    /// All that can happen next.
    pub(crate) fn steps(&self, model: &Model) -> Result<Vec<Self>, Broken> {
        let mut next = Vec::new();
        self.live(model, &mut next);
        self.relay(model, &mut next);
        self.lease(model, &mut next);
        self.fail_over(model, &mut next);
        self.move_clients(model, &mut next)?;
        for (n, batch) in self.flying.iter().enumerate() {
            // A connection keeps its order.
            let mut earlier = self.flying[..n].iter();
            if earlier.all(|it| it.connection != batch.connection) {
                self.append(n, model, &mut next)?;
            }
        }
        for n in 0..model.survivors {
            self.survive(n, model, &mut next)?;
        }
        Ok(next)
    }

    /// Sessions come and go; the process is killed, and comes back.
    fn live(&self, model: &Model, next: &mut Vec<Self>) {
        let online = |session: &usize| self.instance.roll[*session];
        if !self.instance.is_running {
            let mut state = self.clone();
            state.instance.is_running = true;
            // The journal closes whom the earlier run left.
            for session in (0..SESSIONS).filter(online) {
                state.instance.note(session, false);
            }
            next.push(state);
            return;
        }
        if self.instance.journal.len() < model.events {
            if self.instance.sessions < model.clients {
                let mut state = self.clone();
                state
                    .instance
                    .come(model.moves && self.instance.sessions == 0);
                next.push(state);
            }
            for session in (0..SESSIONS).filter(online) {
                let mut state = self.clone();
                state.instance.note(session, false);
                next.push(state);
            }
        }
        if model.kills && !self.was_killed {
            let mut state = self.clone();
            state.was_killed = true;
            state.instance = Instance {
                is_running: false,
                held: 0,
                before: 0,
                settled: 0,
                over: 0,
                link: Link::Down,
                ..state.instance
            };
            next.push(state);
        }
    }

    /// The relay connects, sends, and loses its connection.
    fn relay(&self, model: &Model, next: &mut Vec<Self>) {
        let instance = &self.instance;
        if !instance.is_running {
            return;
        }
        let mut state = self.clone();
        match instance.link {
            Link::Down => {
                let has_lease = instance.held != 0 && instance.held != instance.over;
                if !has_lease || instance.connection == model.connections {
                    return;
                }
                state.instance.connection += 1;
                state.instance.link = Link::Opening {
                    epoch: instance.held,
                    position: self.redis.watermark,
                };
            }
            Link::Opening { epoch, position } => {
                state.reannounce(epoch, position, model);
                state.instance.link = Link::Open {
                    epoch,
                    position,
                    sent: position,
                };
            }
            Link::Open {
                epoch,
                position,
                sent,
            } => {
                let left = instance.journal.len().saturating_sub(usize::from(sent));
                for count in 1..=left.min(2) {
                    if self.flying.len() == model.flying {
                        break;
                    }
                    let mut state = self.clone();
                    let places = usize::from(sent)..usize::from(sent) + count;
                    let event = |n: usize| (n as u8 + 1, instance.journal[n]);
                    let events = places.map(event).collect();
                    state.flying.push(Batch {
                        connection: instance.connection,
                        epoch,
                        believed: sent,
                        events,
                    });
                    state.instance.link = Link::Open {
                        epoch,
                        position,
                        sent: sent + count as u8,
                    };
                    next.push(state);
                }
                // Cut off: what is on its way may still arrive.
                state.instance.link = Link::Down;
            }
        }
        next.push(state);
    }

    /// Has who was closed by others leave in the journal, and arrive as another session.
    fn reannounce(&mut self, epoch: u8, position: u8, model: &Model) {
        let instance = &mut self.instance;
        let is_new = epoch != instance.settled && instance.before != instance.settled;
        instance.settled = epoch;
        if !is_new || model.without == Some(Rule::Reannounce) {
            return;
        }
        for session in 0..SESSIONS {
            let is_arrival = |event: &Event| event.session == session && event.arrives;
            let arrival = instance.journal.iter().position(is_arrival);
            let is_announced = arrival.is_some_and(|at| at < usize::from(position));
            let is_closed =
                !self.redis.roll[session] && self.redis.clients.ousted[session] == Ousted::No;
            if instance.roll[session] && is_announced && is_closed {
                instance.note(session, false);
                if instance.sessions < SESSIONS {
                    instance.come(instance.moves[session]);
                }
            }
        }
    }

    /// The lease runs out, is renewed or taken.
    fn lease(&self, model: &Model, next: &mut Vec<Self>) {
        let mut state = self.clone();
        if self.redis.lease {
            state.redis.lease = false;
            next.push(state.clone());
        }
        let instance = &self.instance;
        if !instance.is_running {
            return;
        }
        let agrees =
            self.redis.epoch == instance.held || model.without == Some(Rule::RenewComparesEpoch);
        if instance.held == 0 || instance.held == instance.over || !agrees {
            if self.epochs == model.epochs {
                return;
            }
            state.epochs += 1;
            state.instance.before = self.redis.epoch;
            state.instance.held = match model.without {
                Some(Rule::AcquireIsNew) => FIRST,
                _ => state.epochs,
            };
            state.instance.over = 0;
            state.redis.epoch = state.instance.held;
        }
        state.redis.lease = true;
        state.redis.alive = instance.clock();
        next.push(state);
    }

    /// The replica catches up, or takes over with what it has.
    fn fail_over(&self, model: &Model, next: &mut Vec<Self>) {
        let Some(replica) = &self.replica else {
            return;
        };
        if *replica == self.redis || !model.fails_over {
            return;
        }
        let mut state = self.clone();
        state.replica = Some(self.redis.clone());
        next.push(state);
        let mut state = self.clone();
        state.redis = replica.clone();
        state.replica = None;
        // What was on its way to the old master is lost with it.
        state.flying.clear();
        state.instance.link = Link::Down;
        state.survivors = [Survivor::Idle, Survivor::Idle];
        next.push(state);
    }

    /// `announce.lua`, and what the relay makes of the answer, if it comes.
    fn append(&self, n: usize, model: &Model, next: &mut Vec<Self>) -> Result<(), Broken> {
        let mut state = self.clone();
        let batch = state.flying.remove(n);
        let is_open = matches!(self.instance.link, Link::Open { .. });
        let is_heard = is_open && batch.connection == self.instance.connection;
        if !is_heard {
            // It never arrives.
            next.push(state.clone());
        }
        let redis = &mut state.redis;
        let is_over =
            redis.epoch != batch.epoch && model.without != Some(Rule::AppendComparesEpoch);
        let is_ahead =
            redis.watermark < batch.believed && model.without != Some(Rule::AppendComparesBelief);
        if !is_over && !is_ahead {
            for (position, event) in &batch.events {
                let is_known = *position <= redis.watermark;
                if is_known && model.without != Some(Rule::AppendComparesPosition) {
                    continue;
                }
                let (session, arrives) = (event.session, event.arrives);
                let was_here = std::mem::replace(&mut redis.roll[session], arrives);
                match (arrives, state.instance.moves[session]) {
                    (true, true) => redis.arrive(session, state.other, model)?,
                    (false, _) => redis.depart(session),
                    _ => {}
                }
                if arrives || was_here || model.without == Some(Rule::AppendLooksAtRoll) {
                    let at = match model.without {
                        Some(Rule::AppendLifts) => event.at,
                        _ => event.at.max(redis.at + 1),
                    };
                    redis.append(session, arrives, at)?;
                }
                if model.without != Some(Rule::AppendMovesWatermark) {
                    redis.watermark = *position;
                }
            }
        }
        let reached = redis.watermark;
        if is_heard {
            // The answer is lost.
            let mut lost = state.clone();
            lost.instance.link = Link::Down;
            next.push(lost);
            let last = batch.events.last().map_or(0, |(position, _)| *position);
            let instance = &mut state.instance;
            match &mut instance.link {
                _ if is_over => {
                    instance.over = batch.epoch;
                    instance.link = Link::Down;
                }
                Link::Open { position, .. } if reached >= last => *position = last,
                link => *link = Link::Down,
            }
        }
        next.push(state);
        Ok(())
    }

    /// A survivor looks at the record, then at the part of the roll, then closes with `close.lua`.
    fn survive(&self, n: usize, model: &Model, next: &mut Vec<Self>) -> Result<(), Broken> {
        let mut state = self.clone();
        let redis = &mut state.redis;
        state.survivors[n] = match &self.survivors[n] {
            Survivor::Idle => {
                // One is as good as the other.
                let has_turn = n == 0 || self.survivors[0] != Survivor::Idle;
                if redis.lease || redis.roll == [false; SESSIONS] || !has_turn {
                    return Ok(());
                }
                Survivor::Record(Seen {
                    epoch: redis.epoch,
                    at: redis.at,
                    alive: redis.alive,
                })
            }
            Survivor::Record(seen) => Survivor::Rows(*seen, redis.roll),
            Survivor::Rows(seen, rows) => {
                let is_alive = redis.lease && model.without != Some(Rule::CloseLooksAtLease);
                let is_raced = (redis.epoch != seen.epoch
                    && model.without != Some(Rule::CloseComparesEpoch))
                    || (redis.at != seen.at && model.without != Some(Rule::CloseComparesTime));
                if !is_alive && !is_raced {
                    if redis.lease {
                        return Err("an instance is closed that has its lease");
                    }
                    if model.without != Some(Rule::CloseEndsEpoch) {
                        if state.epochs == model.epochs {
                            return Ok(());
                        }
                        state.epochs += 1;
                        redis.epoch = state.epochs;
                    }
                    let mut time = seen.at.max(seen.alive);
                    for session in (0..SESSIONS).filter(|session| rows[*session]) {
                        time += 1;
                        if std::mem::take(&mut redis.roll[session]) {
                            redis.append(session, false, time)?;
                        }
                    }
                }
                Survivor::Idle
            }
        };
        next.push(state);
        Ok(())
    }
}

impl Instance {
    /// The time of its last event.
    fn clock(&self) -> u8 {
        self.journal.last().map_or(0, |event| event.at)
    }

    /// Whether a session is here that can be ended.
    pub(crate) fn is_live(&self, session: usize) -> bool {
        self.is_running && self.roll[session]
    }

    pub(crate) fn note(&mut self, session: usize, arrives: bool) {
        self.roll[session] = arrives;
        let at = self.clock() + 1;
        self.journal.push(Event {
            session,
            arrives,
            at,
        });
    }

    fn come(&mut self, moves: bool) {
        let session = self.sessions;
        self.sessions += 1;
        self.moves[session] = moves;
        self.note(session, true);
    }
}
