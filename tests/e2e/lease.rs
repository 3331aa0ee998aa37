//! Instances that vanish, wake up or share a name: every session is still closed once, by someone.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::roll::stream_roll;
use crate::world::{Event, Thing, World, wait_for};

const STREAM: &str = "mainflux.mqtt";

fn prepared(redis: &RedisServer, name: &str) -> World {
    World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_INSTANCE", name),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "2s"),
        ("ROLLCALL_LEASE__TTL", "1s"),
    ])
}

fn instance(redis: &RedisServer, name: &str) -> World {
    let mut world = prepared(redis, name);
    world.run();
    world
}

fn settle(world: &World, thing: &Thing, count: usize) -> Vec<Client> {
    let hello = |n: usize| Hello::of(thing, &format!("settled {n}"));
    (0..count).map(|n| world.client(hello(n))).collect()
}

/// The sessions that are online by the stream, after it was found to be in order.
fn check(events: &[Event]) -> BTreeSet<String> {
    let mut times = BTreeMap::new();
    for event in events {
        let at: u64 = event["occurred_at"].parse().expect("nanoseconds");
        let before = times.insert(event["instance"].clone(), at);
        assert!(before < Some(at), "after {before:?}: {event:?}");
    }
    stream_roll(events)
}

/// Waits until the roll has as many sessions of an instance, and the stream says the same.
fn expect_online(redis: &RedisServer, instance: &str, count: usize) -> Vec<Event> {
    wait_for(&format!("{count} sessions of {instance}"), || {
        // In this order: what is on the roll is in the stream.
        let roll: BTreeSet<String> = redis.roll(instance).into_keys().collect();
        let stream = redis.stream(STREAM);
        let of_instance: Vec<Event> = stream
            .iter()
            .filter(|event| event["instance"] == instance)
            .cloned()
            .collect();
        (roll.len() == count && check(&of_instance) == roll).then_some(stream)
    })
}

fn closed(events: &[Event], reason: &str) -> usize {
    let is = |event: &&Event| event.get("reason").is_some_and(|it| it == reason);
    events.iter().filter(is).count()
}

#[test]
fn survivors_close_the_sessions_of_a_dead_instance_once() {
    let redis = RedisServer::start();
    let mut dead = instance(&redis, "dead");
    let survivors = ["one", "two"].map(|name| instance(&redis, name));
    let thing = dead.thing("lamp");
    let clients = settle(&dead, &thing, 600);
    let bystander = survivors[0].thing("bystander");
    let bystander = survivors[0].client(Hello::of(&bystander, "c"));
    expect_online(&redis, "dead", 600);
    dead.end("KILL");
    drop(clients);
    let stream = expect_online(&redis, "dead", 0);
    assert_eq!(closed(&stream, "instance_failed"), 600);
    expect_online(&redis, "one", 1);
    let counted = survivors
        .iter()
        .map(|it| it.counter("rollcall_lease_sessions_closed_total", ""));
    assert_eq!(counted.sum::<f64>(), 600.0);

    // Back on its journal, it closes them there too; nobody hears of that twice.
    dead.run();
    dead.client(Hello::of(&thing, "later")).disconnect();
    wait_for("the relay", || (redis.len(STREAM) >= 1203).then_some(()));
    assert_eq!(expect_online(&redis, "dead", 0).len(), 1203);
    assert_eq!(dead.events().len(), 1202);
    assert_eq!(
        dead.counter("rollcall_relay_events_skipped_total", ""),
        600.0
    );
    drop(bystander);
}

/// The time of Redis in ms, and what is left of the lease of an instance.
fn lease_left(redis: &RedisServer, instance: &str) -> (u64, u64) {
    let ask = "local now = redis.call('TIME') \
               return {now[1] * 1000 + math.floor(now[2] / 1000), redis.call('PTTL', KEYS[1])}";
    let key = format!("{{{STREAM}}}.lease:{instance}");
    let (now, left): (u64, i64) = redis.command(&["EVAL", ask, "1", &key]);
    (now, left.max(0) as u64)
}

