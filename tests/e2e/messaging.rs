//! PUBLISH and SUBSCRIBE: who may, who hears, how often and in what order.

use std::time::Duration;

use crate::client::{Client, Hello, publish};
use crate::world::{Thing, World, wait_for};

fn pair(world: &World, five: bool) -> (Client, Client, String, Thing) {
    let (thing, channel) = world.member();
    let from = world.client(Hello::of(&thing, "from").version(five));
    let to = world.client(Hello::of(&thing, "to").version(five));
    (from, to, format!("channels/{channel}/messages"), thing)
}

#[test]
fn a_message_arrives_at_the_lower_qos_of_its_two_sides() {
    let world = World::start();
    for (sends, hears) in [(false, false), (false, true), (true, false), (true, true)] {
        let (thing, channel) = world.member();
        let topic = format!("channels/{channel}/messages");
        let mut from = world.client(Hello::of(&thing, "from").version(sends));
        let mut to = world.client(Hello::of(&thing, "to").version(hears));
        for granted in 0..3 {
            assert_eq!(to.subscribe(&[(&topic, granted)]), [granted]);
            for qos in 0..3 {
                assert_eq!(from.publish(&topic, b"hello", qos), 0);
                let message = to.take();
                assert_eq!(message.qos, qos.min(granted));
                assert_eq!(
                    (&message.topic, &message.payload[..]),
                    (&topic, &b"hello"[..])
                );
                assert!(!message.retain && !message.dup);
            }
        }
        to.expect_silence();
    }
}

#[test]
fn filters_with_wildcards_reach_within_a_channel() {
    let world = World::start();
    let (mut from, mut to, topic, _) = pair(&world, true);
    let filters = [
        format!("{topic}/+/x"),
        format!("{topic}/deep/#"),
        format!("{topic}/#"),
    ];
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    assert_eq!(to.subscribe(&filters), [1, 1, 1]);
    for subtopic in ["/a/x", "/deep/x", "/deep", "", "/a/b/c"] {
        from.publish(&format!("{topic}{subtopic}"), subtopic.as_bytes(), 1);
        assert_eq!(
            to.take().payload,
            subtopic.as_bytes(),
            "once, whatever the number of filters"
        );
    }
    assert_eq!(to.unsubscribe(filters[2].0).last(), Some(&0));
    assert_eq!(to.unsubscribe(filters[2].0).last(), Some(&0x11));
    from.publish(&topic, b"unheard", 1);
    from.publish(&format!("{topic}/b/x"), b"heard", 1);
    assert_eq!(to.take().payload, b"heard");
    to.expect_silence();
}

#[test]
fn nobody_reaches_beyond_what_was_granted() {
    let world = World::start();
    let (reader, writer) = (world.thing("reader"), world.thing("writer"));
    let channel = world.channel();
    world.grant(&reader, &channel, "m_read");
    world.grant(&writer, &channel, "m_write");
    let topic = format!("channels/{channel}/messages");
    for five in [false, true] {
        let denied = if five { 0x87 } else { 0x80 };
        let mut to = world.client(Hello::of(&reader, "to").version(five));
        let mut from = world.client(Hello::of(&writer, "from").version(five));
        let filters = [
            &topic[..],
            "#",
            "channels/+/messages",
            "elsewhere",
            "+/+/messages",
        ];
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 1)).collect();
        assert_eq!(to.subscribe(&filters), [1, denied, denied, denied, denied]);
        assert_eq!(from.subscribe(&[(&topic, 1)]), [denied]);
        // What is no filter, and what is not granted to share.
        let invalid = format!("{topic}/a#");
        let nameless = format!("$share//{topic}");
        let codes = if five { [0x8F; 2] } else { [0x80; 2] };
        assert_eq!(to.subscribe(&[(&invalid, 0), (&nameless, 0)]), codes);
        let shared = format!("$share/g/{topic}");
        assert_eq!(
            from.subscribe(&[(&shared, 0), ("$share/g/#", 0)]),
            [denied; 2]
        );

        // One message to nowhere does not end the session.
        for qos in [1, 2] {
            assert_eq!(
                to.publish(&topic, b"denied", qos),
                if five { 0x87 } else { 0 }
            );
            assert_eq!(
                from.publish("elsewhere", b"denied", qos),
                if five { 0x87 } else { 0 }
            );
        }
        to.publish(&topic, b"denied", 0);
        to.expect_silence();
        assert_eq!(from.publish(&topic, b"granted", 1), 0);
        assert_eq!(to.take().payload, b"granted");
    }
    assert_eq!(
        world.counter("rollcall_mqtt_publishes_denied_total", ""),
        10.0
    );
}

