//! Requests as clients make them, over REST and gRPC, the answers they understand, and the events these cause: tables in
//! `tests/conformance/rest` and `tests/conformance/grpc`.
//!
//! A step is a service (`presence.rs` has those over MQTT), what is asked of it and who asks (`bare`, `as` a token, with the `key` of a thing), headers, a
//! body, then what must come back: the status, headers, and the body, `*` for any. In bodies `$time`, `$text`, `$number` and
//! `$any` stand for what they say; any other `$name` holds what is met there first, in bodies, headers and events, and means
//! that from then on, in requests too; `$admin` is the token of the first administrator, `$mailed` that of a mail, `$sealed` what a
//! device without TLS shows in place of `an external key`. A name with a question mark may be missing. Without a body in the table there must
//! be none.
//!
//! Lines with an arrow are the events that must arrive in Redis, in the order of their streams, and no others: each as
//! its golden says, and, if fields are named, with these and no others of those that may be missing.

pub(crate) mod grpc;
mod ledger;
mod names;
pub(crate) mod operations;
mod presence;
mod step;
mod whole;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bootstrap;
use crate::client::Client;
use crate::redis_server::RedisServer;
use crate::resets::{mails, token_of};
use crate::rest::{self, send};
use crate::world::World;
use grpc::Caller;
use ledger::Ledger;
use names::Names;
use step::Step;

/// What came back: a status or code, headers, a body.
struct Answer {
    status: String,
    body: String,
    /// The answer as it came, over REST.
    whole: Option<rest::Answer>,
}

struct Play<'a> {
    world: &'a World,
    caller: Caller,
    names: Names,
    /// Of MQTT, by their names.
    clients: BTreeMap<String, Client>,
}

impl Play<'_> {
    fn ask(&mut self, step: &Step) -> Answer {
        let who = self.names.fill(&step.who);
        let body = self.names.fill(&step.body);
        if let Ok(value) = serde_json::from_str(&body) {
            note_secrets(self.world, &value);
        }
        match step.service.as_str() {
            "grpc" => self.call(step, &who, &body),
            "mqtt" => self.over_mqtt(step, &who),
            service => self.send(service, step, &who, &body),
        }
    }

    fn call(&self, step: &Step, who: &str, body: &str) -> Answer {
        let token = match who.split_once(' ') {
            None if who == "bare" => None,
            Some(("as", token)) => Some(token),
            _ => panic!("line {}: who is {who}?", step.line),
        };
        let answer = self.caller.call(&step.what, body, token);
        let (status, body) = match answer {
            Ok(value) => ("OK".to_owned(), value.to_string()),
            Err(status) => (grpc::code(status.code()), status.message().to_owned()),
        };
        Answer {
            status,
            body,
            whole: None,
        }
    }

    fn send(&self, service: &str, step: &Step, who: &str, body: &str) -> Answer {
        let address = self.world.listener(&format!("http.{service}"));
        let mut headers = step.headers.clone();
        // The SDK says so whether there is a body or not.
        if !headers.iter().any(|it| it.starts_with("Content-Type")) {
            headers.push("Content-Type: application/json".to_owned());
        }
        match who.split_once(' ') {
            None if who == "bare" => {}
            Some(("as", token)) => headers.push(format!("Authorization: Bearer {token}")),
            Some(("key", key)) => {
                self.world.secrets.add(key);
                headers.push(format!("Authorization: Thing {key}"));
            }
            _ => panic!("line {}: who is {who}?", step.line),
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let what = self.names.fill(&step.what);
        let answer = send(address, &what, &headers, body.as_bytes());
        Answer {
            status: answer.status.to_string(),
            body: answer.body.clone(),
            whole: Some(answer),
        }
    }

    /// What is wrong with an answer.
    fn check(&mut self, step: &Step, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        if answer.status != step.status {
            wrong.push(format!("status {}, not {}", answer.status, step.status));
        }
        for header in &step.expected_headers {
            let (name, expected) = header.split_once(": ").expect("a header");
            let (fixed, rest) = match expected.rfind('$') {
                Some(at) => expected.split_at(at),
                None => (expected, ""),
            };
            let whole = answer.whole.as_ref();
            let found = whole.and_then(|it| it.header(name)).unwrap_or_default();
            let matches = match found.strip_prefix(&self.names.fill(fixed)) {
                Some(found) if rest.is_empty() => found.is_empty(),
                Some(found) => self.names.met(rest, found),
                None => false,
            };
            if !matches {
                wrong.push(format!("{name} is {found:?}, not {expected:?}"));
            }
        }
        match step.expected.as_str() {
            "*" => {}
            "" if answer.body.is_empty() || step.service == "grpc" => {}
            "" => wrong.push("there is a body".to_owned()),
            expected => {
                let expected = serde_json::from_str(expected);
                let expected = expected.unwrap_or_else(|it| panic!("line {}: {it}", step.line));
                match serde_json::from_str(&answer.body) {
                    Ok(found) => {
                        note_secrets(self.world, &found);
                        self.names.compare("it", &expected, &found, &mut wrong);
                    }
                    Err(error) => wrong.push(error.to_string()),
                }
            }
        }
        wrong
    }
}

