//! Mails over a real server: encrypted, with a password, from one that proves who it is; else they wait.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::authority::{Authority, Pair};
use crate::resets::token_of;
use crate::rest::send;
use crate::world::{PATIENCE, World, wait_for};

const PASSWORD: &str = "the password of the postman";

/// A mail server that says what it is told.
struct MailServer {
    process: Child,
    said: Receiver<Value>,
}

impl MailServer {
    fn start(port: u16, tls: &str, pair: &Pair, password: &str) -> Self {
        let settings = json!({
            "port": port, "tls": tls, "password": password,
            "certificate": pair.certificate, "key": pair.key,
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/smtp_server.py");
        // Debian keeps its packages for its own.
        let python = ["/usr/bin/python3", "python3"];
        let python = python.into_iter().find(|it| Path::new(it).exists());
        let mut process = Command::new(python.unwrap_or("python3"))
            .args([script, &settings.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 and python3-aiosmtpd are installed: see tests/run");
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        assert!(line.starts_with("ready "), "it says {line:?}");
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if say.send(value).is_err() {
                    return;
                }
            }
        });
        Self { process, said }
    }

    /// The next mail that it takes.
    fn mail(&self) -> Value {
        loop {
            let said = self.said.recv_timeout(PATIENCE).expect("a mail");
            if said.get("mail").is_some() {
                return said;
            }
        }
    }

    /// All that it has said and nobody has looked at.
    fn rest(&self) -> Vec<Value> {
        self.said.try_iter().collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody has, nor is given when any will do: for servers that come one after the other.
fn free_port() -> u16 {
    let first = 20_000 + std::process::id() as u16 % 10_000;
    let mut ports = first..first + 1_000;
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("one in a thousand")
}

fn post(world: &World, path: &str, referer: &str, body: &Value) -> u16 {
    let headers = ["Content-Type: application/json", referer];
    let (address, body) = (world.listener("http.users"), body.to_string());
    let path = format!("POST {path}");
    send(address, &path, &headers, body.as_bytes()).status
}

const REFERER: &str = "Referer: https://app.example.org/login";

/// Makes a user, who then asks for another password.
fn forget(world: &World, name: &str) {
    let email = format!("{name}@example.com");
    let secret = "a long forgotten one";
    world.secrets.add(secret);
    let credentials = json!({ "identity": email, "secret": secret });
    let user = json!({ "name": name, "credentials": credentials });
    assert_eq!(post(world, "/users", REFERER, &user), 201);
    let ask = json!({ "email": email });
    assert_eq!(post(world, "/password/reset-request", REFERER, &ask), 201);
}

fn deferred(world: &World) -> f64 {
    world.counter("rollcall_mails_total", "deferred")
}

fn world(port: u16, authority: &Authority, settings: &[(&str, &str)]) -> World {
    let ca = authority.file();
    let port = port.to_string();
    let mut world = World::prepared(&[
        ("ROLLCALL_MAIL__HOST", "localhost"),
        ("ROLLCALL_MAIL__PORT", &port),
        ("ROLLCALL_MAIL__USER", "postman"),
        ("ROLLCALL_MAIL__CA", ca.to_str().expect("text")),
        ("ROLLCALL_MAIL__TIMEOUT", "20s"),
    ]);
    let hosts = "https://other.example.org, https://app.example.org";
    world.set("ROLLCALL_USERS__RESET_HOSTS", hosts);
    world.set("ROLLCALL_USERS__RESET_ENDPOINT", "/choose");
    for (name, value) in settings {
        world.set(&format!("ROLLCALL_{name}"), value);
    }
    world.secrets.add(PASSWORD);
    world.run();
    world
}

#[test]
fn mails_wait_until_the_server_can_be_trusted_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::new(folder.path(), "root");
    let stranger = Authority::new(folder.path(), "stranger");
    let (pair, other) = (root.server("localhost", 1), stranger.server("localhost", 2));
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("written");
    let port = free_port();
    let world = world(
        port,
        &root,
        &[("MAIL__PASSWORD_FILE", file.to_str().expect("text"))],
    );
    // Nobody is there; then somebody who encrypts nothing, who is somebody else, who does not know the password.
    for (name, server, words) in [
        ("ada", None, "onnection"),
        ("bob", Some(("none", &pair, PASSWORD)), "STARTTLS"),
        ("cyd", Some(("starttls", &other, PASSWORD)), "certificate"),
        ("dan", Some(("starttls", &pair, "another password")), "535"),
    ] {
        let server = server.map(|(tls, pair, it)| MailServer::start(port, tls, pair, it));
        let before = deferred(&world);
        forget(&world, name);
        wait_for("a mail to be put off", || {
            let told = world.log_text();
            let mut told = told.lines().filter(|it| it.contains("tried again later"));
            (deferred(&world) > before && told.any(|it| it.contains(words))).then_some(())
        });
        let said = server.map(|server| server.rest()).unwrap_or_default();
        let is_mail = |it: &Value| it.get("mail").is_some() || it["right"] == true;
        assert!(!said.iter().any(is_mail), "{name}: {said:?}");
        assert!(said.is_empty() || name == "dan", "{name}: {said:?}");
    }
    let server = MailServer::start(port, "starttls", &pair, PASSWORD);
    let mut all: Vec<String> = Vec::new();
    for _ in 0..4 {
        let mail = server.mail();
        assert_eq!(mail["secured"], true);
        let text = mail["mail"].as_str().expect("text");
        assert!(
            text.contains("https://app.example.org/login/choose?token="),
            "{text}"
        );
        token_of(&world, text);
        all.push(mail["to"][0].as_str().expect("text").to_owned());
    }
    // In whatever order they come up to be tried again.
    all.sort_unstable();
    let names = ["ada", "bob", "cyd", "dan"].map(|it| format!("{it}@example.com"));
    assert_eq!(all, names);
    wait_for("the count", || {
        (world.counter("rollcall_mails_total", "sent") == 4.0).then_some(())
    });
    assert_eq!(world.counter("rollcall_mails_total", "refused"), 0.0);
}

#[test]
fn a_mail_goes_over_tls_from_the_beginning_as_the_template_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::new(folder.path(), "root");
    let pair = root.server("localhost", 1);
    let port = free_port();
    let server = MailServer::start(port, "wrapped", &pair, PASSWORD);
    let template = folder.path().join("template");
    let text = "Subject: Of your password\nDear {{name}}: {{link}} (for {{good_for}})\n";
    std::fs::write(&template, text).expect("written");
    let mut world = world(
        port,
        &root,
        &[
            ("MAIL__ENCRYPTION", "tls"),
            ("MAIL__PASSWORD", PASSWORD),
            ("MAIL__FROM", "the house <house@example.org>"),
            ("MAIL__TEMPLATE", template.to_str().expect("text")),
            ("USERS__RESET_TOKEN_DURATION", "2m"),
        ],
    );
    forget(&world, "ada");
    let mail = server.mail();
    assert_eq!(mail["sender"], "house@example.org");
    let text = mail["mail"].as_str().expect("text").replace("=\r\n", "");
    assert!(text.contains("Subject: Of your password"), "{text}");
    assert!(
        text.contains("Dear ada: https://app.example.org/login/choose"),
        "{text}"
    );
    assert!(text.contains("(for 2m)"), "{text}");
    token_of(&world, &text);

    // A mail that cannot be sent is given up when its time is over.
    drop(server);
    assert!(world.end("TERM").success());
    world.set("ROLLCALL_MAIL__GIVE_UP_AFTER", "1s");
    world.run();
    forget(&world, "bob");
    wait_for("the mail to be given up", || {
        let given_up = world.counter("rollcall_mails_total", "given_up");
        (given_up == 1.0).then_some(())
    });
}