#[test]
fn what_is_revoked_is_gone_at_once() {
    let world = World::start();
    let (mut from, mut to, topic, thing) = pair(&world, true);
    let channel = topic.split('/').nth(1).expect("a channel").to_owned();
    to.subscribe(&[(&topic, 1)]);
    from.publish(&topic, b"before", 1);
    assert_eq!(to.take().payload, b"before");
    world.grant(&thing, &channel, "m_write");
    wait_for("the subscription to go", || {
        (world.counter("rollcall_mqtt_subscriptions_revoked_total", "") >= 1.0).then_some(())
    });
    assert_eq!(from.publish(&topic, b"after", 1), 0);
    to.expect_silence();
    world.tell(&["disconnect", &thing.id, &channel]);
    assert_eq!(from.publish(&topic, b"after", 1), 0x87);
    assert!(
        world
            .fail(&["disconnect", &thing.id, &channel])
            .contains("no such")
    );

    world.tell(&["things", "disable", &thing.id]);
    from.expect_disconnect(0x87);
    to.expect_disconnect(0x87);
    assert_eq!(
        Client::connect(world.mqtt(), Hello::of(&thing, "c")).1.code,
        4
    );
    world.tell(&["things", "enable", &thing.id]);
    let mut client = world.client(Hello::of(&thing, "c"));
    let rotated = world.json(&["things", "rotate-key", &thing.id]);
    client.expect_disconnect(0x87);
    assert_eq!(
        Client::connect(world.mqtt(), Hello::of(&thing, "c")).1.code,
        4
    );
    let key = rotated["key"].as_str().expect("a key").to_owned();
    world.client(Hello::of(&Thing { id: thing.id, key }, "c"));
}

#[test]
fn the_last_retained_message_waits_for_subscribers() {
    let world = World::start();
    let (mut from, mut to, topic, thing) = pair(&world, true);
    let other = format!("{topic}/other");
    from.publish_with(&topic, b"first", 1, true, &[]);
    from.publish_with(&topic, b"last", 2, true, &[0x03, 0, 1, b't']);
    from.publish_with(&other, b"other", 0, true, &[]);
    to.subscribe(&[(&topic, 1)]);
    let message = to.take();
    assert_eq!(
        (&message.payload[..], message.qos, message.retain),
        (&b"last"[..], 1, true)
    );
    assert_eq!(message.properties, [0x03, 0, 1, b't']);

    // Retain handling: again, only if new, never; and the flag as published.
    to.subscribe(&[(&topic, 1)]);
    assert_eq!(to.take().payload, b"last");
    to.subscribe(&[(&topic, 1 | 1 << 4)]);
    to.subscribe(&[(&other, 2 << 4)]);
    to.expect_silence();
    from.publish_with(&topic, b"live", 1, true, &[]);
    assert!(!to.take().retain);
    to.subscribe(&[(&topic, 1 | 2 << 4 | 8)]);
    for qos in [0, 1] {
        from.publish_with(&topic, b"live", qos, true, &[]);
        assert!(to.take().retain);
        from.publish(&topic, b"live", qos);
        assert!(!to.take().retain);
    }

    let mut wild = world.client(Hello::of(&thing, "wild"));
    wild.subscribe(&[(&format!("{topic}/#"), 0)]);
    let mut found: Vec<_> = (0..2).map(|_| wild.take().payload).collect();
    found.sort();
    assert_eq!(found, [b"live".to_vec(), b"other".to_vec()]);
    from.publish_with(&topic, b"", 1, true, &[]);
    from.publish_with(&other, b"", 1, true, &[]);
    let mut late = world.client(Hello::of(&thing, "late"));
    late.subscribe(&[(&format!("{topic}/#"), 0)]);
    late.expect_silence();
}

