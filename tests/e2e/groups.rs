//! Groups of users, and what users may do on them: over REST and gRPC, and at the command line.

use serde_json::{Value, json};

use crate::rest::{Answer, send};
use crate::world::World;

/// Somebody with a token, at the users service.
struct Somebody<'a> {
    world: &'a World,
    bearer: String,
}

impl<'a> Somebody<'a> {
    fn admin(world: &'a World) -> Self {
        let token = world.folder().join("data/secrets/admin.token");
        Self::with(world, &std::fs::read_to_string(token).expect("a token"))
    }

    fn with(world: &'a World, token: &str) -> Self {
        let bearer = format!("Authorization: Bearer {token}");
        Self { world, bearer }
    }

    fn ask(&self, what: &str, body: &Value) -> Answer {
        let headers = [&*self.bearer, "Content-Type: application/json"];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let address = self.world.listener("http.users");
        send(address, what, &headers, body.as_bytes())
    }

    fn expect(&self, status: u16, what: &str, body: &Value) -> Value {
        let answer = self.ask(what, body);
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    fn get(&self, what: &str) -> Value {
        self.expect(200, &format!("GET {what}"), &Value::Null)
    }

    fn group(&self, name: &str, parent: Option<&str>) -> String {
        let new = json!({ "name": name, "parent_id": parent });
        let made = self.expect(201, "POST /groups", &new);
        text(&made["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn names(page: &Value) -> Vec<String> {
    let groups = page["groups"].as_array().expect("groups");
    groups.iter().map(|it| text(&it["name"])).collect()
}

/// A user who has registered, with a token: id and somebody.
fn register<'a>(world: &'a World, by: Option<&Somebody>, name: &str) -> (String, Somebody<'a>) {
    let address = world.listener("http.users");
    let identity = format!("{name}@example.com");
    let secret = format!("the password of {name}");
    world.secrets.add(secret.as_str());
    let credentials = json!({ "identity": identity, "secret": secret });
    let new = json!({ "name": name, "credentials": credentials });
    let mut headers = vec!["Content-Type: application/json"];
    headers.extend(by.map(|by| &*by.bearer));
    let made = send(address, "POST /users", &headers, new.to_string().as_bytes());
    assert_eq!(made.status, 201, "{made:?}");
    let made: Value = serde_json::from_str(&made.body).expect("JSON");
    let body = credentials.to_string();
    let issued = send(
        address,
        "POST /users/tokens/issue",
        &headers[..1],
        body.as_bytes(),
    );
    let issued: Value = serde_json::from_str(&issued.body).expect("JSON");
    for token in ["access_token", "refresh_token"] {
        world.secrets.add(text(&issued[token]));
    }
    (
        text(&made["id"]),
        Somebody::with(world, &text(&issued["access_token"])),
    )
}

const NONE: Value = Value::Null;

#[test]
fn a_group_is_made_changed_and_shut_over_rest() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let new = json!({ "name": "hall", "description": "large", "metadata": { "a": [1, 2] } });
    let answer = admin.ask("POST /groups", &new);
    assert_eq!(answer.status, 201);
    let made: Value = serde_json::from_str(&answer.body).expect("JSON");
    let id = text(&made["id"]);
    assert!(
        answer.head.contains(&format!("location: /groups/{id}")),
        "{answer:?}"
    );
    assert_eq!(made["description"], "large");
    assert_eq!(made["metadata"], json!({ "a": [1, 2] }));
    assert_eq!(made["status"], "enabled");
    assert_eq!(made["updated_at"], "0001-01-01T00:00:00Z");
    for absent in ["parent_id", "updated_by", "level", "path", "children"] {
        assert!(made.get(absent).is_none(), "{absent}");
    }
    assert_eq!(admin.get(&format!("/groups/{id}")), made);

    let change = json!({ "name": "great hall", "metadata": {} });
    let changed = admin.expect(200, &format!("PUT /groups/{id}"), &change);
    assert_eq!(changed["name"], "great hall");
    assert_eq!(changed["description"], "large");
    assert_eq!(changed["updated_by"], made["owner_id"]);
    assert!(changed.get("metadata").is_none());

    let shut = admin.expect(200, &format!("POST /groups/{id}/disable"), &NONE);
    assert_eq!(shut["status"], "disabled");
    admin.expect(409, &format!("POST /groups/{id}/disable"), &NONE);
    assert_eq!(admin.get("/groups")["total"], 0);
    assert_eq!(names(&admin.get("/groups?status=disabled")), ["great hall"]);
    admin.expect(200, &format!("POST /groups/{id}/enable"), &NONE);

    let operations: Vec<_> = world
        .stream("users")
        .iter()
        .map(|event| event["operation"].clone())
        .filter(|operation| operation.starts_with("group."))
        .collect();
    let expected =
        "group.create group.view group.update group.remove group.list group.list group.remove";
    assert_eq!(operations.join(" "), expected);
}

#[test]
fn what_cannot_be_is_refused_with_the_right_status() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let id = admin.group("hall", None);
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let user = text(&admin.get(&format!("/groups/{id}"))["owner_id"]);
    let policy = |subject: &str, object: &str, actions: &[&str]| json!({ "subject": subject, "object": object, "actions": actions });
    for (status, what, body) in [
        (409, "POST /groups".to_owned(), json!({ "name": "hall" })),
        (400, "POST /groups".to_owned(), json!({})),
        (
            400,
            "POST /groups".to_owned(),
            json!({ "name": "x".repeat(1_025) }),
        ),
        (
            400,
            "POST /groups".to_owned(),
            json!({ "name": "x", "parent_id": nowhere }),
        ),
        (
            400,
            "POST /groups".to_owned(),
            json!({ "name": "x", "parent_id": "x" }),
        ),
        (
            400,
            "POST /groups".to_owned(),
            json!({ "name": "x", "owner_id": nowhere }),
        ),
        (
            400,
            "POST /groups".to_owned(),
            json!({ "name": "x", "status": "open" }),
        ),
        (404, format!("GET /groups/{nowhere}"), NONE),
        (400, "GET /groups/x".to_owned(), NONE),
        (
            404,
            format!("PUT /groups/{nowhere}"),
            json!({ "name": "x" }),
        ),
        (
            400,
            format!("PUT /groups/{id}"),
            json!({ "name": "x".repeat(1_025) }),
        ),
        (404, format!("POST /groups/{nowhere}/disable"), NONE),
        (404, format!("GET /groups/{nowhere}/children"), NONE),
        (400, "GET /groups?level=6".to_owned(), NONE),
        (400, "GET /groups?dir=2".to_owned(), NONE),
        (400, "GET /groups?tree=maybe".to_owned(), NONE),
        (400, "GET /groups?limit=101".to_owned(), NONE),
        (400, "GET /groups?metadata=x".to_owned(), NONE),
        (
            400,
            "POST /policies".to_owned(),
            policy(&user, &id, &["fly"]),
        ),
        (400, "POST /policies".to_owned(), policy(&user, &id, &[])),
        (
            400,
            "POST /policies".to_owned(),
            policy(nowhere, &id, &["g_list"]),
        ),
        (
            404,
            "POST /policies".to_owned(),
            policy(&user, nowhere, &["g_list"]),
        ),
        (
            404,
            "PUT /policies".to_owned(),
            policy(&user, &id, &["g_list"]),
        ),
        (204, format!("DELETE /policies/{user}/{id}"), NONE),
        (400, "GET /policies?action=fly".to_owned(), NONE),
    ] {
        admin.expect(status, &what, &body);
    }
    let address = world.listener("http.users");
    for what in ["GET /groups", "POST /groups", "GET /policies"] {
        assert_eq!(send(address, what, &[], b"").status, 401, "{what}");
        let wrong = ["Authorization: Bearer x"];
        assert_eq!(send(address, what, &wrong, b"").status, 401, "{what}");
    }
    let plain = send(
        address,
        "POST /groups",
        &[&admin.bearer],
        b"{\"name\":\"x\"}",
    );
    assert_eq!(plain.status, 415);
}

#[test]
fn a_tree_is_shown_from_any_of_its_groups() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let root = admin.group("root", None);
    let left = admin.group("left", Some(&root));
    admin.group("right", Some(&root));
    let leaf = admin.group("leaf", Some(&left));

