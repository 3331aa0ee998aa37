//! A stop: nobody comes in, everybody is told in turn, everything is kept.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::client::{Client, Hello, publish};
use crate::redis_server::RedisServer;
use crate::rest::{Rest, send};
use crate::world::{World, check_pairs, wait_for};

/// Whether the server has said or closed something.
fn has_news(client: &Client) -> bool {
    client.stream.set_nonblocking(true).expect("a socket");
    let peeked = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).expect("a socket");
    !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn ends_well(world: &mut World) {
    let status = wait_for("the program to end", || world.try_end());
    assert!(status.success(), "{status}");
}

#[test]
fn five_hundred_are_seen_out_one_after_the_other() {
    let redis = RedisServer::start();
    let mut world = World::with(&[
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_MQTT__DRAIN__PER_SECOND", "150"),
    ]);
    let (things, channel) = world.members(500);
    let topic = format!("channels/{channel}/messages");
    let mut waiting: Vec<Client> = things
        .iter()
        .enumerate()
        .map(|(n, thing)| world.client(Hello::of(thing, "c").version(n % 2 == 0)))
        .collect();
    let front = world.mqtt();
    world.signal("TERM");
    let begin = Instant::now();
    wait_for("the door to close", || {
        TcpStream::connect(front).is_err().then_some(())
    });
    assert_eq!(world.http("/readyz").0, 503);
    assert!(world.http("/readyz").1.contains("the server is stopping"));

    // Whoever is still here is served.
    let last = waiting
        .iter()
        .position(|client| !has_news(client))
        .expect("somebody is here");
    let mut served = waiting.swap_remove(last);
    served.send(&publish(served.five, &topic, b"x", 1, false, 1, &[]));
    assert_eq!(served.receive().first, 0x40);
    waiting.push(served);

    let mut told = Vec::new();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for mut client in waiting {
            if !has_news(&client) {
                still.push(client);
                continue;
            }
            client.expect_disconnect(0x8B);
            told.push(begin.elapsed());
        }
        waiting = still;
        std::thread::sleep(Duration::from_millis(5));
    }
    // Three seconds and a third, in steps of a tenth.
    let (early, late) = (told[100], told[400]);
    assert!(
        late - early > Duration::from_millis(1200),
        "{early:?} {late:?}"
    );
    ends_well(&mut world);
    // The journal and the stream have everything.
    assert_eq!(redis.len("mainflux.mqtt"), 1000);
    world.run();
    let events = world.events();
    assert_eq!(check_pairs(&events), 500);
    let reasons = events.iter().filter_map(|event| event.get("reason"));
    assert!(
        reasons
            .into_iter()
            .all(|reason| reason == "server_shutdown")
    );
}

/// What the server says of its health next; `None` if it says nothing any longer.
async fn next(watched: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let said = watched.message().await.expect("no failure");
    said.map(|it| it.status())
}

#[test]
fn whoever_asks_for_health_hears_of_a_stop_first() {
    const SITES: [&str; 3] = ["http.users", "http.things", "http.bootstrap"];
    let mut world = World::with(&[("ROLLCALL_MQTT__DRAIN__PER_SECOND", "10")]);
    let (things, _) = world.members(30);
    let clients = things.iter().map(|it| world.client(Hello::of(it, "c")));
    let clients: Vec<Client> = clients.collect();
    let sites = SITES.map(|site| world.listener(site).to_owned());
    let health = |status: u16, said: &str| {
        for site in &sites {
            let health = send(site, "GET /health", &[], b"");
            assert_eq!(
                (health.status, &health.json()["status"]),
                (status, &json!(said))
            );
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", world.grpc());
        let channel = Endpoint::from_shared(address).expect("an address");
        let channel = channel.connect().await.expect("a server");
        let mut watches = Vec::new();
        // The whole, and one service.
        for service in ["", "rollcall.things.v1.Things"] {
            let service = service.to_owned();
            let mut client = HealthClient::new(channel.clone());
            let watched = client.watch(HealthCheckRequest { service }).await;
            let mut watched = watched.expect("an answer").into_inner();
            assert_eq!(next(&mut watched).await, Some(ServingStatus::Serving));
            watches.push(watched);
        }
        health(200, "pass");
        world.signal("TERM");
        for watched in &mut watches {
            assert_eq!(next(watched).await, Some(ServingStatus::NotServing));
        }
        health(503, "fail");
        assert!(!clients.iter().all(has_news), "all others are served still");
        // Nor does who watches hold up the end.
        for watched in &mut watches {
            assert_eq!(next(watched).await, None);
        }
    });
    ends_well(&mut world);
}

