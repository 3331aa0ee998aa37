//! The codec against a table, against itself, and against another one.

#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/table.rs"]
mod table;

use proptest::prelude::*;
use rollcall_domain::presence::Protocol;
use rollcall_mqtt::codec::{self, Fault, OutgoingPublish};
use rollcall_mqtt::packet::{AckKind, Packet, PublishProperties, QoS};

const LIMIT: u32 = 1 << 20;

fn name(result: &Result<Option<(Packet<'_>, usize)>, Fault>) -> String {
    match result {
        Ok(Some((packet, _))) => {
            let text = format!("{packet:?}");
            text.split(['(', ' ']).next().unwrap_or_default().to_owned()
        }
        Ok(None) => "more".to_owned(),
        Err(fault) => format!("{fault:?}"),
    }
}

#[test]
fn packets_are_what_the_table_says() {
    let rows = table::rows();
    assert!(rows.len() > 150);
    for row in &rows {
        let found = codec::decode(&row.bytes, row.protocol, LIMIT);
        assert_eq!(name(&found), row.found, "{}", row.line);
        if let Ok(Some((_, len))) = found {
            assert_eq!(len, row.bytes.len(), "{}", row.line);
            assert_eq!(codec::frame_len(&row.bytes), Ok(Some(len)));
        }
    }
}

#[test]
fn no_beginning_of_a_packet_is_a_packet_and_what_follows_one_does_not_matter() {
    for row in table::rows() {
        let found = codec::decode(&row.bytes, row.protocol, LIMIT);
        let Ok(Some(whole)) = found else { continue };
        for end in 0..row.bytes.len() {
            let part = codec::decode(&row.bytes[..end], row.protocol, LIMIT);
            assert_eq!(name(&part), "more", "{end} bytes of {}", row.line);
        }
        let longer = [&row.bytes[..], &[0xff; 9]].concat();
        assert_eq!(
            codec::decode(&longer, row.protocol, LIMIT),
            Ok(Some(whole)),
            "{}",
            row.line
        );
    }
}

#[test]
fn a_faulty_greeting_is_answered_in_the_terms_of_its_version() {
    for (bytes, answer) in [
        (
            &b"\x10\x0d\0\x04MQTT\x03\x02\0\0\0\x01c"[..],
            Some((Protocol::Mqtt311, 1)),
        ),
        (
            b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01c",
            Some((Protocol::Mqtt5, 0x84)),
        ),
        (
            b"\x10\x0c\0\x04MQTT\x04\x00\0\0\0\x00",
            Some((Protocol::Mqtt311, 2)),
        ),
        (b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01c", None),
        (
            b"\x10\x0e\0\x04MQTT\x05\x03\0\0\0\0\x01c",
            Some((Protocol::Mqtt5, 0x81)),
        ),
        (
            b"\x10\x11\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01c",
            Some((Protocol::Mqtt5, 0x82)),
        ),
        (
            b"\x10\xff\xff\xff\x7f\0\x04MQTT\x05",
            Some((Protocol::Mqtt5, 0x95)),
        ),
        (b"\x10\xff\xff\xff\x7f\0\x04MQTT\x04", None),
        (b"GET / HTTP/1.1", None),
        (b"\x10\x0d\0\x04MQTS\x05\x02\0\0\0\x01c", None),
    ] {
        let fault = codec::decode(bytes, None, LIMIT).expect_err("faulty");
        assert_eq!(codec::refusal(fault, bytes), answer, "{fault:?}");
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Mqtt31, Protocol::Mqtt311, Protocol::Mqtt5])
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/äß€🦀 ]{0,20}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-z/ä]{1,200}"
}

#[derive(Clone, Debug)]
struct Properties {
    format: Option<bool>,
    expiry: Option<u32>,
    response: Option<String>,
    correlation: Option<Vec<u8>>,
    content: Option<String>,
    user: Vec<(String, String)>,
}

fn properties() -> impl Strategy<Value = Properties> {
    let option = prop::option::of::<BoxedStrategy<String>>;
    (
        any::<Option<bool>>(),
        any::<Option<u32>>(),
        option(topic().boxed()),
        any::<Option<Vec<u8>>>(),
        option(text().boxed()),
        prop::collection::vec((text(), text()), 0..4),
    )
        .prop_map(
            |(format, expiry, response, correlation, content, user)| Properties {
                format,
                expiry,
                response,
                correlation,
                content,
                user,
            },
        )
}

