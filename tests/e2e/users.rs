//! Users: made, changed, shut out; signed in, and in again.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::resets::{mails, token_of};
use crate::rest::{Answer, send};
use crate::world::{World, wait_for};

/// Somebody with a token, or nobody, at a service.
pub(crate) struct Somebody<'a> {
    world: &'a World,
    listener: &'static str,
    token: Option<String>,
}

impl<'a> Somebody<'a> {
    pub(crate) const fn nobody(world: &'a World) -> Self {
        Self {
            world,
            listener: "http.users",
            token: None,
        }
    }

    fn admin(world: &'a World) -> Self {
        let token = world.folder().join("data/secrets/admin.token");
        Self::with(world, &std::fs::read_to_string(token).expect("a token"))
    }

    fn with(world: &'a World, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::nobody(world)
        }
    }

    fn at(mut self, listener: &'static str) -> Self {
        self.listener = listener;
        self
    }

    pub(crate) fn ask(&self, what: &str, body: &Value) -> Answer {
        self.ask_from("http://localhost", what, body)
    }

    pub(crate) fn ask_from(&self, referer: &str, what: &str, body: &Value) -> Answer {
        self.world.secrets.add_from(body);
        let mut headers = vec!["Content-Type: application/json".to_owned()];
        if let Some(token) = &self.token {
            headers.push(format!("Authorization: Bearer {token}"));
        }
        if !referer.is_empty() {
            headers.push(format!("Referer: {referer}"));
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let address = self.world.listener(self.listener);
        send(address, what, &headers, body.as_bytes())
    }

    pub(crate) fn expect(&self, status: u16, what: &str, body: &Value) -> Value {
        let answer = self.ask(what, body);
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    fn get(&self, what: &str) -> Value {
        self.expect(200, &format!("GET {what}"), &Value::Null)
    }

    pub(crate) fn register(&self, identity: &str, secret: &str) -> String {
        let credentials = json!({ "identity": identity, "secret": secret });
        let new = json!({ "name": identity, "credentials": credentials });
        text(&self.expect(201, "POST /users", &new)["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// Access and refresh token of a new login.
pub(crate) fn sign_in(world: &World, identity: &str, secret: &str) -> [String; 2] {
    let login = json!({ "identity": identity, "secret": secret });
    let pair = Somebody::nobody(world).expect(201, "POST /users/tokens/issue", &login);
    assert_eq!(pair["access_type"], "Bearer");
    tokens(world, &pair)
}

fn tokens(world: &World, pair: &Value) -> [String; 2] {
    ["access_token", "refresh_token"].map(|name| {
        let token = text(&pair[name]);
        world.secrets.add(&*token);
        token
    })
}

fn refresh(world: &World, token: &str) -> Answer {
    Somebody::with(world, token).ask("POST /users/tokens/refresh", &Value::Null)
}

pub(crate) fn is_known(world: &World, token: &str) -> bool {
    let answer = Somebody::with(world, token).ask("GET /users/profile", &Value::Null);
    assert!(matches!(answer.status, 200 | 401), "{answer:?}");
    answer.status == 200
}

/// What was announced of users, but for what nobody has asked for here.
fn operations(world: &World) -> Vec<String> {
    let stream = world.stream("users");
    let operations = stream.iter().map(|event| event["operation"].clone());
    operations.collect()
}

pub(crate) const PASSWORD: &str = "the first password";

#[test]
fn a_user_is_made_looked_at_and_changed() {
    let world = World::start();
    let (nobody, admin) = (Somebody::nobody(&world), Somebody::admin(&world));
    let new = json!({
        "name": "ada",
        "tags": ["a", "b"],
        "credentials": { "identity": "ada@example.com", "secret": PASSWORD },
        "metadata": { "site": { "floor": 1 } },
    });
    let answer = nobody.ask("POST /users", &new);
    assert_eq!(answer.status, 201, "{answer:?}");
    let made: Value = serde_json::from_str(&answer.body).expect("JSON");
    let id = text(&made["id"]);
    assert_eq!(
        answer.header("location"),
        Some(format!("/users/{id}").as_str())
    );
    assert_eq!(
        made["credentials"],
        json!({ "identity": "ada@example.com" })
    );
    assert_eq!(made["updated_at"], "0001-01-01T00:00:00Z");
    assert!(made.get("owner").is_none() && made.get("role").is_none());
    nobody.expect(409, "POST /users", &new);

    let [access, _] = sign_in(&world, "ada@example.com", PASSWORD);
    let ada = Somebody::with(&world, &access);
    assert_eq!(ada.get("/users/profile"), made);
    assert_eq!(ada.get(&format!("/users/{id}")), made);
    let bob = ada.register("bob@example.com", PASSWORD);
    let path = format!("/users/{bob}");
    assert_eq!(ada.get(&path)["owner"], json!(id));
    // Whom she neither owns nor is.
    let other = nobody.register("other@example.com", PASSWORD);
    ada.expect(403, &format!("GET /users/{other}"), &Value::Null);
    ada.expect(403, &format!("POST /users/{other}/disable"), &Value::Null);
    let unknown = "76a58221-e319-492a-be3e-b3d15631e92a";
    ada.expect(403, &format!("GET /users/{unknown}"), &Value::Null);
    admin.expect(404, &format!("GET /users/{unknown}"), &Value::Null);
    let list = ada.get("/users");
    assert_eq!((&list["total"], &list["limit"]), (&json!(1), &json!(10)));
    assert_eq!(list["users"][0]["id"], json!(bob));
    let found = admin.get("/users?metadata=%7B%22site%22:%7B%22floor%22:1%7D%7D&tag=b");
    assert_eq!(found["users"][0]["id"], json!(id));
    assert_eq!(admin.get("/users?status=all")["total"], 4);
    admin.expect(400, "GET /users?limit=101", &Value::Null);

    let named = json!({ "name": "bob", "metadata": { "a": 1 } });
    let changed = ada.expect(200, &format!("PATCH {path}"), &named);
    assert_eq!(changed["metadata"], json!({ "a": 1 }));
    assert_eq!(changed["updated_by"], json!(id));
    let tags = json!({ "tags": ["x"] });
    let changed = ada.expect(200, &format!("PATCH {path}/tags"), &tags);
    assert_eq!(
        (&changed["tags"], &changed["name"]),
        (&json!(["x"]), &json!("bob"))
    );
    let identity = json!({ "identity": "ada@example.com" });
    ada.expect(409, &format!("PATCH {path}/identity"), &identity);
    let identity = json!({ "identity": "robert@example.com" });
    let changed = ada.expect(200, &format!("PATCH {path}/identity"), &identity);
    assert_eq!(changed["credentials"]["identity"], "robert@example.com");
    sign_in(&world, "robert@example.com", PASSWORD);
    let owner = json!({ "owner": unknown });
    ada.expect(400, &format!("PATCH {path}/owner"), &owner);
    let owner = json!({ "owner": other });
    let changed = ada.expect(200, &format!("PATCH {path}/owner"), &owner);
    assert_eq!(changed["owner"], json!(other));
    ada.expect(403, &format!("GET {path}"), &Value::Null);

    let events = world.stream("users");
    let of_bob = |operation: &str| {
        let mut events = events
            .iter()
            .filter(|event| event["operation"] == operation);
        events
            .find(|event| event.get("id") == Some(&bob))
            .expect(operation)
    };
    assert_eq!(of_bob("user.create")["owner"], id);
    assert_eq!(of_bob("user.update")["metadata"], "{\"a\":1}");
    assert_eq!(of_bob("user.update_tags")["tags"], "[x]");
    assert_eq!(
        of_bob("user.update_identity")["identity"],
        "robert@example.com"
    );
    assert_eq!(of_bob("user.update_owner")["owner"], other);
    assert_eq!(of_bob("user.update_owner")["updated_by"], id);
    let looked = operations(&world);
    for operation in [
        "user.view",
        "user.view_profile",
        "user.list",
        "user.issue_token",
    ] {
        assert!(
            looked.iter().any(|it| it == operation),
            "{operation}: {looked:?}"
        );
    }
    // Nobody has asked for other services.
    assert!(!looked.iter().any(|it| it == "user.identify"));
}

#[test]
fn nobody_becomes_administrator_unasked() {
    let world = World::start();
    let (nobody, admin) = (Somebody::nobody(&world), Somebody::admin(&world));
    let credentials = |identity: &str| json!({ "identity": identity, "secret": PASSWORD });
    let new = json!({ "credentials": credentials("eve@example.com"), "role": "admin" });
    nobody.expect(401, "POST /users", &new);
    let eve = nobody.register("eve@example.com", PASSWORD);
    let [access, _] = sign_in(&world, "eve@example.com", PASSWORD);
    let with_token = Somebody::with(&world, &access);
    let new = json!({ "credentials": credentials("other@example.com"), "role": "admin" });
    with_token.expect(403, "POST /users", &new);
    let owned = json!({
        "credentials": credentials("other@example.com"),
        "owner": "76a58221-e319-492a-be3e-b3d15631e92a",
    });
    with_token.expect(403, "POST /users", &owned);
    nobody.expect(401, "POST /users", &owned);
    let wrong = json!({ "credentials": { "identity": "a@b.c", "secret": "x".repeat(1_025) } });
    nobody.expect(400, "POST /users", &wrong);
    let made = admin.expect(201, "POST /users", &new);
    assert_eq!(made["role"], "admin");
    // Eve owns an administrator by no means.
    let path = format!("PATCH /users/{}/identity", text(&made["id"]));
    with_token.expect(403, &path, &json!({ "identity": "mine@example.com" }));
    assert_eq!(admin.get(&format!("/users/{eve}")).get("role"), None);
    for token in ["", "x", "x.y.z", &access[1..]] {
        let answer = Somebody::with(&world, token).ask("GET /users", &Value::Null);
        assert_eq!(answer.status, 401);
    }
    nobody.expect(401, "GET /users", &Value::Null);
}

#[test]
fn who_may_register_can_be_set_and_the_first_password_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "of the administrator\n").expect("written");
    let mut world = World::prepared(&[
        ("ROLLCALL_USERS__REGISTRATION", "admin"),
        ("ROLLCALL_USERS__PASSWORD_RULE", "^[a-z ]{12,}$"),
        ("ROLLCALL_ADMIN__IDENTITY", "root@example.com"),
        (
            "ROLLCALL_ADMIN__PASSWORD_FILE",
            file.to_str().expect("text"),
        ),
    ]);
    world.run();
    assert!(!world.banner().iter().any(|line| line.contains("password")));
    let [access, _] = sign_in(&world, "root@example.com", "of the administrator");
    let admin = Somebody::with(&world, &access);
    let profile = admin.get("/users/profile");
    assert_eq!(profile["name"], "admin");
    assert_eq!(profile["metadata"], json!({ "role": "admin" }));
    let new = json!({ "credentials": { "identity": "a@b.c", "secret": "a good password" } });
    Somebody::nobody(&world).expect(401, "POST /users", &new);
    let ada = admin.register("ada@example.com", "a good password");
    let [access, _] = sign_in(&world, "ada@example.com", "a good password");
    Somebody::with(&world, &access).expect(403, "POST /users", &new);
    let weak = json!({ "credentials": { "identity": "d@e.f", "secret": "A good password" } });
    admin.expect(400, "POST /users", &weak);
    assert_eq!(admin.get(&format!("/users/{ada}"))["owner"], profile["id"]);
}

#[test]
fn a_refresh_token_is_good_once_and_its_second_use_ends_the_login() {
    let mut world = World::start();
    Somebody::nobody(&world).register("ada@example.com", PASSWORD);
    let [access, first] = sign_in(&world, "ada@example.com", PASSWORD);
    let [elsewhere, _] = sign_in(&world, "ada@example.com", PASSWORD);
    assert_eq!(
        refresh(&world, &access).status,
        401,
        "an access token is none"
    );
    assert!(
        !is_known(&world, &first),
        "nor is a refresh token an access token"
    );
    let answer = refresh(&world, &first);
    assert_eq!(answer.status, 201, "{answer:?}");
    let pair = serde_json::from_str(&answer.body).expect("JSON");
    let [access, second] = tokens(&world, &pair);
    assert!(is_known(&world, &access));
    // Over a restart too.
    world.crash_and_restart();
    assert!(is_known(&world, &access));
    assert_eq!(refresh(&world, &first).status, 401);
    assert!(!is_known(&world, &access), "somebody else had it");
    assert_eq!(refresh(&world, &second).status, 401);
    assert!(is_known(&world, &elsewhere), "another login is another");

    let out = Somebody::with(&world, &elsewhere);
    out.expect(204, "POST /users/tokens/revoke", &Value::Null);
    assert!(!is_known(&world, &elsewhere));
}

#[test]
fn who_is_disabled_or_gets_another_password_is_out_at_once_everywhere() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let id = Somebody::nobody(&world).register("ada@example.com", PASSWORD);
    let thing = world.thing("lamp");
    let login = json!({ "identity": "ada@example.com", "secret": PASSWORD });
    let at_things = |token: &str| {
        let ada = Somebody::with(&world, token).at("http.things");
        let answer = ada.ask(&format!("GET /things/{}", thing.id), &Value::Null);
        answer.status
    };
    for _ in 0..3 {
        let [access, refreshing] = sign_in(&world, "ada@example.com", PASSWORD);
        assert!(is_known(&world, &access));
        assert_ne!(at_things(&access), 401);
        admin.expect(200, &format!("POST /users/{id}/disable"), &Value::Null);
        assert!(!is_known(&world, &access));
        assert_eq!(at_things(&access), 401);
        assert_eq!(refresh(&world, &refreshing).status, 401);
        Somebody::nobody(&world).expect(401, "POST /users/tokens/issue", &login);
        let path = format!("POST /users/{id}/disable");
        admin.expect(409, &path, &Value::Null);
        admin.expect(200, &format!("POST /users/{id}/enable"), &Value::Null);
        assert!(
            !is_known(&world, &access),
            "what has ended does not begin again"
        );
    }
    let [access, _] = sign_in(&world, "ada@example.com", PASSWORD);
    let ada = Somebody::with(&world, &access);
    let change = |old: &str, new: &str| json!({ "old_secret": old, "new_secret": new });
    world.secrets.add("another password");
    ada.expect(400, "PATCH /users/secret", &change(PASSWORD, "short"));
    let wrong = change("not the password", "another password");
    ada.expect(401, "PATCH /users/secret", &wrong);
    let right = change(PASSWORD, "another password");
    ada.expect(200, "PATCH /users/secret", &right);
    assert!(!is_known(&world, &access));
    Somebody::nobody(&world).expect(401, "POST /users/tokens/issue", &login);
    sign_in(&world, "ada@example.com", "another password");
    let events = world.stream("users");
    let removed = events
        .iter()
        .filter(|event| event["operation"] == "user.remove");
    assert_eq!(removed.clone().count(), 6);
    assert!(
        removed
            .clone()
            .all(|event| event["id"] == id && event.len() == 6)
    );
    let asked = events
        .iter()
        .filter(|event| event["operation"] == "user.identify");
    assert_eq!(asked.clone().count(), 3);
    assert!(asked.clone().all(|event| event["user_id"] == id));
}

#[test]
fn nobody_can_tell_a_wrong_password_from_a_user_that_there_is_not() {
    let world = World::with(&[("ROLLCALL_USERS__MAX_GUESSES", "3")]);
    let nobody = Somebody::nobody(&world);
    nobody.register("ada@example.com", PASSWORD);
    nobody.register("bob@example.com", PASSWORD);
    let login = |identity: &str, secret: &str| {
        let login = json!({ "identity": identity, "secret": secret });
        nobody.ask("POST /users/tokens/issue", &login)
    };
    let wrong = login("ada@example.com", "not her password");
    let unknown = login("eve@example.com", "not her password");
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
    for _ in 0..2 {
        assert_eq!(login("ada@example.com", "not her password").status, 401);
    }
    // Now not even the right one is looked at; others are not concerned.
    assert_eq!(login("ada@example.com", PASSWORD).status, 429);
    sign_in(&world, "bob@example.com", PASSWORD);
}

#[test]
fn the_command_line_manages_users() {
    let world = World::start();
    let file = world.folder().join("password");
    std::fs::write(&file, PASSWORD).expect("written");
    world.secrets.add(PASSWORD);
    let path = file.to_str().expect("text");
    let create = [
        "users",
        "create",
        "ada@example.com",
        "--password-file",
        path,
    ];
    let made = world.json(&[&create[..], &["--name", "ada", "--tag", "x"]].concat());
    std::fs::remove_file(&file).expect("removed");
    let id = text(&made["id"]);
    assert_eq!(
        (&made["role"], &made["tags"]),
        (&json!("user"), &json!(["x"]))
    );
    assert_eq!(world.json(&["users", "profile"])["name"], "admin");
    let list = world.tell(&["users", "list"]);
    assert!(
        list.contains("IDENTITY") && list.contains("ada@example.com"),
        "{list}"
    );
    assert_eq!(world.json(&["users", "list", "--tag", "x"])["total"], 1);
    let changed = world.json(&["users", "update", &id, "--metadata", "{\"a\":1}"]);
    assert_eq!(
        (&changed["metadata"], &changed["name"]),
        (&json!({ "a": 1 }), &json!("ada"))
    );
    assert_eq!(
        world.json(&["users", "tags", &id, "y", "z"])["tags"],
        json!(["y", "z"])
    );
    let changed = world.json(&["users", "identity", &id, "lovelace@example.com"]);
    assert_eq!(changed["identity"], "lovelace@example.com");
    assert_eq!(
        world.json(&["users", "owner", &id, &id])["owner"],
        json!(id)
    );
    assert_eq!(world.json(&["users", "disable", &id])["status"], "disabled");
    let again = world.fail(&["users", "disable", &id]);
    assert!(again.contains("already disabled"), "{again}");
    assert_eq!(world.json(&["users", "enable", &id])["status"], "enabled");
    assert_eq!(world.json(&["users", "show", &id])["status"], "enabled");
    world.tell(&["users", "reset-password", "lovelace@example.com"]);
    let mail = wait_for("a mail", || mails(&world).pop());
    token_of(&world, &mail);

    // One's own password, with one's own token.
    let [access, _] = sign_in(&world, "lovelace@example.com", PASSWORD);
    let token = world.folder().join("ada.token");
    std::fs::write(&token, &access).expect("written");
    let token = token.to_str().expect("text");
    let mut change = world.command(&["--token-file", token, "users", "password"]);
    change.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = change.spawn().expect("runs");
    let lines = format!("{PASSWORD}\nanother password\n");
    world.secrets.add("another password");
    let mut input = running.stdin.take().expect("piped");
    input.write_all(lines.as_bytes()).expect("read");
    drop(input);
    assert!(running.wait().expect("ended").success());
    std::fs::remove_file(token).expect("removed");
    sign_in(&world, "lovelace@example.com", "another password");
}
