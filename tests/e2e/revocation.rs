//! What is taken away is gone at once, and nothing else is.

use crate::client::{Client, Hello};
use crate::world::{Thing, World, wait_for};

fn topic(channel: &str) -> String {
    format!("channels/{channel}/messages/x")
}

/// A topic filter for everything of a channel.
fn all(channel: &str) -> String {
    format!("channels/{channel}/messages/#")
}

fn revoked(world: &World) -> f64 {
    world.counter("rollcall_mqtt_subscriptions_revoked_total", "")
}

/// Does something, and waits until `count` subscriptions are gone.
fn wait_revoked(world: &World, count: f64, what: impl FnOnce()) {
    let before = revoked(world);
    what();
    wait_for("subscriptions to go", || {
        (revoked(world) - before >= count).then_some(())
    });
    assert_eq!(revoked(world) - before, count);
}

/// The server says goodbye with this code and reason.
fn expect_goodbye(client: &mut Client, reason: &str) {
    if client.five {
        let goodbye = client.receive();
        assert_eq!((goodbye.first, goodbye.body[0]), (0xE0, 0x87));
        let text = String::from_utf8_lossy(&goodbye.body).into_owned();
        assert!(text.contains(reason), "{text}");
    }
    client.expect_end();
}

#[test]
fn who_may_no_longer_read_or_write_hears_so() {
    let world = World::start();
    let (reader, writer, channel) = (
        world.thing("reader"),
        world.thing("writer"),
        world.channel(),
    );
    world.grant(&reader, &channel, "m_read");
    world.grant(&writer, &channel, "m_write");
    for five in [true, false] {
        let mut sub = world.client(Hello::of(&reader, "sub").version(five));
        let mut publisher = world.client(Hello::of(&writer, "pub").five());
        assert_eq!(sub.subscribe(&[(&all(&channel), 1)]), [1]);
        assert_eq!(publisher.publish(&topic(&channel), b"x", 1), 0);
        sub.take();
        wait_revoked(&world, 1.0, || {
            world.tell(&["disconnect", &reader.id, &channel]);
        });
        expect_goodbye(&mut sub, "no longer authorized");
        world.tell(&["disconnect", &writer.id, &channel]);
        assert_eq!(publisher.publish(&topic(&channel), b"x", 1), 0x87);
        assert_eq!(publisher.publish(&topic(&channel), b"x", 2), 0x87);
        world.grant(&reader, &channel, "m_read");
        world.grant(&writer, &channel, "m_write");
        // Given again, it works again: a denial is not asked about for a second.
        wait_for("the grant", || {
            (publisher.publish(&topic(&channel), b"x", 1) == 0).then_some(())
        });
    }
}

#[test]
fn a_session_loses_exactly_what_was_revoked() {
    let world = World::start();
    let (thing, one) = world.member();
    let two = world.channel();
    world.grant(&thing, &two, "m_read,m_write");
    let other = world.thing("other");
    world.grant(&other, &one, "m_read,m_write");

    let mut client = world.client(Hello::of(&thing, "c").five());
    let mut bystander = world.client(Hello::of(&other, "b").five());
    let exact = topic(&one);
    let shared = |channel| format!("$share/group/{}", all(channel));
    let filters = [
        (all(&one), 1),
        (exact, 1),
        (shared(&one), 1),
        (all(&two), 1),
    ];
    let filters: Vec<(&str, u8)> = filters.iter().map(|(it, qos)| (&**it, *qos)).collect();
    assert_eq!(client.subscribe(&filters), [1, 1, 1, 1]);
    assert_eq!(bystander.subscribe(&[(&all(&one), 1)]), [1]);
    wait_revoked(&world, 3.0, || {
        world.tell(&["disconnect", &thing.id, &one]);
    });
    assert_eq!(client.publish(&topic(&one), b"x", 1), 0x87);
    bystander.publish(&topic(&one), b"one", 0);
    assert_eq!(bystander.take().payload, b"one");
    client.expect_silence();
    client.publish(&topic(&two), b"two", 0);
    assert_eq!(client.take().payload, b"two");
    let again = [(&*all(&one), 1), (&*shared(&one), 1)];
    assert_eq!(client.subscribe(&again), [0x87, 0x87]);

    // A client that still publishes elsewhere stays, though nothing is left to wait for.
    wait_revoked(&world, 1.0, || {
        world.grant(&thing, &two, "m_write");
    });
    client.expect_silence();
    assert_eq!(client.publish(&topic(&two), b"two", 1), 0);
    client.expect_silence();
}

