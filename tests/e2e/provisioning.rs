//! The command line, and the first minutes of a newcomer.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::Hello;
use crate::world::{Thing, World};

#[test]
fn things_and_channels_are_made_listed_and_connected() {
    let world = World::start();
    let thing = world.thing("lamp");
    let channel = world.channel();
    let listing = world.json(&["things", "list"]);
    assert_eq!(listing["total"], 1);
    assert_eq!(listing["things"][0]["name"], "lamp");
    assert_eq!(listing["things"][0]["status"], "enabled");
    assert!(
        listing["things"][0].get("key").is_none(),
        "keys are shown once"
    );
    assert!(world.tell(&["things", "list"]).contains(&thing.id));
    assert!(world.tell(&["channels", "list"]).contains(&channel));
    let text = world.tell(&["connect", &thing.id, &channel, "--actions", "m_read"]);
    assert!(text.contains("m_read") && !text.contains("m_write"));
    assert!(
        world
            .tell(&["disconnect", &thing.id, &channel])
            .contains(&thing.id)
    );
    assert_eq!(
        world.json(&["things", "disable", &thing.id])["status"],
        "disabled"
    );
    assert!(
        world
            .fail(&["things", "disable", &thing.id])
            .contains("already disabled")
    );
    assert_eq!(
        world.json(&["things", "enable", &thing.id])["status"],
        "enabled"
    );
    let own = world.json(&[
        "things",
        "rotate-key",
        &thing.id,
        "--key",
        "my own secret key",
    ]);
    assert_eq!(own["key"], "my own secret key");

    let operations: Vec<String> = world
        .stream("things")
        .iter()
        .map(|event| event["operation"].clone())
        .collect();
    assert_eq!(
        operations,
        [
            "thing.create",
            "channel.create",
            "thing.list",
            "thing.list",
            "channel.list",
            "policies.add",
            "policies.delete",
            "thing.remove",
            "thing.remove",
            "thing.update_secret",
        ]
    );
    let told = format!("{:?}", world.stream("things"));
    assert!(
        !told.contains(&thing.key) && !told.contains("my own secret key"),
        "no key in events"
    );
}

#[test]
fn many_things_go_to_a_file_that_only_the_owner_can_read() {
    let world = World::start();
    let csv = world.folder().join("out.csv");
    let path = csv.to_str().expect("text");
    let told = world.json(&[
        "things",
        "create",
        "sensor",
        "--count",
        "1200",
        "--channels",
        "7",
        "--csv",
        path,
    ]);
    assert_eq!(told["created"], 1200);
    assert_eq!(
        std::fs::metadata(&csv)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let text = std::fs::read_to_string(&csv).expect("a file");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["thing_id", "thing_key", "channel_id"]);
    assert_eq!(rows.len(), 1201);
    let channels: std::collections::HashSet<&str> = rows[1..].iter().map(|row| row[2]).collect();
    assert_eq!(channels.len(), 7);
    assert_eq!(
        world.json(&["things", "list", "--offset", "1199"])["things"][0]["name"],
        "sensor 1200"
    );
    // One of them works on its channel.
    let row = &rows[1000];
    let thing = crate::world::Thing {
        id: row[0].into(),
        key: row[1].into(),
    };
    let mut client = world.client(Hello::of(&thing, "c"));
    assert_eq!(
        client.subscribe(&[(&format!("channels/{}/messages", row[2]), 0)]),
        [0]
    );
    let told = world.fail(&["things", "create", "more", "--csv", path]);
    assert!(told.contains("name another file"), "{told}");
    assert_eq!(std::fs::read_to_string(&csv).expect("a file"), text);
    assert_eq!(world.json(&["things", "list"])["total"], 1200);
}

