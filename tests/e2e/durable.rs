//! What outlives the process, however that ends: sessions, what waits for them, wills, retained messages.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, Hello, Message, packet, publish};
use crate::world::{PATIENCE, World, wait_for};

const SIGNALS: [&str; 2] = ["KILL", "TERM"];

/// Properties of MQTT 5: how long a session is kept, when a message expires, how long a will waits, in seconds.
fn session_expiry(seconds: u8) -> [u8; 5] {
    [0x11, 0, 0, 0, seconds]
}

pub(crate) fn message_expiry(seconds: u8) -> [u8; 5] {
    [2, 0, 0, 0, seconds]
}

fn will_delay(seconds: u8) -> [u8; 5] {
    [0x18, 0, 0, 0, seconds]
}

fn restart(world: &mut World, signal: &str) {
    world.end(signal);
    world.run();
}

/// Comes back to a session that must be there.
pub(crate) fn resume(world: &World, hello: Hello) -> Client {
    let (client, connack) = Client::connect(world.mqtt(), hello);
    assert_eq!((connack.code, connack.present), (0, true), "{connack:?}");
    client
}

/// The next messages, seen through, whatever comes first.
pub(crate) fn take(client: &mut Client, count: usize) -> Vec<Message> {
    let (mut messages, mut open) = (Vec::new(), 0);
    while messages.len() < count || open > 0 {
        let packet = client.receive();
        if packet.first == 0x62 {
            client.ack(0x70, u16::from_be_bytes([packet.body[0], packet.body[1]]));
            open -= 1;
            continue;
        }
        let message = crate::client::message(&packet, client.five);
        match message.qos {
            1 => client.ack(0x40, message.id),
            2 => {
                client.ack(0x50, message.id);
                open += 1;
            }
            _ => {}
        }
        messages.push(message);
    }
    messages
}

/// Waits until everything that the client of a lasting session has said is on disk.
fn settle(client: &mut Client) {
    client.unsubscribe("nothing");
}

pub(crate) fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).expect("text")
}

#[test]
fn a_session_gets_what_it_missed_before_and_after_a_restart() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let mut rounds = 0;
    for five in [false, true] {
        for signal in SIGNALS {
            rounds += 1;
            let hello = Hello::of(&thing, &format!("sleeper {rounds}")).version(five);
            let hello = hello.lasting();
            let mut sleeper = world.client(hello.clone());
            let filters = [topic("a"), topic("b/+"), topic("gone")];
            let filters: Vec<(&str, u8)> = filters.iter().map(|it| (it.as_str(), 2)).collect();
            assert_eq!(sleeper.subscribe(&filters), [2, 2, 2]);
            sleeper.unsubscribe(&topic("gone"));
            sleeper.disconnect();
            let mut publisher = world.client(Hello::of(&thing, "publisher"));
            for qos in 0..3 {
                publisher.publish(&topic("a"), &[b'0' + qos], qos);
            }
            restart(&mut world, signal);
            let mut publisher = world.client(Hello::of(&thing, "publisher"));
            publisher.publish(&topic("b/c"), b"3", 1);
            publisher.publish(&topic("gone"), b"4", 1);

            let mut sleeper = resume(&world, hello.clone());
            let missed = take(&mut sleeper, 3);
            for (message, (expected, qos)) in missed.iter().zip([("1", 1), ("2", 2), ("3", 1)]) {
                assert_eq!((text(message), message.qos), (expected, qos));
                assert!(!message.dup);
            }
            sleeper.expect_silence();
            settle(&mut sleeper);
            sleeper.disconnect();
            // What was acknowledged does not come back.
            restart(&mut world, signal);
            let mut sleeper = resume(&world, hello);
            sleeper.expect_silence();
            // Over: nothing is left for a next one.
            let clean = Hello::of(&thing, &format!("sleeper {rounds}")).version(five);
            drop(world.client(clean.clone()));
            sleeper.expect_disconnect(0x8E);
            restart(&mut world, signal);
            let (_, connack) = Client::connect(
                world.mqtt(),
                Hello {
                    clean: false,
                    ..clean
                },
            );
            assert!(!connack.present);
        }
    }
}