#[test]
fn a_disabled_channel_is_closed_to_everybody_until_it_is_enabled() {
    let world = World::start();
    let (things, channel) = world.members(2);
    let other = world.channel();
    world.grant(&things[0], &other, "m_read,m_write");
    let mut first = world.client(Hello::of(&things[0], "a").five());
    let mut second = world.client(Hello::of(&things[1], "b"));
    first.subscribe(&[(&all(&channel), 1), (&all(&other), 1)]);
    second.subscribe(&[(&all(&channel), 1)]);

    wait_revoked(&world, 2.0, || {
        let told = world.json(&["channels", "disable", &channel]);
        assert_eq!(told["status"], "disabled");
    });
    second.expect_end();
    assert_eq!(first.publish(&topic(&channel), b"x", 1), 0x87);
    assert_eq!(first.subscribe(&[(&all(&channel), 1)]), [0x87]);
    first.publish(&topic(&other), b"other", 0);
    assert_eq!(first.take().payload, b"other");
    let error = world.fail(&["channels", "disable", &channel]);
    assert!(error.contains("already disabled"), "{error}");

    assert!(
        world
            .tell(&["channels", "enable", &channel])
            .contains("enabled")
    );
    assert_eq!(first.subscribe(&[(&all(&channel), 1)]), [1]);
    let events = world.stream("things");
    let removed: Vec<_> = events
        .iter()
        .filter(|event| event["operation"] == "channel.remove")
        .collect();
    assert_eq!(removed.len(), 2);
    for (event, status) in removed.iter().zip(["disabled", "enabled"]) {
        assert_eq!((&*event["id"], &*event["status"]), (&*channel, status));
        assert!(event.contains_key("updated_by") && event["updated_at"].ends_with('Z'));
    }
    assert!(removed[0]["updated_at"] < removed[1]["updated_at"]);
}

#[test]
fn an_absent_session_loses_subscriptions_and_what_waited() {
    let world = World::start();
    let (thing, one) = world.member();
    let two = world.channel();
    let other = world.thing("other");
    for channel in [&one, &two] {
        world.grant(&thing, channel, "m_read,m_write");
        world.grant(&other, channel, "m_read,m_write");
    }
    let hello = || Hello::of(&thing, "c").five().lasting();
    let mut client = world.client(hello());
    client.subscribe(&[(&all(&one), 2), (&all(&two), 2)]);
    let mut from = world.client(Hello::of(&other, "from").five());
    // In flight, not acknowledged, at both QoS; then more behind it.
    from.publish(&topic(&one), b"one", 1);
    from.publish(&topic(&one), b"one", 2);
    from.publish(&topic(&two), b"flying", 1);
    for _ in 0..3 {
        client.message();
    }
    client.reset();
    wait_for("nobody but one", || {
        (world.json(&["presence"])["total"] == 1).then_some(())
    });
    from.publish(&topic(&one), b"one", 1);
    from.publish(&topic(&two), b"waiting", 1);

    wait_revoked(&world, 1.0, || {
        world.tell(&["disconnect", &thing.id, &one]);
    });
    from.publish(&topic(&one), b"one", 1);
    let (mut client, connack) = Client::connect(world.mqtt(), hello());
    assert!(connack.present);
    assert_eq!(client.take().payload, b"flying");
    assert_eq!(client.take().payload, b"waiting");
    client.expect_silence();
    // Given back, it has to be asked for again.
    world.grant(&thing, &one, "m_read");
    from.publish(&topic(&one), b"one", 1);
    client.expect_silence();
    assert_eq!(client.subscribe(&[(&all(&one), 1)]), [1]);
    from.publish(&topic(&one), b"again", 1);
    assert_eq!(client.take().payload, b"again");
    let dropped = world.counter("rollcall_mqtt_messages_dropped_total", "revoked");
    assert_eq!(dropped, 3.0);
}

