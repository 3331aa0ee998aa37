//! Limits: how each is reached, what clients of both versions hear, and what is counted.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::client::{Client, Connack, Hello, publish};
use crate::world::{Thing, World, wait_for};

const TURNED_AWAY: &str = "rollcall_mqtt_connections_turned_away_total";
const REFUSED: &str = "rollcall_mqtt_connects_refused_total";

/// The answer to a CONNECT from 127.0.0.`from`; `None` if it was closed unread.
fn knock(world: &World, from: u8, hello: &Hello) -> Option<(Client, u8)> {
    let mut client = Client::open_from([127, 0, 0, from], world.mqtt(), hello.five);
    // It may be closed already.
    let _ = client.stream.write_all(&hello.bytes());
    let packet = client.receive_or_end()?;
    assert_eq!(packet.first, 0x20, "{packet:?}");
    Some((client, packet.body[1]))
}

fn wrong(thing: &Thing, client_id: &str) -> Hello {
    Hello {
        password: Some(b"wrong".to_vec()),
        ..Hello::of(thing, client_id)
    }
}

#[test]
fn an_address_has_so_many_connections() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_ADDRESS", "3"),
    ]);
    let thing = world.thing("lamp");
    let mut clients = Vec::new();
    for id in ["1", "2", "3"] {
        let (client, code) = knock(&world, 1, &Hello::of(&thing, id)).expect("an answer");
        assert_eq!(code, 0);
        clients.push(client);
    }
    for five in [false, true] {
        let hello = Hello::of(&thing, "late").version(five);
        assert!(knock(&world, 1, &hello).is_none(), "closed unread");
    }
    let reason = "max_connections_per_address";
    assert_eq!(world.counter(TURNED_AWAY, reason), 2.0);
    let (_elsewhere, code) = knock(&world, 2, &Hello::of(&thing, "4")).expect("an answer");
    assert_eq!(code, 0);
    clients.pop().expect("some").disconnect();
    wait_for("the place to be free", || {
        knock(&world, 1, &Hello::of(&thing, "5")).filter(|(_, code)| *code == 0)
    });
    // Nobody who was closed unread has ever been here.
    drop(clients);
    let events = world.wait_events(9);
    assert!(events.iter().all(|it| it["thing_id"] == thing.id));
}

#[test]
fn an_address_opens_so_many_connections_a_second() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__CONNECT_RATE_PER_ADDRESS", "1"),
        ("ROLLCALL_MQTT__LIMITS__CONNECT_BURST", "5s"),
    ]);
    let thing = world.thing("lamp");
    let count = || world.counter(TURNED_AWAY, "connect_rate_per_address");
    for _ in 0..5 {
        let (_, code) = knock(&world, 1, &Hello::of(&thing, "c")).expect("an answer");
        assert_eq!(code, 0);
    }
    wait_for("too many at once", || {
        (knock(&world, 1, &Hello::of(&thing, "c")).is_none() && count() > 0.0).then_some(())
    });
    assert!(knock(&world, 2, &Hello::of(&thing, "d")).is_some());
    wait_for("a second to pass", || {
        knock(&world, 1, &Hello::of(&thing, "c"))
    });
}

