//! Any bytes, in every state of a connection: no panic, no reading past the end, and what is read is written
//! and read again the same. `cargo +nightly fuzz run decode`

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall_domain::presence::Protocol;
use rollcall_mqtt::codec::{self, OutgoingPublish};
use rollcall_mqtt::packet::Packet;

fuzz_target!(|bytes: &[u8]| {
    let spoken = [Protocol::Mqtt31, Protocol::Mqtt311, Protocol::Mqtt5];
    for protocol in [None].into_iter().chain(spoken.map(Some)) {
        match codec::decode(bytes, protocol, 1 << 20) {
            Ok(Some((packet, len))) => {
                assert!(len <= bytes.len());
                look(packet, protocol);
            }
            Ok(None) => {}
            Err(fault) => drop(codec::refusal(fault, bytes)),
        }
    }
});

fn look(packet: Packet<'_>, protocol: Option<Protocol>) {
    match packet {
        Packet::Subscribe(subscribe) => assert!(subscribe.filters().count() > 0),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters().count() > 0),
        Packet::Publish(publish) => {
            let protocol = protocol.expect("not before the CONNECT");
            let mut again = Vec::new();
            codec::publish(&mut again, protocol, &OutgoingPublish {
                dup: publish.dup,
                qos: publish.qos,
                retain: publish.retain,
                topic: publish.topic,
                packet_id: publish.packet_id,
                properties: &publish.properties,
                subscription_identifiers: &[],
                payload: publish.payload,
            });
            // The topic alias, which is not written, may be all that made an empty topic legal.
            if publish.properties.topic_alias.is_none() {
                let read = codec::decode(&again, Some(protocol), u32::MAX);
                assert_eq!(read, Ok(Some((packet, again.len()))));
            }
        }
        _ => {}
    }
}
