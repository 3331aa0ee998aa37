//! What arrives in Redis, step by step.

use std::collections::BTreeMap;

use crate::golden::{self, Event, Golden};
use crate::redis_server::RedisServer;
use crate::world::{World, try_for};

use super::names::Names;
use super::step::Expected;

const STREAMS: [&str; 4] = ["users", "things", "bootstrap", "mqtt"];

pub(super) struct Ledger<'a> {
    redis: &'a RedisServer,
    goldens: Vec<Golden>,
    /// How many entries of each stream were looked at.
    seen: BTreeMap<&'static str, usize>,
    /// The latest `occurred_at` of each stream.
    latest: BTreeMap<&'static str, u64>,
    /// Operations that were met, by stream.
    pub(super) met: Vec<(String, String)>,
}

impl<'a> Ledger<'a> {
    /// Begins behind what the start of the server has caused.
    pub(super) fn begin(world: &World, redis: &'a RedisServer) -> Self {
        let mut ledger = Self {
            redis,
            goldens: golden::all(),
            seen: BTreeMap::new(),
            latest: BTreeMap::new(),
            met: Vec::new(),
        };
        ledger.expect_all(world);
        for stream in STREAMS {
            let count = ledger.stream(stream).len();
            ledger.seen.insert(stream, count);
        }
        ledger
    }

    fn stream(&self, stream: &str) -> Vec<Event> {
        self.redis.stream(&format!("mainflux.{stream}"))
    }

    /// Waits until Redis has what the server has kept, and has looked whether it is the same.
    pub(super) fn expect_all(&self, world: &World) {
        for stream in STREAMS {
            let kept = world.stream(stream);
            let arrived = try_for(|| (self.stream(stream).len() >= kept.len()).then_some(()));
            assert!(arrived.is_some(), "{stream}: {} are kept", kept.len());
            assert!(self.stream(stream) == kept, "{stream} is not what was kept");
        }
    }

    /// Nothing came that nobody has waited for.
    pub(super) fn expect_no_more(&self, world: &World) {
        self.expect_all(world);
        for stream in STREAMS {
            let more = self.stream(stream).split_off(self.seen[stream]);
            assert!(more.is_empty(), "{stream}: nobody expects {more:#?}");
        }
    }

    /// What is wrong with the next events.
    pub(super) fn check(&mut self, expected: &[Expected], names: &mut Names) -> Vec<String> {
        let mut wrong = Vec::new();
        for stream in STREAMS {
            let due: Vec<&Expected> = expected.iter().filter(|it| it.stream == stream).collect();
            let seen = self.seen[stream];
            try_for(|| {
                (self.redis.len(&format!("mainflux.{stream}")) >= seen + due.len()).then_some(())
            });
            let arrived = self.stream(stream).split_off(seen);
            self.seen.insert(stream, seen + arrived.len());
            let operations = |events: Vec<&str>| events.join(", ");
            if arrived.len() != due.len() {
                let due = operations(due.iter().map(|it| &*it.operation).collect());
                let arrived = operations(arrived.iter().map(operation).collect());
                wrong.push(format!("{stream} has [{arrived}], not [{due}]"));
                continue;
            }
            for (due, event) in due.into_iter().zip(&arrived) {
                self.time(stream, event, &mut wrong);
                self.compare(due, event, names, &mut wrong);
            }
        }
        wrong
    }

    fn time(&mut self, stream: &'static str, event: &Event, wrong: &mut Vec<String>) {
        let at = event.get("occurred_at").and_then(|at| at.parse().ok());
        let at: u64 = at.unwrap_or(0);
        let latest = self.latest.insert(stream, at).unwrap_or(0);
        if at <= latest {
            wrong.push(format!("{stream}: {at} does not follow {latest}"));
        }
    }

    fn compare(
        &mut self,
        due: &Expected,
        event: &Event,
        names: &mut Names,
        wrong: &mut Vec<String>,
    ) {
        let (stream, operation) = (&due.stream, &due.operation);
        let golden = self
            .goldens
            .iter()
            .find(|it| it.stream == *stream && it.operation == *operation);
        let golden = golden.unwrap_or_else(|| panic!("no golden of {operation} in {stream}"));
        self.met.push((stream.clone(), operation.clone()));
        let mut problems = golden.problems(event);
        for (field, value) in &due.fields {
            match (event.get(field), value) {
                (None, _) => problems.push(format!("{field} is missing")),
                (Some(found), Some(value)) if !names.met(value, found) => {
                    problems.push(format!("{field} is {found:?}, not {value:?}"));
                }
                _ => {}
            }
        }
        let optional = golden.fields.iter().filter(|field| field.optional);
        for field in optional.filter(|field| event.contains_key(&field.name)) {
            if !due.fields.is_empty() && !due.fields.iter().any(|(name, _)| *name == field.name) {
                problems.push(format!("nobody expects {}", field.name));
            }
        }
        wrong.extend(
            problems
                .iter()
                .map(|problem| format!("{stream} {operation}: {problem}")),
        );
    }
}

fn operation(event: &Event) -> &str {
    let name = event.get("operation").or_else(|| event.get("event_type"));
    name.map_or("?", |name| name)
}
