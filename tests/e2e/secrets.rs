//! Secrets are shown to those they belong to, and are nowhere else.
//!
//! Every world looks for its secrets in what it leaves behind, whatever the test is about: see `leaks.rs`.

use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::world::{Thing, World, wait_for};

#[test]
fn a_key_is_shown_to_its_owner_and_only_sealed_at_rest() {
    let mut world = World::start();
    let thing = world.thing("lamp");
    let show = |world: &World| world.json(&["things", "show", &thing.id])["key"].clone();
    assert_eq!(show(&world), thing.key);
    assert!(
        world
            .tell(&["things", "show", &thing.id])
            .contains(&thing.key)
    );
    let rotated = world.json(&["things", "rotate-key", &thing.id])["key"].clone();
    assert_eq!(show(&world), rotated);
    world.end("TERM");
    world.run();
    assert_eq!(show(&world), rotated);
    let nobody = "76a58221-e319-492a-be3e-b3d15631e92a";
    assert!(
        world
            .fail(&["things", "show", nobody])
            .contains("no such thing")
    );
    let viewed = world.stream("things");
    let viewed: Vec<_> = viewed
        .iter()
        .filter(|event| event["operation"] == "thing.view")
        .collect();
    assert_eq!(viewed.len(), 4);
    assert_eq!(viewed[0]["name"], "lamp");

    // The vault is gone: what it sealed cannot be shown, and the key still opens the door.
    world.end("TERM");
    let vault = world.folder().join("data/secrets/vault.key");
    std::fs::write(&vault, [7; 32]).expect("written");
    world.run();
    assert!(show(&world).is_null());
    let told = world.tell(&["things", "show", &thing.id]);
    assert!(told.contains("rotate-key"), "{told}");
    let key = rotated.as_str().expect("a key").to_owned();
    let id = thing.id.clone();
    world.client(Hello::of(&Thing { id, key }, "c"));
}

#[test]
fn keys_that_are_shown_once_are_not_kept() {
    let mut world = World::with(&[("ROLLCALL_THINGS__SHOW_KEYS", "once")]);
    let thing = world.thing("lamp");
    assert!(world.json(&["things", "show", &thing.id])["key"].is_null());
    world.client(Hello::of(&thing, "c"));
    world.end("TERM");
    world.set("ROLLCALL_THINGS__SHOW_KEYS", "always");
    world.run();
    assert!(world.json(&["things", "show", &thing.id])["key"].is_null());
    world.json(&["things", "rotate-key", &thing.id]);
    assert!(world.json(&["things", "show", &thing.id])["key"].is_string());
}

#[test]
fn what_is_kept_is_for_the_user_of_the_server_alone() {
    let mut world = World::start();
    let thing = world.thing("lamp");
    world.client(Hello::of(&thing, "c")).disconnect();
    // A copy that was put back may have lost its modes.
    world.end("TERM");
    for (path, _) in crate::leaks::files(&world.folder().join("data")) {
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(path, open).expect("ours");
    }
    world.run();
    world.client(Hello::of(&thing, "c")).disconnect();
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("there");
        metadata.permissions().mode() & 0o777
    };
    let data = world.folder().join("data");
    assert_eq!(mode(&data), 0o700);
    let mut seen = 0;
    for (path, _) in crate::leaks::files(&data) {
        let path = std::path::Path::new(&path);
        assert_eq!(mode(path), 0o600, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 7, "databases, their logs and locks, secrets");
}

