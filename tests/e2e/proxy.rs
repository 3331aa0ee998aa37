//! Connections that a proxy opens for clients.

use std::io::Write;
use std::net::SocketAddr;

use crate::client::{Client, Hello};
use crate::world::{World, wait_for};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 1883\r\n";
/// From 198.51.100.9:4242, with an extra that is of no interest.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\xC6\x33\x64\x09\x0A\0\0\x01\x10\x92\x07\x5B\x04\0\x03abc";

fn proxied() -> (World, SocketAddr) {
    let world = World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_MQTT__LISTENERS__EDGE__LISTEN", "127.0.0.1:0"),
        ("ROLLCALL_MQTT__LISTENERS__EDGE__PROXY_PROTOCOL", "true"),
        (
            "ROLLCALL_MQTT__LISTENERS__EDGE__PROXY_FROM",
            "10.0.0.0/8,127.0.0.0/8",
        ),
        ("ROLLCALL_MQTT__LISTENERS__EDGE__CONNECT_TIMEOUT", "300ms"),
    ]);
    let edge = world.listener("edge").parse().expect("an address");
    (world, edge)
}

fn refused(world: &World, reason: &str) -> f64 {
    world.counter(
        "rollcall_mqtt_handshake_failures_total",
        &format!("reason=\"{reason}\""),
    )
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let (world, edge) = proxied();
    let thing = world.thing("lamp");
    for (n, (header, peer)) in [
        (V1, "203.0.113.7:12345"),
        (V2, "198.51.100.9:4242"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let hello = Hello::of(&thing, &n.to_string()).five();
        let bytes = [header, &hello.bytes()].concat();
        // At once, and byte by byte.
        for chunk in [bytes.len(), 1] {
            let mut client = Client::open(edge, true);
            for part in bytes.chunks(chunk) {
                client.stream.write_all(part).expect("sent");
            }
            assert_eq!(client.connack().code, 0);
            let seen = &world.json(&["presence"])["sessions"][0]["peer"];
            assert!(seen.as_str().expect("text").starts_with(peer), "{seen}");
            client.disconnect();
            wait_for("the end", || {
                (world.json(&["presence"])["total"] == 0).then_some(())
            });
        }
    }
    let peers = world.wait_events(16);
    assert!(peers[0]["peer"] == "203.0.113.7:12345" && peers[1]["peer"] == "203.0.113.7:12345");
}

#[test]
fn without_a_sound_header_nobody_comes_in() {
    let (world, edge) = proxied();
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c").bytes();
    for header in [
        &b""[..],
        b"PROXY TCP4 here there 1 2\r\n",
        &V2[..13],
        b"\r\n\r\n\0\r\nQUIT\n\x31",
    ] {
        let mut client = Client::open(edge, false);
        client.send(&[header, &hello].concat());
        client.expect_end();
    }
    assert_eq!(refused(&world, "proxy"), 4.0);
    // Half a header holds a connection no longer than half a CONNECT.
    let mut half = Client::open(edge, false);
    half.send(&V1[..20]);
    half.expect_end();
    assert_eq!(refused(&world, "timeout"), 1.0);
    // Elsewhere a header is no MQTT.
    let mut client = Client::open(world.mqtt(), false);
    client.send(&[V1, &hello].concat());
    client.expect_end();
    assert!(world.events().is_empty());
}

#[test]
fn a_header_from_elsewhere_is_not_listened_to() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__PROXY_PROTOCOL", "true"),
        ("ROLLCALL_MQTT__PROXY_FROM", "10.0.0.0/8"),
    ]);
    let thing = world.thing("lamp");
    let mut client = Client::open(world.mqtt(), false);
    let _ = client
        .stream
        .write_all(&[V1, &Hello::of(&thing, "c").bytes()].concat());
    client.expect_end();
    assert_eq!(refused(&world, "untrusted_proxy"), 1.0);

    let mut world = World::prepared(&[]);
    world.set("ROLLCALL_MQTT__PROXY_FROM", "10.0.0.0/99");
    let output = world.up().output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("mqtt.proxy_from"), "{told}");
}

#[test]
fn limits_of_an_address_are_those_of_the_client() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__PROXY_PROTOCOL", "true"),
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_ADDRESS", "1"),
    ]);
    let thing = world.thing("lamp");
    let open = |header: &[u8], id: &str| {
        let mut client = Client::open(world.mqtt(), false);
        client.send(&[header, &Hello::of(&thing, id).bytes()].concat());
        client
    };
    let (mut one, mut other) = (open(V1, "one"), open(V2, "other"));
    assert_eq!((one.connack().code, other.connack().code), (0, 0));
    open(V1, "another").expect_end();
}