impl Properties {
    /// As a client may write them: in another order than ours.
    fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let binary = |block: &mut Vec<u8>, id: u8, bytes: &[u8]| {
            block.push(id);
            block.extend((bytes.len() as u16).to_be_bytes());
            block.extend(bytes);
        };
        for (name, value) in &self.user {
            binary(&mut block, 0x26, name.as_bytes());
            block.extend((value.len() as u16).to_be_bytes());
            block.extend(value.as_bytes());
        }
        if let Some(bytes) = &self.correlation {
            binary(&mut block, 9, bytes);
        }
        if let Some(text) = &self.response {
            binary(&mut block, 8, text.as_bytes());
        }
        if let Some(text) = &self.content {
            binary(&mut block, 3, text.as_bytes());
        }
        if let Some(seconds) = self.expiry {
            block.push(2);
            block.extend(seconds.to_be_bytes());
        }
        if let Some(format) = self.format {
            block.extend([1, format.into()]);
        }
        block
    }

    fn are(&self, read: &PublishProperties<'_>) -> bool {
        read.payload_format == self.format.map(u8::from)
            && read.message_expiry == self.expiry
            && read.response_topic == self.response.as_deref()
            && read.correlation_data == self.correlation.as_deref()
            && read.content_type == self.content.as_deref()
            && read
                .user
                .iter()
                .eq(self.user.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

proptest! {
    #[test]
    fn a_publish_is_read_as_it_was_written_and_written_on_as_it_was_read(
        protocol in protocol(), topic in topic(), qos in 0u8..3, dup: bool, retain: bool, id in 1u16..,
        properties in properties(), payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let five = protocol == Protocol::Mqtt5;
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if five {
            body.extend(variable(properties.block().len()));
            body.extend(properties.block());
        }
        body.extend(&payload);
        let dup = dup && qos > 0;
        let mut bytes = vec![0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain)];
        bytes.extend(variable(body.len()));
        bytes.extend(body);

        let Ok(Some((Packet::Publish(publish), len))) = codec::decode(&bytes, Some(protocol), LIMIT) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!(len, bytes.len());
        prop_assert_eq!(publish.topic, &topic);
        prop_assert_eq!(publish.payload, &payload[..]);
        prop_assert_eq!(publish.packet_id, (qos > 0).then_some(id));
        prop_assert_eq!((publish.dup, publish.retain, publish.qos as u8), (dup, retain, qos));
        if five {
            prop_assert!(properties.are(&publish.properties));
        }
        let mut again = Vec::new();
        codec::publish(&mut again, protocol, &OutgoingPublish {
            dup, qos: publish.qos, retain, topic: publish.topic, packet_id: publish.packet_id,
            properties: &publish.properties, subscription_identifiers: &[], payload: publish.payload,
        });
        let read = codec::decode(&again, Some(protocol), LIMIT);
        prop_assert_eq!(read, Ok(Some((Packet::Publish(publish), again.len()))));
        prop_assert_eq!(again.len(), bytes.len());
    }

    #[test]
    fn acknowledgements_are_read_as_they_were_written(protocol in protocol(), id in 1u16.., kind in 0..4usize, bad: bool) {
        let kind = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp][kind];
        let code = match (bad && protocol == Protocol::Mqtt5, kind) {
            (false, _) => 0,
            (true, AckKind::PubAck | AckKind::PubRec) => 0x97,
            (true, AckKind::PubRel | AckKind::PubComp) => 0x92,
        };
        let mut bytes = Vec::new();
        codec::ack(&mut bytes, protocol, kind, id, code);
        let Ok(Some((Packet::Ack(ack), _))) = codec::decode(&bytes, Some(protocol), LIMIT) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!((ack.kind, ack.packet_id, ack.reason), (kind, id, code));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), protocol in prop::option::of(protocol())) {
        walk(&bytes, protocol);
    }

    #[test]
    fn a_packet_with_a_flaw_is_read_without_harm_and_alike_by_others(
        row in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let rows = table::rows();
        let row = &rows[row.index(rows.len())];
        let mut bytes = row.bytes.clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        walk(&bytes, row.protocol);
        oracle::compare(&bytes);
    }
}

/// Looks at everything there is in a packet.
fn walk(bytes: &[u8], protocol: Option<Protocol>) {
    match codec::decode(bytes, protocol, LIMIT) {
        Ok(Some((packet, len))) => {
            assert!(len <= bytes.len());
            match packet {
                Packet::Subscribe(subscribe) => assert!(subscribe.filters().count() > 0),
                Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters().count() > 0),
                Packet::Publish(publish) => assert!(publish.properties.user.iter().count() < 200),
                Packet::Connect(connect) => assert!(connect.properties.user.iter().count() < 200),
                _ => {}
            }
        }
        Ok(None) => {}
        Err(fault) => {
            assert!(fault.reason() >= 0x80);
            assert!(!fault.to_string().is_empty());
            let _ = codec::refusal(fault, bytes);
        }
    }
}

#[test]
fn the_other_codec_reads_the_table_alike() {
    for row in table::rows() {
        oracle::compare(&row.bytes);
    }
}

#[test]
fn qos_is_ordered() {
    assert!(QoS::AtMostOnce < QoS::AtLeastOnce && QoS::AtLeastOnce < QoS::ExactlyOnce);
}

#[test]
fn what_fuzzing_has_found_is_read_without_harm() {
    for target in ["decode", "oracle"] {
        for bytes in corpus::corpus(target).into_values() {
            for protocol in [None, Some(Protocol::Mqtt311), Some(Protocol::Mqtt5)] {
                walk(&bytes, protocol);
            }
            oracle::compare(&bytes);
        }
    }
}
