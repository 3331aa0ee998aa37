//! MQTT 3.1, for those who still need it.

use std::process::Command;

use crate::client::{Client, Connack, Hello, packet};
use crate::world::World;

const ON: (&str, &str) = ("ROLLCALL_MQTT__MQTT31", "true");

/// The CONNECT as version 3.1 has it.
fn greet(world: &World, hello: &Hello) -> (Client, Connack) {
    let bytes = hello.bytes();
    let at = bytes.windows(7).position(|it| it == b"\0\x04MQTT\x04");
    let rest = &bytes[at.expect("a CONNECT of 3.1.1") + 7..];
    let mut client = Client::open(world.mqtt(), false);
    client.send(&packet(0x10, &[b"\0\x06MQIsdp\x03", rest].concat()));
    let connack = client.connack();
    (client, connack)
}

#[test]
fn it_is_off_unless_asked_for() {
    let world = World::start();
    let thing = world.thing("lamp");
    let (mut client, connack) = greet(&world, &Hello::of(&thing, "c"));
    assert_eq!(connack.code, 1);
    client.expect_end();
    assert_eq!(
        world.counter("rollcall_mqtt_connects_refused_total", "\"version\""),
        1.0
    );
    assert!(world.events().is_empty());
}

#[test]
fn ids_have_1_to_23_bytes() {
    let world = World::with(&[ON]);
    let thing = world.thing("lamp");
    for (len, code) in [(0, 2), (1, 0), (23, 0), (24, 2)] {
        let hello = Hello::of(&thing, &"x".repeat(len));
        assert_eq!(greet(&world, &hello).1.code, code, "{len}");
        assert_eq!(greet(&world, &hello.lasting()).1.code, code, "{len}");
    }
}

#[test]
fn everything_else_is_as_in_3_1_1() {
    let world = World::with(&[ON, ("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let (mut client, _) = greet(&world, &Hello::of(&thing, "c").lasting());
    // Sent again, as only this version marks it.
    let mut again = crate::client::subscribe(false, 1, &[(&topic, 2)]);
    again[0] |= 8;
    client.send(&again);
    assert_eq!(client.receive().body, [0, 1, 2]);
    let mut modern = world.client(Hello::of(&thing, "modern").five());
    let other = format!("{topic}/other");
    modern.subscribe(&[(&other, 2)]);
    assert_eq!(client.publish(&other, b"old", 2), 0);
    assert_eq!(modern.take().payload, b"old");
    client.reset();
    assert_eq!(modern.publish(&topic, b"new", 2), 0);

    // The session goes on, and the CONNACK has no flag for that.
    let (mut client, connack) = greet(&world, &Hello::of(&thing, "c").lasting());
    assert_eq!((connack.present, connack.code), (false, 0));
    assert_eq!(client.take().payload, b"new");
    client.disconnect();
    modern.disconnect();
    let events = world.wait_events(6);
    assert_eq!(events[0]["protocol"], "mqtt3.1");
}

#[test]
fn mosquitto_speaks_it() {
    let world = World::with(&[ON]);
    let (thing, channel) = world.member();
    let (port, topic) = (
        world.mqtt().port().to_string(),
        format!("channels/{channel}/messages"),
    );
    let status = Command::new("mosquitto_pub")
        .args(["-V", "mqttv31", "-h", "127.0.0.1", "-p", &port])
        .args(["-u", &thing.id, "-P", &thing.key])
        .args(["-q", "2", "-t", &topic, "-m", "x"])
        .status();
    assert!(status.expect("mosquitto_pub is installed").success());
    world.wait_events(2);
}
