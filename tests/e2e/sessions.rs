//! Sessions that outlive their connections, and connections that outlive nothing.

use std::time::{Duration, Instant};

use crate::client::{Client, Hello};
use crate::world::{World, wait_for};

#[test]
fn a_lasting_session_gets_what_it_missed_and_a_clean_one_does_not() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut publisher = world.client(Hello::of(&thing, "publisher"));
    for five in [false, true] {
        let hello = Hello::of(&thing, "sleeper").version(five);
        let mut sleeper = world.client(hello.clone().lasting());
        assert_eq!(sleeper.subscribe(&[(&topic, 2)]), [2]);
        sleeper.disconnect();
        for (n, qos) in [0, 1, 2].into_iter().enumerate() {
            publisher.publish(&topic, &[n as u8], qos);
        }
        let (mut sleeper, connack) = Client::connect(world.mqtt(), hello.clone().lasting());
        assert!(connack.present);
        for (payload, qos) in [(1, 1), (2, 2)] {
            let message = sleeper.take();
            assert_eq!(
                (message.payload, message.qos, message.dup),
                (vec![payload], qos, false)
            );
        }
        sleeper.expect_silence();
        sleeper.disconnect();

        let (mut fresh, connack) = Client::connect(world.mqtt(), hello.clone());
        assert!(!connack.present);
        publisher.publish(&topic, b"unheard", 1);
        fresh.expect_silence();
        fresh.disconnect();
        assert!(!Client::connect(world.mqtt(), hello).1.present);
    }
}

#[test]
fn what_was_under_way_is_sent_again_with_the_same_ids_in_order() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut publisher = world.client(Hello::of(&thing, "publisher"));
    for five in [false, true] {
        let client_id = format!("sleeper {five}");
        let hello = Hello::of(&thing, &client_id).version(five).lasting();
        let mut sleeper = world.client(hello.clone());
        sleeper.subscribe(&[(&topic, 2)]);
        for n in 0..6u8 {
            publisher.publish(&topic, &[n], if n % 2 == 0 { 1 } else { 2 });
        }
        let first: Vec<_> = (0..6).map(|_| sleeper.message()).collect();
        // 0 is done with, 1 is released but not completed, the others are not heard of.
        sleeper.ack(0x40, first[0].id);
        sleeper.ack(0x50, first[1].id);
        assert_eq!(sleeper.receive().first, 0x62);
        sleeper.reset();

        let (mut sleeper, connack) = Client::connect(world.mqtt(), hello);
        assert!(connack.present);
        let release = sleeper.receive();
        assert_eq!(
            (release.first, &release.body[..2]),
            (0x62, &first[1].id.to_be_bytes()[..])
        );
        for before in &first[2..] {
            let again = sleeper.message();
            assert!(again.dup);
            assert_eq!((again.id, &again.payload), (before.id, &before.payload));
        }
        sleeper.expect_silence();
        drop(sleeper);
    }
}

#[test]
fn no_more_is_under_way_than_the_client_takes_also_when_it_comes_back() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "narrow").five().lasting();
    let mut narrow = world.client(hello.clone().property(&[0x21, 0, 4]));
    narrow.subscribe(&[(&topic, 1)]);
    let mut publisher = world.client(Hello::of(&thing, "publisher"));
    for n in 0..10u8 {
        publisher.publish(&topic, &[n], 1);
    }
    let first: Vec<_> = (0..4).map(|_| narrow.message()).collect();
    narrow.expect_silence();
    narrow.reset();

    let mut narrow = world.client(hello.property(&[0x21, 0, 2]));
    let mut seen = Vec::new();
    let mut open = std::collections::VecDeque::new();
    while seen.len() < 10 {
        let message = narrow.message();
        assert_eq!(message.dup, seen.len() < 4);
        if let Some(before) = first.get(seen.len()) {
            assert_eq!(message.id, before.id);
        }
        seen.push(message.payload[0]);
        open.push_back(message.id);
        if open.len() == 2 {
            narrow.expect_silence();
            narrow.ack(0x40, open.pop_front().expect("two"));
        }
    }
    assert_eq!(seen, (0..10).collect::<Vec<u8>>());
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let world = World::with(&[("ROLLCALL_MQTT__MAX_SESSION_EXPIRY", "1s")]);
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c").five().lasting();
    world.client(hello.clone()).disconnect();
    assert!(Client::connect(world.mqtt(), hello.clone()).1.present);
    wait_for("the session to expire", || {
        (world.counter("rollcall_mqtt_sessions_expired_total", "") >= 1.0).then_some(())
    });
    assert!(!Client::connect(world.mqtt(), hello).1.present);
}

#[test]
fn a_disconnect_can_shorten_a_session_but_not_begin_one() {
    let world = World::start();
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c").five().lasting();
    let mut client = world.client(hello.clone());
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    client.expect_end();
    assert!(!Client::connect(world.mqtt(), hello).1.present);

    let mut client = world.client(Hello::of(&thing, "d").five());
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]);
    client.expect_disconnect(0x82);
}

#[test]
fn the_newcomer_takes_the_session_over() {
    let world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    for five in [false, true] {
        let hello = Hello::of(&thing, "same").version(five).lasting();
        let mut old = world.client(hello.clone());
        old.subscribe(&[(&topic, 0)]);
        let (mut new, connack) = Client::connect(world.mqtt(), hello);
        assert!(connack.present);
        old.expect_disconnect(0x8E);
        new.publish(&topic, b"x", 0);
        assert_eq!(new.message().payload, b"x");
        new.disconnect();
    }
    let events = world.wait_events(8);
    crate::world::check_pairs(&events);
    let reasons: Vec<_> = events
        .iter()
        .filter_map(|event| event.get("reason"))
        .collect();
    assert_eq!(
        reasons,
        ["taken_over", "disconnected", "taken_over", "disconnected"]
    );
    assert_eq!(
        events[1]["event_type"], "disconnect",
        "the old one leaves before the new one comes"
    );
}

