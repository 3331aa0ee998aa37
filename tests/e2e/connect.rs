//! CONNECT: who is let in, who is not, and what they are told.

use std::io::Write;

use crate::client::{Client, Hello, packet, text};
use crate::world::{Thing, World};

#[test]
fn a_thing_with_its_key_is_let_in_and_others_are_told_why_not() {
    let world = World::start();
    let thing = world.thing("lamp");
    let other = world.thing("other");
    for five in [false, true] {
        let hello = Hello::of(&thing, "c").version(five);
        world.client(hello.clone()).disconnect();
        let stolen = Thing {
            id: other.id.clone(),
            key: thing.key.clone(),
        };
        let unknown = Thing {
            id: thing.id.clone(),
            key: "no such key".into(),
        };
        let nobody = Thing {
            id: "lamp".into(),
            key: thing.key.clone(),
        };
        let mut cases: Vec<Hello> = [stolen, unknown, nobody]
            .iter()
            .map(|thing| Hello::of(thing, "c").version(five))
            .collect();
        cases.push(Hello {
            username: None,
            password: None,
            ..hello.clone()
        });
        cases.push(Hello {
            password: None,
            ..hello.clone()
        });
        cases.push(Hello {
            password: Some(vec![0xff, 0xfe]),
            ..hello
        });
        for hello in cases {
            let (mut client, connack) = Client::connect(world.mqtt(), hello.clone());
            assert_eq!(connack.code, if five { 0x86 } else { 4 }, "{hello:?}");
            client.expect_end();
        }
    }
    world.wait_events(4);
}

#[test]
fn versions_that_are_not_spoken_are_refused_in_their_own_terms() {
    let world = World::start();
    let greeting = |name: &str, level: u8| {
        let mut body = text(name);
        body.extend([level, 2, 0, 0]);
        body.extend(text("c"));
        packet(0x10, &body)
    };
    for (name, level, answer) in [
        ("MQTT", 3, vec![0x20, 2, 0, 1]),
        ("MQIsdp", 3, vec![0x20, 2, 0, 1]),
        ("MQTT", 0, vec![0x20, 2, 0, 1]),
    ] {
        let mut client = Client::open(world.mqtt(), false);
        client.send(&greeting(name, level));
        let connack = client.receive();
        assert_eq!(
            packet(connack.first, &connack.body),
            answer,
            "{name} {level}"
        );
        client.expect_end();
    }
    let mut client = Client::open(world.mqtt(), true);
    client.send(&greeting("MQTT", 6));
    assert_eq!(client.connack().code, 0x84);
    client.expect_end();
}

#[test]
fn what_is_no_mqtt_is_closed_without_a_word() {
    let world = World::start();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xC0, 0],
        packet(0x30, b"\0\x01ax"),
        packet(0x10, &[text("NOPE"), vec![4, 2, 0, 0, 0, 1, b'c']].concat()),
        vec![0x11, 0],
        vec![0x10, 0xff, 0xff, 0xff, 0xff],
        vec![0xF0, 0],
    ] {
        let mut client = Client::open(world.mqtt(), false);
        client.send(&bytes);
        client.expect_end();
    }
    assert!(world.events().is_empty());
}

#[test]
fn an_enhanced_authentication_is_refused_as_such() {
    let world = World::start();
    let thing = world.thing("lamp");
    let method = [vec![0x15], text("SCRAM-SHA-1")].concat();
    let hello = Hello::of(&thing, "c").five().property(&method);
    let (mut client, connack) = Client::connect(world.mqtt(), hello);
    assert_eq!(connack.code, 0x8C);
    client.expect_end();
}

