//! Holds the stream against what clients and journals know: nothing lost, nothing doubled, nothing invented, all in order.

mod reasons;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rollcall_domain::audit::{Audit, Promise};

use crate::crowd::{Attempt, Guest, Name};
use crate::plan::Fault;
use crate::scribe::Event;

pub(crate) use reasons::Deeds;

/// Why sessions end that others have closed.
pub(crate) const FAILED: &str = "instance_failed";
/// Why sessions end whose client has come again, here or elsewhere.
const TAKEN_OVER: &str = "taken_over";
/// Findings that are told in full.
const TOLD: usize = 40;

/// What everybody has noted, when all have left.
pub(crate) struct Evidence<'a> {
    pub(crate) attempts: &'a [Attempt],
    pub(crate) clients: &'a [Name],
    /// Names that instances had, by slot.
    pub(crate) slots: &'a [Vec<String>],
    pub(crate) copy: &'a [Event],
    pub(crate) journals: &'a [Journal],
    pub(crate) deeds: &'a [Deed],
}

/// A fault, and when it was (milliseconds of the game).
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) fault: Fault,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The thing it is about, if it is about one.
    pub(crate) thing: Option<String>,
}

/// The journal of an instance, dead or alive.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    pub(crate) instance: String,
    /// Its folder was taken away: what Redis had not got by then is lost.
    pub(crate) is_lost: bool,
    /// How far Redis has it.
    pub(crate) relayed: u64,
    pub(crate) events: Vec<(u64, Event)>,
}

/// What is not as it was promised.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<String>,
    pub(crate) count: usize,
    /// Sessions whose client has not got its CONNACK: it was lost on the way.
    pub(crate) unanswered: usize,
    /// Sessions that only the journal of an instance without its folder knows.
    pub(crate) buried: usize,
    /// Sessions that were announced again since others had closed them.
    pub(crate) reannounced: usize,
}

impl Verdict {
    fn find(&mut self, what: String) {
        self.count += 1;
        if self.findings.len() < TOLD {
            self.findings.push(what);
        }
    }
}

/// One session as the stream tells it.
struct Session<'a> {
    connect: (usize, &'a Event),
    disconnect: Option<(usize, &'a Event)>,
}

pub(crate) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    form(evidence, &mut verdict);
    let sessions = sessions(evidence);
    origin(evidence, &mut verdict);
    admitted(evidence, &sessions, &mut verdict);
    order(evidence, &sessions, &mut verdict);
    for journal in evidence.journals {
        compare(journal, evidence.copy, &mut verdict);
    }
    let deeds = Deeds::new(evidence);
    for ((attempt, sessions), client) in sessions.iter().filter_map(|(attempt, sessions)| {
        let client = evidence.attempts.get(*attempt as usize)?;
        Some(((*attempt, sessions), client))
    }) {
        for Session { disconnect, .. } in sessions {
            if let Some((_, event)) = disconnect
                && let Err(why) = deeds.explain(attempt, client, &event.reason)
            {
                verdict.find(format!("reason: {} of {client:?}: {why}", event.reason));
            }
        }
    }
    verdict
}

/// What the stream promises by itself.
fn form(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut audit = Audit::new(false);
    for event in evidence.copy {
        let fields = event.fields();
        audit.entry(
            &event.id,
            fields.iter().map(|(name, value)| (*name, &**value)),
        );
    }
    if audit.online() > 0 {
        verdict.find(format!("form: {} are left online", audit.online()));
    }
    for breach in audit.breaches() {
        verdict.find(breach.to_string());
    }
    let all: u64 = Promise::ALL.into_iter().map(|it| audit.broken(it)).sum();
    verdict.count += all as usize - audit.breaches().len();
}

/// The sessions of each attempt, in the order of the stream.
fn sessions<'a>(evidence: &Evidence<'a>) -> BTreeMap<u64, Vec<Session<'a>>> {
    let mut leaving: HashMap<&str, (usize, &Event)> = HashMap::new();
    for (place, event) in evidence
        .copy
        .iter()
        .enumerate()
        .filter(|(_, it)| !it.connect)
    {
        leaving.entry(&event.session).or_insert((place, event));
    }
    let mut sessions: BTreeMap<u64, Vec<Session<'_>>> = BTreeMap::new();
    for (place, event) in evidence
        .copy
        .iter()
        .enumerate()
        .filter(|(_, it)| it.connect)
    {
        if let Some(attempt) = event.attempt {
            sessions.entry(attempt).or_default().push(Session {
                connect: (place, event),
                disconnect: leaving.get(&*event.session).copied(),
            });
        }
    }
    sessions
}

/// Every event is about somebody who was there, knew the key, and was not sent away.
fn origin(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for event in evidence.copy {
        let attempt = event
            .attempt
            .and_then(|it| evidence.attempts.get(it as usize));
        let Some(attempt) = attempt else {
            verdict.find(format!("invented: {event:?} is nobody's"));
            continue;
        };
        let name = &evidence.clients[attempt.client];
        if attempt.guest != Guest::Honest || !attempt.asked || attempt.was_refused() {
            verdict.find(format!("invented: {event:?} of {attempt:?}"));
        }
        let is_there = evidence.slots[attempt.slot]
            .iter()
            .any(|it| **it == *event.instance);
        if event.thing != name.thing || event.client_id != name.client_id || !is_there {
            verdict.find(format!("mistaken: {event:?} of {attempt:?}, {name:?}"));
        }
    }
}

