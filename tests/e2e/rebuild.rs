//! A roll that was damaged by hand is made anew by `rollcall presence rebuild`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::Hello;
use crate::redis_server::RedisServer;
use crate::roll::{expect_roll, settle, stream_roll, world};
use crate::storms::Storm;
use crate::world::{World, wait_for};

const STREAM: &str = "mainflux.mqtt";
const ROLL: &str = "{mainflux.mqtt}.roll";
const PART: &str = "{mainflux.mqtt}.roll:front-1";
const RECORD: &str = "{mainflux.mqtt}.instance:front-1";
const ROW: &str =
    r#"{"thing_id":"t","instance":"front-1","since":"1","client_id":"","protocol":"","peer":""}"#;

fn count(redis: &RedisServer) -> String {
    redis.command::<u64>(&["HLEN", PART]).to_string()
}

#[test]
fn whatever_was_done_to_the_roll_of_a_busy_instance_it_makes_it_anew() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let (things, _) = world.members(4);
    let clients = settle(&world, &things, 30);
    expect_roll(&world, &redis, 30);
    let damages: [(&str, &dyn Fn()); 6] = [
        ("nothing is there", &|| {
            redis.command::<u64>(&["DEL", ROLL, PART, RECORD]);
        }),
        ("somebody is there who is not", &|| {
            redis.command::<u64>(&["HSET", PART, "x", ROW]);
            redis.command::<u64>(&["HSET", RECORD, "sessions", &count(&redis)]);
        }),
        ("somebody is not there who is", &|| {
            let id = redis.roll("front-1").into_keys().next().expect("one");
            redis.command::<u64>(&["HDEL", PART, &id]);
            redis.command::<u64>(&["HSET", RECORD, "sessions", &count(&redis)]);
        }),
        ("the part is no hash", &|| {
            redis.command::<String>(&["SET", PART, "?"]);
        }),
        ("the list is no hash", &|| {
            redis.command::<String>(&["SET", ROLL, "?"]);
        }),
        ("the record is no hash", &|| {
            redis.command::<String>(&["SET", RECORD, "?"]);
        }),
    ];
    let url = redis.url();
    for (what, damage) in damages {
        // With nothing else going on, and in the middle of things.
        for busy in [false, true] {
            let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
            let storm = busy.then(|| Storm::begin(world.mqtt(), hellos));
            if let Some(storm) = &storm {
                storm.wait(20);
            }
            damage();
            let told = world.json(&["presence", "rebuild", "--redis", &url]);
            let alive = told["told"].as_array().expect("a list");
            assert!(alive.iter().any(|it| it == "front-1"), "{what}: {told}");
            if let Some(storm) = storm {
                storm.wait(60);
                storm.end();
            }
            expect_roll(&world, &redis, 30);
        }
    }
    for client in clients {
        client.disconnect();
    }
    expect_roll(&world, &redis, 0);
    assert!(
        world.events() == redis.stream(STREAM),
        "stream and journal differ"
    );
    world.tell(&["check-presence", "--redis", &url]);
}

#[test]
fn of_an_instance_that_is_gone_what_the_stream_has_lost_is_taken_from_the_roll() {
    let redis = RedisServer::start();
    redis.command::<String>(&["CONFIG", "SET", "stream-node-max-entries", "4"]);
    for keeps_roll in [true, false] {
        redis.command::<String>(&["FLUSHALL"]);
        let mut gone = world(&redis);
        let (things, _) = gone.members(4);
        let clients = settle(&gone, &things, 40);
        expect_roll(&gone, &redis, 40);
        gone.end("KILL");
        drop(clients);
        // The lease has run out.
        redis.command::<u64>(&["DEL", "{mainflux.mqtt}.lease:front-1"]);
        redis.command::<u64>(&["XTRIM", STREAM, "MAXLEN", "8"]);
        if !keeps_roll {
            redis.command::<u64>(&["DEL", ROLL, PART, RECORD]);
        }
        let url = redis.url();
        let told = World::program(&["--json", "presence", "rebuild", "--redis", &url]);
        let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
        let expected = if keeps_roll { 40 } else { 8 };
        assert_eq!(told["made"]["front-1"], expected);
        assert_eq!(redis.roll("front-1").len(), expected);
        let mut other = World::prepared(&[
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
            ("ROLLCALL_INSTANCE", "front-2"),
            ("ROLLCALL_LEASE__TTL", "1s"),
            ("ROLLCALL_REDIS__URL", &url),
        ]);
        other.run();
        wait_for("all to be closed", || {
            redis.roll("front-1").is_empty().then_some(())
        });
        let events = redis.stream(STREAM);
        let left: BTreeSet<&String> = events[8..].iter().map(|it| &it["session_id"]).collect();
        assert_eq!((left.len(), events.len()), (expected, 8 + expected));
        if !keeps_roll {
            assert!(stream_roll(&events).is_empty());
        }
        other.tell(&["check-presence", "--redis", &url]);
    }
}
