//! The roll in Redis: who is online, kept beside the stream of presence.
//!
//! Each instance has a part of it, and writes no other's but that of one that is gone.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, ParsingError, RedisError, RedisWrite, Value};
use rollcall_domain::event::Fields;
use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_domain::presence::{Farewell, Peer, Session};
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::Instant;
use uuid::Uuid;

use crate::connect::Client;
use crate::{BadUrl, Url};

/// A large roll takes Redis some time.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a part may be made anew before it is shown as it is, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The names of what is kept of the roll beside the stream, all in one slot with it.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) stream: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            stream: format!("{prefix}.mqtt"),
        }
    }

    /// How far each producer has come.
    fn producers(&self) -> String {
        format!("{{{}}}.producers", self.stream)
    }

    /// Of each instance the id of the entry at which its part is valid.
    pub(crate) fn roll(&self) -> String {
        format!("{{{}}}.roll", self.stream)
    }

    /// The sessions of an instance, each with its [`Row`].
    pub(crate) fn part(&self, instance: &str) -> String {
        format!("{{{}}}.roll:{instance}", self.stream)
    }

    /// By client the session that is online.
    pub(crate) fn clients(&self) -> String {
        format!("{{{}}}.clients", self.stream)
    }

    /// Sessions that the instance is to end, since their clients are elsewhere now.
    pub(crate) fn ousted(&self, instance: &str) -> String {
        format!("{{{}}}.ousted:{instance}", self.stream)
    }

    /// Runs out when the instance is gone.
    pub(crate) fn lease(&self, instance: &str) -> String {
        format!("{{{}}}.lease:{instance}", self.stream)
    }

    /// Keeps a copy of a journal from being relayed beside it.
    pub(crate) fn lease_of_journal(&self, producer: Uuid) -> String {
        format!("{{{}}}.journal:{producer}", self.stream)
    }

    /// Whose turn it is to look after the others.
    pub(crate) fn sweep(&self) -> String {
        format!("{{{}}}.sweep", self.stream)
    }

    /// When things left last: see `left.lua`.
    pub(crate) fn left(&self) -> String {
        format!("{{{}}}.left", self.stream)
    }

    /// The same of those that left earlier.
    pub(crate) fn left_before(&self) -> String {
        format!("{{{}}}.left:before", self.stream)
    }

    /// What else is known of an instance: its producer and epoch, how many sessions the part has, when the last event was.
    pub(crate) fn record(&self, instance: &str) -> String {
        format!("{{{}}}.instance:{instance}", self.stream)
    }
}

/// Adds what nobody but one session is to have: a client id, of a thing.
pub(crate) fn add_client(call: &mut Cmd, thing: impl Display, client_id: &str) {
    call.write_arg_fmt(format_args!("{thing}/{client_id}"));
}

/// What the roll says of a session, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub thing_id: String,
    pub instance: String,
    /// The `occurred_at` of its connect.
    pub since: String,
    pub client_id: String,
    pub protocol: String,
    pub peer: String,
}

impl Row {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("invariant: text")
    }

    /// What cannot be read, since it is not ours, is a row of nobody.
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The disconnect of a session whose instance is gone.
    pub(crate) fn farewell(self, session: &str, at: Timestamp, extended: bool) -> Fields {
        let mut fields: Fields = vec![
            ("thing_id".into(), self.thing_id.into()),
            ("event_type".into(), "disconnect".into()),
            ("instance".into(), self.instance.into()),
            ("occurred_at".into(), at.to_string().into()),
        ];
        if extended {
            let reason = Farewell::InstanceFailed.as_str();
            fields.extend([
                ("session_id".into(), session.to_owned().into()),
                ("client_id".into(), self.client_id.into()),
                ("sequence".into(), "2".into()),
                ("reason".into(), reason.into()),
                ("protocol".into(), self.protocol.into()),
                ("peer".into(), self.peer.into()),
            ]);
        }
        fields
    }
}

impl FromRedisValue for Row {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text: String = redis::from_redis_value(value)?;
        Ok(Self::parse(&text))
    }
}

/// Adds the [`Row`] of a session to a call, written in place: there may be millions.
pub(crate) fn add_row(call: &mut Cmd, session: &Session, since: Timestamp, instance: &str) {
    fn shown<T: Display, S: Serializer>(it: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(it)
    }
    #[derive(Serialize)]
    struct Row<'a> {
        #[serde(serialize_with = "shown")]
        thing_id: ThingId,
        instance: &'a str,
        #[serde(serialize_with = "shown")]
        since: Timestamp,
        client_id: &'a str,
        protocol: &'static str,
        #[serde(serialize_with = "shown")]
        peer: Peer,
    }
    let row = Row {
        thing_id: session.thing,
        instance,
        since,
        client_id: &session.client_id,
        protocol: session.protocol.as_str(),
        peer: session.peer,
    };
    serde_json::to_writer(call.writer_for_next_arg(), &row).expect("invariant: text");
}

