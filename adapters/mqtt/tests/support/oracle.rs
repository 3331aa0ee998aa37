//! What another codec makes of the same bytes: `mqttbytes`, for MQTT 3.1.1.
//!
//! It lets through much that the standard forbids, so only this is held against it: what we take for a
//! packet it takes for the same packet.

use bytes::BytesMut;
use mqttbytes::v4;
use rollcall_domain::presence::Protocol;
use rollcall_mqtt::codec;
use rollcall_mqtt::packet::{AckKind, Packet, QoS};

/// Panics if the two read something else in `input`, a packet of a client that speaks 3.1.1.
pub(crate) fn compare(input: &[u8]) {
    let connect = input.first().is_some_and(|first| first >> 4 == 1);
    let protocol = if connect {
        None
    } else {
        Some(Protocol::Mqtt311)
    };
    let Ok(Some((packet, len))) = codec::decode(input, protocol, 1 << 20) else {
        return;
    };
    if matches!(&packet, Packet::Connect(connect) if connect.protocol != Protocol::Mqtt311) {
        return;
    }
    let mut theirs = BytesMut::from(&input[..len]);
    match (v4::read(&mut theirs, 1 << 20), packet) {
        (Ok(theirs), ours) => assert!(same(&ours, &theirs), "{ours:?} is not {theirs:?}"),
        (Err(error), ours) => assert!(is_known(&ours), "{ours:?} is refused: {error:?}"),
    }
}

/// Where `mqttbytes` 0.6 refuses what the standard lets a codec read: it looks into topic filters, which are
/// answered one by one here.
fn is_known(ours: &Packet<'_>) -> bool {
    matches!(ours, Packet::Subscribe(_) | Packet::Unsubscribe(_))
}

fn same(ours: &Packet<'_>, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => {
            let will = match (&ours.will, &theirs.last_will) {
                (None, None) => true,
                (Some(ours), Some(theirs)) => {
                    ours.topic == theirs.topic
                        && ours.payload == &theirs.message[..]
                        && ours.qos as u8 == theirs.qos as u8
                        && ours.retain == theirs.retain
                }
                _ => false,
            };
            let username = ours.username.unwrap_or_default();
            let login = theirs.login.as_ref();
            will && ours.client_id == theirs.client_id
                && ours.clean_start == theirs.clean_session
                && ours.keep_alive == theirs.keep_alive
                && username == login.map_or("", |login| login.username.as_str())
                && std::str::from_utf8(ours.password.unwrap_or_default())
                    .is_ok_and(|key| key == login.map_or("", |login| login.password.as_str()))
        }
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => {
            ours.topic == theirs.topic
                && ours.payload == &theirs.payload[..]
                && ours.qos as u8 == theirs.qos as u8
                && ours.retain == theirs.retain
                && ours.dup == theirs.dup
                && ours.packet_id.unwrap_or(0) == theirs.pkid
        }
        (Packet::Ack(ours), theirs) => {
            let (kind, id) = match theirs {
                v4::Packet::PubAck(theirs) => (AckKind::PubAck, theirs.pkid),
                v4::Packet::PubRec(theirs) => (AckKind::PubRec, theirs.pkid),
                v4::Packet::PubRel(theirs) => (AckKind::PubRel, theirs.pkid),
                v4::Packet::PubComp(theirs) => (AckKind::PubComp, theirs.pkid),
                _ => return false,
            };
            (ours.kind, ours.packet_id) == (kind, id)
        }
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            let filters = ours.filters().map(|it| (it.filter.to_owned(), it.qos));
            let wanted = theirs
                .filters
                .iter()
                .map(|it| (it.path.clone(), qos(it.qos)));
            ours.packet_id == theirs.pkid && filters.eq(wanted)
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            ours.packet_id == theirs.pkid
                && ours.filters().eq(theirs.topics.iter().map(String::as_str))
        }
        (Packet::PingReq, v4::Packet::PingReq) => true,
        (Packet::Disconnect(_), v4::Packet::Disconnect) => true,
        _ => false,
    }
}

fn qos(theirs: mqttbytes::QoS) -> QoS {
    QoS::from_bits(theirs as u8).expect("a QoS")
}
