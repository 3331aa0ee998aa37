//! The REST interface, as clients of the platform use it.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::client::{Client, Hello};
use crate::world::{Thing, World};

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends one request, such as `GET /path`.
pub(crate) fn send(address: &str, what: &str, headers: &[&str], body: &[u8]) -> Answer {
    try_send(address, what, headers, body).expect("an answer")
}

/// # Errors
/// There is no server, or it went away before it has answered as a whole.
pub(crate) fn try_send(
    address: &str,
    what: &str,
    headers: &[&str],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    let mut request = format!("{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    stream.write_all(request.as_bytes())?;
    // Who refuses early does not read on.
    let _ = stream.write_all(body);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let reply = String::from_utf8(reply).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        assert!(text.contains("application/octet-stream"), "text: {text}");
        text
    });
    let cut_off = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    assert!(!head.contains("transfer-encoding"), "not understood here");
    let answer = Answer {
        status: status.expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    };
    let length = answer
        .header("content-length")
        .and_then(|it| it.parse().ok());
    match length {
        Some(length) if answer.body.len() < length => Err(cut_off()),
        _ => Ok(answer),
    }
}

/// A client with the token of the administrator.
pub(crate) struct Rest<'a> {
    world: &'a World,
    address: &'a str,
    pub(crate) bearer: String,
}

impl<'a> Rest<'a> {
    pub(crate) fn things(world: &'a World) -> Self {
        Self::at(world, world.listener("http.things"))
    }

    pub(crate) fn at(world: &'a World, address: &'a str) -> Self {
        let token = world.folder().join("data/secrets/admin.token");
        let token = std::fs::read_to_string(token).expect("a token");
        let bearer = format!("Authorization: Bearer {token}");
        Self {
            world,
            address,
            bearer,
        }
    }

    /// Without a body.
    pub(crate) fn call(&self, what: &str) -> Answer {
        send(self.address, what, &[&self.bearer], b"")
    }

    pub(crate) fn send(&self, what: &str, body: &Value) -> Answer {
        self.world.secrets.add_from(body);
        let headers = [&self.bearer, "Content-Type: application/json"];
        send(self.address, what, &headers, body.to_string().as_bytes())
    }

    /// A body as it is, whose secrets are nobody's to look for.
    pub(crate) fn send_bytes(&self, what: &str, body: &[u8]) -> Answer {
        let headers = [&*self.bearer, "Content-Type: application/json"];
        send(self.address, what, &headers, body)
    }

    pub(crate) fn expect(&self, status: u16, what: &str, body: &Value) -> Answer {
        let answer = match body {
            Value::Null => self.call(what),
            body => self.send(what, body),
        };
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        answer
    }
}

fn topic(channel: &str) -> String {
    format!("channels/{channel}/messages")
}

fn member(world: &World, thing: &Thing, channel: &str) -> Client {
    let mut client = world.client(Hello::of(thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(channel), 1)]), [1]);
    client
}

