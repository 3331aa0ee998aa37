//! A Redis that does not talk to everybody: TLS, certificates, users, passwords in files.

use std::fs;
use std::path::Path;

use crate::authority::{Authority, Pair};
use crate::client::Hello;
use crate::redis_server::{RedisServer, free_port};
use crate::storms::Storm;
use crate::takeover::introduce;
use crate::world::{World, check_pairs, wait_for};

const STREAM: &str = "mainflux.mqtt";

fn prepared(url: &str) -> World {
    World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", url),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_LEASE__TTL", "1s"),
    ])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A Redis that speaks TLS alone, and only with who shows a certificate.
struct Tls {
    folder: tempfile::TempDir,
    authority: Authority,
    port: u16,
    redis: RedisServer,
}

impl Tls {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "root");
        let pair = authority.server("localhost", 1);
        let port = free_port();
        let redis = RedisServer::with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-ca-cert-file",
            text(&authority.file()),
            "--tls-cert-file",
            text(&pair.certificate),
            "--tls-key-file",
            text(&pair.key),
            "--tls-auth-clients",
            "yes",
        ]);
        Self {
            folder,
            authority,
            port,
            redis,
        }
    }

    fn url(&self, host: &str, authority: &Authority, pair: Option<&Pair>) -> String {
        let (port, ca) = (self.port, authority.file());
        let url = format!("rediss://{host}:{port}?ca_file={}", text(&ca));
        match pair {
            Some(Pair {
                certificate, key, ..
            }) => format!(
                "{url}&cert_file={}&key_file={}",
                text(certificate),
                text(key)
            ),
            None => url,
        }
    }
}

#[test]
fn presence_goes_over_tls_to_a_redis_that_knows_its_clients() {
    let tls = Tls::start();
    let pair = tls.authority.client("front", 2);
    let url = tls.url("localhost", &tls.authority, Some(&pair));
    let mut world = prepared(&url);
    world.run();
    let thing = world.thing("lamp");
    let client = world.client(Hello::of(&thing, "c"));
    wait_for("the relay", || (tls.redis.len(STREAM) == 1).then_some(()));
    let roll = world.json(&["presence", "--redis", &url]);
    assert_eq!(roll["total"], 1);
    client.disconnect();
    wait_for("the relay", || (tls.redis.len(STREAM) == 2).then_some(()));
    world.tell(&["check-presence", "--redis", &url]);
}

#[test]
fn a_redis_that_is_somebody_else_hears_nothing() {
    let tls = Tls::start();
    let pair = tls.authority.client("front", 2);
    let stranger = Authority::new(tls.folder.path(), "stranger");
    let strange = stranger.client("front", 3);
    for (what, url) in [
        // It has a certificate of another name.
        ("name", tls.url("127.0.0.1", &tls.authority, Some(&pair))),
        ("authority", tls.url("localhost", &stranger, Some(&pair))),
        ("no client", tls.url("localhost", &tls.authority, None)),
        (
            "client",
            tls.url("localhost", &tls.authority, Some(&strange)),
        ),
        ("no TLS", format!("redis://localhost:{}", tls.port)),
    ] {
        let mut world = prepared(&url);
        world.run();
        let thing = world.thing("lamp");
        world.client(Hello::of(&thing, "c")).disconnect();
        wait_for(what, || {
            let failures = world.counter("rollcall_relay_failures_total", "stream=\"mqtt\"");
            (failures >= 3.0).then_some(())
        });
        assert_eq!(tls.redis.len(STREAM), 0, "{what}");
    }
}

#[test]
fn files_that_cannot_be_read_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("other");
    fs::write(&other, "no certificate").expect("written");
    let (other, lost) = (text(&other), text(&folder.path().join("lost")).to_owned());
    for (url, told) in [
        (format!("redis://db?password_file={lost}"), "lost"),
        (format!("rediss://db?ca_file={lost}"), "lost"),
        (
            format!("rediss://db?cert_file={other}&key_file={other}"),
            "is no Redis address",
        ),
        ("redis://db?tls=yes".to_owned(), "tls is unknown"),
    ] {
        let output = prepared(&url).up().output().expect("the program runs");
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(told), "{error}");
    }
}