    let below = admin.get(&format!("/groups/{root}/children"));
    assert_eq!(names(&below), ["root", "left", "right", "leaf"]);
    assert_eq!(below["total"], 4);
    let last = &below["groups"][3];
    assert_eq!(last["level"], 2);
    assert_eq!(last["path"], format!("{root}.{left}.{leaf}"));
    assert_eq!(last["parent_id"], left);
    let near = admin.get(&format!("/groups/{root}/children?level=1"));
    assert_eq!(names(&near), ["root", "left", "right"]);
    assert_eq!(near["level"], 1);
    let above = admin.get(&format!("/groups/{leaf}/parents"));
    assert_eq!(names(&above), ["root", "left", "leaf"]);
    assert_eq!(above["groups"][0]["level"], -2);
    let direct = admin.get(&format!("/groups?parent_id={root}"));
    assert_eq!(names(&direct), ["left", "right"]);
    let around = admin.get(&format!("/groups?parent_id={left}&dir=1"));
    assert_eq!(names(&around), ["root", "left"]);

    let tree = admin.get(&format!("/groups/{root}/children?tree=true"));
    assert_eq!(names(&tree), ["root"]);
    let children = tree["groups"][0]["children"].as_array().expect("children");
    assert_eq!(children.len(), 2);
    assert_eq!(children[0]["children"][0]["name"], "leaf");
    assert!(children[1].get("children").is_none());