#[test]
fn every_way_to_take_away_ends_what_it_should() {
    let world = World::start();
    let rest = Rest::things(&world);
    let (mut thing, channel) = world.member();
    let id = thing.id.clone();
    let none = Value::Null;

    let mut client = member(&world, &thing, &channel);
    rest.expect(204, &format!("DELETE /policies/{id}/{channel}"), &none);
    client.expect_disconnect(0x87);
    rest.expect(404, &format!("DELETE /policies/{id}/{channel}"), &none);

    let policy = json!({ "subject": id, "object": channel });
    assert_eq!(rest.expect(201, "POST /policies", &policy).body, "");
    let mut client = member(&world, &thing, &channel);
    let pairs = json!({ "subjects": [id], "objects": [channel] });
    assert_eq!(rest.expect(204, "POST /disconnect", &pairs).body, "");
    client.expect_disconnect(0x87);

    // Replaced by less.
    let answer = rest.expect(200, "POST /connect", &pairs).json();
    assert_eq!(
        answer["policies"][0]["actions"],
        json!(["m_write", "m_read"])
    );
    let mut client = member(&world, &thing, &channel);
    let reduced = json!({ "subject": id, "object": channel, "actions": ["m_write"] });
    assert_eq!(rest.expect(204, "PUT /policies", &reduced).body, "");
    assert_eq!(client.publish(&topic(&channel), b"x", 1), 0);
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [0x87]);
    rest.expect(200, "POST /connect", &pairs);
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);

    let answer = rest.expect(200, &format!("POST /channels/{channel}/disable"), &none);
    assert_eq!(answer.json()["status"], "disabled");
    client.expect_disconnect(0x87);
    rest.expect(200, &format!("POST /channels/{channel}/enable"), &none);
    let mut client = member(&world, &thing, &channel);

    let secret = json!({ "secret": "a secret of its own" });
    let answer = rest.expect(200, &format!("PATCH /things/{id}/secret"), &secret);
    assert_eq!(answer.json()["credentials"], json!({}));
    client.expect_disconnect(0x87);
    "a secret of its own".clone_into(&mut thing.key);
    let mut client = member(&world, &thing, &channel);

    let answer = rest.expect(200, &format!("POST /things/{id}/disable"), &none);
    assert_eq!(answer.json()["status"], "disabled");
    client.expect_disconnect(0x87);
    rest.expect(409, &format!("POST /things/{id}/disable"), &none);
    rest.expect(200, &format!("POST /things/{id}/enable"), &none);
    member(&world, &thing, &channel);
}

#[test]
fn what_is_shown_has_the_form_of_the_platform() {
    let world = World::start();
    let rest = Rest::things(&world);
    let (thing, channel) = world.member();
    let none = Value::Null;
    let path = format!("GET /things/{}", thing.id);
    let shown = rest.expect(200, &path, &none).json();
    let names = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let expected = [
        "created_at",
        "credentials",
        "id",
        "name",
        "owner",
        "status",
        "updated_at",
    ];
    assert_eq!(names(&shown), expected);
    assert_eq!(shown["credentials"], json!({ "secret": thing.key }));
    assert_eq!(shown["updated_at"], "0001-01-01T00:00:00Z");
    let changed = rest.expect(200, &format!("POST /things/{}/disable", thing.id), &none);
    let changed = changed.json();
    assert!(names(&changed).contains(&"updated_by".to_owned()));
    assert_ne!(changed["updated_at"], "0001-01-01T00:00:00Z");
    rest.expect(200, &format!("POST /things/{}/enable", thing.id), &none);

    let changed = rest.expect(200, &format!("POST /channels/{channel}/disable"), &none);
    let expected = [
        "created_at",
        "id",
        "name",
        "owner_id",
        "status",
        "updated_at",
        "updated_by",
    ];
    assert_eq!(names(&changed.json()), expected);
    rest.expect(200, &format!("POST /channels/{channel}/enable"), &none);

    let pairs = json!({ "subjects": [thing.id], "objects": [channel], "actions": ["m_read"] });
    let mut answer = rest.expect(200, "POST /connect", &pairs).json();
    let policy = answer["policies"][0].take();
    assert_eq!(
        answer,
        json!({ "limit": 0, "offset": 0, "total": 0, "policies": [null] })
    );
    let expected = [
        "actions",
        "created_at",
        "object",
        "owner_id",
        "subject",
        "updated_at",
        "updated_by",
    ];
    assert_eq!(names(&policy), expected);
    assert_eq!(policy["actions"], json!(["m_read"]));
    assert!(policy["created_at"].as_str() < policy["updated_at"].as_str());

    let health = send(rest.address, "GET /health", &[], b"");
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &json!("pass"))
    );
    assert!(health.head.contains("application/health+json"));
}

