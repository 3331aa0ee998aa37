//! A journal that is full, and one that is not ours.

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