    let drawn = world.tell(&["groups", "tree", &root]);
    let drawn: Vec<_> = drawn.lines().map(|line| line.split("  ").next()).collect();
    let expected = ["GROUP", "root", "├─ left", "│", "└─ right"];
    assert_eq!(drawn, expected.map(Some));

    // Five levels below the root, and no more.
    let mut parent = leaf;
    for level in 3..=5 {
        parent = admin.group(&format!("level {level}"), Some(&parent));
    }
    let new = json!({ "name": "too deep", "parent_id": parent });
    admin.expect(400, "POST /groups", &new);
}

#[test]
fn groups_and_policies_are_managed_at_the_command_line() {
    let world = World::start();
    let hall = world.json(&["groups", "create", "hall", "--metadata", "{\"a\":1}"]);
    let (id, user) = (text(&hall["id"]), text(&hall["owner"]));
    assert_eq!(hall["metadata"], json!({ "a": 1 }));
    let yard = world.json(&["groups", "create", "yard", "--parent", &id]);
    let yard = text(&yard["id"]);
    let listing = world.json(&["groups", "list", "--metadata", "{\"a\":1}"]);
    assert_eq!(names(&listing), ["hall"]);
    assert_eq!(
        names(&world.json(&["groups", "children", &id])),
        ["hall", "yard"]
    );
    assert_eq!(
        names(&world.json(&["groups", "parents", &yard])),
        ["hall", "yard"]
    );
    assert_eq!(
        names(&world.json(&["groups", "list", "--parent", &id])),
        ["yard"]
    );
    let changed = world.json(&["groups", "update", &id, "--description", "large"]);
    assert_eq!(changed["description"], "large");
    assert_eq!(world.json(&["groups", "show", &id]), changed);

    let assigned = world.json(&["groups", "assign", &user, &id, "--actions", "g_add,c_list"]);
    assert_eq!(assigned["actions"], json!(["g_add", "g_list", "c_list"]));
    assert_eq!(names(&world.json(&["groups", "of", &user])), ["hall"]);
    let policies = ["policies", "users"];
    let cli = |arguments: &[&str]| world.json(&[&policies, arguments].concat());
    assert_eq!(
        cli(&["list", "--group", &id])["policies"][0]["subject"],
        user
    );
    assert_eq!(cli(&["list", "--action", "m_read"])["total"], 0);
    let updated = cli(&["update", &user, &id, "--actions", "m_read"]);
    assert_eq!(updated["actions"], json!(["m_read"]));
    cli(&["remove", &user, &id]);
    assert_eq!(cli(&["list"])["total"], 0);
    assert_eq!(
        cli(&["add", &user, &yard, "--actions", "g_list"])["object"],
        yard
    );
    assert!(
        world
            .tell(&["groups", "unassign", &user, &yard])
            .contains("nothing")
    );
    assert_eq!(
        world.json(&["groups", "disable", &id])["status"],
        "disabled"
    );
    assert!(
        world
            .fail(&["groups", "disable", &id])
            .contains("already disabled")
    );
    assert_eq!(world.json(&["groups", "enable", &id])["status"], "enabled");

    let told: Vec<_> = world
        .stream("users")
        .into_iter()
        .filter(|event| event["operation"].starts_with("policies."))
        .map(|event| {
            let actions = event.get("actions").cloned().unwrap_or_default();
            format!("{} {actions}", event["operation"])
        })
        .collect();
    let expected = [
        "policies.add [g_add,c_list]",
        "policies.list ",
        "policies.list ",
        "policies.update [m_read]",
        "policies.delete [m_read]",
        "policies.list ",
        "policies.add [g_list]",
        "policies.delete [g_list]",
    ];
    assert_eq!(told, expected);
}

