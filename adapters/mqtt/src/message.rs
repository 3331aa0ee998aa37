//! A message kept past the turn it came in: queued, in flight, retained, or a will.

use std::time::{Duration, Instant};

use rollcall_domain::presence::Protocol;

use crate::codec::{self, OutgoingPublish};
use crate::packet::{Packet, Publish, PublishProperties, QoS};

/// Kept as the QoS 0 PUBLISH packet that carries it.
#[derive(Debug)]
pub(crate) struct Message {
    protocol: Protocol,
    frame: Box<[u8]>,
    /// At which QoS it was published.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    expires: Option<Instant>,
}

/// What differs from receiver to receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) protocol: Protocol,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// `None` exactly for QoS 0.
    pub(crate) packet_id: Option<u16>,
}

impl Message {
    /// Keeps what `frame` carries, a QoS 0 PUBLISH packet made for `protocol`.
    pub(crate) fn keep(
        frame: &[u8],
        protocol: Protocol,
        qos: QoS,
        retain: bool,
        now: Instant,
    ) -> Self {
        let expiry = match protocol {
            Protocol::Mqtt31 | Protocol::Mqtt311 => None,
            Protocol::Mqtt5 => decode(frame, protocol).properties.message_expiry,
        };
        let expires = expiry.map(|seconds| now + Duration::from_secs(seconds.into()));
        Self {
            protocol,
            frame: frame.into(),
            qos,
            retain,
            expires,
        }
    }

    /// Bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.frame.len() + size_of::<Self>()
    }

    /// About how long the packet is, without a packet identifier.
    pub(crate) fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// When it may no longer be sent.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    pub(crate) fn publish(&self) -> Publish<'_> {
        decode(&self.frame, self.protocol)
    }

    /// Writes the packet for one receiver. The expiry is less by the whole seconds that it waited here
    /// [MQTT5-3.3.2-6].
    pub(crate) fn write(&self, out: &mut Vec<u8>, envelope: Envelope, now: Instant) {
        if self.expires.is_none() && envelope.protocol == self.protocol {
            return address(&self.frame, out, envelope);
        }
        let publish = self.publish();
        let left = self
            .expires
            .map(|at| at.saturating_duration_since(now).as_millis().div_ceil(1000) as u32);
        let properties = PublishProperties {
            message_expiry: left,
            ..publish.properties
        };
        codec::publish(
            out,
            envelope.protocol,
            &OutgoingPublish {
                dup: envelope.dup,
                qos: envelope.qos,
                retain: envelope.retain,
                topic: publish.topic,
                packet_id: envelope.packet_id,
                properties: &properties,
                subscription_identifiers: &[],
                payload: publish.payload,
            },
        );
    }
}

fn decode(frame: &[u8], protocol: Protocol) -> Publish<'_> {
    match codec::decode(frame, Some(protocol), u32::MAX) {
        Ok(Some((Packet::Publish(publish), _))) => publish,
        other => unreachable!("invariant: a kept message is a PUBLISH, not {other:?}"),
    }
}

/// Appends to `out` the QoS 0 packet `frame` with the flags and packet identifier of one receiver.
pub(crate) fn address(frame: &[u8], out: &mut Vec<u8>, envelope: Envelope) {
    let (head, payload) = split(frame);
    address_head(head, payload.len(), out, envelope);
    out.extend_from_slice(payload);
}

/// Like [`address`], without the bytes after the packet identifier: they follow as they are in `frame`.
pub(crate) fn address_head(head: &[u8], rest: usize, out: &mut Vec<u8>, envelope: Envelope) {
    let topic = &head[header_len(head)..];
    let id = if envelope.packet_id.is_some() { 2 } else { 0 };
    out.push(
        0x30 | u8::from(envelope.dup) << 3 | (envelope.qos as u8) << 1 | u8::from(envelope.retain),
    );
    let mut len = topic.len() + id + rest;
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        if len == 0 {
            out.push(byte);
            break;
        }
        out.push(byte | 0x80);
    }
    out.extend_from_slice(topic);
    if let Some(id) = envelope.packet_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

/// A QoS 0 PUBLISH packet as what comes before the place of a packet identifier, and what after.
pub(crate) fn split(frame: &[u8]) -> (&[u8], &[u8]) {
    let start = header_len(frame);
    let topic = usize::from(u16::from_be_bytes([frame[start], frame[start + 1]]));
    frame.split_at(start + 2 + topic)
}

fn header_len(frame: &[u8]) -> usize {
    let mut len = 2;
    while frame[len - 1] & 0x80 != 0 {
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_addressed_frame_is_what_the_codec_would_have_written(
            topic in "[a-z/]{1,300}",
            payload in prop::collection::vec(any::<u8>(), 0..20_000),
            qos in 0u8..3, dup: bool, retain: bool, id in 1u16.., five: bool,
        ) {
            let protocol = if five { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
            let qos = QoS::from_bits(qos).expect("a QoS");
            let packet_id = (qos != QoS::AtMostOnce).then_some(id);
            let dup = dup && packet_id.is_some();
            let properties = PublishProperties { content_type: Some("text"), ..Default::default() };
            let write = |qos, dup, retain, packet_id| {
                let mut out = Vec::new();
                codec::publish(&mut out, protocol, &OutgoingPublish {
                    dup, qos, retain, topic: &topic, packet_id, properties: &properties,
                    subscription_identifiers: &[], payload: &payload,
                });
                out
            };
            let frame = write(QoS::AtMostOnce, false, false, None);
            let mut out = Vec::new();
            address(&frame, &mut out, Envelope { protocol, qos, dup, retain, packet_id });
            prop_assert_eq!(out, write(qos, dup, retain, packet_id));
        }
    }
}
