//! What the configuration promises that no other test looks at.

use std::net::TcpListener;

use crate::client::{Client, Hello, publish};
use crate::redis_server::RedisServer;
use crate::world::{World, check_pairs, wait_for};

#[test]
fn several_addresses_are_served_by_any_number_of_workers() {
    for workers in ["1", "5"] {
        let world = World::with(&[
            ("ROLLCALL_MQTT__WORKERS", workers),
            ("ROLLCALL_MQTT__LISTEN", "127.0.0.1:0, [::1]:0"),
        ]);
        let addresses = world.listeners().to_vec();
        assert_eq!(addresses.len(), 2);
        let (thing, channel) = world.member();
        let topic = format!("channels/{channel}/messages");
        let mut clients: Vec<Client> = (0..20)
            .map(|n| {
                let hello = Hello::of(&thing, &n.to_string());
                let (mut client, connack) = Client::connect(addresses[n % 2], hello);
                assert_eq!(connack.code, 0);
                assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
                client
            })
            .collect();
        clients[0].send(&publish(false, &topic, b"to all", 0, false, 0, &[]));
        for client in &mut clients {
            assert_eq!(client.take().payload, b"to all");
        }
    }
}

#[test]
fn fewer_files_mean_fewer_connections_and_nothing_else() {
    let mut world = World::prepared(&[]);
    world.limit_files(128);
    world.run();
    let thing = world.thing("lamp");
    let mut clients = Vec::new();
    for n in 0..64 {
        clients.push(world.client(Hello::of(&thing, &n.to_string())));
    }
    for _ in 0..64 {
        Client::open(world.mqtt(), false).expect_end();
    }
    // What the server needs besides goes on: its journal, its commands, its pages.
    assert_eq!(world.wait_events(64).len(), 64);
    assert_eq!(world.json(&["presence"])["total"], 64);
    assert_eq!(world.http("/readyz").0, 200);
    let turned_away = world.counter("rollcall_mqtt_connections_turned_away_total", "");
    assert!(turned_away >= 64.0, "{turned_away}");
    clients.pop().expect("some").disconnect();
    wait_for("room", || (world.events().len() == 65).then_some(()));
    world.client(Hello::of(&thing, "late"));
}

#[test]
fn subscriptions_and_topic_aliases_have_bounds() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__MAX_SUBSCRIPTIONS", "2"),
        ("ROLLCALL_MQTT__MAX_TOPIC_ALIAS", "3"),
    ]);
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let (mut client, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "c").five());
    let announced = connack.properties.windows(3).any(|it| it == [0x22, 0, 3]);
    assert!(announced, "{:?}", connack.properties);
    let filters = [topic("a"), topic("b"), topic("c")];
    let filters: Vec<(&str, u8)> = filters.iter().map(|it| (it.as_str(), 0)).collect();
    assert_eq!(client.subscribe(&filters), [0, 0, 0x97]);
    // One that is there already takes no more room.
    assert_eq!(client.subscribe(&filters[..1]), [0]);
    client.unsubscribe(filters[0].0);
    assert_eq!(client.subscribe(&filters[2..]), [0]);

    client.send(&publish(
        true,
        &topic("b"),
        b"x",
        0,
        false,
        0,
        &[0x23, 0, 3],
    ));
    assert_eq!(client.take().payload, b"x");
    client.send(&publish(true, "", b"y", 0, false, 0, &[0x23, 0, 3]));
    assert_eq!(client.take().payload, b"y");
    client.send(&publish(
        true,
        &topic("b"),
        b"x",
        0,
        false,
        0,
        &[0x23, 0, 4],
    ));
    client.expect_disconnect(0x94);
}

#[test]
fn retained_messages_have_bounds() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__MAX_RETAINED", "2"),
        ("ROLLCALL_MQTT__MAX_RETAINED_BYTES", "1KiB"),
    ]);
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let mut client = world.client(Hello::of(&thing, "c").five());
    let mut retain = |name: &str, len: usize| {
        let payload = vec![b'x'; len];
        client.publish_with(&topic(name), &payload, 1, true, &[])
    };
    assert_eq!(retain("a", 10), 0);
    assert_eq!(retain("b", 2000), 0x97, "too many bytes");
    assert_eq!(retain("b", 10), 0);
    assert_eq!(retain("c", 10), 0x97, "too many");
    assert_eq!(retain("a", 20), 0, "in place of the old one");
    assert_eq!(
        world.counter("rollcall_mqtt_retained_refused_total", ""),
        2.0
    );
    let mut late = world.client(Hello::of(&thing, "late"));
    assert_eq!(late.subscribe(&[(&topic("#"), 0)]), [0]);
    let mut lengths = [late.take().payload.len(), late.take().payload.len()];
    lengths.sort_unstable();
    assert_eq!(lengths, [10, 20]);
    late.expect_silence();
}

