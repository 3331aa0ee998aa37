//! Settings of the services that nobody else looks at.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::rest::{Answer, send};
use crate::world::{World, wait_for};

const PASSWORD: &str = "a password of the house";
const KEY: &str = "a key of the factory";

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

fn sign_in(world: &World, identity: &str, password: &str) -> Answer {
    let body = json!({ "identity": identity, "secret": password }).to_string();
    let (address, json) = (
        world.listener("http.users"),
        "Content-Type: application/json",
    );
    send(
        address,
        "POST /users/tokens/issue",
        &[json],
        body.as_bytes(),
    )
}

/// Whether somebody is let in with this token.
fn status(world: &World, token: &str) -> u16 {
    let bearer = format!("Authorization: Bearer {token}");
    let what = "GET /users/profile";
    send(world.listener("http.users"), what, &[&bearer], b"").status
}

fn token(world: &World, answer: &Answer, name: &str) -> String {
    let token = answer.json()[name].as_str().expect("a token").to_owned();
    world.secrets.add(&*token);
    token
}

/// For how many seconds it is good.
fn good_for(token: &str) -> u64 {
    let claims = token.split('.').nth(1).expect("claims");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let seconds = |name: &str| claims[name].as_u64().expect("seconds");
    seconds("exp") - seconds("iat")
}

#[test]
fn passwords_tokens_and_keys_are_those_that_are_set() {
    let mut world = World::prepared(&[
        ("ROLLCALL_ADMIN__PASSWORD", PASSWORD),
        ("ROLLCALL_USERS__REFRESH_TOKEN_DURATION", "1h"),
        ("ROLLCALL_USERS__HASHERS", "1"),
        ("ROLLCALL_USERS__MAX_HASHING", "1"),
        ("ROLLCALL_BOOTSTRAP__FAILED_FETCHES", "1"),
        ("ROLLCALL_BOOTSTRAP__FAILED_FETCH_WINDOW", "300ms"),
        ("ROLLCALL_MQTT__UNIX_MODE", "0600"),
        ("ROLLCALL_MQTT__COMMIT_INTERVAL", "0s"),
    ]);
    world.secrets.add(PASSWORD);
    let folder = tempfile::tempdir().expect("a folder");
    let (signing, other) = (folder.path().join("signing"), folder.path().join("other"));
    let devices = folder.path().join("devices");
    for (path, key) in [
        (&signing, "the key that tokens are signed with"),
        (&other, "another key, of thirty-two bytes"),
        (&devices, "sixteen bytes ok"),
    ] {
        fs::write(path, key).expect("written");
        world.secrets.add(key);
    }
    let socket = folder.path().join("mqtt.sock");
    let listen = format!("127.0.0.1:0, unix:{}", socket.display());
    world.set("ROLLCALL_MQTT__LISTEN", &listen);
    world.set("ROLLCALL_USERS__TOKEN_KEY_FILE", &text(&signing));
    world.set("ROLLCALL_BOOTSTRAP__ENCRYPT_KEY_FILE", &text(&devices));
    world.run();
    assert!(world.banner().is_empty(), "no password was made up");
    let mode = fs::metadata(&socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    // The key of tokens.
    let signed_in = sign_in(&world, "admin@localhost", PASSWORD);
    assert_eq!(signed_in.status, 201, "{signed_in:?}");
    let access = token(&world, &signed_in, "access_token");
    let refresh = token(&world, &signed_in, "refresh_token");
    assert_eq!(good_for(&refresh), 3600);
    assert_eq!(status(&world, &access), 200);
    assert!(!world.folder().join("data/secrets/tokens.key").exists());

    // One is hashed, one waits.
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| sign_in(&world, "admin@localhost", PASSWORD)))
            .collect();
        let answers = threads.into_iter().map(|it| it.join().expect("an answer"));
        answers.collect()
    });
    let mut statuses: Vec<u16> = answers.iter().map(|it| it.status).collect();
    for answer in answers.iter().filter(|it| it.status == 201) {
        token(&world, answer, "access_token");
        token(&world, answer, "refresh_token");
    }
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [201, 429]);

    // The key of devices, and guesses at theirs.
    let create = ["configs", "create", "ff-01", "--external-key", KEY];
    world.json(&create);
    let ask = ["configs", "bootstrap", "ff-01", "--external-key", KEY];
    let devices = text(&devices);
    world.json(&[&ask[..], &["--key-file", &devices]].concat());
    assert!(!world.folder().join("data/secrets/bootstrap.key").exists());
    let fetch = |key: &str| {
        let key = format!("Authorization: Thing {key}");
        let what = "GET /things/bootstrap/ff-01";
        send(world.listener("http.bootstrap"), what, &[&key], b"").status
    };
    assert_eq!(fetch("a guess"), 403);
    wait_for("the guess to be forgotten", || {
        (fetch(KEY) == 200).then_some(())
    });

    assert!(world.end("TERM").success());
    world.run();
    assert_eq!(status(&world, &access), 200, "the key is the same");
    assert!(world.end("TERM").success());
    world.set("ROLLCALL_USERS__TOKEN_KEY_FILE", &text(&other));
    world.run();
    assert_eq!(status(&world, &access), 401, "the key is another");
}

