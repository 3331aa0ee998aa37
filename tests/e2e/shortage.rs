//! When room is short, of queues or of memory: who has to go, who may stay, and that it ends.

use crate::client::{Client, Hello, publish, subscribe};
use crate::world::{World, wait_for};

const REFUSED: &str = "rollcall_mqtt_connects_refused_total";

#[test]
fn what_waits_for_all_is_bounded_and_the_largest_session_goes_first() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_QUEUE_BYTES", "1MiB"),
    ]);
    let (thing, channel) = world.member();
    let topic = |id: &str| format!("channels/{channel}/messages/{id}");
    let ids = ["large", "small", "middle"];
    for id in ids {
        let mut client = world.client(Hello::of(&thing, id).five().lasting());
        assert_eq!(client.subscribe(&[(&topic(id), 1)]), [1]);
        client.disconnect();
    }
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    // In pieces of 50 KiB; the bound is met at the very end.
    for (id, count) in [("large", 11), ("small", 2), ("middle", 8)] {
        for _ in 0..count {
            assert_eq!(publisher.publish(&topic(id), &[7; 51_200], 1), 0);
        }
    }
    wait_for("the largest to go", || {
        (world.counter("rollcall_mqtt_sessions_shed_total", "") == 1.0).then_some(())
    });
    for (id, count) in [("large", 0), ("small", 2), ("middle", 8)] {
        let (mut client, connack) =
            Client::connect(world.mqtt(), Hello::of(&thing, id).five().lasting());
        // Whoever lost something hears that there is nothing left.
        assert_eq!(connack.present, count > 0, "{id}");
        for _ in 0..count {
            assert_eq!(client.take().payload.len(), 51_200);
        }
        client.expect_silence();
    }
    wait_for("nothing to wait", || {
        (world.counter("rollcall_mqtt_queued_bytes", "") == 0.0).then_some(())
    });
    assert_eq!(world.counter("rollcall_mqtt_sessions_shed_total", ""), 1.0);
}

#[test]
fn slow_readers_get_no_more_of_qos_0_before_sessions_have_to_go() {
    let world = World::with(&[("ROLLCALL_MQTT__LIMITS__MAX_QUEUE_BYTES", "8MiB")]);
    let (thing, channel) = world.member();
    let topic = |id: &str| format!("channels/{channel}/messages/{id}");
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    for id in ["1", "2"] {
        let mut client = world.client(Hello::of(&thing, id).five().lasting());
        client.subscribe(&[(&topic(id), 1)]);
        client.disconnect();
        for _ in 0..15 {
            assert_eq!(publisher.publish(&topic(id), &[7; 256 * 1024], 1), 0);
        }
    }
    let mut slow = world.client(Hello::of(&thing, "slow"));
    slow.subscribe(&[(&topic("slow"), 0)]);
    let dropped = || world.counter("rollcall_mqtt_messages_dropped_total", "queue_full");
    // Sockets take some of it.
    wait_for("something to be dropped", || {
        let packet = publish(true, &topic("slow"), &[7; 65_536], 0, false, 0, &[]);
        publisher.send(&packet.repeat(16));
        publisher.send(&[0xC0, 0]);
        publisher.receive();
        (dropped() > 64.0).then_some(())
    });
    assert_eq!(world.counter("rollcall_mqtt_sessions_shed_total", ""), 0.0);
    let waiting = world.counter("rollcall_mqtt_queued_bytes", "");
    assert!((7e6..8.4e6).contains(&waiting), "{waiting}");
    // It is here still, and gets what comes when it has caught up.
    slow.send(&[0xC0, 0]);
    while slow.receive().first != 0xD0 {}
}

const SHORT: &str = "rollcall_mqtt_memory_short";

#[test]
fn beyond_the_memory_mark_nobody_new_is_let_in() {
    let world = World::with(&[("ROLLCALL_MQTT__LIMITS__MEMORY_HIGH_WATER", "1KiB")]);
    let thing = world.thing("lamp");
    for (five, code) in [(false, 3), (true, 0x97)] {
        let hello = Hello::of(&thing, "c").version(five);
        let (mut client, connack) = Client::connect(world.mqtt(), hello);
        assert_eq!(connack.code, code);
        client.expect_end();
    }
    assert_eq!(world.counter(REFUSED, "memory_short"), 2.0);
    // Nor is much read of what strangers send.
    let hello = Hello::of(&thing, "c").five();
    let large = hello.will("channels", &[7; 10_000], 0, false).bytes();
    let mut client = Client::open(world.mqtt(), true);
    client.send(&large[..100]);
    assert_eq!(client.connack().code, 0x95);
    client.expect_end();
    assert_eq!(world.counter(SHORT, ""), 1.0);
    assert!(world.counter("rollcall_mqtt_memory_bytes", "") > 1024.0);
    let (status, body) = world.http("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("memory is short"), "{body}");
    assert!(world.events().is_empty());
}

#[test]
fn shortage_of_memory_takes_nothing_from_who_is_here_and_ends() {
    let mut world = World::prepared(&[
        // Large blocks go back to the system at once.
        ("MALLOC_MMAP_THRESHOLD_", "65536"),
        ("ROLLCALL_MQTT__MAX_PACKET_SIZE", "2MiB"),
    ]);
    world.run();
    let used = world.counter("rollcall_mqtt_memory_bytes", "") as u64;
    assert!(world.end("TERM").success());
    let mark = (used + (32 << 20)).to_string();
    world.set("ROLLCALL_MQTT__LIMITS__MEMORY_HIGH_WATER", &mark);
    world.run();

    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let mut five = world.client(Hello::of(&thing, "five").five());
    let mut three = world.client(Hello::of(&thing, "three").lasting());
    assert_eq!(three.subscribe(&[(&topic("news"), 1)]), [1]);
    let megabyte = vec![7; 1 << 20];
    let mut kept = 0;
    wait_for("memory to be short", || {
        let code = five.publish_with(&topic(&kept.to_string()), &megabyte, 1, true, &[]);
        kept += u32::from(code == 0);
        (code == 0x97).then_some(())
    });
    assert_eq!(world.counter(SHORT, ""), 1.0);
    assert_eq!(world.http("/readyz").0, 503);

    assert_eq!(five.subscribe(&[(&topic("more"), 0)]), [0x97]);
    assert_eq!(
        three.subscribe(&[(&topic("news"), 1), (&topic("more"), 0)]),
        [1, 0x80]
    );
    let (mut late, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "late").five());
    assert_eq!(connack.code, 0x97);
    late.expect_end();
    // Who is here goes on, and may come back.
    assert_eq!(five.publish(&topic("news"), b"still", 1), 0);
    assert_eq!(three.take().payload, b"still");
    three.disconnect();
    let (mut three, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "three").lasting());
    assert_eq!((connack.present, connack.code), (true, 0));

    for name in 0..kept {
        assert_eq!(
            five.publish_with(&topic(&name.to_string()), b"", 1, true, &[]),
            0
        );
    }
    wait_for("memory to be given back", || {
        (world.counter(SHORT, "") == 0.0).then_some(())
    });
    assert_eq!(world.http("/readyz").0, 200);
    world.client(Hello::of(&thing, "late"));
    assert_eq!(three.subscribe(&[(&topic("more"), 0)]), [0]);
}