#[test]
fn what_version_5_says_about_a_message_arrives_with_it() {
    let world = World::start();
    let (mut from, mut to, topic, thing) = pair(&world, true);
    let mut old = world.client(Hello::of(&thing, "old"));
    to.subscribe(&[(&topic, 1)]);
    old.subscribe(&[(&topic, 1)]);
    let said = [
        &[0x01, 1, 0x02, 0, 0, 1, 0][..],
        &[0x03, 0, 4, b't', b'e', b'x', b't'],
        &[0x08, 0, 1, b'r', 0x09, 0, 2, 0, 0xff],
        &[
            0x26, 0, 1, b'b', 0, 1, b'1', 0x26, 0, 1, b'a', 0, 1, b'2', 0x26, 0, 1, b'b', 0, 0,
        ],
    ]
    .concat();
    from.publish_with(&topic, b"told", 1, false, &said);
    let message = to.take();
    assert_eq!(
        (message.properties, message.payload),
        (said, b"told".to_vec())
    );
    assert_eq!(old.take().payload, b"told");

    // An alias is between a client and the server; it stands for a topic until it stands for another.
    from.publish_with(&topic, b"1", 0, false, &[0x23, 0, 3]);
    from.publish_with("", b"2", 1, false, &[0x23, 0, 3]);
    for payload in [b"1", b"2"] {
        let message = to.take();
        assert_eq!(
            (&message.topic, &message.payload[..]),
            (&topic, &payload[..])
        );
        assert!(message.properties.is_empty());
    }
    from.send(&publish(true, "", b"x", 0, false, 0, &[0x23, 0, 4]));
    from.expect_disconnect(0x82);
    let mut from = world.client(Hello::of(&thing, "from").five());
    from.send(&publish(true, &topic, b"x", 0, false, 0, &[0x23, 0, 17]));
    from.expect_disconnect(0x94);
    // What clients may not say.
    let mut from = world.client(Hello::of(&thing, "from").five());
    from.send(&publish(true, &topic, b"x", 0, false, 0, &[0x0B, 1]));
    from.expect_disconnect(0x82);
}

#[test]
fn a_message_that_waited_too_long_is_not_delivered() {
    let world = World::start();
    let (mut from, mut to, topic, thing) = pair(&world, true);
    let hello = Hello::of(&thing, "sleeper").five().lasting();
    let mut sleeper = world.client(hello.clone());
    sleeper.subscribe(&[(&topic, 1)]);
    sleeper.disconnect();
    to.subscribe(&[(&topic, 1)]);
    from.publish_with(&topic, b"brief", 1, true, &[0x02, 0, 0, 0, 1]);
    from.publish_with(&topic, b"long", 1, false, &[0x02, 0, 0, 0, 99]);
    assert_eq!(to.take().payload, b"brief");
    assert_eq!(to.take().payload, b"long");
    std::thread::sleep(Duration::from_millis(1200));
    let mut sleeper = world.client(hello);
    let message = sleeper.take();
    assert_eq!(message.payload, b"long");
    let left = message.properties[4];
    assert!((90..99).contains(&left), "what is left of the time: {left}");
    sleeper.expect_silence();
    let mut late = world.client(Hello::of(&thing, "late"));
    late.subscribe(&[(&topic, 0)]);
    late.expect_silence();
    assert_eq!(
        world.counter("rollcall_mqtt_messages_dropped_total", "expired"),
        1.0
    );
    wait_for("the retained message to be purged", || {
        (world.counter("rollcall_mqtt_retained_expired_total", "") == 1.0).then_some(())
    });
    assert_eq!(world.counter("rollcall_mqtt_retained_messages", ""), 0.0);
}

#[test]
fn a_message_expires_behind_a_full_window_and_in_the_queue_of_who_is_away() {
    let world = World::start();
    let (mut from, _, topic, thing) = pair(&world, true);
    let hello = |name| Hello::of(&thing, name).five().lasting();
    let mut slow = world.client(hello("slow").property(&[0x21, 0, 1]));
    slow.subscribe(&[(&topic, 2)]);
    let mut away = world.client(hello("away"));
    away.subscribe(&[(&topic, 2)]);
    away.disconnect();
    let brief = [0x02, 0, 0, 0, 1];
    from.publish(&topic, b"held", 1);
    for qos in [1, 2] {
        from.publish_with(&topic, b"brief", qos, false, &brief);
    }
    from.publish(&topic, b"lasting", 2);
    let held = slow.message();
    // Purged where they wait, whether anybody comes for them or not.
    wait_for("four to expire", || {
        let expired = world.counter("rollcall_mqtt_messages_dropped_total", "expired");
        (expired == 4.0).then_some(())
    });
    slow.ack(0x40, held.id);
    assert_eq!(slow.take().payload, b"lasting");
    slow.expect_silence();
    let mut away = world.client(hello("away"));
    assert_eq!(away.message().payload, b"held");
    assert_eq!(away.message().payload, b"lasting");
    away.expect_silence();
}

