//! Who is here: each admitted session arrives once and leaves once, in that order.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

use crate::identity::{SessionId, ThingId, Timestamp};
use crate::ports::{EventLog, LogError};

/// One accepted MQTT connection of a thing: what is known of it from the arrival to the farewell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub thing: ThingId,
    pub client_id: Box<str>,
    pub protocol: Protocol,
    pub peer: Peer,
}

/// Where a client speaks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Ip(SocketAddr),
    /// A program on this machine, over a unix socket.
    Unix,
}

impl Peer {
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The protocol a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `MQIsdp`, before there was a standard.
    Mqtt31,
    Mqtt311,
    Mqtt5,
}

impl Protocol {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt31 => "mqtt3.1",
            Self::Mqtt311 => "mqtt3.1.1",
            Self::Mqtt5 => "mqtt5",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client said DISCONNECT.
    Disconnected,
    /// The socket closed or broke without a DISCONNECT.
    ConnectionLost,
    /// Nothing was heard for one and a half keep-alive intervals [MQTT5-3.1.2-22].
    KeepAliveTimeout,
    /// The same client id connected again [MQTT5-3.1.4-3].
    TakenOver,
    /// The client broke the protocol.
    ProtocolError,
    /// The client left more unread than its session may queue.
    TooSlow,
    /// The thing was disabled, or its key changed.
    Revoked,
    /// This instance was told to stop.
    ServerShutdown,
    /// Its instance died: closed by another, or by itself when it came back and found the session open.
    InstanceFailed,
    /// An administrator ended it.
    Kicked,
    /// The client published faster than it may.
    RateExceeded,
}

impl Farewell {
    /// In an order that stays: journals keep the place. What is new goes to the end.
    pub const ALL: [Self; 11] = [
        Self::Disconnected,
        Self::ConnectionLost,
        Self::KeepAliveTimeout,
        Self::TakenOver,
        Self::ProtocolError,
        Self::TooSlow,
        Self::Revoked,
        Self::ServerShutdown,
        Self::InstanceFailed,
        Self::Kicked,
        Self::RateExceeded,
    ];

    /// The `reason` of an extended event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::ConnectionLost => "connection_lost",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::TakenOver => "taken_over",
            Self::ProtocolError => "protocol_error",
            Self::TooSlow => "too_slow",
            Self::Revoked => "revoked",
            Self::ServerShutdown => "server_shutdown",
            Self::InstanceFailed => "instance_failed",
            Self::Kicked => "kicked",
            Self::RateExceeded => "rate_exceeded",
        }
    }
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Arrived,
    Left(Farewell),
}

/// A change of the roll: which session, what, when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub session: Arc<Session>,
    pub change: Change,
    pub at: Timestamp,
}

/// What became of the arrivals of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Kept, as durably as the journal promises: the clients may be told.
    Kept,
    /// Not kept: the journal has reached its bound. Refuse the clients.
    Full,
    /// Not kept: the journal cannot be written. Refuse the clients.
    Failed,
}

/// Called once, from a thread of the journal, when the fate of a batch is known. Must not block.
pub type Kept = Box<dyn FnOnce(Arrivals) + Send>;

/// Where changes of the roll are kept.
pub trait PresenceLog: Send + Sync {
    /// Appends `batch` behind all that was appended before, in its order, and calls `kept` when it is
    /// durable. Never blocks; batches that wait are committed together.
    ///
    /// The arrivals of a batch are kept or refused as one. The departure of a session that is on the roll
    /// is always kept, if need be later (after a failed write it is tried again ahead of everything newer):
    /// its room was reserved when the session arrived. The departure of a session that is not on the roll,
    /// since its arrival was refused, is dropped; so it may be appended any time after the arrival.
    fn append(&self, batch: Vec<Presence>, kept: Kept);
}

/// A session that is on the roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Online {
    pub session: Arc<Session>,
    pub since: Timestamp,
}

/// Who is online now.
pub trait Roll: Send + Sync {
    /// The name of this instance, as events carry it.
    fn instance(&self) -> &str;

    /// Everyone whose arrival is durable and whose farewell is not, the earliest first.
    fn online(&self) -> Vec<Online>;

    /// As [`Roll::online`], of one thing.
    fn online_of(&self, thing: ThingId) -> Vec<Online>;

    /// How many they are.
    fn len(&self) -> usize;

    /// The roll and the position of the journal that it is of, at one moment.
    fn snapshot(&self) -> Snapshot;

    /// The id with which a session was let in: another than the one on the roll if it was announced anew.
    fn admitted_as(&self, session: SessionId) -> SessionId {
        session
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A change of the roll at its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub position: u64,
    /// The name of the instance when it was noted.
    pub instance: Arc<str>,
    pub presence: Presence,
}

/// The roll as of one event of the journal.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub position: u64,
    /// The earliest first, each with the position of its arrival; 0 for arrivals of an earlier run.
    pub online: Vec<(u64, Online)>,
}

/// The journal as whoever announces it elsewhere needs it.
#[async_trait]
pub trait Journal: EventLog + Roll {
    /// As [`EventLog::read`], before it becomes text.
    async fn read_changes(&self, position: u64, limit: usize) -> Result<Vec<Noted>, LogError>;

    /// Notes that `sessions` were closed by others, though they are alive: each leaves, and goes on as another
    /// session. Its own departure, when it comes, is that of the other. Returns when that is kept, or known to
    /// be kept later; who has left in the meantime is left out.
    async fn reannounce(&self, sessions: Vec<SessionId>);

    /// Where the journal is: no two journals that are open at one time are at the same place.
    fn place(&self) -> &str;
}

/// Which sessions an administrator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Session(SessionId),
    /// All sessions of a thing.
    Thing(ThingId),
}

/// An administrator's wish to end sessions.
#[derive(Clone, Debug)]
pub struct Kick {
    pub whom: Whom,
    /// Told to clients that can be told.
    pub reason: Option<KickReason>,
    /// What is kept for them to come back to goes too; of a thing, also that of absent sessions.
    pub forget: bool,
}

/// Why a session is ended by hand: short, and fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KickReason(Box<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reason has 1 to 256 bytes and no control characters")]
pub struct BadReason;

impl std::str::FromStr for KickReason {
    type Err = BadReason;

    fn from_str(text: &str) -> Result<Self, BadReason> {
        let sound = (1..=256).contains(&text.len()) && !text.contains(char::is_control);
        sound.then(|| Self(text.into())).ok_or(BadReason)
    }
}

impl KickReason {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What became of a [`Kick`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicked {
    /// Live sessions that were ended.
    pub ended: usize,
    /// Sessions that were discarded, live or absent.
    pub forgotten: usize,
}

/// The live sessions of this instance, as far as they can be ended.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Returns when the clients are on their way out.
    async fn kick(&self, kick: Kick) -> Kicked;

    /// Ends `sessions`, whose clients have begun others on other instances. Nothing is kept for them to come back to: a
    /// client that was told elsewhere that there is no session must not find an old one here. Who is gone already is left
    /// out.
    fn take_over(&self, sessions: HashSet<SessionId>);
}