/// Who was let in has one session, and no other before it is closed; who has a session was let in, or never heard.
fn admitted(
    evidence: &Evidence<'_>,
    sessions: &BTreeMap<u64, Vec<Session<'_>>>,
    verdict: &mut Verdict,
) {
    let lost = evidence.journals.iter().filter(|it| it.is_lost);
    let lost = lost.flat_map(|journal| {
        let events = journal.events.iter();
        events.filter(|(position, event)| *position > journal.relayed && event.connect)
    });
    let buried: BTreeSet<u64> = lost.filter_map(|(_, event)| event.attempt).collect();
    for (number, attempt) in evidence.attempts.iter().enumerate() {
        let number = number as u64;
        let of_it = sessions.get(&number).map_or(&[][..], |it| it);
        match (attempt.admitted, of_it) {
            (Some(_), []) if buried.contains(&number) => verdict.buried += 1,
            (Some(_), []) => verdict.find(format!("lost: {attempt:?} ({number}) has no connect")),
            (None, [_, ..]) => verdict.unanswered += 1,
            _ => {}
        }
        verdict.reannounced += of_it.len().saturating_sub(1);
        for pair in of_it.windows(2) {
            let closed = pair[0].disconnect;
            let closed = closed
                .filter(|(place, event)| *place < pair[1].connect.0 && &*event.reason == FAILED);
            if closed.is_none() {
                let (first, second) = (pair[0].connect.1, pair[1].connect.1);
                verdict.find(format!("doubled: {first:?} and {second:?} of {attempt:?}"));
            }
        }
    }
}

/// What one client did on one instance is in the stream as it did it.
fn order(
    evidence: &Evidence<'_>,
    sessions: &BTreeMap<u64, Vec<Session<'_>>>,
    verdict: &mut Verdict,
) {
    type Line<'a> = Vec<(&'a Attempt, &'a [Session<'a>])>;
    let mut lines: BTreeMap<(&str, Arc<str>), Line<'_>> = BTreeMap::new();
    for (number, of_it) in sessions {
        let Some(attempt) = evidence.attempts.get(*number as usize) else {
            continue;
        };
        let client = &*evidence.clients[attempt.client].client_id;
        let instance = Arc::clone(&of_it[0].connect.1.instance);
        lines
            .entry((client, instance))
            .or_default()
            .push((attempt, of_it));
    }
    for line in lines.values_mut() {
        line.sort_by_key(|(_, of_it)| of_it[0].connect.0);
        for pair in line.windows(2) {
            let [(first, of_first), (second, of_second)] = pair else {
                unreachable!("pairs")
            };
            let (before, after) = (&of_first[of_first.len() - 1], &of_second[0]);
            // Who takes over comes when the other has left.
            let has_left = before
                .disconnect
                .is_some_and(|(place, _)| place < after.connect.0);
            if !has_left {
                verdict.find(format!(
                    "overlap: {:?} comes before {:?} has left",
                    after.connect.1, before.connect.1
                ));
            }
            let ended = second.ended.map_or(u64::MAX, |(at, _)| at);
            if second.admitted.is_some() && ended < first.began {
                verdict.find(format!(
                    "order: {first:?} comes before {second:?} in the stream"
                ));
            }
        }
    }
}

/// The stream has what the journal has, in its order. Whom others may have closed first is no part of that order.
fn compare(journal: &Journal, copy: &[Event], verdict: &mut Verdict) {
    fn key(event: &Event) -> (&str, bool, &str) {
        (&event.session, event.connect, &event.reason)
    }
    let due = journal
        .events
        .iter()
        .filter(|(position, _)| *position <= journal.relayed);
    let due: Vec<_> = due.map(|(_, event)| key(event)).collect();
    let noted: BTreeSet<_> = due.iter().copied().collect();
    let known: BTreeSet<&str> = due.iter().map(|(session, ..)| *session).collect();
    let mut told = Vec::new();
    for event in copy.iter().filter(|it| known.contains(&*it.session)) {
        match noted.contains(&key(event)) {
            true => told.push(key(event)),
            false if is_of_others(&event.reason) => {}
            false => verdict.find(format!(
                "{}: {event:?} is not in its journal",
                journal.instance
            )),
        }
    }
    let heard: BTreeSet<_> = told.iter().copied().collect();
    for event in due.iter().filter(|(_, connect, _)| *connect) {
        if !heard.contains(event) {
            verdict.find(format!(
                "{}: {event:?} is not in the stream",
                journal.instance
            ));
        }
    }
    let is_own = |it: &(&str, bool, &str)| heard.contains(it) && !is_of_others(it.2);
    told.retain(is_own);
    let in_order = due.into_iter().filter(is_own);
    let mut pairs = told.iter().zip(in_order);
    if let Some((told, noted)) = pairs.find(|(told, noted)| *told != noted) {
        verdict.find(format!(
            "{}: {told:?} where {noted:?} is due",
            journal.instance
        ));
    }
}

/// Whether another instance may have given this reason.
fn is_of_others(reason: &str) -> bool {
    [FAILED, TAKEN_OVER].contains(&reason)
}
