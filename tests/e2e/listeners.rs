//! Several listeners, each with its own settings.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::client::{Client, Hello};
use crate::world::{PATIENCE, World, wait_for};

fn over_unix(path: &str, hello: &Hello) -> (UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(path).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(&hello.bytes()).expect("sent");
    let mut connack = vec![0; 4];
    stream.read_exact(&mut connack).expect("an answer");
    (stream, connack)
}

#[test]
fn a_unix_socket_is_a_listener_like_others() {
    let mut world = World::prepared(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let path = world.folder().join("mqtt.sock").display().to_string();
    world.set(
        "ROLLCALL_MQTT__LISTENERS__UNIX__LISTEN",
        &format!("unix:{path}"),
    );
    world.set("ROLLCALL_MQTT__LISTENERS__UNIX__UNIX_MODE", "0600");
    world.run();
    assert_eq!(world.listener("unix"), format!("unix:{path}"));
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    // As many as make some of them move to another worker.
    let thing = world.thing("lamp");
    for n in 0..10 {
        let (mut stream, connack) = over_unix(&path, &Hello::of(&thing, &n.to_string()));
        assert_eq!(connack, [0x20, 2, 0, 0]);
        if n == 0 {
            assert_eq!(world.json(&["presence"])["sessions"][0]["peer"], "unix");
            assert_eq!(world.counter("rollcall_mqtt_connections{", "\"unix\""), 1.0);
        }
        stream.write_all(&[0xE0, 0]).expect("sent");
    }
    let events = world.wait_events(20);
    assert!(
        events.iter().all(|event| event["peer"] == "unix"),
        "{events:#?}"
    );

    // Who was killed leaves the file, which is no hindrance; the journal can be read again.
    world.crash_and_restart();
    let (_, connack) = over_unix(&path, &Hello::of(&thing, "again"));
    assert_eq!(connack, [0x20, 2, 0, 0]);
    assert!(world.end("TERM").success());
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn a_listener_has_limits_of_its_own() {
    let world = World::with(&[
        (
            "ROLLCALL_MQTT__LISTENERS__LAB__LISTEN",
            "127.0.0.1:0,127.0.0.1:0",
        ),
        ("ROLLCALL_MQTT__LISTENERS__LAB__MAX_CONNECTIONS", "2"),
        ("ROLLCALL_MQTT__LISTENERS__LAB__MAX_PACKET_SIZE", "1KiB"),
        ("ROLLCALL_MQTT__LISTENERS__LAB__CONNECT_TIMEOUT", "200ms"),
    ]);
    let lab: Vec<_> = world
        .listener("lab")
        .split(',')
        .map(|it| it.parse().expect("an address"))
        .collect();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");

    let (mut client, connack) = Client::connect(lab[0], Hello::of(&thing, "a").five());
    assert!(
        connack
            .properties
            .windows(5)
            .any(|it| it == [0x27, 0, 0, 4, 0]),
        "{connack:?}"
    );
    let _silent = Client::open(lab[1], false);
    wait_for("both", || {
        (world.counter("rollcall_mqtt_connections{", "lab") == 2.0).then_some(())
    });
    Client::open(lab[1], false).expect_end();
    assert_eq!(
        world.counter("rollcall_mqtt_connections_turned_away_total", ""),
        1.0
    );
    // The other listener has its own.
    let mut other = world.client(Hello::of(&thing, "b").five());
    assert!(other.publish(&topic, &[b'x'; 5000], 1) < 0x80);
    // Whoever says nothing makes room.
    wait_for("room", || {
        (world.counter("rollcall_mqtt_connections{", "lab") == 1.0).then_some(())
    });
    assert_eq!(
        world.counter("rollcall_mqtt_connect_timeouts_total", ""),
        1.0
    );
    client.send(&crate::client::publish(
        true,
        &topic,
        &[b'x'; 5000],
        1,
        false,
        1,
        &[],
    ));
    client.expect_disconnect(0x95);
}

#[test]
fn wrong_listeners_stop_the_start_and_are_named() {
    for (name, value, told) in [
        ("LAB__LISTEN", "nowhere", "mqtt.listeners.lab.listen"),
        ("LAB__COLOUR", "red", "colour"),
        (
            "LAB__MAX_PACKET_SIZE",
            "1B",
            "mqtt.listeners.lab.max_packet_size",
        ),
        (
            "LAB__MAX_CONNECTIONS",
            "0",
            "mqtt.listeners.lab.max_connections",
        ),
        ("LAB__UNIX_MODE", "rw", "mqtt.listeners.lab.unix_mode"),
        ("GRPC__LISTEN", "127.0.0.1:0", "mqtt.listeners.grpc"),
        ("LAB__LISTEN", "unix:/dev/null", "unix:/dev/null"),
    ] {
        let mut world = World::prepared(&[]);
        if !name.ends_with("__LISTEN") {
            world.set("ROLLCALL_MQTT__LISTENERS__LAB__LISTEN", "127.0.0.1:0");
        }
        world.set(&format!("ROLLCALL_MQTT__LISTENERS__{name}"), value);
        let output = world.up().output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}");
        assert!(errors.contains(told), "{name}: {errors}");
    }
    let world = World::prepared(&[("ROLLCALL_MQTT__LISTEN", "")]);
    let output = world.up().output().expect("the program runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("mqtt.listen"));
}

#[test]
fn a_listener_may_be_open_beside_one_that_is_not() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LISTENERS__LAB__LISTEN", "127.0.0.1:0"),
        ("ROLLCALL_MQTT__LISTENERS__LAB__ACCESS", "open"),
    ]);
    let anybody = Hello {
        username: None,
        password: None,
        ..Hello::of(&world.thing("lamp"), "c").five()
    };
    let lab = world.listener("lab").parse().expect("an address");
    let (mut client, connack) = Client::connect(lab, anybody.clone());
    assert_eq!(connack.code, 0);
    assert_eq!(client.subscribe(&[("any/topic", 0)]), [0]);
    let (_, connack) = Client::connect(world.mqtt(), anybody);
    assert!(connack.code >= 0x80, "{connack:?}");
    assert!(world.log_text().contains("access is open"));
}
