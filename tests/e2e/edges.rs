//! The edges beside MQTT: what they bear of clients that are many, slow or large.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::world::{PATIENCE, World, wait_for};

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// What comes until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("cannot read: {error}"),
        _ => String::from_utf8_lossy(&text).into_owned(),
    }
}

/// Sends `bytes` one by one until the server has closed.
fn trickle(mut stream: TcpStream, bytes: &[u8]) {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a socket");
    let end = Instant::now() + PATIENCE;
    for byte in bytes.iter().cycle() {
        assert!(Instant::now() < end, "served for too long");
        let sent = stream.write_all(&[*byte]);
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if sent.is_err() {
            return;
        }
    }
}

#[test]
fn slow_http_clients_are_closed_and_too_many_turned_away() {
    let world = World::with(&[
        ("ROLLCALL_HTTP__HEADER_TIMEOUT", "1s"),
        ("ROLLCALL_HTTP__MAX_CONNECTIONS", "3"),
    ]);
    let address = world.http_address().to_owned();
    let mut slow = open(&address);
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .expect("sent");
    let (silent, idle) = (open(&address), open(&address));
    // All places are taken.
    assert_eq!(rest(open(&address)), "");
    trickle(slow, b"x");
    assert_eq!(rest(silent), "");
    assert_eq!(rest(idle), "");
    let turned_away = "rollcall_http_connections_turned_away_total";
    wait_for("the places to be free", || {
        let mut stream = open(&address);
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let sent = stream.write_all(request);
        (sent.is_ok() && rest(stream).starts_with("HTTP/1.1 200")).then_some(())
    });
    assert!(world.counter(turned_away, "") >= 1.0);
    let timed_out = "rollcall_http_connections_timed_out_total";
    assert!(world.counter(timed_out, "") >= 3.0);
    wait_for("all others to be gone", || {
        (world.counter("rollcall_http_connections ", "") == 1.0).then_some(())
    });
}

