//! A message kept past the turn it came in: queued, in flight, retained, or a will.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_domain::identity::Timestamp;
use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::{self, MessageNumber};

use crate::codec::{self, OutgoingPublish};
use crate::packet::{Packet, Publish, PublishProperties, QoS};

/// Kept as the QoS 0 PUBLISH packet that carries it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    protocol: Protocol,
    frame: Arc<[u8]>,
    /// At which QoS it was published.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    expires: Option<Instant>,
    /// What it is kept as beyond this process.
    number: Option<MessageNumber>,
}

/// What differs from receiver to receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// `None` exactly for QoS 0.
    pub(crate) packet_id: Option<u16>,
    /// Further properties, as they are sent; only in MQTT 5.
    pub(crate) properties: &'a [u8],
    pub(crate) alias: Option<Alias>,
}

/// How a topic alias is used [MQTT5-3.3.2.3.4].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// Stands for the topic from this packet on.
    New(u16),
    /// Goes in place of the topic.
    Known(u16),
}

impl Envelope<'_> {
    /// At QoS 0, with nothing special.
    pub(crate) const fn plain(protocol: Protocol) -> Self {
        Self {
            protocol,
            qos: QoS::AtMostOnce,
            dup: false,
            retain: false,
            packet_id: None,
            properties: &[],
            alias: None,
        }
    }

    /// Bytes of properties that come to those of the message.
    fn added(&self) -> usize {
        self.properties.len() + if self.alias.is_some() { 3 } else { 0 }
    }
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
        let message = Self {
            protocol,
            frame: frame.into(),
            qos,
            retain,
            expires: None,
            number: None,
        };
        message.begin(now)
    }

    /// Its time begins now.
    pub(crate) fn begin(mut self, now: Instant) -> Self {
        let expiry = match self.protocol {
            Protocol::Mqtt31 | Protocol::Mqtt311 => None,
            Protocol::Mqtt5 => self.publish().properties.message_expiry,
        };
        self.expires = expiry.map(|seconds| now + Duration::from_secs(seconds.into()));
        self
    }

    /// To be kept beyond this process under this number.
    pub(crate) fn numbered(mut self, number: MessageNumber) -> Self {
        self.number = Some(number);
        self
    }

    /// Not kept under any number so far.
    pub(crate) fn unnumbered(mut self) -> Self {
        self.number = None;
        self
    }

    pub(crate) fn number(&self) -> Option<MessageNumber> {
        self.number
    }

    /// As it is kept beyond this process; `now` is also `at`.
    pub(crate) fn to_kept(&self, now: Instant, at: Timestamp) -> sessions::Message {
        let left = |expires: Instant| {
            let left = expires.saturating_duration_since(now).as_nanos();
            Timestamp(at.0.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
        };
        sessions::Message {
            packet: Arc::clone(&self.frame),
            protocol: self.protocol,
            qos: self.qos as u8,
            retain: self.retain,
            expires: self.expires.map(left),
        }
    }

    /// What was kept; `None` if it is no packet of ours.
    pub(crate) fn from_kept(
        kept: &sessions::Message,
        number: Option<MessageNumber>,
        now: Instant,
        at: Timestamp,
    ) -> Option<Self> {
        let decoded = codec::decode(&kept.packet, Some(kept.protocol), u32::MAX);
        let Ok(Some((Packet::Publish(_), _))) = decoded else {
            return None;
        };
        let left = |expires: Timestamp| now + Duration::from_nanos(expires.0.saturating_sub(at.0));
        Some(Self {
            protocol: kept.protocol,
            frame: Arc::clone(&kept.packet),
            qos: QoS::from_bits(kept.qos)?,
            retain: kept.retain,
            expires: kept.expires.map(left),
            number,
        })
    }

    /// Bytes of memory it takes.
    pub(crate) fn len(&self) -> usize {
        self.frame.len() + size_of::<Self>()
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

    /// The QoS 0 packet for a protocol. The expiry is less by the whole seconds that the message waited here
    /// [MQTT5-3.3.2-6].
    pub(crate) fn frame(&self, protocol: Protocol, now: Instant) -> Cow<'_, [u8]> {
        if self.expires.is_none() && protocol == self.protocol {
            return Cow::Borrowed(&self.frame);
        }
        let publish = self.publish();
        let left = self
            .expires
            .map(|at| at.saturating_duration_since(now).as_millis().div_ceil(1000) as u32);
        let properties = PublishProperties {
            message_expiry: left,
            ..publish.properties
        };
        let mut frame = Vec::new();
        codec::publish(
            &mut frame,
            protocol,
            &OutgoingPublish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: publish.topic,
                packet_id: None,
                properties: &properties,
                subscription_identifiers: &[],
                payload: publish.payload,
            },
        );
        Cow::Owned(frame)
    }
}

fn decode(frame: &[u8], protocol: Protocol) -> Publish<'_> {
    match codec::decode(frame, Some(protocol), u32::MAX) {
        Ok(Some((Packet::Publish(publish), _))) => publish,
        other => unreachable!("invariant: a kept message is a PUBLISH, not {other:?}"),
    }
}

/// Where the parts of a QoS 0 PUBLISH packet are, of which a packet for one receiver is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// The topic with its length.
    topic: usize,
    topic_end: usize,
    /// The length of the properties, if some are to be added.
    properties: Option<usize>,
    /// From here on, everything stays as it is.
    pub(crate) rest: usize,
}

