//! Open access: everybody, to any topic, and nobody on the roll.

use std::process::{Command, Stdio};

use crate::client::{Client, Hello, publish};
use crate::world::{World, wait_for};

fn open() -> World {
    World::with(&[("ROLLCALL_MQTT__ACCESS", "open")])
}

#[test]
fn everybody_says_what_they_like_and_nobody_is_on_the_roll() {
    let world = open();
    for five in [false, true] {
        let mut one = world.client(Hello::anyone("one").version(five));
        let mut other = world.client(Hello::anyone("other").version(five));
        assert_eq!(one.subscribe(&[("#", 2), ("$own/+", 1)]), [2, 1]);
        for (topic, payload, qos) in [
            ("any/topic at all", b"x", 2),
            ("/", b"y", 1),
            ("$own/z", b"z", 1),
        ] {
            assert_eq!(other.publish(topic, payload, qos), 0);
            let message = one.take();
            assert_eq!(
                (message.topic.as_str(), &message.payload[..], message.qos),
                (topic, &payload[..], qos)
            );
        }
        one.disconnect();
        other.disconnect();
    }
    assert!(world.events().is_empty());
    assert_eq!(world.json(&["presence"])["total"], 0);
    let ended = "rollcall_mqtt_connections_ended_total";
    wait_for("ends that count", || {
        (world.counter(ended, "\"disconnected\"") == 4.0).then_some(())
    });
}

#[test]
fn credentials_are_not_looked_at() {
    let world = open();
    let password_only = Hello {
        password: Some(vec![0xff]),
        ..Hello::anyone("same").five()
    };
    let named = Hello {
        username: Some("whoever".into()),
        password: Some(b"whatever".to_vec()),
        ..Hello::anyone("same").five().lasting()
    };
    world.client(password_only).disconnect();
    world.client(named.clone()).disconnect();
    // One client id is one session, whatever the user name.
    let other = Hello {
        username: Some("another".into()),
        ..named
    };
    assert!(Client::connect(world.mqtt(), other).1.present);
}

#[test]
fn sessions_last_and_are_taken_over_and_wills_are_heard() {
    let world = open();
    let mut heir = world.client(Hello::anyone("heir").five());
    heir.subscribe(&[("will", 1)]);
    let lasting = Hello::anyone("c").five().lasting();
    let will = lasting.clone().will("will", b"over", 1, false);
    let mut first = world.client(will.clone());
    first.subscribe(&[("news", 1)]);
    let (second, connack) = Client::connect(world.mqtt(), will);
    assert!(connack.present);
    first.expect_disconnect(0x8E);
    assert_eq!(heir.take().payload, b"over");
    second.reset();
    assert_eq!(heir.take().payload, b"over");
    assert_eq!(heir.publish("news", b"kept", 1), 0);
    let (mut third, connack) = Client::connect(world.mqtt(), lasting);
    assert!(connack.present);
    assert_eq!(third.take().payload, b"kept");
}

#[test]
fn ids_are_optional_as_the_standard_says_and_sessions_are_bounded() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__ACCESS", "open"),
        ("ROLLCALL_MQTT__MAX_SESSIONS", "3"),
    ]);
    let code = |hello| Client::connect(world.mqtt(), hello).1.code;
    let (_five, connack) = Client::connect(world.mqtt(), Hello::anyone("").five());
    assert_eq!(connack.code, 0);
    assert!(connack.properties.windows(5).any(|it| it == b"auto-"));
    assert_eq!(code(Hello::anyone("").lasting()), 2);
    let _old = world.client(Hello::anyone(""));
    let _last = world.client(Hello::anyone("c"));
    assert_eq!(code(Hello::anyone("d")), 3);
    assert_eq!(code(Hello::anyone("d").five()), 0x97);
}

#[test]
fn packets_right_behind_an_open_connect_count() {
    let world = open();
    let mut client = Client::open(world.mqtt(), false);
    let mut bytes = Hello::anyone("hasty").bytes();
    bytes.extend(crate::client::subscribe(false, 1, &[("t", 1)]));
    bytes.extend(publish(false, "t", b"early", 1, false, 2, &[]));
    client.send(&bytes);
    assert_eq!(client.connack().code, 0);
    let mut firsts: Vec<u8> = (0..3).map(|_| client.receive().first).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [0x32, 0x40, 0x90]);
}

#[test]
fn mosquitto_needs_no_credentials_and_the_log_says_so() {
    let world = open();
    let port = world.mqtt().port().to_string();
    let address = ["-h", "127.0.0.1", "-p", &port, "-t", "house/room"];
    for version in ["311", "5"] {
        let mut listening = Command::new("mosquitto_sub")
            .args(address)
            .args(["-V", version, "-q", "1", "-C", "2", "-W", "20"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is installed: see tests/run");
        // Again and again, since nobody says when the other has subscribed.
        while listening.try_wait().expect("a child").is_none() {
            let status = Command::new("mosquitto_pub")
                .args(address)
                .args(["-V", version, "-q", "2", "-m", "hello"])
                .status();
            assert!(status.expect("mosquitto_pub is installed").success());
        }
        let output = listening.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\nhello\n");
    }
    assert!(world.log_text().contains("access is open"));
    assert!(!World::start().log_text().contains("access is open"));
}
