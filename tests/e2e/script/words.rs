//! Packets in words, and the words in bytes.

use std::fmt::Write as _;

/// A packet in words: what it is, what stands at a place, what has a name.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) kind: String,
    pub(super) places: Vec<String>,
    pub(super) named: Vec<(String, String)>,
}

/// Properties by name: identifier and the number of bytes; 0 is a variable byte integer, 10 text, 11 bytes, 12 a pair.
pub(super) const PROPERTIES: [(&str, u8, u8); 27] = [
    ("format", 0x01, 1),
    ("message-expiry", 0x02, 4),
    ("content-type", 0x03, 10),
    ("response-topic", 0x08, 10),
    ("correlation", 0x09, 11),
    ("sub-id", 0x0B, 0),
    ("session-expiry", 0x11, 4),
    ("assigned-id", 0x12, 10),
    ("server-keep-alive", 0x13, 2),
    ("auth-method", 0x15, 10),
    ("auth-data", 0x16, 11),
    ("problem-information", 0x17, 1),
    ("delay", 0x18, 4),
    ("response-information", 0x19, 1),
    ("information", 0x1A, 10),
    ("server-reference", 0x1C, 10),
    ("reason", 0x1F, 10),
    ("receive-max", 0x21, 2),
    ("alias-max", 0x22, 2),
    ("alias", 0x23, 2),
    ("max-qos", 0x24, 1),
    ("retain-available", 0x25, 1),
    ("user", 0x26, 12),
    ("max-packet", 0x27, 4),
    ("wildcard-available", 0x28, 1),
    ("sub-ids-available", 0x29, 1),
    ("shared-available", 0x2A, 1),
];
pub(super) const FLAGS: [&str; 4] = ["dup", "retain", "present", "lasting"];
pub(super) const NAMED: [&str; 7] = [
    "qos",
    "id",
    "clean",
    "keep",
    "will",
    "payload",
    "will-flags",
];

impl Words {
    pub(super) fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut found = Self {
            kind: words.next().expect("a packet").to_owned(),
            ..Self::default()
        };
        for word in words {
            let known = |name: &str| {
                let name = name.strip_prefix("will.").unwrap_or(name);
                NAMED.contains(&name)
                    || FLAGS.contains(&name)
                    || PROPERTIES.iter().any(|it| it.0 == name)
            };
            match word.split_once('=') {
                Some((name, value)) if known(name) => {
                    found.named.push((name.to_owned(), value.to_owned()));
                }
                _ if FLAGS.contains(&word) => found.named.push((word.to_owned(), "1".to_owned())),
                _ => found.places.push(word.to_owned()),
            }
        }
        found
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.named.iter().filter(|it| it.0 == name);
        named.map(|it| it.1.as_str()).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(super) fn number(&self, name: &str) -> u32 {
        self.get(name)
            .map_or(0, |value| value.parse().expect("a number"))
    }

    pub(super) fn flag(&mut self, name: &str, bit: u8) {
        if bit != 0 {
            self.named.push((name.to_owned(), "1".to_owned()));
        }
    }

    pub(super) fn read_tail(&mut self, rest: &mut &[u8]) {
        if !rest.is_empty() {
            self.places.push(format!("{:x}", take_number(rest, 1)));
            if !rest.is_empty() {
                self.read_properties(rest);
            }
        }
    }

    pub(super) fn read_properties(&mut self, rest: &mut &[u8]) {
        let len = take_variable(rest);
        let (mut block, after) = rest.split_at(len as usize);
        *rest = after;
        while !block.is_empty() {
            let id = take_number(&mut block, 1) as u8;
            let (name, _, kind) = PROPERTIES
                .iter()
                .find(|it| it.1 == id)
                .expect("a known property");
            let value = match kind {
                0 => take_variable(&mut block).to_string(),
                10 | 11 => take_text(&mut block),
                12 => {
                    let mut pair = take_text(&mut block);
                    write!(pair, ":{}", take_text(&mut block)).expect("written");
                    pair
                }
                len => take_number(&mut block, usize::from(*len)).to_string(),
            };
            self.named.push(((*name).to_owned(), value));
        }
    }
}

pub(super) fn take_number(rest: &mut &[u8], len: usize) -> u32 {
    let (bytes, after) = rest.split_at(len);
    *rest = after;
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

pub(super) fn take_variable(rest: &mut &[u8]) -> u32 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take_number(rest, 1);
        value |= (byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

pub(super) fn take_text(rest: &mut &[u8]) -> String {
    let len = take_number(rest, 2) as usize;
    let (bytes, after) = rest.split_at(len);
    *rest = after;
    String::from_utf8_lossy(bytes).into_owned()
}
