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

/// How far producers have come is lost, and nothing else.
fn forget_producers(redis: &RedisServer) {
    for stream in ["mqtt", "things", "users"] {
        redis.command::<u64>(&["DEL", &format!("{{mainflux.{stream}}}.producers")]);
    }
}

#[test]
fn a_redis_that_forgot_how_far_a_stream_is_gets_nothing_twice() {
    let redis = RedisServer::start();
    let mut world = world(&redis);
    let storming = storm(&world);
    for round in 1..=3 {
        storming.wait(100 * round);
        forget_producers(&redis);
    }
    storming.wait(400);
    storming.end();
    expect_equal(&world, &redis);
    // At rest, over a restart, with others who write there too.
    world.end("TERM");
    forget_producers(&redis);
    for n in 0..50 {
        let mut foreign = redis::cmd("XADD");
        foreign.arg("mainflux.things").arg("*").arg("n").arg(n);
        redis.run_command(&foreign);
    }
    world.run();
    world.thing("bell");
    let expected = world.stream("things");
    wait_for("the things", || {
        (redis.len("mainflux.things") >= expected.len() + 50).then_some(())
    });
    let mut things = redis.stream("mainflux.things");
    things.retain(|event| !event.contains_key("n"));
    assert!(things == expected, "stream and log differ");
    expect_equal(&world, &redis);
    assert!(world.log_text().contains("has forgotten how far"));
}

#[test]
fn a_redis_that_knows_producers_itself_gets_nothing_twice_whatever_is_forgotten() {
    let Some(mut redis) = RedisServer::guarding() else {
        return;
    };
    let world = world(&redis);
    let (things, _) = world.members(8);
    let client = world.client(Hello::of(&things[0], "settled"));
    let hellos = || things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos());
    storm.wait(200);
    storm.end();
    wait_for("the relay", || {
        (redis.len(STREAM) == world.events().len()).then_some(())
    });
    let known = |stream: &str, what: &str| {
        let info: Vec<redis::Value> = redis.command(&["XINFO", "STREAM", stream]);
        let at = info
            .iter()
            .position(|it| *it == redis::Value::BulkString(what.into()));
        match info[at.expect("told") + 1] {
            redis::Value::Int(number) => number,
            _ => 0,
        }
    };
    for stream in [STREAM, "mainflux.things", "mainflux.users"] {
        wait_for("the window", || {
            (known(stream, "idmp-duration") == 86_400).then_some(())
        });
        assert_eq!(known(stream, "idmp-maxsize"), 10_000);
        // Its end says nothing of us any longer.
        let fill =
            "for n = 1, 1100 do redis.call('XADD', KEYS[1], '*', 'n', n, 'instance', 'x') end";
        redis.command::<redis::Value>(&["EVAL", fill, "1", stream]);
    }
    forget_producers(&redis);
    wait_for("doubles to be found", || {
        (known(STREAM, "iids-duplicates") > 0).then_some(())
    });
    let storm = Storm::begin(world.mqtt(), hellos());
    storm.wait(200);
    storm.end();
    // Also what was remembered before a restart.
    redis.kill();
    redis.run();
    forget_producers(&redis);
    world.thing("bell");
    client.disconnect();
    for (stream, name) in [
        ("mqtt", STREAM),
        ("things", "mainflux.things"),
        ("users", "mainflux.users"),
    ] {
        let expected = wait_for("all to leave", || {
            let left = world.json(&["presence", "--limit", "1"])["total"] == 0;
            left.then(|| world.stream(stream))
        });
        wait_for("the relay", || {
            (redis.len(name) >= expected.len() + 1100).then_some(())
        });
        let mut events = redis.stream(name);
        events.retain(|event| !event.contains_key("n"));
        assert!(events == expected, "{name} and its log differ");
    }
    wait_for("the roll", || {
        redis.roll("front-1").is_empty().then_some(())
    });
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
