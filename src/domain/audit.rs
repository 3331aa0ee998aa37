//! Does a stream of presence keep its promises? Asked of the events alone, whoever wrote them.
//!
//! Holds what is open and the latest of what is closed, so it takes as much memory as there are sessions online
//! and things, however long the stream is.

mod journal;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;

pub use journal::Told;

/// Sessions that are remembered after they were closed.
const CLOSED: usize = 200_000;
/// Breaches that are named; later ones are counted.
const NAMED: usize = 20;

/// What a stream of presence promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Each event has its four fields, and they make sense.
    Form,
    /// A session has one connect, then one disconnect.
    Pairs,
    /// Events of a session are in the order in which they happened.
    Order,
    /// `occurred_at` grows with every event of an instance.
    Time,
    /// The sequence of a session has no gap.
    Sequence,
    /// The roll has whom the stream adds up to.
    Roll,
    /// The stream has what the journal tells, and nobody whom it does not know.
    Journal,
}

impl Promise {
    pub const ALL: [Self; 7] = [
        Self::Form,
        Self::Pairs,
        Self::Order,
        Self::Time,
        Self::Sequence,
        Self::Roll,
        Self::Journal,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Pairs => "pairs",
            Self::Order => "order",
            Self::Time => "time",
            Self::Sequence => "sequence",
            Self::Roll => "roll",
            Self::Journal => "journal",
        }
    }

    /// In a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Form => "every event has thing_id, event_type, instance and occurred_at",
            Self::Pairs => "a session has one connect, then one disconnect",
            Self::Order => "events of a session are in the order in which they happened",
            Self::Time => "occurred_at grows with every event of an instance",
            Self::Sequence => "the sequence of a session has no gap",
            Self::Roll => "the roll has whom the stream adds up to",
            Self::Journal => {
                "the stream has what the journal tells, and nobody whom it does not know"
            }
        }
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub promise: Promise,
    /// The entry, or the position in the journal, that shows it; empty for the roll.
    pub id: String,
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.promise.as_str(), self.id, self.what)
    }
}

/// A session that is on the roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub session: String,
    pub thing: String,
    pub instance: String,
    /// Nanoseconds since the Unix epoch.
    pub since: u64,
}

/// The state of an audit.
#[derive(Default)]
pub struct Audit {
    /// The stream may have lost its beginning: sessions may have begun before it.
    partial: bool,
    entries: u64,
    sessions: u64,
    /// Disconnects of sessions that began before the stream does.
    earlier: u64,
    /// Events that are older than the one before them of the same thing, on another instance, whose clock may differ.
    crossed: u64,
    first_at: u64,
    open: HashMap<Box<str>, Open>,
    closed: HashSet<Box<str>>,
    closed_order: VecDeque<Box<str>>,
    /// Of events without a session: how many of a thing are open on an instance.
    counts: HashMap<(Box<str>, Box<str>), u64>,
    instances: HashMap<Box<str>, u64>,
    things: HashMap<Box<str>, (u64, Box<str>)>,
    breaches: Vec<Breach>,
    broken: BTreeMap<Promise, u64>,
}

struct Open {
    thing: Box<str>,
    client: Option<Box<str>>,
    instance: Box<str>,
    at: u64,
}

/// The fields of an event that matter here.
struct Event<'a> {
    thing: &'a str,
    instance: &'a str,
    at: u64,
    connect: bool,
    session: Option<&'a str>,
    client: Option<&'a str>,
    sequence: Option<&'a str>,
}

impl Audit {
    /// `partial` if the stream may have lost its beginning.
    #[must_use]
    pub fn new(partial: bool) -> Self {
        Self {
            partial,
            ..Self::default()
        }
    }

