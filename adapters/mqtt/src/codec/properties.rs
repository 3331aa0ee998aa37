//! The properties of MQTT 5 (2.2.2): which packet may carry which, and what values they take.

use super::wire::Reader;
use super::{Fault, wire};
use crate::packet::{Auth, ConnectProperties, Disconnect, PublishProperties, UserProperties};

pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
pub(super) const CONTENT_TYPE: u8 = 0x03;
pub(super) const RESPONSE_TOPIC: u8 = 0x08;
pub(super) const CORRELATION_DATA: u8 = 0x09;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;
const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
const WILL_DELAY: u8 = 0x18;
const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(super) const RESPONSE_INFORMATION: u8 = 0x1A;
pub(super) const SERVER_REFERENCE: u8 = 0x1C;
pub(super) const REASON_STRING: u8 = 0x1F;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const WILDCARD_AVAILABLE: u8 = 0x28;
pub(super) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
pub(super) const SHARED_AVAILABLE: u8 = 0x2A;

/// The properties of one packet, in the order they come.
struct Properties<'a> {
    reader: Reader<'a>,
    block: &'a [u8],
    /// Bit `n` is set when property `n` has come.
    seen: u64,
}

impl<'a> Properties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let len = reader.variable()?;
        let block = reader.take(len as usize)?;
        Ok(Self {
            reader: Reader::new(block),
            block,
            seen: 0,
        })
    }

    /// The identifier of the next property. All but user properties come once [MQTT5-3.1.2.11].
    fn next(&mut self) -> Result<Option<u8>, Fault> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.byte()?;
        if id >= 64 {
            return Err(Fault::PropertyUnknown);
        }
        if self.seen & 1 << id != 0 && id != USER_PROPERTY {
            return Err(Fault::PropertyTwice);
        }
        self.seen |= 1 << id;
        Ok(Some(id))
    }

    fn has(&self, id: u8) -> bool {
        self.seen & 1 << id != 0
    }

    /// Reads over a user property, or a reason string.
    fn other(&mut self, id: u8) -> Result<(), Fault> {
        if id != USER_PROPERTY {
            return Err(Fault::PropertyUnknown);
        }
        self.reader.text()?;
        self.reader.text()?;
        Ok(())
    }

    fn flag(&mut self) -> Result<bool, Fault> {
        match self.reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::PropertyValue),
        }
    }

    fn users(&self) -> UserProperties<'a> {
        UserProperties {
            block: if self.has(USER_PROPERTY) {
                self.block
            } else {
                &[]
            },
        }
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, Fault> {
    if value == T::default() {
        Err(Fault::PropertyValue)
    } else {
        Ok(value)
    }
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user: UserProperties::default(),
        }
    }
}

pub(super) fn connect<'a>(reader: &mut Reader<'a>) -> Result<ConnectProperties<'a>, Fault> {
    let mut properties = Properties::read(reader)?;
    let mut found = ConnectProperties::default();
    while let Some(id) = properties.next()? {
        let value = &mut properties.reader;
        match id {
            SESSION_EXPIRY => found.session_expiry = value.u32()?,
            RECEIVE_MAXIMUM => found.receive_maximum = not_zero(value.u16()?)?,
            MAXIMUM_PACKET_SIZE => found.maximum_packet_size = Some(not_zero(value.u32()?)?),
            TOPIC_ALIAS_MAXIMUM => found.topic_alias_maximum = value.u16()?,
            REQUEST_RESPONSE_INFORMATION => {
                found.request_response_information = properties.flag()?;
            }
            REQUEST_PROBLEM_INFORMATION => found.request_problem_information = properties.flag()?,
            AUTHENTICATION_METHOD => found.authentication_method = Some(value.text()?),
            AUTHENTICATION_DATA => found.authentication_data = Some(value.binary()?),
            other => properties.other(other)?,
        }
    }
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(Fault::AuthenticationData);
    }
    found.user = properties.users();
    Ok(found)
}

/// The properties of a PUBLISH, or of a will together with its delay in seconds.
pub(super) fn publish<'a>(
    reader: &mut Reader<'a>,
    will: bool,
) -> Result<(PublishProperties<'a>, u32), Fault> {
    // Most have none.
    if reader.rest().first() == Some(&0) {
        reader.byte()?;
        return Ok((PublishProperties::default(), 0));
    }
    let mut properties = Properties::read(reader)?;
    let mut found = PublishProperties::default();
    let mut delay = 0;
    while let Some(id) = properties.next()? {
        let value = &mut properties.reader;
        match id {
            PAYLOAD_FORMAT => found.payload_format = Some(u8::from(properties.flag()?)),
            MESSAGE_EXPIRY => found.message_expiry = Some(value.u32()?),
            CONTENT_TYPE => found.content_type = Some(value.text()?),
            RESPONSE_TOPIC => {
                let topic = value.text()?;
                // It is to be published on [MQTT5-3.3.2-14].
                if !is_topic_name(topic) {
                    return Err(Fault::TopicName);
                }
                found.response_topic = Some(topic);
            }
            CORRELATION_DATA => found.correlation_data = Some(value.binary()?),
            TOPIC_ALIAS if !will => match value.u16()? {
                0 => return Err(Fault::TopicAlias),
                alias => found.topic_alias = Some(alias),
            },
            WILL_DELAY if will => delay = value.u32()?,
            // Clients may not send them [MQTT5-3.3.4-6].
            SUBSCRIPTION_IDENTIFIER if !will => return Err(Fault::PropertyValue),
            other => properties.other(other)?,
        }
    }
    found.user = properties.users();
    Ok((found, delay))
}

