//! REST as it describes itself: complete, and true whatever is sent.

use std::process::Command;

use serde_json::Value;

use crate::rest::{Answer, send};
use crate::world::World;

/// An operation of a service's document.
struct Operation {
    method: String,
    path: String,
    takes_body: bool,
    /// Statuses it says it may answer.
    statuses: Vec<String>,
}

fn operations(address: &str) -> Vec<Operation> {
    let document = send(address, "GET /openapi.json", &[], b"").json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let responses = operation["responses"].as_object().expect("responses");
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                takes_body: operation["requestBody"].is_object(),
                statuses: responses.keys().cloned().collect(),
            });
        }
    }
    operations
}

fn admin(world: &World) -> String {
    let token = world.folder().join("data/secrets/admin.token");
    let token = std::fs::read_to_string(token).expect("a token");
    format!("Authorization: Bearer {token}")
}

/// The path with every parameter filled in.
fn fill(path: &str, value: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => value,
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn check(operation: &Operation, answer: &Answer, sent: &str) {
    let Operation { method, path, .. } = operation;
    let status = answer.status;
    assert!(status < 500, "{method} {path} {sent}: {answer:?}");
    let described = operation.statuses.contains(&status.to_string());
    assert!(
        described,
        "{method} {path} {sent}: {status} is not described"
    );
    if status >= 400 {
        let problem = answer.json();
        assert!(
            problem["error"].is_string(),
            "{method} {path} {sent}: {problem}"
        );
        assert!(
            problem["message"].is_string(),
            "{method} {path} {sent}: {problem}"
        );
    }
}

#[test]
fn whatever_is_sent_the_answer_is_one_that_is_described() {
    let world = World::start();
    let admin = admin(&world);
    let json = "Content-Type: application/json";
    let deep = format!(
        "{{\"metadata\":{}{}}}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    let nested = format!(
        "{{\"name\":\"n\",\"metadata\":{}1{}}}",
        "{\"a\":".repeat(90),
        "}".repeat(90)
    );
    let long = format!("{{\"name\":\"{}\",\"id\":\"{0}\"}}", "x".repeat(5_000));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1_100_000));
    let bodies: [&[u8]; 14] = [
        b"{",
        b"null",
        b"[]",
        b"[[],{},1]",
        b"\"text\"",
        b"{}",
        b"{\"name\":1,\"tags\":\"t\",\"metadata\":[],\"credentials\":7,\"status\":{}}",
        b"{\"name\":\"\\u0000\",\"credentials\":{\"identity\":\"\\u0000\",\"secret\":\"\"}}",
        b"{\"subject\":\"x\",\"object\":\"y\",\"actions\":[\"m_fly\"],\"action\":\"\",\"entity_type\":\"thing\"}",
        b"{\"name\":\"\xff\xfe\"}",
        deep.as_bytes(),
        nested.as_bytes(),
        long.as_bytes(),
        large.as_bytes(),
    ];
    let queries = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=99999999999999999999",
        "offset=9223372036854775808",
        "status=gone",
        "visibility=public",
        "metadata=%7B",
        "metadata=%FF%FE",
        "level=9&tree=perhaps&dir=7",
        "owner_id=x&parent_id=%00",
        "%",
        "&&==&",
    ];
    let known = uuid();
    let long_id = "x".repeat(4_000);
    let ids = [
        &*known,
        "x",
        "%00",
        "%FF",
        "..%2F..%2Fetc",
        "'%20OR%201=1",
        &long_id,
    ];
    for service in ["users", "things", "bootstrap"] {
        let address = world.listener(&format!("http.{service}")).to_owned();
        for operation in operations(&address) {
            let (method, path) = (&operation.method, &operation.path);
            for id in ids {
                let what = format!("{method} {}", fill(path, id));
                for headers in [&[][..], &["Authorization: Bearer x"], &[&*admin]] {
                    check(&operation, &send(&address, &what, headers, b""), &what);
                }
            }
            let filled = fill(path, &known);
            for query in queries {
                let what = format!("{method} {filled}?{query}");
                check(&operation, &send(&address, &what, &[&admin], b""), query);
            }
            if !operation.takes_body {
                continue;
            }
            let what = format!("{method} {filled}");
            for body in bodies {
                let sent = String::from_utf8_lossy(&body[..body.len().min(60)]);
                let answer = send(&address, &what, &[&admin, json], body);
                check(&operation, &answer, &sent);
            }
            let plain = send(
                &address,
                &what,
                &[&admin, "Content-Type: text/plain"],
                b"{}",
            );
            assert_eq!(plain.status, 415, "{what}");
        }
        let health: Value = send(&address, "GET /health", &[], b"").json();
        assert_eq!(health["status"], "pass");
    }
}

/// An id that nobody has.
fn uuid() -> String {
    "11111111-2222-4333-8444-555555555555".to_owned()
}

