//! The roll in Redis: who is online, kept beside the stream of presence.
//!
//! Each instance has a part of it, and writes no other's but that of one that is gone.

use rollcall_domain::event::Fields;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::presence::{Farewell, Session};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

    /// Of each instance the id of the entry at which its part is valid.
    pub(crate) fn roll(&self) -> String {
        format!("{{{}}}.roll", self.stream)
    }

    /// The sessions of an instance, each with its [`Row`].
    pub(crate) fn part(&self, instance: &str) -> String {
        format!("{{{}}}.roll:{instance}", self.stream)
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

    /// What else is known of an instance: its producer and epoch, how many sessions the part has, when the last event was.
    pub(crate) fn record(&self, instance: &str) -> String {
        format!("{{{}}}.instance:{instance}", self.stream)
    }
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
    pub(crate) fn new(session: &Session, since: Timestamp, instance: &str) -> Self {
        Self {
            thing_id: session.thing.to_string(),
            instance: instance.to_owned(),
            since: since.to_string(),
            client_id: session.client_id.to_string(),
            protocol: session.protocol.as_str().to_owned(),
            peer: session.peer.to_string(),
        }
    }

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