#[test]
fn a_malformed_connect_of_version_5_is_answered_and_of_3_1_1_is_not() {
    let world = World::start();
    let thing = world.thing("lamp");
    for (five, change, code) in [
        (true, 1u8, Some(0x81)),
        (false, 1, None),
        // A will QoS without a will.
        (true, 0x08, Some(0x81)),
    ] {
        let mut bytes = Hello::of(&thing, "c").version(five).bytes();
        let flags = if bytes[1] < 0x80 { 9 } else { 10 };
        bytes[flags] |= change;
        let mut client = Client::open(world.mqtt(), five);
        client.send(&bytes);
        if let Some(code) = code {
            assert_eq!(client.connack().code, code);
        }
        client.expect_end();
    }
    // Receive maximum 0 and a property twice.
    for property in [&[0x21u8, 0, 0][..], &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]] {
        let hello = Hello::of(&thing, "c").five().property(property);
        assert_eq!(Client::connect(world.mqtt(), hello).1.code, 0x82);
    }
    assert!(world.events().is_empty());
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    let world = World::start();
    let thing = world.thing("lamp");
    for five in [false, true] {
        let hello = Hello::of(&thing, "c").version(five);
        let mut client = world.client(hello.clone());
        client.send(&hello.bytes());
        client.expect_disconnect(0x82);
    }
}

#[test]
fn a_client_without_an_id_gets_one_and_can_come_back_with_it() {
    let world = World::start();
    let thing = world.thing("lamp");
    let hello = Hello {
        clean: true,
        ..Hello::of(&thing, "").five()
    }
    .property(&[0x11, 0, 0, 0, 60]);
    for _ in 0..8 {
        let (client, connack) = Client::connect(world.mqtt(), hello.clone());
        assert_eq!(connack.code, 0);
        let at = connack
            .properties
            .windows(8)
            .position(|it| it[0] == 0x12 && it[3..].starts_with(b"auto-"));
        let at = at.expect("an assigned id");
        let len = usize::from(connack.properties[at + 2]);
        let id =
            String::from_utf8(connack.properties[at + 3..at + 3 + len].to_vec()).expect("text");
        client.disconnect();
        let (_, connack) = Client::connect(world.mqtt(), Hello::of(&thing, &id).five().lasting());
        assert!(connack.present, "{id}");
    }
    // 3.1.1: only with a clean session [MQTT-3.1.3-8].
    assert_eq!(
        Client::connect(world.mqtt(), Hello::of(&thing, "")).1.code,
        0
    );
    assert_eq!(
        Client::connect(world.mqtt(), Hello::of(&thing, "").lasting())
            .1
            .code,
        2
    );
}

#[test]
fn client_ids_belong_to_the_thing_that_uses_them() {
    let world = World::start();
    let (one, other) = (world.thing("one"), world.thing("other"));
    let mut first = world.client(Hello::of(&one, "same"));
    let mut second = world.client(Hello::of(&other, "same"));
    first.expect_silence();
    second.expect_silence();
}

#[test]
fn a_connect_in_pieces_is_a_connect_and_packets_right_behind_it_count() {
    let world = World::start();
    let (thing, channel) = world.member();
    let mut client = Client::open(world.mqtt(), false);
    for byte in Hello::of(&thing, "slow").bytes() {
        client.send(&[byte]);
        client.stream.flush().expect("sent");
    }
    assert_eq!(client.connack().code, 0);

    let topic = format!("channels/{channel}/messages");
    let mut client = Client::open(world.mqtt(), false);
    let mut bytes = Hello::of(&thing, "hasty").bytes();
    bytes.extend(crate::client::subscribe(false, 1, &[(&topic, 1)]));
    bytes.extend(crate::client::publish(
        false,
        &topic,
        b"early",
        1,
        false,
        2,
        &[],
    ));
    bytes.extend([0xC0, 0]);
    client.send(&bytes);
    assert_eq!(client.connack().code, 0);
    let mut firsts: Vec<u8> = (0..4).map(|_| client.receive().first).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [0x32, 0x40, 0x90, 0xD0]);
}