    /// Looks at the next entry.
    pub fn entry<'a>(&mut self, id: &str, fields: impl Iterator<Item = (&'a str, &'a str)>) {
        self.entries += 1;
        let event = match parse(fields) {
            Ok(event) => event,
            Err(what) => return self.breach(Promise::Form, id, what),
        };
        if self.first_at == 0 {
            self.first_at = event.at;
        }
        self.time(id, &event);
        match event.session {
            Some(session) => self.session(id, session, &event),
            None => self.count(id, &event),
        }
    }

    /// Compares what the stream adds up to with the roll, as of the last entry that was looked at.
    pub fn roll(&mut self, listed: &[Listed]) {
        let mut counts = std::mem::take(&mut self.counts);
        let mut open = std::mem::take(&mut self.open);
        for it in listed {
            let key = (it.thing.as_str().into(), it.instance.as_str().into());
            let by_session = open.remove(it.session.as_str());
            let known = match &by_session {
                Some(open) => *open.thing == *it.thing && *open.instance == *it.instance,
                None => match counts.get_mut(&key) {
                    Some(count) if *count > 0 => {
                        *count -= 1;
                        true
                    }
                    // Of a stream that has lost everything, all began before.
                    _ => self.partial && (self.entries == 0 || it.since < self.first_at),
                },
            };
            if !known {
                let Listed { session, thing, .. } = it;
                let what = format!("{session} of {thing} is on the roll but not online");
                self.breach(Promise::Roll, "", what);
            }
        }
        for (session, Open { thing, .. }) in open {
            let what = format!("{session} of {thing} is online but not on the roll");
            self.breach(Promise::Roll, "", what);
        }
        for ((thing, instance), count) in counts {
            if count > 0 {
                let what =
                    format!("{count} of {thing} on {instance} are online but not on the roll");
                self.breach(Promise::Roll, "", what);
            }
        }
    }

    fn time(&mut self, id: &str, event: &Event<'_>) {
        let last = self.instances.entry(event.instance.into()).or_insert(0);
        let before = std::mem::replace(last, event.at);
        if event.at <= before {
            // One that is late is not to hide those behind it.
            *last = before;
            let (at, instance) = (event.at, event.instance);
            let what = format!("{at} of {instance} does not follow {before}");
            self.breach(Promise::Time, id, what);
        }
        let known = self.things.get_mut(event.thing);
        match known {
            None => {
                let latest = (event.at, event.instance.into());
                self.things.insert(event.thing.into(), latest);
            }
            Some((at, instance)) => {
                self.crossed += u64::from(event.at < *at && **instance != *event.instance);
                *at = event.at;
                if **instance != *event.instance {
                    *instance = event.instance.into();
                }
            }
        }
    }

    /// An event that says which session it is about.
    fn session(&mut self, id: &str, session: &str, event: &Event<'_>) {
        let expected = if event.connect { "1" } else { "2" };
        if let Some(sequence) = event.sequence
            && sequence != expected
        {
            let what = format!("{session} has sequence {sequence} where {expected} is due");
            self.breach(Promise::Sequence, id, what);
        }
        if event.connect {
            self.sessions += 1;
            if self.closed.contains(session) {
                self.breach(Promise::Pairs, id, format!("{session} came back"));
            }
            let open = Open {
                thing: event.thing.into(),
                client: event.client.map(Into::into),
                instance: event.instance.into(),
                at: event.at,
            };
            if self.open.insert(session.into(), open).is_some() {
                self.breach(Promise::Pairs, id, format!("{session} connects twice"));
            }
            return;
        }
        let Some(open) = self.open.remove(session) else {
            if self.closed.contains(session) {
                self.breach(Promise::Pairs, id, format!("{session} disconnects twice"));
            } else if self.partial {
                self.earlier += 1;
                self.close(session);
            } else {
                let what = format!("{session} disconnects without having connected");
                self.breach(Promise::Pairs, id, what);
                self.close(session);
            }
            return;
        };
        if *open.thing != *event.thing || *open.instance != *event.instance {
            let what = format!(
                "{session} of {} on {} disconnects as one of {} on {}",
                open.thing, open.instance, event.thing, event.instance
            );
            self.breach(Promise::Pairs, id, what);
        }
        if event.at <= open.at {
            let what = format!("{session} disconnects before it connects");
            self.breach(Promise::Order, id, what);
        }
        self.close(session);
    }

    fn close(&mut self, session: &str) {
        self.closed.insert(session.into());
        self.closed_order.push_back(session.into());
        if self.closed_order.len() > CLOSED
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
    }

    /// An event with nothing but the four fields: sessions of one thing on one instance look the same.
    fn count(&mut self, id: &str, event: &Event<'_>) {
        let key = (event.thing.into(), event.instance.into());
        let count = self.counts.entry(key).or_insert(0);
        if event.connect {
            self.sessions += 1;
            *count += 1;
            return;
        }
        if *count > 0 {
            *count -= 1;
            if *count == 0 {
                self.counts
                    .remove(&(event.thing.into(), event.instance.into()));
            }
        } else if self.partial {
            self.earlier += 1;
        } else {
            let (thing, instance) = (event.thing, event.instance);
            let what = format!("{thing} on {instance} disconnects more often than it connects");
            self.breach(Promise::Pairs, id, what);
        }
    }

    fn breach(&mut self, promise: Promise, id: &str, what: String) {
        *self.broken.entry(promise).or_insert(0) += 1;
        if self.breaches.len() < NAMED {
            let id = id.to_owned();
            self.breaches.push(Breach { promise, id, what });
        }
    }

    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// How many sessions began.
    #[must_use]
    pub const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// How many are open, before the roll was looked at.
    #[must_use]
    pub fn online(&self) -> u64 {
        self.open.len() as u64 + self.counts.values().sum::<u64>()
    }

    /// How many clients of things are online more than once, before the roll was looked at: for a moment, where an
    /// arrival is told late; for longer, where nobody ends the older session.
    #[must_use]
    pub fn doubled(&self) -> usize {
        let mut clients: HashMap<(&str, &str), usize> = HashMap::new();
        for open in self.open.values() {
            if let Some(client) = &open.client {
                *clients.entry((&open.thing, client)).or_default() += 1;
            }
        }
        clients.values().filter(|sessions| **sessions > 1).count()
    }

    #[must_use]
    pub const fn earlier(&self) -> u64 {
        self.earlier
    }

    #[must_use]
    pub const fn crossed(&self) -> u64 {
        self.crossed
    }

    /// The first breaches.
    #[must_use]
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// How often a promise was broken.
    #[must_use]
    pub fn broken(&self, promise: Promise) -> u64 {
        self.broken.get(&promise).copied().unwrap_or(0)
    }
}

