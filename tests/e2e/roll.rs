//! The roll in Redis: in step with the stream, and made anew when it is lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::storms::Storm;
use crate::world::{Event, Thing, World, wait_for};

const STREAM: &str = "mainflux.mqtt";
const INSTANCE: &str = "front-1";

pub(crate) fn world(redis: &RedisServer) -> World {
    World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "500ms"),
        ("ROLLCALL_REDIS__BATCH", "16"),
    ])
}

pub(crate) fn settle(world: &World, things: &[Thing], count: usize) -> Vec<Client> {
    let hello = |n: usize| Hello::of(&things[n % things.len()], &format!("settled {n}"));
    (0..count).map(|n| world.client(hello(n))).collect()
}

/// Who is online by the journal.
fn journal_roll(world: &World) -> BTreeMap<String, Value> {
    let roll = world.json(&["presence", "--limit", "10000"]);
    let sessions = roll["sessions"].as_array().expect("a list").clone();
    let id = |it: &Value| it["session_id"].as_str().expect("text").to_owned();
    sessions.into_iter().map(|it| (id(&it), it)).collect()
}

/// Who is online by the stream, as far as it goes back.
pub(crate) fn stream_roll(events: &[Event]) -> BTreeSet<String> {
    let mut online = BTreeSet::new();
    for event in events {
        let session = event["session_id"].clone();
        match event["event_type"].as_str() {
            "connect" => assert!(online.insert(session), "came twice: {event:?}"),
            _ => assert!(
                online.remove(&session),
                "left without having come: {event:?}"
            ),
        }
    }
    online
}

/// Waits until the roll in Redis has whom the journal has, and compares what they say.
pub(crate) fn expect_roll(world: &World, redis: &RedisServer, count: usize) {
    let (journal, roll) = wait_for("the roll", || {
        let (journal, roll) = (journal_roll(world), redis.roll(INSTANCE));
        let same = journal.len() == count && journal.keys().eq(roll.keys());
        (same && redis.roll_id(INSTANCE).is_some()).then_some((journal, roll))
    });
    for (id, session) in journal {
        let row = &roll[&id];
        assert_eq!(row["instance"], INSTANCE);
        assert_eq!(session["occurred_at"], row["since"].as_str());
        for name in ["thing_id", "client_id", "protocol", "peer"] {
            assert_eq!(session[name], row[name].as_str(), "{name}");
        }
    }
}

fn storm(world: &World, things: &[Thing], sessions: usize) {
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos);
    storm.wait(sessions);
    storm.end();
}

#[test]
fn the_roll_is_in_step_with_the_stream() {
    let redis = RedisServer::start();
    let mut world = world(&redis);
    let (things, _) = world.members(8);
    let mut clients = settle(&world, &things, 40);
    storm(&world, &things, 200);
    for client in clients.drain(..10) {
        client.disconnect();
    }
    expect_roll(&world, &redis, 30);
    // At rest it is valid at the last entry, and the stream adds up to it.
    let last: Vec<(String, Vec<String>)> =
        redis.command(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]);
    assert_eq!(redis.roll_id(INSTANCE), Some(last[0].0.clone()));
    let online: BTreeSet<String> = redis.roll(INSTANCE).into_keys().collect();
    assert_eq!(stream_roll(&redis.stream(STREAM)), online);

    // A crash takes everybody off, and batches that are sent again change nothing.
    world.crash_and_restart();
    expect_roll(&world, &redis, 0);
    let before = redis.len(STREAM);
    redis.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let client = world.client(Hello::of(&things[0], "later"));
    expect_roll(&world, &redis, 1);
    assert_eq!(redis.len(STREAM), before + 1);
    assert_eq!(world.events(), redis.stream(STREAM));
    drop(client);
}