#[test]
fn a_subscriber_that_asks_not_to_does_not_hear_itself() {
    let world = World::start();
    let (mut from, mut to, topic, _) = pair(&world, true);
    to.subscribe(&[(&topic, 4)]);
    to.publish(&topic, b"own", 1);
    from.publish(&topic, b"other", 1);
    assert_eq!(to.take().payload, b"other");
    to.expect_silence();
}

#[test]
fn a_message_sent_twice_at_qos_2_arrives_once() {
    let world = World::start();
    for five in [false, true] {
        let (mut from, mut to, topic, _) = pair(&world, five);
        to.subscribe(&[(&topic, 2)]);
        let mut bytes = publish(five, &topic, b"once", 2, false, 7, &[]);
        from.send(&bytes);
        assert_eq!(from.receive().first, 0x50);
        bytes[0] |= 8;
        from.send(&bytes);
        assert_eq!(from.receive().first, 0x50);
        from.ack(0x62, 7);
        assert_eq!(from.receive().first, 0x70);
        // Released twice: completed twice.
        from.ack(0x62, 7);
        assert_eq!(from.receive().first, 0x70);
        assert_eq!(to.take().payload, b"once");
        to.expect_silence();
        bytes[0] &= !8;
        from.send(&bytes);
        assert_eq!(
            to.take().payload,
            b"once",
            "the id means another message now"
        );
    }
}

#[test]
fn more_than_may_be_under_way_ends_the_session() {
    let world = World::with(&[("ROLLCALL_MQTT__MAX_INFLIGHT", "3")]);
    let (mut from, _to, topic, _) = pair(&world, true);
    for id in 1..=4 {
        from.send(&publish(true, &topic, b"x", 2, false, id, &[]));
    }
    for _ in 0..3 {
        assert_eq!(from.receive().first, 0x50);
    }
    from.expect_disconnect(0x93);

    // 3.1.1 has no word for a maximum, and so none.
    let (mut from, mut to, topic, _) = pair(&world, false);
    to.subscribe(&[(&topic, 0)]);
    for id in 1..=1000u16 {
        from.send(&publish(
            false,
            &topic,
            &id.to_be_bytes(),
            2,
            false,
            id,
            &[],
        ));
    }
    for id in 1..=1000u16 {
        assert_eq!(from.receive().body, id.to_be_bytes());
        assert_eq!(to.take().payload, id.to_be_bytes());
    }
    for id in 1..=1000u16 {
        from.ack(0x62, id);
        assert_eq!(from.receive().first, 0x70);
    }
}

#[test]
fn ten_thousand_messages_arrive_in_order() {
    let world = World::start();
    for qos in 0..2 {
        let (from, mut to, topic, _) = pair(&world, qos == 1);
        to.subscribe(&[(&topic, qos)]);
        let five = from.five;
        let mut stream = from.stream.try_clone().expect("a socket");
        let writer = std::thread::spawn(move || {
            for n in 0..10_000u32 {
                let id = (n % 60_000) as u16 + 1;
                let bytes = publish(five, &topic, &n.to_be_bytes(), qos, false, id, &[]);
                std::io::Write::write_all(&mut stream, &bytes).expect("sent");
            }
        });
        let reader = std::thread::spawn(move || {
            let mut from = from;
            for _ in 0..if qos == 0 { 0 } else { 10_000 } {
                assert_eq!(from.receive().first, 0x40);
            }
            from
        });
        for n in 0..10_000u32 {
            assert_eq!(to.take().payload, n.to_be_bytes());
        }
        writer.join().expect("sent");
        reader.join().expect("acknowledged");
    }
}

