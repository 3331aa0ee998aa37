//! Bytes that are no packet, or one that may not come: the reason, then the end; nothing hangs, nothing grows.

use std::sync::atomic::{AtomicUsize, Ordering};

use rollcall_domain::presence::Protocol;
use rollcall_mqtt::codec::{self, Fault};

use crate::client::{Client, Hello, text};
use crate::table::{self, Row};
use crate::world::{Thing, World};

const LIMIT: u32 = 1 << 20;

/// All rows of `packets.txt` that are at fault.
fn faulty() -> Vec<(Row, Fault)> {
    let found = table::rows().into_iter().filter_map(|row| {
        let fault = codec::decode(&row.bytes, row.protocol, LIMIT).err()?;
        Some((row, fault))
    });
    found.collect()
}

/// Does it with each, several at a time.
fn with_each<T: Sync>(all: &[T], what: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    what(one);
                }
            });
        }
    });
}

/// Sends byte by byte, as long as anybody takes them.
fn trickle(client: &mut Client, bytes: &[u8]) {
    use std::io::Write;
    for byte in bytes {
        if client.stream.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

#[test]
fn a_fault_ends_the_session_however_slowly_it_comes() {
    let world = World::start();
    let thing = world.thing("lamp");
    let mut live = faulty();
    live.retain(|(row, _)| row.protocol.is_some());
    assert!(live.len() > 80);
    with_each(&live, |(row, fault)| {
        let five = row.protocol == Some(Protocol::Mqtt5);
        for slowly in [false, true] {
            let hello = Hello::of(&thing, row.line).version(five);
            let mut client = world.client(hello);
            // What came before counts.
            client.send(&[0xC0, 0]);
            if slowly {
                trickle(&mut client, &row.bytes);
            } else {
                client.send(&row.bytes);
            }
            assert_eq!(client.receive().first, 0xD0, "{}", row.line);
            if five {
                let packet = client.receive_or_end();
                let heard = packet.map(|packet| (packet.first, packet.body[0]));
                assert_eq!(heard, Some((0xE0, fault.reason())), "{}", row.line);
            }
            assert_eq!(client.receive_or_end(), None, "{}", row.line);
        }
    });
    let ended = world.counter("rollcall_mqtt_connections_ended_total", "protocol_error");
    assert_eq!(ended, 2.0 * live.len() as f64);
}

#[test]
fn a_faulty_first_packet_is_refused_in_the_terms_of_its_version() {
    let world = World::start();
    with_each(&faulty(), |(row, _)| {
        // Whatever it would be later, it comes first here.
        let Err(fault) = codec::decode(&row.bytes, None, 160 * 1024) else {
            return;
        };
        let answer = codec::refusal(fault, &row.bytes);
        for slowly in [false, true] {
            let mut client = Client::open(world.mqtt(), false);
            if slowly {
                trickle(&mut client, &row.bytes);
            } else {
                client.send(&row.bytes);
            }
            if let Some((protocol, code)) = answer {
                client.five = protocol == Protocol::Mqtt5;
                let connack = client.connack();
                assert_eq!(
                    (connack.code, connack.present),
                    (code, false),
                    "{}",
                    row.line
                );
            }
            assert_eq!(client.receive_or_end(), None, "{}", row.line);
        }
    });
    assert!(world.events().is_empty());
}

#[test]
fn a_packet_that_is_none_before_the_connect_is_closed_without_a_word() {
    let world = World::start();
    let mut rows = table::rows();
    rows.retain(|row| row.protocol.is_some() && row.bytes[0] >> 4 != 1);
    with_each(&rows, |row| {
        let mut client = Client::open(world.mqtt(), false);
        client.send(&row.bytes);
        assert_eq!(client.receive_or_end(), None, "{}", row.line);
    });
}

#[test]
fn a_packet_larger_than_allowed_is_refused_by_its_length() {
    let world = World::start();
    let thing = world.thing("lamp");
    for five in [false, true] {
        for length in [&[0xff, 0xff, 0xff, 0x7f][..], &[0x81, 0x80, 0x40]] {
            for first in [0x30, 0x32, 0x82, 0xA2, 0x40] {
                let mut client = world.client(Hello::of(&thing, "c").version(five));
                client.send(&[&[first], length].concat());
                client.expect_disconnect(0x95);
            }
        }
    }
}

/// Bytes in memory of a process.
fn resident(world: &World) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid()));
    let status = status.expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kilobytes.map_or(0, |it: usize| it << 10)
}

#[test]
fn a_length_that_is_announced_takes_no_memory() {
    let world = World::start();
    let thing = world.thing("lamp");
    let before = resident(&world);
    let mut clients: Vec<Client> = (0..200)
        .map(|n| world.client(Hello::of(&thing, &n.to_string()).version(n % 2 == 0)))
        .collect();
    for client in &mut clients {
        // A message of nearly 1 MiB begins.
        client.send(&[0x30, 0xf0, 0xff, 0x3f, 0, 1, b't', 0]);
        client.send(&[0; 100]);
    }
    let mut strangers: Vec<Client> = (0..200).map(|_| Client::open(world.mqtt(), true)).collect();
    for stranger in &mut strangers {
        stranger.send(&[&[0x10, 0xf0, 0xff, 0x07][..], &text("MQTT"), &[5]].concat());
    }
    // Who is still there gets an answer to what comes next, but not before it is whole.
    for (n, client) in clients.iter_mut().enumerate() {
        let rest = vec![0; 0x0f_fff0 - 104];
        if n % 50 == 0 {
            client.send(&rest);
            client.expect_silence();
        }
    }
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
}

#[test]
fn a_hello_in_all_versions_of_a_thing_that_is_none_is_refused() {
    let world = World::start();
    let nobody = Thing {
        id: "\u{feff}".into(),
        key: "x".repeat(60_000),
    };
    for five in [false, true] {
        let hello = Hello::of(&nobody, "c").version(five);
        let (mut client, connack) = Client::connect(world.mqtt(), hello);
        assert_eq!(connack.code, if five { 0x86 } else { 4 });
        client.expect_end();
    }
}
