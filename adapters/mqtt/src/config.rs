//! What can be set about the front.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who may do what.
    pub access: AccessMode,
    /// Addresses to listen on; port 0 takes any free one.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<SocketAddr>,
    /// Threads that own sockets and sessions; 0 is one per core.
    pub workers: usize,
    /// Connections at one time; later ones are closed unread.
    pub max_connections: usize,
    /// From accept to a complete CONNECT.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The largest packet taken from a client, header included.
    pub max_packet_size: ByteSize,
    /// QoS 1 and 2 messages under way at one time, each direction of a session.
    pub max_inflight: u16,
    /// Topic aliases a client may set up.
    pub max_topic_alias: u16,
    /// Subscriptions of a session.
    pub max_subscriptions: usize,
    /// What a session may leave unread: sent but not taken, and queued behind the window.
    pub session_queue_bytes: ByteSize,
    /// QoS 1 and 2 messages queued behind the window of a session, connected or not.
    pub session_queue_messages: usize,
    /// The longest a session is kept without a connection; longer wishes are cut to this.
    #[serde(with = "humantime_serde")]
    pub max_session_expiry: Duration,
    /// Sessions kept at one time, connected or not.
    pub max_sessions: usize,
    /// Retained messages.
    pub max_retained: usize,
    /// Bytes of all retained messages.
    pub max_retained_bytes: ByteSize,
    /// Questions to the things service that may be open at one time; later ones are refused as busy.
    pub max_questions: usize,
}

/// Who is let in, and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Things that prove who they are; each does what it was granted.
    Things,
    /// Everybody may do everything, and nobody goes on the roll.
    Open,
}

/// A list in a file, or text with commas, which is all that the environment has.
fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<SocketAddr>),
    }
    let addresses = match OneOrMany::deserialize(input) {
        Ok(OneOrMany::One(text)) => text.split(',').map(|it| it.trim().parse().ok()).collect(),
        Ok(OneOrMany::Many(list)) => Some(list),
        Err(_) => None,
    };
    addresses.filter(|list| !list.is_empty()).ok_or_else(|| {
        serde::de::Error::custom("expected an address such as \"0.0.0.0:1883\", or a list of them")
    })
}