impl Parts {
    pub(crate) fn of(frame: &[u8], envelope: &Envelope<'_>) -> Self {
        let topic = header_len(frame);
        let topic_end =
            topic + 2 + usize::from(u16::from_be_bytes([frame[topic], frame[topic + 1]]));
        let (properties, rest) = if envelope.added() == 0 {
            (None, topic_end)
        } else {
            let length = codec::variable(&frame[topic_end..]).ok().flatten();
            let (properties, len) = length.expect("invariant: an MQTT 5 packet has properties");
            (Some(properties as usize), topic_end + len)
        };
        Self {
            topic,
            topic_end,
            properties,
            rest,
        }
    }

    /// The remaining length of the packet for a receiver, made of one with this whole length.
    fn remaining(&self, frame_len: usize, envelope: &Envelope<'_>) -> usize {
        let topic = match envelope.alias {
            Some(Alias::Known(_)) => 2,
            _ => self.topic_end - self.topic,
        };
        let id = if envelope.packet_id.is_some() { 2 } else { 0 };
        let properties = self.properties.map_or(0, |before| {
            let added = envelope.added();
            codec::variable_len(before + added) + added
        });
        topic + id + properties + frame_len - self.rest
    }

    /// Writes what comes before `rest`; `frame` may end there, `frame_len` is how long it is as a whole.
    pub(crate) fn write_head(
        &self,
        frame: &[u8],
        frame_len: usize,
        out: &mut Vec<u8>,
        envelope: &Envelope<'_>,
    ) {
        let Envelope {
            qos, dup, retain, ..
        } = *envelope;
        out.push(0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain));
        codec::put_variable(out, self.remaining(frame_len, envelope));
        match envelope.alias {
            Some(Alias::Known(_)) => out.extend_from_slice(&[0, 0]),
            _ => out.extend_from_slice(&frame[self.topic..self.topic_end]),
        }
        if let Some(id) = envelope.packet_id {
            out.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(before) = self.properties {
            codec::put_variable(out, before + envelope.added());
            out.extend_from_slice(envelope.properties);
            if let Some(Alias::New(alias) | Alias::Known(alias)) = envelope.alias {
                codec::topic_alias(out, alias);
            }
        }
    }
}

/// Appends to `out` the QoS 0 packet `frame` as it is for one receiver.
pub(crate) fn address(frame: &[u8], out: &mut Vec<u8>, envelope: &Envelope<'_>) {
    let parts = Parts::of(frame, envelope);
    parts.write_head(frame, frame.len(), out, envelope);
    out.extend_from_slice(&frame[parts.rest..]);
}

/// How long the packet is that [`address`] makes.
pub(crate) fn addressed_len(frame: &[u8], envelope: &Envelope<'_>) -> usize {
    let remaining = Parts::of(frame, envelope).remaining(frame.len(), envelope);
    1 + codec::variable_len(remaining) + remaining
}

/// Whether the packet that [`address`] makes has at most `max` bytes.
#[inline]
pub(crate) fn fits(frame: &[u8], envelope: &Envelope<'_>, max: u32) -> bool {
    // A packet identifier, and two lengths that may each take three bytes more.
    let at_most = frame.len() + envelope.added() + 8;
    at_most <= max as usize || addressed_len(frame, envelope) <= max as usize
}

/// The topic of a QoS 0 PUBLISH packet.
pub(crate) fn topic(frame: &[u8]) -> &[u8] {
    let parts = Parts::of(frame, &Envelope::plain(Protocol::Mqtt311));
    &frame[parts.topic + 2..parts.topic_end]
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
            identifiers in prop::collection::vec(1u32..268_435_456, 0..70),
        ) {
            let protocol = if five { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
            let qos = QoS::from_bits(qos).expect("a QoS");
            let packet_id = (qos != QoS::AtMostOnce).then_some(id);
            let dup = dup && packet_id.is_some();
            let properties = PublishProperties { content_type: Some("text"), ..Default::default() };
            let write = |qos, dup, retain, packet_id, identifiers| {
                let mut out = Vec::new();
                codec::publish(&mut out, protocol, &OutgoingPublish {
                    dup, qos, retain, topic: &topic, packet_id, properties: &properties,
                    subscription_identifiers: identifiers, payload: &payload,
                });
                out
            };
            let frame = write(QoS::AtMostOnce, false, false, None, &[]);
            let mut added = Vec::new();
            if five {
                for &identifier in &identifiers {
                    codec::subscription_identifier(&mut added, identifier);
                }
            }
            let mut envelope = Envelope {
                protocol, qos, dup, retain, packet_id, properties: &added, alias: None,
            };
            let mut out = Vec::new();
            address(&frame, &mut out, &envelope);
            prop_assert_eq!(out.len(), addressed_len(&frame, &envelope));
            prop_assert_eq!(super::topic(&frame), topic.as_bytes());
            let written = write(qos, dup, retain, packet_id, &identifiers);
            prop_assert_eq!(out.len(), written.len());
            if added.is_empty() {
                prop_assert_eq!(&out, &written);
            }
            if !five {
                return Ok(());
            }
            // With an alias that is not known yet the topic stays, with a known one it goes.
            for alias in [Alias::New(7), Alias::Known(7)] {
                envelope.alias = Some(alias);
                let mut aliased = Vec::new();
                address(&frame, &mut aliased, &envelope);
                prop_assert_eq!(aliased.len(), addressed_len(&frame, &envelope));
                prop_assert!(aliased.ends_with(&payload));
                if added.is_empty() {
                    let read = decode(&aliased, protocol);
                    let expected = if alias == Alias::New(7) { &*topic } else { "" };
                    prop_assert_eq!(read.topic, expected);
                    prop_assert_eq!((read.qos, read.packet_id), (qos, packet_id));
                    prop_assert_eq!(read.properties.topic_alias, Some(7));
                    prop_assert_eq!(read.properties.content_type, Some("text"));
                    prop_assert_eq!(read.payload, &payload);
                }
            }
        }
    }
}
