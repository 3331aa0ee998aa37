//! The PROXY protocol, versions 1 and 2: the first bytes of a connection say for whom a proxy opened it.

use std::net::SocketAddr;

use ipnet::IpNet;
use ppp::{v1, v2};
use rollcall_domain::presence::Peer;

/// The longest header of version 1.
const MAX_V1: usize = 107;
/// A header of version 2 with as many extras (TLVs) as proxies send. It could say up to 64 KiB.
const MAX_V2: usize = 4096;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_START: usize = 16;

/// Who must begin with a header, on one listener.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    /// Where they may be; anywhere if there is none.
    pub(crate) from: Vec<IpNet>,
}

impl Proxies {
    /// Whether `peer` may speak for others. Who may use a unix socket, its file says.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(address) => {
                let ip = address.ip().to_canonical();
                self.from.is_empty() || self.from.iter().any(|network| network.contains(&ip))
            }
            Peer::Unix => true,
        }
    }
}

/// A complete header: how long it is, and the client it names; `None` if the proxy speaks for itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) client: Option<SocketAddr>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The header at the front of `bytes`; `None` if there is more to come.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let signed = bytes.len().min(SIGNATURE.len());
    if bytes[..signed] == SIGNATURE[..signed] {
        return parse_v2(bytes);
    }
    let start = bytes.len().min(6);
    if bytes[..start] != b"PROXY "[..start] {
        return Err(Malformed);
    }
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() < MAX_V1 {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    let header = v1::Header::try_from(&bytes[..=end]).map_err(|_| Malformed)?;
    let client = match header.addresses {
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    let len = end + 1;
    Ok(Some(Header { len, client }))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if bytes.len() < V2_START {
        return Ok(None);
    }
    let len = V2_START + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if len > MAX_V2 {
        return Err(Malformed);
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let header = v2::Header::try_from(&bytes[..len]).map_err(|_| Malformed)?;
    let client = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        _ if header.protocol == v2::Protocol::Datagram => return Err(Malformed),
        (_, v2::Addresses::IPv4(it)) => Some((it.source_address, it.source_port).into()),
        (_, v2::Addresses::IPv6(it)) => Some((it.source_address, it.source_port).into()),
        (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
    };
    Ok(Some(Header { len, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn table() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let four = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5B];
        let mut six = [0; 36];
        (six[0], six[1], six[15], six[33]) = (0x20, 0x01, 9, 80);
        let with_extras = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        vec![
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 1883\r\n".to_vec(),
                Some("203.0.113.7:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
                Some("[2001:db8::1]:1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ff:: :: 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &four), Some("203.0.113.7:12345")),
            (v2(1, 0x11, &with_extras), Some("203.0.113.7:12345")),
            (v2(1, 0x21, &six), Some("[2001::9]:80")),
            (v2(1, 0x31, &[0; 216]), None),
            (v2(1, 0x00, &[]), None),
            (v2(0, 0x11, &four), None),
            (v2(0, 0x00, b"whatever"), None),
        ]
    }

    #[test]
    fn a_header_names_the_client_and_what_follows_is_not_of_it() {
        for (bytes, client) in table() {
            let client = client.map(|it| it.parse().expect("an address"));
            let len = bytes.len();
            let found = Ok(Some(Header { len, client }));
            assert_eq!(parse(&bytes), found, "{}", bytes.escape_ascii());
            let followed = [&bytes[..], b"\x10\x0E\0\x04MQTT\r\n"].concat();
            assert_eq!(parse(&followed), found, "{}", bytes.escape_ascii());
            for cut in 0..len {
                assert_eq!(
                    parse(&bytes[..cut]),
                    Ok(None),
                    "{} at {cut}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn what_is_no_header_is_known_at_once() {
        let long = [b"PROXY TCP4 ", &[b'1'; 120][..]].concat();
        for bytes in [
            b"\x10\x0E\0\x04MQTT".to_vec(),
            b"PROXIES".to_vec(),
            b"PROXY TCP4 nowhere 10.0.0.1 12345 1883\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 123456 1883\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            long,
            v2(2, 0x11, &[0; 12]),
            v2(1, 0x12, &[0; 12]),
            v2(1, 0x11, &[0; 11]),
            v2(1, 0x41, &[0; 12]),
            v2(1, 0x11, &[0; 4096])[..V2_START].to_vec(),
            [b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0C", &[0; 12][..]].concat(),
        ] {
            assert_eq!(parse(&bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200), start in 0..4) {
            let start: &[u8] = [&b""[..], b"PROXY ", b"PROXY TCP4 ", SIGNATURE][start as usize];
            let bytes = [start, &tail].concat();
            if let Ok(Some(header)) = parse(&bytes) {
                proptest::prop_assert!(header.len <= bytes.len());
            }
        }
    }

    #[test]
    fn only_networks_that_are_named_may_speak_for_others() {
        let peer = |text: &str| Peer::Ip(text.parse().expect("an address"));
        let anywhere = Proxies { from: Vec::new() };
        assert!(anywhere.trusts(peer("203.0.113.7:1")));
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().expect("a network"));
        let proxies = Proxies {
            from: networks.to_vec(),
        };
        for (from, trusted) in [
            ("10.9.8.7:1", true),
            ("[::ffff:10.9.8.7]:1", true),
            ("[fd00::1]:1", true),
            ("11.0.0.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(proxies.trusts(peer(from)), trusted, "{from}");
        }
        assert!(proxies.trusts(Peer::Unix));
    }
}
