//! Who is online on all instances: shown, counted and followed alike on every edge.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::rest::send;
use crate::storms::Storm;
use crate::world::{PATIENCE, Thing, World, wait_for};

const STREAM: &str = "mainflux.mqtt";

fn bearer(world: &World) -> String {
    let token = world.folder().join("data/secrets/admin.token");
    let token = std::fs::read_to_string(token).expect("a token");
    format!("Authorization: Bearer {}", token.trim())
}

/// What HTTP says to an administrator.
fn page(world: &World, path: &str) -> (u16, Value) {
    let (address, bearer) = (world.http_address(), bearer(world));
    let reply = send(address, &format!("GET {path}"), &[&*bearer], b"");
    (
        reply.status,
        serde_json::from_str(&reply.body).unwrap_or_default(),
    )
}

fn world(redis: &RedisServer, instance: &str) -> World {
    World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_INSTANCE", instance),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__BATCH", "16"),
        ("ROLLCALL_HTTP__MAX_CONNECTIONS", "200"),
    ])
}

#[test]
fn every_edge_shows_the_same_of_all_instances() {
    let redis = RedisServer::start();
    let (one, two) = (world(&redis, "front-1"), world(&redis, "front-2"));
    let (things, channel) = one.members(2);
    let elsewhere = two.thing("bell");
    let clients = [
        one.client(Hello::of(&things[0], "a")),
        one.client(Hello::of(&things[0], "b")),
        one.client(Hello::of(&things[1], "a")),
        two.client(Hello::of(&elsewhere, "a")),
    ];
    wait_for("the roll", || {
        (redis.roll("front-1").len() == 3 && redis.roll("front-2").len() == 1).then_some(())
    });
    let url = redis.url();
    let all = one.json(&["presence", "--all"]);
    assert_eq!(
        (&all["total"], &all["instances"]["front-1"]),
        (&4.into(), &3.into())
    );
    assert_eq!(page(&one, "/presence/sessions"), (200, all.clone()));
    assert_eq!(page(&two, "/presence/sessions").1, all);
    assert_eq!(one.json(&["presence", "--redis", &url]), all);
    let table = one.tell(&["presence", "--all", "--limit", "1"]);
    assert!(
        table.contains("3 on front-1") && table.contains("4 online"),
        "{table}"
    );

    let table = one.tell(&["presence", "--instance", "front-1", "--limit", "1"]);
    assert!(
        table.ends_with("3 of 4 online, 1 of them shown (--limit, --offset)\n"),
        "{table}"
    );
    let of_two = one.json(&["presence", "--instance", "front-2"]);
    assert_eq!(
        (&of_two["total"], &of_two["sessions"][0]["thing_id"]),
        (&1.into(), &elsewhere.id.as_str().into())
    );
    assert_eq!(page(&one, "/presence/sessions?instance=front-2").1, of_two);
    let of_it = two.json(&["presence", "--thing", &things[0].id]);
    assert_eq!(of_it["total"], 2);
    let path = format!(
        "/presence/sessions?thing_id={}&limit=1&offset=1",
        things[0].id
    );
    assert_eq!(page(&two, &path).1["sessions"][0], of_it["sessions"][1]);

    let counts = one.json(&["presence", "count", "--by-channel"]);
    assert_eq!(
        (&counts["sessions"], &counts["things"]),
        (&4.into(), &3.into())
    );
    assert_eq!(counts["instances"]["front-2"], 1);
    // The things of the other are not known here.
    let expected = serde_json::json!([{ "channel_id": channel, "things": 2, "sessions": 3 }]);
    assert_eq!(counts["channels"], expected);
    assert_eq!(page(&one, "/presence/counts?by_channel=true").1, counts);
    assert_eq!(
        two.json(&["presence", "count", "--by-channel"])["channels_total"],
        0
    );
    assert_eq!(page(&one, "/presence/counts").1.get("channels"), None);
    assert_eq!(
        one.json(&["presence", "count", "--redis", &url]),
        two.json(&["presence", "count"])
    );
    let elsewhere = ["--redis", &url, "--prefix", "other"];
    for what in [&["presence"][..], &["presence", "count"]] {
        let told = one.tell(&[what, &elsewhere].concat());
        assert!(
            told.contains("0 online") && !told.contains("front"),
            "{told}"
        );
    }
    let table = one.tell(&["presence", "count", "--by-channel"]);
    assert!(
        table.contains(&channel) && table.contains("4 online, of 3 things"),
        "{table}"
    );

    let [mut a, ..] = clients;
    a.send(&[0xE0, 0]);
    a.expect_end();
    wait_for("the roll", || {
        (redis.roll("front-1").len() == 2).then_some(())
    });
    let seen = two.json(&["presence", "seen", &things[0].id]);
    assert_eq!(
        (&seen["online"], &seen["last_left"]["instance"]),
        (&1.into(), &"front-1".into())
    );
    assert_eq!(
        one.json(&["presence", "seen", &things[0].id, "--redis", &url]),
        seen
    );
    let (_, told) = page(&two, &format!("/presence/things/{}", things[0].id));
    assert_eq!(told, seen);

    for (path, status) in [
        ("/presence/sessions?limit=0", 400),
        ("/presence/sessions?thing_id=x", 400),
        ("/presence/counts?limit=10001", 400),
        ("/presence/things/x", 400),
        ("/presence/watch?after=x", 400),
    ] {
        assert_eq!(page(&one, path).0, status, "{path}");
        assert_eq!(one.http(path).0, 401, "{path}");
    }
}

