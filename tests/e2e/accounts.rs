//! What became of every event, in metrics that add up while everything goes wrong.

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::storms::Storm;
use crate::world::{World, wait_for};

const STREAM: &str = "mainflux.mqtt";

fn prepared(redis: &RedisServer) -> World {
    World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "500ms"),
        ("ROLLCALL_REDIS__BATCH", "16"),
        ("ROLLCALL_LEASE__TTL", "1s"),
    ])
}

/// The metrics of presence at one moment.
struct Books(String);

impl Books {
    fn open(world: &World) -> Self {
        Self(world.http("/metrics").1)
    }

    fn find(&self, name: &str) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' ') || rest.starts_with("{stream=\"mqtt\"}"))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    fn journal(&self, what: &str) -> f64 {
        self.find(&format!("rollcall_journal_{what}"))
    }

    fn relay(&self, what: &str) -> f64 {
        self.find(&format!("rollcall_relay_{what}"))
    }

    fn add_up(&self) -> bool {
        let of_journal = [
            "events_total",
            "arrivals_refused_total",
            "events_failed_total",
            "events_moot_total",
            "events_waiting",
        ];
        let of_relay = [
            "events_before",
            "events_total",
            "events_found_total",
            "events_skipped_total",
            "events_missing_total",
            "lag_events",
        ];
        let offered: f64 = of_journal.map(|what| self.journal(what)).iter().sum();
        let accepted: f64 = of_relay.map(|what| self.relay(what)).iter().sum();
        let are_open = self.relay("events_accepted") > 0.0;
        are_open
            && offered == self.journal("events_offered_total")
            && accepted == self.relay("events_accepted") + self.relay("events_again_total")
    }

    fn are_at_rest(&self) -> bool {
        self.journal("events_waiting") == 0.0 && self.relay("lag_events") == 0.0
    }
}

/// Waits for books that add up. They are written while they are read, so it may take a second look; once a number
/// is wrong it stays so.
fn expect_sum(world: &World) -> Books {
    let sum = || Some(Books::open(world)).filter(Books::add_up);
    wait_for("the books to add up", sum)
}

fn expect_rest(world: &World) -> Books {
    wait_for("the relay", || {
        let books = expect_sum(world);
        books.are_at_rest().then_some(books)
    })
}

#[test]
fn every_event_is_accounted_for_whatever_becomes_of_redis() {
    let mut redis = RedisServer::start();
    let mut world = prepared(&redis);
    world.run();
    let (things, _) = world.members(8);
    let hellos = || things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos());
    storm.wait(100);
    expect_sum(&world);
    redis.kill();
    storm.wait(200);
    assert!(expect_sum(&world).relay("lag_events") > 0.0);
    redis.run();
    redis.signal("STOP");
    storm.wait(300);
    expect_sum(&world);
    redis.signal("CONT");
    for round in 0..5 {
        // Answers on their way are lost with their connections.
        redis.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        storm.wait(350 + 50 * round);
        expect_sum(&world);
    }
    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    storm.wait(700);
    expect_sum(&world);
    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    storm.wait(800);
    redis.command::<u64>(&["DEL", "{mainflux.mqtt}.roll:front-1"]);
    storm.wait(900);
    storm.end();
    let books = expect_rest(&world);
    let all = world.events().len() as f64;
    assert_eq!(books.journal("events_total"), all);
    assert_eq!(books.relay("events_accepted"), all);
    // Everything was lost, and is sent again.
    let had = redis.len(STREAM);
    redis.command::<String>(&["FLUSHALL"]);
    wait_for("the relay", || (redis.len(STREAM) >= had).then_some(()));
    assert_eq!(expect_rest(&world).relay("events_again_total"), all);

    // What an earlier run had relayed without knowing is found by the next one.
    let storm = Storm::begin(world.mqtt(), hellos());
    storm.wait(200);
    world.signal("KILL");
    storm.end();
    world.end("KILL");
    world.run();
    let books = expect_rest(&world);
    assert_eq!(books.relay("events_again_total"), 0.0);
    assert_eq!(books.relay("events_accepted"), world.events().len() as f64);
}

#[test]
fn what_is_refused_dropped_or_said_by_others_is_accounted_for() {
    let mut redis = RedisServer::prepared();
    let mut world = prepared(&redis);
    world.set("ROLLCALL_JOURNAL__MAX_BYTES", "8KiB");
    world.run();
    let thing = world.thing("lamp");
    let mut refused = 0;
    let mut clients = Vec::new();
    while refused < 5 {
        let (client, connack) =
            Client::connect(world.mqtt(), Hello::of(&thing, &clients.len().to_string()));
        match connack.code {
            0 => clients.push(client),
            _ => refused += 1,
        }
        assert!(clients.len() < 1_000, "the journal has no bound");
    }
    assert_eq!(expect_sum(&world).journal("arrivals_refused_total"), 5.0);
    drop(clients);
    redis.run();
    let books = expect_rest(&world);
    assert_eq!(books.relay("events_missing_total"), 0.0);
    assert_eq!(books.relay("events_total"), redis.len(STREAM) as f64);

    // The oldest make room for the latest.
    redis.kill();
    world.end("KILL");
    world.set("ROLLCALL_JOURNAL__WHEN_FULL", "drop_oldest");
    world.run();
    for _ in 0..100 {
        world.client(Hello::of(&thing, "c")).disconnect();
    }
    redis.run();
    assert!(expect_rest(&world).relay("events_missing_total") > 0.0);

    // Survivors have closed whom it closes too.
    let survivor = {
        let mut survivor = prepared(&redis);
        survivor.set("ROLLCALL_INSTANCE", "survivor");
        survivor.run();
        survivor
    };
    let clients: Vec<_> = (0..10)
        .map(|n| world.client(Hello::of(&thing, &n.to_string())))
        .collect();
    wait_for("the roll", || {
        (redis.roll("front-1").len() == 10).then_some(())
    });
    world.end("KILL");
    drop(clients);
    wait_for("the roll", || {
        redis.roll("front-1").is_empty().then_some(())
    });
    world.run();
    assert_eq!(expect_rest(&world).relay("events_skipped_total"), 10.0);
    drop(survivor);
}
