//! How far a producer has come, by what its stream ends with: for when the table that says so was lost, alone.

use redis::aio::MultiplexedConnection;
use rollcall_domain::event::{Entry, Fields};
use rollcall_domain::ports::{EventLog, LogError};

use crate::relay::Trouble;
use crate::stream::{self, RawEntries};

/// Entries at the end of the stream that are looked at: others may write there too.
const TAIL: usize = 1000;
/// Of these, how many are looked for in the log.
const TRIES: usize = 100;

/// The position of the last event of the log that the stream has; none if none of the last ones is its.
pub(crate) async fn find(
    redis: &mut MultiplexedConnection,
    stream: &str,
    log: &dyn EventLog,
) -> Result<Option<u64>, Trouble> {
    let last = log.last();
    let Some(newest) = log.read(last.saturating_sub(1), 1).await?.pop() else {
        return Ok(None);
    };
    let instance = value(&newest.fields, "instance");
    let mut tail = redis::cmd("XREVRANGE");
    tail.arg(stream).arg("+").arg("-").arg("COUNT").arg(TAIL);
    let tail: RawEntries = tail.query_async(redis).await?;
    let tail = stream::entries(tail);
    let ours = tail.filter(|entry| value(&entry.fields, "instance") == instance);
    for entry in ours.take(TRIES) {
        if let Some(position) = find_entry(log, &entry.fields).await? {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The position of an event of these fields. Later events of a log occurred later.
async fn find_entry(log: &dyn EventLog, fields: &Fields) -> Result<Option<u64>, LogError> {
    let at = occurred_at(fields);
    let (mut low, mut high) = (0, log.last());
    while low < high {
        let middle = low + (high - low) / 2;
        match log.read(middle, 1).await?.pop() {
            Some(Entry {
                position,
                fields: found,
            }) if occurred_at(&found) <= at => {
                if occurred_at(&found) == at {
                    return Ok(are_alike(&found, fields).then_some(position));
                }
                low = position;
            }
            _ => high = middle,
        }
    }
    Ok(None)
}

/// Whether they are of one event, though one of them may tell more.
fn are_alike(one: &Fields, other: &Fields) -> bool {
    one.iter()
        .all(|(name, told)| value(other, name).is_none_or(|it| it == told))
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| &**value)
}

fn occurred_at(fields: &Fields) -> u64 {
    let at = value(fields, "occurred_at");
    at.and_then(|at| at.parse().ok()).unwrap_or(0)
}