#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let world = World::start();
    let thing = world.thing("lamp");
    let mut forever = world.client(Hello::of(&thing, "forever").keep_alive(0));
    let mut pinging = world.client(Hello::of(&thing, "pinging").keep_alive(1));
    let begin = Instant::now();
    let mut silent = world.client(Hello::of(&thing, "silent").five().keep_alive(1));
    let waiter = std::thread::spawn(move || {
        silent.expect_disconnect(0x8D);
        begin.elapsed()
    });
    while !waiter.is_finished() {
        pinging.expect_silence();
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = waiter.join().expect("closed");
    assert!(took >= Duration::from_millis(1400), "too early: {took:?}");
    pinging.expect_silence();
    forever.expect_silence();
}

#[test]
fn a_session_changes_its_protocol_and_is_still_understood() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut old = world.client(Hello::of(&thing, "c").lasting());
    old.subscribe(&[(&topic, 1)]);
    old.disconnect();
    let mut publisher = world.client(Hello::of(&thing, "p").five());
    publisher.publish_with(&topic, b"missed", 1, false, &[0x01, 1]);
    let (mut new, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "c").five().lasting());
    assert!(connack.present);
    assert_eq!(new.take().payload, b"missed");
    publisher.publish_with(&topic, b"now", 1, false, &[0x01, 1]);
    let message = new.take();
    assert_eq!(
        (message.payload, message.properties),
        (b"now".to_vec(), vec![0x01, 1])
    );
}

#[test]
fn a_will_is_for_those_who_do_not_say_goodbye() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages/will");
    let mut heir = world.client(Hello::of(&thing, "heir"));
    heir.subscribe(&[(&topic, 2)]);
    for five in [false, true] {
        let hello = Hello::of(&thing, "mortal")
            .version(five)
            .will(&topic, b"last", 1, false);
        world.client(hello.clone()).disconnect();
        heir.expect_silence();
        world.client(hello.clone()).reset();
        let will = heir.take();
        assert_eq!(
            (will.payload, will.qos, will.retain),
            (b"last".to_vec(), 1, false)
        );
        drop(world.client(hello.clone()));
        assert_eq!(heir.take().payload, b"last");
        let mut faulty = world.client(hello.clone());
        faulty.send(&[0xF1, 0]);
        assert_eq!(heir.take().payload, b"last");
        // Taken over: the connection ended without a goodbye.
        let _old = world.client(hello.clone());
        let _new = world.client(hello);
        assert_eq!(heir.take().payload, b"last");
        drop(_new);
        assert_eq!(heir.take().payload, b"last");
    }
    // A goodbye that asks for it [MQTT5-3.14.4-3].
    let mut client = world.client(
        Hello::of(&thing, "m")
            .five()
            .will(&topic, b"asked", 0, true),
    );
    client.send(&[0xE0, 1, 4]);
    assert_eq!(heir.take().payload, b"asked");
    let mut late = world.client(Hello::of(&thing, "late"));
    late.subscribe(&[(&topic, 0)]);
    let kept = late.take();
    assert_eq!((kept.payload, kept.retain), (b"asked".to_vec(), true));
}

#[test]
fn a_delayed_will_waits_and_is_void_when_its_client_comes_back() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages/will");
    let mut heir = world.client(Hello::of(&thing, "heir"));
    heir.subscribe(&[(&topic, 0)]);
    let mut hello = Hello::of(&thing, "mortal")
        .five()
        .lasting()
        .will(&topic, b"last", 0, false);
    hello.will.as_mut().expect("a will").properties = vec![0x18, 0, 0, 0, 1];
    world.client(hello.clone()).reset();
    let back = world.client(hello.clone());
    std::thread::sleep(Duration::from_millis(1500));
    heir.expect_silence();
    let begin = Instant::now();
    back.reset();
    assert_eq!(heir.take().payload, b"last");
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
    // With the end of the session, at the latest.
    hello.properties = vec![0x11, 0, 0, 0, 0];
    hello.will.as_mut().expect("a will").properties = vec![0x18, 0, 0, 0, 99];
    world.client(hello).reset();
    assert_eq!(heir.take().payload, b"last");
}

/// The server finds both at once: the goodbye on one socket, the greeting on another.
#[test]
fn who_says_goodbye_and_is_back_at_once_is_not_taken_over() {
    let world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut heir = world.client(Hello::of(&thing, "heir").five());
    heir.subscribe(&[(&topic, 1)]);
    let with_will = Hello::of(&thing, "hasty")
        .five()
        .will(&topic, b"lost", 1, false);
    for _ in 0..5 {
        let mut hasty = world.client(with_will.clone());
        world.signal("STOP");
        hasty.send(&[0xE0, 0]);
        drop(hasty);
        let mut again = Client::open(world.mqtt(), true);
        again.send(&with_will.bytes());
        world.signal("CONT");
        assert_eq!(again.connack().code, 0);
        again.disconnect();
    }
    heir.expect_silence();
    let events = world.wait_events(21);
    let reasons: Vec<_> = events.iter().filter_map(|it| it.get("reason")).collect();
    assert_eq!(reasons, ["disconnected"; 10]);
}
