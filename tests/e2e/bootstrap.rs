//! Devices that come with an external id and key alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rollcall_grpc::bootstrap_api::FetchRequest;
use rollcall_grpc::bootstrap_api::bootstrap_client::BootstrapClient;
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::client::Hello;
use crate::rest::{Rest, send};
use crate::world::{Event, Thing, World, wait_for};

pub(crate) const KEY: &str = "a key that the factory has printed";

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// A configuration with one channel. Returns thing and channel.
pub(crate) fn configured(world: &World, external_id: &str) -> (String, String) {
    let channel = world.channel();
    let made = world.json(&[
        "configs",
        "create",
        external_id,
        "--external-key",
        KEY,
        "--channel",
        &channel,
        "--name",
        "Lamp",
        "--content",
        "{\"every\":5}",
    ]);
    (text(&made["thing_id"]), channel)
}

pub(crate) fn fetch(world: &World, external_id: &str, key: &str) -> crate::rest::Answer {
    let address = world.listener("http.bootstrap");
    let what = format!("GET /things/bootstrap/{external_id}");
    send(
        address,
        &what,
        &[&format!("Authorization: Thing {key}")],
        b"",
    )
}

fn operations(world: &World) -> Vec<String> {
    let events = world.stream("bootstrap").into_iter();
    events.map(|event| event["operation"].clone()).collect()
}

#[test]
fn a_device_with_an_external_id_and_key_gets_everything_and_connects() {
    let world = World::start();
    let (thing, channel) = configured(&world, "ff-01");
    world.tell(&["configs", "enable", &thing]);

    let given = fetch(&world, "ff-01", KEY);
    assert_eq!(given.status, 200, "{given:?}");
    let given = given.json();
    world.secrets.add_from(&given);
    assert_eq!(given["thing_id"], thing);
    assert_eq!(given["content"], "{\"every\":5}");
    assert_eq!(given["channels"][0]["id"], channel);
    let device = Thing {
        id: text(&given["thing_id"]),
        key: text(&given["thing_key"]),
    };
    let topic = format!("channels/{channel}/messages");
    let mut client = world.client(Hello::of(&device, "c").five());
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    assert_eq!(client.publish(&topic, b"on", 1), 0);
    assert_eq!(client.take().payload, b"on");

    // Out of the whitelist, in it again with other channels.
    world.tell(&["configs", "disable", &thing]);
    client.expect_disconnect(0x87);
    let other = world.channel();
    world.tell(&["configs", "connections", &thing, &other]);
    world.tell(&["configs", "enable", &thing]);
    let mut client = world.client(Hello::of(&device, "c").five());
    let topic = format!("channels/{other}/messages");
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);

    // A key that was changed is given as it is now.
    let rotated = world.json(&["things", "rotate-key", &thing]);
    let given = fetch(&world, "ff-01", KEY).json();
    assert_eq!(given["thing_key"], rotated["key"]);

    assert_eq!(fetch(&world, "ff-01", "another key").status, 403);
    assert_eq!(fetch(&world, "ff-02", KEY).status, 404);
    let told = world.stream("bootstrap");
    let told: Vec<&Event> = told
        .iter()
        .filter(|it| it["operation"] == "thing.bootstrap")
        .collect();
    let success: Vec<&str> = told.iter().map(|it| &*it["success"]).collect();
    assert_eq!(success, ["1", "1", "0", "0"]);
    assert_eq!(told[0]["channels"], format!("[{channel}]"));
}

#[test]
fn a_thing_that_is_disabled_loses_its_configuration() {
    let world = World::start();
    let (thing, _) = configured(&world, "ff-01");
    let (other, _) = configured(&world, "ff-02");
    world.tell(&["things", "disable", &thing]);
    assert_eq!(fetch(&world, "ff-01", KEY).status, 404);
    wait_for("the configuration to go", || {
        let left = world.json(&["configs", "list"]);
        (left["total"] == 1).then_some(())
    });
    assert_eq!(fetch(&world, "ff-02", KEY).status, 200);
    let told = world.stream("bootstrap");
    let gone = told
        .iter()
        .find(|it| it["operation"] == "config.remove_handler");
    assert_eq!(gone.expect("told")["config_id"], thing);
    assert_ne!(thing, other);
}

