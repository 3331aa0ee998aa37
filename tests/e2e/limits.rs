//! Limits: how each is reached, what clients of both versions hear, and what is counted.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::client::{Client, Connack, Hello, publish};
use crate::world::{Thing, World, wait_for};

const TURNED_AWAY: &str = "rollcall_mqtt_connections_turned_away_total";
const REFUSED: &str = "rollcall_mqtt_connects_refused_total";

/// The answer to a CONNECT from 127.0.0.`from`; `None` if it was closed unread.
fn knock(world: &World, from: u8, hello: &Hello) -> Option<(Client, u8)> {
    let mut client = Client::open_from([127, 0, 0, from], world.mqtt(), hello.five);
    // It may be closed already.
    let _ = client.stream.write_all(&hello.bytes());
    let packet = client.receive_or_end()?;
    assert_eq!(packet.first, 0x20, "{packet:?}");
    Some((client, packet.body[1]))
}

fn wrong(thing: &Thing, client_id: &str) -> Hello {
    Hello {
        password: Some(b"wrong".to_vec()),
        ..Hello::of(thing, client_id)
    }
}

#[test]
fn an_address_has_so_many_connections() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_ADDRESS", "3"),
    ]);
    let thing = world.thing("lamp");
    let mut clients = Vec::new();
    for id in ["1", "2", "3"] {
        let (client, code) = knock(&world, 1, &Hello::of(&thing, id)).expect("an answer");
        assert_eq!(code, 0);
        clients.push(client);
    }
    for five in [false, true] {
        let hello = Hello::of(&thing, "late").version(five);
        assert!(knock(&world, 1, &hello).is_none(), "closed unread");
    }
    let reason = "max_connections_per_address";
    assert_eq!(world.counter(TURNED_AWAY, reason), 2.0);
    let (_elsewhere, code) = knock(&world, 2, &Hello::of(&thing, "4")).expect("an answer");
    assert_eq!(code, 0);
    clients.pop().expect("some").disconnect();
    wait_for("the place to be free", || {
        knock(&world, 1, &Hello::of(&thing, "5")).filter(|(_, code)| *code == 0)
    });
    // Nobody who was closed unread has ever been here.
    drop(clients);
    let events = world.wait_events(9);
    assert!(events.iter().all(|it| it["thing_id"] == thing.id));
}

#[test]
fn a_listener_has_its_own_allowance_for_addresses_and_unix_sockets_need_none() {
    let mut world = World::prepared(&[
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_ADDRESS", "1"),
        ("ROLLCALL_MQTT__LISTENERS__LAB__LISTEN", "127.0.0.1:0"),
        (
            "ROLLCALL_MQTT__LISTENERS__LAB__MAX_CONNECTIONS_PER_ADDRESS",
            "3",
        ),
    ]);
    let path = world.folder().join("mqtt.sock");
    let unix = format!("unix:{}", path.display());
    world.set("ROLLCALL_MQTT__LISTENERS__UNIX__LISTEN", &unix);
    world.run();
    let lab = world.listener("lab").parse().expect("an address");
    let thing = world.thing("lamp");
    let _one = world.client(Hello::of(&thing, "1"));
    assert!(knock(&world, 1, &Hello::of(&thing, "late")).is_none());
    // Those elsewhere count as well, against what is allowed here.
    let (_two, connack) = Client::connect(lab, Hello::of(&thing, "2"));
    assert_eq!(connack.code, 0);
    let _three = Client::connect(lab, Hello::of(&thing, "3"));
    Client::open(lab, false).expect_end();
    let local: Vec<UnixStream> = (0..5)
        .map(|_| UnixStream::connect(&path).expect("a server"))
        .collect();
    wait_for("all of them", || {
        (world.counter("rollcall_mqtt_connections{", "unix") == 5.0).then_some(())
    });
    drop(local);
}

#[test]
fn an_address_opens_so_many_connections_a_second() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__CONNECT_RATE_PER_ADDRESS", "1"),
        ("ROLLCALL_MQTT__LIMITS__CONNECT_BURST", "5s"),
    ]);
    let thing = world.thing("lamp");
    let count = || world.counter(TURNED_AWAY, "connect_rate_per_address");
    for _ in 0..5 {
        let (_, code) = knock(&world, 1, &Hello::of(&thing, "c")).expect("an answer");
        assert_eq!(code, 0);
    }
    wait_for("too many at once", || {
        (knock(&world, 1, &Hello::of(&thing, "c")).is_none() && count() > 0.0).then_some(())
    });
    assert!(knock(&world, 2, &Hello::of(&thing, "d")).is_some());
    wait_for("a second to pass", || {
        knock(&world, 1, &Hello::of(&thing, "c"))
    });
}

