//! Everything that can be asked of users, things and bootstrap is asked by many at once, over REST and gRPC, while the
//! server is killed over and over: what was acknowledged is there, nothing is there twice, and the streams in Redis add up to
//! exactly what the database has. A game is not over before each request and call has succeeded, and each event was told.
//!
//! `GAME_SEED=n` plays a game again, as far as time lets itself be played again; `GAME_ROUNDS=n` plays a longer one.

mod player;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bootstrap::seal;
use crate::contract::operations::Operations;
use crate::crashes::Dice;
use crate::golden;
use crate::postgres_server::PostgresServer;
use crate::redis_server::RedisServer;
use crate::world::{World, wait_for};
use player::Player;

const PLAYERS: u64 = 4;
/// That of all devices.
const EXTERNAL_KEY: &str = "an external key";
/// All that `rollcall replay` knows.
const KINDS: [&str; 8] = [
    "users",
    "groups",
    "user-policies",
    "things",
    "channels",
    "thing-policies",
    "configs",
    "channel-copies",
];

/// What everybody in a game knows.
struct Game {
    /// Where the services are now, if they are: users, things, bootstrap over REST, and gRPC.
    places: Mutex<Option<BTreeMap<&'static str, String>>>,
    over: AtomicBool,
    /// Requests that were acknowledged.
    done: AtomicUsize,
    /// All that can be asked.
    operations: Operations,
    /// What nobody has asked for yet.
    missing: Mutex<BTreeSet<String>>,
    /// That of the world.
    folder: PathBuf,
    /// What devices without TLS show.
    sealed_key: String,
}

impl Game {
    fn new(world: &World) -> Self {
        let operations = Operations::of(world);
        Self {
            places: Mutex::new(None),
            over: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            missing: Mutex::new(operations.iter().map(str::to_owned).collect()),
            operations,
            folder: world.folder(),
            sealed_key: seal(world, EXTERNAL_KEY),
        }
    }

    /// Counts a request that was acknowledged.
    fn did(&self, what: &str) {
        let operation = self.operations.find(what);
        let operation = operation.unwrap_or_else(|| panic!("{what} is in no description"));
        self.missing.lock().expect("lock").remove(operation);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything was asked for, or everybody has had two turns at everything. Returns what is missing.
    fn ask_for_the_rest(&self) -> BTreeSet<String> {
        let last = self.done.load(Ordering::Relaxed)
            + 4 * self.operations.iter().count() * PLAYERS as usize;
        loop {
            let missing = self.missing.lock().expect("lock").clone();
            let done = self.done.load(Ordering::Relaxed);
            if missing.is_empty() || done >= last {
                return missing;
            }
            wait_for("more requests", || {
                (self.done.load(Ordering::Relaxed) > done).then_some(())
            });
        }
    }

    fn open(&self, world: &World) {
        let services = ["users", "things", "bootstrap"];
        let place = |it| (it, world.listener(&format!("http.{it}")).to_owned());
        let mut places = BTreeMap::from(services.map(place));
        places.insert("grpc", world.grpc().to_owned());
        *self.places.lock().expect("lock") = Some(places);
    }

    fn close(&self) {
        *self.places.lock().expect("lock") = None;
    }
}

/// Plays a game on a server that is killed over and over; returns how many requests were acknowledged.
fn play(
    world: &mut World,
    redis: &mut RedisServer,
    storage: &str,
    rounds: usize,
    disturb_redis: bool,
) {
    let seed = std::env::var("GAME_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        now.expect("a clock").as_nanos() as u64
    });
    println!("GAME_SEED={seed}");
    let rounds = std::env::var("GAME_ROUNDS")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(rounds);
    let game = Game::new(world);
    game.open(world);
    let players: Vec<Player<'_>> = (0..PLAYERS)
        .map(|number| Player::join(world, &game, number, seed))
        .collect();
    let mut dice = Dice(seed);
    let players = thread::scope(|scope| {
        let playing: Vec<_> = players
            .into_iter()
            .map(|mut player| {
                scope.spawn(|| {
                    player.play();
                    player
                })
            })
            .collect();
        for round in 0..rounds {
            let before = game.done.load(Ordering::Relaxed);
            let goal = before + 50 + dice.throw(150) as usize;
            wait_for("requests", || {
                (game.done.load(Ordering::Relaxed) >= goal).then_some(())
            });
            match round % 4 {
                1 if disturb_redis => {
                    // Nobody notices that it does not answer.
                    redis.signal("STOP");
                    wait_for("requests without Redis", || {
                        (game.done.load(Ordering::Relaxed) >= goal + 100).then_some(())
                    });
                    redis.signal("CONT");
                    continue;
                }
                2 if disturb_redis => redis.kill(),
                3 if disturb_redis => {
                    redis.run();
                    redis.command::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
                    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
                    wait_for("requests with a full Redis", || {
                        (game.done.load(Ordering::Relaxed) >= goal + 100).then_some(())
                    });
                    redis.command::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
                }
                _ => {}
            }
            thread::sleep(Duration::from_millis(dice.throw(20)));
            world.signal("KILL");
            game.close();
            world.end("KILL");
            world.run();
            game.open(world);
        }
        if disturb_redis && !redis.is_running() {
            redis.run();
        }
        let missing = game.ask_for_the_rest();
        game.over.store(true, Ordering::Relaxed);
        assert!(missing.is_empty(), "nobody has asked for {missing:#?}");
        let ended = playing.into_iter().map(|it| it.join().expect("played"));
        ended.collect::<Vec<_>>()
    });
    println!(
        "{} requests were acknowledged",
        game.done.load(Ordering::Relaxed)
    );
    verify(world, redis, storage, &players);
}