/// Runs `openssl enc -aes-256-cfb`; `-nosalt` and friends are not needed with a key and IV of one's own.
fn openssl(flags: &[&str], input: &[u8]) -> Vec<u8> {
    let mut process = Command::new("openssl")
        .args(["enc", "-aes-256-cfb"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(input).expect("written");
    drop(stdin);
    let output = process.wait_with_output().expect("ends");
    assert!(output.status.success());
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key that devices without TLS and the server share, and where it is.
fn shared_key(world: &World) -> (Vec<u8>, PathBuf) {
    let file = world.folder().join("data/secrets/bootstrap.key");
    (std::fs::read(&file).expect("a key"), file)
}

/// Flags of `openssl enc` for a key and an initial vector.
fn flags<'a>(direction: &'a str, key: &'a str, iv: &'a str) -> [&'a str; 5] {
    [direction, "-K", key, "-iv", iv]
}

/// What a device without TLS shows in place of its external key.
pub(crate) fn seal(world: &World, external_key: &str) -> String {
    let (key, _) = shared_key(world);
    let iv = [7; 16];
    let sealed = openssl(&flags("-e", &hex(&key), &hex(&iv)), external_key.as_bytes());
    hex(&[&iv[..], &sealed].concat())
}

#[test]
fn a_device_without_tls_is_understood_by_openssl_and_understands_it() {
    let world = World::start();
    let (thing, _) = configured(&world, "ff-01");
    let (key, file) = shared_key(&world);
    assert_eq!(key.len(), 32);
    let shown = seal(&world, KEY);

    let mut stream = TcpStream::connect(world.listener("http.bootstrap")).expect("a server");
    let request = format!(
        "GET /things/bootstrap/secure/ff-01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Thing {shown}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("read");
    assert!(reply.starts_with(b"HTTP/1.1 200"));
    let head = reply.windows(4).position(|it| it == b"\r\n\r\n");
    let body = &reply[head.expect("a body") + 4..];
    let (iv, sealed) = body.split_at(16);
    let opened = openssl(&flags("-d", &hex(&key), &hex(iv)), sealed);
    let opened: Value = serde_json::from_slice(&opened).expect("JSON");
    world.secrets.add_from(&opened);
    assert_eq!(opened["thing_id"], thing);

    // The command line speaks it too, over gRPC.
    let file = file.to_str().expect("text");
    let ask = |key| {
        let asked = ["configs", "bootstrap", "ff-01", "--external-key", key];
        [&asked[..], &["--key-file", file]].concat()
    };
    assert_eq!(world.json(&ask(KEY)), opened);
    assert!(world.fail(&ask("another")).contains("access denied"));
    let plain = ["configs", "bootstrap", "ff-01", "--external-key", KEY];
    assert_eq!(world.json(&plain), opened);
}

#[test]
fn rest_does_what_clients_of_the_platform_expect() {
    let world = World::start();
    let rest = Rest::at(&world, world.listener("http.bootstrap"));
    let none = Value::Null;
    let channel = world.channel();
    let new = json!({
        "external_id": "ff-01", "external_key": KEY, "channels": [channel], "name": "Lamp",
        "content": "content", "client_cert": "a cert", "client_key": "a private key", "ca_cert": "ca",
    });
    let made = rest.expect(201, "POST /things/configs", &new);
    assert_eq!(made.body, "");
    let location = made.header("location").expect("a place").to_owned();
    let id = location.strip_prefix("/things/configs/").expect("an id");
    rest.expect(409, "POST /things/configs", &new);
    for wrong in [
        json!({ "external_id": "", "external_key": KEY }),
        json!({ "external_key": KEY }),
        json!({ "external_id": "x", "external_key": KEY, "channels": [id] }),
        json!({ "external_id": "x", "external_key": KEY, "channels": ["x"] }),
    ] {
        rest.expect(400, "POST /things/configs", &wrong);
    }
    let nobodys = "00000000-0000-4000-8000-000000000000";
    let of_nobody = json!({ "external_id": "x", "external_key": KEY, "thing_id": nobodys });
    rest.expect(404, "POST /things/configs", &of_nobody);

    let seen = rest.expect(200, &format!("GET {location}"), &none).json();
    world.secrets.add_from(&seen);
    assert_eq!(seen["thing_id"], id);
    assert_eq!(seen["external_key"], KEY);
    assert_eq!(seen["state"], 0);
    assert_eq!(seen["client_cert"], "a cert");
    assert_eq!(seen["client_key"], none);
    assert_eq!(seen["channels"][0]["id"], channel);
    let key = text(&seen["thing_key"]);

    for (query, total) in [
        ("", 1),
        ("?limit=0", 1),
        ("?state=1", 0),
        ("?external_id=ff-01", 1),
        ("?name=AM", 1),
        ("?name=x", 0),
        (&*format!("?thing_id={id}"), 1),
        (&*format!("?thing_key={key}"), 1),
        ("?thing_key=none-has-it", 0),
    ] {
        let page = rest.expect(200, &format!("GET /things/configs{query}"), &none);
        let page = page.json();
        assert_eq!(page["total"], total, "{query}");
        assert!(page["configs"].as_array().is_some(), "{page}");
    }
    for wrong in ["limit=101", "state=2", "offset=x", "thing_id=x"] {
        rest.expect(400, &format!("GET /things/configs?{wrong}"), &none);
    }

    let pems = json!({ "client_cert": "b", "client_key": "a second key", "ca_cert": "c" });
    let what = format!("PATCH /things/configs/certs/{id}");
    let set = rest.expect(200, &what, &pems).json();
    assert_eq!(set["client_key"], "a second key");
    assert_eq!(set["thing_id"], id);
    let state = format!("PUT /things/state/{id}");
    rest.expect(200, &state, &json!({ "state": 1 }));
    rest.expect(200, &state, &json!({ "state": 1 }));
    rest.expect(400, &state, &json!({ "state": 2 }));
    rest.expect(200, &format!("PUT {location}"), &json!({ "name": "n" }));
    let seen = rest.expect(200, &format!("GET {location}"), &none).json();
    assert_eq!((&seen["name"], &seen["content"]), (&json!("n"), &none));
    assert_eq!(seen["state"], 1);
    let connections = format!("PUT /things/configs/connections/{id}");
    rest.expect(200, &connections, &json!({ "channels": [] }));
    let seen = rest.expect(200, &format!("GET {location}"), &none).json();
    assert_eq!(seen["channels"], json!([]));

    rest.expect(204, &format!("DELETE {location}"), &none);
    rest.expect(204, &format!("DELETE {location}"), &none);
    rest.expect(404, &format!("GET {location}"), &none);
    rest.expect(404, &state, &json!({ "state": 1 }));
    let address = world.listener("http.bootstrap");
    assert_eq!(send(address, "GET /things/configs", &[], b"").status, 401);
    let bare = send(address, "GET /things/bootstrap/ff-01", &[], b"");
    assert_eq!(bare.status, 401);

    let told = operations(&world);
    let expected = "config.create config.view config.list config.list config.list config.list config.list \
        config.list config.list config.list config.list cert.update thing.state_change thing.state_change config.update \
        config.view thing.update_connections config.view config.remove";
    assert_eq!(told.join(" "), expected);
    let events = world.stream("bootstrap");
    let of = |operation| events.iter().find(|it| it["operation"] == operation);
    let create = of("config.create").expect("told");
    assert!(create["client_key"].starts_with("sha256:"), "{create:?}");
    assert_eq!(of("config.update").expect("told")["state"], "1");
}

#[test]
fn who_guesses_external_keys_is_not_heard() {
    let world = World::with(&[("ROLLCALL_BOOTSTRAP__FAILED_FETCHES", "2")]);
    configured(&world, "ff-01");
    // Who is no proxy that is named asks for himself, whatever he says.
    for of in ["203.0.113.7", "203.0.113.8"] {
        assert_eq!(fetch_for(&world, of, "a guess"), 403);
    }
    assert_eq!(fetch_for(&world, "203.0.113.9", KEY), 429);
    assert_eq!(fetch(&world, "ff-01", KEY).status, 429);
}

/// Asks as a proxy does for a client. Returns the status.
fn fetch_for(world: &World, of: &str, key: &str) -> u16 {
    let (thing_key, of) = (
        format!("Authorization: Thing {key}"),
        format!("X-Forwarded-For: {of}"),
    );
    let what = "GET /things/bootstrap/ff-01";
    let address = world.listener("http.bootstrap");
    send(address, what, &[&thing_key, &of], b"").status
}

/// The same over gRPC.
fn call_for(world: &World, of: &str, key: &str) -> Code {
    let call = async {
        let server = format!("http://{}", world.grpc());
        let server = Endpoint::from_shared(server).expect("an address");
        let mut client = BootstrapClient::new(server.connect_lazy());
        let mut request = Request::new(FetchRequest {
            external_id: "ff-01".to_owned(),
            external_key: key.to_owned(),
        });
        let of = of.parse().expect("text");
        request.metadata_mut().insert("x-forwarded-for", of);
        let fetched = client.fetch(request).await;
        fetched.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(call)
}

#[test]
fn behind_a_proxy_that_is_trusted_each_client_guesses_for_himself() {
    let world = World::with(&[
        ("ROLLCALL_BOOTSTRAP__FAILED_FETCHES", "2"),
        ("ROLLCALL_HTTP__TRUSTED_PROXIES", "10.9.0.0/16,127.0.0.1"),
        ("ROLLCALL_GRPC__TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    configured(&world, "ff-01");
    // By another proxy, and with what the client has made up before it.
    for of in ["203.0.113.7, 10.9.1.1", "1.1.1.1, 203.0.113.7"] {
        assert_eq!(fetch_for(&world, of, "a guess"), 403);
    }
    for of in [
        "203.0.113.7",
        "203.0.113.8, 203.0.113.7",
        "a, 203.0.113.7:80",
    ] {
        assert_eq!(fetch_for(&world, of, KEY), 429, "{of}");
    }
    assert_eq!(
        call_for(&world, "203.0.113.7", KEY),
        Code::ResourceExhausted
    );
    assert_eq!(fetch_for(&world, "203.0.113.8", KEY), 200);
    assert_eq!(fetch(&world, "ff-01", KEY).status, 200);
    for _ in 0..2 {
        let code = call_for(&world, "1.1.1.1, 2001:db8::7", "a guess");
        assert_eq!(code, Code::PermissionDenied);
    }
    let same_network = call_for(&world, "2001:db8::8", KEY);
    assert_eq!(same_network, Code::ResourceExhausted);
    assert_eq!(call_for(&world, "203.0.113.9", KEY), Code::Ok);
}

#[test]
fn events_announce_private_keys_only_where_that_is_wanted() {
    let world = World::with(&[("ROLLCALL_EVENTS__PRIVATE_KEYS", "true")]);
    let rest = Rest::at(&world, world.listener("http.bootstrap"));
    // Not told to the list of secrets: it is in the stream on purpose.
    let body =
        br#"{"external_id":"ff-01","external_key":"a key of the factory","client_key":"private"}"#;
    let made = rest.send_bytes("POST /things/configs", body);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(world.stream("bootstrap")[0]["client_key"], "private");
}
