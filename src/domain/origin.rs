//! Where somebody asks from, as far as that can be told. Limits of guesses go by it, so nobody is to choose it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// Where somebody is, as far as guessing goes: an address; of IPv6, a network of 64 bits.
#[must_use]
pub fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Networks of proxies whose word is taken on whom they ask for. None, unless they are named.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Who asks, by what `Forwarded` (RFC 7239) and `X-Forwarded-For` say, in the order of their lines; `peer` is at the
    /// other end of the connection.
    ///
    /// Each proxy adds at the end whom it heard from, so the lists are read from there, and no further than proxies go
    /// that are trusted: what stands before is a stranger's word. So is the one list if a proxy keeps the other; if
    /// both are there and do not agree, neither counts.
    pub fn origin<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl IntoIterator<Item = &'a str>,
        x_forwarded_for: impl IntoIterator<Item = &'a str>,
    ) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trust(peer) {
            return peer;
        }
        let forwarded: Vec<Hop> = forwarded.into_iter().flat_map(elements).collect();
        let lists = x_forwarded_for.into_iter();
        let x_forwarded_for: Vec<Hop> = lists.flat_map(|it| it.split(',').map(node)).collect();
        match (&forwarded[..], &x_forwarded_for[..]) {
            (hops, []) | ([], hops) => self.follow(peer, hops),
            (one, other) => {
                let (one, other) = (self.follow(peer, one), self.follow(peer, other));
                if one == other { one } else { peer }
            }
        }
    }

    fn follow(&self, peer: IpAddr, hops: &[Hop]) -> IpAddr {
        let mut at = peer;
        for hop in hops.iter().rev() {
            match hop {
                Some(before) if self.trust(at) => at = *before,
                _ => break,
            }
        }
        at
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// `None` if it does not say where that was, in an address.
type Hop = Option<IpAddr>;

/// An address, with a port or without.
fn node(text: &str) -> Hop {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse().map(IpAddr::V6).ok(),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    address.map(|it| it.to_canonical())
}

/// What the elements of a `Forwarded` say of whom it was for. Where quotes do not end, nothing is said.
fn elements(list: &str) -> Vec<Hop> {
    let Some(elements) = split(list, ',') else {
        return vec![None];
    };
    let hop = |element: &&str| {
        let pairs = split(element, ';')?;
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
        let (_, value) = nodes.next()?;
        match nodes.next() {
            None => node(&unquoted(value.trim())),
            Some(_) => None,
        }
    };
    elements.iter().map(hop).collect()
}

/// The parts between separators that stand in no quotes. `None` if quotes do not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (place, sign) in text.char_indices() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if sign == separator && !is_quoted => {
                parts.push(&text[start..place]);
                start = place + sign.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

fn unquoted(value: &str) -> String {
    let quoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    match quoted {
        // No address has a sign that needs to be escaped.
        Some(quoted) => quoted.to_owned(),
        None => value.to_owned(),
    }
}

/// A list, or one text with commas in it. A network of all addresses is none of proxies.
impl<'de> Deserialize<'de> for Proxies {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Texts {
            One(String),
            Many(Vec<String>),
        }

        let texts = match Texts::deserialize(input)? {
            Texts::One(text) => text.split(',').map(str::to_owned).collect(),
            Texts::Many(texts) => texts,
        };
        let texts = texts.iter().map(|it| it.trim()).filter(|it| !it.is_empty());
        let network = |text: &str| {
            let address = text.parse::<IpAddr>().ok().map(IpNet::from);
            let network = address.or_else(|| text.parse().ok());
            network.filter(|it| it.prefix_len() > 0).ok_or_else(|| {
                let expected = "expected addresses or networks of proxies, such as 10.0.0.0/8";
                serde::de::Error::custom(format!("{expected}, not {text:?}"))
            })
        };
        texts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(text: &str) -> Proxies {
        serde_json::from_value(text.into()).expect("networks")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_list_is_read_from_its_end_as_far_as_proxies_are_trusted() {
        let trusted = proxies("10.0.0.0/8, 2001:db8::/32");
        for (peer, list, origin) in [
            ("10.0.0.1", &["203.0.113.7"][..], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.1.1.1,203.0.113.7,10.0.0.9"], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7, 2001:db8::1"], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.1", &["[2001:db9::7]:4711"], "2001:db9::7"),
            ("10.0.0.1", &["[2001:db9::7]"], "2001:db9::7"),
            ("10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
            // All of it is proxies.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Who is no proxy speaks for himself.
            ("203.0.113.9", &["1.1.1.1"], "203.0.113.9"),
            ("203.0.113.9", &["10.0.0.1"], "203.0.113.9"),
            // As far as it makes sense.
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, "], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.7 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.07"], "10.0.0.1"),
            ("10.0.0.1", &["[203.0.113.7]"], "10.0.0.1"),
        ] {
            let found = trusted.origin(address(peer), [], list.iter().copied());
            assert_eq!(found, address(origin), "{peer} {list:?}");
            let nobody = Proxies::default();
            let found = nobody.origin(address(peer), list.iter().copied(), list.iter().copied());
            assert_eq!(found, address(peer).to_canonical(), "{peer} {list:?}");
        }
    }

    #[test]
    fn forwarded_says_for_whom_in_its_own_way() {
        let trusted = proxies("10.0.0.0/8");
        for (list, origin) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("FOR = \"203.0.113.7:80\" ; proto=https", "203.0.113.7"),
            (
                "by=10.0.0.1;for=\"[2001:db9::7]:4711\";host=a",
                "2001:db9::7",
            ),
            ("for=1.1.1.1, for=203.0.113.7;by=10.0.0.5", "203.0.113.7"),
            ("for=203.0.113.7,for=10.0.0.4", "203.0.113.7"),
            // What stands in quotes separates nothing.
            ("host=\"a,for=1.1.1.1\";for=203.0.113.7", "203.0.113.7"),
            ("for=203.0.113.7;host=\"a\\\",for=1.1.1.1\"", "203.0.113.7"),
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden, proto=http", "10.0.0.1"),
            ("for=1.1.1.1;for=203.0.113.7", "10.0.0.1"),
            ("for=1.1.1.1, for=\"203.0.113.7", "10.0.0.1"),
            ("203.0.113.7", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let found = trusted.origin(address("10.0.0.1"), [list], []);
            assert_eq!(found, address(origin), "{list}");
        }
    }

    #[test]
    fn two_lists_count_if_they_agree() {
        let (trusted, peer) = (proxies("10.0.0.0/8"), address("10.0.0.1"));
        let both = |one, other| trusted.origin(peer, [one], [other]);
        let real = address("203.0.113.7");
        assert_eq!(both("for=203.0.113.7", "1.1.1.1, 203.0.113.7"), real);
        assert_eq!(both("for=1.1.1.1", "203.0.113.7"), peer);
        assert_eq!(both("nonsense", "203.0.113.7"), peer);
    }

    #[test]
    fn networks_are_read_from_text_and_lists_and_everybody_is_no_proxy() {
        let read = |value: serde_json::Value| serde_json::from_value::<Proxies>(value);
        for (value, count) in [
            ("".into(), 0),
            ("10.0.0.1".into(), 1),
            ("10.0.0.1, 2001:db8::/32".into(), 2),
            (serde_json::json!(["10.0.0.0/8", "::1"]), 2),
        ] {
            assert_eq!(read(value).expect("networks").0.len(), count);
        }
        for wrong in ["0.0.0.0/0", "::/0", "10.0.0.0/33", "proxy.example.com"] {
            let error = read(wrong.into()).expect_err(wrong);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn an_address_of_ipv6_is_a_network() {
        assert_eq!(network(address("203.0.113.7")), "203.0.113.7");
        assert_eq!(network(address("::ffff:203.0.113.7")), "203.0.113.7");
        let one = network(address("2001:db8:1:2:3::1"));
        assert_eq!(one, network(address("2001:db8:1:2:4::9")));
        assert_ne!(one, network(address("2001:db8:1:3::1")));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_strangers_speak_for_themselves(
            list in "[for=,;\"\\\\ 0-9.:\\[\\]é]{0,60}",
            other in "[for=,;\"\\\\ 0-9.:\\[\\]é]{0,60}",
        ) {
            let (trusted, peer) = (proxies("10.0.0.0/8"), address("203.0.113.9"));
            prop_assert_eq!(trusted.origin(peer, [&*list], [&*other]), peer);
            // What a trusted proxy has heard itself stands last.
            let heard = format!("{list}, 203.0.113.7");
            let real = trusted.origin(address("10.0.0.1"), [], [&*heard]);
            prop_assert_eq!(real, address("203.0.113.7"));
        }
    }
}