#[test]
fn handshakes_go_on_where_they_were() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    for five in [false, true] {
        let (to, from) = (format!("to {five}"), format!("from {five}"));
        let to = Hello::of(&thing, &to).version(five).lasting();
        let from = Hello::of(&thing, &from).version(five).lasting();
        let mut receiver = world.client(to.clone());
        receiver.subscribe(&[(&topic, 2)]);
        let mut sender = world.client(from.clone());
        for n in 0..5u8 {
            sender.publish(&topic, &[n], if n % 2 == 0 { 2 } else { 1 });
        }
        let first: Vec<Message> = (0..5).map(|_| receiver.message()).collect();
        // 0 is done with, 1 is acknowledged, 2 is released but not completed, the others are not heard of.
        receiver.ack(0x50, first[0].id);
        assert_eq!(receiver.receive().first, 0x62);
        receiver.ack(0x70, first[0].id);
        receiver.ack(0x40, first[1].id);
        receiver.ack(0x50, first[2].id);
        assert_eq!(receiver.receive().first, 0x62);
        // The sender has its PUBREC, and loses the connection before it hears of the PUBREL.
        let id = 77;
        let message = publish(five, &topic, b"once", 2, false, id, &[]);
        sender.send(&message);
        assert_eq!(sender.receive().first, 0x50);
        world.crash_and_restart();

        let mut sender = resume(&world, from.clone());
        let mut again = message.clone();
        again[0] |= 8;
        sender.send(&again);
        assert_eq!(sender.receive().first, 0x50);
        sender.ack(0x62, id);
        let completed = sender.receive();
        assert_eq!((completed.first, completed.body.len()), (0x70, 2));

        let mut receiver = resume(&world, to);
        let mut released = Vec::new();
        let mut payloads = Vec::new();
        while payloads.last() != Some(&b"once".to_vec()) {
            let packet = receiver.receive();
            if packet.first == 0x62 {
                released.push(u16::from_be_bytes([packet.body[0], packet.body[1]]));
                receiver.ack(0x70, released[released.len() - 1]);
                continue;
            }
            let message = crate::client::message(&packet, five);
            if let Some(before) = first.iter().find(|it| it.payload == message.payload) {
                assert_eq!((before.id, before.qos), (message.id, message.qos));
                assert!(message.dup);
            }
            receiver.ack(if message.qos == 1 { 0x40 } else { 0x50 }, message.id);
            payloads.push(message.payload);
        }
        // To be told of the last release was to know that all before it is kept.
        assert_eq!(released.first(), Some(&first[2].id));
        assert_eq!(
            payloads,
            [b"\x03".to_vec(), b"\x04".to_vec(), b"once".to_vec()]
        );
        drop(receiver);
    }
}

#[test]
fn retained_messages_stay() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    for (name, payload, qos) in [
        ("a", "old", 1),
        ("a", "new", 1),
        ("b", "one", 2),
        ("c", "two", 1),
    ] {
        publisher.publish_with(&topic(name), payload.as_bytes(), qos, true, &[]);
    }
    publisher.publish_with(&topic("c"), b"", 1, true, &[]);
    // Not at once, since nobody is told; but in order with what is.
    publisher.publish_with(&topic("d"), b"three", 0, true, &[]);
    publisher.publish_with(&topic("e"), b"", 1, true, &[]);
    for signal in SIGNALS {
        restart(&mut world, signal);
        let mut client = world.client(Hello::of(&thing, "c").five());
        client.subscribe(&[(&topic("#"), 2)]);
        let messages = take(&mut client, 3);
        for (message, expected) in messages.iter().zip(["new", "one", "three"]) {
            assert_eq!((text(message), message.retain), (expected, true));
        }
        client.expect_silence();
    }
}

#[test]
fn the_time_of_sessions_and_messages_goes_on_while_nobody_is_there() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let hello = |name: &str, seconds| {
        let mut hello = Hello::of(&thing, name)
            .five()
            .property(&session_expiry(seconds));
        hello.clean = false;
        hello
    };
    for name in ["short", "long"] {
        let seconds = if name == "short" { 2 } else { 200 };
        let mut client = world.client(hello(name, seconds));
        client.subscribe(&[(&topic("queued"), 1)]);
        client.disconnect();
    }
    let left = Instant::now();
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    for (payload, seconds) in [("short", 2), ("long", 200)] {
        for (name, retain) in [("queued", false), (payload, true)] {
            let expiry = message_expiry(seconds);
            publisher.publish_with(&topic(name), payload.as_bytes(), 1, retain, &expiry);
        }
    }
    world.end("KILL");
    wait_for("time to pass", || {
        (left.elapsed() > Duration::from_millis(2500)).then_some(())
    });
    world.run();
    let mut client = resume(&world, hello("long", 200));
    let message = client.take();
    assert_eq!(text(&message), "long");
    let left = message.properties[4];
    assert!((150..=198).contains(&left), "{left} s are left of 200");
    client.expect_silence();
    client.subscribe(&[(&topic("+"), 1)]);
    assert_eq!(text(&client.take()), "long");
    client.expect_silence();
    let (_, connack) = Client::connect(world.mqtt(), hello("short", 2));
    assert!(!connack.present);
    assert!(world.counter("rollcall_mqtt_sessions_expired", "") >= 1.0);
}