/// The rights that `configs/redis.acl` gives, as words of ACL SETUSER.
pub(crate) fn rights() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/redis.acl");
    let file = fs::read_to_string(file).expect("a file");
    let line = file.lines().find_map(|line| line.strip_prefix("user "));
    let words = line.expect("a user").split(' ').map(str::to_owned);
    words.collect()
}

#[test]
fn the_rights_that_are_documented_are_enough_for_all_that_happens() {
    let redis = RedisServer::with(&["--port", &free_port().to_string()]);
    let port: String = redis.command::<Vec<String>>(&["CONFIG", "GET", "port"])[1].clone();
    let rights = rights();
    let set = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        redis.command::<String>(&[&["ACL", "SETUSER"], &words[..]].concat());
    };
    set(&rights);
    // Where it is known: see the file.
    let _ =
        redis.try_command::<String>(&["ACL", "SETUSER", "rollcall", "+xcfgset", "+xgroup|destroy"]);
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    fs::write(&password, "change-me\n").expect("written");
    let url = format!(
        "redis://rollcall@127.0.0.1:{port}?password_file={}",
        text(&password)
    );
    let start = |name: &str| {
        let mut world = prepared(&url);
        world.set("ROLLCALL_INSTANCE", name);
        world.set("ROLLCALL_REDIS__MAX_STREAM_AGE", "1h");
        world.run();
        world
    };
    let mut world = start("front-1");
    let (things, _) = world.members(4);
    let hellos = || things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos());
    storm.wait(100);
    // The roll is made anew.
    redis.command::<u64>(&["DEL", "{mainflux.mqtt}.roll:front-1"]);
    storm.wait(200);
    // Everything is sent again, under another name, after a restart.
    redis.command::<String>(&["FLUSHALL"]);
    let settled: Vec<_> = (0..3)
        .map(|n| world.client(Hello::of(&things[0], &format!("settled {n}"))))
        .collect();
    wait_for("the roll", || {
        (redis.roll("front-1").len() >= 3).then_some(())
    });
    world.signal("KILL");
    storm.end();
    world.end("KILL");
    drop(settled);
    world.set("ROLLCALL_INSTANCE", "front-2");
    world.run();
    // Another closes what one leaves.
    let mut gone = start("gone");
    let thing = gone.thing("lamp");
    introduce(&thing, &world);
    let mut moved = world.client(Hello::of(&thing, "c").five());
    let client = gone.client(Hello::of(&thing, "c"));
    moved.expect_disconnect(0x8E);
    wait_for("the roll", || (redis.roll("gone").len() == 1).then_some(()));
    gone.end("KILL");
    drop(client);
    wait_for("the roll", || (redis.roll("gone").is_empty()).then_some(()));
    // The password changes: it is read again.
    redis.command::<String>(&["ACL", "SETUSER", "rollcall", "resetpass", ">changed"]);
    fs::write(&password, "changed").expect("written");
    redis.command::<u64>(&["CLIENT", "KILL", "USER", "rollcall"]);
    world.client(Hello::of(&things[0], "last")).disconnect();
    let journal = wait_for("all to leave", || {
        let left = world.json(&["presence", "--limit", "1"])["total"] == 0;
        left.then(|| world.events())
    });
    wait_for("the relay", || {
        (redis.len(STREAM) >= journal.len() + 2).then_some(())
    });
    check_pairs(&journal);
    for command in [
        &["presence", "--redis", &url][..],
        &["check-presence", "--redis", &url],
        &["presence", "rebuild", "--redis", &url],
        &["events", "--redis", &url],
        &["presence", "seen", &things[0].id, "--redis", &url],
    ] {
        world.tell(command);
    }
    let denied: Vec<Vec<redis::Value>> = redis.command(&["ACL", "LOG"]);
    let denied: Vec<_> = denied
        .iter()
        .map(|entry| format!("{entry:?}"))
        // Between the change of the password in Redis and that in the file.
        .filter(|entry| !entry.contains("\"auth\""))
        .collect();
    assert!(denied.is_empty(), "{denied:#?}");
}