/// The properties of a packet that has none but a reason string and user properties: acknowledgements.
pub(super) fn reason(reader: &mut Reader<'_>) -> Result<(), Fault> {
    let mut properties = Properties::read(reader)?;
    while let Some(id) = properties.next()? {
        match id {
            REASON_STRING => drop(properties.reader.text()?),
            other => properties.other(other)?,
        }
    }
    Ok(())
}

/// The subscription identifier of a SUBSCRIBE, if it has one.
pub(super) fn subscribe(reader: &mut Reader<'_>) -> Result<Option<u32>, Fault> {
    let mut properties = Properties::read(reader)?;
    let mut found = None;
    while let Some(id) = properties.next()? {
        match id {
            SUBSCRIPTION_IDENTIFIER => found = Some(not_zero(properties.reader.variable()?)?),
            other => properties.other(other)?,
        }
    }
    Ok(found)
}

pub(super) fn unsubscribe(reader: &mut Reader<'_>) -> Result<(), Fault> {
    let mut properties = Properties::read(reader)?;
    while let Some(id) = properties.next()? {
        properties.other(id)?;
    }
    Ok(())
}

pub(super) fn disconnect<'a>(
    reader: &mut Reader<'a>,
    packet: &mut Disconnect<'a>,
) -> Result<(), Fault> {
    let mut properties = Properties::read(reader)?;
    while let Some(id) = properties.next()? {
        let value = &mut properties.reader;
        match id {
            SESSION_EXPIRY => packet.session_expiry = Some(value.u32()?),
            REASON_STRING => packet.reason_string = Some(value.text()?),
            other => properties.other(other)?,
        }
    }
    Ok(())
}

pub(super) fn auth<'a>(reader: &mut Reader<'a>, packet: &mut Auth<'a>) -> Result<(), Fault> {
    let mut properties = Properties::read(reader)?;
    while let Some(id) = properties.next()? {
        let value = &mut properties.reader;
        match id {
            AUTHENTICATION_METHOD => packet.authentication_method = Some(value.text()?),
            AUTHENTICATION_DATA => drop(value.binary()?),
            REASON_STRING => drop(value.text()?),
            other => properties.other(other)?,
        }
    }
    // It is always there [MQTT5-3.15.2.2.2].
    packet
        .authentication_method
        .map(|_| ())
        .ok_or(Fault::PropertyValue)
}

/// A topic name has at least one character and no wildcards [MQTT5-3.3.2-2], [MQTT5-4.7.3-1].
#[inline]
pub(super) fn is_topic_name(text: &str) -> bool {
    !text.is_empty() && memchr::memchr2(b'+', b'#', text.as_bytes()).is_none()
}

impl<'a> UserProperties<'a> {
    /// Names and values in order; a name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.block);
        std::iter::from_fn(move || {
            loop {
                match reader.byte().ok()? {
                    USER_PROPERTY => return Some((reader.text().ok()?, reader.text().ok()?)),
                    id => skip(&mut reader, id).ok()?,
                }
            }
        })
    }
}

/// Reads over a property that stands among the user properties of a packet, already checked.
fn skip(reader: &mut Reader<'_>, id: u8) -> Result<(), Fault> {
    match id {
        PAYLOAD_FORMAT | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
            reader.byte()?;
        }
        RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => {
            reader.u16()?;
        }
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | MAXIMUM_PACKET_SIZE => {
            reader.u32()?;
        }
        _ => {
            reader.binary()?;
        }
    }
    Ok(())
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Writes `properties` with their length in front. A topic alias belongs to a connection: it is left out.
pub(super) fn put_publish(
    out: &mut Vec<u8>,
    properties: &PublishProperties<'_>,
    subscription_identifiers: &[u32],
) {
    let PublishProperties {
        payload_format,
        message_expiry,
        topic_alias: _,
        response_topic,
        correlation_data,
        content_type,
        user,
    } = properties;
    let len = publish_len(properties, subscription_identifiers);
    wire::put_variable(out, len);
    if let Some(format) = payload_format {
        out.extend_from_slice(&[PAYLOAD_FORMAT, *format]);
    }
    if let Some(expiry) = message_expiry {
        out.push(MESSAGE_EXPIRY);
        out.extend_from_slice(&expiry.to_be_bytes());
    }
    for (id, value) in [
        (CONTENT_TYPE, content_type.map(str::as_bytes)),
        (RESPONSE_TOPIC, response_topic.map(str::as_bytes)),
        (CORRELATION_DATA, *correlation_data),
    ] {
        if let Some(value) = value {
            out.push(id);
            wire::put_binary(out, value);
        }
    }
    for identifier in subscription_identifiers {
        out.push(SUBSCRIPTION_IDENTIFIER);
        wire::put_variable(out, *identifier as usize);
    }
    for (name, value) in user.iter() {
        out.push(USER_PROPERTY);
        wire::put_binary(out, name.as_bytes());
        wire::put_binary(out, value.as_bytes());
    }
}

/// The length of the properties of a PUBLISH, without the length field itself.
pub(super) fn publish_len(properties: &PublishProperties<'_>, identifiers: &[u32]) -> usize {
    let binary = |value: Option<&[u8]>| value.map_or(0, |value| 3 + value.len());
    properties.payload_format.map_or(0, |_| 2)
        + properties.message_expiry.map_or(0, |_| 5)
        + binary(properties.content_type.map(str::as_bytes))
        + binary(properties.response_topic.map(str::as_bytes))
        + binary(properties.correlation_data)
        + identifiers
            .iter()
            .map(|&id| 1 + wire::variable_len(id as usize))
            .sum::<usize>()
        + properties
            .user
            .iter()
            .map(|(name, value)| 5 + name.len() + value.len())
            .sum::<usize>()
}
