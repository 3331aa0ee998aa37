//! Users, groups and policies changed by many at once, over REST, while the server is killed over and over:
//! what was acknowledged is there, nothing is there twice, and the streams in Redis add up to exactly what the database has.
//!
//! `GAME_SEED=n` plays a game again, as far as time lets itself be played again; `GAME_ROUNDS=n` plays a longer one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crashes::Dice;
use crate::postgres_server::PostgresServer;
use crate::redis_server::RedisServer;
use crate::rest::try_send;
use crate::world::{World, wait_for};

const PLAYERS: u64 = 4;
/// How long somebody waits before trying a server again that is gone.
const PAUSE: Duration = Duration::from_millis(5);

/// What everybody in a game knows.
struct Game {
    /// Where users are served now, if they are.
    place: Mutex<Option<String>>,
    over: AtomicBool,
    /// Requests that were acknowledged.
    done: AtomicUsize,
}

impl Game {
    fn open(&self, world: &World) {
        let place = world.listener("http.users").to_owned();
        *self.place.lock().expect("lock") = Some(place);
    }

    fn close(&self) {
        *self.place.lock().expect("lock") = None;
    }
}

/// What came of a request.
enum Outcome {
    Done(Value),
    /// Understood and refused: that it is so already, that there is none.
    Refused(u16),
    /// The server is gone: it may or may not have happened.
    Unknown,
}

impl Outcome {
    /// Of what is never refused: it has happened, or nobody knows.
    fn is_done(&self, what: &str) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Unknown => false,
            Self::Refused(status) => panic!("{what}: {status}"),
        }
    }
}

/// What may be the value of a column at the end. None for a row that is not there.
type Possible = Vec<Option<String>>;

/// A column of a row: its kind as `rollcall replay` names it, its id, its name.
type Fact = (&'static str, String, &'static str);

/// What was to be announced: operation, field, value; and whether it is certain that it was.
type Announced = ((&'static str, &'static str, String), bool);

/// Somebody with an account and what belongs to it.
struct Player<'a> {
    game: &'a Game,
    dice: Dice,
    number: u64,
    token: String,
    user: String,
    count: u64,
    groups: Vec<String>,
    /// A user of its own, to be put into groups.
    member: String,
    facts: BTreeMap<Fact, Possible>,
    announced: Vec<Announced>,
}

impl<'a> Player<'a> {
    fn join(world: &World, game: &'a Game, number: u64, seed: u64) -> Self {
        let mut player = Self {
            game,
            dice: Dice(seed.wrapping_add(number)),
            number,
            token: String::new(),
            user: String::new(),
            count: 0,
            groups: Vec::new(),
            member: String::new(),
            facts: BTreeMap::new(),
            announced: Vec::new(),
        };
        let identity = format!("player-{number}@example.com");
        let secret = format!("the secret of {number}");
        world.secrets.add(&*secret);
        let credentials = json!({ "identity": identity, "secret": secret });
        let user = json!({ "name": player.name(), "credentials": credentials });
        let user = player.must("POST /users", &user);
        user["id"]
            .as_str()
            .expect("an id")
            .clone_into(&mut player.user);
        let tokens = player.must("POST /users/tokens/issue", &credentials);
        let token = tokens["access_token"].as_str().expect("a token");
        world.secrets.add(token);
        token.clone_into(&mut player.token);
        let identity = format!("member-of-{number}@example.com");
        let credentials = json!({ "identity": identity, "secret": secret });
        let member = player.must("POST /users", &json!({ "credentials": credentials }));
        member["id"]
            .as_str()
            .expect("an id")
            .clone_into(&mut player.member);
        player
    }

