//! One client id on two instances: the session that is older ends, wherever it is, and has left before the other comes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::storms::Storm;
use crate::world::{Event, Thing, World, wait_for};

const STREAM: &str = "mainflux.mqtt";
const CLIENTS: &str = "{mainflux.mqtt}.clients";
const TAKEN_OVER: u8 = 0x8E;

fn instance(url: &str, name: &str, more: &[(&str, &str)]) -> World {
    let mut environment = vec![
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_INSTANCE", name),
        ("ROLLCALL_REDIS__URL", url),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_LEASE__TTL", "2s"),
    ];
    environment.extend(more);
    World::with(&environment)
}

/// Two instances that both know one thing.
fn pair(url: &str, more: &[(&str, &str)]) -> ([World; 2], Thing) {
    let worlds = ["one", "two"].map(|name| instance(url, name, more));
    let thing = worlds[0].thing("lamp");
    introduce(&thing, &worlds[1]);
    (worlds, thing)
}

/// Has another instance know a thing.
pub(crate) fn introduce(thing: &Thing, world: &World) {
    let known = ["--id", &thing.id, "--key", &thing.key];
    world.tell(&[&["things", "create", "lamp"], &known[..]].concat());
}

/// Waits for so many events; the stream is right at any time.
fn wait_stream(redis: &RedisServer, count: usize) -> Vec<Event> {
    wait_for(&format!("{count} events"), || {
        let stream = redis.stream(STREAM);
        (stream.len() >= count).then_some(stream)
    })
}

/// As `connect one`, with the reason of an end that is not the client's wish.
fn told(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| {
        let words = format!("{} {}", event["event_type"], event["instance"]);
        match event.get("reason").map(String::as_str) {
            None | Some("disconnected" | "connection_lost") => words,
            Some(reason) => format!("{words} {reason}"),
        }
    };
    events.iter().map(word).collect()
}

/// The stream keeps its promises.
fn check(redis: &RedisServer) -> Value {
    let output = World::program(&["--json", "check-presence", "--redis", &redis.url()]);
    let report = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{report}");
    serde_json::from_str(&report).expect("JSON")
}

/// Waits until as many are online by stream and roll, nobody twice, and each with the place of its client.
fn expect_online(redis: &RedisServer, count: u64) {
    wait_for(&format!("{count} online"), || {
        let report = check(redis);
        let is_once = report["online"] == count && report["clients_online_twice"] == 0;
        (is_once && redis.command::<u64>(&["HLEN", CLIENTS]) == count).then_some(())
    });
}

#[test]
fn a_client_that_moves_has_left_before_it_comes() {
    let redis = RedisServer::start();
    let (worlds, thing) = pair(&redis.url(), &[]);
    let channel = worlds[0].channel();
    worlds[0].grant(&thing, &channel, "m_read,m_write");
    let topic = format!("channels/{channel}/messages");
    let mut watcher = worlds[0].client(Hello::of(&thing, "watcher"));
    watcher.subscribe(&[(&topic, 0)]);
    let hello = || Hello::of(&thing, "c").five().lasting();
    let mut first = worlds[0].client(hello().will(&topic, b"gone", 0, false));
    first.subscribe(&[(&topic, 1)]);
    let (mut second, connack) = Client::connect(worlds[1].mqtt(), hello());
    assert!(!connack.present);
    first.expect_disconnect(TAKEN_OVER);
    assert_eq!(watcher.take().payload, b"gone");
    second.expect_silence();
    // What it had there is gone with it, and who comes back is told so.
    let (mut third, connack) = Client::connect(worlds[0].mqtt(), hello());
    assert!(!connack.present);
    second.expect_disconnect(TAKEN_OVER);
    let stream = wait_stream(&redis, 6);
    assert_eq!(
        told(&stream)[1..],
        [
            "connect one",
            "disconnect one taken_over",
            "connect two",
            "disconnect two taken_over",
            "connect one"
        ]
    );
    expect_online(&redis, 2);
    // Nobody says so twice, and both journals tell of it, too.
    for world in &worlds {
        let events = world.events();
        let ended = events.iter().find(|it| it["event_type"] == "disconnect");
        assert_eq!(ended.expect("a disconnect")["reason"], "taken_over");
        let taken = world.counter("rollcall_sessions_taken_over_total", "");
        assert_eq!(taken, 1.0);
    }
    third.expect_silence();
    drop((third, watcher));
    expect_online(&redis, 0);
    assert_eq!(wait_stream(&redis, 8).len(), 8);
}

