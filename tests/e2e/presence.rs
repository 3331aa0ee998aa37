//! The roll: one `connect`, one `disconnect`, in order, however a session ends.

use std::collections::BTreeSet;
use std::net::Shutdown;

use crate::client::{Client, Hello};
use crate::world::{World, check_pairs, wait_for};

const EXTENDED: (&str, &str) = ("ROLLCALL_EVENTS__EXTENDED", "true");

#[test]
fn an_event_has_exactly_the_four_fields_of_the_contract() {
    let world = World::start();
    let thing = world.thing("lamp");
    world.client(Hello::of(&thing, "c")).disconnect();
    let events = world.wait_events(2);
    let mut last = 0;
    for (event, kind) in events.iter().zip(["connect", "disconnect"]) {
        let names: BTreeSet<&str> = event.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            BTreeSet::from(["thing_id", "event_type", "instance", "occurred_at"])
        );
        assert_eq!(event["thing_id"], thing.id);
        assert_eq!(event["event_type"], kind);
        assert_eq!(event["instance"], "front-1");
        let at: u64 = event["occurred_at"].parse().expect("nanoseconds");
        assert!(at > last && event["occurred_at"].len() == 19);
        last = at;
    }
}

#[test]
fn extended_events_tell_session_client_and_reason() {
    let world = World::with(&[EXTENDED]);
    let thing = world.thing("lamp");
    world
        .client(Hello::of(&thing, "my client").five())
        .disconnect();
    let events = world.wait_events(2);
    assert_eq!(events[0]["session_id"], events[1]["session_id"]);
    for (event, sequence) in events.iter().zip(["1", "2"]) {
        assert_eq!(event["client_id"], "my client");
        assert_eq!(event["sequence"], sequence);
        assert_eq!(event["protocol"], "mqtt5");
        assert!(event["peer"].starts_with("127.0.0.1:"));
    }
    assert_eq!(events[0].get("reason"), None);
    assert_eq!(events[1]["reason"], "disconnected");
}

/// Ends a session that was just begun.
type Ending = fn(&mut World, Client, Hello);

#[test]
fn every_end_of_a_session_is_one_disconnect_with_its_reason() {
    let endings: [(&str, Ending); 9] = [
        ("disconnected", |_, client, _| client.disconnect()),
        ("connection_lost", |_, client, _| drop(client)),
        ("connection_lost", |_, client, _| client.reset()),
        ("connection_lost", |_, mut client, _| {
            client.stream.shutdown(Shutdown::Write).expect("a socket");
            client.expect_end();
        }),
        ("connection_lost", |_, mut client, _| {
            // In the middle of a packet.
            client.send(&[0x30, 200, 1, 0]);
            drop(client);
        }),
        ("protocol_error", |_, mut client, _| {
            client.send(&[0, 0]);
            client.expect_disconnect(0x82);
        }),
        ("keep_alive_timeout", |_, mut client, _| {
            client.expect_disconnect(0x8D)
        }),
        ("taken_over", |world, mut client, hello| {
            let newcomer = world.client(hello);
            client.expect_disconnect(0x8E);
            // So that all ends leave two events.
            newcomer.disconnect();
        }),
        ("revoked", |world, mut client, hello| {
            world.tell(&[
                "things",
                "disable",
                hello.username.as_deref().expect("a thing"),
            ]);
            client.expect_disconnect(0x87);
        }),
    ];
    let mut world = World::with(&[EXTENDED]);
    let mut seen = 0;
    for five in [false, true] {
        for (reason, end) in endings {
            let thing = world.thing("lamp");
            let hello = Hello::of(&thing, "c").version(five).keep_alive(1);
            let client = world.client(hello.clone());
            end(&mut world, client, hello);
            let count = if reason == "taken_over" { 4 } else { 2 };
            let events = world.wait_events(seen + count);
            assert_eq!(events[seen + 1]["reason"], reason);
            seen += count;
            check_pairs(&events);
        }
    }
}