#[test]
fn payloads_up_to_the_limit_arrive_whole() {
    let world = World::start();
    let (mut from, mut to, topic, _) = pair(&world, false);
    to.subscribe(&[(&topic, 1)]);
    for size in [0, 1, 511, 512, 4096, 65_536, 150_000, 1_000_000] {
        let payload: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        for qos in 0..2 {
            assert_eq!(from.publish(&topic, &payload, qos), 0);
            let message = to.take();
            assert!(message.payload == payload, "{size} bytes at QoS {qos}");
        }
    }
}

#[test]
fn who_does_not_read_loses_qos_0_only_and_is_counted() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "64KiB")]);
    let (mut from, mut to, topic, _) = pair(&world, false);
    to.subscribe(&[(&topic, 0)]);
    let payload = vec![1; 10_000];
    let dropped = || world.counter("rollcall_mqtt_messages_dropped_total", "queue_full");
    let mut published = 0.0;
    while dropped() == 0.0 {
        for _ in 0..100 {
            from.publish(&topic, &payload, 0);
        }
        published += 100.0;
        from.expect_silence();
    }
    // The client reads again: what was not dropped is there, and the session goes on.
    let sent = wait_for("each to be sent or dropped", || {
        let sent = world.counter("rollcall_mqtt_messages_sent_total", "");
        (sent + dropped() == published).then_some(sent)
    });
    for _ in 0..sent as usize {
        assert_eq!(to.message().payload.len(), 10_000);
    }
    to.expect_silence();
    from.publish(&topic, b"again", 0);
    assert_eq!(to.message().payload, b"again");
}

#[test]
fn a_session_that_would_lose_qos_1_is_ended_and_told() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "100"),
        ("ROLLCALL_MQTT__MAX_INFLIGHT", "10"),
    ]);
    let (mut from, mut to, topic, thing) = pair(&world, true);
    let sleeper = Hello::of(&thing, "sleeper").five().lasting();
    let mut asleep = world.client(sleeper.clone());
    asleep.subscribe(&[(&topic, 1)]);
    asleep.disconnect();
    to.subscribe(&[(&topic, 1)]);
    for n in 0..111u8 {
        assert_eq!(from.publish(&topic, &[n], 1), 0);
    }
    for n in 0..10u8 {
        assert_eq!(to.message().payload, [n]);
    }
    to.expect_disconnect(0x97);
    assert_eq!(
        world.counter("rollcall_mqtt_sessions_overflowed_total", ""),
        2.0
    );
    assert_eq!(
        world.counter("rollcall_mqtt_connections_ended_total", "too_slow"),
        1.0
    );
    // The one who was away sees that its session is gone.
    assert!(!Client::connect(world.mqtt(), sleeper).1.present);
}

#[test]
fn a_client_gets_no_packet_larger_than_it_takes() {
    let world = World::start();
    let (mut from, _, topic, thing) = pair(&world, true);
    let mut small = world.client(
        Hello::of(&thing, "small")
            .five()
            .property(&[0x27, 0, 0, 0, 200]),
    );
    small.subscribe(&[(&topic, 1)]);
    for qos in 0..2 {
        from.publish(&topic, &[0; 300], qos);
        from.publish(&topic, b"small", qos);
        assert_eq!(small.take().payload, b"small");
    }
    assert_eq!(
        world.counter("rollcall_mqtt_messages_dropped_total", "too_large"),
        2.0
    );
}

#[test]
fn faulty_packets_end_the_session_with_the_reason() {
    let world = World::start();
    let thing = world.thing("lamp");
    let mut faults = 0;
    for row in crate::table::rows() {
        let protocol = Some(rollcall_domain::presence::Protocol::Mqtt5);
        let found = rollcall_mqtt::codec::decode(&row.bytes, row.protocol, 1 << 20);
        let Some(fault) = found.err().filter(|_| row.protocol == protocol) else {
            continue;
        };
        assert_eq!(format!("{fault:?}"), row.found, "{}", row.line);
        let mut client = world.client(Hello::of(&thing, "c").five());
        client.send(&row.bytes);
        let packet = client.receive();
        assert_eq!(
            (packet.first, packet.body[0]),
            (0xE0, fault.reason()),
            "{}",
            row.line
        );
        client.expect_end();
        faults += 1;
    }
    assert!(faults > 20);
    assert_eq!(
        world.counter("rollcall_mqtt_protocol_errors_total", ""),
        f64::from(faults)
    );
}
