//! From the journal to Redis: everything, once, in order, whatever becomes of either.

use crate::client::Hello;
use crate::redis_server::RedisServer;
use crate::storms::Storm;
use crate::world::{World, check_pairs, wait_for};

const STREAM: &str = "mainflux.mqtt";

fn world(redis: &RedisServer) -> World {
    World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "500ms"),
        ("ROLLCALL_REDIS__BATCH", "16"),
    ])
}

fn storm(world: &World) -> Storm {
    let (things, _) = world.members(8);
    Storm::begin(
        world.mqtt(),
        things.iter().map(|thing| Hello::of(thing, "c")).collect(),
    )
}

/// Waits until Redis has what the journal has, then compares them, event by event.
fn expect_equal(world: &World, redis: &RedisServer) -> usize {
    let journal = wait_for("all to leave", || {
        let left = world.json(&["presence", "--limit", "1"])["total"] == 0;
        left.then(|| world.events())
    });
    wait_for("the relay", || {
        (redis.len(STREAM) >= journal.len()).then_some(())
    });
    assert!(redis.stream(STREAM) == journal, "stream and journal differ");
    check_pairs(&journal)
}

#[test]
fn the_stream_is_the_journal() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let storm = storm(&world);
    storm.wait(300);
    let welcomed = storm.end();
    assert!(expect_equal(&world, &redis) >= welcomed);
    let things = world.stream("things");
    wait_for("the things", || {
        (redis.len("mainflux.things") >= things.len()).then_some(())
    });
    assert!(redis.stream("mainflux.things") == things);
    assert_eq!(redis.stream("mainflux.users").len(), 1);

    // And the command line reads it there too.
    let from_redis = world.tell(&["--json", "events", "--redis", &redis.url()]);
    assert_eq!(from_redis.lines().count(), world.events().len());
    let page = world.tell(&["events", "--redis", &redis.url(), "--since", "1h"]);
    assert!(
        page.contains("2) 1) \"thing_id\"") || page.contains(" 1) \"thing_id\""),
        "{page}"
    );
}

#[test]
fn a_redis_that_comes_late_gets_everything() {
    let mut redis = RedisServer::prepared();
    let world = world(&redis);
    let storm = storm(&world);
    storm.wait(200);
    storm.end();
    assert_eq!(
        world.http("/readyz").0,
        200,
        "clients are served without it"
    );
    redis.run();
    expect_equal(&world, &redis);
}

#[test]
fn a_redis_that_is_killed_stalled_and_flushed_of_scripts_gets_everything_once() {
    let mut redis = RedisServer::start();
    let world = world(&redis);
    let storm = storm(&world);
    for round in 1..=3 {
        let step = |n: usize| storm.wait((round * 3 + n) * 150);
        step(0);
        redis.kill();
        step(1);
        redis.run();
        redis.signal("STOP");
        step(2);
        redis.signal("CONT");
        redis.command::<String>(&["SCRIPT", "FLUSH"]);
        // An answer on its way is lost with its connection.
        redis.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    storm.end();
    expect_equal(&world, &redis);
}

#[test]
fn a_full_redis_gets_the_rest_when_it_has_room() {
    let redis = RedisServer::start();
    let world = world(&redis);
    redis.command::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    let storm = storm(&world);
    storm.wait(200);
    wait_for("a refusal", || {
        (world.counter("rollcall_relay_failures_total", "OOM") >= 1.0).then_some(())
    });
    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    storm.wait(400);
    // A replica takes no writes either.
    redis.command::<String>(&["REPLICAOF", "127.0.0.1", "1"]);
    storm.wait(600);
    redis.command::<String>(&["REPLICAOF", "NO", "ONE"]);
    storm.wait(800);
    storm.end();
    expect_equal(&world, &redis);
}

#[test]
fn a_redis_that_lost_its_memory_is_told_again() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let storm = storm(&world);
    storm.wait(200);
    redis.command::<String>(&["FLUSHALL"]);
    storm.wait(400);
    storm.end();
    expect_equal(&world, &redis);
}

#[test]
fn a_server_that_is_killed_relays_no_event_twice() {
    let redis = RedisServer::start();
    let mut world = world(&redis);
    for round in 1..=4 {
        let storm = storm(&world);
        storm.wait(150 + 40 * round);
        world.signal("KILL");
        storm.end();
        world.end("KILL");
        world.run();
    }
    expect_equal(&world, &redis);
}

#[test]
fn a_stop_waits_for_the_relay() {
    let redis = RedisServer::start();
    let mut world = world(&redis);
    let thing = world.thing("lamp");
    let clients: Vec<_> = (0..50)
        .map(|n| world.client(Hello::of(&thing, &n.to_string())))
        .collect();
    assert!(world.end("TERM").success());
    assert_eq!(redis.len(STREAM), 100);
    drop(clients);
}

#[test]
fn old_entries_are_dropped_by_number_and_by_age_and_the_roll_stays() {
    for (limit, value) in [("LENGTH", "8"), ("AGE", "1s")] {
        let redis = RedisServer::start();
        // Redis drops whole nodes.
        redis.command::<String>(&["CONFIG", "SET", "stream-node-max-entries", "4"]);
        let mut world = World::prepared(&[
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
            ("ROLLCALL_REDIS__URL", &redis.url()),
        ]);
        world.set(&format!("ROLLCALL_REDIS__MAX_STREAM_{limit}"), value);
        world.run();
        let thing = world.thing("lamp");
        let client = |n: usize| world.client(Hello::of(&thing, &n.to_string()));
        let clients: Vec<_> = (0..50).map(client).collect();
        wait_for("the roll", || {
            (redis.roll("front-1").len() == 50).then_some(())
        });
        wait_for("entries to be dropped", || {
            (redis.len(STREAM) < 16).then_some(())
        });
        let url = redis.url();
        let report = world.json(&["check-presence", "--redis", &url]);
        assert_eq!(
            (&report["partial"], &report["breaches"]),
            (&true.into(), &0.into()),
            "{report:#}"
        );
        drop(clients);
        wait_for("the roll", || {
            redis.roll("front-1").is_empty().then_some(())
        });
    }
}