#[test]
fn all_are_closed_within_two_seconds_of_the_end_of_the_lease() {
    let redis = RedisServer::start();
    let survivors = ["one", "two"].map(|name| instance(&redis, name));
    // By the clock of Redis alone. But survivors have to get to run, so a busy machine is asked again.
    let mut late = Vec::new();
    while late.len() < 3 {
        let mut dead = instance(&redis, "dead");
        let thing = dead.thing("lamp");
        let clients = settle(&dead, &thing, 600);
        expect_online(&redis, "dead", 600);
        dead.end("KILL");
        let (now, left) = lease_left(&redis, "dead");
        assert!(left <= 1_000, "{left} ms are more than lease.ttl");
        expect_online(&redis, "dead", 0);
        drop(clients);
        type Entries = Vec<(String, BTreeMap<String, String>)>;
        let entries: Entries = redis.command(&["XRANGE", STREAM, &now.to_string(), "+"]);
        let closed = entries
            .iter()
            .filter(|(_, event)| event["instance"] == "dead");
        let ids: Vec<u64> = closed
            .map(|(id, _)| id.split('-').next().expect("a time").parse().expect("ms"))
            .collect();
        assert_eq!(ids.len(), 600);
        assert!(ids[0] + 1 >= now + left, "closed before the lease ran out");
        let after = ids[599] - (now + left);
        if after <= 2_000 {
            return;
        }
        late.push(after);
    }
    drop(survivors);
    panic!("closed {late:?} ms after the lease ran out");
}

#[test]
fn an_instance_that_wakes_up_late_announces_who_is_still_there() {
    let redis = RedisServer::start();
    let asleep = instance(&redis, "asleep");
    let survivor = instance(&redis, "survivor");
    let thing = asleep.thing("lamp");
    let mut clients = settle(&asleep, &thing, 300);
    expect_online(&redis, "asleep", 300);
    for round in 1..=2 {
        asleep.signal("STOP");
        // Some leave before the others give it up, some after.
        clients.truncate(300 - 10 * round + 5);
        expect_online(&redis, "asleep", 0);
        clients.truncate(300 - 10 * round);
        asleep.signal("CONT");
        expect_online(&redis, "asleep", clients.len());
    }
    assert!(survivor.counter("rollcall_lease_sessions_closed_total", "") >= 590.0);
    // They were there all the time.
    for client in &mut clients {
        client.expect_silence();
    }
    let roll = asleep.json(&["presence", "--limit", "1000"]);
    let sessions = roll["sessions"].as_array().expect("a list");
    let listed: BTreeSet<&str> = sessions
        .iter()
        .map(|it| it["session_id"].as_str().expect("text"))
        .collect();
    let on_roll = redis.roll("asleep");
    assert_eq!(
        listed,
        on_roll.keys().map(String::as_str).collect::<BTreeSet<_>>()
    );
    // By the id that is shown, a session is found.
    let told = asleep.json(&["kick", sessions[0]["session_id"].as_str().expect("text")]);
    assert_eq!(told["ended"], 1);
    for client in clients {
        drop(client);
    }
    expect_online(&redis, "asleep", 0);
    // And the journal tells the same story.
    assert!(check(&asleep.events()).is_empty());
}

#[test]
fn an_instance_that_slept_through_the_loss_of_redis_is_complete_again() {
    let mut redis = RedisServer::start();
    let asleep = instance(&redis, "asleep");
    let survivor = instance(&redis, "survivor");
    let thing = asleep.thing("lamp");
    let clients = settle(&asleep, &thing, 50);
    let other = survivor.thing("other");
    let others = settle(&survivor, &other, 50);
    expect_online(&redis, "asleep", 50);
    // Closed, then Redis comes back.
    asleep.signal("STOP");
    expect_online(&redis, "asleep", 0);
    redis.kill();
    redis.run();
    asleep.signal("CONT");
    expect_online(&redis, "asleep", 50);
    // Everything is lost while one sleeps.
    asleep.signal("STOP");
    redis.command::<String>(&["FLUSHALL"]);
    expect_online(&redis, "survivor", 50);
    asleep.signal("CONT");
    expect_online(&redis, "asleep", 50);
    expect_online(&redis, "survivor", 50);
    drop((clients, others));
    expect_online(&redis, "asleep", 0);
    expect_online(&redis, "survivor", 0);
}

