//! Reads `packets.txt`.

use rollcall_domain::presence::Protocol;

pub(crate) struct Row {
    /// `None` before the CONNECT.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) bytes: Vec<u8>,
    /// A packet's name, `more`, or a fault.
    pub(crate) found: String,
    pub(crate) line: &'static str,
}

pub(crate) fn rows() -> Vec<Row> {
    let lines = include_str!("../packets.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(row)
        .collect()
}

fn row(line: &'static str) -> Row {
    let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let &[protocol, notation, found] = &parts[..] else {
        panic!("three parts: {line}")
    };
    let protocol = match protocol {
        "-" => None,
        "3" => Some(Protocol::Mqtt31),
        "4" => Some(Protocol::Mqtt311),
        "5" => Some(Protocol::Mqtt5),
        other => panic!("nobody speaks {other}"),
    };
    let bytes = bytes(notation);
    Row {
        protocol,
        bytes,
        found: found.to_owned(),
        line,
    }
}

/// The bytes that a notation stands for; see the head of the table.
pub(crate) fn bytes(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length_at = None;
    let mut rest = notation;
    while let Some(first) = rest.chars().next() {
        if let '\'' | '"' = first {
            let (text, after) = rest[1..].split_once(first).expect("the end of a text");
            if first == '"' {
                bytes.extend((text.len() as u16).to_be_bytes());
            }
            bytes.extend(text.as_bytes());
            rest = after.trim_start();
            continue;
        }
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if word == "L" {
            length_at = Some(bytes.len());
        } else {
            let digits = word
                .as_bytes()
                .chunks(2)
                .map(|pair| std::str::from_utf8(pair).expect("hex"));
            bytes.extend(digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")));
        }
        rest = after.trim_start();
    }
    if let Some(at) = length_at {
        let len = bytes.len() - at;
        assert!(len < 128, "one byte of length: {notation}");
        bytes.insert(at, len as u8);
    }
    bytes
}