#[test]
fn a_server_without_redis_shows_what_its_journal_knows() {
    let world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (things, channel) = world.members(2);
    let here = world.client(Hello::of(&things[0], "a"));
    world.client(Hello::of(&things[1], "b")).disconnect();
    let events = world.wait_events(3);
    let all = world.json(&["presence", "--all"]);
    assert_eq!((&all["total"], &all["at"]), (&1.into(), &"3".into()));
    let counts = world.json(&["presence", "count", "--by-channel"]);
    assert_eq!(counts["channels"][0]["channel_id"], channel.as_str());
    let seen = world.json(&["presence", "seen", &things[1].id]);
    assert_eq!(seen["online"], 0);
    assert_eq!(seen["last_left"]["occurred_at"], events[2]["occurred_at"]);
    let told = world.tell(&["presence", "seen", &things[0].id]);
    assert!(told.starts_with("online since "), "{told}");
    let mut watching = Told::by_program(&world, &["--all"]);
    watching.is_at(1);
    drop(here);
    watching.is_at(0);
    assert_eq!(watching.seen().ids, ["4"]);
    let mut resumed = Told::by_http(&world, "?after=3");
    resumed.wait_for_id("4");
    assert_eq!(
        (resumed.seen().rolls, resumed.seen().ids),
        (0, vec!["4".to_owned()])
    );
}

#[test]
fn a_front_without_things_does_not_know_channels() {
    let whole = World::start();
    let authority = format!("http://{}", whole.grpc());
    let front = World::alone("mqtt", &[("ROLLCALL_THINGS__AUTHORITY", &authority)]);
    assert_eq!(front.json(&["presence", "count"])["sessions"], 0);
    let problem = front.fail(&["presence", "count", "--by-channel"]);
    assert!(problem.contains("ask there"), "{problem}");
}

/// Puts sessions on the roll as those of an instance that is alive.
fn fill(redis: &RedisServer, instance: &str, sessions: usize) {
    let key = |what: &str| format!("{{{STREAM}}}.{what}");
    redis.command::<String>(&["SET", &key(&format!("lease:{instance}")), "somebody"]);
    redis.command::<u64>(&["HSET", &key("roll"), instance, "1-1"]);
    let part = key(&format!("roll:{instance}"));
    let row = format!(
        r#"{{"thing_id":"t","instance":"{instance}","since":"1","client_id":"","protocol":"","peer":""}}"#
    );
    let names: Vec<String> = (0..sessions).map(|n| format!("session {n}")).collect();
    let rows = names.iter().flat_map(|name| [name.as_str(), &row]);
    let call: Vec<&str> = ["HSET", &part].into_iter().chain(rows).collect();
    assert_eq!(redis.command::<usize>(&call), sessions);
}