#[test]
fn guessing_takes_longer_and_longer_and_locks_nobody_out() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "2"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_WINDOW", "1h"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_DELAY_MAX", "1h"),
    ]);
    let (lamp, other) = (world.thing("lamp"), world.thing("other"));
    let delayed = || world.counter("rollcall_mqtt_failed_logins_delayed_total", "");
    for (five, code) in [(false, 4), (true, 0x86)] {
        let hello = wrong(&lamp, "c").version(five);
        assert_eq!(knock(&world, 1, &hello).expect("an answer").1, code);
    }
    assert_eq!(delayed(), 0.0);
    for millis in [100, 200, 400] {
        let begin = Instant::now();
        let (_, code) = knock(&world, 1, &wrong(&lamp, "c").five()).expect("an answer");
        assert_eq!(code, 0x86);
        assert!(begin.elapsed() >= Duration::from_millis(millis));
    }
    assert_eq!(delayed(), 3.0);

    // While one answer waits, nobody there is heard in that name, whatever the key.
    let waiting = wait_for("an answer that waits", || {
        let mut waiting = Client::open_from([127, 0, 0, 1], world.mqtt(), true);
        let before = delayed();
        waiting.send(&wrong(&lamp, "c").five().bytes());
        wait_for("its turn", || (delayed() > before).then_some(()));
        let (_, code) = knock(&world, 1, &wrong(&lamp, "c").five()).expect("an answer");
        (code == 0x9F).then_some(waiting)
    });
    let (_, code) = knock(&world, 1, &Hello::of(&lamp, "c")).expect("an answer");
    assert!([0, 3].contains(&code), "{code}");
    assert!(world.counter(REFUSED, "too_many_failed_logins") >= 1.0);
    // Others there are, and so is that name elsewhere.
    for (from, thing) in [(1, &other), (2, &lamp)] {
        let (_, code) = knock(&world, from, &Hello::of(thing, "d")).expect("an answer");
        assert_eq!(code, 0, "{from}");
    }
    drop(waiting);
}

#[test]
fn a_login_that_succeeds_forgives_mistakes_in_its_name() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "2"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_WINDOW", "1h"),
    ]);
    let thing = world.thing("lamp");
    for _ in 0..5 {
        for _ in 0..2 {
            assert_eq!(knock(&world, 1, &wrong(&thing, "c")).expect("it").1, 4);
        }
        assert_eq!(knock(&world, 1, &Hello::of(&thing, "c")).expect("it").1, 0);
    }
    let delayed = "rollcall_mqtt_failed_logins_delayed_total";
    assert_eq!(world.counter(delayed, ""), 0.0);
}

#[test]
fn a_thing_has_so_many_connections_over_all_workers() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_THING", "3"),
    ]);
    let (thing, other) = (world.thing("lamp"), world.thing("other"));
    let connect = |thing, id: &str, five| {
        let hello = Hello::of(thing, id).version(five);
        let (client, Connack { code, .. }) = Client::connect(world.mqtt(), hello);
        (client, code)
    };
    let mut clients: Vec<Client> = ["1", "2", "3"]
        .map(|id| connect(&thing, id, false))
        .into_iter()
        .map(|(client, code)| {
            assert_eq!(code, 0);
            client
        })
        .collect();
    for (five, code) in [(false, 3), (true, 0x97)] {
        let (mut client, refused) = connect(&thing, "4", five);
        assert_eq!(refused, code);
        client.expect_end();
    }
    assert_eq!(world.counter(REFUSED, "too_many_connections"), 2.0);
    let (_other, code) = connect(&other, "1", true);
    assert_eq!(code, 0);
    // Who takes over its own session is not one more.
    let (heir, code) = connect(&thing, "3", false);
    assert_eq!(code, 0);
    clients.pop().expect("three").expect_end();
    let (mut late, code) = connect(&thing, "4", true);
    assert_eq!(code, 0x97);
    late.expect_end();
    heir.disconnect();
    let (_late, code) = connect(&thing, "4", true);
    assert_eq!(code, 0);
    world.wait_events(6 + 2);
}

