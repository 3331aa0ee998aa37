//! Redis with sentinels: a replica takes over in the middle of everything, and may not have got all.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, Hello};
use crate::redis_server::{RedisServer, free_port, program};
use crate::storms::Storm;
use crate::world::{World, check_pairs, wait_for};

const STREAM: &str = "mainflux.mqtt";

/// A master, its replica, and three sentinels that look after them.
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    port: u16,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sentinel {
    fn start(master: u16, listen: Listen) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, port) = (folder.path().join("sentinel.conf"), free_port());
        let config = format!(
            "{}unixsocket {}\nbind 127.0.0.1\nrequirepass watch\nsentinel sentinel-pass watch\n\
             sentinel monitor front 127.0.0.1 {master} 2\nsentinel auth-pass front secret\n\
             sentinel down-after-milliseconds front 500\nsentinel failover-timeout front 3000\n",
            settings(&listen(port)),
            folder.path().join("socket").display(),
        );
        fs::write(&file, config).expect("written");
        let process = Command::new(program())
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: see tests/run");
        Self {
            port,
            process,
            folder,
        }
    }

    fn ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let socket = self.folder.path().join("socket");
        let url = format!("redis+unix://{}?pass=watch", socket.display());
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd("SENTINEL").arg(words).query(&mut connection)
    }
}

/// Arguments of a server that is to listen at a port.
type Listen<'a> = &'a dyn Fn(u16) -> Vec<String>;

/// The same as lines of a file.
fn settings(arguments: &[String]) -> String {
    let pairs = arguments.chunks(2);
    let lines = pairs.map(|pair| format!("{} {}\n", pair[0].trim_start_matches("--"), pair[1]));
    lines.collect()
}

fn server(listen: &[String]) -> RedisServer {
    let mut arguments: Vec<&str> = listen.iter().map(String::as_str).collect();
    arguments.extend(["--repl-diskless-sync-delay", "0"]);
    let server = RedisServer::with(&arguments);
    // Who comes by the socket is the test.
    for set in [
        &["CONFIG", "SET", "masterauth", "secret"][..],
        &["CONFIG", "SET", "masteruser", "watcher"],
        &[
            "ACL", "SETUSER", "watcher", "on", ">secret", "+@all", "~*", "&*",
        ],
    ] {
        server.command::<String>(set);
    }
    server
}

impl Watched {
    fn start() -> Self {
        Self::with(&|port| vec!["--port".into(), port.to_string()])
    }

    pub(crate) fn with(listen: Listen) -> Self {
        let ports = [free_port(), free_port()];
        let [master, replica] = ports.map(|port| server(&listen(port)));
        let port = ports[0].to_string();
        replica.command::<String>(&["REPLICAOF", "127.0.0.1", &port]);
        let sentinels = (0..3).map(|_| Sentinel::start(ports[0], listen)).collect();
        let watched = Self {
            master,
            replica,
            port: ports[0],
            sentinels,
        };
        for sentinel in &watched.sentinels {
            wait_for("the sentinels to know each other", || {
                sentinel
                    .ask(&["SET", "front", "auth-user", "watcher"])
                    .ok()?;
                sentinel.ask(&["CKQUORUM", "front"]).ok()?;
                let replicas = sentinel.ask(&["REPLICAS", "front"]).ok()?;
                let others = sentinel.ask(&["SENTINELS", "front"]).ok()?;
                let count = |value| matches!(value, redis::Value::Array(it) if !it.is_empty());
                (count(replicas) && count(others)).then_some(())
            });
        }
        watched.wait_for_link("up");
        watched
    }

    fn wait_for_link(&self, state: &str) {
        wait_for("replication", || {
            let info: String = self.replica.command(&["INFO", "replication"]);
            let is = info.contains(&format!("master_link_status:{state}"));
            is.then_some(())
        });
    }

    pub(crate) fn hosts(&self) -> String {
        let sentinels = self.sentinels.iter();
        let hosts = sentinels.map(|it| format!("127.0.0.1:{}", it.port));
        hosts.collect::<Vec<_>>().join(",")
    }

    fn url(&self, folder: &std::path::Path) -> String {
        let file = folder.join("sentinel-password");
        fs::write(&file, "watch").expect("written");
        format!(
            "redis+sentinel://watcher:secret@{}/front?sentinel_password_file={}",
            self.hosts(),
            file.display()
        )
    }

    /// From here on the replica gets nothing.
    fn cut(&self) {
        self.replica
            .command::<String>(&["CONFIG", "SET", "masterauth", "wrong"]);
        self.master
            .command::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]);
        self.wait_for_link("down");
    }

    fn mend(&self) {
        self.replica
            .command::<String>(&["CONFIG", "SET", "masterauth", "secret"]);
        self.wait_for_link("up");
    }

    pub(crate) fn wait_for_promotion(&self) {
        wait_for("the replica to take over", || {
            let info: String = self.replica.command(&["INFO", "replication"]);
            info.contains("role:master").then_some(())
        });
    }
}