    /// A name that nobody has had.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.number, self.count)
    }

    fn ask(&self, what: &str, body: &Value) -> Outcome {
        let address = self.game.place.lock().expect("lock").clone();
        let Some(address) = address else {
            thread::sleep(PAUSE);
            return Outcome::Unknown;
        };
        let bearer = format!("Authorization: Bearer {}", self.token);
        let mut headers = vec!["Content-Type: application/json"];
        if !self.token.is_empty() {
            headers.push(&bearer);
        }
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let Ok(answer) = try_send(&address, what, &headers, body.as_bytes()) else {
            thread::sleep(PAUSE);
            return Outcome::Unknown;
        };
        match answer.status {
            200..300 => {
                self.game.done.fetch_add(1, Ordering::Relaxed);
                Outcome::Done(serde_json::from_str(&answer.body).unwrap_or_default())
            }
            // It is on its way out.
            503 => Outcome::Unknown,
            400 | 404 | 409 => Outcome::Refused(answer.status),
            _ => panic!("{what} {body}: {answer:?}"),
        }
    }

    fn must(&self, what: &str, body: &Value) -> Value {
        match self.ask(what, body) {
            Outcome::Done(value) => value,
            Outcome::Refused(status) => panic!("{what}: {status}"),
            Outcome::Unknown => panic!("{what}: nobody answers"),
        }
    }

    /// Notes what is known of a column after a request.
    fn note(&mut self, fact: Fact, value: Option<String>, is_certain: bool) {
        let possible = self.facts.entry(fact).or_insert_with(|| vec![None]);
        if is_certain {
            possible.clear();
        }
        possible.push(value);
    }

    fn announce(
        &mut self,
        operation: &'static str,
        field: &'static str,
        value: &str,
        is_certain: bool,
    ) {
        let what = (operation, field, value.to_owned());
        self.announced.push((what, is_certain));
    }

    /// One of its groups, if there are any.
    fn group(&mut self) -> Option<String> {
        let count = self.groups.len() as u64;
        if count == 0 {
            return None;
        }
        let n = usize::try_from(self.dice.throw(count));
        n.ok().map(|n| self.groups[n].clone())
    }

    fn play(&mut self) {
        while !self.game.over.load(Ordering::Relaxed) {
            self.act();
        }
    }

    fn act(&mut self) {
        let (user, group) = (self.user.clone(), self.group());
        match (self.dice.throw(12), group) {
            (0, _) => self.make_group(),
            (1..3, Some(id)) => self.rename("groups", "group.update", "PUT", &id),
            (3, _) => self.rename("users", "user.update", "PATCH", &user),
            (4, _) => self.tag(),
            (5, Some(id)) => self.toggle(&id),
            (6..8, Some(id)) => self.allow(&id),
            (8, Some(id)) => self.forbid(&id),
            _ => self.look(),
        }
    }

    fn look(&mut self) {
        let what = match self.dice.throw(3) {
            0 => "GET /users/profile",
            1 => "GET /users?limit=5",
            _ => "GET /groups?limit=5",
        };
        self.ask(what, &Value::Null).is_done(what);
    }

    fn make_group(&mut self) {
        let name = self.name();
        let outcome = self.ask("POST /groups", &json!({ "name": name }));
        let is_certain = matches!(outcome, Outcome::Done(_));
        self.announce("group.create", "name", &name, is_certain);
        match outcome {
            Outcome::Done(group) => {
                let id = group["id"].as_str().expect("an id").to_owned();
                self.note(("groups", id.clone(), "name"), Some(name), true);
                self.groups.push(id);
            }
            Outcome::Unknown => {}
            Outcome::Refused(status) => panic!("group {name}: {status}"),
        }
    }

    fn rename(&mut self, kind: &'static str, operation: &'static str, method: &str, id: &str) {
        let name = self.name();
        let what = format!("{method} /{kind}/{id}");
        let is_certain = self.ask(&what, &json!({ "name": name })).is_done(&what);
        self.announce(operation, "name", &name, is_certain);
        self.note((kind, id.to_owned(), "name"), Some(name), is_certain);
    }

    fn tag(&mut self) {
        let name = self.name();
        let what = format!("PATCH /users/{}/tags", self.user);
        let is_certain = self.ask(&what, &json!({ "tags": [name] })).is_done(&what);
        let tags = format!("[{name}]");
        self.announce("user.update_tags", "tags", &tags, is_certain);
        let fact = ("users", self.user.clone(), "tags");
        self.note(fact, Some(tags), is_certain);
    }

    fn toggle(&mut self, id: &str) {
        for (verb, status) in [("disable", "disabled"), ("enable", "enabled")] {
            let outcome = self.ask(&format!("POST /groups/{id}/{verb}"), &Value::Null);
            // It is refused if it is so already.
            let is_certain = !matches!(outcome, Outcome::Unknown);
            let fact = ("groups", id.to_owned(), "status");
            self.note(fact, Some(status.to_owned()), is_certain);
        }
    }

    fn allow(&mut self, group: &str) {
        let action = ["c_list", "g_list"][usize::from(self.dice.throw(2) == 0)];
        let body = json!({ "subject": self.member, "object": group, "actions": [action] });
        let is_certain = self.ask("POST /policies", &body).is_done("POST /policies");
        let fact = (
            "user-policies",
            format!("{} {group}", self.member),
            "actions",
        );
        self.note(fact, Some(format!("[{action}]")), is_certain);
    }

    fn forbid(&mut self, group: &str) {
        let what = format!("DELETE /policies/{}/{group}", self.member);
        let is_certain = self.ask(&what, &Value::Null).is_done(&what);
        let fact = (
            "user-policies",
            format!("{} {group}", self.member),
            "actions",
        );
        self.note(fact, None, is_certain);
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
    let game = Game {
        place: Mutex::new(None),
        over: AtomicBool::new(false),
        done: AtomicUsize::new(0),
    };
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
        game.over.store(true, Ordering::Relaxed);
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
    let kinds = ["users", "groups", "user-policies"];
    let url = redis.url();
    let arguments = [&["--json", "replay", "--redis", &url], &kinds[..]].concat();
    let mut replay = world.command(&arguments);
    let output = replay.env("ROLLCALL_STORAGE__URL", storage).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(replay["late"], 0, "{replay}");
    assert_eq!(replay["unknown_operations"], json!({}), "{replay}");
    let mut rows = BTreeMap::new();
    for kind in kinds {
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
                "{kind} {id}: {column} is {value:?}, not one of {possible:?}"
            );
        }
    }
    for stream in ["users", "things", "bootstrap"] {
        let events = redis.stream(&format!("mainflux.{stream}"));
        assert!(
            events == world.stream(stream),
            "{stream}: Redis does not have what was kept"
        );
    }
    // What was told is in the stream once, whatever was repeated on the way.
    let mut told: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for event in redis.stream("mainflux.users") {
        for field in ["name", "tags"] {
            if let Some(value) = event.get(field) {
                let key = (event["operation"].clone(), field.to_owned(), value.clone());
                *told.entry(key).or_insert(0) += 1;
            }
        }
    }
    let announced = players.iter().flat_map(|it| &it.announced);
    for ((operation, field, value), is_certain) in announced {
        let key = ((*operation).to_owned(), (*field).to_owned(), value.clone());
        let times = told.get(&key).copied().unwrap_or(0);
        let due = if *is_certain { 1..=1 } else { 0..=1 };
        assert!(
            due.contains(&times),
            "{operation} of {value} was told {times} times"
        );
    }
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