#[test]
fn a_silent_things_service_holds_up_few_logins_and_not_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", silent.local_addr().expect("bound"));
    let world = World::with(&[
        ("ROLLCALL_THINGS__AUTHORITY", &address),
        ("ROLLCALL_THINGS__TIMEOUT", "2s"),
        ("ROLLCALL_MQTT__MAX_QUESTIONS", "1"),
    ]);
    let thing = world.thing("lamp");
    let mut clients: Vec<Client> = (0..5)
        .map(|n| {
            let mut client = Client::open(world.mqtt(), true);
            client.send(&Hello::of(&thing, &n.to_string()).five().bytes());
            client
        })
        .collect();
    // Whoever is asked about first gets no answer in time; the others are told that the server is busy.
    let mut codes: Vec<u8> = clients.iter_mut().map(|it| it.connack().code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0x88, 0x89, 0x89, 0x89, 0x89]);
    let refused = "rollcall_mqtt_connects_refused_total";
    assert_eq!(world.counter(refused, "too_many_questions"), 4.0);
    // 3.1.1 has one code for both.
    let (_, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "c"));
    assert_eq!(connack.code, 3);
    assert!(world.events().is_empty());
}

#[test]
fn what_another_service_revokes_counts_when_its_answer_is_old() {
    let home = World::start();
    let (thing, _) = home.member();
    let front = World::with(&[
        (
            "ROLLCALL_THINGS__AUTHORITY",
            &format!("http://{}", home.grpc()),
        ),
        ("ROLLCALL_ACCESS__TTL", "300ms"),
        ("ROLLCALL_ACCESS__MAX_ENTRIES", "1"),
    ]);
    front.client(Hello::of(&thing, "c")).disconnect();
    home.tell(&["things", "disable", &thing.id]);
    wait_for("the answer to grow old", || {
        let (_, connack) = Client::connect(front.mqtt(), Hello::of(&thing, "c").five());
        (connack.code == 0x86).then_some(())
    });
}

#[test]
fn streams_take_their_prefix_and_keep_their_length() {
    let redis = RedisServer::start();
    let world = World::with(&[
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_REDIS__PREFIX", "acme"),
        ("ROLLCALL_REDIS__MAX_STREAM_LENGTH", "100"),
        ("ROLLCALL_REDIS__PIPELINE", "1"),
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_JOURNAL__COMMIT_INTERVAL", "0s"),
        ("ROLLCALL_ADMIN__IDENTITY", "boss@acme.example"),
    ]);
    assert!(
        world
            .banner()
            .join("\n")
            .contains("administrator is boss@acme.example")
    );
    let thing = world.thing("lamp");
    for n in 0..300 {
        world.client(Hello::of(&thing, &n.to_string())).disconnect();
    }
    assert_eq!(check_pairs(&world.wait_events(600)), 300);
    wait_for("the relay", || {
        (world.counter("rollcall_relay_events_total", "mqtt") == 600.0).then_some(())
    });
    // Redis drops whole nodes of a hundred entries.
    let len = redis.len("acme.mqtt");
    assert!((100..300).contains(&len), "{len}");
    // It was made, and identified once: later answers are remembered.
    wait_for("the events of the thing", || {
        (redis.len("acme.things") == 2).then_some(())
    });
    assert_eq!(redis.len("mainflux.mqtt"), 0);
}

#[test]
fn a_stop_waits_for_redis_as_long_as_is_wished() {
    let mut world = World::prepared(&[
        ("ROLLCALL_REDIS__URL", "redis+unix:///nowhere/redis.sock"),
        ("ROLLCALL_REDIS__RETRY_MIN", "10ms"),
        ("ROLLCALL_REDIS__CONNECT_TIMEOUT", "100ms"),
        ("ROLLCALL_REDIS__DRAIN_TIMEOUT", "0s"),
    ]);
    world.run();
    let thing = world.thing("lamp");
    world.client(Hello::of(&thing, "c")).disconnect();
    world.wait_events(2);
    wait_for("some tries", || {
        (world.counter("rollcall_relay_failures_total", "mqtt") > 5.0).then_some(())
    });
    assert!(world.end("TERM").success());
    let redis = RedisServer::start();
    world.set("ROLLCALL_REDIS__URL", &redis.url());
    world.run();
    wait_for("the relay", || {
        (redis.len("mainflux.mqtt") == 2).then_some(())
    });
}

#[test]
fn calls_have_a_bound_in_number_and_time() {
    let world = World::with(&[
        ("ROLLCALL_GRPC__MAX_CALLS", "1"),
        ("ROLLCALL_GRPC__TIMEOUT", "1ns"),
    ]);
    let told = world.fail(&["things", "list"]);
    assert!(told.contains("grpc.timeout"), "{told}");
    let world = World::with(&[("ROLLCALL_GRPC__MAX_CALLS", "1")]);
    assert_eq!(world.json(&["things", "list"])["total"], 0);
}

#[test]
fn a_stop_does_not_wait_for_redis_with_nothing_for_it() {
    let url = ("ROLLCALL_REDIS__URL", "redis+unix:///nowhere/redis.sock");
    // The front alone: others begin with events.
    let whole = World::start();
    let authority = format!("http://{}", whole.grpc());
    let mut world = World::alone("mqtt", &[url, ("ROLLCALL_THINGS__AUTHORITY", &authority)]);
    assert!(world.end("TERM").success());
    let log = world.log_text();
    assert!(
        log.contains("cannot relay") && !log.contains("after the next start"),
        "{log}"
    );
}