fn world(watched: &Watched, replicas: &str) -> World {
    let mut world = World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__CONNECT_TIMEOUT", "500ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "1s"),
        ("ROLLCALL_REDIS__BATCH", "16"),
        ("ROLLCALL_REDIS__WAIT_REPLICAS", replicas),
        ("ROLLCALL_REDIS__WAIT_TIMEOUT", "100ms"),
    ]);
    let url = watched.url(&world.folder());
    world.set("ROLLCALL_REDIS__URL", &url);
    world.run();
    world
}

pub(crate) fn storm(world: &World) -> (Storm, Vec<Client>) {
    let (things, _) = world.members(8);
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let settled = (0..20).map(|n| world.client(Hello::of(&things[0], &format!("settled {n}"))));
    let settled = settled.collect();
    (Storm::begin(world.mqtt(), hellos), settled)
}

/// Waits until a Redis has what the journal has, then compares them.
pub(crate) fn expect_equal(world: &World, redis: &RedisServer) {
    let journal = wait_for("all to leave", || {
        let left = world.json(&["presence", "--limit", "1"])["total"] == 0;
        left.then(|| world.events())
    });
    wait_for("the relay", || {
        (redis.len(STREAM) >= journal.len()).then_some(())
    });
    assert!(redis.stream(STREAM) == journal, "stream and journal differ");
    check_pairs(&journal);
}

#[test]
fn what_a_master_took_and_lost_is_relayed_again_to_its_successor() {
    let mut watched = Watched::start();
    let world = world(&watched, "0");
    let (storm, settled) = storm(&world);
    storm.wait(200);
    watched.cut();
    let had = watched.replica.len(STREAM);
    // The old master has these, and says so; nobody else ever will.
    storm.wait(400);
    wait_for("the relay", || {
        (watched.master.len(STREAM) > had + 100).then_some(())
    });
    watched.master.kill();
    storm.wait(600);
    watched.wait_for_promotion();
    storm.wait(800);
    storm.end();
    drop(settled);
    expect_equal(&world, &watched.replica);
    assert!(world.log_text().contains("redis has lost events"));
    assert_eq!(watched.replica.roll("front-1").len(), 0);
    assert_eq!(
        world.counter("rollcall_lease_sessions_closed_total", ""),
        0.0
    );
}

#[test]
fn what_replicas_have_not_confirmed_stays_in_the_journal() {
    let watched = Watched::start();
    let mut world = world(&watched, "1");
    let unconfirmed =
        |world: &World| world.counter("rollcall_relay_unconfirmed_events", "stream=\"mqtt\"");
    let (storm, settled) = storm(&world);
    storm.wait(100);
    watched.cut();
    storm.wait(300);
    // The stream goes on meanwhile.
    wait_for("what is unconfirmed", || {
        let has_most = watched.master.len(STREAM) > 400;
        (has_most && unconfirmed(&world) > 50.0).then_some(())
    });
    storm.end();
    // Nor is it forgotten that it was not confirmed.
    world.end("KILL");
    drop(settled);
    world.run();
    wait_for("what is unconfirmed", || {
        (unconfirmed(&world) > 50.0).then_some(())
    });
    watched.mend();
    wait_for("all to be confirmed", || {
        (unconfirmed(&world) == 0.0).then_some(())
    });
    expect_equal(&world, &watched.master);
    wait_for("the replica", || {
        (watched.replica.len(STREAM) == watched.master.len(STREAM)).then_some(())
    });
}

#[test]
fn a_replica_that_confirmed_is_no_promise_that_this_one_is_promoted() {
    let mut watched = Watched::start();
    // Never to be promoted.
    let other = server(&["--port".into(), free_port().to_string()]);
    other.command::<String>(&["CONFIG", "SET", "replica-priority", "0"]);
    other.command::<String>(&["REPLICAOF", "127.0.0.1", &watched.port.to_string()]);
    wait_for("replication", || {
        let info: String = other.command(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    let world = world(&watched, "1");
    let (storm, settled) = storm(&world);
    storm.wait(100);
    watched.cut();
    let had = watched.replica.len(STREAM);
    storm.wait(300);
    // One replica has these, so they count as relayed.
    wait_for("what is confirmed", || {
        let unconfirmed = world.counter("rollcall_relay_unconfirmed_events", "stream=\"mqtt\"");
        (other.len(STREAM) > had + 100 && unconfirmed == 0.0).then_some(())
    });
    watched.master.kill();
    watched.wait_for_promotion();
    storm.wait(500);
    storm.end();
    drop(settled);
    // The journal is what has them still, as long as it has room.
    expect_equal(&world, &watched.replica);
    assert!(world.log_text().contains("redis has lost events"));
}