#[test]
fn mistakes_are_told_in_words_and_as_json() {
    let mut world = World::start();
    let thing = world.thing("lamp");
    let nobody = "76a58221-e319-492a-be3e-b3d15631e92a";
    for (arguments, told) in [
        (&["things", "disable", nobody][..], "no such thing"),
        (
            &["things", "disable", "lamp"],
            "thing id must be a lower-case hyphenated UUID",
        ),
        (&["connect", &thing.id, nobody], "no such channel"),
        (
            &["connect", &thing.id, nobody, "--actions", "m_fly"],
            "unknown action",
        ),
        (
            &["things", "rotate-key", &thing.id, "--key", "short"],
            "a key has 8 to 1024 bytes",
        ),
        (&["things", "list", "--limit", "0"], "limit"),
        (
            &[
                "things",
                "create",
                "x",
                "--count",
                "2",
                "--csv",
                "/nowhere/x.csv",
            ],
            "cannot write",
        ),
        (&["events", "--stream", "weather"], "unknown stream"),
        (
            &["events", "--redis", "redis://127.0.0.1:1"],
            "cannot read from Redis",
        ),
        (&["events", "--redis", "nonsense"], "no Redis address"),
        (
            &["--token-file", "/nowhere", "things", "list"],
            "cannot read the token",
        ),
    ] {
        let error = world.fail(arguments);
        assert!(error.contains(told), "{arguments:?}: {error}");
        let error = world.fail(&[&["--json"], arguments].concat());
        let value: serde_json::Value = serde_json::from_str(error.trim()).expect("JSON");
        assert!(value["error"].as_str().expect("text").contains(told));
    }
    let wrong = world.folder().join("wrong.token");
    std::fs::write(&wrong, "x".repeat(43)).expect("a file");
    let wrong = wrong.to_str().expect("text");
    assert!(
        world
            .fail(&["--token-file", wrong, "things", "list"])
            .contains("token")
    );
    let mut command = world.command(&["things", "list"]);
    world.end("TERM");
    let output = command.output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is `rollcall up` running"));
}

#[test]
fn the_administrator_is_shown_at_the_first_start_only() {
    let mut world = World::start();
    let banner = world.banner().join("\n");
    assert!(banner.contains("admin@localhost, password "), "{banner}");
    world.end("TERM");
    world.run();
    assert!(world.banner().is_empty(), "{:?}", world.banner());
    let users = world.stream("users");
    assert_eq!(users.len(), 1);
    assert_eq!(users[0]["operation"], "user.create");
    assert!(!format!("{users:?}").contains("argon2"));
}

#[test]
fn the_lines_of_the_demo_work_as_they_are() {
    let mut world = World::prepared(&[]);
    world.flag("--demo");
    world.run();
    let line = |world: &World, program: &str| {
        let lines = world
            .banner()
            .iter()
            .find(|line| line.starts_with(program))
            .cloned();
        lines.expect("a line to copy")
    };
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]);
        command
    };
    for _ in 0..2 {
        let listen = line(&world, "mosquitto_sub");
        let sub = shell(&format!("{listen} -C 1 -W 20"))
            .stdout(Stdio::piped())
            .spawn();
        let mut sub = sub.expect("mosquitto_sub is installed: see tests/run");
        // The second time, what was retained the first time may have come already.
        crate::world::wait_for("the subscriber", || {
            let gone = sub.try_wait().expect("a child").is_some();
            (gone || world.json(&["presence"])["total"] == 1).then_some(())
        });
        // It may have arrived but not yet subscribed: what is retained reaches it in either case.
        let publish = format!("{} -r", line(&world, "mosquitto_pub"));
        assert!(shell(&publish).status().expect("mosquitto_pub").success());
        let output = sub.wait_with_output().expect("ends");
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(heard.trim_end().ends_with("21.5"), "{heard}");
        let events = line(&world, env!("CARGO_BIN_EXE_rollcall")).replace(" --follow", "");
        let output = shell(&events).output().expect("runs");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && shown.contains("connect"),
            "{output:?}"
        );
        let ask = line(&world, "curl");
        let output = shell(&ask)
            .output()
            .expect("curl is installed: see tests/run");
        let given: Value = serde_json::from_slice(&output.stdout).expect("a configuration");
        let channel = listen.split('/').nth(1).expect("a channel");
        assert_eq!(given["channels"][0]["id"], channel, "{given}");
        let may = json!({ "publish_to": format!("channels/{channel}/messages/device") });
        assert_eq!(given["content"], may.to_string());
        let device = Thing {
            id: given["thing_id"].as_str().expect("a thing").to_owned(),
            key: given["thing_key"].as_str().expect("a key").to_owned(),
        };
        let mut client = world.client(Hello::of(&device, "device").five());
        let topic = format!("channels/{channel}/messages/device");
        assert!(client.publish(&topic, b"here", 1) < 0x80);
        client.disconnect();
        // The same lines after a restart.
        world.end("TERM");
        world.run();
        assert_eq!(
            line(&world, "mosquitto_sub").split(" -i ").nth(1),
            listen.split(" -i ").nth(1)
        );
        assert_eq!(
            line(&world, "curl")
                .split("Thing ")
                .nth(1)
                .map(|it| &it[..20]),
            ask.split("Thing ").nth(1).map(|it| &it[..20])
        );
    }
    // What is kept of a demo from before there were configurations knows no device.
    let path = world.folder().join("data/secrets/demo.json");
    let kept = std::fs::read(&path).expect("a file");
    let mut kept: Value = serde_json::from_slice(&kept).expect("JSON");
    kept.as_object_mut()
        .expect("an object")
        .remove("device")
        .expect("a device");
    std::fs::write(&path, kept.to_string()).expect("written");
    let before = line(&world, "curl");
    world.end("TERM");
    world.run();
    let ask = line(&world, "curl");
    assert_ne!(ask, before);
    let output = shell(&ask).output().expect("runs");
    let given: Value = serde_json::from_slice(&output.stdout).expect("a configuration");
    assert_eq!(given["channels"][0]["id"], kept["channel"], "{given}");
}