#[test]
fn who_does_not_greet_in_time_is_closed() {
    let world = World::with(&[("ROLLCALL_MQTT__CONNECT_TIMEOUT", "300ms")]);
    let thing = world.thing("lamp");
    let mut silent = Client::open(world.mqtt(), false);
    let mut half = Client::open(world.mqtt(), false);
    half.send(&Hello::of(&thing, "c").bytes()[..20]);
    silent.expect_end();
    half.expect_end();
    assert!(world.counter("rollcall_mqtt_connect_timeouts_total", "") >= 2.0);
    // It is for greetings alone.
    let mut client = world.client(Hello::of(&thing, "c"));
    std::thread::sleep(std::time::Duration::from_millis(600));
    client.expect_silence();
}

#[test]
fn limits_of_connections_sessions_and_packets_are_kept() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__MAX_SESSIONS", "2"),
        ("ROLLCALL_MQTT__MAX_CONNECTIONS", "3"),
        ("ROLLCALL_MQTT__MAX_PACKET_SIZE", "1KiB"),
    ]);
    let (thing, channel) = world.member();
    let mut one = world.client(Hello::of(&thing, "1").five());
    let two = world.client(Hello::of(&thing, "2"));
    let (mut third, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "3").five());
    assert_eq!(connack.code, 0x97);
    third.expect_end();
    let third = Client::open(world.mqtt(), false);
    let mut fourth = Client::open(world.mqtt(), false);
    fourth.expect_end();
    drop(third);

    let topic = format!("channels/{channel}/messages");
    one.send(&crate::client::publish(
        true,
        &topic,
        &[7; 1024],
        0,
        false,
        0,
        &[],
    ));
    one.expect_disconnect(0x95);
    two.disconnect();
    world.wait_events(4);
}

#[test]
fn a_refused_connect_with_a_long_client_id_or_a_bad_will_says_so() {
    let world = World::start();
    let (thing, channel) = world.member();
    let stranger = world.thing("stranger");
    let own = format!("channels/{channel}/messages/will");
    for (hello, code) in [
        (Hello::of(&thing, &"x".repeat(2000)).five(), 0x85),
        (Hello::of(&thing, &"x".repeat(2000)), 2),
        (
            Hello::of(&thing, "c")
                .five()
                .will("elsewhere", b"x", 0, false),
            0x87,
        ),
        (Hello::of(&thing, "c").will("elsewhere", b"x", 0, false), 5),
        (
            Hello::of(&stranger, "c").five().will(&own, b"x", 0, false),
            0x87,
        ),
        (Hello::of(&stranger, "c").will(&own, b"x", 0, false), 5),
        (
            Hello::of(&thing, "c").five().will("a/#", b"x", 0, false),
            0x90,
        ),
        (Hello::of(&thing, "c").will(&own, b"x", 0, false), 0),
    ] {
        assert_eq!(
            Client::connect(world.mqtt(), hello.clone()).1.code,
            code,
            "{hello:?}"
        );
    }
    world.wait_events(2);
}

#[test]
fn version_5_hears_what_the_server_offers() {
    let world = World::with(&[("ROLLCALL_MQTT__MAX_INFLIGHT", "7")]);
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c")
        .five()
        .property(&[0x11, 0xff, 0xff, 0xff, 0xff]);
    let (_client, connack) = Client::connect(world.mqtt(), hello);
    let has = |part: &[u8]| connack.properties.windows(part.len()).any(|it| it == part);
    // The expiry is cut to seven days; receive maximum, topic aliases. What is not told is offered.
    assert!(has(&[0x11, 0, 9, 0x3a, 0x80]), "{:x?}", connack.properties);
    assert!(has(&[0x21, 0, 7]) && has(&[0x22, 0, 16]));
    assert!(has(&[0x27, 0, 0x10, 0, 0]));
}

#[test]
fn a_user_name_may_be_all_there_is_in_version_5_only() {
    let world = World::start();
    let thing = world.thing("lamp");
    // A password without a user name: legal bytes in 5, a fault in 3.1.1 [MQTT-3.1.2-22].
    let hello = Hello {
        username: None,
        ..Hello::of(&thing, "c")
    };
    let mut client = Client::open(world.mqtt(), false);
    client.send(&hello.bytes());
    client.expect_end();
    assert_eq!(Client::connect(world.mqtt(), hello.five()).1.code, 0x86);
}
