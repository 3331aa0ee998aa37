//! TLS: versions, names, certificates that change, and clients that do it wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustls::SupportedProtocolVersion;

use crate::authority::{Authority, Pair};
use crate::client::{Client, Hello};
use crate::rest;
use crate::world::{PATIENCE, Thing, World, wait_for};

static V1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static V1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn prepared(authority: &str) -> (World, Authority) {
    let mut world = World::prepared(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let authority = Authority::new(&world.folder(), authority);
    let pair = authority.server("localhost", 1);
    world.set("ROLLCALL_MQTT__LISTENERS__TLS__LISTEN", "127.0.0.1:0");
    world.set(
        "ROLLCALL_MQTT__TLS__CERTIFICATE",
        pair.certificate.to_str().expect("text"),
    );
    world.set("ROLLCALL_MQTT__TLS__KEY", pair.key.to_str().expect("text"));
    (world, authority)
}

fn started() -> (World, Authority, SocketAddr) {
    let (mut world, authority) = prepared("root");
    world.run();
    let address = world.listener("tls").parse().expect("an address");
    (world, authority, address)
}

pub(crate) fn failures(world: &World, reason: &str) -> f64 {
    world.counter(
        "rollcall_mqtt_handshake_failures_total",
        &format!("reason=\"{reason}\""),
    )
}

/// Whether the server goes on with a client that has done its part of the handshake.
fn is_let_in(client: &mut Client, hello: &Hello) -> bool {
    let layer = client.layer.as_mut().expect("TLS");
    let sent = layer.write(&mut client.stream, &hello.bytes());
    let mut buffer = [0; 1024];
    sent.is_ok() && matches!(layer.read(&mut client.stream, &mut buffer), Ok(n) if n > 0)
}

fn open(address: SocketAddr, trust: &crate::authority::Trust) -> Client {
    let mut client = Client::open(address, false);
    client.layer = Some(trust.layer());
    client
}

#[test]
fn packets_go_over_tls_of_both_versions() {
    let (world, authority, address) = started();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    for (n, trust) in [
        authority.trusting(),
        authority.trusting().only(V1_2),
        authority.trusting().only(V1_3).alpn("mqtt"),
        authority.trusting().alpn("h2").alpn("mqtt"),
    ]
    .into_iter()
    .enumerate()
    {
        for five in [false, true] {
            let hello = Hello::of(&thing, &format!("{n} {five}")).version(five);
            let (mut client, connack) = Client::connect_over(address, trust.layer(), hello);
            assert_eq!(connack.code, 0);
            assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
            // Larger than what a record, or a socket, takes at once.
            for len in [0, 1, 16_384, 900_000] {
                let payload: Vec<u8> = (0..len).map(|n: u32| n as u8).collect();
                client.send(&crate::client::publish(
                    five,
                    &topic,
                    &payload,
                    0,
                    false,
                    0,
                    &[],
                ));
                assert!(client.message().payload == payload);
            }
            client.disconnect();
        }
    }
    let peer = &world.wait_events(16)[0]["peer"];
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
}

#[test]
fn a_slow_reader_over_tls_gets_everything() {
    let (world, authority, address) = started();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "slow");
    let (mut slow, _) = Client::connect_over(address, authority.trusting().layer(), hello);
    assert_eq!(slow.subscribe(&[(&topic, 1)]), [1]);
    let mut from = world.client(Hello::of(&thing, "from"));
    // More than sockets hold, less than a session may leave unread.
    let payload = vec![7; 100_000];
    for _ in 0..30 {
        assert_eq!(from.publish(&topic, &payload, 1), 0);
    }
    for _ in 0..30 {
        assert!(slow.take().payload == payload);
    }
}

