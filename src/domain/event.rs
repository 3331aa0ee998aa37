//! Everything the system announces, as streams carry it: flat fields of text.

mod exclude;

use std::borrow::Cow;
use std::fmt::Display;

use crate::entity::Update;
use crate::identity::{Timestamp, UserId};
use crate::listing::Visibility;
use crate::presence::{Change, Presence};

pub use exclude::{BadPattern, Exclude};

/// The four streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Users,
    Things,
    Bootstrap,
    Mqtt,
}

impl Stream {
    pub const ALL: [Self; 4] = [Self::Users, Self::Things, Self::Bootstrap, Self::Mqtt];

    /// The name after the prefix: `mqtt` in `mainflux.mqtt`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Things => "things",
            Self::Bootstrap => "bootstrap",
            Self::Mqtt => "mqtt",
        }
    }
}

impl std::str::FromStr for Stream {
    type Err = UnknownStream;

    /// Accepts the short name.
    fn from_str(text: &str) -> Result<Self, UnknownStream> {
        Self::ALL
            .into_iter()
            .find(|stream| stream.as_str() == text)
            .ok_or(UnknownStream)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown stream: choose one of users, things, bootstrap, mqtt")]
pub struct UnknownStream;

/// A name and its value.
pub type Field = (Cow<'static, str>, Cow<'static, str>);

/// The fields of one event in the order they are written.
pub type Fields = Vec<Field>;

/// An event at its place in an event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: u64,
    pub fields: Fields,
}

/// An event on its way into a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub stream: Stream,
    pub occurred_at: Timestamp,
    /// All fields but `occurred_at`, which the log adds: it must strictly increase within the log.
    pub fields: Fields,
}

impl Event {
    /// An event of a service: what was done, and the fields that have a value.
    #[must_use]
    pub fn operation(
        stream: Stream,
        operation: &'static str,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut all: Fields = vec![("operation".into(), operation.into())];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        all.extend(given.map(|(name, value)| (name.into(), value.into())));
        Self {
            stream,
            occurred_at: Timestamp::now(),
            fields: all,
        }
    }
}

/// A list of words as the users and things streams write it: `[a,b]`.
#[must_use]
pub fn list<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    format!("[{}]", words.join(","))
}

/// Whose entities were listed. The platform has one word for the caller, whose list it is.
#[must_use]
pub fn whose(owner: Option<UserId>, visibility: Visibility) -> [(&'static str, String); 2] {
    let owner = text(owner);
    let (owner, shared_by) = match visibility {
        Visibility::Mine => ("mine".to_owned(), ""),
        Visibility::Shared => (owner, "mine"),
        Visibility::All => (owner, ""),
    };
    [("owner", owner), ("sharedBy", shared_by.to_owned())]
}

/// The tags of something, if it has any.
pub(crate) fn tags(tags: &[String]) -> String {
    match tags {
        [] => String::new(),
        tags => list(tags),
    }
}

/// Metadata as compact JSON with sorted keys, safe to be put into a page.
#[must_use]
pub fn json(metadata: &serde_json::Map<String, serde_json::Value>) -> String {
    let text = serde_json::to_string(metadata).expect("invariant: JSON keys are text");
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// When something was changed last, and by whom; empty if it never was.
pub(crate) fn updated(update: Option<Update>) -> [(&'static str, String); 2] {
    [
        ("updated_at", text(update.map(|it| it.at.rfc3339()))),
        ("updated_by", text(update.map(|it| it.by))),
    ]
}

/// Empty for what is not there, so that the event does not have it.
pub(crate) fn text(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// The fields of `mainflux.mqtt`: exactly four, or those that tell the session, too, when `extended`.
#[must_use]
pub fn presence(presence: &Presence, instance: &str, extended: bool) -> Fields {
    let mut fields = Vec::with_capacity(10);
    tell_presence(presence, instance, extended, &mut |name, value| {
        fields.push((name.into(), value.to_string().into()));
    });
    fields
}

/// Tells the fields one by one, for who has no use for a list of them.
pub fn tell_presence(
    presence: &Presence,
    instance: &str,
    extended: bool,
    tell: &mut dyn FnMut(&'static str, &dyn Display),
) {
    let session = &presence.session;
    let (event_type, sequence, reason) = match presence.change {
        Change::Arrived => ("connect", "1", None),
        Change::Left(farewell) => ("disconnect", "2", Some(farewell.as_str())),
    };
    tell("thing_id", &session.thing);
    tell("event_type", &event_type);
    tell("instance", &instance);
    tell("occurred_at", &presence.at);
    if extended {
        tell("session_id", &session.id);
        tell("client_id", &session.client_id);
        tell("sequence", &sequence);
        if let Some(reason) = reason {
            tell("reason", &reason);
        }
        tell("protocol", &session.protocol.as_str());
        tell("peer", &session.peer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{SessionId, ThingId};
    use crate::presence::{Farewell, Peer, Protocol, Session};

    fn left() -> Presence {
        Presence {
            session: Arc::new(Session {
                id: SessionId::from_bytes([7; 16]),
                thing: ThingId::from_bytes([1; 16]),
                client_id: "lamp".into(),
                protocol: Protocol::Mqtt5,
                peer: Peer::Ip("127.0.0.1:9".parse().expect("address")),
            }),
            change: Change::Left(Farewell::KeepAliveTimeout),
            at: Timestamp(1_693_312_937_471_064_150),
        }
    }

    #[test]
    fn a_presence_event_has_exactly_the_four_fields_of_the_contract() {
        let fields = presence(&left(), "front-1", false);
        let expected = [
            ("thing_id", "01010101-0101-0101-0101-010101010101"),
            ("event_type", "disconnect"),
            ("instance", "front-1"),
            ("occurred_at", "1693312937471064150"),
        ];
        assert_eq!(fields, expected.map(|(n, v)| (n.into(), v.into())));
    }

    #[test]
    fn an_extended_event_tells_session_and_reason() {
        let fields = presence(&left(), "", true);
        let value = |name| fields.iter().find(|(n, _)| n == name).map(|(_, v)| &**v);
        assert_eq!(value("reason"), Some("keep_alive_timeout"));
        assert_eq!(value("sequence"), Some("2"));
        assert_eq!(value("client_id"), Some("lamp"));
        assert_eq!(value("protocol"), Some("mqtt5"));
        assert_eq!(value("peer"), Some("127.0.0.1:9"));
        assert_eq!(value("instance"), Some(""));
    }
}
