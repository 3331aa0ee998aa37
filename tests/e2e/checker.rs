//! `rollcall check-presence`: from outside, on any stream of presence.

use std::process::Output;

use serde_json::Value;

use crate::client::Hello;
use crate::redis_server::RedisServer;
use crate::roll;
use crate::storms::Storm;
use crate::world::{World, wait_for};

const STREAM: &str = "mainflux.mqtt";

/// Checks, and says whether the exit was a good one.
fn check(world: &World, redis: &RedisServer, more: &[&str]) -> (bool, Value) {
    let url = redis.url();
    let arguments = [&["--json", "check-presence", "--redis", &url], more].concat();
    report(world.cli(&arguments))
}

fn report(output: Output) -> (bool, Value) {
    let text = String::from_utf8(output.stdout).expect("text");
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert!(matches!(output.status.code(), Some(0 | 1)));
    (output.status.success(), report)
}

fn broken(report: &Value) -> Vec<String> {
    let promises = report["promises"].as_array().expect("a list");
    let broken = promises.iter().filter(|it| it["broken"] != 0);
    broken
        .map(|it| it["promise"].as_str().expect("text").to_owned())
        .collect()
}

fn add(redis: &RedisServer, fields: &[&str]) {
    redis.command::<String>(&[&["XADD", STREAM, "*"], fields].concat());
}

#[test]
fn what_rollcall_writes_passes_also_while_it_goes_on() {
    let redis = RedisServer::start();
    let mut world = roll::world(&redis);
    let (things, _) = world.members(8);
    let client = world.client(Hello::of(&things[0], "settled"));
    let hellos = || things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos());
    for round in 1..=3 {
        storm.wait(100 * round);
        let (good, report) = check(&world, &redis, &[]);
        assert!(good, "{report:#}");
        assert_eq!(report["promises"].as_array().map(Vec::len), Some(6));
    }
    storm.end();
    world.crash_and_restart();
    drop(client);
    wait_for("the relay", || {
        let (good, report) = check(&world, &redis, &[]);
        assert!(good, "{report:#}");
        (report["online"] == 0 && report["entries"] == world.events().len()).then_some(())
    });
    // For people.
    let text = world.tell(&["check-presence", "--redis", &redis.url()]);
    assert!(text.contains("kept") && !text.contains("broken"), "{text}");

    // What was trimmed is known to be missing.
    redis.command::<u64>(&["XTRIM", STREAM, "MAXLEN", "51"]);
    let (good, report) = check(&world, &redis, &[]);
    assert!(good, "{report:#}");
    assert_eq!(
        (&report["partial"], &report["entries"]),
        (&true.into(), &51.into())
    );

    // And what is wrong with the roll is seen, too.
    let (thing, part) = (&things[0].id, "{mainflux.mqtt}.roll:front-1");
    let row = format!(
        r#"{{"thing_id":"{thing}","instance":"front-1","since":"{}","client_id":"","protocol":"","peer":""}}"#,
        u64::MAX
    );
    redis.command::<u64>(&["HSET", part, "nobody", &row]);
    redis.command::<u64>(&["HSET", "{mainflux.mqtt}.roll", "front-1", "1-1"]);
    let (good, report) = check(&world, &redis, &[]);
    assert_eq!((good, broken(&report)), (false, vec!["roll".to_owned()]));
}

