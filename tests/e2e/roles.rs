//! Parts of rollcall that run alone, and ask each other.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::Hello;
use crate::redis_server::RedisServer;
use crate::rest::{Answer, send};
use crate::world::{Thing, World, wait_for};

#[test]
fn a_front_alone_has_no_service_and_asks_the_one_elsewhere() {
    let whole = World::start();
    let (thing, channel) = whole.member();
    let authority = format!("http://{}", whole.grpc());
    let front = World::alone("mqtt", &[("ROLLCALL_THINGS__AUTHORITY", &authority)]);
    assert!(!front.ready().contains("http."), "{}", front.ready());
    let mut client = front.client(Hello::of(&thing, "c"));
    let topic = format!("channels/{channel}/messages");
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    assert_eq!(front.wait_events(1)[0]["thing_id"], thing.id);
    assert!(whole.events().is_empty());
    assert_eq!(front.json(&["presence"])["total"], 1);
    let problem = front.fail(&["things", "list"]);
    assert!(!problem.is_empty());
    let problem = front.fail(&["events", "--stream", "things"]);
    assert!(problem.contains("no such stream"), "{problem}");
    assert!(!front.folder().join("data/rollcall.db").exists());
}

#[test]
fn a_part_that_is_not_told_whom_to_ask_does_not_start() {
    for (role, key) in [
        ("mqtt", "things.authority"),
        ("things", "users.authority"),
        ("bootstrap", "users.authority"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Command::new(env!("CARGO_BIN_EXE_rollcall"))
            .args([role, "--data"])
            .arg(folder.path())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(key), "{error}");
    }
}

#[test]
fn a_part_without_a_front_needs_no_files_for_its_clients() {
    let mut users = World::alone("users", &[]);
    // The edges fit, the connections of mqtt would not.
    users.limit_files(600);
    users.crash_and_restart();
    assert_eq!(users.http("/livez").0, 200);
    let log = users.log_text();
    assert!(!log.contains("max_connections"), "{log}");
}

/// Four processes, each with a folder of its own, and a Redis between them.
struct Parts {
    users: World,
    things: World,
    bootstrap: World,
    front: World,
    redis: RedisServer,
}

impl Parts {
    fn start() -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        let alone = |role, more: &[(&str, &str)]| {
            let mut environment = vec![("ROLLCALL_REDIS__URL", &*url)];
            environment.extend(more);
            World::alone(role, &environment)
        };
        let users = alone("users", &[]);
        let asks_users = format!("http://{}", users.grpc());
        let asks_users = ("ROLLCALL_USERS__AUTHORITY", &*asks_users);
        let things = alone("things", &[asks_users]);
        let asks_things = format!("http://{}", things.grpc());
        let for_bootstrap = ("ROLLCALL_THINGS__URL", &*asks_things);
        let bootstrap = alone("bootstrap", &[asks_users, for_bootstrap]);
        let for_front = ("ROLLCALL_THINGS__AUTHORITY", &*asks_things);
        let front = alone("mqtt", &[asks_users, for_front]);
        wait_for("the front to follow", || {
            (front.counter("rollcall_follow_up", "") == 1.0).then_some(())
        });
        Self {
            users,
            things,
            bootstrap,
            front,
            redis,
        }
    }

    fn note(&self, secret: &str) {
        for world in [&self.users, &self.things, &self.bootstrap, &self.front] {
            world.secrets.add(secret);
        }
    }

    /// The access token of somebody.
    fn sign_in(&self, identity: &str, secret: &str) -> String {
        let body = json!({ "identity": identity, "secret": secret });
        let signed_in = post(
            &self.users,
            "http.users",
            "/users/tokens/issue",
            None,
            &body,
        );
        assert_eq!(signed_in.status, 201, "{signed_in:?}");
        let pair = signed_in.json();
        for token in ["access_token", "refresh_token"] {
            self.note(pair[token].as_str().expect("a token"));
        }
        pair["access_token"].as_str().expect("a token").to_owned()
    }
}

