//! Signing in at the command line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::resets::{mails, token_of};
use crate::world::{World, wait_for};

/// Runs a command as somebody whose settings are in a folder of the test, without the token of the data folder.
fn run(world: &World, arguments: &[&str], input: &str) -> Output {
    let folder = world.folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command
        .env("XDG_CONFIG_HOME", folder.join("data/secrets/home"))
        .args(["--data", "/nonexistent", "--server", world.grpc(), "--json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let mut stdin = child.stdin.take().expect("piped");
    // Who does not ask for it does not read it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn told(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was shown at the first start.
fn password(world: &World) -> String {
    let banner = world.banner().join("\n");
    let (_, rest) = banner.split_once("password ").expect("a first start");
    rest.split_whitespace().next().expect("one").to_owned()
}

#[test]
fn who_signs_in_needs_no_token_file_until_signed_out() {
    let world = World::start();
    let identity = "admin@localhost";
    assert!(!run(&world, &["things", "list"], "").status.success());
    let wrong = run(&world, &["login", identity], "not the password\n");
    assert!(refused(&wrong).contains("wrong identity or password"));

    let signed_in = run(
        &world,
        &["login", identity],
        &format!("{}\n", password(&world)),
    );
    assert_eq!(told(&signed_in)["identity"], identity);
    assert_eq!(told(&run(&world, &["things", "list"], ""))["total"], 0);
    let file = world
        .folder()
        .join("data/secrets/home/rollcall/credentials.json");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
    let token = kept[world.grpc()]["access_token"].as_str().expect("one");

    assert_eq!(told(&run(&world, &["logout"], ""))["identity"], identity);
    assert!(!run(&world, &["things", "list"], "").status.success());
    assert!(refused(&run(&world, &["logout"], "")).contains("nobody is signed in"));
    // What somebody may have copied is good no longer.
    let copy = world.folder().join("data/secrets/copy");
    fs::write(&copy, token).expect("written");
    let copy = copy.to_str().expect("text");
    let list = run(&world, &["--token-file", copy, "things", "list"], "");
    assert!(refused(&list).contains("rollcall login"));
}

#[test]
fn who_has_no_token_registers_and_gets_in_again_with_a_link() {
    let world = World::start();
    let address = "ann@example.org";
    let made = run(
        &world,
        &["users", "create", address],
        "the first password\n",
    );
    let made = told(&made);
    assert_eq!(
        (&made["identity"], &made["owner"]),
        (&address.into(), &Value::Null)
    );
    let admin = ["users", "create", "bob@example.org", "--admin"];
    let admin = run(&world, &admin, "another password\n");
    assert!(refused(&admin).contains("rollcall login"));

    told(&run(&world, &["users", "reset-password", address], ""));
    let mail = wait_for("a mail", || mails(&world).pop());
    let token = token_of(&world, &mail);
    let lines = format!("{token}\nthe second password\n");
    told(&run(&world, &["users", "choose-password"], &lines));
    let again = run(&world, &["users", "choose-password"], &lines);
    assert!(refused(&again).contains("reset-password"), "{again:?}");
    assert!(
        !run(&world, &["login", address], "the first password\n")
            .status
            .success()
    );
    told(&run(&world, &["login", address], "the second password\n"));
    let lines = "not the password\na third password\n";
    let wrong = refused(&run(&world, &["users", "password"], lines));
    assert!(wrong.contains("wrong identity or password"), "{wrong}");
    // Who is signed in owns whom he makes.
    let mine = run(
        &world,
        &["users", "create", "eve@example.org"],
        "a third password\n",
    );
    assert_eq!(told(&mine)["owner"], made["id"]);
}

#[test]
fn tokens_that_run_out_are_refreshed_by_themselves() {
    let world = World::with(&[("ROLLCALL_USERS__ACCESS_TOKEN_DURATION", "1s")]);
    let file = world.folder().join("data/secrets/password");
    fs::write(&file, password(&world)).expect("written");
    let file = file.to_str().expect("text");
    let login = ["login", "admin@localhost", "--password-file", file];
    told(&run(&world, &login, ""));
    let kept = world
        .folder()
        .join("data/secrets/home/rollcall/credentials.json");
    let mut before = fs::read_to_string(&kept).expect("a file");
    for _ in 0..3 {
        // A token of one second is always about to run out.
        assert_eq!(told(&run(&world, &["things", "list"], ""))["total"], 0);
        let now = fs::read_to_string(&kept).expect("a file");
        assert_ne!(before, now, "the tokens are other ones");
        before = now;
    }
}