#[test]
fn whoever_has_a_key_may_ask_about_it() {
    let world = World::start();
    let address = world.listener("http.things");
    let (thing, channel) = world.member();
    world.grant(&thing, &channel, "m_read");
    let json = "Content-Type: application/json";
    let key = format!("Authorization: Thing {}", thing.key);
    let answer = send(address, "POST /identify", &[&key, json], b"");
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "id": thing.id }))
    );
    for (headers, status) in [
        (&["Authorization: Thing nobody", json][..], 404),
        (&[json], 400),
        (&["Authorization: Bearer x", json], 400),
        (&[&*key], 415),
    ] {
        assert_eq!(
            send(address, "POST /identify", headers, b"").status,
            status,
            "{headers:?}"
        );
    }

    let ask = |path: &str, body: &Value| {
        let what = format!("POST /channels/{path}/access");
        send(address, &what, &[json], body.to_string().as_bytes())
    };
    let question =
        |action: &str| json!({ "subject": thing.key, "action": action, "entity_type": "thing" });
    let answer = ask(&channel, &question("m_read"));
    let expected = json!({ "thing_id": thing.id, "authorized": true });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(ask(&channel, &question("m_write")).status, 403);
    assert_eq!(ask(&thing.id, &question("m_read")).status, 403);
    assert_eq!(ask("nonsense", &question("m_read")).status, 403);
    assert_eq!(ask(&channel, &question("c_list")).status, 400);
    let mut other = question("m_read");
    other["object"] = json!(channel);
    assert_eq!(ask("nonsense", &other).status, 200);
    other["entity_type"] = json!("weather");
    assert_eq!(ask(&channel, &other).status, 400);
    let nobody = json!({ "subject": "nobody", "action": "m_read", "entity_type": "thing" });
    assert_eq!(ask(&channel, &nobody).status, 403);
    assert_eq!(ask(&channel, &json!({})).status, 400);
}

#[test]
fn mistakes_are_answered_in_json_and_tell_no_secret() {
    let world = World::with(&[("ROLLCALL_HTTP__MAX_BODY", "2KiB")]);
    let rest = Rest::things(&world);
    let (thing, channel) = world.member();
    let nobody = "76a58221-e319-492a-be3e-b3d15631e92a";
    let json = "Content-Type: application/json";
    let disable = format!("POST /things/{}/disable", thing.id);
    let secret = format!("PATCH /things/{}/secret", thing.id);
    let large = format!("{{\"secret\":\"{}\"}}", "x".repeat(3000));
    let wrong = "Authorization: Bearer a token that nobody has";
    world.secrets.add("a token that nobody has");
    world.secrets.add("a secret that is none");
    let bearer = &*rest.bearer;
    let cases: &[(&str, &[&str], &str, u16)] = &[
        (&disable, &[], "", 401),
        (&disable, &[wrong], "", 401),
        (&disable, &["Authorization: Bearer"], "", 401),
        ("POST /things/lamp/disable", &[bearer], "", 400),
        (
            &format!("POST /things/{nobody}/disable"),
            &[bearer],
            "",
            404,
        ),
        (
            &format!("POST /channels/{nobody}/disable"),
            &[bearer],
            "",
            404,
        ),
        (
            &secret,
            &[json],
            "{\"secret\":\"a secret that is none\"}",
            401,
        ),
        (
            &secret,
            &[bearer],
            "{\"secret\":\"a secret that is none\"}",
            415,
        ),
        (&secret, &[bearer, "Content-Type: text/plain"], "{}", 415),
        (
            &secret,
            &[bearer, json],
            "{\"secret\":a secret that is none",
            400,
        ),
        (&secret, &[bearer, json], "[\"a secret that is none\"]", 400),
        (&secret, &[bearer, json], "{}", 400),
        (&secret, &[bearer, json], "{\"secret\":\"short\"}", 400),
        (&secret, &[bearer, json], &large, 413),
        (
            "POST /connect",
            &[bearer, json],
            "{\"subjects\":[],\"objects\":[]}",
            400,
        ),
        (
            "POST /policies",
            &[bearer, json],
            &json!({ "subject": thing.id, "object": channel, "actions": ["m_fly"] }).to_string(),
            400,
        ),
        (
            "PUT /policies",
            &[bearer, json],
            &json!({ "subject": thing.id, "object": channel, "actions": [] }).to_string(),
            400,
        ),
        (
            "PUT /policies",
            &[bearer, json],
            &json!({ "subject": thing.id, "object": nobody, "actions": ["m_read"] }).to_string(),
            404,
        ),
        ("GET /nowhere", &[bearer], "", 404),
        ("GET /connect", &[bearer], "", 405),
    ];
    for (what, headers, body, status) in cases {
        let answer = send(rest.address, what, headers, body.as_bytes());
        assert_eq!(answer.status, *status, "{what} {headers:?}: {answer:?}");
        let told = answer.json();
        assert!(told["error"].is_string() && told["message"].is_string());
        assert!(!answer.body.contains("a secret") && !answer.body.contains("a token"));
    }
    // Nothing has changed.
    member(&world, &thing, &channel);
}