fn verify(world: &World, redis: &RedisServer, storage: &str, players: &[Player<'_>]) {
    for secret in players.iter().flat_map(|it| &it.secrets) {
        world.secrets.add(secret.as_str());
    }
    wait_for("what happened to things to be heard", || {
        has_heard_all(world, redis).then_some(())
    });
    let streams = ["users", "things", "bootstrap"];
    for stream in streams {
        wait_for("what was kept to be in Redis", || {
            (redis.stream(&format!("mainflux.{stream}")) == world.stream(stream)).then_some(())
        });
    }
    let url = redis.url();
    let arguments = [&["--json", "replay", "--redis", &url], &KINDS[..]].concat();
    let mut replay = world.command(&arguments);
    let output = replay.env("ROLLCALL_STORAGE__URL", storage).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(replay["late"], 0, "{replay}");
    assert_eq!(replay["unknown_operations"], json!({}), "{replay}");
    let mut rows = BTreeMap::new();
    for kind in KINDS {
        for row in replay["state"][kind].as_array().expect("rows") {
            rows.insert((kind, row["id"].as_str().expect("an id")), row);
        }
    }
    for player in players {
        for ((kind, id, column), possible) in &player.facts {
            let row = rows.get(&(*kind, id.as_str()));
            let value = row.map(|row| row[column].as_str().unwrap_or_default().to_owned());
            assert!(
                possible.contains(&value),
                "{kind} {id}: {column} is {value:?}, not one of {possible:?}\n{}",
                history(redis, id)
            );
        }
    }
    // Everything that can be announced was, and what was told is in the streams once, whatever was repeated on the way.
    let mut operations = BTreeSet::new();
    let mut told: BTreeMap<(&str, String, String, String), usize> = BTreeMap::new();
    for stream in streams {
        for event in redis.stream(&format!("mainflux.{stream}")) {
            let operation = &event["operation"];
            operations.insert((stream.to_owned(), operation.clone()));
            for field in ["id", "name", "tags", "thing_id"] {
                if let Some(value) = event.get(field) {
                    let key = (stream, operation.clone(), field.to_owned(), value.clone());
                    *told.entry(key).or_insert(0) += 1;
                }
            }
        }
    }
    let goldens = golden::all().into_iter();
    let due = goldens.filter(|it| it.stream != "mqtt");
    let due: BTreeSet<_> = due.map(|it| (it.stream, it.operation)).collect();
    assert_eq!(operations, due);
    for ((stream, operation, field, value), is_certain) in
        players.iter().flat_map(|it| &it.announced)
    {
        let key = (
            *stream,
            (*operation).to_owned(),
            (*field).to_owned(),
            value.clone(),
        );
        let times = told.get(&key).copied().unwrap_or(0);
        let due = if *is_certain { 1..=1 } else { 0..=1 };
        assert!(
            due.contains(&times),
            "{operation} of {value} was told {times} times"
        );
    }
}

/// What was told of a row, in a line each.
fn history(redis: &RedisServer, id: &str) -> String {
    let mut lines = Vec::new();
    for stream in ["users", "things", "bootstrap"] {
        for event in redis.stream(&format!("mainflux.{stream}")) {
            if id.split(' ').all(|id| event.values().any(|it| it == id)) {
                lines.push(format!("{} {stream} {event:?}", event["occurred_at"]));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}

/// Bootstrap has read mainflux.things to its end, where everything is that the server has kept.
fn has_heard_all(world: &World, redis: &RedisServer) -> bool {
    if redis.stream("mainflux.things") != world.stream("things") {
        return false;
    }
    let groups: Vec<BTreeMap<String, redis::Value>> =
        redis.command(&["XINFO", "GROUPS", "mainflux.things"]);
    let last: Vec<(String, Vec<String>)> =
        redis.command(&["XREVRANGE", "mainflux.things", "+", "-", "COUNT", "1"]);
    let last = redis::Value::BulkString(last[0].0.clone().into());
    groups
        .iter()
        .any(|group| group["last-delivered-id"] == last && group["pending"] == redis::Value::Int(0))
}

#[test]
fn services_that_are_killed_tell_exactly_what_they_keep() {
    let mut redis = RedisServer::start();
    let mut world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    play(&mut world, &mut redis, "", 6, false);
}

#[test]
fn nobody_notices_a_redis_that_is_away_stalled_or_full() {
    let mut redis = RedisServer::start();
    let mut world = World::with(&[
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
    ]);
    play(&mut world, &mut redis, "", 8, true);
}

#[test]
fn services_on_postgresql_that_are_killed_tell_exactly_what_they_keep() {
    let server = PostgresServer::start();
    let storage = server.url(&server.database());
    let mut redis = RedisServer::start();
    let mut world = World::with(&[
        ("ROLLCALL_STORAGE__URL", &storage),
        ("ROLLCALL_REDIS__URL", &redis.url()),
    ]);
    play(&mut world, &mut redis, &storage, 4, false);
}