#[test]
fn mosquitto_speaks_tls_with_it() {
    let (world, authority, address) = started();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages/x");
    let mosquitto = |program: &str| {
        let mut command = Command::new(program);
        command.args([
            "-h",
            "localhost",
            "-p",
            &address.port().to_string(),
            "-u",
            &thing.id,
        ]);
        command
            .args(["-P", &thing.key, "-t", &topic, "-q", "1", "--cafile"])
            .arg(authority.file());
        command
    };
    let subscriber = mosquitto("mosquitto_sub")
        .args(["-C", "1", "-W", "30"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub");
    wait_for("the subscriber", || {
        let sent = mosquitto("mosquitto_pub")
            .args(["-r", "-m", "hello"])
            .status();
        sent.expect("mosquitto_pub").success().then_some(())
    });
    let output = subscriber.wait_with_output().expect("its output");
    assert_eq!(output.stdout, b"hello\n");
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let (mut world, authority) = prepared("root");
    let (first, second) = (
        authority.server("localhost", 1),
        authority.server("*.example.org", 2),
    );
    let list =
        |a: &std::path::Path, b: &std::path::Path| format!("{},{}", a.display(), b.display());
    let certificates = list(&first.certificate, &second.certificate);
    world.set(
        "ROLLCALL_MQTT__LISTENERS__TLS__TLS__CERTIFICATE",
        &certificates,
    );
    world.set(
        "ROLLCALL_MQTT__LISTENERS__TLS__TLS__KEY",
        &list(&first.key, &second.key),
    );
    world.run();
    let address: SocketAddr = world.listener("tls").parse().expect("an address");
    let shown = |name: &str| {
        let mut stream = TcpStream::connect(address).expect("a server");
        authority
            .trusting()
            .named(name)
            .layer()
            .handshake(&mut stream)
    };
    let one = shown("localhost").expect("valid");
    let other = shown("mqtt.example.org").expect("valid");
    assert!(one != other);
    // Who asks for something else is shown the first one, and leaves.
    shown("elsewhere.org").expect_err("not valid for it");
    wait_for("the count", || {
        (failures(&world, "tls") == 1.0).then_some(())
    });
}

#[test]
fn what_is_not_agreed_on_is_refused_and_counted() {
    let (mut world, authority) = prepared("root");
    world.set("ROLLCALL_MQTT__TLS__MIN_VERSION", "1.3");
    world.set("ROLLCALL_MQTT__LISTENERS__TLS__CONNECT_TIMEOUT", "500ms");
    world.run();
    let address = world.listener("tls").parse().expect("an address");
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c");
    let old = authority.trusting().only(V1_2);
    assert!(!is_let_in(&mut open(address, &old), &hello));
    assert!(!is_let_in(
        &mut open(address, &authority.trusting().alpn("h2")),
        &hello
    ));
    // MQTT without TLS, and garbage.
    for bytes in [
        hello.bytes(),
        vec![0xFF; 100],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(&bytes).expect("sent");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        // An alert, and the end.
        assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    }
    wait_for("the counts", || {
        (failures(&world, "alpn") == 1.0 && failures(&world, "tls") == 4.0).then_some(())
    });
    // Half a handshake, and none at all.
    let mut half = Vec::new();
    authority
        .trusting()
        .layer()
        .0
        .write_tls(&mut half)
        .expect("a hello");
    for bytes in [&half[..half.len() / 2], &half[..], &[]] {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(bytes).expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    wait_for("the counts", || {
        (failures(&world, "timeout") == 3.0).then_some(())
    });
    assert!(world.events().is_empty());
    // Those who do it right are not in the way of each other.
    assert!(is_let_in(&mut open(address, &authority.trusting()), &hello));
}

#[test]
fn certificates_change_while_sessions_live_on() {
    let (world, authority, address) = started();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "old").five();
    let (mut session, _) = Client::connect_over(address, authority.trusting().layer(), hello);
    assert_eq!(session.subscribe(&[(&topic, 1)]), [1]);

    // Another authority vouches for the server from now on.
    let successor = Authority::new(&world.folder(), "successor");
    let (old, new) = (
        authority.server("localhost", 1),
        successor.server("localhost", 7),
    );
    let replace = |certificate: &std::path::Path, key: &std::path::Path| {
        fs::copy(certificate, &old.certificate).expect("copied");
        fs::copy(key, &old.key).expect("copied");
    };
    let shows = |authority: &Authority| {
        let mut stream = TcpStream::connect(address).expect("a server");
        authority.trusting().layer().handshake(&mut stream).is_ok()
    };
    replace(&new.certificate, &new.key);
    assert_eq!(world.json(&["reload"])["reloaded"][0], "tls");
    assert!(shows(&successor) && !shows(&authority));

    // What cannot be used is named, and changes nothing.
    fs::write(&old.key, "no key").expect("written");
    let told = world.fail(&["reload"]);
    assert!(told.contains(old.key.to_str().expect("text")), "{told}");
    let token = fs::read_to_string(world.folder().join("data/secrets/admin.token"));
    let bearer = format!("Authorization: Bearer {}", token.expect("a token").trim());
    let post = |header: &[&str]| rest::send(world.http_address(), "POST /reload", header, b"");
    assert_eq!(post(&[]).status, 401);
    let answer = post(&[&bearer]);
    assert_eq!(answer.status, 409);
    assert!(
        answer.body.contains(old.key.to_str().expect("text")),
        "{}",
        answer.body
    );
    assert!(shows(&successor));
    let other = authority.server("localhost", 8);
    replace(&new.certificate, &other.key);
    assert!(world.fail(&["reload"]).contains("cannot use"));
    assert!(shows(&successor));

    replace(&new.certificate, &new.key);
    let answer = post(&[&bearer]);
    assert_eq!((answer.status, answer.body.contains("tls")), (200, true));
    replace(&other.certificate, &other.key);
    world.signal("HUP");
    wait_for("the old authority", || shows(&authority).then_some(()));
    assert_eq!(session.publish(&topic, b"still here", 0), 0);
    assert_eq!(session.take().payload, b"still here");
    assert_eq!(world.events().len(), 1);
}

#[test]
fn wrong_settings_stop_the_start_and_are_named() {
    for (name, value, told) in [
        ("TLS__CERTIFICATE", "", "mqtt.listeners.tls.tls.certificate"),
        ("TLS__KEY", "/nowhere.key", "/nowhere.key"),
        ("TLS__KEY", "", "as many keys"),
        ("TLS__MIN_VERSION", "1.1", "mqtt.tls.min_version"),
        (
            "TLS__CLIENT_CERTIFICATE",
            "sometimes",
            "mqtt.tls.client_certificate",
        ),
        (
            "TLS__CLIENT_CERTIFICATE",
            "required",
            "mqtt.listeners.tls.tls.client_ca",
        ),
        (
            "LISTENERS__TLS__TRANSPORT",
            "pigeon",
            "mqtt.listeners.tls.transport",
        ),
    ] {
        let (mut world, _) = prepared("root");
        world.set(&format!("ROLLCALL_MQTT__{name}"), value);
        let output = world.up().output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains(told),
            "{name}: {errors}"
        );
    }
}

#[test]
fn certificates_of_clients_are_checked() {
    let (mut world, authority) = prepared("root");
    let clients = Authority::new(&world.folder(), "clients");
    let thing = "b8a1d2a4-6a3e-4d87-a5f1-0d3f0c6d2c11";
    let (sound, revoked) = (clients.client(thing, 2), clients.client(thing, 3));
    let mut params = rcgen::CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = clients.issue(params, "expired", 4);
    let foreign = authority.client(thing, 5);
    let text = |path: &std::path::Path| path.display().to_string();
    world.set("ROLLCALL_MQTT__TLS__CLIENT_CERTIFICATE", "required");
    world.set("ROLLCALL_MQTT__TLS__CLIENT_CA", &text(&clients.file()));
    world.set(
        "ROLLCALL_MQTT__TLS__CLIENT_CRL",
        &text(&clients.revoke(&[&revoked])),
    );
    world.run();
    let address = world.listener("tls").parse().expect("an address");
    let thing = world.thing("lamp");
    let hello = Hello::of(&thing, "c");
    let trust = authority.trusting();
    for version in [V1_2, V1_3] {
        for pair in [&revoked, &expired, &foreign] {
            let trust = trust.clone().with(pair).only(version);
            assert!(!is_let_in(&mut open(address, &trust), &hello), "{pair:?}");
        }
        assert!(!is_let_in(
            &mut open(address, &trust.clone().only(version)),
            &hello
        ));
    }
    wait_for("the counts", || {
        (failures(&world, "certificate") == 8.0).then_some(())
    });
    assert!(is_let_in(&mut open(address, &trust.with(&sound)), &hello));
}

/// A server that wants certificates of clients, and those who vouch for them.
fn mutual(settings: &[(&str, &str)]) -> (World, Authority, Authority, SocketAddr) {
    let (mut world, authority) = prepared("root");
    let clients = Authority::new(&world.folder(), "clients");
    world.set("ROLLCALL_MQTT__TLS__CLIENT_CERTIFICATE", "required");
    world.set(
        "ROLLCALL_MQTT__TLS__CLIENT_CA",
        clients.file().to_str().expect("text"),
    );
    for (name, value) in settings {
        world.set(&format!("ROLLCALL_MQTT__{name}"), value);
    }
    world.run();
    let address = world.listener("tls").parse().expect("an address");
    (world, authority, clients, address)
}

#[test]
fn a_certificate_is_bound_to_a_thing_and_its_key_counts_too() {
    let (world, authority, clients, address) = mutual(&[]);
    let (lamp, door) = (world.thing("lamp"), world.thing("door"));
    let by_uri = clients.client(&lamp.id, 2);
    let by_name = |name: &str, serial| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        clients.issue(params, "named", serial)
    };
    let (by_name, nobody) = (by_name(&lamp.id, 3), by_name("a gateway", 4));
    let wrong_key = Thing {
        key: door.key.clone(),
        ..lamp.clone()
    };
    for (pair, thing, code) in [
        (&by_uri, &lamp, 0),
        (&by_name, &lamp, 0),
        (&by_uri, &door, 0x86),
        (&by_uri, &wrong_key, 0x86),
        (&nobody, &lamp, 0x86),
    ] {
        let layer = authority.trusting().with(pair).layer();
        let (_, connack) = Client::connect_over(address, layer, Hello::of(thing, "c").five());
        assert_eq!(connack.code, code, "{pair:?}");
    }
}

