//! Packets to bytes, appended to a buffer.

use rollcall_domain::presence::Protocol;

use super::properties as property;
use super::wire::{put_binary, put_variable, variable_len};
use crate::packet::{AckKind, PublishProperties, QoS};

/// A PUBLISH on its way to a client.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPublish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    /// Written for QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// Written for MQTT 5, without the topic alias.
    pub properties: &'a PublishProperties<'a>,
    pub subscription_identifiers: &'a [u32],
    pub payload: &'a [u8],
}

/// The properties of a CONNACK (3.2.2.3); what is `None` is not written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnackProperties<'a> {
    /// Seconds.
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_qos: Option<u8>,
    pub retain_available: Option<bool>,
    /// Bytes.
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub wildcard_available: Option<bool>,
    pub subscription_identifiers_available: Option<bool>,
    pub shared_available: Option<bool>,
    /// Seconds.
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
}

/// The properties of a DISCONNECT of the server (3.14.2.2); what is `None` is not written.
#[derive(Clone, Copy, Debug, Default)]
pub struct DisconnectProperties<'a> {
    pub reason_string: Option<&'a str>,
    pub server_reference: Option<&'a str>,
}

#[inline]
pub fn publish(out: &mut Vec<u8>, protocol: Protocol, packet: &OutgoingPublish<'_>) {
    let OutgoingPublish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
        ..
    } = *packet;
    let identifiers = packet.subscription_identifiers;
    let id = if packet_id.is_some() { 2 } else { 0 };
    let properties_len = match protocol {
        Protocol::Mqtt31 | Protocol::Mqtt311 => 0,
        Protocol::Mqtt5 => {
            let len = property::publish_len(properties, identifiers);
            variable_len(len) + len
        }
    };
    let len = 2 + topic.len() + id + properties_len + payload.len();
    out.reserve(1 + variable_len(len) + len);
    out.push(0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain));
    put_variable(out, len);
    put_binary(out, topic.as_bytes());
    if let Some(id) = packet_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    if protocol == Protocol::Mqtt5 {
        property::put_publish(out, properties, identifiers);
    }
    out.extend_from_slice(payload);
}

/// The property of a PUBLISH that names a subscription it comes by; `identifier` is at most 268,435,455.
pub fn subscription_identifier(out: &mut Vec<u8>, identifier: u32) {
    out.push(property::SUBSCRIPTION_IDENTIFIER);
    put_variable(out, identifier as usize);
}

/// The property of a PUBLISH that stands for its topic.
pub fn topic_alias(out: &mut Vec<u8>, alias: u16) {
    out.push(property::TOPIC_ALIAS);
    out.extend_from_slice(&alias.to_be_bytes());
}

/// `code` is the return code of 3.1.1 or the reason code of 5. Only 5 carries properties.
pub fn connack(
    out: &mut Vec<u8>,
    protocol: Protocol,
    session_present: bool,
    code: u8,
    properties: &ConnackProperties<'_>,
) {
    if protocol != Protocol::Mqtt5 {
        // 3.1 has no such flag.
        let session_present = session_present && protocol == Protocol::Mqtt311;
        out.extend_from_slice(&[0x20, 2, session_present.into(), code]);
        return;
    }
    let mut block = Vec::with_capacity(64);
    let short = |value: Option<u16>| value.map(u16::to_be_bytes);
    let long = |value: Option<u32>| value.map(u32::to_be_bytes);
    let flag = |value: Option<bool>| value.map(|value| [u8::from(value)]);
    put(
        &mut block,
        property::SESSION_EXPIRY,
        long(properties.session_expiry),
    );
    put(
        &mut block,
        property::RECEIVE_MAXIMUM,
        short(properties.receive_maximum),
    );
    put(
        &mut block,
        property::MAXIMUM_QOS,
        properties.maximum_qos.map(|qos| [qos]),
    );
    put(
        &mut block,
        property::RETAIN_AVAILABLE,
        flag(properties.retain_available),
    );
    put(
        &mut block,
        property::MAXIMUM_PACKET_SIZE,
        long(properties.maximum_packet_size),
    );
    put_text(
        &mut block,
        property::ASSIGNED_CLIENT_ID,
        properties.assigned_client_id,
    );
    put(
        &mut block,
        property::TOPIC_ALIAS_MAXIMUM,
        short(properties.topic_alias_maximum),
    );
    put_text(
        &mut block,
        property::REASON_STRING,
        properties.reason_string,
    );
    put(
        &mut block,
        property::WILDCARD_AVAILABLE,
        flag(properties.wildcard_available),
    );
    let identifiers = flag(properties.subscription_identifiers_available);
    put(
        &mut block,
        property::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        identifiers,
    );
    put(
        &mut block,
        property::SHARED_AVAILABLE,
        flag(properties.shared_available),
    );
    put(
        &mut block,
        property::SERVER_KEEP_ALIVE,
        short(properties.server_keep_alive),
    );
    put_text(
        &mut block,
        property::RESPONSE_INFORMATION,
        properties.response_information,
    );
    put_text(
        &mut block,
        property::SERVER_REFERENCE,
        properties.server_reference,
    );
    out.push(0x20);
    put_variable(out, 2 + variable_len(block.len()) + block.len());
    out.extend_from_slice(&[session_present.into(), code]);
    put_variable(out, block.len());
    out.extend_from_slice(&block);
}