#[test]
fn guesses_at_many_passwords_have_a_bound_together() {
    let world = World::with(&[
        ("ROLLCALL_ADMIN__PASSWORD", PASSWORD),
        ("ROLLCALL_USERS__MAX_GUESSES_IN_ALL", "2"),
    ]);
    world.secrets.add(PASSWORD);
    for name in ["ada", "bob"] {
        assert_eq!(sign_in(&world, name, "a guess").status, 401);
    }
    assert_eq!(sign_in(&world, "admin@localhost", PASSWORD).status, 429);
}

#[test]
fn a_silent_users_service_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", silent.local_addr().expect("bound"));
    let world = World::alone(
        "things",
        &[
            ("ROLLCALL_USERS__AUTHORITY", &address),
            ("ROLLCALL_USERS__TIMEOUT", "100ms"),
            // The usual second would be too long.
            ("ROLLCALL_HTTP__TIMEOUT", "900ms"),
        ],
    );
    let bearer = "Authorization: Bearer somebody";
    let answer = send(world.listener("http.things"), "GET /things", &[bearer], b"");
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[test]
fn files_of_keys_that_are_none_stop_the_start_and_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let short = folder.path().join("short");
    fs::write(&short, "short").expect("written");
    let (short, none) = (text(&short), text(&folder.path().join("none")));
    for (name, value, told) in [
        ("USERS__TOKEN_KEY_FILE", &short, "users.token_key_file"),
        ("USERS__TOKEN_KEY_FILE", &none, "users.token_key_file"),
        (
            "BOOTSTRAP__ENCRYPT_KEY_FILE",
            &short,
            "bootstrap.encrypt_key_file",
        ),
        ("MAIL__CA", &short, "there is no certificate in it"),
        ("MAIL__PASSWORD_FILE", &none, "none"),
        ("MAIL__TEMPLATE", &none, "none"),
        ("ADMIN__PASSWORD_FILE", &none, "admin.password_file"),
        ("GRPC__CLIENT__CA", &none, "grpc.client: cannot read"),
    ] {
        let name = format!("ROLLCALL_{name}");
        let world = World::prepared(&[
            (&name, value),
            ("ROLLCALL_MAIL__HOST", "localhost"),
            ("ROLLCALL_MAIL__USER", "postman"),
            ("ROLLCALL_THINGS__AUTHORITY", "https://localhost:1"),
        ]);
        let output = world.up().output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_told = error.contains(told) && error.contains(&**value);
        assert!(
            !output.status.success() && is_told,
            "{name}={value}: {error}"
        );
    }
}

/// Keys whose effect other tests see without setting them in the environment.
const ELSEWHERE: [(&str, &str); 7] = [
    ("data", "every test has its own, by --data"),
    ("http.listen", "every test has any port"),
    (
        "mqtt.listeners.tls.transport",
        "tests/e2e/tls.rs: the listener speaks it",
    ),
    (
        "mqtt.listeners.ws.transport",
        "tests/e2e/websocket.rs: likewise",
    ),
    (
        "mqtt.listeners.wss.transport",
        "tests/e2e/websocket.rs: likewise",
    ),
    ("storage.max_connections", "adapters/storage/tests/contract"),
    (
        "storage.statement_timeout",
        "adapters/storage/tests/contract",
    ),
];

/// A key that no test ever sets may do nothing.
#[test]
fn every_setting_is_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = fs::read_dir(root.join("tests/e2e")).expect("a folder");
    let tests: String = tests
        .map(|file| fs::read_to_string(file.expect("a file").path()).unwrap_or_default())
        .collect();
    let defaults = fs::read_to_string(root.join("configs/default.toml")).expect("a file");
    let mut section = "";
    for line in defaults.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let full = format!("{section}.{key}");
        let full = full.trim_start_matches('.');
        let words: Vec<String> = full.split('.').map(str::to_uppercase).collect();
        // As the environment has it, the beginning perhaps somewhere else; or alone, in a table of one section.
        let tried = (0..words.len()).any(|from| {
            let tail = words[from..].join("__");
            let ends = ["\"", "=", "'"];
            let alone = from + 1 == words.len() && from > 0;
            let begins = if alone { "\"" } else { "" };
            ends.iter()
                .any(|end| tests.contains(&format!("{begins}{tail}{end}")))
        });
        let is_known = ELSEWHERE.iter().any(|(known, _)| *known == full);
        assert!(tried || is_known, "no test sets {full}");
    }
}