#[test]
fn what_waits_behind_the_window_of_a_client_is_dropped() {
    let world = World::start();
    let (thing, channel) = world.member();
    let other = world.thing("other");
    world.grant(&other, &channel, "m_write");
    // Takes one message at a time.
    let hello = Hello::of(&thing, "c").five().property(&[0x21, 0, 1]);
    let mut client = world.client(hello);
    client.subscribe(&[(&all(&channel), 1)]);
    let mut from = world.client(Hello::of(&other, "from").five());
    for _ in 0..3 {
        from.publish(&topic(&channel), b"x", 1);
    }
    let first = client.message();
    wait_revoked(&world, 1.0, || world.grant(&thing, &channel, "m_write"));
    client.ack(0x40, first.id);
    client.expect_silence();
}

#[test]
fn the_wills_of_those_who_may_no_longer_write_are_not_published() {
    let world = World::start();
    let channel = world.channel();
    let heir = world.thing("heir");
    world.grant(&heir, &channel, "m_read,m_write");
    let mut heir = world.client(Hello::of(&heir, "heir").five());
    heir.subscribe(&[(&all(&channel), 1)]);
    let denied = || world.counter("rollcall_mqtt_wills_denied_total", "");
    let will = |thing: &Thing, delay: u8| {
        let mut hello = Hello::of(thing, "c").five().lasting();
        hello = hello.will(&topic(&channel), b"will", 1, false);
        let properties = &mut hello.will.as_mut().expect("a will").properties;
        properties.extend([0x18, 0, 0, 0, delay]);
        hello
    };
    let ways: [(&str, u8); 6] = [
        ("disconnect", 0),
        ("disconnect", 60),
        ("disable", 0),
        ("disable", 60),
        ("rotate-key", 0),
        ("rotate-key", 60),
    ];
    for (n, (way, delay)) in ways.into_iter().enumerate() {
        let thing = world.thing("mortal");
        world.grant(&thing, &channel, "m_write");
        let client = world.client(will(&thing, delay));
        let absent = delay > 0;
        if absent {
            // Its will waits for the delay to pass.
            client.reset();
            wait_for("nobody but the heir", || {
                (world.json(&["presence"])["total"] == 1).then_some(())
            });
        }
        match way {
            "disconnect" => world.tell(&["disconnect", &thing.id, &channel]),
            way => world.tell(&["things", way, &thing.id]),
        };
        wait_for("the will to be denied", || {
            (denied() == n as f64 + 1.0).then_some(())
        });
    }
    heir.expect_silence();
}

#[test]
fn a_new_key_keeps_what_waits_and_a_disabled_thing_loses_it() {
    let world = World::start();
    let (mut thing, channel) = world.member();
    let hello = |thing: &Thing| Hello::of(thing, "c").five().lasting();
    let mut client = world.client(hello(&thing));
    client.subscribe(&[(&all(&channel), 1)]);
    let rotated = world.json(&["things", "rotate-key", &thing.id]);
    expect_goodbye(&mut client, "the key of the thing no longer holds");
    thing.key = rotated["key"].as_str().expect("a key").to_owned();
    let (mut client, connack) = Client::connect(world.mqtt(), hello(&thing));
    assert!(connack.present);
    client.publish(&topic(&channel), b"still", 0);
    assert_eq!(client.take().payload, b"still");

    world.tell(&["things", "disable", &thing.id]);
    expect_goodbye(&mut client, "the thing was disabled");
    world.tell(&["things", "enable", &thing.id]);
    let (client, connack) = Client::connect(world.mqtt(), hello(&thing));
    assert!(!connack.present);
    // An absent one too.
    client.disconnect();
    world.tell(&["things", "disable", &thing.id]);
    world.tell(&["things", "enable", &thing.id]);
    assert!(!Client::connect(world.mqtt(), hello(&thing)).1.present);
}
