//! What outlives a connection, and this process: sessions, what waits for them, wills, retained messages.
//!
//! The messages themselves are packets that only the edge can read.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ThingId, Timestamp};
use crate::presence::Protocol;

/// Names a session as long as anything is kept of it. Sessions and messages are numbered together.
pub type SessionNumber = NonZeroU64;
/// Names a message as long as it is kept. Of two for a session, the one with the lower number came first.
pub type MessageNumber = NonZeroU64;

/// Whose session it is, and what its last connection was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `None` for a client that nobody authenticated.
    pub thing: Option<ThingId>,
    pub client_id: Box<str>,
    pub protocol: Protocol,
    /// How long it outlives its connection; zero for one that is kept for its will alone.
    pub expiry: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub filter: Box<str>,
    /// As in a SUBSCRIBE packet of MQTT 5.
    pub options: u8,
    pub identifier: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A packet, as it is encoded in `protocol`.
    pub packet: Arc<[u8]>,
    pub protocol: Protocol,
    pub qos: u8,
    pub retain: bool,
    /// When it may no longer be sent.
    pub expires: Option<Timestamp>,
}

/// How a message is to be sent to one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub message: MessageNumber,
    pub qos: u8,
    pub retain: bool,
    /// Properties of the packet that are for this session alone, as they are sent.
    pub properties: Box<[u8]>,
    /// The filter of the shared subscription that it came by.
    pub group: Option<Box<str>>,
    /// Its place among all that was ever sent in the session, which its packet identifier follows from;
    /// `None` as long as it waits.
    pub place: Option<u64>,
    /// The client has it, but may not have heard that this is known. Of two in a session, the one with the
    /// lower number was released first.
    pub released: Option<NonZeroU64>,
}

/// Published when its session has lost its connection for so long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Its expiry counts from when it is published.
    pub message: Message,
    pub delay: Duration,
}

/// A change of what is kept. What is about a session that is not kept (any more) changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session begins, or goes on with another connection: with this will, in place of an earlier one.
    Connected(SessionNumber, Session, Option<Will>),
    /// The connection of a session has ended.
    Left {
        session: SessionNumber,
        ends: Timestamp,
        /// When its will is to be published, if that is not done with.
        will: Option<Timestamp>,
    },
    /// The will of a session is published, or never to be.
    WillGone(SessionNumber),
    /// A session ends, with all that is kept for it.
    Ended(SessionNumber),
    /// Adds a subscription, or replaces the one to the same filter.
    Subscribed(SessionNumber, Subscription),
    Unsubscribed(SessionNumber, Box<str>),
    /// A message, followed in the same batch by what it is queued for.
    Message(MessageNumber, Message),
    Queued(SessionNumber, Delivery),
    /// A delivery is on its way, in this place.
    Sent(SessionNumber, MessageNumber, u64),
    /// The client has a QoS 2 message; what is left is to agree on that.
    Released(SessionNumber, MessageNumber, NonZeroU64),
    /// A delivery is over. A message goes with its last one.
    Done(SessionNumber, MessageNumber),
    /// A QoS 2 message came under this packet identifier, which stands for it until it is released.
    Received(SessionNumber, u16),
    Unreceived(SessionNumber, u16),
    /// The retained message of a topic; `None` clears it.
    Retained(Box<str>, Option<Message>),
}

/// Called once, from a thread of the store, when a batch is kept. Must not block.
pub type Kept = Box<dyn FnOnce() + Send>;

/// Where sessions are kept.
pub trait SessionStore: Send + Sync {
    /// Keeps `batch` behind all that was given before, whole or not at all, and calls `kept` when it is durable.
    /// Never blocks; batches that wait are committed together. What cannot be written waits until it can
    /// be, and all that comes after it too, in order; `kept` is never called for what is not kept.
    fn keep(&self, batch: Vec<Change>, kept: Kept);

    /// The last attempt to write has failed: whoever can should not ask for more.
    fn is_failing(&self) -> bool;

    /// Bytes that wait to be written, about.
    fn backlog(&self) -> usize;
}

/// A session as an earlier run left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    pub number: SessionNumber,
    pub session: Session,
    /// The moment may have passed. Whoever was connected when that run ended has left with it.
    pub ends: Timestamp,
    /// In the order in which they were made.
    pub subscriptions: Vec<Subscription>,
    /// Those that were sent by their places, then those that wait by their messages.
    pub deliveries: Vec<Delivery>,
    pub received: Vec<u16>,
    /// And when it is to be published.
    pub will: Option<(Will, Timestamp)>,
}

/// Everything that an earlier run left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub sessions: Vec<KeptSession>,
    /// Those that are to be delivered.
    pub messages: Vec<(MessageNumber, Message)>,
    pub retained: Vec<(Box<str>, Message)>,
    /// No session or message has this number, or a later one.
    pub next: u64,
}