#[test]
fn guessing_takes_longer_and_longer_and_locks_nobody_out() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "2"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_WINDOW", "1h"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_DELAY_MAX", "1h"),
    ]);
    let (lamp, other) = (world.thing("lamp"), world.thing("other"));
    let delayed = || world.counter("rollcall_mqtt_failed_logins_delayed_total", "");
    for (five, code) in [(false, 4), (true, 0x86)] {
        let hello = wrong(&lamp, "c").version(five);
        assert_eq!(knock(&world, 1, &hello).expect("an answer").1, code);
    }
    assert_eq!(delayed(), 0.0);
    for millis in [100, 200, 400] {
        let begin = Instant::now();
        let (_, code) = knock(&world, 1, &wrong(&lamp, "c").five()).expect("an answer");
        assert_eq!(code, 0x86);
        assert!(begin.elapsed() >= Duration::from_millis(millis));
    }
    assert_eq!(delayed(), 3.0);

    // While one answer waits, nobody there is heard in that name, whatever the key.
    let waiting = wait_for("an answer that waits", || {
        let mut waiting = Client::open_from([127, 0, 0, 1], world.mqtt(), true);
        let before = delayed();
        waiting.send(&wrong(&lamp, "c").five().bytes());
        wait_for("its turn", || (delayed() > before).then_some(()));
        let (_, code) = knock(&world, 1, &wrong(&lamp, "c").five()).expect("an answer");
        (code == 0x9F).then_some(waiting)
    });
    let (_, code) = knock(&world, 1, &Hello::of(&lamp, "c")).expect("an answer");
    assert!([0, 3].contains(&code), "{code}");
    assert!(world.counter(REFUSED, "too_many_failed_logins") >= 1.0);
    // Others there are, and so is that name elsewhere.
    for (from, thing) in [(1, &other), (2, &lamp)] {
        let (_, code) = knock(&world, from, &Hello::of(thing, "d")).expect("an answer");
        assert_eq!(code, 0, "{from}");
    }
    drop(waiting);
}

#[test]
fn a_login_that_succeeds_forgives_mistakes_in_its_name() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "2"),
        ("ROLLCALL_MQTT__LIMITS__FAILED_LOGIN_WINDOW", "1h"),
    ]);
    let thing = world.thing("lamp");
    for _ in 0..5 {
        for _ in 0..2 {
            assert_eq!(knock(&world, 1, &wrong(&thing, "c")).expect("it").1, 4);
        }
        assert_eq!(knock(&world, 1, &Hello::of(&thing, "c")).expect("it").1, 0);
    }
    let delayed = "rollcall_mqtt_failed_logins_delayed_total";
    assert_eq!(world.counter(delayed, ""), 0.0);
}

#[test]
fn who_shows_no_key_is_no_guesser() {
    let world = World::with(&[("ROLLCALL_MQTT__LIMITS__FAILED_LOGINS", "1")]);
    let thing = world.thing("lamp");
    for _ in 0..5 {
        let hello = Hello {
            password: None,
            ..Hello::of(&thing, "c").five()
        };
        let (_, code) = knock(&world, 1, &hello).expect("an answer");
        assert_eq!(code, 0x86);
    }
    let delayed = "rollcall_mqtt_failed_logins_delayed_total";
    assert_eq!(world.counter(delayed, ""), 0.0);
}

#[test]
fn a_thing_has_so_many_connections_over_all_workers() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_CONNECTIONS_PER_THING", "3"),
    ]);
    let (thing, other) = (world.thing("lamp"), world.thing("other"));
    let connect = |thing, id: &str, five| {
        let hello = Hello::of(thing, id).version(five);
        let (client, Connack { code, .. }) = Client::connect(world.mqtt(), hello);
        (client, code)
    };
    let mut clients: Vec<Client> = ["1", "2", "3"]
        .map(|id| connect(&thing, id, false))
        .into_iter()
        .map(|(client, code)| {
            assert_eq!(code, 0);
            client
        })
        .collect();
    for (five, code) in [(false, 3), (true, 0x97)] {
        let (mut client, refused) = connect(&thing, "4", five);
        assert_eq!(refused, code);
        client.expect_end();
    }
    assert_eq!(world.counter(REFUSED, "too_many_connections"), 2.0);
    let (_other, code) = connect(&other, "1", true);
    assert_eq!(code, 0);
    // Who takes over its own session is not one more.
    let (heir, code) = connect(&thing, "3", false);
    assert_eq!(code, 0);
    clients.pop().expect("three").expect_end();
    let (mut late, code) = connect(&thing, "4", true);
    assert_eq!(code, 0x97);
    late.expect_end();
    heir.disconnect();
    let (_late, code) = connect(&thing, "4", true);
    assert_eq!(code, 0);
    world.wait_events(6 + 2);
}

