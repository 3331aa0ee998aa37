//! What can be wrong with bytes from a client.

use rollcall_domain::presence::Protocol;

use super::wire::Reader;

/// The first thing found wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the first packet is not a CONNECT")]
    NotConnect,
    #[error("packet type is reserved, or not for clients to send")]
    PacketType,
    #[error("reserved flags of the fixed header are set")]
    HeaderFlags,
    #[error("a length is encoded in too many bytes")]
    VariableByteInteger,
    #[error("the packet is larger than allowed")]
    PacketTooLarge,
    #[error("the packet ends too early")]
    Truncated,
    #[error("bytes are left after the end of the packet")]
    TrailingBytes,
    #[error("text is not UTF-8, or contains NUL")]
    Text,
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    #[error("protocol version {0} is not supported")]
    ProtocolVersion(u8),
    #[error("reserved connect flag is set")]
    ConnectFlags,
    #[error("the will flags contradict each other")]
    WillFlags,
    #[error("a password without a user name")]
    PasswordWithoutUsername,
    #[error("an empty client id needs a clean session")]
    ClientIdEmpty,
    #[error("QoS 3 does not exist")]
    QoS,
    #[error("DUP is set on a QoS 0 message")]
    DuplicateOnQoS0,
    #[error("the packet identifier is 0")]
    PacketId,
    #[error("the topic name is empty or has wildcards")]
    TopicName,
    #[error("the topic alias is 0")]
    TopicAlias,
    #[error("a property is unknown, or not for this packet")]
    PropertyUnknown,
    #[error("a property is given twice")]
    PropertyTwice,
    #[error("the value of a property is out of range")]
    PropertyValue,
    #[error("authentication data without a method")]
    AuthenticationData,
    #[error("the packet has no topic filter")]
    NoFilters,
    #[error("reserved bits of the subscription options are set")]
    SubscriptionOptions,
    #[error("QoS 3 is asked for")]
    RequestedQoS,
    #[error("there is no retain handling 3")]
    RetainHandling,
    #[error("no local is set on a shared subscription")]
    NoLocalShared,
    #[error("the reason code is not one of this packet")]
    ReasonCode,
}

impl Fault {
    /// The reason code of MQTT 5 (2.4) that tells a client of it.
    #[must_use]
    pub const fn reason(self) -> u8 {
        match self {
            Self::HeaderFlags
            | Self::VariableByteInteger
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Text
            | Self::ConnectFlags
            | Self::WillFlags
            | Self::QoS
            | Self::SubscriptionOptions
            | Self::PropertyUnknown
            | Self::ReasonCode
            | Self::DuplicateOnQoS0
            | Self::ProtocolName => 0x81,
            Self::NotConnect
            | Self::PacketType
            | Self::PasswordWithoutUsername
            | Self::PacketId
            | Self::PropertyTwice
            | Self::PropertyValue
            | Self::AuthenticationData
            | Self::NoFilters
            | Self::RequestedQoS
            | Self::RetainHandling
            | Self::NoLocalShared => 0x82,
            Self::ProtocolVersion(_) => 0x84,
            Self::ClientIdEmpty => 0x85,
            Self::TopicName => 0x90,
            Self::TopicAlias => 0x94,
            Self::PacketTooLarge => 0x95,
        }
    }
}

/// The CONNACK code for a faulty first packet; `None` if its sender is better not answered.
#[must_use]
pub fn refusal(fault: Fault, input: &[u8]) -> Option<(Protocol, u8)> {
    let protocol = match fault {
        Fault::NotConnect | Fault::ProtocolName => return None,
        // Later versions than we know take the answer of the latest, earlier ones that of 3.1.1.
        Fault::ProtocolVersion(version) if version > 5 => Protocol::Mqtt5,
        Fault::ProtocolVersion(_) => return Some((Protocol::Mqtt311, 1)),
        _ => version(input)?,
    };
    match (protocol, fault) {
        (Protocol::Mqtt5, _) => Some((protocol, fault.reason())),
        // Identifier rejected [MQTT-3.1.3-8].
        (Protocol::Mqtt31 | Protocol::Mqtt311, Fault::ClientIdEmpty) => Some((protocol, 2)),
        // Anything else is closed without an answer [MQTT-3.1.4-1].
        (Protocol::Mqtt31 | Protocol::Mqtt311, _) => None,
    }
}

/// The version that the beginning of a CONNECT asks for.
fn version(input: &[u8]) -> Option<Protocol> {
    let mut reader = Reader::new(input.get(1..)?);
    reader.variable().ok()?;
    match (reader.text().ok()?, reader.byte().ok()?) {
        ("MQIsdp", 3) => Some(Protocol::Mqtt31),
        ("MQTT", 4) => Some(Protocol::Mqtt311),
        ("MQTT", 5) => Some(Protocol::Mqtt5),
        _ => None,
    }
}