#[test]
fn a_roll_that_was_deleted_is_made_anew_and_the_stream_goes_on() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let (things, _) = world.members(8);
    let clients = settle(&world, &things, 300);
    expect_roll(&world, &redis, 300);
    let part = &format!("{{{STREAM}}}.roll:{INSTANCE}");
    let record = &format!("{{{STREAM}}}.instance:{INSTANCE}");
    for (round, lost) in [&[part][..], &[record], &[part, record]].iter().enumerate() {
        // With nothing else going on, and in the middle of things.
        for (n, busy) in [false, true].into_iter().enumerate() {
            for key in *lost {
                redis.command::<u64>(&["DEL", key]);
            }
            if busy {
                storm(&world, &things, 50);
            }
            let rebuilt = (2 * round + n + 1) as f64;
            wait_for("a rebuilt roll", || {
                (world.counter("rollcall_roll_rebuilt_total", "") >= rebuilt).then_some(())
            });
            expect_roll(&world, &redis, 300);
        }
    }
    for client in clients {
        client.disconnect();
    }
    expect_roll(&world, &redis, 0);
    assert_eq!(world.events(), redis.stream(STREAM));
}

#[test]
fn a_redis_that_lost_everything_has_the_roll_again() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let (things, _) = world.members(8);
    let clients = settle(&world, &things, 50);
    storm(&world, &things, 100);
    expect_roll(&world, &redis, 50);
    redis.command::<String>(&["FLUSHALL"]);
    // Nothing else happens: it is noticed all the same.
    expect_roll(&world, &redis, 50);
    assert_eq!(world.events(), redis.stream(STREAM));
    drop(clients);
}

#[test]
fn a_stream_that_was_deleted_leaves_the_roll_as_it_is() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let (things, _) = world.members(8);
    let mut clients = settle(&world, &things, 20);
    expect_roll(&world, &redis, 20);
    redis.command::<u64>(&["DEL", STREAM]);
    for client in clients.drain(..5) {
        client.disconnect();
    }
    clients.push(world.client(Hello::of(&things[0], "later")));
    expect_roll(&world, &redis, 16);
    let events = world.events();
    let stream = redis.stream(STREAM);
    assert_eq!(events[events.len() - stream.len()..], stream);
}

#[test]
fn sessions_whose_arrival_is_nowhere_any_more_are_announced_again() {
    let redis = RedisServer::start();
    let mut world = World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_JOURNAL__MAX_BYTES", "64KiB"),
    ]);
    world.run();
    let (things, _) = world.members(8);
    let clients = settle(&world, &things, 20);
    // Until the journal has made room at the cost of their arrivals.
    let storming = Storm::begin(
        world.mqtt(),
        things.iter().map(|thing| Hello::of(thing, "c")).collect(),
    );
    wait_for("old events to go", || {
        let first = world.events().into_iter().next()?;
        (!first["client_id"].starts_with("settled")).then_some(())
    });
    storming.end();
    expect_roll(&world, &redis, 20);
    redis.command::<String>(&["FLUSHALL"]);
    expect_roll(&world, &redis, 20);
    let stream = redis.stream(STREAM);
    assert!(stream[..20].iter().all(|it| it["event_type"] == "connect"));
    assert_eq!(stream_roll(&stream).len(), 20);
    for client in clients {
        client.disconnect();
    }
    expect_roll(&world, &redis, 0);
    assert!(stream_roll(&redis.stream(STREAM)).is_empty());
}

#[test]
fn an_instance_takes_its_part_along_to_a_new_name() {
    let mut redis = RedisServer::start();
    let mut world = world(&redis);
    let thing = world.thing("lamp");
    let client = world.client(Hello::of(&thing, "c"));
    expect_roll(&world, &redis, 1);
    redis.kill();
    world.end("KILL");
    world.set("ROLLCALL_INSTANCE", "front-2");
    world.run();
    redis.run();
    wait_for("the old name to be off the roll", || {
        (redis.len(STREAM) == 2 && redis.roll(INSTANCE).is_empty()).then_some(())
    });
    assert_eq!(redis.roll_id(INSTANCE), None);
    assert_eq!(redis.stream(STREAM)[1]["instance"], INSTANCE);
    drop(client);
    world.client(Hello::of(&thing, "c")).disconnect();
    wait_for("the relay", || (redis.len(STREAM) == 4).then_some(()));
    assert_eq!(world.events(), redis.stream(STREAM));
    assert!(redis.roll_id("front-2").is_some());
}

