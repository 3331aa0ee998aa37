//! Things and channels of several users, over REST and at the command line.

use serde_json::{Value, json};

use crate::rest::send;
use crate::world::World;

/// Somebody with a token.
struct Somebody<'a> {
    world: &'a World,
    id: String,
    bearer: String,
}

const NONE: Value = Value::Null;

impl<'a> Somebody<'a> {
    fn admin(world: &'a World) -> Self {
        let token = world.folder().join("data/secrets/admin.token");
        let token = std::fs::read_to_string(token).expect("a token");
        Self {
            world,
            id: String::new(),
            bearer: format!("Authorization: Bearer {token}"),
        }
    }

    /// Somebody new, who has signed in.
    fn new(admin: &Self, name: &str) -> Self {
        let world = admin.world;
        let credentials =
            json!({ "identity": format!("{name}@example.com"), "secret": "a good password" });
        let new = json!({ "name": name, "credentials": credentials });
        let made = admin.at("http.users", 201, "POST /users", &new);
        let tokens = admin.at("http.users", 201, "POST /users/tokens/issue", &credentials);
        let token = text(&tokens["access_token"]);
        world.secrets.add(token.as_str());
        Self {
            world,
            id: text(&made["id"]),
            bearer: format!("Authorization: Bearer {token}"),
        }
    }

    fn at(&self, service: &str, status: u16, what: &str, body: &Value) -> Value {
        let headers = [&*self.bearer, "Content-Type: application/json"];
        self.world.secrets.add_from(body);
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let address = self.world.listener(service);
        let answer = send(address, what, &headers, text.as_bytes());
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        let value = serde_json::from_str(&answer.body).unwrap_or_default();
        self.world.secrets.add_from(&value);
        value
    }

    fn expect(&self, status: u16, what: &str, body: &Value) -> Value {
        self.at("http.things", status, what, body)
    }

    fn get(&self, path: &str) -> Value {
        self.expect(200, &format!("GET {path}"), &NONE)
    }