#[test]
fn a_journal_is_held_against_the_stream() {
    let redis = RedisServer::start();
    let mut world = roll::world(&redis);
    let (things, _) = world.members(8);
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos);
    let folder = world.folder().join("data");
    let folder = folder.to_str().expect("text").to_owned();
    let with_journal = ["--journal", folder.as_str()];
    for round in 1..=3 {
        storm.wait(100 * round);
        let (good, report) = check(&world, &redis, &with_journal);
        assert!(good, "{report:#}");
        assert_eq!(report["promises"].as_array().map(Vec::len), Some(7));
    }
    storm.end();
    let client = world.client(Hello::of(&things[0], "left open"));
    let all = world.events().len();
    wait_for("the relay", || (redis.len(STREAM) == all).then_some(()));
    // Also of one that is gone.
    world.end("KILL");
    drop(client);
    let url = redis.url();
    let check = |more: &[&str]| {
        let arguments = [&["--json", "check-presence", "--redis", &url], more].concat();
        report(World::program(&arguments))
    };
    let (good, report) = check(&with_journal);
    assert!(good, "{report:#}");
    let journal = &report["journals"][0];
    assert_eq!(
        (&journal["entries"], &journal["online"]),
        (&all.into(), &1.into())
    );
    let alone = World::program(&["check-presence", "--journal", &folder]);
    let text = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(
        alone.status.success() && !text.contains("mainflux"),
        "{text}"
    );

    // It comes back, and keeps how far it is relayed when it stops.
    world.run();
    wait_for("the relay", || (redis.len(STREAM) == all + 1).then_some(()));
    world.end("TERM");
    // Somebody whom it has not let in, with an id of its own.
    let last = redis.stream(STREAM).pop().expect("an event");
    let mut session = last["session_id"].clone();
    let sign = if session.ends_with('0') { '1' } else { '0' };
    session.replace_range(35.., &sign.to_string());
    let latest: u64 = last["occurred_at"].parse().expect("a number");
    for (kind, at) in [("connect", latest + 1), ("disconnect", latest + 2)] {
        let at = at.to_string();
        let four = ["thing_id", "t", "event_type", kind, "instance", "front-1"];
        let rest = ["occurred_at", &at, "session_id", &session];
        add(&redis, &[&four[..], &rest].concat());
    }
    let (good, report) = check(&with_journal);
    assert_eq!((good, broken(&report)), (false, vec!["journal".to_owned()]));
    assert!(check(&[]).0);
    // And what is deleted.
    redis.command::<u64>(&["XTRIM", STREAM, "MAXLEN", "50"]);
    assert!(check(&[]).0);
    let entries: Vec<(String, Vec<String>)> = redis.command(&["XRANGE", STREAM, "-", "+"]);
    for (id, _) in &entries[20..22] {
        redis.command::<u64>(&["XDEL", STREAM, id]);
    }
    let (_, report) = check(&with_journal);
    let promises = report["promises"].as_array().expect("a list");
    let broken = promises.iter().find(|it| it["promise"] == "journal");
    assert_eq!(broken.expect("one")["broken"], 3);
    let nowhere = World::program(&["check-presence", "--journal", "/nowhere"]);
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(said.contains("/nowhere/presence.db"), "{said}");
}

#[test]
fn a_stream_of_others_is_checked_as_far_as_it_tells() {
    let redis = RedisServer::start();
    let world = World::start();
    let error = world.fail(&["check-presence", "--redis", &redis.url()]);
    assert!(
        error.contains("there is no stream mainflux.mqtt"),
        "{error}"
    );
    let event = |kind: &str, at: &str| {
        let four = [
            "thing_id",
            "lamp",
            "event_type",
            kind,
            "instance",
            "go",
            "occurred_at",
            at,
        ];
        add(&redis, &four);
    };
    event("connect", "100");
    event("connect", "200");
    event("disconnect", "300");
    let (good, report) = check(&world, &redis, &[]);
    assert!(good, "{report:#}");
    assert_eq!(
        (&report["sessions"], &report["online"]),
        (&2.into(), &1.into())
    );
    // Without a roll nobody asks for it.
    assert_eq!(report["promises"].as_array().map(Vec::len), Some(5));

    event("disconnect", "400");
    event("disconnect", "500");
    event("connect", "450");
    add(&redis, &["operation", "thing.create", "id", "x\u{1b}[2J"]);
    let (good, report) = check(&world, &redis, &[]);
    assert!(!good);
    assert_eq!(broken(&report), ["form", "pairs", "time"]);
    assert_eq!(report["first_breaches"].as_array().map(Vec::len), Some(3));
    let (good, report) = check(&world, &redis, &["--partial"]);
    assert_eq!(
        (good, broken(&report)),
        (false, vec!["form".into(), "time".into()])
    );
    let output = world.cli(&["check-presence", "--redis", &redis.url()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("lamp on go disconnects more often"), "{text}");
    let url = redis.url();
    world.fail(&["check-presence", "--redis", &url, "--prefix", "other"]);
}
