//! As much MQTT 3.1.1 as a load needs, written for speed.

use crate::broker::Login;

pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];
/// A CONNACK that lets in.
pub(crate) const WELCOME: [u8; 4] = [CONNACK, 2, 0, 0];

/// Where the payload keeps who sent it, which message it is, and when it was sent.
const MARK: usize = 16;

pub(crate) fn connect(client_id: &str, login: Option<&Login>) -> Vec<u8> {
    let flags = if login.is_some() { 0xC2 } else { 2 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend([flags, 0, 0]);
    text(&mut body, client_id);
    if let Some(login) = login {
        text(&mut body, &login.thing);
        text(&mut body, &login.key);
    }
    packet(0x10, &body)
}

pub(crate) fn subscribe(topic: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, topic);
    body.push(qos);
    packet(0x82, &body)
}

pub(crate) fn puback(out: &mut Vec<u8>, id: [u8; 2]) {
    out.extend_from_slice(&[PUBACK, 2, id[0], id[1]]);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A PUBLISH that is written again and again with another mark.
pub(crate) struct Template {
    bytes: Vec<u8>,
    id: Option<usize>,
    mark: usize,
    next_id: u16,
}

/// What the payload of a message says.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) publisher: u32,
    pub(crate) number: u32,
    /// Nanoseconds since the load began.
    pub(crate) sent: u64,
}

impl Template {
    pub(crate) fn new(topic: &str, qos: u8, payload: usize) -> Self {
        let mut body = Vec::new();
        text(&mut body, topic);
        if qos > 0 {
            body.extend([0, 0]);
        }
        let payload = payload.max(MARK);
        body.extend(std::iter::repeat_n(b'x', payload));
        let bytes = packet(0x30 | qos << 1, &body);
        let mark = bytes.len() - payload;
        Self {
            id: (qos > 0).then(|| mark - 2),
            mark,
            bytes,
            next_id: 0,
        }
    }

    #[inline]
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, mark: Mark) {
        if let Some(at) = self.id {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            self.bytes[at..at + 2].copy_from_slice(&self.next_id.to_be_bytes());
        }
        let place = &mut self.bytes[self.mark..self.mark + MARK];
        place[..4].copy_from_slice(&mark.publisher.to_le_bytes());
        place[4..8].copy_from_slice(&mark.number.to_le_bytes());
        place[8..].copy_from_slice(&mark.sent.to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// A whole packet at the front of some bytes.
pub(crate) struct Frame<'a> {
    pub(crate) first: u8,
    pub(crate) body: &'a [u8],
    pub(crate) len: usize,
}

#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&first, rest) = bytes.split_first()?;
    let (mut len, mut header) = (0, 0);
    for &byte in rest.iter().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * header);
        header += 1;
        if byte & 0x80 == 0 {
            let body = rest.get(header..header + len)?;
            return Some(Frame {
                first,
                body,
                len: 1 + header + len,
            });
        }
    }
    None
}

/// The mark of a PUBLISH and, for QoS 1, its packet identifier.
#[inline]
pub(crate) fn message(frame: &Frame<'_>) -> Option<(Mark, Option<[u8; 2]>)> {
    let (topic, _) = frame.body.split_first_chunk()?;
    let mut rest = frame
        .body
        .get(2 + usize::from(u16::from_be_bytes(*topic))..)?;
    let mut id = None;
    if frame.first & 6 != 0 {
        let (taken, left) = rest.split_first_chunk()?;
        (id, rest) = (Some(*taken), left);
    }
    let (publisher, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (sent, _) = rest.split_first_chunk()?;
    let mark = Mark {
        publisher: u32::from_le_bytes(*publisher),
        number: u32::from_le_bytes(*number),
        sent: u64::from_le_bytes(*sent),
    };
    Some((mark, id))
}
