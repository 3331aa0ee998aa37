//! The packets of MQTT 3.1.1 and 5 as they are read: every text and payload borrows from the read buffer.

use rollcall_domain::presence::Protocol;

/// A packet from a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Ack(Ack),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    PingReq,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connect<'a> {
    pub protocol: Protocol,
    pub clean_start: bool,
    /// Seconds; 0 is no keep-alive.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: ConnectProperties<'a>,
}

/// The properties of a CONNECT with their defaults (always the defaults in 3.1.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Seconds; 0 (default) ends the session with the connection, `u32::MAX` never.
    pub session_expiry: u32,
    /// Default 65,535; never 0.
    pub receive_maximum: u16,
    /// Bytes; `None` is no limit; never 0.
    pub maximum_packet_size: Option<u32>,
    /// Default 0.
    pub topic_alias_maximum: u16,
    pub request_response_information: bool,
    /// Default true.
    pub request_problem_information: bool,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
    pub user: UserProperties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Seconds.
    pub delay: u32,
    /// `topic_alias` is always `None`.
    pub properties: PublishProperties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only in MQTT 5 together with a topic alias. A valid topic name otherwise.
    pub topic: &'a str,
    /// `None` exactly for QoS 0; never 0.
    pub packet_id: Option<u16>,
    pub properties: PublishProperties<'a>,
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH or will. Clients may not send subscription identifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// 0: bytes, 1: UTF-8 text.
    pub payload_format: Option<u8>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    /// Never 0.
    pub topic_alias: Option<u16>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub content_type: Option<&'a str>,
    pub user: UserProperties<'a>,
}

impl PublishProperties<'_> {
    /// Whether `payload` is what the format indicator says it is.
    #[must_use]
    pub fn holds_for(&self, payload: &[u8]) -> bool {
        self.payload_format != Some(1) || std::str::from_utf8(payload).is_ok()
    }
}

/// The user properties of a packet, in order: the whole property block, already checked, to be walked again.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// The property block without its length; empty if the packet has no user property at all.
    pub(crate) block: &'a [u8],
}

/// Which acknowledgement an [`Ack`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub kind: AckKind,
    pub packet_id: u16,
    /// 0x00 in 3.1.1. Checked: a code that the standard lists for this packet.
    pub reason: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subscribe<'a> {
    pub packet_id: u16,
    pub subscription_identifier: Option<u32>,
    pub(crate) protocol: Protocol,
    /// The payload, already checked; walk it with [`Subscribe::filters`].
    pub(crate) payload: &'a [u8],
}

/// One topic filter of a SUBSCRIBE. The filter is UTF-8 without NUL, not checked further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    pub filter: &'a str,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent. 3.1.1 always has `SendAtSubscribe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    SendAtSubscribe,
    SendIfNew,
    DoNotSend,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    pub packet_id: u16,
    /// The payload, already checked; walk it with [`Unsubscribe::filters`].
    pub(crate) payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// 0x00 in 3.1.1.
    pub reason: u8,
    pub session_expiry: Option<u32>,
    pub reason_string: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auth<'a> {
    pub reason: u8,
    pub authentication_method: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
