//! What becomes of requests while no event can be kept.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::rest::{Rest, send};
use crate::world::World;

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

#[test]
fn all_is_shown_though_nobody_can_be_told_and_nothing_is_changed() {
    let world = World::start();
    let [users, things, bootstrap] = ["http.users", "http.things", "http.bootstrap"]
        .map(|service| Rest::at(&world, world.listener(service)));
    let none = Value::Null;
    let login = json!({ "identity": "ann@example.org", "secret": "the password of ann" });
    let ann = users.expect(201, "POST /users", &json!({ "credentials": login }));
    let ann = text(&ann.json()["id"]);
    let token = users.expect(201, "POST /users/tokens/issue", &login).json();
    let token = text(&token["access_token"]);
    world.secrets.add(&*token);
    let group = users.expect(201, "POST /groups", &json!({ "name": "garden" }));
    let group = text(&group.json()["id"]);
    let key = json!({ "secret": "the key of the lamp" });
    let thing = things.expect(201, "POST /things", &json!({ "credentials": key }));
    let thing = text(&thing.json()["id"]);
    let channel = things.expect(201, "POST /channels", &json!({ "name": "kitchen" }));
    let channel = text(&channel.json()["id"]);
    let pair = json!({ "subject": thing, "object": channel });
    things.expect(201, "POST /policies", &pair);
    let config = json!({ "thing_id": thing, "external_id": "1", "external_key": "a sticker" });
    bootstrap.expect(201, "POST /things/configs", &config);

    let file = world.folder().join("data/rollcall.db");
    let database = Connection::open(file).expect("a database");
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'full'); END";
    database.execute_batch(refuse).expect("done");
    let lost = || world.counter("rollcall_events_lost_total", "");
    let before = lost();
    let mut asked = 0.0;
    for (service, paths) in [
        (
            &users,
            vec![
                "/users/profile".to_owned(),
                "/users".to_owned(),
                format!("/users/{ann}"),
                format!("/users/{ann}/memberships"),
                "/groups".to_owned(),
                format!("/groups/{group}"),
                format!("/groups/{group}/children"),
                format!("/groups/{group}/members"),
                "/policies".to_owned(),
            ],
        ),
        (
            &things,
            vec![
                "/things".to_owned(),
                format!("/things/{thing}"),
                format!("/things/{thing}/channels"),
                "/channels".to_owned(),
                format!("/channels/{channel}"),
                format!("/channels/{channel}/things"),
                "/policies".to_owned(),
            ],
        ),
        (
            &bootstrap,
            vec![
                "/things/configs".to_owned(),
                format!("/things/configs/{thing}"),
            ],
        ),
    ] {
        for path in paths {
            service.expect(200, &format!("GET {path}"), &none);
            asked += 1.0;
        }
    }
    // Who asks is asked about with a word, too.
    let bearer = format!("Authorization: Bearer {token}");
    let mine = send(
        world.listener("http.things"),
        "GET /things",
        &[&bearer],
        b"",
    );
    assert_eq!(mine.status, 200, "{mine:?}");
    let device = "Authorization: Thing a sticker";
    let what = "GET /things/bootstrap/1";
    let given = send(world.listener("http.bootstrap"), what, &[device], b"");
    assert_eq!(given.status, 200, "{given:?}");
    let question =
        json!({ "subject": ann, "object": ann, "action": "c_list", "entity_type": "client" });
    users.expect(200, "POST /authorize", &question);
    assert!(lost() - before >= asked + 4.0, "{}", lost());

    users.expect(503, "POST /groups", &json!({ "name": "yard" }));
    database.execute_batch("DROP TRIGGER refuse").expect("done");
    let groups = users.expect(200, "GET /groups", &none).json();
    assert_eq!(groups["total"], 1, "{groups}");
    users.expect(201, "POST /groups", &json!({ "name": "yard" }));
}