fn call(world: &World, site: &str, what: &str, token: &str) -> Answer {
    let bearer = format!("Authorization: Bearer {token}");
    send(world.listener(site), what, &[&bearer], b"")
}

fn post(world: &World, site: &str, path: &str, token: Option<&str>, body: &Value) -> Answer {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut headers = vec!["Content-Type: application/json"];
    headers.extend(bearer.as_deref());
    let body = body.to_string();
    send(
        world.listener(site),
        &format!("POST {path}"),
        &headers,
        body.as_bytes(),
    )
}

fn id(answer: &Answer) -> String {
    assert!(answer.status < 300, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[test]
fn four_processes_are_one_rollcall() {
    let parts = Parts::start();
    let banner = parts.users.banner().join("\n");
    let (_, password) = banner.split_once("password ").expect("a first start");
    let password = password.split_whitespace().next().expect("one");
    let admin = parts.sign_in("admin@localhost", password);

    // Somebody with a thing and a channel.
    let secret = "open sesame, please";
    parts.note(secret);
    let credentials = json!({ "identity": "owner@example.com", "secret": secret });
    let new = json!({ "name": "owner", "credentials": credentials });
    let owner_id = id(&post(&parts.users, "http.users", "/users", None, &new));
    let owner = parts.sign_in("owner@example.com", secret);
    let things = &parts.things;
    let made = post(
        things,
        "http.things",
        "/things",
        Some(&owner),
        &json!({ "name": "lamp" }),
    );
    let key = made.json()["credentials"]["secret"]
        .as_str()
        .expect("a key")
        .to_owned();
    parts.note(&key);
    let thing = Thing { id: id(&made), key };
    let new = json!({ "name": "room" });
    let channel = id(&post(
        things,
        "http.things",
        "/channels",
        Some(&owner),
        &new,
    ));
    let pair = json!({ "subjects": [thing.id], "objects": [channel] });
    let connected = post(things, "http.things", "/connect", Some(&owner), &pair);
    assert_eq!(connected.status, 200, "{connected:?}");

    // The device comes, and loses its channel while it is here.
    let topic = format!("channels/{channel}/messages");
    let mut client = parts.front.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    assert_eq!(client.publish(&topic, b"on", 1), 0);
    assert_eq!(client.take().payload, b"on");
    let policy = format!("DELETE /policies/{}/{channel}", thing.id);
    assert_eq!(call(things, "http.things", &policy, &owner).status, 204);
    client.expect_disconnect(0x87);

    // Administrators are administrators everywhere; who is disabled is nobody anywhere.
    let show = format!("GET /things/{}", thing.id);
    assert_eq!(call(things, "http.things", &show, &admin).status, 200);
    assert_eq!(call(things, "http.things", &show, "x").status, 401);
    let configs = "GET /things/configs";
    let bootstrap = &parts.bootstrap;
    assert_eq!(
        call(bootstrap, "http.bootstrap", configs, &owner).status,
        200
    );
    let disable = format!("POST /users/{owner_id}/disable");
    assert_eq!(
        call(&parts.users, "http.users", &disable, &admin).status,
        200
    );
    for (world, site, what) in [
        (things, "http.things", &*show),
        (bootstrap, "http.bootstrap", configs),
    ] {
        wait_for("the owner to be out", || {
            (call(world, site, what, &owner).status == 401).then_some(())
        });
    }

    // Each has told what it did.
    for (stream, field, expected) in [
        ("mainflux.users", "operation", "user.create"),
        ("mainflux.users", "operation", "user.identify"),
        ("mainflux.things", "operation", "thing.create"),
        ("mainflux.things", "operation", "thing.identify"),
        ("mainflux.mqtt", "event_type", "connect"),
        ("mainflux.mqtt", "event_type", "disconnect"),
    ] {
        wait_for(expected, || {
            let events = parts.redis.stream(stream);
            let found = events
                .iter()
                .any(|it| it.get(field).is_some_and(|it| it == expected));
            found.then_some(())
        });
    }
}
