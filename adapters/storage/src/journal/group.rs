//! Events as the journal keeps them: a group of those that were committed together, packed into one row.
//!
//! Each event says everything about its session, so that it can be read when its neighbours are gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rollcall_domain::identity::{SessionId, ThingId, Timestamp};
use rollcall_domain::presence::{Change, Farewell, Peer, Presence, Protocol, Session};

/// Bytes of an event besides its client id, at most.
pub(super) const EVENT_BYTES: usize = 1 + 8 + 16 + 16 + 1 + 17 + 2 + 2;

/// Stands where others have the version of their IP address.
const UNIX: u8 = 1;

/// A row that is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("a group of events is damaged")]
pub(super) struct Damaged;

pub(super) fn encode(out: &mut Vec<u8>, presence: &Presence) {
    let Presence {
        session,
        change,
        at,
    } = presence;
    out.push(match change {
        Change::Arrived => 0,
        Change::Left(farewell) => 1 + *farewell as u8,
    });
    out.extend_from_slice(&at.0.to_be_bytes());
    encode_session(out, session);
}

pub(super) fn encode_session(out: &mut Vec<u8>, session: &Session) {
    out.extend_from_slice(session.id.as_bytes());
    out.extend_from_slice(session.thing.as_bytes());
    out.push(match session.protocol {
        Protocol::Mqtt31 => 3,
        Protocol::Mqtt311 => 4,
        Protocol::Mqtt5 => 5,
    });
    match session.peer {
        Peer::Ip(SocketAddr::V4(address)) => {
            out.push(4);
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&address.port().to_be_bytes());
        }
        Peer::Ip(SocketAddr::V6(address)) => {
            out.push(6);
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&address.port().to_be_bytes());
        }
        Peer::Unix => out.push(UNIX),
    }
    // Client ids are at most 65,535 bytes [MQTT5-1.5.4].
    let len = u16::try_from(session.client_id.len()).expect("invariant: fits an MQTT string");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(session.client_id.as_bytes());
}

/// The events of a group, in order.
pub(super) fn decode(bytes: &[u8]) -> impl Iterator<Item = Result<Presence, Damaged>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let event = decode_event(&mut rest).ok_or(Damaged);
        if event.is_err() {
            rest = &[];
        }
        Some(event)
    })
}

fn decode_event(rest: &mut &[u8]) -> Option<Presence> {
    let change = match take::<1>(rest)? {
        [0] => Change::Arrived,
        [n] => Change::Left(*Farewell::ALL.get(usize::from(n) - 1)?),
    };
    let at = Timestamp(u64::from_be_bytes(take(rest)?));
    let session = Arc::new(decode_session(rest)?);
    Some(Presence {
        session,
        change,
        at,
    })
}

pub(super) fn decode_session(rest: &mut &[u8]) -> Option<Session> {
    let id = SessionId::from_bytes(take(rest)?);
    let thing = ThingId::from_bytes(take(rest)?);
    let protocol = match take(rest)? {
        [3] => Protocol::Mqtt31,
        [4] => Protocol::Mqtt311,
        [5] => Protocol::Mqtt5,
        _ => return None,
    };
    let ip: Option<IpAddr> = match take(rest)? {
        [4] => Some(Ipv4Addr::from_octets(take(rest)?).into()),
        [6] => Some(Ipv6Addr::from_octets(take(rest)?).into()),
        [UNIX] => None,
        _ => return None,
    };
    let peer = match ip {
        Some(ip) => Peer::Ip(SocketAddr::new(ip, u16::from_be_bytes(take(rest)?))),
        None => Peer::Unix,
    };
    let len = u16::from_be_bytes(take(rest)?);
    let (client_id, left) = rest.split_at_checked(len.into())?;
    *rest = left;
    let client_id = std::str::from_utf8(client_id).ok()?.into();
    Some(Session {
        id,
        thing,
        client_id,
        protocol,
        peer,
    })
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn session() -> impl Strategy<Value = Session> {
        let peer = (0..3, any::<[u8; 16]>(), any::<u16>()).prop_map(|(kind, ip, port)| {
            let four = Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]);
            let ip = match kind {
                0 => four.into(),
                1 => Ipv6Addr::from_octets(ip).into(),
                _ => return Peer::Unix,
            };
            Peer::Ip(SocketAddr::new(ip, port))
        });
        (
            any::<[u8; 16]>(),
            any::<[u8; 16]>(),
            "\\PC{0,40}",
            prop::sample::select(vec![Protocol::Mqtt31, Protocol::Mqtt311, Protocol::Mqtt5]),
            peer,
        )
            .prop_map(|(id, thing, client_id, protocol, peer)| Session {
                id: SessionId::from_bytes(id),
                thing: ThingId::from_bytes(thing),
                client_id: client_id.into(),
                protocol,
                peer,
            })
    }

    fn presence() -> impl Strategy<Value = Presence> {
        let change = prop_oneof![
            Just(Change::Arrived),
            prop::sample::select(Farewell::ALL.to_vec()).prop_map(Change::Left),
        ];
        (session(), change, any::<u64>()).prop_map(|(session, change, at)| Presence {
            session: Arc::new(session),
            change,
            at: Timestamp(at),
        })
    }

    #[test]
    fn the_number_of_each_farewell_stays_what_it_was() {
        let numbers = [
            Farewell::Disconnected,
            Farewell::ConnectionLost,
            Farewell::KeepAliveTimeout,
            Farewell::TakenOver,
            Farewell::ProtocolError,
            Farewell::TooSlow,
            Farewell::Revoked,
            Farewell::ServerShutdown,
            Farewell::InstanceFailed,
            Farewell::Kicked,
            Farewell::RateExceeded,
        ];
        assert_eq!(Farewell::ALL[..numbers.len()], numbers);
        for (place, farewell) in Farewell::ALL.into_iter().enumerate() {
            assert_eq!(farewell as usize, place);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(events in prop::collection::vec(presence(), 0..20)) {
            let mut bytes = Vec::new();
            for event in &events {
                let before = bytes.len();
                encode(&mut bytes, event);
                prop_assert!(bytes.len() - before <= EVENT_BYTES + event.session.client_id.len());
            }
            let read: Vec<_> = decode(&bytes).collect::<Result<_, _>>().expect("sound");
            prop_assert_eq!(read, events);
        }

        #[test]
        fn damage_is_an_error_and_no_event(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Ends, and says so once.
            let read: Vec<_> = decode(&bytes).collect();
            prop_assert!(read.iter().filter(|event| event.is_err()).count() <= 1);
        }
    }
}