#[test]
fn wills_are_published_after_the_end_of_the_process() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let watcher = Hello::of(&thing, "watcher").lasting();
    let mut client = world.client(watcher.clone());
    client.subscribe(&[(&topic("+"), 1)]);
    client.disconnect();

    let hello = |name: &str| Hello::of(&thing, name).five();
    let will = |hello: Hello, name: &str, delay: u8| {
        let mut hello = hello.will(&topic(name), name.as_bytes(), 1, false);
        let will = hello.will.as_mut().expect("set");
        will.properties.extend(will_delay(delay));
        hello
    };
    // Connected, with sessions that end with the connection or later; on the way out; done with.
    let _clean = world.client(will(hello("clean"), "clean", 0));
    let _soon = world.client(will(hello("soon").lasting(), "soon", 1));
    let back = will(hello("back").lasting(), "never, since it is back", 60);
    let _back = world.client(back.clone());
    world
        .client(will(hello("waits").lasting(), "waits", 2))
        .reset();
    world
        .client(will(
            hello("said goodbye").lasting(),
            "never, after a goodbye",
            0,
        ))
        .disconnect();
    // What a session that ends takes along.
    let mut ends = will(hello("ends"), "ends", 60).property(&session_expiry(1));
    ends.clean = false;
    let _ends = world.client(ends);
    wait_for("the lost connection", || {
        let events = world.events();
        let left = events.iter().filter(|it| it["event_type"] == "disconnect");
        (left.count() >= 3).then_some(())
    });
    world.crash_and_restart();
    let back = Hello { will: None, ..back };
    let _back = resume(&world, back);
    let mut client = resume(&world, watcher);
    let mut wills: Vec<String> = (0..4).map(|_| text(&client.take()).to_owned()).collect();
    wills.sort();
    assert_eq!(wills, ["clean", "ends", "soon", "waits"]);
    client.expect_silence();
    settle(&mut client);
    // They are done with: the next end brings none again.
    world.crash_and_restart();
    let mut client = resume(&world, Hello::of(&thing, "watcher").lasting());
    client.expect_silence();
}

#[test]
fn shared_messages_stay_with_their_group() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let shared = format!("$share/group/{topic}");
    let hello = |name: &str| Hello::of(&thing, name).five().lasting();
    for name in ["a", "b"] {
        let mut member = world.client(hello(name));
        member.subscribe(&[(&shared, 1)]);
        member.disconnect();
    }
    let mut publisher = world.client(Hello::of(&thing, "publisher"));
    for n in 0..10u8 {
        publisher.publish(&topic, &[n], 1);
    }
    world.crash_and_restart();
    let mut seen = std::collections::BTreeSet::new();
    let mut member = resume(&world, hello("a"));
    seen.insert(member.take().payload[0]);
    // Its session ends: what it has not got goes to the other one.
    drop(world.client(Hello {
        clean: true,
        ..hello("a")
    }));
    let mut member = resume(&world, hello("b"));
    while seen.len() < 10 {
        seen.insert(member.take().payload[0]);
    }
    assert_eq!(seen, (0..10).collect());
}

#[test]
fn what_was_revoked_while_the_front_was_away_is_not_delivered() {
    let home = World::start();
    let authority = format!("http://{}", home.grpc());
    let environment = [
        ("ROLLCALL_THINGS__AUTHORITY", &*authority),
        ("ROLLCALL_INSTANCE", "front-2"),
    ];
    let mut front = World::with(&environment);
    let (thing, lost) = home.member();
    let kept = home.channel();
    home.grant(&thing, &kept, "m_read,m_write");
    let topic = |channel: &str| format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "sleeper").lasting();
    let mut sleeper = front.client(hello.clone());
    sleeper.subscribe(&[(&topic(&lost), 1), (&topic(&kept), 1)]);
    sleeper.disconnect();
    let mut publisher = front.client(Hello::of(&thing, "publisher"));
    publisher.publish(&topic(&lost), b"secret", 1);
    publisher.publish(&topic(&kept), b"news", 1);
    front.end("KILL");
    home.tell(&["disconnect", &thing.id, &lost]);
    front.run();
    let mut sleeper = resume(&front, hello);
    assert_eq!(text(&sleeper.take()), "news");
    sleeper.expect_silence();
    // Granted again: the subscription is gone all the same.
    home.grant(&thing, &lost, "m_read,m_write");
    let mut publisher = front.client(Hello::of(&thing, "publisher"));
    publisher.publish(&topic(&lost), b"unheard", 1);
    sleeper.expect_silence();
}

