//! MQTT in WebSocket frames, well and badly made.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tungstenite::protocol::{Role, WebSocketContext};
use tungstenite::{Error, Message};

use crate::authority::{Authority, Tls};
use crate::client::{Client, Hello, Layer, publish};
use crate::world::{PATIENCE, World, wait_for};

const ASK: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
/// What goes with that key, as in RFC 6455.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A socket, with or without TLS.
struct Lower<'a> {
    stream: &'a mut TcpStream,
    tls: Option<&'a mut Tls>,
}

impl Read for Lower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.read(self.stream, buffer),
            None => self.stream.read(buffer),
        }
    }
}

impl Write for Lower<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write(self.stream, bytes).map(|()| bytes.len()),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client's side of a WebSocket.
struct Web {
    context: WebSocketContext,
    tls: Option<Box<Tls>>,
}

impl Web {
    /// Shakes hands.
    fn open(stream: &mut TcpStream, mut tls: Option<Box<Tls>>) -> Box<Self> {
        let mut lower = Lower {
            stream,
            tls: tls.as_deref_mut(),
        };
        lower.write_all(ASK.as_bytes()).expect("sent");
        let head = read_head(&mut lower);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let lines: Vec<String> = head.lines().map(str::to_lowercase).collect();
        assert!(
            lines.contains(&"sec-websocket-protocol: mqtt".to_owned()),
            "{head}"
        );
        assert!(head.contains(ACCEPT), "{head}");
        let context = WebSocketContext::new(Role::Client, None);
        Box::new(Self { context, tls })
    }
}