#[test]
fn signals_see_everybody_out_and_a_crash_is_made_up_for() {
    for (signal, reason, code) in [
        ("INT", "server_shutdown", Some(0x8B)),
        ("TERM", "server_shutdown", Some(0x8B)),
        ("KILL", "instance_failed", None),
    ] {
        let mut world = World::with(&[EXTENDED]);
        let thing = world.thing("lamp");
        let mut clients: Vec<Client> = (0..20)
            .map(|n| world.client(Hello::of(&thing, &n.to_string()).five()))
            .collect();
        let status = world.end(signal);
        assert_eq!(status.success(), code.is_some(), "{signal}: {status}");
        for client in &mut clients {
            match code {
                Some(code) => client.expect_disconnect(code),
                None => client.expect_end(),
            }
        }
        world.run();
        let events = world.wait_events(40);
        assert_eq!(check_pairs(&events), 20);
        assert!(
            events[20..].iter().all(|event| event["reason"] == reason),
            "{signal}"
        );
        // They left before anyone could come again.
        world.client(Hello::of(&thing, "0")).disconnect();
        assert_eq!(check_pairs(&world.wait_events(42)), 21);
    }
}

#[test]
fn who_was_told_of_a_connection_has_it_in_the_journal() {
    let mut world = World::with(&[EXTENDED]);
    let thing = world.thing("lamp");
    for round in 1..=5 {
        let clients: Vec<Client> = (0..5)
            .map(|n| world.client(Hello::of(&thing, &n.to_string())))
            .collect();
        // Killed as soon as the CONNACK is here.
        world.crash_and_restart();
        drop(clients);
        let events = world.events();
        assert_eq!(check_pairs(&events), 5 * round);
    }
}

#[test]
fn those_who_were_not_let_in_leave_no_trace() {
    let world = World::start();
    let thing = world.thing("lamp");
    for five in [false, true] {
        let mut hello = Hello::of(&thing, "c").version(five);
        hello.password = Some(b"wrong".to_vec());
        Client::connect(world.mqtt(), hello);
    }
    for bytes in [
        &b""[..],
        b"\0",
        b"GET / HTTP/1.0\r\n\r\n",
        &[0x10, 0x10, 0, 4],
        &[0xff; 1000],
    ] {
        let mut client = Client::open(world.mqtt(), false);
        client.send(bytes);
    }
    for _ in 0..50 {
        Client::open(world.mqtt(), false).reset();
    }
    // A session that is let in behind all these is the only one there is.
    world.client(Hello::of(&thing, "c")).disconnect();
    world.wait_events(2);
    assert_eq!(
        world.counter("rollcall_mqtt_connects_refused_total", "bad_credentials"),
        2.0
    );
}

#[test]
fn the_roll_shows_who_is_here() {
    let mut world = World::start();
    let thing = world.thing("lamp");
    let one = world.client(Hello::of(&thing, "one").five());
    let two = world.client(Hello::of(&thing, "two"));
    let roll = world.json(&["presence"]);
    assert_eq!(roll["total"], 2);
    assert_eq!(roll["instance"], "front-1");
    assert_eq!(roll["sessions"][0]["client_id"], "one");
    assert_eq!(roll["sessions"][0]["protocol"], "mqtt5");
    assert_eq!(roll["sessions"][1]["thing_id"], thing.id.as_str());
    let since = world.events()[0]["occurred_at"].clone();
    assert_eq!(roll["sessions"][0]["occurred_at"], since.as_str());
    let table = world.tell(&["presence"]);
    assert!(
        table.contains(&thing.id) && table.contains("2 online"),
        "{table}"
    );
    one.disconnect();
    wait_for("one to leave", || {
        (world.json(&["presence"])["total"] == 1).then_some(())
    });
    world.crash_and_restart();
    assert_eq!(world.json(&["presence"])["total"], 0);
    drop(two);
}
