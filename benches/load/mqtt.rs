//! The little of MQTT 3.1.1 that load needs: packets out are bytes made once, packets in are views.

use anyhow::{Error, Result, anyhow};

pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Room at the head of every payload: when it was sent, by whom, and as which of its messages.
pub(crate) const LABEL_BYTES: usize = 16;

/// Who a session says it is. Without a login the broker has to welcome strangers.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

/// A CONNECT with a clean session and no keep-alive, so that an idle session stays silent.
pub(crate) fn connect(client_id: &str, login: Option<Login<'_>>) -> Vec<u8> {
    const CLEAN: u8 = 0x02;
    const USER_AND_PASSWORD: u8 = 0xC0;
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(if login.is_some() {
        CLEAN | USER_AND_PASSWORD
    } else {
        CLEAN
    });
    body.extend_from_slice(&[0, 0]);
    put_text(&mut body, client_id);
    if let Some(Login { user, password }) = login {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    framed(0x10, &body)
}

/// A SUBSCRIBE to one filter, with packet identifier 1.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    put_text(&mut body, filter);
    body.push(qos);
    framed(0x82, &body)
}

pub(crate) fn puback(out: &mut Vec<u8>, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// The identifier of a publisher's `sequence`-th message (from 1): 1 to 65,535, round and round.
pub(crate) fn packet_id(sequence: u32) -> u16 {
    (sequence.wrapping_sub(1) % 65_535) as u16 + 1
}

/// One publisher's PUBLISH. Only the label and the identifier change from message to message.
pub(crate) struct Template {
    bytes: Vec<u8>,
    id_at: Option<usize>,
    label_at: usize,
}

impl Template {
    pub(crate) fn new(topic: &str, qos: u8, publisher: u32, payload_bytes: usize) -> Self {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        let id_in_body = body.len();
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        let label_in_body = body.len();
        body.resize(label_in_body + payload_bytes.max(LABEL_BYTES), b'.');
        let body_bytes = body.len();

        let mut bytes = framed(0x30 | qos << 1, &body);
        let head_bytes = bytes.len() - body_bytes;
        let label_at = head_bytes + label_in_body;
        bytes[label_at + 8..label_at + 12].copy_from_slice(&publisher.to_le_bytes());
        let id_at = (qos > 0).then_some(head_bytes + id_in_body);
        Self {
            bytes,
            id_at,
            label_at,
        }
    }

    /// Appends the message `sequence`, sent at `nanos` of the sender's clock.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, nanos: u64, sequence: u32) {
        let label = &mut self.bytes[self.label_at..self.label_at + LABEL_BYTES];
        label[..8].copy_from_slice(&nanos.to_le_bytes());
        label[12..].copy_from_slice(&sequence.to_le_bytes());
        if let Some(at) = self.id_at {
            self.bytes[at..at + 2].copy_from_slice(&packet_id(sequence).to_be_bytes());
        }
        out.extend_from_slice(&self.bytes);
    }
}

/// What [`Template`] wrote at the head of a payload.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) nanos: u64,
    pub(crate) publisher: u32,
    pub(crate) sequence: u32,
}

impl Label {
    fn read(payload: &[u8]) -> Option<Self> {
        let (nanos, rest) = payload.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Self {
            nanos: u64::from_le_bytes(*nanos),
            publisher: u32::from_le_bytes(*publisher),
            sequence: u32::from_le_bytes(*sequence),
        })
    }
}

/// A packet from the broker.
pub(crate) enum Packet {
    Connack {
        code: u8,
    },
    Suback {
        granted: u8,
    },
    /// `id` is there above QoS 0.
    Publish {
        label: Label,
        id: Option<u16>,
    },
    Puback {
        id: u16,
    },
}

/// Takes the first packet off `bytes`: the packet and its length, or nothing while it is incomplete.
#[inline]
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(Packet, usize)>> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut body_bytes = 0;
    for (index, &byte) in rest.iter().enumerate().take(4) {
        body_bytes |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            let Some(body) = rest[index + 1..].get(..body_bytes) else {
                return Ok(None);
            };
            let packet = decode(first, body).ok_or_else(|| nonsense(first))?;
            return Ok(Some((packet, 2 + index + body_bytes)));
        }
    }
    if rest.len() < 4 {
        Ok(None)
    } else {
        Err(nonsense(first))
    }
}

#[inline]
fn decode(first: u8, body: &[u8]) -> Option<Packet> {
    match (first, body) {
        (0x30..=0x3F, _) => {
            let (topic_bytes, rest) = body.split_first_chunk()?;
            let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_bytes))..)?;
            let mut id = None;
            if first & 0x06 != 0 {
                let (bytes, payload) = rest.split_first_chunk()?;
                id = Some(u16::from_be_bytes(*bytes));
                rest = payload;
            }
            Some(Packet::Publish {
                label: Label::read(rest)?,
                id,
            })
        }
        (0x40, &[high, low]) => Some(Packet::Puback {
            id: u16::from_be_bytes([high, low]),
        }),
        (0x20, &[_, code]) => Some(Packet::Connack { code }),
        (0x90, &[_, _, granted]) => Some(Packet::Suback { granted }),
        _ => None,
    }
}

fn nonsense(first: u8) -> Error {
    anyhow!("the broker sent a packet that makes no sense here (first byte {first:#04x})")
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let seven_bits = (left & 0x7F) as u8;
        left >>= 7;
        if left == 0 {
            packet.push(seven_bits);
            break;
        }
        packet.push(seven_bits | 0x80);
    }
    packet.extend_from_slice(body);
    packet
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("invariant: names here are short");
    out.extend_from_slice(&bytes.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