#[test]
fn a_redis_that_was_away_ends_no_session() {
    let mut redis = RedisServer::start();
    let worlds = ["one", "two"].map(|name| instance(&redis, name));
    let thing = worlds[0].thing("lamp");
    let clients = settle(&worlds[0], &thing, 20);
    expect_online(&redis, "one", 20);
    redis.kill();
    // Longer than leases last: by the clock of Redis they have run out when it is back.
    let begin = std::time::Instant::now();
    wait_for("leases to run out", || {
        (begin.elapsed().as_millis() > 1_500).then_some(())
    });
    redis.run();
    drop(clients);
    assert_eq!(expect_online(&redis, "one", 0).len(), 40);
    for world in worlds {
        assert_eq!(world.counter("rollcall_lease_lost_total", ""), 0.0);
    }
}

#[test]
fn a_second_instance_of_a_name_does_not_start() {
    let redis = RedisServer::start();
    let first = instance(&redis, "twin");
    let thing = first.thing("lamp");
    let client = first.client(Hello::of(&thing, "c"));
    expect_online(&redis, "twin", 1);
    let second = prepared(&redis, "twin");
    let output = second.up().output().expect("the program runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    let holder = format!("process {} on host", first.pid());
    assert!(
        error.contains("another instance named twin") && error.contains(&holder),
        "{error}"
    );
    // The first has not even noticed.
    client.disconnect();
    assert_eq!(expect_online(&redis, "twin", 0).len(), 2);
    assert_eq!(first.counter("rollcall_lease_lost_total", ""), 0.0);
}

#[test]
fn a_copy_of_a_journal_is_not_relayed_beside_it_under_whatever_name() {
    let redis = RedisServer::start();
    let original = instance(&redis, "original");
    let copy = prepared(&redis, "copy");
    let status = Command::new("cp")
        .arg("-r")
        .args([original.folder().join("data"), copy.folder()])
        .status()
        .expect("cp");
    assert!(status.success());
    // On a host of its own: with its own network, it does not see who is on this machine.
    let up = copy.up();
    let mut elsewhere = Command::new("unshare");
    elsewhere
        .arg("-rn")
        .arg(up.get_program())
        .args(up.get_args());
    let environment = up.get_envs();
    elsewhere.envs(environment.filter_map(|(name, value)| Some((name, value?))));
    let output = elsewhere.output().expect("the program runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("on this redis, or one with a copy of this journal"),
        "{error}"
    );
}

#[test]
fn of_two_instances_of_a_name_one_stops_when_redis_comes() {
    let mut redis = RedisServer::prepared();
    let mut twins = [instance(&redis, "twin"), instance(&redis, "twin")];
    let thing = twins.each_ref().map(|twin| twin.thing("lamp"));
    let clients: Vec<Client> = twins
        .iter()
        .zip(&thing)
        .flat_map(|(twin, thing)| settle(twin, thing, 10))
        .collect();
    redis.run();
    let stopped = wait_for("one to stop", || {
        twins.iter_mut().position(|twin| twin.has_ended().is_some())
    });
    assert_eq!(
        twins[stopped].has_ended().map(|it| it.success()),
        Some(false)
    );
    expect_online(&redis, "twin", 10);
    drop(clients);
    assert_eq!(expect_online(&redis, "twin", 0).len(), 20);
}

#[test]
fn an_instance_that_lost_its_folder_is_waited_out_by_its_successor() {
    let redis = RedisServer::start();
    let mut lost = instance(&redis, "name");
    let thing = lost.thing("lamp");
    let clients = settle(&lost, &thing, 300);
    expect_online(&redis, "name", 300);
    lost.end("KILL");
    drop(clients);
    let mut successor = instance(&redis, "name");
    let stream = expect_online(&redis, "name", 0);
    assert_eq!(closed(&stream, "instance_failed"), 300);
    let thing = successor.thing("lamp");
    let client = successor.client(Hello::of(&thing, "c"));
    expect_online(&redis, "name", 1);
    // Who leaves in order gives its name back at once.
    assert!(successor.end("TERM").success());
    assert_eq!(
        redis.command::<u64>(&["EXISTS", "{mainflux.mqtt}.lease:name"]),
        0
    );
    assert_eq!(redis.roll_id("name"), None);
    assert_eq!(expect_online(&redis, "name", 0).len(), 602);
    drop(client);
}