#[test]
fn http_connections_do_not_last_for_ever_nor_do_heads() {
    let world = World::with(&[
        ("ROLLCALL_HTTP__HEADER_TIMEOUT", "1h"),
        ("ROLLCALL_HTTP__MAX_CONNECTION_AGE", "300ms"),
        ("ROLLCALL_HTTP__MAX_REQUEST_HEAD", "8KiB"),
    ]);
    let mut stream = open(world.http_address());
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert!(rest(stream).starts_with("HTTP/1.1 200"));

    let mut stream = open(world.http_address());
    let head = format!("GET /livez HTTP/1.1\r\nX-Large: {:x<9000}\r\n\r\n", "");
    stream.write_all(head.as_bytes()).expect("sent");
    assert!(rest(stream).starts_with("HTTP/1.1 431"));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::with(&[("ROLLCALL_HTTP__TIMEOUT", "300ms")]);
    let mut stream = open(world.listener("http.things"));
    stream
        .write_all(
            b"POST /channels/x/access HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
              Content-Length: 100\r\n\r\n{",
        )
        .expect("sent");
    let reply = rest(stream);
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    let timed_out = "rollcall_http_requests_timed_out_total";
    assert_eq!(world.counter(timed_out, ""), 1.0);
}

#[test]
fn silent_grpc_clients_are_closed_and_too_many_turned_away() {
    let world = World::with(&[
        ("ROLLCALL_GRPC__HANDSHAKE_TIMEOUT", "1s"),
        ("ROLLCALL_GRPC__MAX_CONNECTIONS", "2"),
    ]);
    let (mut slow, silent) = (open(world.grpc()), open(world.grpc()));
    slow.write_all(b"PRI * HTTP/2.0\r\n").expect("sent");
    assert_eq!(rest(open(world.grpc())), "");
    let turned_away = "rollcall_grpc_connections_turned_away_total";
    assert_eq!(world.counter(turned_away, ""), 1.0);
    // The server has said what it can.
    rest(slow);
    rest(silent);
    wait_for("the places to be free", || {
        (world.counter("rollcall_grpc_connections ", "") == 0.0).then_some(())
    });
    let timed_out = "rollcall_grpc_connections_timed_out_total";
    assert_eq!(world.counter(timed_out, ""), 2.0);
    assert_eq!(world.json(&["things", "list"])["total"], 0);
}

#[test]
fn a_preface_alone_is_no_greeting() {
    let world = World::with(&[("ROLLCALL_GRPC__HANDSHAKE_TIMEOUT", "500ms")]);
    let mut stream = open(world.grpc());
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n")
        .expect("sent");
    // The preface is there, the first frame is not.
    rest(stream);
}

#[test]
fn messages_of_calls_are_bounded() {
    let world = World::with(&[("ROLLCALL_GRPC__MAX_REQUEST_SIZE", "1KiB")]);
    let thing = world.thing("lamp");
    world.fail(&["things", "create", &"x".repeat(2000)]);
    let things = world.json(&["things", "list"]);
    assert_eq!(things["total"], 1, "{}", thing.id);
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Begins a call whose message has `length` bytes, of which so many come.
fn begin_call(stream: u32, length: u32, bytes: usize) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    // Of the static table of HPACK: POST and http; the names of path, authority and content-type.
    let head = [
        &[0x83, 0x86, 0x04][..],
        &text("/rollcall.things.v1.Things/CreateThings"),
        &[0x01],
        &text("x"),
        &[0x0F, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ];
    let message = [&[0][..], &length.to_be_bytes(), &vec![b'x'; bytes]].concat();
    let (end_of_head, goes_on) = (4, 0);
    [
        frame(1, end_of_head, stream, &head.concat()),
        frame(0, goes_on, stream, &message),
    ]
    .concat()
}

#[test]
fn calls_that_bring_much_and_do_not_end_are_bounded_together() {
    let world = World::with(&[
        ("ROLLCALL_GRPC__MAX_REQUEST_SIZE", "16KiB"),
        ("ROLLCALL_GRPC__MAX_RECEIVING", "16KiB"),
    ]);
    let mut stream = open(world.grpc());
    let settings = frame(4, 0, 0, &[]);
    let greeting = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat();
    stream.write_all(&greeting).expect("sent");
    for call in [1, 3] {
        stream
            .write_all(&begin_call(call, 16_000, 15_000))
            .expect("sent");
    }
    let without_room = "rollcall_grpc_calls_without_room_total";
    wait_for("one of them to be refused", || {
        (world.counter(without_room, "") == 1.0).then_some(())
    });
    // Small ones are served meanwhile, large ones later.
    let large = "x".repeat(10_000);
    let lacks_room = || {
        let error = world.fail(&["channels", "create", &large]);
        error.contains("too much is being received")
    };
    world.tell(&["things", "list"]);
    assert!(lacks_room());
    drop(stream);
    wait_for("room", || (!lacks_room()).then_some(()));
}

#[test]
fn limits_that_make_no_sense_stop_the_start() {
    for (name, value, told) in [
        ("GRPC__MAX_CALLS", "0", "grpc.max_calls"),
        ("GRPC__MAX_CONNECTIONS", "0", "grpc.max_connections"),
        ("GRPC__HANDSHAKE_TIMEOUT", "0s", "grpc.handshake_timeout"),
        ("GRPC__MAX_REQUEST_SIZE", "1B", "grpc.max_request_size"),
        ("GRPC__MAX_RECEIVING", "1MiB", "grpc.max_receiving"),
        ("HTTP__MAX_CONNECTIONS", "0", "http.max_connections"),
        ("HTTP__HEADER_TIMEOUT", "0s", "http.header_timeout"),
        ("HTTP__MAX_REQUEST_HEAD", "1KiB", "http.max_request_head"),
        ("HTTP__TIMEOUT", "0s", "http.timeout"),
        ("HTTP__MAX_CONNECTION_AGE", "0s", "http.max_connection_age"),
        ("MQTT__MAX_SESSIONS", "0", "mqtt.max_sessions"),
        ("MQTT__MAX_QUESTIONS", "0", "mqtt.max_questions"),
        ("MQTT__MAX_SUBSCRIPTIONS", "0", "mqtt.max_subscriptions"),
        (
            "MQTT__MAX_SUBSCRIPTION_BYTES",
            "0B",
            "mqtt.max_subscription_bytes",
        ),
        ("MQTT__CONNECT_TIMEOUT", "0s", "mqtt.connect_timeout"),
        (
            "MQTT__LIMITS__CONNECT_BURST",
            "1ms",
            "mqtt.limits.connect_burst",
        ),
        (
            "MQTT__LIMITS__PUBLISH_BURST",
            "0s",
            "mqtt.limits.publish_burst",
        ),
        (
            "MQTT__LIMITS__FAILED_LOGIN_WINDOW",
            "0s",
            "mqtt.limits.failed_login_window",
        ),
        (
            "MQTT__LIMITS__MAX_TOPIC_LENGTH",
            "0",
            "mqtt.limits.max_topic_length",
        ),
        (
            "MQTT__LIMITS__MAX_TOPIC_LEVELS",
            "1001",
            "mqtt.limits.max_topic_levels",
        ),
        ("MQTT__LIMITS__RATE_ACTION", "shout", "rate_action"),
        (
            "MQTT__LIMITS__MEMORY_HIGH_WATER",
            "101%",
            "mqtt.limits.memory_high_water",
        ),
        (
            "MQTT__LIMITS__MAX_QUEUE_BYTES",
            "much",
            "mqtt.limits.max_queue_bytes",
        ),
        (
            "MQTT__LIMITS__MAX_PUBLISH_BYTES",
            "-1",
            "mqtt.limits.max_publish_bytes",
        ),
    ] {
        let name = format!("ROLLCALL_{name}");
        let world = World::prepared(&[(&name, value)]);
        let output = world.up().output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(told),
            "{name}={value}: {error}"
        );
    }
}