#[test]
fn hundreds_that_go_to_and_fro_are_online_once() {
    let redis = RedisServer::start();
    let (worlds, thing) = pair(&redis.url(), &[]);
    let hello = |n: usize| Hello::of(&thing, &format!("client {n}")).five();
    let connect = |world: &World| (0..200).map(|n| world.client(hello(n))).collect();
    let mut clients: Vec<Client> = connect(&worlds[0]);
    for round in 1..4 {
        let next: Vec<Client> = connect(&worlds[round % 2]);
        for mut client in clients {
            client.expect_disconnect(TAKEN_OVER);
        }
        expect_online(&redis, 200);
        clients = next;
    }
    // And when both happens at one time.
    let contested = || {
        (0..8)
            .map(|n| Hello::of(&thing, &format!("client {n}")))
            .collect()
    };
    let storms = worlds
        .each_ref()
        .map(|it| Storm::begin(it.mqtt(), contested()));
    for storm in storms {
        storm.wait(300);
        storm.end();
    }
    for mut client in clients.drain(..8) {
        client.expect_disconnect(TAKEN_OVER);
    }
    expect_online(&redis, 192);
    drop(clients);
    expect_online(&redis, 0);
}

#[test]
fn who_is_told_of_late_takes_the_place_of_nobody() {
    let redis = RedisServer::start();
    // The way of one of them to Redis.
    let folder = tempfile::tempdir().expect("a folder");
    let way = folder.path().join("way.sock");
    let url = redis.url();
    let socket = Path::new(url.strip_prefix("redis+unix://").expect("a socket"));
    symlink(socket, &way).expect("made");
    let (worlds, thing) = pair(&format!("redis+unix://{}", way.display()), &[]);
    let hello = || Hello::of(&thing, "c").five();
    // Both know the time of Redis.
    drop(worlds.each_ref().map(|it| it.client(hello())));
    expect_online(&redis, 0);
    let cut = || {
        redis.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    };
    fs::remove_file(&way).expect("there");
    cut();
    let mut older = worlds[0].client(hello());
    let began = Instant::now();
    // As far as clocks may be wrong.
    wait_for("some time", || {
        (began.elapsed() > Duration::from_millis(1_500)).then_some(())
    });
    let mut newer = worlds[1].client(hello());
    // The one that is newer is the first to be told of, whatever comes first.
    worlds[0].signal("STOP");
    symlink(socket, &way).expect("made");
    let heard = |name: &str| !redis.roll(name).is_empty();
    wait_for("the newer one", || heard("two").then_some(()));
    worlds[0].signal("CONT");
    older.expect_disconnect(TAKEN_OVER);
    expect_online(&redis, 1);
    assert!(heard("two"));
    newer.expect_silence();
    drop(newer);
    expect_online(&redis, 0);
}

#[test]
fn whoever_is_killed_in_the_middle_nobody_is_online_twice() {
    let redis = RedisServer::start();
    let (mut worlds, thing) = pair(&redis.url(), &[]);
    let hello = |n: usize| Hello::of(&thing, &format!("client {n}")).five();
    let settle = |world: &World| (0..20).map(|n| world.client(hello(n))).collect::<Vec<_>>();
    let old = settle(&worlds[0]);
    expect_online(&redis, 20);
    // The one that has the older sessions.
    worlds[0].end("KILL");
    drop(old);
    let mut new = settle(&worlds[1]);
    expect_online(&redis, 20);
    worlds[0].run();
    expect_online(&redis, 20);
    // The one that has the newer ones, before the other hears of them.
    worlds[1].signal("STOP");
    let newest = settle(&worlds[0]);
    wait_for("the roll", || (redis.roll("one").len() == 20).then_some(()));
    worlds[0].end("KILL");
    drop(newest);
    worlds[1].signal("CONT");
    for client in &mut new {
        client.expect_disconnect(TAKEN_OVER);
    }
    expect_online(&redis, 0);
    worlds[0].run();
    expect_online(&redis, 0);
}