#[test]
fn sessions_are_ended_over_http() {
    let world = World::start();
    let rest = Rest::at(&world, world.http_address());
    let thing = world.thing("lamp");
    let mut client = world.client(Hello::of(&thing, "c").five());
    let listing: Value = serde_json::from_str(&world.http("/presence").1).expect("JSON");
    let session = listing["sessions"][0]["session_id"].as_str().expect("text");
    let delete = format!("DELETE /sessions/{session}");
    let stranger = send(rest.address, &delete, &["Authorization: Bearer x"], b"");
    assert_eq!(stranger.status, 401);
    client.expect_silence();
    let answer = rest.call(&format!("{delete}?reason=maintenance"));
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "ended": 1, "forgotten": 0 }))
    );
    let goodbye = client.receive();
    assert_eq!((goodbye.first, goodbye.body[0]), (0xE0, 0x98));
    assert!(goodbye.body.ends_with(b"maintenance"));
    assert_eq!(rest.call(&delete).status, 404);

    let mut lasting = world.client(Hello::of(&thing, "d").five().lasting());
    let answer = rest.call(&format!("DELETE /things/{}/sessions?forget=true", thing.id));
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "ended": 1, "forgotten": 1 }))
    );
    lasting.expect_disconnect(0x98);
    let hello = Hello::of(&thing, "d").five().lasting();
    assert!(!Client::connect(world.mqtt(), hello).1.present);
    for what in [
        "DELETE /sessions/lamp",
        "DELETE /things/lamp/sessions",
        &format!("DELETE /things/{}/sessions?forget=perhaps", thing.id),
        &format!("DELETE /things/{}/sessions?reason=", thing.id),
    ] {
        assert_eq!(rest.call(what).status, 400, "{what}");
    }
}

#[test]
fn each_service_has_an_address_over_http_or_none() {
    let world = World::start();
    for service in ["users", "things", "bootstrap"] {
        let address = world.listener(&format!("http.{service}"));
        let health = send(address, "GET /health", &[], b"").json();
        assert_eq!(health["description"], format!("{service} service"));
    }
    let world = World::with(&[
        ("ROLLCALL_HTTP__USERS", ""),
        ("ROLLCALL_HTTP__THINGS", ""),
        ("ROLLCALL_HTTP__BOOTSTRAP", ""),
    ]);
    assert!(!world.ready().contains("http."), "{}", world.ready());
    for (key, value, told) in [
        ("ROLLCALL_HTTP__USERS", "9002", "http.users"),
        ("ROLLCALL_HTTP__BOOTSTRAP", ":", "http.bootstrap"),
        ("ROLLCALL_HTTP__THINGS", "nowhere", "http.things"),
        ("ROLLCALL_HTTP__MAX_BODY", "much", "max_body"),
    ] {
        let output = World::prepared(&[(key, value)])
            .up()
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(told), "{error}");
    }
}

#[test]
fn a_service_describes_itself() {
    let world = World::start();
    let address = world.listener("http.things");
    let document = send(address, "GET /openapi.json", &[], b"");
    assert_eq!(document.status, 200);
    let document = document.json();
    let operation = &document["paths"]["/things/{id}"]["get"];
    assert_eq!(operation["operationId"], "viewThing");
    assert_eq!(operation["parameters"][0]["name"], "id");
    assert_eq!(operation["security"], json!([{ "token": [] }]));
    assert!(operation["responses"]["200"]["content"]["application/json"].is_object());
    assert!(operation["responses"]["401"].is_object());
    let body = &document["paths"]["/connect"]["post"]["requestBody"];
    assert_eq!(body["required"], true);
    let metrics = send(address, "GET /metrics", &[], b"");
    assert!(metrics.body.contains("rollcall_http_connections"));
    assert_eq!(send(address, "POST /health", &[], b"").status, 405);
}
