//! Bytes to packets.

use rollcall_domain::presence::Protocol;

use super::Fault;
use super::properties::{self, is_topic_name};
use super::wire::{Reader, variable};
use crate::packet::{
    Ack, AckKind, Auth, Connect, ConnectProperties, Disconnect, Packet, Publish, PublishProperties,
    QoS, RetainHandling, Subscribe, Subscription, Unsubscribe, Will,
};

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// The whole length of the packet at the front of `input`, its fixed header included; `None` if more
/// bytes are needed to tell.
///
/// # Errors
/// [`Fault::VariableByteInteger`].
#[inline]
pub fn frame_len(input: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(length) = input.get(1..) else {
        return Ok(None);
    };
    Ok(variable(length)?.map(|(remaining, len)| 1 + len + remaining as usize))
}

/// The packet at the front of `input` and its length in bytes; `None` if more bytes are needed.
///
/// `protocol` is what the client speaks; without it only a CONNECT is taken. What is wrong with a fixed
/// header is said as soon as it can be seen, so nobody makes us wait for, or hold, what will be refused.
///
/// # Errors
/// The first [`Fault`] that is found.
#[inline]
pub fn decode(
    input: &[u8],
    protocol: Option<Protocol>,
    max_packet: u32,
) -> Result<Option<(Packet<'_>, usize)>, Fault> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let (kind, flags) = (first >> 4, first & 0x0f);
    if kind != PUBLISH {
        check_header(kind, flags, protocol)?;
    } else if protocol.is_none() {
        return Err(Fault::NotConnect);
    }
    let Some((remaining, header)) = variable(&input[1..])? else {
        return Ok(None);
    };
    let start = 1 + header;
    let len = start + remaining as usize;
    if len > max_packet as usize {
        return Err(Fault::PacketTooLarge);
    }
    // Only version 5 asks for the shortest form of lengths [MQTT5-1.5.5-1].
    if header > 1 && remaining < 1 << (7 * (header - 1)) && protocol == Some(Protocol::Mqtt5) {
        return Err(Fault::VariableByteInteger);
    }
    let Some(body) = input.get(start..len) else {
        // The beginning of a CONNECT tells whether to wait for the rest of it.
        if kind == CONNECT {
            greeting(&input[start..])?;
        }
        return Ok(None);
    };
    let reader = Reader::new(body);
    let five = protocol == Some(Protocol::Mqtt5);
    let packet = match kind {
        PUBLISH => Packet::Publish(publish(reader, flags, five)?),
        PUBACK => Packet::Ack(ack(reader, AckKind::PubAck, five)?),
        PUBREC => Packet::Ack(ack(reader, AckKind::PubRec, five)?),
        PUBREL => Packet::Ack(ack(reader, AckKind::PubRel, five)?),
        PUBCOMP => Packet::Ack(ack(reader, AckKind::PubComp, five)?),
        CONNECT => Packet::Connect(connect(reader)?),
        SUBSCRIBE => Packet::Subscribe(subscribe(reader, five)?),
        UNSUBSCRIBE => Packet::Unsubscribe(unsubscribe(reader, five)?),
        PINGREQ => {
            reader.finish()?;
            Packet::PingReq
        }
        DISCONNECT => Packet::Disconnect(disconnect(reader, five)?),
        AUTH => Packet::Auth(auth(reader)?),
        _ => return Err(Fault::PacketType),
    };
    Ok(Some((packet, len)))
}

/// Packet types (2.1.2) and flags (2.1.3) of all packets but PUBLISH.
fn check_header(kind: u8, flags: u8, protocol: Option<Protocol>) -> Result<(), Fault> {
    let reserved = match kind {
        CONNECT | PUBACK | PUBREC | PUBCOMP | PINGREQ | DISCONNECT => 0,
        AUTH if matches!(protocol, None | Some(Protocol::Mqtt5)) => 0,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 2,
        _ => {
            return Err(if protocol.is_none() {
                Fault::NotConnect
            } else {
                Fault::PacketType
            });
        }
    };
    if protocol.is_none() && kind != CONNECT {
        return Err(Fault::NotConnect);
    }
    // 3.1 marks what is sent again, where later versions reserve the bit.
    let again = protocol == Some(Protocol::Mqtt31) && reserved == 2 && flags == reserved | 8;
    if flags == reserved || again {
        Ok(())
    } else {
        Err(Fault::HeaderFlags)
    }
}