#[test]
fn an_instance_that_wakes_up_ends_those_who_have_gone_elsewhere() {
    let redis = RedisServer::start();
    let (worlds, thing) = pair(&redis.url(), &[]);
    let hello = |n: usize| Hello::of(&thing, &format!("client {n}")).five();
    let mut old: Vec<_> = (0..30).map(|n| worlds[0].client(hello(n))).collect();
    expect_online(&redis, 30);
    worlds[0].signal("STOP");
    // Some while it is still thought to be alive, some when the others are closed, some never.
    let mut new: Vec<_> = (0..10).map(|n| worlds[1].client(hello(n))).collect();
    wait_for("the survivor", || {
        redis.roll("one").is_empty().then_some(())
    });
    new.extend((10..20).map(|n| worlds[1].client(hello(n))));
    wait_for("the newer ones", || {
        (redis.roll("two").len() == 20).then_some(())
    });
    worlds[0].signal("CONT");
    for client in &mut old[..20] {
        client.expect_disconnect(TAKEN_OVER);
    }
    expect_online(&redis, 30);
    for client in old[20..].iter_mut().chain(&mut new) {
        client.expect_silence();
    }
    drop((old, new));
    expect_online(&redis, 0);
}

#[test]
fn a_redis_that_has_lost_everything_ends_nobody_and_knows_the_clients_again() {
    let redis = RedisServer::start();
    let (worlds, thing) = pair(&redis.url(), &[]);
    let hello = || Hello::of(&thing, "c").five();
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..4 {
        let next = worlds[round % 2].client(hello());
        if let Some(mut before) = clients.pop() {
            before.expect_disconnect(TAKEN_OVER);
        }
        clients.push(next);
    }
    expect_online(&redis, 1);
    redis.command::<String>(&["FLUSHALL"]);
    wait_for("the roll", || (redis.roll("two").len() == 1).then_some(()));
    expect_online(&redis, 1);
    clients[0].expect_silence();
    // The places alone.
    redis.command::<u64>(&["DEL", CLIENTS]);
    let nobody = "00000000-0000-7000-8000-000000000000 two";
    redis.command::<u64>(&["HSET", CLIENTS, "nobody", nobody]);
    worlds[0].tell(&["presence", "rebuild", "--redis", &redis.url()]);
    expect_online(&redis, 1);
    let place: Option<String> = redis.command(&["HGET", CLIENTS, "nobody"]);
    assert_eq!(place, None);
    let _other = worlds[0].client(hello());
    clients[0].expect_disconnect(TAKEN_OVER);
    expect_online(&redis, 1);
}

#[test]
fn instances_that_are_not_to_end_nobody_elsewhere() {
    let redis = RedisServer::start();
    let (worlds, thing) = pair(&redis.url(), &[("ROLLCALL_REDIS__TAKE_OVER", "false")]);
    let hello = || Hello::of(&thing, "c").five();
    let mut clients = worlds.each_ref().map(|it| it.client(hello()));
    assert_eq!(
        told(&wait_stream(&redis, 2)),
        ["connect one", "connect two"]
    );
    let report = check(&redis);
    assert_eq!(
        (&report["online"], &report["clients_online_twice"]),
        (&2.into(), &1.into())
    );
    for client in &mut clients {
        client.expect_silence();
    }
    assert_eq!(redis.command::<u64>(&["EXISTS", CLIENTS]), 0);
}
