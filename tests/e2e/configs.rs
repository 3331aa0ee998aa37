//! Configurations and the connections of their things, whoever makes and cuts them.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::rest::send;
use crate::world::{World, wait_for};

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// What the thing may do on the channel.
fn actions(world: &World, thing: &str, channel: &str) -> Value {
    let list = ["policies", "things", "list", "--subject", thing];
    let listed = world.json(&[&list[..], &["--channel", channel]].concat());
    listed["policies"][0]["actions"].clone()
}

#[test]
fn a_configuration_connects_what_is_missing_and_leaves_what_was_narrowed() {
    let world = World::start();
    let (narrow, cut) = (world.channel(), world.channel());
    let create = ["configs", "create", "ff-01", "--channel", &narrow];
    let made = world.json(&[&create[..], &["--channel", &cut]].concat());
    let thing = text(&made["thing_id"]);
    let state = || world.json(&["configs", "show", &thing])["state"].clone();
    world.tell(&["configs", "enable", &thing]);
    let both = actions(&world, &thing, &cut);
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{both}");

    world.tell(&["connect", &thing, &narrow, "--actions", "m_read"]);
    let read = actions(&world, &thing, &narrow);
    assert_ne!(read, both);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), read);

    // Cut elsewhere, it is inactive; the other one was not cut.
    world.tell(&["disconnect", &thing, &cut]);
    wait_for("it to be inactive", || (state() == 0).then_some(()));
    assert_eq!(actions(&world, &thing, &narrow), read);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(state(), 1);
    assert_eq!(actions(&world, &thing, &cut), both);
    assert_eq!(actions(&world, &thing, &narrow), read);

    // By way of inactive everything is as at first.
    world.tell(&["configs", "disable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), Value::Null);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), both);
}

#[test]
fn a_channel_that_an_inactive_configuration_loses_is_not_left_connected() {
    let world = World::start();
    let (gone, kept) = (world.channel(), world.channel());
    let create = ["configs", "create", "ff-01", "--channel", &gone];
    let made = world.json(&[&create[..], &["--channel", &kept]].concat());
    let thing = text(&made["thing_id"]);
    for channel in [&gone, &kept] {
        world.tell(&["connect", &thing, channel]);
    }
    world.tell(&["configs", "connections", &thing, &kept]);
    assert_eq!(actions(&world, &thing, &gone), Value::Null);
    assert_ne!(actions(&world, &thing, &kept), Value::Null);
    assert_eq!(world.json(&["configs", "show", &thing])["state"], 0);
}

fn aside<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["configs", "set-aside"], words].concat()
}

/// The file of the token of somebody who is no administrator.
fn somebody(world: &World) -> String {
    let credentials =
        json!({ "identity": "somebody@example.com", "secret": "open sesame, please" });
    world.secrets.add_from(&credentials);
    let new = json!({ "name": "somebody", "credentials": credentials });
    let post = |path: &str, body: &Value| {
        let (address, body) = (world.listener("http.users"), body.to_string());
        let headers = ["Content-Type: application/json"];
        let answer = send(address, &format!("POST {path}"), &headers, body.as_bytes());
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    };
    post("/users", &new);
    let pair = post("/users/tokens/issue", &credentials);
    world.secrets.add_from(&pair);
    let file = world.folder().join("data/secrets/somebody.token");
    std::fs::write(&file, text(&pair["access_token"])).expect("written");
    file.to_str().expect("text").to_owned()
}

#[test]
fn what_made_no_sense_in_the_stream_is_listed_retried_and_dropped_by_administrators() {
    let redis = RedisServer::start();
    let world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    assert_eq!(world.json(&aside(&["list"]))["total"], 0);
    let poison = |more: &[&str]| -> String {
        let what = ["XADD", "mainflux.things", "*", "operation", "thing.remove"];
        redis.command(&[&what[..], &["status", "disabled", "occurred_at", "1"], more].concat())
    };
    let (first, second) = (poison(&["id", "\u{1b}[2Jx"]), poison(&[]));
    wait_for("both to be set aside", || {
        let listed = world.json(&aside(&["list"]));
        (listed["total"] == 2).then_some(())
    });
    let entries = world.json(&aside(&["list"]))["entries"].clone();
    assert_eq!(entries[0]["id"], *first);
    assert_eq!(entries[0]["source"], "rollcall.bootstrap mainflux.things");
    assert_eq!(entries[0]["reason"], "its id is no id");
    assert_eq!(entries[0]["fields"]["id"], "\u{1b}[2Jx");
    assert_eq!(entries[1]["reason"], "it has no id");
    let table = world.tell(&aside(&["list"]));
    assert!(table.starts_with("ID "), "{table}");
    assert!(
        table.contains(&first) && !table.contains('\u{1b}'),
        "{table}"
    );

    let refused = world.fail(&aside(&["retry", &first]));
    assert!(refused.contains("its id is no id"), "{refused}");
    world.tell(&aside(&["drop", &first]));
    let unknown = world.fail(&aside(&["drop", &first]));
    assert!(unknown.contains("no such entry"), "{unknown}");
    let left = world.json(&aside(&["list"]));
    assert_eq!(
        (&left["total"], &left["entries"][0]["id"]),
        (&1.into(), &second.clone().into())
    );

    // As if an update had taught it to understand the other one.
    let made = world.json(&["configs", "create", "ff-01"]);
    let thing = text(&made["thing_id"]);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at = at.expect("after 1970").as_nanos().to_string();
    let told = [
        ("operation", "thing.remove"),
        ("status", "disabled"),
        ("id", &*thing),
        ("occurred_at", &*at),
    ];
    let database = Connection::open(world.folder().join("data/rollcall.db"));
    let database = database.expect("a database");
    let set = "UPDATE set_aside SET fields = ?1 WHERE id = ?2";
    let set = database.execute(set, [&json!(told).to_string(), &second]);
    assert_eq!(set.expect("written"), 1);
    let heard = world.json(&aside(&["retry", &second]));
    assert_eq!(heard["news"], true);
    assert_eq!(world.json(&["configs", "list"])["total"], 0);
    assert_eq!(world.json(&aside(&["list"]))["total"], 0);

    let somebody = somebody(&world);
    for words in [&["list"][..], &["retry", "1-0"], &["drop", "1-0"]] {
        let words = [&["--token-file", &somebody], &aside(words)[..]].concat();
        let refused = world.fail(&words);
        assert!(refused.contains("access denied"), "{refused}");
    }
}