/// What clients of the platform ask for, with the status of success.
const PLATFORM: [(&str, &str); 3] = [
    (
        "users",
        "POST /users 201, GET /users/profile 200, GET /users/{} 200, GET /users 200, PATCH /users/{} 200,
         PATCH /users/{}/tags 200, PATCH /users/{}/identity 200, PATCH /users/{}/owner 200, PATCH /users/secret 200,
         POST /users/{}/enable 200, POST /users/{}/disable 200, POST /users/tokens/issue 201,
         POST /users/tokens/refresh 201, POST /password/reset-request 201, PUT /password/reset 201, POST /groups 201,
         GET /groups/{} 200, PUT /groups/{} 200, GET /groups 200, GET /groups/{}/children 200,
         GET /groups/{}/parents 200, GET /groups/{}/members 200, GET /users/{}/memberships 200,
         POST /groups/{}/enable 200, POST /groups/{}/disable 200, POST /authorize 200, POST /policies 201,
         PUT /policies 204, GET /policies 200, DELETE /policies/{}/{} 204",
    ),
    (
        "things",
        "POST /things 201, POST /things/bulk 200, GET /things/{} 200, GET /things 200, GET /channels/{}/things 200,
         PATCH /things/{} 200, PATCH /things/{}/tags 200, PATCH /things/{}/secret 200, PATCH /things/{}/owner 200,
         POST /things/{}/enable 200, POST /things/{}/disable 200, POST /channels 201, POST /channels/bulk 200,
         GET /channels/{} 200, PUT /channels/{} 200, GET /channels 200, GET /things/{}/channels 200,
         POST /channels/{}/enable 200, POST /channels/{}/disable 200, POST /policies 201, PUT /policies 204,
         GET /policies 200, DELETE /policies/{}/{} 204, POST /connect 200, POST /disconnect 204, POST /identify 200,
         POST /channels/{}/access 200",
    ),
    (
        "bootstrap",
        "POST /things/configs 201, GET /things/configs/{} 200, GET /things/configs 200, PUT /things/configs/{} 200,
         PATCH /things/configs/certs/{} 200, PUT /things/configs/connections/{} 200, DELETE /things/configs/{} 204,
         PUT /things/state/{} 200, GET /things/bootstrap/{} 200, GET /things/bootstrap/secure/{} 200",
    ),
];

#[test]
fn every_operation_of_the_platform_is_there() {
    let world = World::start();
    for (service, expected) in PLATFORM {
        let operations = operations(world.listener(&format!("http.{service}")));
        for expected in expected.split(',') {
            let words: Vec<&str> = expected.split_whitespace().collect();
            let [method, path, status] = words[..] else {
                panic!("{expected}");
            };
            let is = |it: &&Operation| it.method == method && unnamed(&it.path) == path;
            let operation = operations.iter().find(is);
            let operation = operation.unwrap_or_else(|| panic!("{service}: no {method} {path}"));
            let succeeds = operation.statuses.iter().filter(|it| it.starts_with('2'));
            assert_eq!(
                succeeds.collect::<Vec<_>>(),
                [status],
                "{service}: {method} {path}"
            );
        }
    }
}

/// What each operation says that it may answer. No more than that: a client has to deal with it.
#[test]
fn an_operation_says_what_it_may_answer_and_no_more() {
    let world = World::start();
    let mut told = String::new();
    for service in ["users", "things", "bootstrap"] {
        for operation in operations(world.listener(&format!("http.{service}"))) {
            let Operation { method, path, .. } = &operation;
            let mut statuses = operation.statuses.clone();
            statuses.sort_unstable();
            told.push_str(&format!(
                "{service} {method} {path}: {}\n",
                statuses.join(" ")
            ));
        }
    }
    assert_eq!(told, include_str!("../golden/openapi.txt"));
}

#[test]
fn health_tells_which_commit_it_is_of() {
    let world = World::start();
    let (commit, time) = (env!("COMMIT_OF_BUILD"), env!("TIME_OF_BUILD"));
    for service in ["users", "things", "bootstrap"] {
        let address = world.listener(&format!("http.{service}"));
        let health = send(address, "GET /health", &[], b"").json();
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (&health["commit"], &health["build_time"]),
            (&commit.into(), &time.into())
        );
    }
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(env!("CARGO_MANIFEST_DIR")).env("TZ", "UTC");
        let output = git.args(words).output().ok()?;
        let told = String::from_utf8(output.stdout).expect("text");
        output.status.success().then(|| told.trim().to_owned())
    };
    if git(&["rev-parse", "--show-prefix"]) != Some(String::new()) {
        // No repository is here, or only another one around it.
        assert_eq!((commit, time), ("", ""));
        return;
    }
    let format = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
    let show = ["show", "-s", "--format=%H %cd", format, commit];
    assert_eq!(git(&show), Some(format!("{commit} {time}")));
}

/// The path with its parameters as `{}`.
fn unnamed(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => "{}",
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}
