//! Configurations keep in step with things, by the things stream of a Redis: of the same process, and of one elsewhere.

use rollcall_grpc::things_api::LendThingKeyRequest;
use rollcall_grpc::things_api::things_client::ThingsClient;
use serde_json::json;
use tonic::Request;
use tonic::transport::Endpoint;

use crate::bootstrap::{KEY, configured, fetch, text};
use crate::client::Hello;
use crate::redis_server::RedisServer;
use crate::world::{Event, Thing, World, wait_for};

/// The bootstrap stream, without what reading leaves there.
fn told(redis: &RedisServer) -> Vec<(String, String)> {
    let events = redis.stream("mainflux.bootstrap").into_iter();
    let about = |event: &Event| {
        let names = ["config_id", "thing_id", "channel_id"];
        let found = names.iter().find_map(|name| event.get(*name));
        found.cloned().unwrap_or_default()
    };
    let told = events.map(|event| (event["operation"].clone(), about(&event)));
    told.filter(|(operation, _)| !operation.ends_with("view") && !operation.ends_with("list"))
        .collect()
}

fn wait_told(redis: &RedisServer, operation: &str, about: &str) {
    let wanted = (operation.to_owned(), about.to_owned());
    wait_for(&format!("{operation} {about}"), || {
        told(redis).contains(&wanted).then_some(())
    });
}

fn with_redis(redis: &RedisServer) -> World {
    World::with(&[("ROLLCALL_REDIS__URL", &redis.url())])
}

fn group(redis: &RedisServer) -> Option<Vec<redis::Value>> {
    let groups: Vec<redis::Value> = redis.command(&["XINFO", "GROUPS", "mainflux.things"]);
    (!groups.is_empty()).then_some(groups)
}

#[test]
fn what_happens_to_things_is_taken_over_whatever_becomes_of_the_group() {
    let redis = RedisServer::start();
    let mut world = with_redis(&redis);
    let (thing, channel) = configured(&world, "ff-01");
    world.tell(&["configs", "enable", &thing]);
    world.tell(&["channels", "update", &channel, "--name", "kitchen"]);
    wait_told(&redis, "channel.update_handler", &channel);
    let shown = world.json(&["configs", "show", &thing]);
    assert_eq!(shown["channels"][0]["name"], "kitchen");

    // The group is removed under it.
    let _: i64 = redis.command(&["XGROUP", "DESTROY", "mainflux.things", "rollcall.bootstrap"]);
    world.tell(&["disconnect", &thing, &channel]);
    wait_told(&redis, "thing.disconnect", &thing);
    let shown = world.json(&["configs", "show", &thing]);
    assert_eq!(shown["state"], 0);
    group(&redis).expect("made again");

    // What makes no sense is kept aside, and the next is heard.
    let _: String = redis.command(&[
        "XADD",
        "mainflux.things",
        "*",
        "operation",
        "thing.remove",
        "id",
        "nonsense",
        "status",
        "disabled",
        "occurred_at",
        "1",
    ]);
    world.tell(&["channels", "update", &channel, "--name", "hall"]);
    wait_for("the next event", || {
        let shown = world.json(&["configs", "show", &thing]);
        (shown["channels"][0]["name"] == "hall").then_some(())
    });
    assert_eq!(
        world.counter("rollcall_bootstrap_heard_total", "set_aside") as u64,
        1
    );

    // The stream is deleted under it.
    let _: i64 = redis.command(&["DEL", "mainflux.things"]);
    world.tell(&["channels", "update", &channel, "--name", "attic"]);
    wait_for("the event after", || {
        let shown = world.json(&["configs", "show", &thing]);
        (shown["channels"][0]["name"] == "attic").then_some(())
    });

    // What happens while it is away is heard when it is back, and what is pending is acknowledged.
    world.tell(&["channels", "update", &channel, "--name", "cellar"]);
    world.crash_and_restart();
    wait_for("the cellar", || {
        let shown = world.json(&["configs", "show", &thing]);
        (shown["channels"][0]["name"] == "cellar").then_some(())
    });
    world.tell(&["channels", "disable", &channel]);
    wait_told(&redis, "config.remove_handler", &thing);
    wait_for("nothing pending", || {
        let pending: Vec<redis::Value> =
            redis.command(&["XPENDING", "mainflux.things", "rollcall.bootstrap"]);
        (pending.first() == Some(&redis::Value::Int(0))).then_some(())
    });
    let shown = world.json(&["configs", "show", &thing]);
    assert_eq!(shown["channels"], json!([]));
    // Each of them once.
    let changes = told(&redis);
    let updates = changes
        .iter()
        .filter(|(it, _)| it == "channel.update_handler");
    assert_eq!(updates.count(), 4, "{changes:?}");
}

