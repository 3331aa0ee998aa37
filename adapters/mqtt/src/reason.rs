//! What happened, in the words of the protocol.

use rollcall_domain::access::AuthorityError;
use rollcall_domain::presence::Farewell;

pub(crate) const SUCCESS: u8 = 0x00;
pub(crate) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
pub(crate) const UNSPECIFIED: u8 = 0x80;
pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
pub(crate) const TOPIC_FILTER_INVALID: u8 = 0x8F;
pub(crate) const SHUTTING_DOWN: u8 = 0x8B;
pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(crate) const PACKET_ID_NOT_FOUND: u8 = 0x92;
pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
pub(crate) const MESSAGE_RATE_TOO_HIGH: u8 = 0x96;
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
pub(crate) const RETAIN_NOT_SUPPORTED: u8 = 0x9A;
pub(crate) const QOS_NOT_SUPPORTED: u8 = 0x9B;
pub(crate) const USE_ANOTHER_SERVER: u8 = 0x9C;
pub(crate) const SERVER_MOVED: u8 = 0x9D;
pub(crate) const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not spoken here, although it could be.
    Version,
    BadCredentials,
    BadClientId,
    WillNotAuthorized,
    WillQos,
    WillRetain,
    WillPayload,
    /// The CONNACK would be larger than the client takes.
    PacketTooLarge,
    /// Enhanced authentication is not offered [MQTT5-4.12.0-1].
    BadAuthenticationMethod,
    AccessUnavailable,
    TooManyQuestions,
    TooManySessions,
    /// Memory is short: sessions that are here already may go on, new ones must wait.
    MemoryShort,
    /// The address waits for the answer to an earlier guess.
    TooManyFailedLogins,
    TooManyConnections,
    WillTopicTooLong,
    JournalFull,
    JournalFailed,
    StoreFailed,
    ShuttingDown,
}

impl Refusal {
    pub(crate) const ALL: [Self; Self::ShuttingDown as usize + 1] = [
        Self::Version,
        Self::BadCredentials,
        Self::BadClientId,
        Self::WillNotAuthorized,
        Self::WillQos,
        Self::WillRetain,
        Self::WillPayload,
        Self::PacketTooLarge,
        Self::BadAuthenticationMethod,
        Self::AccessUnavailable,
        Self::TooManyQuestions,
        Self::TooManySessions,
        Self::MemoryShort,
        Self::TooManyFailedLogins,
        Self::TooManyConnections,
        Self::WillTopicTooLong,
        Self::JournalFull,
        Self::JournalFailed,
        Self::StoreFailed,
        Self::ShuttingDown,
    ];

    /// The return code of MQTT 3.1.1 (table 3.1) and the reason code of MQTT 5 (3.2.2.2).
    pub(crate) const fn codes(self) -> (u8, u8) {
        match self {
            Self::Version => (1, 0x84),
            Self::BadCredentials => (4, 0x86),
            Self::BadClientId => (2, 0x85),
            Self::WillNotAuthorized => (5, NOT_AUTHORIZED),
            // 3.1.1 has no word for it: not authorized comes closest.
            Self::WillQos => (5, QOS_NOT_SUPPORTED),
            Self::WillRetain => (5, RETAIN_NOT_SUPPORTED),
            Self::WillPayload => (5, PAYLOAD_FORMAT_INVALID),
            Self::PacketTooLarge => (5, 0x95),
            Self::BadAuthenticationMethod => (5, 0x8C),
            Self::AccessUnavailable
            | Self::JournalFailed
            | Self::StoreFailed
            | Self::ShuttingDown => (3, 0x88),
            Self::TooManyQuestions => (3, 0x89),
            Self::TooManySessions
            | Self::MemoryShort
            | Self::TooManyConnections
            | Self::JournalFull => (3, QUOTA_EXCEEDED),
            Self::TooManyFailedLogins => (3, CONNECTION_RATE_EXCEEDED),
            // 3.1.1 has no word for it: "not authorized" at least tells the client not to try again.
            Self::WillTopicTooLong => (5, TOPIC_NAME_INVALID),
        }
    }

    /// Whether another server may do better.
    pub(crate) const fn may_be_met_elsewhere(self) -> bool {
        matches!(
            self,
            Self::TooManySessions
                | Self::JournalFull
                | Self::JournalFailed
                | Self::StoreFailed
                | Self::ShuttingDown
        )
    }