#[test]
fn who_is_let_may_do_what_he_is_let_and_no_more() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let (_, ann) = register(&world, None, "ann");
    let (bob_id, bob) = register(&world, None, "bob");
    let (cat_id, cat) = register(&world, None, "cat");
    let hall = ann.group("hall", None);
    let policy = |subject: &str, actions: &[&str]| json!({ "subject": subject, "object": hall, "actions": actions });
    let (view, update, disable) = (
        format!("GET /groups/{hall}"),
        format!("PUT /groups/{hall}"),
        format!("POST /groups/{hall}/disable"),
    );
    let description = json!({ "description": "larger" });
    // What is held, and what the answers are then: to view, update, disable, add somebody, list members.
    for (held, answers) in [
        ("", [403, 403, 403, 403, 403]),
        ("m_read", [403, 403, 403, 403, 403]),
        ("g_list", [200, 403, 403, 403, 403]),
        ("g_update", [200, 200, 403, 403, 403]),
        ("g_add", [200, 403, 403, 201, 403]),
        ("c_list", [200, 403, 403, 403, 200]),
        ("g_delete", [200, 403, 200, 403, 403]),
    ] {
        if !held.is_empty() {
            ann.expect(201, "POST /policies", &policy(&bob_id, &[held]));
        }
        let gift = if held.is_empty() { "g_list" } else { held };
        let asked = [
            bob.ask(&view, &NONE).status,
            bob.ask(&update, &description).status,
            bob.ask(&disable, &NONE).status,
            bob.ask("POST /policies", &policy(&cat_id, &[gift])).status,
            bob.ask(&format!("GET /groups/{hall}/members"), &NONE)
                .status,
        ];
        assert_eq!(asked, answers, "with {held:?}");
        assert_eq!(cat.ask(&update, &description).status, 403, "with {held:?}");
        ann.expect(204, &format!("DELETE /policies/{cat_id}/{hall}"), &NONE);
    }
    ann.expect(200, &format!("POST /groups/{hall}/enable"), &NONE);
    // Nobody gives what he does not hold, or takes what is not his.
    ann.expect(
        201,
        "POST /policies",
        &policy(&bob_id, &["g_add", "g_update"]),
    );
    bob.expect(201, "POST /policies", &policy(&cat_id, &["g_list"]));
    bob.expect(403, "POST /policies", &policy(&cat_id, &["g_delete"]));
    bob.expect(403, "PUT /policies", &policy(&cat_id, &["g_delete"]));
    bob.expect(204, "PUT /policies", &policy(&cat_id, &["g_update"]));
    cat.expect(403, "PUT /policies", &policy(&cat_id, &["g_list"]));
    cat.expect(403, &format!("DELETE /policies/{bob_id}/{hall}"), &NONE);
    assert_eq!(bob.get("/policies")["total"], 1);
    assert_eq!(
        bob.get("/policies")["policies"][0]["actions"],
        json!(["g_update", "g_list"])
    );
    bob.expect(403, &format!("GET /policies?owner_id={cat_id}"), &NONE);
    assert_eq!(admin.get(&format!("/policies?object={hall}"))["total"], 2);
    assert_eq!(names(&cat.get("/groups")), ["hall"]);
    let memberships = cat.get(&format!("/users/{cat_id}/memberships"));
    assert_eq!(memberships["memberships"][0]["id"], hall);
    assert_eq!(bob.get(&format!("/users/{cat_id}/memberships"))["total"], 1);

    let ask = |subject: &str, action: &str, object: &str, kind: &str| {
        let question =
            json!({ "subject": subject, "action": action, "object": object, "entity_type": kind });
        let headers = ["Content-Type: application/json"];
        let address = world.listener("http.users");
        send(
            address,
            "POST /authorize",
            &headers,
            question.to_string().as_bytes(),
        )
        .status
    };
    let token = bob.bearer.rsplit(' ').next().expect("a token");
    assert_eq!(ask(token, "g_update", &hall, "group"), 200);
    assert_eq!(ask(&bob_id, "g_list", &hall, "group"), 200);
    assert_eq!(ask(&bob_id, "g_delete", &hall, "group"), 403);
    assert_eq!(ask(token, "c_list", "things", "client"), 403);
    assert_eq!(ask(token, "fly", &hall, "group"), 400);
    assert_eq!(ask("no token", "g_list", &hall, "group"), 401);
}

