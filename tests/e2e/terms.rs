//! What clients are told of a server that is set up otherwise than by default, and that it keeps to it.

use crate::client::{Client, Hello};
use crate::script::{self, Stage};
use crate::world::World;

fn play(environment: &[(&str, &str)], text: &'static str) {
    let world = World::with(environment);
    script::play(text, &[Stage::of(&world)]);
}

#[test]
fn a_lower_qos_is_announced_and_kept_to() {
    play(
        &[("ROLLCALL_MQTT__MAX_QOS", "1")],
        "
== the maximum QoS | 45
a > connect will=~/w will-flags=2
a < connack 5/9b
a < end
a > connect will=~/w will-flags=1
5: a < connack 0 max-qos=1
4: a < connack 0
a > subscribe 1 ~/x=2 ~/y=0
a < suback 1 1 0
a > publish ~/x one qos=1 id=5
a < puback 5
a < publish ~/x one qos=1
b > connect
b < connack 0
b > publish ~/x two qos=2
b < disconnect 9b
b < end
",
    );
    play(
        &[("ROLLCALL_MQTT__MAX_QOS", "0")],
        "
== nothing but QoS 0 | 45
a > connect
5: a < connack 0 max-qos=0
4: a < connack 0
a > subscribe 1 ~/x=1
a < suback 1 0
a > publish ~/x one
a < publish ~/x one
a > publish ~/x two qos=1
a < disconnect 9b
a < end
",
    );
}

#[test]
fn no_retaining_is_announced_and_kept_to() {
    play(
        &[("ROLLCALL_MQTT__RETAIN_AVAILABLE", "false")],
        "
== no retaining | 45
a > connect will=~/w will-flags=4
a < connack 5/9a
a < end
a > connect
5: a < connack 0 retain-available=0
4: a < connack 0
a > publish ~/x x retain qos=1
a < disconnect 9a
a < end
b > connect
b < connack 0
b > subscribe 1 ~/x=1
b < suback 1 1
b silent
",
    );
}