#[test]
fn who_reads_but_acknowledges_nothing_is_sent_no_more_than_a_session_may_hold() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "64KiB")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let waiting = || world.counter("rollcall_mqtt_queued_bytes", "");
    for five in [false, true] {
        let mut publisher = world.client(Hello::of(&thing, "publisher"));
        let mut lazy = world.client(Hello::of(&thing, "lazy").version(five).lasting());
        assert_eq!(lazy.subscribe(&[(&topic, 1)]), [1]);
        for _ in 0..7 {
            assert_eq!(publisher.publish(&topic, &[7; 16_000], 1), 0);
        }
        // Five reach the bound, two wait.
        let ids: Vec<u16> = (0..5).map(|_| lazy.message().id).collect();
        lazy.expect_silence();
        wait_for("it to be counted", || {
            (waiting() > 7.0 * 16e3).then_some(())
        });
        for id in ids {
            lazy.ack(0x40, id);
        }
        lazy.take();
        lazy.take();
        lazy.expect_silence();
        wait_for("nothing to wait", || (waiting() == 0.0).then_some(()));
        lazy.unsubscribe(&topic);

        // The same with what is retained: it waits where it is.
        let name = |n: usize| format!("{topic}/{n}");
        for n in 0..20 {
            let code = publisher.publish_with(&name(n), &[7; 8_000], 1, true, &[]);
            assert_eq!(code, 0);
        }
        let id = lazy.id();
        lazy.send(&subscribe(five, id, &[(&format!("{topic}/+"), 1)]));
        // Messages may come before the SUBACK, which waits for the disk [MQTT5-3.8.4-3].
        let mut ids = Vec::new();
        for _ in 0..10 {
            let packet = lazy.receive();
            if packet.first != 0x90 {
                let at = 2 + usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
                ids.push(u16::from_be_bytes([packet.body[at], packet.body[at + 1]]));
            }
        }
        assert_eq!(ids.len(), 9);
        lazy.expect_silence();
        for id in ids {
            lazy.ack(0x40, id);
        }
        for _ in 9..20 {
            lazy.take();
        }
        lazy.expect_silence();
        lazy.unsubscribe(&format!("{topic}/+"));
        for n in 0..20 {
            publisher.publish_with(&name(n), b"", 1, true, &[]);
        }
        lazy.disconnect();
    }
}

#[test]
fn who_sends_little_does_not_wait_for_many_who_send_much() {
    const MANY: usize = 20;
    let world = World::with(&[("ROLLCALL_MQTT__WORKERS", "1")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    // A hundred thousand user properties are much work, once they are all there.
    let properties = [0x26, 0, 1, b'a', 0, 1, b'b'].repeat(100_000);
    let mut packets = publish(true, &topic, b"", 0, false, 0, &properties);
    let most = packets.len() - 1;
    packets.extend([0xC0, 0]);
    let (most, last) = packets.split_at(most);
    let mut many: Vec<Client> = (0..MANY)
        .map(|n| world.client(Hello::of(&thing, &n.to_string()).five()))
        .collect();
    for client in &mut many {
        client.send(most);
    }
    let mut other = world.client(Hello::of(&thing, "other").five());
    // That the thing may is known from here on.
    assert_eq!(other.publish(&topic, b"", 1), 0);
    // Each is a turn, in which some of it is read.
    for _ in 0..20 {
        other.send(&[0xC0, 0]);
        assert_eq!(other.receive().first, 0xD0);
    }
    // The rest is there when it goes on.
    world.signal("STOP");
    for client in &mut many {
        client.send(last);
    }
    other.send(&[0xC0, 0]);
    world.signal("CONT");
    assert_eq!(other.receive().first, 0xD0);
    let is_answered = |client: &&Client| {
        client.stream.set_nonblocking(true).expect("a socket");
        client.stream.peek(&mut [0]).is_ok()
    };
    let answered = many.iter().filter(is_answered).count();
    assert!(answered < MANY, "all of them went first");
    for mut client in many {
        client.stream.set_nonblocking(false).expect("a socket");
        assert_eq!(client.receive().first, 0xD0);
    }
}
