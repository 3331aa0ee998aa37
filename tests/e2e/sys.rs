//! `$SYS` topics: what they say, to whom, and that nobody else says anything there.

use std::collections::BTreeMap;

use crate::client::{Client, Hello, publish};
use crate::world::{World, wait_for};

/// The values that a new subscription gets at once.
fn values(client: &mut Client, filter: &str) -> BTreeMap<String, String> {
    let id = client.id();
    client.send(&crate::client::subscribe(client.five, id, &[(filter, 0)]));
    client.send(&[0xC0, 0]);
    let mut found = BTreeMap::new();
    loop {
        let packet = client.receive();
        match packet.first {
            0xD0 => return found,
            0x90 => {}
            _ => {
                let message = crate::client::message(&packet, client.five);
                let payload = String::from_utf8(message.payload).expect("text");
                found.insert(message.topic, payload);
            }
        }
    }
}

fn open(interval: &str) -> World {
    World::with(&[
        ("ROLLCALL_MQTT__ACCESS", "open"),
        ("ROLLCALL_MQTT__SYS__INTERVAL", interval),
    ])
}

#[test]
fn values_are_true_and_there_at_once() {
    let world = open("100ms");
    let mut talker = world.client(Hello::anyone("talker").lasting());
    talker.subscribe(&[("a", 1), ("b/#", 0), ("$share/g/c", 0)]);
    let mut other = world.client(Hello::anyone("other").five());
    other.publish_with("kept", b"x", 1, true, &[]);
    other.publish("a", b"x", 1);
    talker.take();
    talker.disconnect();
    other.publish("a", b"waits", 1);
    other.publish("a", b"waits", 1);
    let expected = [
        ("version", "rollcall 0.1.0"),
        ("clients/total", "3"),
        ("clients/connected", "2"),
        ("clients/active", "2"),
        ("clients/disconnected", "1"),
        ("clients/inactive", "1"),
        ("clients/maximum", "2"),
        ("clients/expired", "0"),
        ("subscriptions/count", "4"),
        ("shared_subscriptions/count", "1"),
        ("retained messages/count", "1"),
        ("messages/stored", "3"),
        ("store/messages/count", "3"),
        ("publish/messages/received", "4"),
        ("publish/messages/dropped", "0"),
    ];
    let mut reader = world.client(Hello::anyone("reader").five());
    let found = wait_for("true values", || {
        let found = values(&mut reader, "$SYS/#");
        let value = |name: &str| {
            found
                .get(&format!("$SYS/broker/{name}"))
                .map(String::as_str)
        };
        expected
            .iter()
            .all(|(name, wanted)| value(name) == Some(wanted))
            .then_some(found)
    });
    let number = |name: &str| -> u64 {
        let value = &found[&format!("$SYS/broker/{name}")];
        value
            .split(' ')
            .next()
            .expect("a word")
            .parse()
            .expect(name)
    };
    // CONNECT, SUBSCRIBE, PUBACK, DISCONNECT; CONNECT and four PUBLISH; CONNECT and a SUBSCRIBE.
    assert!(number("messages/received") >= 4 + 5 + 2);
    assert!(number("messages/sent") > number("publish/messages/sent"));
    assert!(number("publish/messages/sent") >= 1);
    assert!(number("bytes/received") > 100 && number("bytes/sent") > 100);
    assert!(number("store/messages/bytes") > 0 && number("uptime") < 30);
    // Metrics know of bytes, too.
    assert!(world.counter("rollcall_mqtt_bytes_received_total", "") > 100.0);
    assert!(world.counter("rollcall_mqtt_bytes_sent_total", "") > 100.0);
}

#[test]
fn news_come_by_themselves_and_only_to_those_who_ask_for_them() {
    let world = open("100ms");
    let mut broad = world.client(Hello::anyone("broad"));
    broad.subscribe(&[("#", 0), ("+/broker/uptime", 0)]);
    let mut reader = world.client(Hello::anyone("reader"));
    assert_eq!(
        values(&mut reader, "$SYS/broker/clients/+").len(),
        7,
        "one for each of clients"
    );
    let more = world.client(Hello::anyone("more"));
    wait_for("news", || {
        let message = reader.take();
        let connected = message.topic == "$SYS/broker/clients/connected";
        (connected && message.payload == b"3").then_some(())
    });
    drop(more);
    wait_for("more news", || {
        let message = reader.take();
        let connected = message.topic == "$SYS/broker/clients/connected";
        (connected && message.payload == b"2").then_some(())
    });
    broad.expect_silence();
}

#[test]
fn nobody_else_says_anything_there() {
    let world = open("10s");
    let mut reader = world.client(Hello::anyone("reader"));
    assert_eq!(
        reader.subscribe(&[("$SYS/mine", 1), ("$SYSTEM/mine", 1)]),
        [1, 1]
    );
    let mut liar = world.client(Hello::anyone("liar").five());
    for qos in [1, 2] {
        assert_eq!(liar.publish("$SYS/mine", b"x", qos), 0x87);
    }
    liar.send(&publish(true, "$SYS/mine", b"x", 0, true, 0, &[]));
    // An old client has its acknowledgement, and no more.
    let mut old = world.client(Hello::anyone("old"));
    assert_eq!(old.publish("$SYS/mine", b"x", 1), 0);
    assert_eq!(old.publish("$SYSTEM/mine", b"other", 1), 0);
    assert_eq!(reader.take().payload, b"other");
    reader.expect_silence();
    for (five, code) in [(false, 5), (true, 0x87)] {
        let hello = Hello::anyone("will").version(five);
        let hello = hello.will("$SYS/mine", b"x", 0, false);
        assert_eq!(Client::connect(world.mqtt(), hello).1.code, code);
    }
}

#[test]
fn things_read_it_if_they_are_named() {
    let mut world = World::start();
    let (named, other) = (world.thing("named"), world.thing("other"));
    assert!(world.end("TERM").success());
    world.set("ROLLCALL_MQTT__SYS__READERS", &named.id);
    world.run();
    let mut reader = world.client(Hello::of(&named, "c").five());
    assert_eq!(values(&mut reader, "$SYS/broker/version").len(), 1);
    assert_eq!(
        reader.subscribe(&[("$share/g/$SYS/#", 0), ("$SYSTEM/#", 0), ("#", 0)]),
        [0, 0x87, 0x87]
    );
    assert_eq!(reader.publish("$SYS/broker/version", b"x", 1), 0x87);
    reader.disconnect();
    let lasting = Hello::of(&named, "lasting").five().lasting();
    let mut reader = world.client(lasting.clone());
    let filters = [("$SYS/#", 0), ("$share/g/$SYS/#", 0)];
    assert_eq!(reader.subscribe(&filters), [0, 0]);
    reader.reset();
    let mut other = world.client(Hello::of(&other, "c").five());
    assert_eq!(other.subscribe(&[("$SYS/#", 0)]), [0x87]);

    // What is kept of a session is worth no more than a new one.
    assert!(world.end("TERM").success());
    world.set("ROLLCALL_MQTT__SYS__READERS", "");
    world.run();
    let (mut reader, connack) = Client::connect(world.mqtt(), lasting);
    assert!(connack.present);
    for (filter, _) in filters {
        assert_eq!(reader.unsubscribe(filter), [0, 0x11], "{filter}");
    }
}

#[test]
fn it_can_be_switched_off() {
    let world = open("0s");
    let mut reader = world.client(Hello::anyone("reader"));
    assert_eq!(values(&mut reader, "$SYS/#").len(), 0);
}
