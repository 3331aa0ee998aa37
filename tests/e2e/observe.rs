//! Looking at a server that runs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::client::Hello;
use crate::world::World;

#[test]
fn pages_tell_health_counters_and_presence() {
    let world = World::start();
    assert_eq!(world.http("/livez"), (200, "ok\n".to_owned()));
    let (status, body) = world.http("/readyz");
    assert_eq!((status, body.contains("\"ready\":true")), (200, true));
    let thing = world.thing("lamp");
    let _client = world.client(Hello::of(&thing, "c").five());
    let (status, body) = world.http("/presence");
    let roll: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(roll["total"], 1);
    assert_eq!(roll["sessions"][0]["client_id"], "c");
    assert_eq!(roll["sessions"][0]["thing_id"], thing.id.as_str());
    assert_eq!(world.http("/presence?limit=0").0, 400);
    assert_eq!(
        world
            .http("/presence?offset=1")
            .1
            .matches("client_id")
            .count(),
        0
    );
    assert_eq!(world.http("/elsewhere").0, 404);
    assert_eq!(world.counter("rollcall_sessions_online", ""), 1.0);
    assert_eq!(world.counter("rollcall_mqtt_connections{", "mqtt"), 1.0);
    let (_, metrics) = world.http("/metrics");
    for name in [
        "rollcall_journal_events_total",
        "rollcall_journal_commit_seconds_bucket",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    for name in metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let name = name.split(' ').next().expect("a name");
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
    assert!(!metrics.contains(&thing.key));
}

#[test]
fn events_are_shown_as_redis_cli_shows_them_and_from_any_time_on() {
    let world = World::start();
    let thing = world.thing("lamp");
    world.client(Hello::of(&thing, "c")).disconnect();
    let events = world.wait_events(2);
    let page = world.tell(&["events"]);
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(lines.len(), 18);
    assert!(
        lines[0].starts_with("1) 1) \"1") && lines[0].ends_with("-1\""),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1], "   2) 1) \"thing_id\"");
    assert_eq!(lines[2], format!("      2) \"{}\"", thing.id));
    assert_eq!(
        lines[8],
        format!("      8) \"{}\"", events[0]["occurred_at"])
    );
    assert!(lines[9].starts_with("2) 1) \""));

    assert_eq!(
        world
            .tell(&["--json", "events", "--since", "1"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        world
            .tell(&["--json", "events", "--since", "10m"])
            .lines()
            .count(),
        2
    );
    assert_eq!(
        world.tell(&["events", "--since", "2100-01-01T00:00:00Z"]),
        ""
    );
    assert_eq!(
        world
            .tell(&["--json", "events", "--stream", "mainflux.mqtt"])
            .lines()
            .count(),
        2
    );
    assert!(
        world
            .fail(&["events", "--since", "yesterday"])
            .contains("10m")
    );
    assert!(
        world
            .fail(&["events", "--stream", "gossip"])
            .contains("stream")
    );
}

#[test]
fn who_follows_sees_events_as_they_happen() {
    let world = World::start();
    let thing = world.thing("lamp");
    let mut command = world.command(&["--json", "events", "--follow"]);
    let mut following = command.stdout(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        let client = world.client(Hello::of(&thing, "c"));
        assert!(
            lines
                .next()
                .expect("a line")
                .expect("text")
                .contains("\"connect\"")
        );
        client.disconnect();
        assert!(
            lines
                .next()
                .expect("a line")
                .expect("text")
                .contains("\"disconnect\"")
        );
    }
    following.kill().expect("killed");
    following.wait().expect("ends");
}