#[test]
fn what_was_asked_before_a_stop_is_answered_and_relayed() {
    let redis = RedisServer::start();
    let mut world = World::with(&[("ROLLCALL_REDIS__URL", &redis.url())]);
    let address = world.listener("http.things").to_owned();
    let bearer = Rest::things(&world).bearer;
    let body = br#"{"name":"the last one"}"#;
    let mut stream = TcpStream::connect(&address).expect("a server");
    let head = format!(
        "POST /things HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut reply = [0; 1024];
    // So the request is under way.
    let read = stream.read(&mut reply).expect("an answer");
    assert!(reply[..read].starts_with(b"HTTP/1.1 100"));
    world.signal("TERM");
    wait_for("the door to close", || {
        TcpStream::connect(&address).is_err().then_some(())
    });
    // Who writes slowly has more time than anything else here takes.
    for byte in body {
        stream.write_all(&[*byte]).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    let (head, made) = reply.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let made = serde_json::from_str(made).expect("JSON");
    world.secrets.add_from(&made);
    ends_well(&mut world);
    assert_eq!(redis.len("mainflux.things"), 1);
}

#[test]
fn few_are_seen_out_at_once_and_sent_to_another_server() {
    let mut world = World::prepared(&[
        ("ROLLCALL_MQTT__SERVER_REFERENCE", "other.example:1883"),
        ("ROLLCALL_MQTT__DRAIN__DEADLINE", "10m"),
        ("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "32MiB"),
    ]);
    world.run();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut five = world.client(Hello::of(&thing, "five").five());
    let mut four = world.client(Hello::of(&thing, "four"));
    assert_eq!(four.subscribe(&[(&topic, 0)]), [0]);
    // Who never reads again must not hold up the others.
    let mut deaf = world.client(Hello::of(&thing, "deaf"));
    assert_eq!(deaf.subscribe(&[(&topic, 0)]), [0]);
    // What was queued for a client is written before its connection closes.
    let payload = vec![b'x'; 500_000];
    for _ in 0..20 {
        five.send(&publish(true, &topic, &payload, 0, false, 0, &[]));
    }
    five.expect_silence();
    world.signal("TERM");
    let goodbye = five.receive();
    assert_eq!(
        (goodbye.first, goodbye.body[0]),
        (0xE0, 0x8B),
        "{goodbye:?}"
    );
    let reference = b"\x1C\0\x12other.example:1883";
    assert!(
        goodbye
            .body
            .windows(reference.len())
            .any(|it| it == reference),
        "{goodbye:?}"
    );
    five.expect_end();
    for _ in 0..20 {
        assert!(four.take().payload == payload);
    }
    four.expect_end();
    drop((five, four));
    ends_well(&mut world);
}

#[test]
fn a_deadline_comes_before_politeness() {
    let mut world = World::prepared(&[
        ("ROLLCALL_MQTT__DRAIN__PER_SECOND", "1"),
        ("ROLLCALL_MQTT__DRAIN__DEADLINE", "3s"),
    ]);
    world.run();
    let (things, _) = world.members(60);
    let mut clients: Vec<_> = things
        .iter()
        .map(|thing| world.client(Hello::of(thing, "c").five()))
        .collect();
    world.signal("TERM");
    for client in &mut clients {
        client.expect_disconnect(0x8B);
    }
    ends_well(&mut world);
    world.run();
    assert_eq!(world.events().len(), 120);
}

#[test]
fn a_second_signal_stops_at_once_and_a_will_is_heard() {
    let mut world = World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_MQTT__WORKERS", "1"),
        ("ROLLCALL_MQTT__DRAIN__PER_SECOND", "2"),
        ("ROLLCALL_MQTT__DRAIN__DEADLINE", "10m"),
    ]);
    world.run();
    let (things, channel) = world.members(60);
    let topic = format!("channels/{channel}/messages");
    // The first one to come is the first to go: the others hear its will.
    let _first = world.client(Hello::of(&things[0], "c").will(&topic, b"gone", 0, false));
    let mut clients: Vec<_> = things[1..]
        .iter()
        .map(|thing| world.client(Hello::of(thing, "c")))
        .collect();
    let last = clients.last_mut().expect("some");
    assert_eq!(last.subscribe(&[(&topic, 0)]), [0]);
    world.signal("TERM");
    assert_eq!(last.take().payload, b"gone");
    world.signal("TERM");
    let status = wait_for("the program to end", || world.try_end());
    assert!(!status.success());
    // Who was not seen out any more is, by the next run.
    world.run();
    let events = world.events();
    assert_eq!(check_pairs(&events), 60);
    let mut reasons = events.iter().filter_map(|event| event.get("reason"));
    assert!(reasons.all(|it| it == "server_shutdown" || it == "instance_failed"));
}

#[test]
fn wrong_settings_of_a_stop_are_named() {
    for (name, value, told) in [
        ("MQTT__DRAIN__DEADLINE", "0s", "mqtt.drain.deadline"),
        ("MQTT__DRAIN__PER_SECOND", "0", "mqtt.drain.per_second"),
        ("REDIS__DRAIN_TIMEOUT", "1h", "mqtt.drain.deadline"),
    ] {
        let mut world = World::prepared(&[("ROLLCALL_REDIS__URL", "redis://127.0.0.1:1")]);
        world.set(&format!("ROLLCALL_{name}"), value);
        let output = world.up().output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains(told),
            "{name}: {errors}"
        );
    }
}
