//! Does a stream have what a journal tells, and nobody whom its instance has not let in?
//!
//! Holds the sessions of that instance that the stream tells of.

use std::collections::{HashMap, HashSet};

use super::{Audit, Promise, parse};
use crate::identity::{SessionId, Timestamp};
use crate::presence::{Change, Noted};

/// What a stream tells of the sessions of an instance.
#[derive(Default)]
pub struct Told {
    /// The names of the instance.
    instances: HashSet<String>,
    sessions: HashMap<SessionId, Ends>,
    /// The stream does not name its sessions: there is nothing to compare.
    is_plain: bool,
    /// The first event of the instance in the stream, and in the journal.
    stream_from: Option<u64>,
    journal_from: Option<Timestamp>,
    /// Of the last event of the journal.
    position: u64,
}

#[derive(Default)]
struct Ends {
    came: bool,
    left: bool,
    /// To the journal.
    known: bool,
}

impl Told {
    #[must_use]
    pub fn of(instances: &[String]) -> Self {
        Self {
            instances: instances.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Whether the stream has events of the instance that name no session: the two are not compared.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Looks at the next entry of the stream.
    pub fn entry<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a str)>) {
        let Ok(event) = parse(fields) else { return };
        if !self.instances.contains(event.instance) {
            return;
        }
        let Some(session) = event.session.and_then(|it| it.parse().ok()) else {
            self.is_plain = true;
            return;
        };
        self.stream_from.get_or_insert(event.at);
        let ends = self.sessions.entry(session).or_default();
        match event.connect {
            true => ends.came = true,
            false => ends.left = true,
        }
    }

    /// Looks at the next event of the journal, after the whole stream. Up to `relayed` the stream has had all.
    pub fn noted(&mut self, noted: &Noted, relayed: u64, audit: &mut Audit) {
        let Noted {
            position, presence, ..
        } = noted;
        let (session, at) = (&presence.session, presence.at);
        self.journal_from.get_or_insert(at);
        if self.position != 0 && *position != self.position + 1 {
            let what = format!(
                "events between {} and {position} are missing",
                self.position
            );
            audit.breach(Promise::Journal, &position.to_string(), what);
        }
        self.position = *position;
        let mut nobody = Ends::default();
        let ends = self.sessions.get_mut(&session.id).unwrap_or(&mut nobody);
        ends.known = true;
        let (is_told, word) = match presence.change {
            Change::Arrived => (ends.came, "connect"),
            Change::Left(_) => (ends.left, "disconnect"),
        };
        // Of a stream that has lost its beginning, all that was before what is left.
        let is_lost = audit.partial && self.stream_from.is_none_or(|first| at.0 < first);
        if !self.is_plain && !is_told && !is_lost && *position <= relayed {
            let what = format!("the {word} of {} is not in the stream", session.id);
            audit.breach(Promise::Journal, &position.to_string(), what);
        }
    }

    /// Says who is in the stream and came after the journal began, but not to it.
    pub fn end(self, audit: &mut Audit) {
        let Some(from) = self.journal_from.filter(|_| !self.is_plain) else {
            return;
        };
        for (session, ends) in self.sessions {
            // Its id tells when it asked to be let in.
            if !ends.known && session.began() > from {
                let what = format!("{session} is in the stream, and not in the journal");
                audit.breach(Promise::Journal, "", what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::ThingId;
    use crate::presence::{Farewell, Peer, Presence, Protocol, Session};

    fn session(id: SessionId) -> Arc<Session> {
        Arc::new(Session {
            id,
            thing: ThingId::from_bytes([1; 16]),
            client_id: "c".into(),
            protocol: Protocol::Mqtt5,
            peer: Peer::Unix,
        })
    }

    /// Holds what the stream tells against a journal: `+a` and `-a` are events of the session a, each a moment after the
    /// one before. The stream is that of the instance i, but for words that begin with another name; `~` names no session.
    fn broken(partial: bool, stream: &str, journal: &str, relayed: u64) -> u64 {
        let ids: Vec<SessionId> = (0..3).map(|_| SessionId::generate()).collect();
        let from = ids[0].began().0 - 1_000_000;
        let id = |word: &str| ids[usize::from(word.as_bytes()[word.len() - 1] - b'a')];
        let mut audit = Audit::new(partial);
        let mut told = Told::of(&["i".to_owned()]);
        for (n, word) in stream.split_whitespace().enumerate() {
            let is_plain = word.starts_with('~');
            let word = word.trim_start_matches('~');
            let (instance, kind) = match word.strip_prefix("other") {
                Some(rest) => ("other", &rest[..1]),
                None => ("i", &word[..1]),
            };
            let kind = if kind == "+" { "connect" } else { "disconnect" };
            let (session, at) = (id(word).to_string(), (from + n as u64).to_string());
            let fields = [
                ("thing_id", "t"),
                ("event_type", kind),
                ("instance", instance),
                ("occurred_at", &at),
                ("session_id", &session),
            ];
            let fields = &fields[..if is_plain { 4 } else { 5 }];
            audit.entry(&format!("{n}-0"), fields.iter().copied());
            told.entry(fields.iter().copied());
        }
        for (n, word) in (0..).zip(journal.split_whitespace()) {
            let change = match word.starts_with('+') {
                true => Change::Arrived,
                false => Change::Left(Farewell::Disconnected),
            };
            let noted = Noted {
                position: n + 1,
                instance: "i".into(),
                presence: Presence {
                    session: session(id(word)),
                    change,
                    at: Timestamp(from + n),
                },
            };
            told.noted(&noted, relayed, &mut audit);
        }
        told.end(&mut audit);
        audit.broken(Promise::Journal)
    }

    #[test]
    fn what_one_tells_and_the_other_does_not_is_found() {
        for (partial, stream, journal, relayed, expected) in [
            (false, "+a -a +b", "+a -a +b", 3, 0),
            // What is yet to be relayed may be there or not.
            (false, "+a", "+a -a", 1, 0),
            (false, "+a -a", "+a -a", 1, 0),
            (false, "+a", "+a -a", 2, 1),
            (false, "-a", "+a -a", 2, 1),
            (false, "", "+a -a +b", 3, 3),
            // Nobody has let it in.
            (false, "+a +b", "+a", 1, 1),
            (false, "+a +b -b", "+a", 1, 1),
            (false, "+a other+b", "+a", 1, 0),
            // Who it was is not told.
            (false, "~+a", "+a -a +b", 3, 0),
            (false, "~+a +c", "+a", 1, 0),
            // The journal begins later.
            (false, "+a +b", "", 0, 0),
            (false, "+a -a +b", "-a +b", 2, 0),
            // The stream does.
            (true, "", "+a -a", 2, 0),
            (true, "other+b other-b other+c +b", "+a -a +c -c +b", 5, 1),
        ] {
            let found = broken(partial, stream, journal, relayed);
            assert_eq!(found, expected, "{stream} | {journal}");
        }
    }
}