/// Keeps in mind what must not be left behind.
fn note_secrets(world: &World, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_secret = ["secret", "_key", "token", "password", "loan"]
                    .iter()
                    .any(|end| name.ends_with(end));
                match value {
                    Value::String(text) if is_secret && text.len() >= 8 => {
                        world.secrets.add(text.as_str());
                    }
                    value => note_secrets(world, value),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| note_secrets(world, value)),
        _ => {}
    }
}

/// The text of a table.
fn read(table: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    fs::read_to_string(path.join(table)).expect("a table")
}

fn play(table: &str) {
    play_with(table, &[]);
}

/// Plays a table from beginning to end, and tells of everything that is wrong.
fn play_with(table: &str, environment: &[(&str, &str)]) {
    let text = read(table);
    let redis = RedisServer::start();
    let url = redis.url();
    let world = World::with(&[&[("ROLLCALL_REDIS__URL", &*url)], environment].concat());
    let mut ledger = Ledger::begin(&world, &redis);
    let mut play = Play {
        world: &world,
        caller: Caller::new(world.grpc()),
        names: Names::default(),
        clients: BTreeMap::new(),
    };
    let admin = fs::read_to_string(world.folder().join("data/secrets/admin.token"));
    play.names.set("$admin", admin.expect("a token").trim());
    if text.contains("$sealed") {
        let sealed = bootstrap::seal(&world, "an external key");
        play.names.set("$sealed", &sealed);
    }
    let mut failed = Vec::new();
    for step in step::parse(&text) {
        if step.body.contains("$mailed") {
            let mails = mails(&world);
            let mail = mails.first().expect("a mail");
            play.names.set("$mailed", &token_of(&world, mail));
        }
        let answer = play.ask(&step);
        let mut wrong = play.check(&step, &answer);
        wrong.extend(ledger.check(&step.events, &mut play.names));
        for wrong in wrong {
            let (line, what, body) = (step.line, &step.what, &answer.body);
            failed.push(format!("{table}:{line} {what}: {wrong}\n    {body}"));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    ledger.expect_no_more(&world);
}

#[test]
fn presence_is_told_as_consumers_expect() {
    play("presence.txt");
}

#[test]
fn presence_is_told_with_sessions_where_that_is_wanted() {
    play_with(
        "presence_extended.txt",
        &[("ROLLCALL_EVENTS__EXTENDED", "true")],
    );
}

#[test]
fn the_sdk_of_the_platform_is_understood() {
    play("rest/sdk.txt");
}

#[test]
fn services_say_whether_they_are_well() {
    play("rest/health.txt");
}

#[test]
fn an_adapter_elsewhere_is_answered_as_it_expects() {
    play("grpc/authority.txt");
}

#[test]
fn users_are_served_over_rest_as_clients_expect() {
    play("rest/users.txt");
}

#[test]
fn users_are_served_over_grpc_as_clients_expect() {
    play("grpc/users.txt");
}

#[test]
fn groups_are_served_over_rest_as_clients_expect() {
    play("rest/groups.txt");
}

#[test]
fn groups_are_served_over_grpc_as_clients_expect() {
    play("grpc/groups.txt");
}

#[test]
fn things_are_served_over_rest_as_clients_expect() {
    play("rest/things.txt");
}

#[test]
fn things_are_served_over_grpc_as_clients_expect() {
    play("grpc/things.txt");
}

#[test]
fn configurations_are_served_over_rest_as_clients_expect() {
    play("rest/bootstrap.txt");
}

#[test]
fn configurations_are_served_over_grpc_as_clients_expect() {
    play("grpc/bootstrap.txt");
}