#[test]
fn topics_have_so_many_bytes_and_levels() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__MAX_TOPIC_LENGTH", "70"),
        ("ROLLCALL_MQTT__LIMITS__MAX_TOPIC_LEVELS", "6"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let (long, deep) = (format!("{topic}/{:x<20}", ""), format!("{topic}/a/b/c/d"));
    let fine = format!("{topic}/a/b/c");
    let mut refused = 0.0;
    for five in [false, true] {
        let mut client = world.client(Hello::of(&thing, "c").version(five));
        let name_invalid = if five { 0x90 } else { 0 };
        let filter_invalid = if five { 0x8F } else { 0x80 };
        let codes = client.subscribe(&[(&long, 0), (&fine, 1), (&deep, 0)]);
        assert_eq!(codes, [filter_invalid, 1, filter_invalid]);
        for topic in [&long, &deep] {
            for qos in [0, 1, 2] {
                let code = client.publish(topic, b"lost", qos);
                assert_eq!(code, if qos == 0 { 0 } else { name_invalid });
            }
            let hello = Hello::of(&thing, "w").version(five);
            let hello = hello.will(topic, b"x", 0, false);
            let (mut client, connack) = Client::connect(world.mqtt(), hello);
            assert_eq!(connack.code, if five { 0x90 } else { 5 });
            client.expect_end();
        }
        refused += 10.0;
        if five {
            let respond = |topic: &str| [vec![0x08], crate::client::text(topic)].concat();
            for (properties, code) in [(respond(&deep), 0x90), (respond(&fine), 0)] {
                let sent = client.publish_with(&topic, b"x", 1, false, &properties);
                assert_eq!(sent, code);
            }
            // An alias is not made for such a topic either.
            let code = client.publish_with(&long, b"x", 1, false, &[0x23, 0, 1]);
            assert_eq!(code, 0x90);
            refused += 2.0;
        }
        client.send(&publish(five, &fine, b"kept", 0, false, 0, &[]));
        assert_eq!(client.take().payload, b"kept");
        client.disconnect();
    }
    assert_eq!(
        world.counter("rollcall_mqtt_topics_refused_total", ""),
        refused
    );
    world.wait_events(4);
}

#[test]
fn a_thing_that_publishes_too_fast_waits_and_stays() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_RATE", "1"),
        ("ROLLCALL_MQTT__LIMITS__PUBLISH_BURST", "100ms"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut clients: Vec<Client> = [(1, false), (2, true)]
        .map(|(id, five)| {
            // Who is not listened to cannot be silent for too long.
            let hello = Hello::of(&thing, &id.to_string()).version(five);
            world.client(hello.keep_alive(1))
        })
        .into();
    let begin = Instant::now();
    for client in &mut clients {
        let five = client.five;
        for id in 1..=3 {
            client.send(&publish(five, &topic, b"x", 1, false, id, &[]));
        }
    }
    for client in &mut clients {
        for _ in 0..3 {
            assert_eq!(client.receive().first, 0x40);
        }
        client.send(&[0xC0, 0]);
    }
    // The sixth of the thing comes five seconds after the first, less what a burst allows.
    assert!(begin.elapsed() > Duration::from_secs(4));
    assert!(world.counter("rollcall_mqtt_publishes_delayed_total", "") >= 4.0);
}

#[test]
fn a_thing_that_publishes_too_much_is_sent_away_if_that_is_wished() {
    for (limit, value) in [
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_RATE", "1"),
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_BYTES", "1KiB"),
    ] {
        let world = World::with(&[
            (limit, value),
            ("ROLLCALL_MQTT__LIMITS__RATE_ACTION", "disconnect"),
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ]);
        let (_, channel) = world.member();
        let topic = format!("channels/{channel}/messages");
        for five in [false, true] {
            let thing = world.thing("lamp");
            world.grant(&thing, &channel, "m_write");
            let mut client = world.client(Hello::of(&thing, "c").version(five));
            let packet = publish(five, &topic, &[7; 8192], 0, false, 0, &[]);
            client.send(&packet.repeat(3));
            client.expect_disconnect(0x96);
        }
        let ended = "rollcall_mqtt_connections_ended_total";
        assert_eq!(world.counter(ended, "rate_exceeded"), 2.0);
        let events = world.wait_events(4);
        assert_eq!(events[1]["reason"], "rate_exceeded");
    }
}

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
