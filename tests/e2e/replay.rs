//! `rollcall replay`: streams and database say the same, and if not, what is different is named.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::world::World;

fn database(world: &World) -> Connection {
    Connection::open(world.folder().join("data/rollcall.db")).expect("a database")
}

/// Something of most kinds.
fn populate(world: &World) -> (String, String) {
    let (thing, channel) = world.member();
    let other = world.thing("other");
    world.grant(&other, &channel, "m_read");
    world.tell(&["disconnect", &other.id, &channel]);
    world.tell(&["things", "rotate-key", &other.id]);
    world.tell(&["things", "disable", &other.id]);
    (thing.id, channel)
}

fn number(replay: &Value, kind: &str) -> (u64, u64, u64) {
    let kinds = replay["kinds"].as_array().expect("kinds");
    let row = kinds.iter().find(|it| it["kind"] == kind).expect("a kind");
    let number = |name: &str| row[name].as_u64().expect("a number");
    (number("streams"), number("database"), number("different"))
}

#[test]
fn streams_and_database_agree_while_the_server_runs_and_afterwards() {
    let redis = RedisServer::start();
    let mut world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    let (thing, channel) = populate(&world);
    let check = |world: &World, arguments: &[&str]| {
        let replay = world.json(&[&["replay", "things", "thing-policies"], arguments].concat());
        assert_eq!(number(&replay, "things"), (2, 2, 0), "{replay}");
        assert_eq!(number(&replay, "channels"), (1, 1, 0));
        assert_eq!(number(&replay, "thing-policies"), (1, 1, 0));
        assert_eq!(number(&replay, "users"), (1, 1, 0));
        assert_eq!(replay["differences"], json!([]));
        let policy = &replay["state"]["thing-policies"][0];
        assert_eq!(policy["id"], format!("{thing} {channel}"));
        assert_eq!(policy["actions"], "[m_write,m_read]");
    };
    let url = redis.url();
    check(&world, &["--redis", &url]);
    check(&world, &[]);
    let told = world.tell(&["replay", "--redis", &url]);
    assert!(told.contains("streams and database agree"), "{told}");
    assert!(told.contains("not compared: passwords"), "{told}");

    // Of a folder whose server is gone, too.
    world.end("TERM");
    let folder = world.folder().join("data");
    let replay = World::program(&["replay", "--data", folder.to_str().expect("text")]);
    assert!(replay.status.success(), "{replay:?}");
}

#[test]
fn what_was_changed_behind_the_back_of_the_streams_is_named() {
    let redis = RedisServer::start();
    let world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    let (thing, channel) = populate(&world);
    let url = redis.url();
    world.json(&["replay", "--redis", &url]);
    let database = database(&world);
    database
        .execute("UPDATE things SET name = 'x' WHERE name = 'lamp'", [])
        .expect("changed");
    database
        .execute("DELETE FROM thing_policies", [])
        .expect("removed");
    let output = world.cli(&["--json", "replay", "--redis", &url]);
    assert!(!output.status.success());
    let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = json!([
        {
            "kind": "things",
            "id": thing,
            "what": "another value",
            "column": "name",
            "streams": "lamp",
            "database": "x",
        },
        {
            "kind": "thing-policies",
            "id": format!("{thing} {channel}"),
            "what": "not in the database",
        },
    ]);
    assert_eq!(replay["differences"], expected);
    let errors = world.fail(&["replay", "--redis", &url]);
    assert!(errors.contains("differ in 2 places"), "{errors}");

    // The streams alone are as sound as before.
    let alone = world.json(&["replay", "--redis", &url, "--streams-only"]);
    assert_eq!(alone["differences"], Value::Null);
    assert_eq!(alone["misfits"], 0);
}

#[test]
fn streams_without_their_beginning_are_not_misread() {
    let redis = RedisServer::start();
    let world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    populate(&world);
    let url = redis.url();
    let whole = world.json(&["replay", "--redis", &url]);
    assert_eq!(whole["untold"], 0);
    redis.command::<u64>(&["XTRIM", "mainflux.things", "MAXLEN", "3"]);
    let replay = world.json(&["replay", "--redis", &url]);
    let streams = replay["streams"].as_array().expect("streams");
    let things = streams.iter().find(|it| it["stream"] == "things");
    assert_eq!(things.expect("things")["partial"], true);
    assert_eq!(replay["differences"], json!([]));
    assert!(replay["untold"].as_u64() > Some(0), "{replay}");
    let told = world.tell(&["replay", "--redis", &url]);
    assert!(told.contains("things: 3 entries, its beginning is lost"));
}

#[test]
fn a_redis_that_does_not_have_everything_is_not_compared() {
    let redis = RedisServer::start();
    let world = World::with(&[]);
    populate(&world);
    let url = redis.url();
    let errors = world.fail(&["replay", "--redis", &url, "--wait", "100ms"]);
    assert!(errors.contains("lacks the latest events"), "{errors}");
}

/// An entry that others have added is an entry that does not fit.
#[test]
fn entries_that_do_not_fit_are_named() {
    let redis = RedisServer::start();
    let world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    populate(&world);
    let url = redis.url();
    world.json(&["replay", "--redis", &url]);
    let add = [
        "XADD",
        "mainflux.things",
        "*",
        "operation",
        "thing.update",
        "id",
        "nobody",
    ];
    redis.command::<String>(&add);
    let output = world.cli(&["--json", "replay", "--redis", &url]);
    assert!(!output.status.success());
    let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(replay["misfits"], 1);
    let what = replay["first_misfits"][0]["what"].as_str();
    assert_eq!(what, Some("thing.update: nobody was never made"));
}