#[inline]
fn publish(mut reader: Reader<'_>, flags: u8, five: bool) -> Result<Publish<'_>, Fault> {
    let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
    let qos = QoS::from_bits(flags >> 1 & 3).ok_or(Fault::QoS)?;
    let topic = reader.text()?;
    let packet_id = match qos {
        // [MQTT5-3.3.1-2]
        QoS::AtMostOnce if dup => return Err(Fault::DuplicateOnQoS0),
        QoS::AtMostOnce => None,
        _ => Some(reader.packet_id()?),
    };
    let properties = match five {
        true => properties::publish(&mut reader, false)?.0,
        false => PublishProperties::default(),
    };
    // An empty topic stands for the one of an alias [MQTT5-3.3.2-8].
    let by_alias = topic.is_empty() && properties.topic_alias.is_some();
    if !by_alias && !is_topic_name(topic) {
        return Err(if topic.is_empty() && five {
            Fault::PropertyValue
        } else {
            Fault::TopicName
        });
    }
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

fn ack(mut reader: Reader<'_>, kind: AckKind, five: bool) -> Result<Ack, Fault> {
    let packet_id = reader.packet_id()?;
    let mut reason = 0;
    if five && !reader.is_empty() {
        reason = reader.byte()?;
        let known = match kind {
            AckKind::PubAck | AckKind::PubRec => {
                matches!(
                    reason,
                    0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
                )
            }
            AckKind::PubRel | AckKind::PubComp => matches!(reason, 0x00 | 0x92),
        };
        if !known {
            return Err(Fault::ReasonCode);
        }
        if !reader.is_empty() {
            properties::reason(&mut reader)?;
        }
    }
    reader.finish()?;
    Ok(Ack {
        kind,
        packet_id,
        reason,
    })
}

/// What the variable header of a CONNECT begins with, as far as it is there.
fn greeting(bytes: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    match reader.u16() {
        Ok(4 | 6) => {}
        Ok(_) => return Err(Fault::ProtocolName),
        Err(_) => return Ok(()),
    }
    let name = reader.rest();
    if b"MQTT".starts_with(&name[..name.len().min(4)])
        || b"MQIsdp".starts_with(&name[..name.len().min(6)])
    {
        Ok(())
    } else {
        Err(Fault::ProtocolName)
    }
}

fn connect(mut reader: Reader<'_>) -> Result<Connect<'_>, Fault> {
    let name = reader.binary().map_err(|_| Fault::ProtocolName)?;
    let protocol = match (name, reader.byte()) {
        (b"MQIsdp", Ok(3)) => Protocol::Mqtt31,
        (b"MQTT", Ok(4)) => Protocol::Mqtt311,
        (b"MQTT", Ok(5)) => Protocol::Mqtt5,
        (b"MQIsdp" | b"MQTT", Err(fault)) => return Err(fault),
        // Whatever it is, it is of the time of 3.1 and before.
        (b"MQIsdp", Ok(version)) => return Err(Fault::ProtocolVersion(version.min(3))),
        (b"MQTT", Ok(version)) => return Err(Fault::ProtocolVersion(version)),
        _ => return Err(Fault::ProtocolName),
    };
    let five = protocol == Protocol::Mqtt5;
    let flags = ConnectFlags::parse(reader.byte()?, five)?;
    let keep_alive = reader.u16()?;
    let properties = match five {
        true => properties::connect(&mut reader)?,
        false => ConnectProperties::default(),
    };
    let client_id = reader.text()?;
    if client_id.is_empty() && protocol == Protocol::Mqtt311 && !flags.clean_start {
        return Err(Fault::ClientIdEmpty);
    }
    let will = match flags.will {
        Some((qos, retain)) => Some(will(&mut reader, qos, retain, five)?),
        None => None,
    };
    let username = if flags.username {
        Some(reader.text()?)
    } else {
        None
    };
    let password = if flags.password {
        Some(reader.binary()?)
    } else {
        None
    };
    reader.finish()?;
    let clean_start = flags.clean_start;
    Ok(Connect {
        protocol,
        clean_start,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// Section 3.1.2.3.
struct ConnectFlags {
    clean_start: bool,
    /// QoS and RETAIN.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn parse(bits: u8, five: bool) -> Result<Self, Fault> {
        // [MQTT5-3.1.2-3]
        if bits & 1 != 0 {
            return Err(Fault::ConnectFlags);
        }
        let will = match (bits & 4 != 0, bits >> 3 & 3, bits & 0x20 != 0) {
            (true, qos, retain) => Some((QoS::from_bits(qos).ok_or(Fault::QoS)?, retain)),
            (false, 0, false) => None,
            // [MQTT5-3.1.2-11], [MQTT5-3.1.2-13]
            _ => return Err(Fault::WillFlags),
        };
        let (username, password) = (bits & 0x80 != 0, bits & 0x40 != 0);
        if password && !username && !five {
            // [MQTT-3.1.2-22]; version 5 allows it.
            return Err(Fault::PasswordWithoutUsername);
        }
        Ok(Self {
            clean_start: bits & 2 != 0,
            will,
            username,
            password,
        })
    }
}

fn will<'a>(
    reader: &mut Reader<'a>,
    qos: QoS,
    retain: bool,
    five: bool,
) -> Result<Will<'a>, Fault> {
    let (properties, delay) = match five {
        true => properties::publish(reader, true)?,
        false => (PublishProperties::default(), 0),
    };
    let topic = reader.text()?;
    if !is_topic_name(topic) {
        return Err(Fault::TopicName);
    }
    let payload = reader.binary()?;
    Ok(Will {
        topic,
        payload,
        qos,
        retain,
        delay,
        properties,
    })
}

fn subscribe(mut reader: Reader<'_>, five: bool) -> Result<Subscribe<'_>, Fault> {
    let packet_id = reader.packet_id()?;
    let subscription_identifier = match five {
        true => properties::subscribe(&mut reader)?,
        false => None,
    };
    let protocol = if five {
        Protocol::Mqtt5
    } else {
        Protocol::Mqtt311
    };
    let payload = reader.rest();
    // [MQTT5-3.8.3-2]
    if payload.is_empty() {
        return Err(Fault::NoFilters);
    }
    while !reader.is_empty() {
        subscription(&mut reader, five)?;
    }
    Ok(Subscribe {
        packet_id,
        subscription_identifier,
        protocol,
        payload,
    })
}

fn subscription<'a>(reader: &mut Reader<'a>, five: bool) -> Result<Subscription<'a>, Fault> {
    let filter = reader.text()?;
    let options = reader.byte()?;
    // Both are protocol errors (3.8.3.1), unlike a QoS 3 elsewhere, which is malformed.
    let qos = QoS::from_bits(options & 3).ok_or(Fault::RequestedQoS)?;
    // [MQTT-3.8.3-4], [MQTT5-3.8.3-5]
    let reserved = if five { 0xC0 } else { 0xFC };
    if options & reserved != 0 {
        return Err(Fault::SubscriptionOptions);
    }
    let retain_handling = match options >> 4 & 3 {
        0 => RetainHandling::SendAtSubscribe,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(Fault::RetainHandling),
    };
    let no_local = options & 4 != 0;
    if no_local && filter.starts_with("$share/") {
        // [MQTT5-3.8.3-4]
        return Err(Fault::NoLocalShared);
    }
    let retain_as_published = options & 8 != 0;
    Ok(Subscription {
        filter,
        qos,
        no_local,
        retain_as_published,
        retain_handling,
    })
}

fn unsubscribe(mut reader: Reader<'_>, five: bool) -> Result<Unsubscribe<'_>, Fault> {
    let packet_id = reader.packet_id()?;
    if five {
        properties::unsubscribe(&mut reader)?;
    }
    let payload = reader.rest();
    // [MQTT5-3.10.3-2]
    if payload.is_empty() {
        return Err(Fault::NoFilters);
    }
    while !reader.is_empty() {
        reader.text()?;
    }
    Ok(Unsubscribe { packet_id, payload })
}

fn disconnect(mut reader: Reader<'_>, five: bool) -> Result<Disconnect<'_>, Fault> {
    let mut packet = Disconnect {
        reason: 0,
        session_expiry: None,
        reason_string: None,
    };
    if five && !reader.is_empty() {
        packet.reason = reader.byte()?;
        // Those that a client may send (3.14.2.1).
        let known = matches!(packet.reason,
            0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x97 | 0x98 | 0x99);
        if !known {
            return Err(Fault::ReasonCode);
        }
        if !reader.is_empty() {
            properties::disconnect(&mut reader, &mut packet)?;
        }
    }
    reader.finish()?;
    Ok(packet)
}

fn auth(mut reader: Reader<'_>) -> Result<Auth<'_>, Fault> {
    let mut packet = Auth {
        reason: 0,
        authentication_method: None,
    };
    if !reader.is_empty() {
        packet.reason = reader.byte()?;
        if !matches!(packet.reason, 0x00 | 0x18 | 0x19) {
            return Err(Fault::ReasonCode);
        }
        if !reader.is_empty() {
            properties::auth(&mut reader, &mut packet)?;
        }
    }
    reader.finish()?;
    Ok(packet)
}

impl<'a> Subscribe<'a> {
    /// The topic filters in order; at least one.
    pub fn filters(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let mut reader = Reader::new(self.payload);
        let five = self.protocol == Protocol::Mqtt5;
        std::iter::from_fn(move || subscription(&mut reader, five).ok())
    }
}

impl<'a> Unsubscribe<'a> {
    /// The topic filters in order; at least one.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || reader.text().ok())
    }
}