fn parse<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Event<'a>, String> {
    let (mut thing, mut kind, mut instance, mut at) = (None, None, None, None);
    let (mut session, mut client, mut sequence) = (None, None, None);
    for (name, value) in fields {
        let place = match name {
            "thing_id" => &mut thing,
            "event_type" => &mut kind,
            "instance" => &mut instance,
            "occurred_at" => &mut at,
            "session_id" => &mut session,
            "client_id" => &mut client,
            "sequence" => &mut sequence,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    let lacks = |name: &str| format!("there is no {name}");
    let thing = thing.filter(|it| !it.is_empty());
    let at = at.ok_or_else(|| lacks("occurred_at"))?;
    Ok(Event {
        thing: thing.ok_or_else(|| lacks("thing_id"))?,
        instance: instance.ok_or_else(|| lacks("instance"))?,
        connect: match kind.ok_or_else(|| lacks("event_type"))? {
            "connect" => true,
            "disconnect" => false,
            other => return Err(format!("event_type is {other:?}")),
        },
        at: at.parse().map_err(|_| format!("occurred_at is {at:?}"))?,
        session,
        client,
        sequence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as words: `+` or `-`, the session (or `~` and the thing alone), `@` instance, time.
    fn audit(partial: bool, events: &str) -> Audit {
        let mut audit = Audit::new(partial);
        for (n, word) in events.split_whitespace().enumerate() {
            let (kind, rest) = word.split_at(1);
            let (who, rest) = rest.split_once('@').expect("an instance");
            let (instance, at) = rest.split_once(',').expect("a time");
            let kind = if kind == "+" { "connect" } else { "disconnect" };
            let mut fields = vec![("event_type", kind), ("instance", instance)];
            fields.push(("occurred_at", at));
            match who.strip_prefix('~') {
                Some(thing) => fields.push(("thing_id", thing)),
                None => {
                    let sequence = if kind == "connect" { "1" } else { "2" };
                    fields.extend([("thing_id", "t"), ("session_id", who)]);
                    fields.push(("sequence", sequence));
                }
            }
            audit.entry(&format!("{n}-0"), fields.into_iter());
        }
        audit
    }

    #[test]
    fn who_began_before_what_is_left_of_a_stream_may_be_on_the_roll() {
        let listed = [Listed {
            session: "a".to_owned(),
            thing: "t".to_owned(),
            instance: "i".to_owned(),
            since: 5,
        }];
        for (partial, events, broken) in [
            (true, "", 0),
            (false, "", 1),
            (true, "+b@i,6 -b@i,7", 0),
            (true, "+b@i,4 -b@i,7", 1),
        ] {
            let mut audit = audit(partial, events);
            audit.roll(&listed);
            assert_eq!(audit.broken(Promise::Roll), broken, "{partial} {events}");
        }
    }

    #[test]
    fn each_breach_is_found_where_it_is_and_nothing_else() {
        let all = [
            (false, "+a@i,1 +b@i,2 -a@i,3 +c@j,1 -c@j,2 -b@i,4", None),
            (false, "+~t@i,1 +~t@i,2 -~t@i,3 -~t@i,4 +~t@i,5", None),
            (true, "-a@i,1 -~t@i,2 +b@i,3", None),
            (false, "-a@i,1", Some((Promise::Pairs, "0-0"))),
            (false, "+a@i,1 -a@i,2 -a@i,3", Some((Promise::Pairs, "2-0"))),
            (true, "+a@i,1 -a@i,2 -a@i,3", Some((Promise::Pairs, "2-0"))),
            (true, "-a@i,1 -a@i,2", Some((Promise::Pairs, "1-0"))),
            (false, "+a@i,1 +a@i,2", Some((Promise::Pairs, "1-0"))),
            (false, "+a@i,1 -a@i,2 +a@i,3", Some((Promise::Pairs, "2-0"))),
            (false, "+a@i,1 -a@j,2", Some((Promise::Pairs, "1-0"))),
            (false, "+~t@i,1 -~t@j,2", Some((Promise::Pairs, "1-0"))),
            (false, "+a@i,1 +b@i,1", Some((Promise::Time, "1-0"))),
            (false, "+a@i,2 +b@i,1 +c@i,3", Some((Promise::Time, "1-0"))),
            (false, "+~@i,1", Some((Promise::Form, "0-0"))),
            (false, "+a@i,soon", Some((Promise::Form, "0-0"))),
        ];
        for (partial, events, expected) in all {
            let audit = audit(partial, events);
            let found: Vec<_> = audit.breaches().iter().collect();
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.promise, it.id.as_str()))
                .collect();
            assert_eq!(found, Vec::from_iter(expected), "{events}");
        }
    }

    #[test]
    fn a_gap_in_the_sequence_is_found() {
        let mut audit = Audit::new(false);
        let mut say = |id: &str, kind, at, sequence| {
            let fields = [("thing_id", "t"), ("event_type", kind), ("instance", "i")];
            let more = [
                ("occurred_at", at),
                ("session_id", "s"),
                ("sequence", sequence),
            ];
            audit.entry(id, fields.into_iter().chain(more));
        };
        say("1-0", "connect", "1", "1");
        say("2-0", "disconnect", "2", "3");
        assert_eq!(audit.broken(Promise::Sequence), 1);
        assert_eq!(audit.breaches().len(), 1);
    }

    #[test]
    fn the_roll_is_held_against_the_sum_of_the_stream() {
        let listed = |session: &str, thing: &str, since| Listed {
            session: session.to_owned(),
            thing: thing.to_owned(),
            instance: "i".to_owned(),
            since,
        };
        let events = "+a@i,5 +b@i,6 -a@i,7 +~u@i,8 +~u@i,9";
        let right = [
            listed("b", "t", 6),
            listed("x", "u", 8),
            listed("y", "u", 9),
        ];
        for (partial, list, broken) in [
            (false, right.to_vec(), 0),
            (false, right[..2].to_vec(), 1),
            (false, right[1..].to_vec(), 1),
            (false, [&right[..], &[listed("a", "t", 5)]].concat(), 1),
            (false, [&right[..], &[listed("z", "u", 9)]].concat(), 1),
            (true, [&right[..], &[listed("old", "t", 4)]].concat(), 0),
            (true, [&right[..], &[listed("new", "t", 6)]].concat(), 1),
            (false, vec![listed("b", "other", 6)], 2),
        ] {
            let mut audit = audit(partial, events);
            audit.roll(&list);
            assert_eq!(audit.broken(Promise::Roll), broken, "{list:?}");
        }
    }

    #[test]
    fn a_client_that_is_online_twice_is_counted_once() {
        let mut audit = Audit::new(false);
        for (n, session) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let at = (n + 1).to_string();
            let client = if session == "d" { "other" } else { "c" };
            let fields = [
                ("thing_id", "t"),
                ("event_type", "connect"),
                ("instance", "i"),
                ("occurred_at", &at),
                ("session_id", session),
                ("client_id", client),
            ];
            audit.entry("1-0", fields.into_iter());
            assert_eq!(audit.doubled(), usize::from(n > 0));
        }
    }

    #[test]
    fn clocks_that_differ_are_counted_and_no_breach() {
        let audit = audit(false, "+~t@i,9 +~t@j,1 -~t@i,10");
        assert!(audit.breaches().is_empty());
        assert_eq!(audit.crossed(), 1);
    }
}