#[test]
fn nobody_gets_power_over_others_by_a_group_of_his_own() {
    let world = World::start();
    let admin = Somebody::admin(&world);
    let (ann_id, ann) = register(&world, None, "ann");
    let (bob_id, _) = register(&world, None, "bob");
    let (own_id, _) = register(&world, Some(&ann), "own");
    let trap = ann.group("trap", None);
    let policy = |subject: &str, actions: &[&str]| json!({ "subject": subject, "object": trap, "actions": actions });
    ann.expect(
        201,
        "POST /policies",
        &policy(&ann_id, &["c_list", "c_update", "c_delete"]),
    );
    ann.expect(201, "POST /policies", &policy(&bob_id, &["g_list"]));
    ann.expect(201, "POST /policies", &policy(&own_id, &["g_list"]));
    let name = json!({ "name": "renamed" });
    for (what, body) in [
        (format!("GET /users/{bob_id}"), &NONE),
        (format!("PATCH /users/{bob_id}"), &name),
        (format!("POST /users/{bob_id}/disable"), &NONE),
    ] {
        let status = ann.ask(&what, body).status;
        assert!([403, 404].contains(&status), "{what}: {status}");
    }
    let members = |by: &Somebody| {
        let page = by.get(&format!("/groups/{trap}/members"));
        let members = page["members"].as_array().expect("members").clone();
        assert_eq!(page["total"], members.len());
        let names = members.iter().map(|it| text(&it["name"]));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(members(&ann), "ann own");
    assert_eq!(members(&admin), "ann bob own");
    // An administrator vouches.
    admin.expect(201, "POST /policies", &policy(&bob_id, &["g_list"]));
    assert_eq!(members(&ann), "ann bob own");
    ann.expect(200, &format!("PATCH /users/{bob_id}"), &name);
    // Whoever is in a group that is shut is out of reach.
    ann.expect(200, &format!("POST /groups/{trap}/disable"), &NONE);
    let status = ann.ask(&format!("PATCH /users/{bob_id}"), &name).status;
    assert!([403, 404].contains(&status), "{status}");

    let listed = world.stream("users");
    let listed = listed
        .iter()
        .rev()
        .find(|it| it["operation"] == "user.list_by_group");
    assert_eq!(listed.expect("told")["group_id"], trap);
    let shown = world.json(&["groups", "members", &trap]);
    assert_eq!(shown["total"], 3);
    let allowed = ["policies", "users", "authorize", &ann_id, "g_list", &trap];
    assert_eq!(world.json(&allowed)["authorized"], true);
    assert!(
        world
            .fail(&["policies", "users", "authorize", &bob_id, "g_add", &trap])
            .contains("denied")
    );
}