#[test]
fn who_was_shut_out_while_absent_has_no_session_any_more() {
    let mut world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "sleeper").lasting();
    let mut sleeper = world.client(hello.clone());
    sleeper.subscribe(&[(&topic, 1)]);
    sleeper.reset();
    world.crash_and_restart();
    world.tell(&["things", "disable", &thing.id]);
    wait_for("the session to go", || {
        (world.counter("rollcall_mqtt_sessions ", "") == 0.0).then_some(())
    });
    restart(&mut world, "TERM");
    world.tell(&["things", "enable", &thing.id]);
    let (_, connack) = Client::connect(world.mqtt(), hello);
    assert_eq!((connack.code, connack.present), (0, false));
}

#[test]
fn nothing_is_acknowledged_that_a_full_disk_did_not_take() {
    const ROOM: u64 = 1024 * 1024;
    let mut world = World::prepared(&[]);
    world.limit_file_size(Some(ROOM));
    world.run();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "sleeper").lasting();
    let mut sleeper = world.client(hello.clone());
    sleeper.subscribe(&[(&topic, 1)]);
    sleeper.disconnect();

    let mut listener = world.client(Hello::of(&thing, "listener"));
    listener.subscribe(&[(&topic, 0)]);
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    let body = vec![b'x'; 20_000];
    let say = |n: u16| [&n.to_be_bytes()[..], &body].concat();
    let number = |message: &Message| u16::from_be_bytes([message.payload[0], message.payload[1]]);
    let mut acknowledged = Vec::new();
    // One of them waits for the disk; those behind it hear that there is no room.
    let tick = Duration::from_millis(20);
    publisher
        .stream
        .set_read_timeout(Some(tick))
        .expect("a socket");
    let refused = 'full: loop {
        let n = acknowledged.len() as u16 + 1;
        assert!(n < 1000, "the disk has no end");
        publisher.send(&publish(true, &topic, &say(n), 1, false, n, &[]));
        while publisher.try_receive().expect("a server").is_none() {
            if world.counter("rollcall_sessions_failures_total", "") > 0.0 {
                break 'full n + 1;
            }
        }
        acknowledged.push((n, true));
    };
    publisher
        .stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket");
    assert!(refused > 2, "nothing fits on the disk");
    assert_eq!(world.http("/readyz").0, 503);
    publisher.send(&publish(
        true,
        &topic,
        &say(refused),
        1,
        false,
        refused,
        &[],
    ));
    wait_for("a refusal", || {
        (world.counter("rollcall_mqtt_publishes_unkept_total", "") > 0.0).then_some(())
    });
    // Messages that nothing is promised for pass.
    let mut other = world.client(Hello::of(&thing, "other"));
    other.publish(&topic, b"\xff\xffpassing", 0);
    while number(&listener.take()) != 0xffff {}
    // There is room again.
    let pid = world.pid().to_string();
    let raised = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &pid])
        .status();
    assert!(raised.expect("prlimit").success());
    while acknowledged.len() < usize::from(refused) {
        let packet = publisher.receive();
        assert_eq!(packet.first, 0x40);
        let id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
        match packet.body.get(2) {
            None | Some(0) => acknowledged.push((id, true)),
            Some(0x97) => acknowledged.push((id, false)),
            other => panic!("{other:?}"),
        }
    }
    assert!(acknowledged.contains(&(refused, false)));
    wait_for("readiness", || {
        (world.http("/readyz").0 == 200).then_some(())
    });
    world.limit_file_size(None);
    world.crash_and_restart();
    let mut sleeper = resume(&world, hello);
    let kept: Vec<u16> = acknowledged
        .iter()
        .filter(|it| it.1)
        .map(|it| it.0)
        .collect();
    for id in kept {
        assert_eq!(number(&sleeper.take()), id);
    }
    sleeper.expect_silence();
}

#[test]
fn in_memory_nothing_stays() {
    let mut world = World::with(&[("ROLLCALL_MQTT__DURABILITY", "memory")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "sleeper").lasting();
    let mut sleeper = world.client(hello.clone());
    sleeper.publish_with(&topic, b"retained", 1, true, &[]);
    sleeper.subscribe(&[(&topic, 1)]);
    assert_eq!(sleeper.take().payload, b"retained");
    sleeper.disconnect();
    assert!(!world.folder().join("data/sessions.db").exists());
    world.crash_and_restart();
    let (mut sleeper, connack) = Client::connect(world.mqtt(), hello);
    assert!(!connack.present);
    sleeper.subscribe(&[(&topic, 1)]);
    sleeper.expect_silence();
}

#[test]
fn a_file_that_is_not_ours_stops_the_start() {
    let world = World::prepared(&[]);
    let data = world.folder().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("sessions.db"), packet(1, &[7; 9000])).expect("written");
    let output = world.up().output().expect("the program runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("sessions.db") && said.contains("not a database"),
        "{said}"
    );
}