impl Layer for Web {
    fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut lower = Lower {
            stream,
            tls: self.tls.as_deref_mut(),
        };
        let message = Message::Binary(bytes.to_vec().into());
        let sent = self.context.write(&mut lower, message);
        sent.and_then(|()| self.context.flush(&mut lower))
            .map_err(io::Error::other)
    }

    fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let mut lower = Lower {
            stream,
            tls: self.tls.as_deref_mut(),
        };
        loop {
            match self.context.read(&mut lower) {
                Ok(Message::Binary(bytes)) => {
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    return Ok(bytes.len());
                }
                Ok(Message::Close(frame)) => {
                    assert_eq!(frame.map(|it| u16::from(it.code)), Some(1000));
                }
                Ok(other) => panic!("unexpected {other:?}"),
                Err(Error::ConnectionClosed) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

fn read_head(lower: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if lower.read(&mut byte).expect("an answer") == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

fn started(environment: &[(&str, &str)]) -> (World, SocketAddr) {
    let mut world = World::prepared(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    world.set("ROLLCALL_MQTT__LISTENERS__WS__LISTEN", "127.0.0.1:0");
    for (name, value) in environment {
        world.set(name, value);
    }
    world.run();
    let address = world.listener("ws").parse().expect("an address");
    (world, address)
}

fn failures(world: &World, reason: &str) -> f64 {
    let name = "rollcall_mqtt_handshake_failures_total";
    world.counter(name, &format!("reason=\"{reason}\""))
}

/// A raw connection behind a handshake that went well.
fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let _ = Web::open(&mut stream, None);
    stream
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .enumerate()
            .map(|(n, byte)| byte ^ mask[n % 4]),
    );
    bytes
}

/// A frame of the server, shorter than 126 bytes: its first byte and payload.
fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert!(head[1] < 126, "a short frame that is not masked");
    let mut payload = vec![0; head[1].into()];
    stream.read_exact(&mut payload).expect("a whole frame");
    Some((head[0], payload))
}

#[test]
fn packets_go_over_websocket_with_and_without_tls() {
    let mut world = World::prepared(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let authority = Authority::new(&world.folder(), "root");
    let pair = authority.server("localhost", 1);
    for (name, value) in [
        ("TLS__CERTIFICATE", pair.certificate.to_str().expect("text")),
        ("TLS__KEY", pair.key.to_str().expect("text")),
        ("LISTENERS__WS__LISTEN", "127.0.0.1:0"),
        ("LISTENERS__WSS__LISTEN", "127.0.0.1:0"),
    ] {
        world.set(&format!("ROLLCALL_MQTT__{name}"), value);
    }
    world.run();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    for (listener, tls) in [
        ("ws", None),
        ("wss", Some(authority.trusting())),
        ("wss", Some(authority.trusting().alpn("http/1.1"))),
    ] {
        let address = world.listener(listener).parse().expect("an address");
        for five in [false, true] {
            let mut client = Client::open(address, five);
            let tls = tls.as_ref().map(|it| it.layer());
            client.layer = Some(Web::open(&mut client.stream, tls));
            // Client ids at random, so that some move to another worker.
            let id = format!("{listener} {five} {}", address.port());
            client.send(&Hello::of(&thing, &id).version(five).bytes());
            assert_eq!(client.connack().code, 0);
            assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
            for len in [0, 1, 125, 126, 65_536, 900_000] {
                let payload: Vec<u8> = (0..len).map(|n: u32| n as u8).collect();
                client.send(&publish(five, &topic, &payload, 0, false, 0, &[]));
                assert!(client.message().payload == payload);
            }
            client.disconnect();
        }
    }
    let events = world.wait_events(12);
    let reasons: Vec<_> = events.iter().filter_map(|it| it.get("reason")).collect();
    assert_eq!(reasons, ["disconnected"; 6]);
}

#[test]
fn packets_and_frames_need_not_meet() {
    let (world, address) = started(&[]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut stream = raw(address);
    // A packet in many frames, one of them empty.
    for part in Hello::of(&thing, "c").bytes().chunks(7) {
        stream.write_all(&frame(0x82, part)).expect("sent");
        stream.write_all(&frame(0x82, &[])).expect("sent");
    }
    assert_eq!(read_frame(&mut stream), Some((0x82, vec![0x20, 2, 0, 0])));
    // Many packets in one message, in fragments, with control frames in between.
    let subscribe = crate::client::subscribe(false, 1, &[(&topic, 0)]);
    let message = publish(false, &topic, b"x", 1, false, 2, &[]);
    let packets = [&subscribe[..], &message, &[0xC0, 0]].concat();
    let (one, rest) = packets.split_at(3);
    let (two, three) = rest.split_at(20);
    for bytes in [
        frame(0x02, one),
        frame(0x89, b"are you there"),
        frame(0x00, two),
        frame(0x8A, b"nobody asked"),
        frame(0x80, three),
    ] {
        stream.write_all(&bytes).expect("sent");
    }
    assert_eq!(
        read_frame(&mut stream),
        Some((0x8A, b"are you there".to_vec()))
    );
    let mut said = Vec::new();
    let expected = [
        &[0x90, 3, 0, 1, 0][..],
        &publish(false, &topic, b"x", 0, false, 0, &[]),
        &[0x40, 2, 0, 2, 0xD0, 0],
    ]
    .concat();
    while said.len() < expected.len() {
        let (first, payload) = read_frame(&mut stream).expect("more");
        assert_eq!(first, 0x82);
        said.extend(payload);
    }
    said.sort_unstable();
    let mut sorted = expected;
    sorted.sort_unstable();
    assert_eq!(said, sorted);
    // A goodbye of WebSocket is none of MQTT.
    stream
        .write_all(&frame(0x88, &1000u16.to_be_bytes()))
        .expect("sent");
    assert_eq!(
        read_frame(&mut stream),
        Some((0x88, 1000u16.to_be_bytes().to_vec()))
    );
    assert_eq!(read_frame(&mut stream), None);
    assert_eq!(world.wait_events(2)[1]["reason"], "connection_lost");
}

#[test]
fn wrong_frames_are_told_and_end_the_connection() {
    let (world, address) = started(&[]);
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c").bytes();
    let mut unmasked = vec![0x82, hello.len() as u8];
    unmasked.extend(&hello);
    let mut endless = frame(0x02, &hello);
    for _ in 0..100 {
        endless.extend(frame(0x00, &[0; 2000]));
    }
    let wrong = [
        (frame(0x81, b"text"), 1003),
        (frame(0x81, b"\xFF\xFE"), 1003),
        (unmasked, 1002),
        (frame(0x80, &hello), 1002),
        (frame(0xC2, &hello), 1002),
        (frame(0x83, &hello), 1002),
        (frame(0x09, b""), 1002),
        (frame(0x82, &vec![0; 200_000])[..20].to_vec(), 1009),
        (endless, 1009),
    ];
    let count = wrong.len() as f64;
    for (n, (bytes, code)) in wrong.into_iter().enumerate() {
        for let_in in [false, true] {
            if let_in && code == 1009 {
                continue;
            }
            let mut stream = raw(address);
            if let_in {
                stream.write_all(&frame(0x82, &hello)).expect("sent");
                assert_eq!(read_frame(&mut stream), Some((0x82, vec![0x20, 2, 0, 0])));
            }
            let _ = stream.write_all(&bytes);
            let told = read_frame(&mut stream);
            assert_eq!(
                told,
                Some((0x88, u16::to_be_bytes(code).to_vec())),
                "frame {n}"
            );
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let all = 2.0 * count - 2.0;
    wait_for("the count", || {
        (failures(&world, "websocket") == all).then_some(())
    });
    let events = world.wait_events(2 * (count as usize - 2));
    assert_eq!(events[1]["reason"], "protocol_error");
}

#[test]
fn answers_to_pings_that_nobody_reads_do_not_pile_up() {
    const PINGS: usize = 400_000;
    let (_world, address) = started(&[("ROLLCALL_MQTT__CONNECT_TIMEOUT", "5m")]);
    let mut stream = raw(address);
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    for _ in 0..PINGS / 1000 {
        stream.write_all(&pings).expect("sent");
    }
    stream.write_all(&frame(0x89, b"last")).expect("sent");
    let mut answers = 0;
    while read_frame(&mut stream).expect("open") != (0x8a, b"last".to_vec()) {
        answers += 1;
    }
    // What the buffers of both sockets hold, and little more.
    assert!(answers < PINGS / 2, "{answers}");
}

#[test]
fn messages_may_be_as_large_as_is_set() {
    let (world, address) = started(&[
        ("ROLLCALL_MQTT__MAX_PACKET_SIZE", "300KiB"),
        ("ROLLCALL_MQTT__WEBSOCKET__MAX_MESSAGE_SIZE", "300KiB"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut client = Client::open(address, true);
    client.layer = Some(Web::open(&mut client.stream, None));
    client.send(&Hello::of(&thing, "c").five().bytes());
    assert_eq!(client.connack().code, 0);
    assert!(client.publish(&topic, &[0; 300_000], 1) < 0x80);
    let layer = client.layer.as_mut().expect("WebSocket");
    let _ = layer.write(&mut client.stream, &[0; 310_000]);
    let name = "rollcall_mqtt_handshake_failures_total";
    wait_for("the count", || {
        (world.counter(name, "websocket") == 1.0).then_some(())
    });
}

#[test]
fn a_handshake_asks_for_the_right_thing_or_is_refused() {
    let (world, address) = started(&[
        (
            "ROLLCALL_MQTT__WEBSOCKET__ORIGINS",
            "https://app.example.org",
        ),
        ("ROLLCALL_MQTT__LISTENERS__WS__CONNECT_TIMEOUT", "500ms"),
    ]);
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let _ = stream.write_all(request.as_bytes());
        let mut answer = read_head(&mut stream);
        if let Some(body) = answer
            .lines()
            .find_map(|it| it.strip_prefix("Content-Length: "))
        {
            let mut text = vec![0; body.parse().expect("a number")];
            stream.read_exact(&mut text).expect("a body");
            answer.push_str(&String::from_utf8(text).expect("text"));
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        }
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let with = |header: &str| ASK.replacen("\r\n", &format!("\r\n{header}\r\n"), 1);
    for (request, status) in [
        (ASK.to_owned(), "101"),
        (with("Origin: https://app.example.org"), "101"),
        (ASK.replace("/mqtt", "/mqtt?token=x"), "101"),
        (ASK.replace("Protocol: mqtt", "Protocol: chat, mqtt"), "101"),
        (with("Origin: https://evil.example.org"), "403"),
        (ASK.replace("/mqtt", "/"), "404"),
        (ASK.replace("GET", "POST"), "405"),
        (ASK.replace("Protocol: mqtt", "Protocol: chat"), "400"),
        (ASK.replace("Protocol: mqtt", "Protocol: mqttv3.1"), "400"),
        (ASK.replace("Sec-WebSocket-Protocol: mqtt\r\n", ""), "400"),
        (ASK.replace("Version: 13", "Version: 8"), "426"),
        (ASK.replace("Upgrade: websocket\r\n", ""), "426"),
        (ASK.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (with(&format!("X-Long: {}", "x".repeat(20_000))), "431"),
    ] {
        assert_eq!(ask(&request), status, "{request}");
    }
    assert_eq!(failures(&world, "websocket"), 11.0);
    // Half a request, and a handshake with nothing behind it.
    assert_eq!(ask(&ASK[..50]), "");
    let mut silent = raw(address);
    assert_eq!(
        read_frame(&mut silent),
        Some((0x88, 1000u16.to_be_bytes().to_vec()))
    );
    assert_eq!(failures(&world, "timeout"), 1.0);
    assert_eq!(
        world.counter("rollcall_mqtt_connect_timeouts_total", ""),
        2.0
    );
}

#[test]
fn the_path_is_what_is_set_and_older_clients_have_a_name() {
    let (world, address) = started(&[
        ("ROLLCALL_MQTT__LISTENERS__WS__WEBSOCKET__PATH", "/devices"),
        ("ROLLCALL_MQTT__MQTT31", "true"),
        ("ROLLCALL_MQTT__LISTENERS__WS__PROXY_PROTOCOL", "true"),
    ]);
    // Behind a proxy, all in one piece.
    let asked = ASK
        .replace("/mqtt", "/devices")
        .replace("Protocol: mqtt", "Protocol: mqttv3.1");
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let thing = world.thing("lamp");
    let hello = frame(0x82, &Hello::of(&thing, "c").bytes());
    let proxy = "PROXY TCP4 203.0.113.7 10.0.0.1 12345 8083\r\n";
    stream
        .write_all(&[proxy.as_bytes(), asked.as_bytes(), &hello].concat())
        .expect("sent");
    let head = read_head(&mut stream).to_lowercase();
    assert!(head.contains("sec-websocket-protocol: mqttv3.1"), "{head}");
    assert_eq!(read_frame(&mut stream), Some((0x82, vec![0x20, 2, 0, 0])));
    assert_eq!(world.wait_events(1)[0]["peer"], "203.0.113.7:12345");
}

#[test]
fn wrong_settings_stop_the_start_and_are_named() {
    for (name, value, told) in [
        (
            "WEBSOCKET__PATH",
            "mqtt",
            "mqtt.listeners.ws.websocket.path",
        ),
        (
            "WEBSOCKET__ORIGINS",
            "https://app.example.org,https://app.example.org/",
            "mqtt.listeners.ws.websocket.origins",
        ),
        (
            "WEBSOCKET__MAX_MESSAGE_SIZE",
            "1KiB",
            "mqtt.listeners.ws.websocket.max_message_size",
        ),
    ] {
        let mut world = World::prepared(&[("ROLLCALL_MQTT__LISTENERS__WS__LISTEN", "127.0.0.1:0")]);
        world.set(&format!("ROLLCALL_MQTT__{name}"), value);
        let output = world.up().output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains(told),
            "{name}: {errors}"
        );
    }
}