#[test]
fn every_entry_has_its_effect_once_though_it_is_killed_in_the_middle() {
    const CHANNELS: usize = 40;
    let redis = RedisServer::start();
    let mut world = with_redis(&redis);
    let (thing, _) = configured(&world, "ff-01");
    let channels: Vec<String> = (0..CHANNELS).map(|_| world.channel()).collect();
    let mut set = vec!["configs", "connections", &thing];
    set.extend(channels.iter().map(String::as_str));
    world.tell(&set);
    for (number, channel) in channels.iter().enumerate() {
        world.tell(&["channels", "disable", channel]);
        if number % 10 == 5 {
            world.crash_and_restart();
        }
    }
    let gone = wait_for("all channels to go", || {
        let gone = told(&redis).into_iter();
        let gone: Vec<_> = gone
            .filter(|(it, _)| it == "config.remove_handler")
            .collect();
        (gone.len() >= CHANNELS).then_some(gone)
    });
    assert_eq!(gone.len(), CHANNELS);
    let shown = world.json(&["configs", "show", &thing]);
    assert_eq!(shown["channels"], json!([]));
}

/// Has the key of a thing lent to somebody else.
fn lend_elsewhere(things: &World, thing: &str) {
    let token = std::fs::read_to_string(things.folder().join("data/secrets/admin.token"));
    let token = format!("Bearer {}", token.expect("a token").trim());
    let server = Endpoint::from_shared(format!("http://{}", things.grpc()));
    let server = server.expect("an address");
    let mut request = Request::new(LendThingKeyRequest {
        id: thing.to_owned(),
    });
    let token = token.parse().expect("text");
    request.metadata_mut().insert("authorization", token);
    let lend = async {
        let mut client = ThingsClient::new(server.connect_lazy());
        client.lend_thing_key(request).await
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lent = runtime.block_on(lend).expect("lent").into_inner();
    things.secrets.add(&*lent.loan);
}

#[test]
fn bootstrap_alone_asks_the_things_service_elsewhere() {
    let redis = RedisServer::start();
    let whole = with_redis(&redis);
    let (channel, authority) = (whole.channel(), format!("http://{}", whole.grpc()));
    let bootstrap = World::alone(
        "bootstrap",
        &[
            ("ROLLCALL_USERS__AUTHORITY", &authority),
            ("ROLLCALL_THINGS__URL", &authority),
            ("ROLLCALL_REDIS__URL", &redis.url()),
            ("ROLLCALL_BOOTSTRAP__GROUP", "another"),
        ],
    );
    // Its callers are those of the users service.
    let token = whole.folder().join("data/secrets/admin.token");
    let token = token.to_str().expect("text");
    let configs =
        |words: &[&str]| bootstrap.json(&[&["--token-file", token, "configs"], words].concat());
    let made = configs(&[
        "create",
        "ff-01",
        "--external-key",
        KEY,
        "--channel",
        &channel,
    ]);
    let thing = text(&made["thing_id"]);
    configs(&["enable", &thing]);
    let given = fetch(&bootstrap, "ff-01", KEY).json();
    bootstrap.secrets.add_from(&given);
    let device = Thing {
        id: thing.clone(),
        key: text(&given["thing_key"]),
    };
    let mut client = whole.client(Hello::of(&device, "c"));
    assert_eq!(
        client.subscribe(&[(&format!("channels/{channel}/messages"), 1)]),
        [1]
    );

    // Another key is given to the device though nobody looks at the configuration, as the owner has lent it.
    for _ in 0..2 {
        let rotated = whole.json(&["things", "rotate-key", &thing]);
        let given = fetch(&bootstrap, "ff-01", KEY).json();
        assert_eq!(given["thing_key"], rotated["key"]);
    }
    // What is lent anew is the new borrower's; the owner's next look brings another loan.
    lend_elsewhere(&whole, &thing);
    let rotated = whole.json(&["things", "rotate-key", &thing]);
    assert_eq!(fetch(&bootstrap, "ff-01", KEY).status, 404);
    configs(&["show", &thing]);
    let given = fetch(&bootstrap, "ff-01", KEY).json();
    assert_eq!(given["thing_key"], rotated["key"]);
    whole.tell(&["things", "disable", &thing]);
    wait_told(&redis, "config.remove_handler", &thing);
    assert_eq!(configs(&["list"])["total"], 0);
}