    /// The label of the counter.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::BadCredentials => "bad_credentials",
            Self::BadClientId => "bad_client_id",
            Self::WillNotAuthorized => "will_not_authorized",
            Self::WillQos => "will_qos",
            Self::WillRetain => "will_retain",
            Self::WillPayload => "will_payload",
            Self::PacketTooLarge => "packet_too_large",
            Self::BadAuthenticationMethod => "bad_authentication_method",
            Self::AccessUnavailable => "access_unavailable",
            Self::TooManyQuestions => "too_many_questions",
            Self::TooManySessions => "too_many_sessions",
            Self::MemoryShort => "memory_short",
            Self::TooManyFailedLogins => "too_many_failed_logins",
            Self::TooManyConnections => "too_many_connections",
            Self::WillTopicTooLong => "will_topic_too_long",
            Self::JournalFull => "journal_full",
            Self::JournalFailed => "journal_failed",
            Self::StoreFailed => "store_failed",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The reason string.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "this version of MQTT is not enabled",
            Self::BadCredentials => "bad thing id or key",
            Self::BadClientId => "the client id is too long, or too short",
            Self::WillNotAuthorized => "not authorized to publish the will",
            Self::WillQos => "the QoS of the will is not supported",
            Self::WillRetain => "the will is to be retained, which is not supported",
            Self::WillPayload => "the payload of the will is not UTF-8",
            Self::PacketTooLarge => "the answer does not fit the maximum packet size",
            Self::BadAuthenticationMethod => "no authentication method is supported",
            Self::AccessUnavailable => "cannot reach the things service",
            Self::TooManyQuestions => "too many logins at one time",
            Self::TooManySessions => "too many sessions",
            Self::MemoryShort => "memory is short",
            Self::TooManyFailedLogins => "too many failed logins: wait a moment",
            Self::TooManyConnections => "the thing has too many connections",
            Self::WillTopicTooLong => "the topic of the will is too long or has too many levels",
            Self::JournalFull => "the event journal is full",
            Self::JournalFailed => "the event journal cannot be written",
            Self::StoreFailed => "sessions cannot be kept now",
            Self::ShuttingDown => "shutting down",
        }
    }
}

/// The reason string of a code, where nobody says more.
pub(crate) const fn explain(code: u8) -> Option<&'static str> {
    Some(match code {
        UNSPECIFIED => "cannot be done now",
        0x81 => "malformed packet",
        PROTOCOL_ERROR => "protocol error",
        NOT_AUTHORIZED => "not authorized",
        SHUTTING_DOWN => "shutting down",
        0x8D => "nothing was heard for one and a half keep-alives",
        0x8E => "another connection has taken over the session",
        TOPIC_FILTER_INVALID => "the topic filter is malformed, or too long or deep",
        TOPIC_NAME_INVALID => "the topic name is malformed, or too long or deep",
        PACKET_ID_NOT_FOUND => "no such packet identifier is in use",
        RECEIVE_MAXIMUM_EXCEEDED => "more messages under way than the receive maximum",
        TOPIC_ALIAS_INVALID => "the topic alias is 0 or above the maximum",
        PACKET_TOO_LARGE => "the packet is too large",
        MESSAGE_RATE_TOO_HIGH => "too many messages in too little time",
        QUOTA_EXCEEDED => "a quota is exceeded",
        0x98 => "an administrator has ended the session",
        PAYLOAD_FORMAT_INVALID => "the payload is not UTF-8",
        RETAIN_NOT_SUPPORTED => "messages cannot be retained",
        QOS_NOT_SUPPORTED => "the QoS is above the maximum",
        _ => return None,
    })
}

/// Whether a DISCONNECT or CONNACK of this code may name another server.
pub(crate) const fn may_refer(code: u8) -> bool {
    matches!(code, SHUTTING_DOWN | USE_ANOTHER_SERVER | SERVER_MOVED)
}

impl From<&AuthorityError> for Refusal {
    fn from(error: &AuthorityError) -> Self {
        match error {
            AuthorityError::Denied => Self::BadCredentials,
            AuthorityError::Unavailable(_) => Self::AccessUnavailable,
        }
    }
}

/// The reason code of the DISCONNECT that tells a client of an end it did not choose.
pub(crate) const fn disconnect(farewell: Farewell) -> u8 {
    match farewell {
        Farewell::Disconnected | Farewell::ConnectionLost => SUCCESS,
        Farewell::KeepAliveTimeout => 0x8D,
        Farewell::TakenOver => 0x8E,
        Farewell::ProtocolError => PROTOCOL_ERROR,
        Farewell::TooSlow => QUOTA_EXCEEDED,
        Farewell::RateExceeded => MESSAGE_RATE_TOO_HIGH,
        Farewell::Revoked => NOT_AUTHORIZED,
        Farewell::ServerShutdown | Farewell::InstanceFailed => SHUTTING_DOWN,
        // Administrative action.
        Farewell::Kicked => 0x98,
    }
}