#[test]
fn a_roll_that_nobody_can_vouch_for_is_made_anew_from_the_stream() {
    let redis = RedisServer::start();
    let mut gone = world(&redis);
    let (things, _) = gone.members(4);
    let clients = settle(&gone, &things, 40);
    expect_roll(&gone, &redis, 40);
    gone.end("KILL");
    drop(clients);
    // What it had is lost before anyone could close it.
    for key in ["roll", "roll:front-1", "instance:front-1", "lease:front-1"] {
        redis.command::<u64>(&["DEL", &format!("{{{STREAM}}}.{key}")]);
    }
    let mut other = World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_INSTANCE", "front-2"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
    ]);
    other.run();
    let thing = other.thing("lamp");
    let client = other.client(Hello::of(&thing, "c"));
    wait_for("the other", || {
        (redis.roll("front-2").len() == 1).then_some(())
    });
    // Someone who is not there is on the roll of one that is alive.
    let row = r#"{"thing_id":"t","instance":"front-2","since":"1","client_id":"","protocol":"","peer":""}"#;
    redis.command::<u64>(&["HSET", &format!("{{{STREAM}}}.roll:front-2"), "x", row]);
    redis.command::<u64>(&[
        "HSET",
        &format!("{{{STREAM}}}.instance:front-2"),
        "sessions",
        "2",
    ]);
    let url = redis.url();
    other.fail(&["check-presence", "--redis", &url]);

    let told = other.json(&["presence", "rebuild", "--redis", &url]);
    assert_eq!(told["made"]["front-1"], 40);
    assert_eq!(told["told"][0], "front-2");
    wait_for("all to be as it is", || {
        let ended = stream_roll(&redis.stream(STREAM)).len() == 1;
        (ended && redis.roll("front-1").is_empty() && redis.roll("front-2").len() == 1)
            .then_some(())
    });
    other.tell(&["check-presence", "--redis", &url]);
    drop(client);
}