    fn thing(&self, new: &Value) -> Value {
        self.expect(201, "POST /things", new)
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn names(page: &Value, of: &str) -> Vec<String> {
    let items = page[of].as_array().expect("a list");
    items
        .iter()
        .map(|it| it["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_thing_is_made_changed_and_found_over_rest() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let id = "5b6a9f54-6d3c-4b8f-9c5e-0a2f8f3e1d77";
    let new = json!({
        "id": id, "name": "lamp", "tags": ["red", "big"], "metadata": { "floor": 2 },
        "credentials": { "identity": "lamp-1", "secret": "a key of its own" },
    });
    let made = admin.thing(&new);
    assert_eq!((&made["id"], &made["tags"]), (&json!(id), &new["tags"]));
    assert_eq!(made["credentials"], new["credentials"]);
    admin.expect(409, "POST /things", &new);
    let many = json!([{ "name": "a" }, { "name": "b", "status": "disabled" }]);
    let made = admin.expect(200, "POST /things/bulk", &many);
    assert_eq!(
        (&made["total"], names(&made, "things")),
        (&json!(2), vec!["a".into(), "b".into()])
    );
    let key = text(&made["things"][0]["credentials"]["secret"]);
    assert_eq!(key.len(), 36, "as the platform has them");

    let path = format!("/things/{id}");
    let changed = json!({ "name": "light", "metadata": { "floor": 3 } });
    let changed = admin.expect(200, &format!("PATCH {path}"), &changed);
    assert_eq!(
        (&changed["name"], &changed["metadata"]["floor"]),
        (&json!("light"), &json!(3))
    );
    assert_eq!(changed["credentials"]["secret"], "a key of its own");
    let tags = json!({ "tags": ["green"] });
    let tagged = admin.expect(200, &format!("PATCH {path}/tags"), &tags);
    assert_eq!(
        (&tagged["tags"], &tagged["name"]),
        (&json!(["green"]), &json!("light"))
    );
    assert_eq!(tagged["credentials"], json!({ "identity": "lamp-1" }));

    for (query, found) in [
        ("", &["light", "a"][..]),
        ("?status=all", &["light", "a", "b"]),
        ("?status=disabled", &["b"]),
        ("?tag=green", &["light"]),
        ("?tag=red", &[]),
        ("?name=a&status=all", &["a"]),
        ("?metadata=%7B%22floor%22:3%7D", &["light"]),
        ("?visibility=shared", &[]),
        ("?limit=1&offset=1", &["a"]),
    ] {
        let page = admin.get(&format!("/things{query}"));
        assert_eq!(names(&page, "things"), found, "{query}");
        assert!(!page.to_string().contains("secret"), "{query}");
    }
    admin.expect(400, "GET /things?limit=101", &NONE);
    admin.expect(400, "GET /things?status=gone", &NONE);
    admin.expect(400, "POST /things/bulk", &json!([]));
    let operations: Vec<String> = world
        .stream("things")
        .iter()
        .map(|event| event["operation"].clone())
        .filter(|it| it != "thing.list")
        .collect();
    let expected = [
        "thing.create",
        "thing.create",
        "thing.create",
        "thing.update",
        "thing.update_tags",
    ];
    assert_eq!(operations, expected);
}

#[test]
fn users_share_channels_and_what_is_connected_to_them() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let (owner, other) = (
        Somebody::new(&admin, "owner"),
        Somebody::new(&admin, "other"),
    );
    let thing = text(&owner.thing(&json!({ "name": "lamp" }))["id"]);
    let channel = json!({ "name": "hall", "description": "large" });
    let channel = text(&owner.expect(201, "POST /channels", &channel)["id"]);
    owner.expect(409, "POST /channels", &json!({ "name": "hall" }));
    other.expect(201, "POST /channels", &json!({ "name": "hall" }));
    let pairs = json!({ "subjects": [thing], "objects": [channel] });
    other.expect(404, "POST /connect", &pairs);
    owner.expect(200, "POST /connect", &pairs);

    let (view, update) = (format!("/things/{thing}"), format!("PATCH /things/{thing}"));
    let name = json!({ "name": "light" });
    other.expect(404, &format!("GET {view}"), &NONE);
    other.expect(404, &update, &name);
    other.expect(404, &format!("GET /channels/{channel}"), &NONE);
    other.expect(404, &format!("POST /channels/{channel}/disable"), &NONE);
    assert_eq!(other.get("/things")["things"], json!([]));

    let share = |actions: &[&str]| json!({ "subject": other.id, "object": channel, "actions": actions, "external": true });
    owner.expect(403, "POST /policies", &share(&["c_list"]));
    admin.expect(201, "POST /policies", &share(&["c_list"]));
    assert_eq!(other.get(&view)["credentials"], json!({}));
    assert_eq!(names(&other.get("/things"), "things"), ["lamp"]);
    assert_eq!(
        names(&other.get("/things?visibility=mine"), "things"),
        [""; 0]
    );
    assert_eq!(
        names(&other.get(&format!("/channels/{channel}/things")), "things"),
        ["lamp"]
    );
    assert_eq!(
        names(&other.get(&format!("{view}/channels")), "channels"),
        ["hall"]
    );
    other.expect(403, &update, &name);
    admin.expect(204, "PUT /policies", &share(&["c_update"]));
    assert_eq!(other.expect(200, &update, &name)["credentials"], json!({}));
    other.expect(403, &format!("POST {view}/disable"), &NONE);

    let all = admin.get("/policies");
    assert_eq!(all["total"], 2);
    assert_eq!(
        owner.get("/policies")["policies"][0]["subject"],
        json!(thing)
    );
    let shared = admin.get(&format!("/policies?client={}", other.id));
    assert_eq!(shared["policies"][0]["actions"], json!(["c_update"]));
    owner.expect(
        204,
        &format!("DELETE /policies/{}/{channel}", other.id),
        &NONE,
    );
    other.expect(404, &format!("GET {view}"), &NONE);

    let given = json!({ "owner": other.id });
    owner.expect(200, &format!("PATCH {view}/owner"), &given);
    owner.expect(404, &format!("GET {view}"), &NONE);
    assert!(other.get(&view)["credentials"]["secret"].is_string());
    other.expect(200, &format!("POST {view}/disable"), &NONE);
}

#[test]
fn channels_have_parents_and_are_changed() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let make = |name: &str, parent: Option<&str>| {
        let new = json!({ "name": name, "parent_id": parent });
        text(&admin.expect(201, "POST /channels", &new)["id"])
    };
    let house = make("house", None);
    let floor = make("floor", Some(&house));
    make("room", Some(&floor));
    let below = admin.get(&format!("/channels/{house}/children"));
    assert_eq!(names(&below, "channels"), ["house", "floor", "room"]);
    let above = admin.get(&format!("/channels/{floor}/parents"));
    assert_eq!(names(&above, "channels"), ["house", "floor"]);
    let tree = admin.get(&format!("/channels/{house}/children?tree=true"));
    assert_eq!(
        tree["channels"][0]["children"][0]["children"][0]["name"],
        "room"
    );
    let children = admin.get(&format!("/channels?parent_id={house}"));
    assert_eq!(names(&children, "channels"), ["floor"]);
    let changed = json!({ "name": "level", "description": "first", "metadata": { "n": 1 } });
    let changed = admin.expect(200, &format!("PUT /channels/{floor}"), &changed);
    assert_eq!(
        (&changed["name"], &changed["description"]),
        (&json!("level"), &json!("first"))
    );
    let many = json!([{ "name": "a" }, { "name": "b" }]);
    let made = admin.expect(200, "POST /channels/bulk", &many);
    assert_eq!(names(&made, "channels"), ["a", "b"]);
    admin.expect(400, "POST /channels", &json!({ "name": "" }));
    admin.expect(400, "GET /channels?level=6", &NONE);
}

#[test]
fn the_command_line_does_all_of_it() {
    let world = World::start();
    let made = world.json(&[
        "things",
        "create",
        "lamp",
        "--tag",
        "red",
        "--metadata",
        "{\"a\":1}",
    ]);
    let thing = text(&made["id"]);
    let channel =
        text(&world.json(&["channels", "create", "hall", "--description", "large"])["id"]);
    let room = world.json(&["channels", "create", "room", "--parent", &channel]);
    assert_eq!(room["path"], json!([channel, room["id"]]));
    world.tell(&["connect", &thing, &channel]);
    let tagged = world.json(&["things", "tags", &thing, "green", "big"]);
    assert_eq!(tagged["tags"], json!(["green", "big"]));
    let changed = world.json(&["things", "update", &thing, "--name", "light"]);
    assert_eq!(
        (&changed["name"], &changed["metadata"]),
        (&json!("light"), &json!({ "a": 1 }))
    );
    for (arguments, of, found) in [
        (
            &["things", "list", "--tag", "big"][..],
            "things",
            &["light"][..],
        ),
        (&["things", "list", "--tag", "red"], "things", &[]),
        (&["things", "channels", &thing], "channels", &["hall"]),
        (&["channels", "things", &channel], "things", &["light"]),
        (
            &["channels", "list", "--parent", &channel],
            "channels",
            &["room"],
        ),
        (
            &["channels", "children", &channel],
            "channels",
            &["hall", "room"],
        ),
        (
            &["channels", "parents", &text(&room["id"])],
            "channels",
            &["hall", "room"],
        ),
    ] {
        assert_eq!(names(&world.json(arguments), of), found, "{arguments:?}");
    }
    let shown = world.json(&["channels", "show", &channel]);
    assert_eq!(shown["description"], "large");
    let user = "76a58221-e319-492a-be3e-b3d15631e92a";
    let add = [
        "policies",
        "things",
        "add",
        user,
        &channel,
        "--actions",
        "c_list,g_list",
        "--external",
    ];
    assert_eq!(world.json(&add)["user_id"], user);
    let update = [
        "policies",
        "things",
        "update",
        &thing,
        &channel,
        "--actions",
        "m_read",
    ];
    assert_eq!(world.json(&update)["actions"], json!(["m_read"]));
    let listed = world.json(&["policies", "things", "list", "--channel", &channel]);
    assert_eq!(listed["total"], 2);
    world.tell(&["policies", "things", "delete", user, &channel, "--external"]);
    assert_eq!(world.json(&["policies", "things", "list"])["total"], 1);
    assert_eq!(
        world.json(&["things", "owner", &thing, user])["owner"],
        user
    );
}