#[test]
fn a_certificate_may_stand_for_a_key() {
    let (world, authority, clients, address) = mutual(&[
        ("TLS__CLIENT_CERTIFICATE", "optional"),
        ("LISTENERS__TLS__TLS__CERTIFICATE_LOGIN", "instead_of_key"),
    ]);
    let (lamp, channel) = world.member();
    let door = world.thing("door");
    let topic = format!("channels/{channel}/messages");
    let connect = |pair: Option<&Pair>, hello: Hello| {
        let trust = authority.trusting();
        let trust = match pair {
            Some(pair) => trust.with(pair),
            None => trust,
        };
        Client::connect_over(address, trust.layer(), hello)
    };
    let bare = |username: Option<&str>, id: &str| Hello {
        username: username.map(str::to_owned),
        password: None,
        ..Hello::of(&lamp, id).five()
    };
    let pair = clients.client(&lamp.id, 2);
    // Ids enough that some sessions live with another worker.
    for id in ["a", "b", "c", "d"] {
        for username in [None, Some(lamp.id.as_str())] {
            let (mut client, connack) = connect(Some(&pair), bare(username, id).lasting());
            assert_eq!(connack.code, 0);
            assert_eq!(
                connack.present,
                username.is_some(),
                "it is the same session"
            );
            assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
            assert_eq!(client.publish(&topic, b"x", 0), 0);
            assert_eq!(client.take().payload, b"x");
            client.disconnect();
        }
    }
    let thing = &world.events()[0]["thing_id"];
    assert_eq!(*thing, lamp.id);
    for (pair, hello, code) in [
        // Somebody else, or nobody.
        (Some(&pair), bare(Some(&door.id), "x"), 0x86),
        (
            Some(&clients.client("b8a1d2a4-6a3e-4d87-a5f1-0d3f0c6d2c11", 3)),
            bare(None, "x"),
            0x86,
        ),
        // Without a certificate it takes the key.
        (None, bare(Some(&lamp.id), "x"), 0x86),
        (None, Hello::of(&lamp, "x").five(), 0),
    ] {
        assert_eq!(connect(pair, hello).1.code, code);
    }
    // What it may not do, and what is taken away.
    let (mut client, _) = connect(Some(&clients.client(&door.id, 4)), bare(None, "door"));
    assert!(client.subscribe(&[(&topic, 1)])[0] >= 0x80);
    let (mut client, _) = connect(Some(&pair), bare(None, "live"));
    let (mut by_key, _) = connect(None, Hello::of(&lamp, "by key").five());
    // A key that no certificate needed may change.
    world.json(&["things", "rotate-key", &lamp.id]);
    by_key.expect_disconnect(0x87);
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    world.tell(&["things", "disable", &lamp.id]);
    client.expect_disconnect(0x87);
    let (_, connack) = connect(Some(&pair), bare(None, "again"));
    assert_eq!(connack.code, 0x86);
}

#[test]
fn a_things_service_elsewhere_knows_no_certificates() {
    let (mut world, authority) = prepared("root");
    for (name, value) in [
        ("MQTT__TLS__CLIENT_CERTIFICATE", "required"),
        (
            "MQTT__TLS__CLIENT_CA",
            authority.file().to_str().expect("text"),
        ),
        ("MQTT__TLS__CERTIFICATE_LOGIN", "instead_of_key"),
        ("THINGS__AUTHORITY", "http://127.0.0.1:1"),
    ] {
        world.set(&format!("ROLLCALL_{name}"), value);
    }
    let output = world.up().output().expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("mqtt.tls.certificate_login"), "{errors}");
}