fn put<const N: usize>(block: &mut Vec<u8>, id: u8, value: Option<[u8; N]>) {
    if let Some(value) = value {
        block.push(id);
        block.extend_from_slice(&value);
    }
}

fn put_text(block: &mut Vec<u8>, id: u8, value: Option<&str>) {
    if let Some(value) = value {
        block.push(id);
        put_binary(block, value.as_bytes());
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. 3.1.1 knows no reason; 5 leaves out success [MQTT5-3.4.2.1].
#[inline]
pub fn ack(out: &mut Vec<u8>, protocol: Protocol, kind: AckKind, packet_id: u16, reason: u8) {
    let first = first_of(kind);
    let [high, low] = packet_id.to_be_bytes();
    if protocol != Protocol::Mqtt5 || reason == 0 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    }
}

/// Like [`ack`] of MQTT 5, and says why.
pub fn ack_because(out: &mut Vec<u8>, kind: AckKind, packet_id: u16, reason: u8, why: &str) {
    let mut block = Vec::new();
    put_text(&mut block, property::REASON_STRING, Some(why));
    out.push(first_of(kind));
    put_variable(out, 3 + variable_len(block.len()) + block.len());
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.push(reason);
    put_variable(out, block.len());
    out.extend_from_slice(&block);
}

const fn first_of(kind: AckKind) -> u8 {
    match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    }
}

/// One code for each filter of the SUBSCRIBE, in order [MQTT5-3.8.4-6]; `why` in MQTT 5.
pub fn suback(
    out: &mut Vec<u8>,
    protocol: Protocol,
    packet_id: u16,
    codes: &[u8],
    why: Option<&str>,
) {
    answer(out, 0x90, protocol, packet_id, codes, why);
}

/// One code for each filter of the UNSUBSCRIBE, in order [MQTT5-3.11.3-1]; 3.1.1 has none.
pub fn unsuback(out: &mut Vec<u8>, protocol: Protocol, packet_id: u16, codes: &[u8]) {
    let codes = if protocol == Protocol::Mqtt5 {
        codes
    } else {
        &[]
    };
    answer(out, 0xB0, protocol, packet_id, codes, None);
}

fn answer(
    out: &mut Vec<u8>,
    first: u8,
    protocol: Protocol,
    packet_id: u16,
    codes: &[u8],
    why: Option<&str>,
) {
    let mut block = Vec::new();
    put_text(&mut block, property::REASON_STRING, why);
    let properties = match protocol {
        Protocol::Mqtt31 | Protocol::Mqtt311 => 0,
        Protocol::Mqtt5 => variable_len(block.len()) + block.len(),
    };
    out.push(first);
    put_variable(out, 2 + properties + codes.len());
    out.extend_from_slice(&packet_id.to_be_bytes());
    if protocol == Protocol::Mqtt5 {
        put_variable(out, block.len());
        out.extend_from_slice(&block);
    }
    out.extend_from_slice(codes);
}

pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// A DISCONNECT of the server, which only MQTT 5 has.
pub fn disconnect(out: &mut Vec<u8>, reason: u8, properties: &DisconnectProperties<'_>) {
    let mut block = Vec::new();
    put_text(
        &mut block,
        property::REASON_STRING,
        properties.reason_string,
    );
    put_text(
        &mut block,
        property::SERVER_REFERENCE,
        properties.server_reference,
    );
    out.push(0xE0);
    if block.is_empty() {
        out.extend_from_slice(&[1, reason]);
        return;
    }
    put_variable(out, 1 + variable_len(block.len()) + block.len());
    out.push(reason);
    put_variable(out, block.len());
    out.extend_from_slice(&block);
}