#[test]
fn topics_have_so_many_bytes_and_levels() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LIMITS__MAX_TOPIC_LENGTH", "70"),
        ("ROLLCALL_MQTT__LIMITS__MAX_TOPIC_LEVELS", "6"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let (long, deep) = (format!("{topic}/{:x<20}", ""), format!("{topic}/a/b/c/d"));
    let fine = format!("{topic}/a/b/c");
    let mut refused = 0.0;
    for five in [false, true] {
        let mut client = world.client(Hello::of(&thing, "c").version(five));
        let name_invalid = if five { 0x90 } else { 0 };
        let filter_invalid = if five { 0x8F } else { 0x80 };
        let codes = client.subscribe(&[(&long, 0), (&fine, 1), (&deep, 0)]);
        assert_eq!(codes, [filter_invalid, 1, filter_invalid]);
        for topic in [&long, &deep] {
            for qos in [0, 1, 2] {
                let code = client.publish(topic, b"lost", qos);
                assert_eq!(code, if qos == 0 { 0 } else { name_invalid });
            }
            let hello = Hello::of(&thing, "w").version(five);
            let hello = hello.will(topic, b"x", 0, false);
            let (mut client, connack) = Client::connect(world.mqtt(), hello);
            assert_eq!(connack.code, if five { 0x90 } else { 5 });
            client.expect_end();
        }
        refused += 8.0;
        if five {
            let respond = |topic: &str| [vec![0x08], crate::client::text(topic)].concat();
            for (properties, code) in [(respond(&deep), 0x90), (respond(&fine), 0)] {
                let sent = client.publish_with(&topic, b"x", 1, false, &properties);
                assert_eq!(sent, code);
            }
            // An alias is not made for such a topic either.
            let code = client.publish_with(&long, b"x", 1, false, &[0x23, 0, 1]);
            assert_eq!(code, 0x90);
            refused += 2.0;
        }
        let denied = "rollcall_mqtt_subscriptions_denied_total";
        let of_filters = world.counter(denied, "topic_filter_invalid");
        assert_eq!(of_filters, if five { 4.0 } else { 2.0 });
        client.send(&publish(five, &fine, b"kept", 0, false, 0, &[]));
        assert_eq!(client.take().payload, b"kept");
        client.disconnect();
    }
    assert_eq!(
        world.counter("rollcall_mqtt_topics_refused_total", ""),
        refused
    );
    world.wait_events(4);
}

#[test]
fn a_thing_that_publishes_too_fast_waits_and_stays() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "4"),
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_RATE", "1"),
        ("ROLLCALL_MQTT__LIMITS__PUBLISH_BURST", "100ms"),
    ]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut clients: Vec<Client> = [(1, false), (2, true)]
        .map(|(id, five)| {
            // Who is not listened to cannot be silent for too long.
            let hello = Hello::of(&thing, &id.to_string()).version(five);
            world.client(hello.keep_alive(1))
        })
        .into();
    let begin = Instant::now();
    for client in &mut clients {
        let five = client.five;
        for id in 1..=3 {
            client.send(&publish(five, &topic, b"x", 1, false, id, &[]));
        }
    }
    for client in &mut clients {
        for _ in 0..3 {
            assert_eq!(client.receive().first, 0x40);
        }
        client.send(&[0xC0, 0]);
    }
    // The sixth of the thing comes five seconds after the first, less what a burst allows.
    assert!(begin.elapsed() > Duration::from_secs(4));
    assert!(world.counter("rollcall_mqtt_publishes_delayed_total", "") >= 4.0);
}