/// What a watch prints, line by line, until enough is seen of it.
struct Watching {
    process: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn begin(world: &World, more: &[&str]) -> Self {
        use std::io::BufRead;
        let arguments = [&["--json", "presence", "--watch"], more].concat();
        let mut command = world.command(&arguments);
        let mut process = command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = process.stdout.take().expect("piped");
        let lines = std::io::BufReader::new(out).lines();
        Self { process, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watch_begins_with_the_roll_and_misses_and_doubles_nothing() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let (things, _) = world.members(8);
    let clients = settle(&world, &things, 20);
    expect_roll(&world, &redis, 20);
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos);
    storm.wait(50);
    let url = redis.url();
    for more in [
        &["--limit", "10000"][..],
        &["--limit", "10000", "--redis", &url],
    ] {
        // In the middle of things.
        let mut watching = Watching::begin(&world, more);
        let roll = watching.next();
        let sessions = roll["sessions"].as_array().expect("a list");
        let id = |it: &Value| it["session_id"].as_str().expect("text").to_owned();
        let mut online: BTreeSet<String> = sessions.iter().map(id).collect();
        assert_eq!(roll["total"], online.len());
        assert!(online.len() >= 20);
        for _ in 0..200 {
            let change = watching.next();
            let session = id(&change["fields"]);
            match change["fields"]["event_type"].as_str() {
                Some("connect") => assert!(online.insert(session), "{change}"),
                _ => assert!(online.remove(&session), "{change}"),
            }
            assert_eq!(change["online"], online.len());
        }
    }
    storm.end();
    drop(clients);
    wait_for("nobody", || redis.roll(INSTANCE).is_empty().then_some(()));
    let text = world.tell(&["presence", "--redis", &url]);
    assert!(
        text.contains("0 on front-1") && text.contains("0 online"),
        "{text}"
    );
}

#[test]
fn it_is_told_where_a_thing_is_and_when_it_was_seen_last() {
    let redis = RedisServer::start();
    let world = world(&redis);
    let url = redis.url();
    let things: Vec<Thing> = ["lamp", "door", "bell"].map(|it| world.thing(it)).into();
    let seen = |thing: &Thing| world.json(&["presence", "seen", &thing.id, "--redis", &url]);
    let _here = world.client(Hello::of(&things[0], "a"));
    world.client(Hello::of(&things[1], "b")).disconnect();
    // More than Redis is asked for at one time.
    storm(&world, &things[..1], 600);
    wait_for("the relay", || {
        (redis.len(STREAM) >= world.events().len()).then_some(())
    });
    let report = seen(&things[0]);
    assert_eq!(report["online"], 1);
    assert_eq!(report["sessions"][0]["client_id"], "a");
    let last_left = |thing: &Thing| {
        let events = redis.stream(STREAM);
        let of_it = |it: &&Event| it["thing_id"] == thing.id && it["event_type"] == "disconnect";
        let last = events.iter().rfind(of_it).expect("an event");
        last["occurred_at"].clone()
    };
    assert_eq!(report["last_left"]["occurred_at"], last_left(&things[0]));

    let (at, report) = (last_left(&things[1]), seen(&things[1]));
    assert_eq!(report["online"], 0);
    assert_eq!(report["last_left"]["occurred_at"], at);
    assert_eq!(report["last_left"]["instance"], INSTANCE);
    assert_eq!(seen(&things[2])["last_left"], Value::Null);
    let told = |thing: &Thing| world.tell(&["presence", "seen", &thing.id, "--redis", &url]);
    assert!(told(&things[0]).contains("online since"));
    assert!(told(&things[1]).starts_with("last left at "));
    assert_eq!(
        told(&things[2]),
        "not online, and no departure of it is remembered\n"
    );

    // However long ago, whatever has become of the stream, and of what is noted beside it.
    redis.command::<u64>(&["DEL", STREAM]);
    assert_eq!(seen(&things[1])["last_left"]["occurred_at"], at);
    world.client(Hello::of(&things[1], "b")).disconnect();
    wait_for("the relay", || (redis.len(STREAM) == 2).then_some(()));
    redis.command::<u64>(&["DEL", "{mainflux.mqtt}.left"]);
    assert_eq!(seen(&things[1])["last_left"], Value::Null);
    world.tell(&["presence", "rebuild", "--redis", &url]);
    assert_eq!(
        seen(&things[1])["last_left"]["occurred_at"],
        last_left(&things[1])
    );
}

#[test]
fn only_so_many_that_left_are_remembered_the_latest_of_them() {
    let redis = RedisServer::with(&["--appendonly", "no"]);
    let world = world(&redis);
    let thing = world.thing("lamp");
    let leave = || {
        let events = redis.len(STREAM);
        world.client(Hello::of(&thing, "c")).disconnect();
        wait_for("the relay", || {
            (redis.len(STREAM) == events + 2).then_some(())
        });
    };
    let len = |key: &str| redis.command::<u64>(&["HLEN", key]);
    let (now, before) = ("{mainflux.mqtt}.left", "{mainflux.mqtt}.left:before");
    leave();
    let fill = "for n = 1, 499999 do redis.call('HSET', KEYS[1], n, '1-1 1 x') end";
    redis.command::<Option<u64>>(&["EVAL", fill, "1", now]);
    assert_eq!((len(now), len(before)), (500_000, 0));
    leave();
    assert_eq!((len(now), len(before)), (1, 500_000));
    redis.command::<Option<u64>>(&["EVAL", fill, "1", now]);
    leave();
    assert_eq!((len(now), len(before)), (1, 500_000));
    // What is of another kind there stops nothing.
    redis.command::<u64>(&["DEL", now]);
    redis.command::<String>(&["SET", now, "?"]);
    leave();
    assert_eq!(len(now), 1);
}
