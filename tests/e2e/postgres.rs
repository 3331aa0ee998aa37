//! The services on a PostgreSQL.

use std::path::Path;

use crate::authority::Authority;
use crate::client::Hello;
use crate::postgres_server::PostgresServer;
use crate::redis_server::RedisServer;
use crate::world::{World, wait_for};

const PASSWORD: &str = "the-password-of-the-database";

/// A database of a user who has a password.
fn url(server: &PostgresServer) -> String {
    let role = format!("CREATE ROLE joe LOGIN PASSWORD '{PASSWORD}'");
    server.query("postgres", &role);
    server.query("postgres", "CREATE DATABASE joes OWNER joe");
    server.url_of("joe", PASSWORD, "joes")
}

fn world(url: &str, redis: &RedisServer) -> World {
    let world = World::prepared(&[
        ("ROLLCALL_STORAGE__URL", url),
        ("ROLLCALL_STORAGE__CONNECT_TIMEOUT", "5s"),
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
    ]);
    world.secrets.add(PASSWORD);
    world
}

#[test]
fn things_come_from_postgresql_and_events_go_to_redis() {
    let (server, redis) = (PostgresServer::start(), RedisServer::start());
    let mut world = world(&url(&server), &redis);
    world.run();
    let (lamp, _) = world.member();
    world.client(Hello::of(&lamp, "lamp")).disconnect();
    // Another start finds what the first has made.
    assert!(world.end("TERM").success());
    world.run();
    world.client(Hello::of(&lamp, "lamp")).disconnect();
    assert_eq!(world.json(&["things", "list"])["total"], 1);
    let things = world.stream("things");
    assert!(things.len() >= 4, "{things:#?}");
    wait_for("the relay", || {
        let things = redis.len("mainflux.things") == things.len();
        (things && redis.len("mainflux.mqtt") == 4).then_some(())
    });
    assert_eq!(redis.stream("mainflux.things"), things);
    assert_eq!(redis.stream("mainflux.users"), world.stream("users"));
    let kept = server.query("joes", "SELECT COUNT(*) FROM things");
    assert_eq!(kept, "1");
    let files = std::fs::read_dir(world.folder().join("data")).expect("a folder");
    let mut names = files.map(|it| it.expect("a file").file_name());
    assert!(!names.any(|name| name == "rollcall.db"));
}

#[test]
fn servers_on_one_database_relay_each_event_once() {
    let (server, redis) = (PostgresServer::start(), RedisServer::start());
    let url = url(&server);
    let mut worlds: Vec<World> = (1..=2)
        .map(|number| {
            let mut world = world(&url, &redis);
            world.set("ROLLCALL_INSTANCE", &format!("front-{number}"));
            world.run();
            world
        })
        .collect();
    std::thread::scope(|scope| {
        for world in &worlds {
            scope.spawn(move || {
                for number in 0..10 {
                    world.thing(&number.to_string());
                }
            });
        }
    });
    for world in &mut worlds {
        // What one has made, the other lists.
        assert_eq!(world.json(&["things", "list"])["total"], 20);
    }
    let log = wait_for("both to know all", || {
        let logs: Vec<_> = worlds.iter().map(|it| it.stream("things")).collect();
        (logs[0] == logs[1]).then(|| logs[0].clone())
    });
    assert!(log.len() >= 22, "{log:#?}");
    wait_for("the relay", || {
        (redis.len("mainflux.things") >= log.len()).then_some(())
    });
    for world in &mut worlds {
        assert!(world.end("TERM").success());
    }
    assert_eq!(redis.stream("mainflux.things"), log);
}

#[test]
fn while_it_is_away_requests_are_refused_and_then_go_on() {
    let (server, redis) = (PostgresServer::start(), RedisServer::start());
    let mut world = world(&url(&server), &redis);
    world.set("ROLLCALL_STORAGE__CONNECT_TIMEOUT", "500ms");
    world.run();
    let lamp = world.thing("lamp");
    server.stop();
    let told = world.fail(&["things", "create", "second"]);
    assert!(told.contains("not available"), "{told}");
    assert!(world.has_ended().is_none());
    server.run();
    wait_for("it to be back", || {
        let output = world.cli(&["things", "list"]);
        output.status.success().then_some(())
    });
    assert_eq!(world.json(&["things", "list"])["total"], 1);
    world.client(Hello::of(&lamp, "lamp")).disconnect();
    let created = |log: &[crate::world::Event]| {
        let created = log.iter().filter(|it| it["operation"] == "thing.create");
        created.count()
    };
    assert_eq!(created(&world.stream("things")), 1);
}

#[test]
fn what_keeps_it_from_starting_is_told_without_the_password() {
    let (server, redis) = (PostgresServer::start(), RedisServer::prepared());
    let url = url(&server);
    server.stop();
    let world = world(&url, &redis);
    let output = world.up().output().expect("runs");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(said.contains("localhost/joes"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn a_database_elsewhere_has_to_prove_who_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::new(folder.path(), "root");
    let stranger = Authority::new(folder.path(), "stranger");
    let pair = root.server("localhost", 1);
    let server = PostgresServer::secured(&pair.certificate, &pair.key);
    url(&server);
    let prepared = |host: &str, ca: &Path| {
        let login = format!("joe:{PASSWORD}");
        let more = format!("sslmode=verify-full&sslrootcert={}", ca.display());
        let url = server.secured_url(&login, host, "joes", &more);
        let world = World::prepared(&[("ROLLCALL_STORAGE__URL", &url)]);
        world.secrets.add(PASSWORD);
        world
    };
    let none = folder.path().join("none.pem");
    for (host, ca) in [
        ("localhost", &stranger.file()),
        ("127.0.0.1", &root.file()),
        ("localhost", &none),
    ] {
        let output = prepared(host, ca).up().output().expect("runs");
        let said = String::from_utf8(output.stderr).expect("text");
        let is_told = said.contains("no secure connection") && said.contains("sslrootcert");
        assert!(!output.status.success() && is_told, "{host}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
    let mut world = prepared("localhost", &root.file());
    world.run();
    world.thing("lamp");
    let secured = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'joe'";
    assert_eq!(server.query("postgres", secured), "t");
}
