//! A journal that is full, or on a full disk, one that is a copy, and none.

use std::process::Command;

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::world::{World, check_pairs, wait_for};

const BOUND: [(&str, &str); 2] = [
    ("ROLLCALL_JOURNAL__MAX_BYTES", "8KiB"),
    ("ROLLCALL_EVENTS__EXTENDED", "true"),
];

/// Connects until the journal is full. Returns who is in.
fn fill(world: &World, hello: impl Fn(usize) -> Hello) -> Vec<Client> {
    let mut clients = Vec::new();
    loop {
        let (mut client, connack) = Client::connect(world.mqtt(), hello(clients.len()));
        if connack.code != 0 {
            assert_eq!(connack.code, if client.five { 0x97 } else { 3 });
            client.expect_end();
            return clients;
        }
        clients.push(client);
        assert!(clients.len() < 1_000, "the journal has no bound");
    }
}

#[test]
fn a_full_journal_refuses_new_sessions_and_keeps_what_it_has() {
    let mut world = World::with(&BOUND);
    let thing = world.thing("lamp");
    let hello = |n: usize| Hello::of(&thing, &n.to_string()).version(n.is_multiple_of(2));
    let mut clients = fill(&world, hello);
    let count = clients.len();
    assert!(count > 10, "room for some: {count}");
    for client in &mut clients {
        client.expect_silence();
    }
    // Room for each departure was kept.
    drop(clients);
    let mut sessions = count;
    world.wait_events(2 * sessions);
    // What the events took less than was set aside lets a few more in, then nothing makes room.
    loop {
        let more = fill(&world, hello).len();
        sessions += more;
        if more == 0 {
            break;
        }
        world.wait_events(2 * sessions);
    }
    let events = world.events();
    assert_eq!(check_pairs(&events), sessions);
    world.crash_and_restart();
    assert!(world.events() == events);
}

#[test]
fn what_is_relayed_makes_room() {
    let mut redis = RedisServer::prepared();
    let mut world = World::prepared(&BOUND);
    world.set("ROLLCALL_REDIS__URL", &redis.url());
    world.set("ROLLCALL_REDIS__RETRY_MAX", "100ms");
    world.run();
    let thing = world.thing("lamp");
    let hello = |n: usize| Hello::of(&thing, &n.to_string());
    let mut sessions = 0;
    for _ in 0..3 {
        sessions += fill(&world, hello).len();
    }
    redis.run();
    wait_for("room", || {
        (Client::connect(world.mqtt(), hello(0)).1.code == 0).then_some(())
    });
    sessions += 1;
    for n in 0..200 {
        world.client(hello(n)).disconnect();
        sessions += 1;
        // The bound holds for what Redis does not have yet.
        wait_for("the relay", || {
            (redis.len("mainflux.mqtt") >= 2 * sessions - 2).then_some(())
        });
    }
    wait_for("the relay", || {
        (redis.len("mainflux.mqtt") >= 2 * sessions).then_some(())
    });
    assert_eq!(check_pairs(&redis.stream("mainflux.mqtt")), sessions);
}

#[test]
fn the_oldest_events_go_first_if_that_is_wished() {
    let mut world = World::prepared(&BOUND);
    world.set("ROLLCALL_JOURNAL__WHEN_FULL", "drop_oldest");
    world.run();
    let thing = world.thing("lamp");
    for n in 0..300 {
        world.client(Hello::of(&thing, &n.to_string())).disconnect();
    }
    let events = wait_for("all to leave", || {
        let events = world.events();
        (events.last()?["client_id"] == "299" && events.last()?["event_type"] == "disconnect")
            .then_some(events)
    });
    assert!(events.len() > 20);
    let dropped = world.counter("rollcall_journal_events_dropped_total", "");
    assert_eq!(dropped as usize + events.len(), 600);
    assert!(dropped > 100.0);
    world.crash_and_restart();
    assert!(world.events() == events);
}

#[test]
fn durability_can_be_that_of_the_process() {
    let mut world = World::with(&[("ROLLCALL_JOURNAL__DURABILITY", "process"), BOUND[1]]);
    let thing = world.thing("lamp");
    let clients: Vec<Client> = (0..10)
        .map(|n| world.client(Hello::of(&thing, &n.to_string())))
        .collect();
    world.crash_and_restart();
    drop(clients);
    assert_eq!(check_pairs(&world.wait_events(20)), 10);
}

#[test]
fn a_full_disk_lets_nobody_in_and_forgets_no_farewell() {
    let mut world = World::with(&[BOUND[1]]);
    let thing = world.thing("lamp");
    assert!(world.end("TERM").success());
    world.limit_file_size(Some(1 << 20));
    world.run();
    let hello = |n: usize| Hello::of(&thing, &n.to_string());
    let clients = fill(&world, hello);
    let mut sessions = clients.len();
    assert!(sessions > 10, "room for some: {sessions}");
    assert!(world.counter("rollcall_journal_failures_total", "") > 0.0);
    assert_eq!(world.http("/readyz").0, 503);
    drop(clients);
    // Nobody is said to have left before it is kept.
    wait_for("farewells to wait", || {
        (world.counter("rollcall_journal_events_waiting", "") >= sessions as f64).then_some(())
    });
    assert_eq!(world.events().len(), sessions);

    let pid = world.pid().to_string();
    let raised = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &pid])
        .status();
    assert!(raised.expect("prlimit").success());
    world.wait_events(2 * sessions);
    world.client(hello(0)).disconnect();
    sessions += 1;
    let events = world.wait_events(2 * sessions);
    assert_eq!(check_pairs(&events), sessions);
    world.limit_file_size(None);
    world.crash_and_restart();
    assert!(world.events() == events);
}

#[test]
fn a_copy_of_a_folder_is_not_opened_while_the_original_lives() {
    let mut world = World::start();
    let copy = World::prepared(&[]);
    let status = Command::new("cp")
        .arg("-r")
        .args([world.folder().join("data"), copy.folder()])
        .status();
    assert!(status.expect("cp").success());
    let output = copy.up().output().expect("the program runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("presence.db") && error.contains("a copy of a journal"),
        "{error}"
    );
    // When it has ended, even so, the copy may take its place.
    world.end("KILL");
    let mut copy = copy;
    copy.run();
}

#[test]
fn nobody_is_on_the_roll_where_that_is_not_wished() {
    let mut world = World::with(&[BOUND[1]]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let _left = world.client(Hello::of(&thing, "early"));
    world.set("ROLLCALL_EVENTS__MQTT", "false");
    world.crash_and_restart();
    let mut client = world.client(Hello::of(&thing, "late").five());
    client.subscribe(&[(&topic, 1)]);
    client.publish(&topic, b"news", 1);
    assert_eq!(client.take().payload, b"news");
    assert_eq!(world.json(&["presence"])["total"], 0);
    world.tell(&["kick", &thing.id]);
    client.expect_disconnect(0x98);
    // Who was there before is told to have left.
    let events = world.events();
    assert_eq!((events.len(), check_pairs(&events)), (2, 1));
    assert_eq!(events[1]["reason"], "instance_failed");

    world.set("ROLLCALL_EVENTS__MQTT", "true");
    assert!(world.end("TERM").success());
    world.run();
    world.client(Hello::of(&thing, "early")).disconnect();
    assert_eq!(check_pairs(&world.wait_events(4)), 2);
}
