//! Retained messages for those who subscribe.

use crate::client::{Client, Hello, message, publish};
use crate::world::World;

const TOPICS: u16 = 3_000;

/// Retains a message on each of many topics below `topic`: far more than fits into any queue.
fn retain(world: &World, hello: Hello, topic: &str, size: usize) -> Client {
    let mut from = world.client(hello);
    for n in 0..TOPICS {
        let payload = vec![b'a'; size];
        from.send(&publish(
            true,
            &format!("{topic}/{n:05}"),
            &payload,
            0,
            true,
            0,
            &[],
        ));
        if n % 100 == 0 {
            from.expect_silence();
        }
    }
    from.expect_silence();
    from
}

#[test]
fn all_that_is_retained_comes_however_much_it_is() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "50"),
        ("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "128KiB"),
        ("ROLLCALL_MQTT__MAX_INFLIGHT", "20"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = retain(&world, Hello::of(&thing, "from").five(), &topic, 500);
    // Retained at QoS 1 and 2, some of them.
    for (n, qos) in [(7, 1), (70, 2), (700, 1), (2_999, 2)] {
        from.publish_with(&format!("{topic}/{n:05}"), &[b'a'; 500], qos, true, &[]);
    }
    let filter = format!("{topic}/#");
    for five in [false, true] {
        for granted in 0..3 {
            let hello = Hello::of(&thing, &format!("{five} {granted}")).version(five);
            let mut to = world.client(hello);
            assert_eq!(to.subscribe(&[(&filter, granted)]), [granted]);
            let mut releases = 0;
            let mut count = 0;
            while count < TOPICS {
                let packet = to.receive();
                if packet.first == 0x62 {
                    to.send(&[0x70, 2, packet.body[0], packet.body[1]]);
                    releases += 1;
                    continue;
                }
                let message = message(&packet, five);
                assert_eq!(message.topic, format!("{topic}/{count:05}"));
                let qos = match count {
                    7 | 700 => 1,
                    70 | 2_999 => 2,
                    _ => 0,
                };
                assert_eq!((message.qos, message.retain), (granted.min(qos), true));
                match message.qos {
                    1 => to.ack(0x40, message.id),
                    2 => to.ack(0x50, message.id),
                    _ => {}
                }
                count += 1;
            }
            while granted == 2 && releases < 2 {
                assert_eq!(to.receive().first, 0x62);
                releases += 1;
            }
            to.expect_silence();
        }
    }
    let dropped = world.counter("rollcall_mqtt_messages_dropped_total", "");
    assert_eq!(dropped, 0.0);
}

#[test]
fn a_window_of_two_is_enough_for_any_number_and_a_new_connection_goes_on() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "10")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..200u8 {
        from.publish_with(&format!("{topic}/{n:05}"), &[n], 1, true, &[]);
    }
    let filter = format!("{topic}/#");
    let hello = Hello::of(&thing, "to").five().lasting();
    let hello = hello.property(&[0x21, 0, 2]);
    let mut to = world.client(hello.clone());
    assert_eq!(to.subscribe(&[(&filter, 1)]), [1]);
    let mut seen = Vec::new();
    for _ in 0..50 {
        seen.push(to.take().payload[0]);
    }
    // What is live comes besides; what was retained goes on with the next connection.
    from.publish(&format!("{topic}/live"), b"live", 0);
    while seen.len() < 100 {
        let message = to.take();
        if message.retain {
            seen.push(message.payload[0]);
        }
    }
    to.reset();
    let mut to = world.client(hello);
    while seen.len() < 200 {
        let message = to.take();
        assert!(message.retain);
        // Acknowledgements may be lost with a connection.
        if !seen.contains(&message.payload[0]) {
            seen.push(message.payload[0]);
        }
    }
    assert_eq!(seen, (0..200).collect::<Vec<u8>>());
    to.expect_silence();
}

#[test]
fn who_does_not_want_them_any_more_gets_no_more_of_them() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "64KiB")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = retain(&world, Hello::of(&thing, "from").five(), &topic, 5_000);
    let filter = format!("{topic}/#");
    let mut to = world.client(Hello::of(&thing, "to").five());
    // Not one is read before the socket is full.
    to.send(&crate::client::subscribe(true, 1, &[(&filter, 0)]));
    from.expect_silence();
    // A change of what is yet to come is what comes.
    let last = format!("{topic}/{:05}", TOPICS - 1);
    from.publish_with(&last, b"changed", 1, true, &[]);
    assert_eq!(to.receive().first, 0x90);
    let mut contents = Vec::new();
    let mut count = 0;
    while count < TOPICS {
        let message = to.take();
        if message.topic == last {
            contents.push((message.retain, message.payload));
        }
        count += u16::from(message.retain);
    }
    // It came live, or was dropped while the client did not read; it did not come as it was before.
    assert_eq!(contents.pop(), Some((true, b"changed".to_vec())));
    assert!(
        contents
            .iter()
            .all(|it| *it == (false, b"changed".to_vec()))
    );

    to.send(&crate::client::subscribe(true, 2, &[(&filter, 0)]));
    assert_eq!(to.receive().first, 0x90);
    assert!(to.take().retain);
    let mut packet = vec![0, 3, 0];
    packet.extend(crate::client::text(&filter));
    to.send(&crate::client::packet(0xA2, &packet));
    let mut count = 0;
    while to.receive().first != 0xB0 {
        count += 1;
    }
    assert!(count < TOPICS - 1, "{count}");
    to.expect_silence();
}