#[test]
fn a_second_server_on_the_same_data_or_port_says_why_it_cannot() {
    let world = World::start();
    let output = world.up().output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("in use by another process"),
        "{error}"
    );
    let elsewhere = World::prepared(&[("ROLLCALL_MQTT__LISTEN", &world.mqtt().to_string())]);
    let output = elsewhere.up().output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains(&format!("cannot listen for MQTT on {}", world.mqtt())),
        "{error}"
    );
}

#[test]
fn a_wrong_configuration_stops_the_start_and_is_named() {
    for (name, value, told) in [
        ("ROLLCALL_MQTT__MAX_INFLIGHT", "0", "mqtt.max_inflight"),
        (
            "ROLLCALL_MQTT__MAX_PACKET_SIZE",
            "1GiB",
            "mqtt.max_packet_size",
        ),
        ("ROLLCALL_MQTT__SPEED", "11", "speed"),
        ("ROLLCALL_REDIS__URL", "http://x", "no Redis address"),
        (
            "ROLLCALL_THINGS__AUTHORITY",
            "::",
            "things.authority: write http",
        ),
        ("ROLLCALL_LOG__FILTER", "a=b=c", "log.filter"),
        ("ROLLCALL_LOG__FORMAT", "xml", "xml"),
    ] {
        let output = World::prepared(&[(name, value)])
            .up()
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(told),
            "{name}={value}: {error}"
        );
    }
}

#[test]
fn another_front_can_ask_the_things_of_this_server() {
    let home = World::start();
    let (thing, channel) = home.member();
    let grpc = home.grpc();
    let front = World::with(&[("ROLLCALL_THINGS__AUTHORITY", &format!("http://{grpc}"))]);
    let mut client = front.client(Hello::of(&thing, "c").five());
    let topic = format!("channels/{channel}/messages");
    assert_eq!(
        client.subscribe(&[(&topic, 1), ("channels/x/messages", 1)]),
        [1, 0x87]
    );
    assert_eq!(client.publish(&topic, b"x", 0), 0);
    assert_eq!(client.take().payload, b"x");
    let mut wrong = Hello::of(&thing, "c").five();
    wrong.password = Some(b"wrong".to_vec());
    assert_eq!(
        crate::client::Client::connect(front.mqtt(), wrong).1.code,
        0x86
    );
    // Asked as an adapter of the platform asks.
    let told = home.stream("things");
    let mut allowed = told
        .iter()
        .filter(|it| it["operation"] == "policies.authorize");
    assert!(allowed.all(|it| it["entity_type"] == "thing"), "{told:?}");
    drop(home);
    let mut wrong = Hello::of(&thing, "d").five();
    wrong.password = Some(b"unknown".to_vec());
    assert_eq!(
        crate::client::Client::connect(front.mqtt(), wrong).1.code,
        0x88
    );
}
