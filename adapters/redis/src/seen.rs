//! When a thing was seen last: its sessions on the roll, and when it left last.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use rollcall_domain::attendance::Left;
use rollcall_domain::identity::Timestamp;

use crate::Url;
use crate::connect::Client;
use crate::roll::{Keys, Row, TIMEOUT, ViewError};

/// Sessions of one reply.
const PAGE: usize = 1000;

/// What a Redis knows of a thing.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Where it is online, on whatever instance.
    pub(crate) sessions: Vec<(String, Row)>,
    /// Its last disconnect, if that is remembered.
    pub(crate) left: Option<Left>,
}

/// Reads a disconnect as `left.lua` notes it.
fn parse(text: &str) -> Option<Left> {
    let (id, rest) = text.split_once(' ')?;
    let (at, instance) = rest.split_once(' ')?;
    Some(Left {
        id: id.to_owned(),
        at: Timestamp(at.parse().ok()?),
        instance: instance.to_owned(),
    })
}

pub(crate) fn text(left: &Left) -> String {
    let Left { id, at, instance } = left;
    format!("{id} {at} {instance}")
}

/// Looks for a thing on the roll, some sessions at a time, and among those that left.
///
/// # Errors
/// The address makes no sense, or Redis does not answer.
pub(crate) async fn seen(url: &Url, prefix: &str, thing: &str) -> Result<Seen, ViewError> {
    let client = Client::open(url)?;
    let keys = Keys::new(prefix);
    let found = async {
        let connection = client.connect(&keys.stream, TIMEOUT, Some(TIMEOUT));
        find(&mut connection.await?, &keys, thing).await
    };
    found
        .await
        .map_err(|error| ViewError::Redis(url.clone(), error))
}

async fn find(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    thing: &str,
) -> Result<Seen, RedisError> {
    let mut seen = Seen::default();
    let instances: Vec<String> = Cmd::hkeys(keys.roll()).query_async(redis).await?;
    for instance in instances {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(keys.part(&instance)).arg(&cursor);
            scan.arg("COUNT").arg(PAGE);
            let rows: Vec<(String, String)>;
            (cursor, rows) = scan.query_async(redis).await?;
            let rows = rows.iter().filter(|(_, row)| row.contains(thing));
            let rows = rows.map(|(session, row)| (session.clone(), Row::parse(row)));
            seen.sessions
                .extend(rows.filter(|(_, row)| row.thing_id == thing));
            if cursor == "0" {
                break;
            }
        }
    }
    // A scan may come by twice.
    seen.sessions
        .sort_unstable_by(|(a, one), (b, other)| (&one.since, a).cmp(&(&other.since, b)));
    seen.sessions.dedup_by(|(a, _), (b, _)| a == b);
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    pipeline.hget(keys.left(), thing);
    pipeline.hget(keys.left_before(), thing);
    type Noted = (Option<String>, Option<String>);
    let (left, before): Noted = pipeline.query_async(redis).await?;
    seen.left = left.or(before).and_then(|text| parse(&text));
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_thing_that_left_is_read_as_it_was() {
        let left = Left {
            id: "1693312937471-0".into(),
            at: Timestamp(1_693_312_937_471_064_150),
            instance: "front 1".into(),
        };
        assert_eq!(parse(&text(&left)), Some(left));
        for other in ["", "1-0", "1-0 x", "1-0 x front"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
