//! The roll made anew from the stream, where no journal can do so.
//!
//! An instance that is alive makes its part anew itself, from what it knows. What one that is gone had is what the
//! stream says of it; whoever is alive then closes these sessions.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use rollcall_domain::attendance::Left;
use rollcall_domain::event::Fields;
use rollcall_domain::identity::Timestamp;

use crate::connect::Client;
use crate::roll::{Keys, Row, TIMEOUT, View, ViewError, view};
use crate::script::Script;
use crate::stream::{Reader, place};
use crate::{Url, seen};

static REPAIR: Script = Script::new(include_str!("repair.lua"));
static CLEAR: Script = Script::new(include_str!("clear.lua"));
static RECALL: Script = Script::new(concat!(
    include_str!("left.lua"),
    include_str!("recall.lua")
));
static TIDY: Script = Script::new(include_str!("tidy.lua"));

/// Sessions of one script call.
const STEP: usize = 256;

/// What became of the parts.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Instances that are alive and were told to make their parts anew.
    pub told: Vec<String>,
    /// Instances that are gone, and how many sessions they had open.
    pub made: Vec<(String, usize)>,
    /// Instances that came or were closed at the same time.
    pub raced: Vec<String>,
}

/// Who is online by the stream.
#[derive(Default)]
struct Sum {
    sessions: HashMap<String, Row>,
    /// Sessions that left and had not come: they came before the stream begins.
    earlier: HashSet<String>,
    /// Of events that name no session, those that are open of a thing on an instance.
    unnamed: HashMap<(String, String), Vec<String>>,
    first_at: u64,
    /// Of each instance the last event: its time and its entry.
    last: BTreeMap<String, (String, String)>,
    /// Of each thing the last disconnect.
    left: HashMap<String, Left>,
}

impl Sum {
    fn add(&mut self, id: &str, fields: &Fields) {
        let value = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_string())
        };
        let text = |name: &str| value(name).unwrap_or_default();
        let (thing, instance, at) = (text("thing_id"), text("instance"), text("occurred_at"));
        if self.first_at == 0 {
            self.first_at = at.parse().unwrap_or(0);
        }
        let last = (at.clone(), id.to_owned());
        self.last.insert(instance.clone(), last);
        let key = (thing.clone(), instance.clone());
        if text("event_type") == "connect" {
            let session = value("session_id").unwrap_or_else(|| {
                let name = format!("{thing}@{at}");
                self.unnamed.entry(key).or_default().push(name.clone());
                name
            });
            let row = Row {
                thing_id: thing,
                instance,
                since: at,
                client_id: text("client_id"),
                protocol: text("protocol"),
                peer: text("peer"),
            };
            self.sessions.insert(session, row);
            return;
        }
        let left = Left {
            id: id.to_owned(),
            at: Timestamp(at.parse().unwrap_or(0)),
            instance,
        };
        self.left.insert(thing, left);
        let unnamed = self.unnamed.get_mut(&key);
        let session = value("session_id").or_else(|| unnamed.and_then(Vec::pop));
        if let Some(session) = session
            && self.sessions.remove(&session).is_none()
        {
            self.earlier.insert(session);
        }
    }

    /// What an instance has: also who came before the stream begins and is still on the roll.
    fn part(&self, instance: &str, view: &View) -> Vec<(String, Row)> {
        let before = view.parts.iter().filter(|part| part.instance == instance);
        let before = before.flat_map(|part| &part.rows).filter(|(session, row)| {
            // Of a stream that has lost everything, all began before.
            let began_before =
                self.first_at == 0 || row.since.parse::<u64>().is_ok_and(|at| at < self.first_at);
            view.is_partial && began_before && !self.earlier.contains(session)
        });
        let sessions = self.sessions.iter();
        let found = sessions.filter(|(_, row)| row.instance == instance);
        let own = |(session, row): (&String, &Row)| (session.clone(), row.clone());
        let mut part: Vec<_> = found.map(own).collect();
        part.extend(before.cloned());
        part
    }
}