#[test]
fn a_thing_that_publishes_too_much_is_sent_away_if_that_is_wished() {
    for (limit, value) in [
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_RATE", "1"),
        ("ROLLCALL_MQTT__LIMITS__MAX_PUBLISH_BYTES", "1KiB"),
    ] {
        let world = World::with(&[
            (limit, value),
            ("ROLLCALL_MQTT__LIMITS__RATE_ACTION", "disconnect"),
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ]);
        let (_, channel) = world.member();
        let topic = format!("channels/{channel}/messages");
        for five in [false, true] {
            let thing = world.thing("lamp");
            world.grant(&thing, &channel, "m_write");
            let mut client = world.client(Hello::of(&thing, "c").version(five));
            let packet = publish(five, &topic, &[7; 8192], 0, false, 0, &[]);
            client.send(&packet.repeat(3));
            client.expect_disconnect(0x96);
        }
        let ended = "rollcall_mqtt_connections_ended_total";
        assert_eq!(world.counter(ended, "rate_exceeded"), 2.0);
        let events = world.wait_events(4);
        assert_eq!(events[1]["reason"], "rate_exceeded");
    }
}

/// A limit of `[mqtt]`: what it is set to, what counts when it is met, and how to meet it.
struct Limit {
    settings: &'static [(&'static str, &'static str)],
    counter: &'static str,
    label: &'static str,
    /// MQTT 3.1.1 knows the limit too.
    old: bool,
    reach: fn(&Scene),
}

struct Scene {
    world: World,
    thing: Thing,
    channel: String,
    five: bool,
}

impl Scene {
    fn hello(&self, id: &str) -> Hello {
        Hello::of(&self.thing, id).version(self.five)
    }

    fn client(&self, id: &str) -> Client {
        self.world.client(self.hello(id))
    }

    fn topic(&self, name: &str) -> String {
        format!("channels/{}/messages/{name}", self.channel)
    }

    fn packet(&self, len: usize, qos: u8, id: u16, properties: &[u8]) -> Vec<u8> {
        publish(
            self.five,
            &self.topic("a"),
            &vec![7; len],
            qos,
            false,
            id,
            properties,
        )
    }

    fn pick<T>(&self, old: T, five: T) -> T {
        if self.five { five } else { old }
    }

    /// A subscriber that acknowledges nothing is sent QoS 1.
    fn overwhelm(&self) {
        let mut subscriber = self.client("subscriber");
        assert_eq!(subscriber.subscribe(&[(&self.topic("a"), 1)]), [1]);
        let mut publisher = self.client("publisher");
        for _ in 0..4 {
            assert_eq!(publisher.publish(&self.topic("a"), &[7; 600], 1), 0);
        }
        subscriber.message();
        subscriber.expect_disconnect(0x97);
        publisher.expect_silence();
    }

    fn subscribe_twice(&self) {
        let mut client = self.client("c");
        let (a, b) = (self.topic("a"), self.topic("b"));
        let codes = client.subscribe(&[(&a, 0), (&b, 0)]);
        assert_eq!(codes, [0, self.pick(0x80, 0x97)]);
        assert_eq!(client.subscribe(&[(&b, 0)]), [self.pick(0x80, 0x97)]);
        // What is there already takes no more room.
        assert_eq!(client.subscribe(&[(&a, 0)]), [0]);
    }

    /// Two messages are retained, of which there is room for one.
    fn retain_two(&self) {
        let mut client = self.client("c");
        let mut retain = |name| client.publish_with(&self.topic(name), &[7; 600], 1, true, &[]);
        let codes = [retain("a"), retain("b")];
        let failed = codes.iter().filter(|code| **code == 0x97).count();
        assert_eq!(failed, self.pick(0, 1), "{codes:x?}");
        let mut late = self.client("late");
        late.subscribe(&[(&self.topic("#"), 0)]);
        assert!(late.take().topic.ends_with("/a"));
        late.expect_silence();
        client.publish_with(&self.topic("a"), b"", 1, true, &[]);
    }
}

#[test]
fn every_limit_has_its_answer_in_both_versions_and_its_counter() {
    for limit in LIMITS {
        let settings: Vec<(String, &str)> = limit
            .settings
            .iter()
            .map(|(name, value)| (format!("ROLLCALL_MQTT__{name}"), *value))
            .collect();
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let world = World::with(&settings);
        let (thing, channel) = world.member();
        let mut scene = Scene {
            world,
            thing,
            channel,
            five: true,
        };
        let count = |scene: &Scene| scene.world.counter(limit.counter, limit.label);
        assert_eq!(count(&scene), 0.0, "{:?}", limit.settings);
        (limit.reach)(&scene);
        let after_five = count(&scene);
        assert!(after_five > 0.0, "{:?}", limit.settings);
        if limit.old {
            scene.five = false;
            (limit.reach)(&scene);
            assert!(count(&scene) > after_five, "{:?} in 3.1.1", limit.settings);
        }
    }
}

