//! Clients that others wrote.

use std::process::{Command, Output, Stdio};

use crate::world::{Thing, World, wait_for};

fn mosquitto(world: &World, program: &str, thing: &Thing, more: &[&str]) -> Command {
    let port = world.mqtt().port().to_string();
    let mut command = Command::new(program);
    command
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-u",
            &thing.id,
            "-P",
            &thing.key,
        ])
        .args(more);
    command
}

fn publish(world: &World, thing: &Thing, more: &[&str]) -> Output {
    let output = mosquitto(world, "mosquitto_pub", thing, more).output();
    output.expect("mosquitto_pub is installed: see tests/run")
}

#[test]
fn mosquitto_publishes_and_subscribes_in_every_version_and_qos() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages/room");
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let more = [
                "-V", version, "-q", qos, "-t", &topic, "-C", "2", "-W", "20", "-v",
            ];
            let mut listening = mosquitto(&world, "mosquitto_sub", &thing, &more);
            let listening = listening.stdout(Stdio::piped()).spawn();
            let mut listening = listening.expect("mosquitto_sub is installed: see tests/run");
            let said = ["-V", version, "-q", qos, "-t", &topic, "-m", "hello"];
            // Again and again, since nobody says when the other has subscribed.
            while listening.try_wait().expect("a child").is_none() {
                let output = publish(&world, &thing, &said);
                assert!(output.status.success(), "{output:?}");
            }
            let output = listening.wait_with_output().expect("ends");
            let heard = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(heard, format!("{topic} hello\n").repeat(2));
        }
    }
}

#[test]
fn mosquitto_shares_a_subscription_and_hears_its_identifier() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages/room");
    let shared = format!("$share/group/{topic}");
    let listen = || {
        let more = [
            "-V",
            "5",
            "-q",
            "1",
            "-D",
            "subscribe",
            "subscription-identifier",
            "300",
            "-t",
            &shared,
            "-F",
            "%t %S %p",
            "-C",
            "5",
            "-W",
            "20",
        ];
        let listening = mosquitto(&world, "mosquitto_sub", &thing, &more)
            .stdout(Stdio::piped())
            .spawn();
        listening.expect("mosquitto_sub is installed: see tests/run")
    };
    let mut listening = [listen(), listen()];
    // Again and again, since nobody says when the others have subscribed.
    while listening
        .iter_mut()
        .any(|it| it.try_wait().expect("a child").is_none())
    {
        let said = ["-V", "5", "-q", "1", "-t", &topic, "-m", "hello"];
        assert!(publish(&world, &thing, &said).status.success());
    }
    for listening in listening {
        let output = listening.wait_with_output().expect("ends");
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(heard, format!("{topic} 300 hello\n").repeat(5));
    }
}

#[test]
fn mosquitto_hears_why_it_is_not_let_in() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let stranger = Thing {
        id: thing.id.clone(),
        key: "wrong".into(),
    };
    let refused = publish(&world, &stranger, &["-V", "5", "-t", &topic, "-m", "x"]);
    assert!(!refused.status.success());
    let refused = publish(&world, &stranger, &["-V", "311", "-t", &topic, "-m", "x"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bad user name or password"));
    let denied = publish(
        &world,
        &thing,
        &["-V", "5", "-q", "1", "-t", "elsewhere", "-m", "x"],
    );
    assert!(
        String::from_utf8_lossy(&denied.stderr).contains("Not authorized"),
        "{denied:?}"
    );
}

#[test]
fn the_will_of_a_killed_mosquitto_is_heard() {
    let world = World::start();
    let (thing, channel) = world.member();
    let (topic, will) = (
        format!("channels/{channel}/messages/x"),
        format!("channels/{channel}/messages/will"),
    );
    let more = ["-t", &will, "-C", "1", "-W", "20"];
    let heir = mosquitto(&world, "mosquitto_sub", &thing, &more)
        .stdout(Stdio::piped())
        .spawn();
    let heir = heir.expect("mosquitto_sub");
    let more = [
        "-t",
        &topic,
        "--will-topic",
        &will,
        "--will-payload",
        "gone",
        "--will-retain",
    ];
    let mut mortal = mosquitto(&world, "mosquitto_sub", &thing, &more)
        .spawn()
        .expect("runs");
    wait_for("both", || {
        (world.json(&["presence"])["total"] == 2).then_some(())
    });
    mortal.kill().expect("killed");
    mortal.wait().expect("ends");
    let output = heir.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "gone");
}