/// Makes the roll anew.
///
/// # Errors
/// The address makes no sense, Redis does not answer, or has no such stream.
pub async fn rebuild(url: &Url, prefix: &str) -> Result<Repaired, ViewError> {
    let failed = |error| ViewError::Redis(url.clone(), error);
    let keys = Keys::new(prefix);
    let client = Client::open(url)?;
    let connection = client.connect(&keys.stream, TIMEOUT, Some(TIMEOUT)).await;
    let mut redis = connection.map_err(failed)?;
    for script in [&CLEAR, &REPAIR, &RECALL, &TIDY] {
        script.load(&mut redis).await.map_err(failed)?;
    }
    clear(&mut redis, &keys).await.map_err(failed)?;
    let view = view(url, prefix).await?;
    let mut sum = Sum::default();
    let mut reader = Reader::new(url, keys.stream.clone(), 0)?;
    let end = place(&view.last);
    'reading: loop {
        let entries = reader.next().await.map_err(failed)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if place(&entry.id) > end {
                break 'reading;
            }
            sum.add(&entry.id, &entry.fields);
        }
    }
    recall(&mut redis, &keys, std::mem::take(&mut sum.left))
        .await
        .map_err(failed)?;
    let mut repaired = Repaired::default();
    let mut instances: Vec<String> = sum.last.keys().cloned().collect();
    instances.extend(view.parts.iter().map(|part| part.instance.clone()));
    instances.sort_unstable();
    instances.dedup();
    for instance in instances {
        let part = sum.part(&instance, &view);
        let last = sum.last.get(&instance).cloned().unwrap_or_default();
        let is_listed = view.parts.iter().any(|part| part.instance == instance);
        let outcome = step(&mut redis, &keys, &instance, &part, &last, is_listed);
        match outcome.await.map_err(failed)?.as_str() {
            "" if part.is_empty() && !is_listed => {}
            "" => repaired.made.push((instance, part.len())),
            "alive" => repaired.told.push(instance),
            _ => repaired.raced.push(instance),
        }
    }
    tidy(&mut redis, &keys).await.map_err(failed)?;
    Ok(repaired)
}

/// Takes away what is of the wrong kind.
async fn clear(redis: &mut MultiplexedConnection, keys: &Keys) -> Result<(), RedisError> {
    let clear = |names: Vec<String>| {
        let mut call = CLEAR.call();
        call.arg(names.len()).arg(names);
        call
    };
    clear(vec![keys.roll(), keys.clients()])
        .exec_async(redis)
        .await?;
    let instances: Vec<String> = Cmd::hkeys(keys.roll()).query_async(redis).await?;
    for instance in instances {
        let names = [
            keys.part(&instance),
            keys.record(&instance),
            keys.ousted(&instance),
        ];
        clear(names.into()).exec_async(redis).await?;
    }
    Ok(())
}

/// Notes when things left last, the latest first, as far as there is room.
async fn recall(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    left: HashMap<String, Left>,
) -> Result<(), RedisError> {
    let mut left: Vec<_> = left.into_iter().collect();
    left.sort_unstable_by_key(|(_, left)| std::cmp::Reverse(place(&left.id)));
    for step in left.chunks(STEP) {
        let mut call = RECALL.call();
        call.arg(1).arg(&keys.stream);
        for (thing, left) in step {
            call.arg(thing).arg(seen::text(left));
        }
        let has_room: bool = call.query_async(redis).await?;
        if !has_room {
            break;
        }
    }
    Ok(())
}

/// Frees what is kept for clients that nobody has on the roll.
async fn tidy(redis: &mut MultiplexedConnection, keys: &Keys) -> Result<(), RedisError> {
    let mut cursor = "0".to_owned();
    loop {
        let mut call = TIDY.call();
        call.arg(2).arg(&keys.stream).arg(keys.clients());
        cursor = call.arg(&cursor).query_async(redis).await?;
        if cursor == "0" {
            return Ok(());
        }
    }
}

/// Makes the part of one instance anew, or has it do so.
async fn step(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    instance: &str,
    part: &[(String, Row)],
    (at, id): &(String, String),
    is_listed: bool,
) -> Result<String, RedisError> {
    let record = keys.record(instance);
    let call = |step: &str| {
        let mut call = REPAIR.call();
        call.arg(4).arg(keys.roll()).arg(keys.part(instance));
        call.arg(&record).arg(keys.lease(instance));
        call.arg(instance).arg(step);
        call
    };
    let mut clear = CLEAR.call();
    clear.arg(2).arg(keys.part(instance)).arg(&record);
    clear.exec_async(redis).await?;
    let alive: bool = Cmd::exists(keys.lease(instance)).query_async(redis).await?;
    let known: Option<String> = Cmd::hget(&record, "at").query_async(redis).await?;
    let known = known.unwrap_or_default();
    if !alive && !known.is_empty() && known > *at && !at.is_empty() {
        // Its last event came after the stream was read.
        return Ok("raced".to_owned());
    }
    let mut outcome: String = call("begin").arg(&known).query_async(redis).await?;
    for rows in part.chunks(STEP) {
        if outcome.is_empty() {
            let mut call = call("add");
            for (session, row) in rows {
                call.arg(session).arg(row.text());
            }
            outcome = call.query_async(redis).await?;
        }
    }
    // Who is not on the roll and has nobody need not be there.
    if outcome.is_empty() && (is_listed || !part.is_empty()) {
        let mut end = call("end");
        end.arg(at).arg(if id.is_empty() { "0-0" } else { id });
        outcome = end.query_async(redis).await?;
    }
    if outcome == "alive" {
        // It looks whether this is what its part has, and makes the part anew.
        Cmd::hset(&record, "sessions", "")
            .query_async::<()>(redis)
            .await?;
    }
    Ok(outcome)
}