const LIMITS: &[Limit] = &[
    Limit {
        settings: &[("MAX_CONNECTIONS", "1")],
        counter: TURNED_AWAY,
        label: "\"max_connections\"",
        old: true,
        reach: |scene| {
            let one = wait_for("a place", || {
                knock(&scene.world, 1, &scene.hello("one")).map(|(client, _)| client)
            });
            assert!(knock(&scene.world, 1, &scene.hello("two")).is_none());
            one.disconnect();
        },
    },
    Limit {
        settings: &[("CONNECT_TIMEOUT", "200ms")],
        counter: "rollcall_mqtt_connect_timeouts_total",
        label: "",
        old: true,
        reach: |scene| {
            let mut slow = Client::open(scene.world.mqtt(), scene.five);
            let hello = scene.hello("slow").bytes();
            slow.send(&hello[..hello.len() - 1]);
            slow.expect_end();
        },
    },
    Limit {
        settings: &[("MAX_SESSIONS", "1")],
        counter: REFUSED,
        label: "too_many_sessions",
        old: true,
        reach: |scene| {
            let one = scene.client("one");
            let (mut two, connack) = Client::connect(scene.world.mqtt(), scene.hello("two"));
            assert_eq!(connack.code, scene.pick(3, 0x97));
            two.expect_end();
            one.disconnect();
        },
    },
    Limit {
        settings: &[("MAX_PACKET_SIZE", "1KiB")],
        counter: "rollcall_mqtt_protocol_errors_total",
        label: "packet_too_large",
        old: true,
        reach: |scene| {
            let mut client = scene.client("c");
            client.send(&scene.packet(1024, 0, 0, &[]));
            client.expect_disconnect(0x95);
        },
    },
    Limit {
        settings: &[("MAX_INFLIGHT", "2")],
        counter: "rollcall_mqtt_protocol_errors_total",
        label: "receive_maximum_exceeded",
        // Nobody is told of it.
        old: false,
        reach: |scene| {
            let mut client = scene.client("c");
            for id in 1..=3 {
                client.send(&scene.packet(1, 2, id, &[]));
            }
            assert_eq!(client.receive().first, 0x50);
            assert_eq!(client.receive().first, 0x50);
            client.expect_disconnect(0x93);
        },
    },
    Limit {
        settings: &[("MAX_TOPIC_ALIAS", "1")],
        counter: "rollcall_mqtt_protocol_errors_total",
        label: "topic_alias_invalid",
        old: false,
        reach: |scene| {
            let mut client = scene.client("c");
            client.send(&scene.packet(1, 0, 0, &[0x23, 0, 2]));
            client.expect_disconnect(0x94);
        },
    },
    Limit {
        settings: &[("MAX_SUBSCRIPTIONS", "1")],
        counter: "rollcall_mqtt_subscriptions_denied_total",
        label: "quota_exceeded",
        old: true,
        reach: Scene::subscribe_twice,
    },
    Limit {
        // One filter has 56 bytes.
        settings: &[("MAX_SUBSCRIPTION_BYTES", "100B")],
        counter: "rollcall_mqtt_subscriptions_denied_total",
        label: "quota_exceeded",
        old: true,
        reach: Scene::subscribe_twice,
    },
    Limit {
        settings: &[("MAX_INFLIGHT", "1"), ("SESSION_QUEUE_MESSAGES", "2")],
        counter: "rollcall_mqtt_sessions_overflowed_total",
        label: "",
        old: true,
        reach: Scene::overwhelm,
    },
    Limit {
        settings: &[("MAX_INFLIGHT", "1"), ("SESSION_QUEUE_BYTES", "2KiB")],
        counter: "rollcall_mqtt_sessions_overflowed_total",
        label: "",
        old: true,
        reach: Scene::overwhelm,
    },
    Limit {
        settings: &[("MAX_RETAINED", "1")],
        counter: "rollcall_mqtt_retained_refused_total",
        label: "",
        old: true,
        reach: Scene::retain_two,
    },
    Limit {
        settings: &[("MAX_RETAINED_BYTES", "1KiB")],
        counter: "rollcall_mqtt_retained_refused_total",
        label: "",
        old: true,
        reach: Scene::retain_two,
    },
];