#[test]
fn a_keep_alive_that_is_too_long_is_replaced() {
    let world = World::with(&[("ROLLCALL_MQTT__MAX_KEEP_ALIVE", "1s")]);
    script::play(
        "
== the keep alive of the server | 5
a > connect keep=0
a < connack 0 server-keep-alive=1
b > connect keep=2
b < connack 0 server-keep-alive=1
c > connect keep=1
c < connack 0 server-keep-alive=-
a < disconnect 8d
a < end
b < disconnect 8d
b < end
",
        &[Stage::of(&world)],
    );
    // 3.1.1 cannot be told.
    let thing = world.thing("lamp");
    let mut old = world.client(Hello::of(&thing, "old"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    old.expect_silence();
}

#[test]
fn response_information_is_for_those_who_ask_and_have_room_for_it() {
    let world = World::with(&[(
        "ROLLCALL_MQTT__RESPONSE_INFORMATION",
        "replies/{thing}/{client}/",
    )]);
    let thing = world.thing("lamp");
    let expected = format!("replies/{}/me/", thing.id).into_bytes();
    let told = |id: &str, more: &[u8]| {
        let hello = Hello::of(&thing, id).five().property(more);
        let (_, connack) = Client::connect(world.mqtt(), hello);
        assert_eq!(connack.code, 0);
        let mut found = connack.properties.windows(expected.len());
        found.any(|it| it == expected)
    };
    assert!(told("me", &[0x19, 1]));
    assert!(!told("me", &[0x19, 0]));
    assert!(!told("me", &[]));
    assert!(!told("me", &[0x19, 1, 0x27, 0, 0, 0, 60]));
    // It would be no topic.
    assert!(!told("me/#", &[0x19, 1]));
}

#[test]
fn a_full_or_stopping_server_names_another() {
    let mut world = World::with(&[
        ("ROLLCALL_MQTT__SERVER_REFERENCE", "other.example:1883"),
        ("ROLLCALL_MQTT__MAX_SESSIONS", "2"),
    ]);
    let stage = Stage::of(&world);
    let member = stage.member.as_ref().expect("a thing").0.clone();
    script::play(
        "
== another server | 5
a > connect
a < connack 0 server-reference=-
b > connect
b < connack 0
c > connect
c < connack 9c server-reference=other.example:1883 reason=*
c < end
c > connect max-packet=30
c < connack 9c server-reference=- reason=-
c < end
",
        &[stage],
    );
    // Both have left.
    world.wait_events(4);
    let (mut told, mut curt) = (
        world.client(Hello::of(&member, "told").five()),
        world.client(
            Hello::of(&member, "curt")
                .five()
                .property(&[0x27, 0, 0, 0, 20]),
        ),
    );
    let (_, connack) = Client::connect(world.mqtt(), Hello::of(&member, "old"));
    assert_eq!(connack.code, 3);
    assert!(world.end("TERM").success());
    let packet = told.receive();
    assert_eq!((packet.first, packet.body[0]), (0xE0, 0x8B));
    let named = packet.body.windows(18);
    assert!(named.last().is_some_and(|it| it == b"other.example:1883"));
    assert_eq!(curt.receive().body, [0x8B]);
}

#[test]
fn what_says_that_it_is_utf_8_must_be() {
    const SCRIPT: &str = "
== the payload format | 5
a > connect will=~/w payload=hex:ff will.format=1
a < connack 99 reason=*
a < end
a > connect
a < connack 0
a > subscribe 1 ~/#=2
a < suback 1 2
a > publish ~/x hex:c3a4 qos=1 id=1 format=1
a < puback 1
a < publish ~/x \u{e4} qos=1 format=1
a > publish ~/x hex:ff qos=1 id=2 format=1
a < puback 2 99
a > publish ~/x hex:ff qos=2 id=2 format=1
a < pubrec 2 99
a silent
a > publish ~/x hex:ff qos=1 id=4 format=0
a < puback 4
a < publish ~/x \u{fffd} qos=1 format=0
a > publish ~/y hex:ff qos=1 id=5 format=1 alias=1
a < puback 5 99
a > publish - known qos=1 id=6 alias=1
a < puback 6
a < publish ~/y known qos=1
a > publish ~/x hex:ff format=1
a < disconnect 99
a < end
";
    let world = World::start();
    script::play(SCRIPT, &[Stage::of(&world)]);
    let refused = world.counter("rollcall_mqtt_payloads_refused_total", "");
    assert_eq!(refused, 4.0);
    play(
        &[("ROLLCALL_MQTT__CHECK_PAYLOAD_FORMAT", "false")],
        "
== the payload format is the business of others | 5
a > connect will=~/w payload=hex:ff will.format=1
a < connack 0
a > subscribe 1 ~/#=2
a < suback 1 2
a > publish ~/x hex:ff format=1
a < publish ~/x \u{fffd} format=1
",
    );
}

#[test]
fn a_client_with_no_room_for_a_connack_is_refused() {
    play(
        &[],
        "
== no room for a CONNACK | 5
a > connect max-packet=10
a < connack 95
a < end
b > connect id=- max-packet=59
b < connack 95
b < end
c > connect id=- max-packet=80
c < connack 0
",
    );
}

#[test]
fn values_that_make_no_sense_stop_the_start() {
    for (name, value, key) in [
        ("MAX_QOS", "3", "mqtt.max_qos"),
        ("MAX_KEEP_ALIVE", "70000s", "mqtt.max_keep_alive"),
        ("MAX_KEEP_ALIVE", "1500ms", "mqtt.max_keep_alive"),
        (
            "RESPONSE_INFORMATION",
            "replies/+/",
            "mqtt.response_information",
        ),
        ("SERVER_REFERENCE", "a\nb", "mqtt.server_reference"),
        ("ACCESS", "closed", "mqtt.access"),
        ("MQTT31", "perhaps", "mqtt.mqtt31"),
        ("RETAIN_AVAILABLE", "perhaps", "mqtt.retain_available"),
        ("CHECK_PAYLOAD_FORMAT", "yes?", "mqtt.check_payload_format"),
        ("SYS__INTERVAL", "soon", "mqtt.sys.interval"),
        ("SYS__READERS", "lamp", "mqtt.sys.readers"),
    ] {
        let name = format!("ROLLCALL_MQTT__{name}");
        let world = World::prepared(&[(&name, value)]);
        let output = world.up().output().expect("the program runs");
        assert!(!output.status.success(), "{name}={value}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(key), "{name}={value}: {said}");
    }
}