/// The stream of presence and the roll, at one moment.
#[derive(Debug)]
pub struct View {
    /// The id of the last entry of the stream.
    pub last: String,
    /// Entries of the stream were deleted, or may have been.
    pub is_partial: bool,
    /// There is a roll, though it may have nobody: the stream is kept by rollcall.
    pub has_roll: bool,
    pub parts: Vec<Part>,
}

/// What an instance has of the roll.
#[derive(Debug)]
pub struct Part {
    pub instance: String,
    /// The entry at which it is valid; empty if whoever was to make it anew did not come to an end.
    pub id: String,
    /// By session.
    pub rows: Vec<(String, Row)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error(transparent)]
    BadUrl(#[from] BadUrl),
    #[error("cannot read from redis at {0}")]
    Redis(Url, #[source] RedisError),
    #[error("there is no stream {0}")]
    NoStream(String),
}

/// Looks at the stream and the roll.
///
/// # Errors
/// The address makes no sense, Redis does not answer, or has no such stream.
pub async fn view(url: &Url, prefix: &str) -> Result<View, ViewError> {
    let client = Client::open(url)?;
    let keys = Keys::new(prefix);
    let failed = |error| ViewError::Redis(url.clone(), error);
    let connection = client.connect(&keys.stream, TIMEOUT, Some(TIMEOUT)).await;
    let mut redis = connection.map_err(failed)?;
    let mut info = redis::cmd("XINFO");
    info.arg("STREAM").arg(&keys.stream);
    let info: Option<HashMap<String, Value>> = match info.query_async(&mut redis).await {
        Err(error) if error.to_string().contains("no such key") => None,
        info => Some(info.map_err(failed)?),
    };
    // Redis before 7 does not tell how many there were.
    let is_partial = info
        .as_ref()
        .is_none_or(|info| info.get("entries-added") != info.get("length"));
    let patience = Instant::now() + PATIENCE;
    loop {
        let names: Vec<String> = Cmd::hkeys(keys.roll())
            .query_async(&mut redis)
            .await
            .map_err(failed)?;
        if info.is_none() && names.is_empty() {
            return Err(ViewError::NoStream(keys.stream));
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        let last = pipeline.cmd("XREVRANGE").arg(&keys.stream);
        last.arg("+").arg("-").arg("COUNT").arg(1);
        pipeline.cmd("EXISTS").arg(keys.producers());
        pipeline.cmd("HGETALL").arg(keys.roll());
        for name in &names {
            pipeline.cmd("HGETALL").arg(keys.part(name));
        }
        let replies: Vec<Value> = pipeline.query_async(&mut redis).await.map_err(failed)?;
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        type Entries = Vec<(String, Value)>;
        let parsed = |error: redis::ParsingError| failed(error.into());
        let last: Entries = redis::from_redis_value(next()).map_err(parsed)?;
        let relayed: bool = redis::from_redis_value(next()).map_err(parsed)?;
        let ids: HashMap<String, String> = redis::from_redis_value(next()).map_err(parsed)?;
        if ids.len() != names.len() || !names.iter().all(|name| ids.contains_key(name)) {
            // Someone came or went in between.
            continue;
        }
        if ids.values().any(String::is_empty) && Instant::now() < patience {
            // A part is being made anew.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let mut parts = Vec::with_capacity(names.len());
        for instance in names {
            parts.push(Part {
                id: ids[&instance].clone(),
                rows: redis::from_redis_value(next()).map_err(parsed)?,
                instance,
            });
        }
        return Ok(View {
            last: last.into_iter().next().map_or("0-0".to_owned(), |it| it.0),
            is_partial,
            has_roll: relayed || !parts.is_empty(),
            parts,
        });
    }
}

#[cfg(test)]
mod tests {
    use rollcall_domain::identity::SessionId;
    use rollcall_domain::presence::Protocol;

    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let thing: ThingId = "01010101-0101-0101-0101-010101010101"
            .parse()
            .expect("an id");
        let session = Session {
            id: SessionId::generate(),
            thing,
            client_id: "a \"lamp\"\n\\ ☼".into(),
            protocol: Protocol::Mqtt311,
            peer: Peer::Ip("[::1]:1883".parse().expect("an address")),
        };
        let mut call = Cmd::new();
        add_row(
            &mut call,
            &session,
            Timestamp(1_693_312_937_471_064_150),
            "front \"1\"",
        );
        let packed = call.get_packed_command();
        let packed = String::from_utf8(packed).expect("text");
        // "*1", its length, itself.
        let text = packed.lines().nth(2).expect("an argument");
        let expected = Row {
            thing_id: thing.to_string(),
            instance: "front \"1\"".to_owned(),
            since: "1693312937471064150".to_owned(),
            client_id: session.client_id.to_string(),
            protocol: "mqtt3.1.1".to_owned(),
            peer: "[::1]:1883".to_owned(),
        };
        assert_eq!(Row::parse(text), expected);
    }
}
