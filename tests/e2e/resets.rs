//! A forgotten password: who may ask for a mail, where its link leads, and what it is good for.

use std::path::Path;

use serde_json::json;

use crate::users::{PASSWORD, Somebody, is_known, sign_in};
use crate::world::{World, wait_for};

/// The mails that were written.
pub(crate) fn mails(world: &World) -> Vec<String> {
    mails_in(&world.folder())
}

/// The mails that a world in this folder has written.
pub(crate) fn mails_in(folder: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(folder.join("data/mails")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "eml"));
    paths.sort();
    let text = |path| std::fs::read_to_string(path).expect("text");
    paths.into_iter().map(text).collect()
}

pub(crate) fn token_of(world: &World, mail: &str) -> String {
    let token = token_in(mail);
    world.secrets.add(&*token);
    token
}

/// The token in the link of a mail.
pub(crate) fn token_in(mail: &str) -> String {
    let text = mail.replace("=\r\n", "").replace("=3D", "=");
    let (_, rest) = text.split_once("?token=").expect("a link");
    rest.split_whitespace().next().expect("a token").to_owned()
}

fn reset(world: &World, token: &str, password: &str) -> u16 {
    let body = json!({ "token": token, "password": password, "confirm_password": password });
    let answer = Somebody::nobody(world).ask("PUT /password/reset", &body);
    assert_eq!(answer.status == 201, answer.body == "{}", "{answer:?}");
    answer.status
}

/// While no mail can be sent, the server ends as the power does.
#[test]
fn a_reset_outlives_a_crash_before_its_mail_is_sent() {
    let mut world = World::with(&[
        ("ROLLCALL_MAIL__HOST", "127.0.0.1"),
        ("ROLLCALL_MAIL__PORT", "1"),
        ("ROLLCALL_MAIL__ENCRYPTION", "none"),
    ]);
    let nobody = Somebody::nobody(&world);
    nobody.register("ada@example.com", PASSWORD);
    let [access, _] = sign_in(&world, "ada@example.com", PASSWORD);
    let email = json!({ "email": "ada@example.com" });
    nobody.expect(201, "POST /password/reset-request", &email);
    wait_for("an attempt", || {
        (world.counter("rollcall_mails_total", "deferred") > 0.0).then_some(())
    });
    world.end("KILL");
    world.set("ROLLCALL_MAIL__HOST", "");
    world.run();
    let mail = wait_for("a mail", || mails(&world).pop());
    assert!(mail.contains("To: ada@example.com"), "{mail}");
    let token = token_of(&world, &mail);
    assert!(is_known(&world, &access));
    assert_eq!(reset(&world, &token, &"x".repeat(1_025)), 400);
    assert_eq!(reset(&world, &token, "another password"), 201);
    assert_eq!(reset(&world, &token, "a third password"), 401, "used up");
    assert!(!is_known(&world, &access), "all logins end");
    sign_in(&world, "ada@example.com", "another password");

    let events = world.stream("users");
    let of = |operation: &str| {
        let mut events = events
            .iter()
            .filter(|event| event["operation"] == operation);
        let first = events.next().unwrap_or_else(|| panic!("no {operation}"));
        assert_eq!(events.count(), 0, "{operation}");
        first
    };
    let asked = of("user.generate_reset_token");
    assert_eq!(
        (&*asked["email"], &*asked["host"]),
        ("ada@example.com", "http://localhost")
    );
    let sent = of("user.send_password_reset");
    assert_eq!(
        (&*sent["email"], &*sent["host"]),
        ("ada@example.com", "http://localhost")
    );
    assert_eq!(sent["user"], "ada@example.com");
    let done = of("user.reset_secret");
    assert_eq!(
        (&done["id"], &*done["identity"]),
        (&done["updated_by"], "ada@example.com")
    );
}

#[test]
fn nobody_is_told_who_has_an_account_nor_says_where_links_lead() {
    let world = World::start();
    let nobody = Somebody::nobody(&world);
    nobody.register("ada@example.com", PASSWORD);
    let ask = |email: &str, referer: &str| {
        let body = json!({ "email": email });
        let answer = nobody.ask_from(referer, "POST /password/reset-request", &body);
        (answer.status, answer.body)
    };
    for referer in [
        "",
        "http://evil.example.com",
        "http://localhost.evil.example.com",
        "http://localhost:80@evil.example.com",
        "https://localhost",
    ] {
        assert_eq!(ask("ada@example.com", referer).0, 400, "{referer}");
    }
    let known = ask("ada@example.com", "http://localhost:9095/login");
    assert_eq!(known.0, 201);
    assert_eq!(ask("eve@example.com", "http://localhost"), known);
    let mail = wait_for("a mail", || mails(&world).pop());
    token_of(&world, &mail);
    assert!(
        mail.contains("http://localhost:9095/login/reset-request"),
        "{mail}"
    );
    // Nobody's mailbox is filled, known or not.
    for email in ["ada@example.com", "eve@example.com"] {
        assert_eq!(ask(email, "http://localhost").0, 201);
        assert_eq!(ask(email, "http://localhost").0, 201);
        assert_eq!(ask(email, "http://localhost").0, 429);
    }
    let all = wait_for("mails", || Some(mails(&world)).filter(|it| it.len() == 3));
    for mail in all {
        assert!(!mail.contains("eve@example.com"), "{mail}");
        token_of(&world, &mail);
    }
    let token = "a token that nobody was given, at all";
    assert_eq!(reset(&world, token, "another password"), 401);
}