#[test]
fn a_large_roll_is_told_in_parts() {
    let redis = RedisServer::start();
    let world = world(&redis, "front-1");
    fill(&redis, "crowded", 2500);
    let url = redis.url();
    for mut told in [
        Told::by_program(&world, &["--all"]),
        Told::by_program(&world, &["--redis", &url]),
        Told::by_http(&world, ""),
    ] {
        told.is_at(2500);
        assert_eq!(told.seen().rolls, 1);
    }
    let last = page(&world, "/presence/sessions?offset=2499&limit=2").1;
    assert_eq!(last["total"], 2500);
    assert_eq!(last["sessions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn those_who_ask_at_one_time_share_one_reading_of_the_roll() {
    let redis = RedisServer::start();
    let world = world(&redis, "front-1");
    let readings = || {
        let told: String = redis.command(&["INFO", "commandstats"]);
        let calls = told.split("cmdstat_hgetall:calls=").nth(1).unwrap_or("0");
        let calls = calls.split(',').next().expect("a part");
        // The list of parts, and the one part.
        calls.parse::<usize>().expect("a number") / 2
    };
    fill(&redis, "other", 1);
    page(&world, "/presence/counts");
    let before = readings();
    assert!(before > 0);
    redis.command::<String>(&["CLIENT", "PAUSE", "3000"]);
    std::thread::scope(|threads| {
        for _ in 0..40 {
            threads.spawn(|| assert_eq!(page(&world, "/presence/counts").0, 200));
        }
    });
    // That which was under way when others came, and theirs.
    assert!(readings() - before < 10, "{} readings", readings() - before);
    // Whoever asks later sees what has happened since.
    let thing = world.thing("lamp");
    let _here = world.client(Hello::of(&thing, "a"));
    wait_for("the roll", || {
        (redis.roll("front-1").len() == 1).then_some(())
    });
    assert_eq!(page(&world, "/presence/counts").1["sessions"], 2);
}

/// What somebody who watches was told.
#[derive(Clone, Default)]
struct Seen {
    rolls: usize,
    /// More of the roll is to come.
    more: bool,
    /// What the last roll was as of.
    at: String,
    /// Events after it.
    ids: Vec<String>,
    online: BTreeSet<String>,
}

impl Seen {
    fn hear(&mut self, told: &Value) {
        let id = |it: &Value| it["session_id"].as_str().expect("text").to_owned();
        if let Some(sessions) = told["sessions"].as_array() {
            if !self.more {
                self.online.clear();
                self.ids.clear();
            }
            self.online.extend(sessions.iter().map(id));
            self.more = told["more"] == true;
            if !self.more {
                self.rolls += 1;
                self.at = told["at"].as_str().expect("text").to_owned();
                assert_eq!(told["total"], self.online.len());
            }
            return;
        }
        let session = id(&told["fields"]);
        let fits = match told["fields"]["event_type"].as_str() {
            Some("connect") => self.online.insert(session),
            // Who goes on after an event was told of no roll.
            _ => self.online.remove(&session) || self.rolls == 0,
        };
        assert!(fits, "{told}");
        self.ids.push(told["id"].as_str().expect("text").to_owned());
    }
}

/// Somebody who watches, on whatever edge.
struct Told {
    seen: Arc<Mutex<Seen>>,
    process: Option<Child>,
    stream: Option<TcpStream>,
}

impl Told {
    fn by_program(world: &World, more: &[&str]) -> Self {
        let arguments = ["--json", "presence", "--watch", "--limit", "10000"];
        let mut command = world.command(&[&arguments[..], more].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let seen = Arc::default();
        hear(lines, Arc::clone(&seen), |line: &str| Some(line.to_owned()));
        Self {
            seen,
            process: Some(process),
            stream: None,
        }
    }

    fn by_http(world: &World, query: &str) -> Self {
        let (stream, lines) = open(world, query);
        let seen = Arc::default();
        hear(lines, Arc::clone(&seen), |line: &str| {
            line.strip_prefix("data: ").map(ToOwned::to_owned)
        });
        Self {
            seen,
            process: None,
            stream: Some(stream),
        }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("whole").clone()
    }

    fn is_at(&mut self, online: usize) {
        wait_for("a watch", || {
            let seen = self.seen();
            (seen.rolls > 0 && seen.online.len() == online).then_some(())
        });
    }

    fn wait_for_id(&mut self, id: &str) {
        wait_for("a watch", || {
            let seen = self.seen();
            let last = seen.ids.last().unwrap_or(&seen.at);
            (last == id).then_some(())
        });
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Asks HTTP for a watch.
fn open(world: &World, query: &str) -> (TcpStream, Lines<BufReader<TcpStream>>) {
    let mut stream = TcpStream::connect(world.http_address()).expect("a server");
    let bearer = bearer(world);
    let request = format!("GET /presence/watch{query} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    (stream, lines)
}

/// Hears what is told until it ends. A line that makes no sense ends it, too.
fn hear<R: std::io::Read + Send + 'static>(
    lines: Lines<BufReader<R>>,
    seen: Arc<Mutex<Seen>>,
    data: impl Fn(&str) -> Option<String> + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(data) = data(&line) {
                let told = serde_json::from_str(&data).expect("JSON");
                seen.lock().expect("whole").hear(&told);
            }
        }
    });
}

fn last_id(redis: &RedisServer) -> String {
    ids(redis, "-").pop().expect("an entry")
}

/// Ids of the entries from a place on.
fn ids(redis: &RedisServer, from: &str) -> Vec<String> {
    type Entries = Vec<(String, Vec<String>)>;
    let entries: Entries = redis.command(&["XRANGE", STREAM, from, "+"]);
    entries.into_iter().map(|(id, _)| id).collect()
}

fn begin(world: &World, things: &[Thing]) -> (Storm, Vec<Client>) {
    let settled = (0..20).map(|n| world.client(Hello::of(&things[0], &format!("settled {n}"))));
    let settled = settled.collect();
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    (Storm::begin(world.mqtt(), hellos), settled)
}

#[test]
fn who_watches_misses_and_doubles_nothing_however_often_redis_restarts() {
    let mut redis = RedisServer::start();
    let world = world(&redis, "front-1");
    let (things, _) = world.members(8);
    let (storm, settled) = begin(&world, &things);
    storm.wait(100);
    let url = redis.url();
    let mut watching = [
        Told::by_program(&world, &["--all"]),
        Told::by_program(&world, &["--redis", &url]),
        Told::by_http(&world, ""),
    ];
    for told in &mut watching {
        wait_for("a roll", || (told.seen().rolls == 1).then_some(()));
    }
    for round in 1..=3 {
        storm.wait(100 + 150 * round);
        redis.kill();
        storm.wait(150 + 150 * round);
        redis.run();
    }
    storm.wait(700);
    storm.end();
    drop(settled);
    wait_for("nobody", || {
        let all = world.events().len();
        (redis.roll("front-1").is_empty() && redis.len(STREAM) == all).then_some(())
    });
    let last = last_id(&redis);
    for told in &mut watching {
        told.wait_for_id(&last);
        let seen = told.seen();
        assert_eq!(seen.rolls, 1);
        assert!(seen.online.is_empty() && seen.ids.len() > 300);
        assert_eq!(seen.ids, ids(&redis, &format!("({}", seen.at)));
    }
    // Whoever was cut off goes on where he was.
    let middle = watching[2].seen().ids[100].clone();
    let mut resumed = Told::by_http(&world, &format!("?after={middle}"));
    resumed.wait_for_id(&last);
    let seen = resumed.seen();
    assert_eq!(
        (seen.rolls, seen.ids),
        (0, ids(&redis, &format!("({middle}")))
    );
}

#[test]
fn who_watches_a_redis_that_loses_everything_is_told_the_roll_anew() {
    let redis = RedisServer::start();
    let world = world(&redis, "front-1");
    let (things, _) = world.members(8);
    let (storm, mut settled) = begin(&world, &things);
    storm.wait(100);
    let url = redis.url();
    let mut watching = [
        Told::by_program(&world, &["--all"]),
        Told::by_program(&world, &["--redis", &url]),
        Told::by_http(&world, ""),
    ];
    for told in &mut watching {
        wait_for("a roll", || (told.seen().rolls == 1).then_some(()));
    }
    storm.wait(200);
    redis.command::<String>(&["FLUSHALL"]);
    storm.wait(400);
    storm.end();
    settled.truncate(10);
    wait_for("those who stay", || {
        let all = world.events().len();
        (redis.roll("front-1").len() == 10 && redis.len(STREAM) == all).then_some(())
    });
    let last = last_id(&redis);
    for told in &mut watching {
        told.wait_for_id(&last);
        let seen = told.seen();
        assert!(seen.rolls > 1);
        let roll: BTreeSet<String> = redis.roll("front-1").into_keys().collect();
        assert_eq!(seen.online, roll);
    }
    // An entry that is not there says nothing of what was missed.
    let mut told = Told::by_http(&world, "?after=1-1");
    told.is_at(10);
}

#[test]
fn who_would_watch_a_redis_that_is_gone_is_told_so() {
    let mut redis = RedisServer::start();
    let world = world(&redis, "front-1");
    redis.kill();
    for more in [&["--all"][..], &["--redis", &redis.url()]] {
        let problem = world.fail(&[&["presence", "--watch"], more].concat());
        assert!(problem.contains("redis is not available"), "{problem}");
        // Causes are told once.
        assert!(
            problem.matches("Connection refused").count() <= 1,
            "{problem}"
        );
    }
    assert_eq!(page(&world, "/presence/watch").0, 503);
}

#[test]
fn only_so_many_watch_at_one_time() {
    let redis = RedisServer::start();
    let world = world(&redis, "front-1");
    let status = || {
        let (stream, mut lines) = open(&world, "");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let line = lines.next().expect("a line").expect("text");
        (stream, line.split(' ').nth(1).map(str::to_owned))
    };
    let mut watching: Vec<TcpStream> = (0..64)
        .map(|n| {
            let (stream, status) = status();
            assert_eq!(status.as_deref(), Some("200"), "{n}");
            stream
        })
        .collect();
    assert_eq!(status().1.as_deref(), Some("429"));
    let problem = world.fail(&["presence", "--all", "--watch"]);
    assert!(problem.contains("too many"), "{problem}");
    watching.pop();
    wait_for("room", || {
        (status().1.as_deref() == Some("200")).then_some(())
    });
}