#[test]
fn nobody_can_tell_an_unknown_thing_from_a_wrong_key() {
    let world = World::with(&[("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "100")]);
    let thing = world.thing("lamp");
    let disabled = world.thing("disabled");
    world.tell(&["things", "disable", &disabled.id]);
    let nobody = "76a58221-e319-492a-be3e-b3d15631e92a";
    let wrong = "a wrong key that nobody has";
    world.secrets.add(wrong);
    let asked = || world.counter("rollcall_mqtt_questions_total", "");
    let cases: [(Option<&str>, Option<&[u8]>); 9] = [
        (Some(&thing.id), Some(wrong.as_bytes())),
        (Some(nobody), Some(wrong.as_bytes())),
        (Some(nobody), Some(thing.key.as_bytes())),
        (Some("lamp"), Some(wrong.as_bytes())),
        (None, Some(wrong.as_bytes())),
        (Some(&thing.id), None),
        (None, None),
        (Some(&thing.id), Some(&[0xff, 0xfe, 1])),
        (Some(&disabled.id), Some(disabled.key.as_bytes())),
    ];
    for five in [true, false] {
        let mut answers = Vec::new();
        for (username, password) in cases {
            if !five && username.is_none() && password.is_some() {
                // In 3.1.1 that is no packet [MQTT-3.1.2-22].
                continue;
            }
            let before = asked();
            let mut hello = Hello::of(&thing, "c").version(five);
            hello.username = username.map(str::to_owned);
            hello.password = password.map(<[u8]>::to_vec);
            let (mut client, connack) = Client::connect(world.mqtt(), hello);
            client.expect_end();
            assert_eq!(asked() - before, 1.0, "{username:?} {password:?}");
            answers.push(connack);
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(answers[0].code, if five { 0x86 } else { 4 });
    }
}

/// With everything logged that can be, and everything done that has to do with secrets.
#[test]
fn no_secret_is_logged_or_relayed() {
    let redis = RedisServer::start();
    let mut world = World::prepared(&[
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_LOG__FILTER", "trace"),
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
    ]);
    world.flag("--demo");
    world.run();
    let (thing, channel) = world.member();
    let own = world.json(&["things", "create", "own", "--key", "a key of my own"]);
    assert_eq!(own["key"], "a key of my own");
    world.json(&["things", "show", &thing.id]);
    let mut client = world.client(Hello::of(&thing, "c").five());
    let topic = format!("channels/{channel}/messages");
    client.subscribe(&[(&topic, 1)]);
    client.publish(&topic, b"x", 0);
    client.take();
    let mut hello = Hello::of(&thing, "d").five();
    hello.password = Some(b"a wrong key, once".to_vec());
    world.secrets.add("a wrong key, once");
    Client::connect(world.mqtt(), hello);
    world.json(&["things", "rotate-key", &thing.id]);
    let wrong = world.folder().join("wrong.token");
    std::fs::write(&wrong, "a wrong token, which is long enough").expect("a file");
    let path = wrong.to_str().expect("text");
    world.fail(&["--token-file", path, "things", "list"]);
    std::fs::remove_file(&wrong).expect("removed");
    world.secrets.add("a wrong token, which is long enough");

    // A front elsewhere sends keys over the wire.
    let authority = format!("http://{}", world.grpc());
    let front = World::with(&[
        ("ROLLCALL_THINGS__AUTHORITY", &authority),
        ("ROLLCALL_LOG__FILTER", "trace"),
    ]);
    let (other, channel) = world.member();
    front.secrets.add(&*other.key);
    let mut client = front.client(Hello::of(&other, "c").five());
    client.subscribe(&[(&format!("channels/{channel}/messages"), 1)]);
    wait_for("the relay", || {
        (redis.len("mainflux.things") >= 10).then_some(())
    });
    world.end("TERM");
    assert!(world.log_text().len() > 10_000, "much is logged");
}

#[test]
fn a_world_finds_its_secrets_wherever_they_are() {
    let hide: [fn(&World, &RedisServer, &str); 5] = [
        |world, _, key| std::fs::write(world.folder().join("log.9"), key).expect("written"),
        |world, _, key| std::fs::write(world.folder().join("data/x.db"), key).expect("written"),
        |_, redis, key| redis.command(&["XADD", "mainflux.things", "*", "key", key]),
        |_, redis, key| redis.command(&["HSET", "{x}.producers", key, "1"]),
        |_, redis, key| redis.command(&["SET", "x", key]),
    ];
    for hide in hide {
        let redis = RedisServer::start();
        let world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
        let thing = world.thing("lamp");
        assert_eq!(world.find_leaks(), [""; 0]);
        hide(&world, &redis, &thing.key);
        assert_eq!(world.find_leaks().len(), 1);
        let ended = catch_unwind(AssertUnwindSafe(|| drop(world)));
        assert!(ended.is_err(), "a world with a leak fails its test");
    }
}
