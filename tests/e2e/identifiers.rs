//! Subscription identifiers and overlapping subscriptions: a message says which subscriptions it comes by.

use crate::client::{Client, Hello, packet, text, variable};
use crate::world::World;

/// Subscribes under an identifier.
fn subscribe_as(client: &mut Client, identifier: usize, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = client.id().to_be_bytes().to_vec();
    let property = [&[0x0B][..], &variable(identifier)].concat();
    body.extend(variable(property.len()));
    body.extend(property);
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    client.send(&packet(0x82, &body));
    let answer = client.receive();
    assert_eq!(answer.first, 0x90, "{answer:?}");
    answer.body[3..].to_vec()
}

/// The properties of a message that comes by these subscriptions.
fn named(identifiers: &[usize]) -> Vec<u8> {
    let properties = identifiers
        .iter()
        .map(|identifier| [&[0x0B][..], &variable(*identifier)].concat());
    properties.collect::<Vec<_>>().concat()
}

/// Some of the identifiers, in any order.
fn sorted(properties: &[u8]) -> Vec<u8> {
    let mut singles: Vec<&[u8]> = properties.chunks(2).collect();
    singles.sort_unstable();
    singles.concat()
}

const LARGEST: usize = 268_435_455;

#[test]
fn a_message_names_the_subscription_it_comes_by() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let (hello, connack) = Client::connect(world.mqtt(), Hello::of(&thing, "c").five());
    drop(hello);
    // Available, as nothing is said [MQTT5-3.2.2.3.12], [MQTT5-3.2.2.3.13].
    assert!(!connack.properties.windows(2).any(|it| it == [0x29, 0]));
    assert!(!connack.properties.windows(2).any(|it| it == [0x2A, 0]));

    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut old = world.client(Hello::of(&thing, "old"));
    let mut plain = world.client(Hello::of(&thing, "plain").five());
    let mut to = world.client(Hello::of(&thing, "to").five());
    old.subscribe(&[(&topic, 2)]);
    plain.subscribe(&[(&topic, 2)]);
    for identifier in [1, 127, 128, LARGEST] {
        assert_eq!(subscribe_as(&mut to, identifier, &[(&topic, 2)]), [2]);
        for size in [0, 10, 600, 100_000] {
            for qos in 0..3 {
                let payload = vec![7; size];
                from.publish_with(&topic, &payload, qos, false, &[0x03, 0, 1, b't']);
                let message = to.take();
                let expected = [&named(&[identifier])[..], &[0x03, 0, 1, b't']].concat();
                assert_eq!((message.qos, message.properties), (qos, expected));
                assert!(message.payload == payload, "{size} bytes");
                // Nobody else hears of it.
                assert_eq!(plain.take().properties, [0x03, 0, 1, b't']);
                assert!(old.take().payload == payload);
            }
        }
    }
    // Subscribed to again without one [MQTT5-3.8.4-3].
    to.subscribe(&[(&topic, 0)]);
    from.publish(&topic, b"x", 1);
    let message = to.take();
    assert_eq!((message.qos, message.properties), (0, vec![]));

    // Each is from 1 to 268,435,455.
    to.send(&packet(
        0x82,
        &[&[0, 9, 2, 0x0B, 0][..], &text(&topic), &[0]].concat(),
    ));
    to.expect_disconnect(0x82);
}

#[test]
fn overlapping_subscriptions_bring_one_copy_that_names_them_all() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut to = world.client(Hello::of(&thing, "to").five());
    subscribe_as(&mut to, 3, &[(&topic, 0)]);
    subscribe_as(&mut to, 5, &[(&format!("{topic}/#"), 2)]);
    subscribe_as(&mut to, 7, &[(&format!("{topic}/+"), 1)]);
    // The same one for another filter comes twice.
    subscribe_as(&mut to, 7, &[(&format!("{topic}/+/#"), 1)]);
    from.publish(&topic, b"x", 2);
    let message = to.take();
    assert_eq!(
        (message.qos, sorted(&message.properties)),
        (2, named(&[3, 5]))
    );
    from.publish(&format!("{topic}/a"), b"x", 1);
    let message = to.take();
    assert_eq!(
        (message.qos, sorted(&message.properties)),
        (1, named(&[5, 7, 7]))
    );
    to.unsubscribe(&format!("{topic}/#"));
    from.publish(&topic, b"x", 2);
    let message = to.take();
    assert_eq!((message.qos, message.properties), (0, named(&[3])));
    to.expect_silence();
}

#[test]
fn what_waited_and_what_was_retained_names_its_subscription_too() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = world.client(Hello::of(&thing, "from"));
    from.publish_with(&topic, b"retained", 1, true, &[]);
    let hello = Hello::of(&thing, "to").five().lasting();
    // One message at a time, so that others wait behind it.
    let mut to = world.client(hello.clone().property(&[0x21, 0, 1]));
    subscribe_as(&mut to, 300, &[(&topic, 1), (&format!("{topic}/a"), 1)]);
    let message = to.take();
    assert_eq!(
        (&message.payload[..], message.retain, message.properties),
        (&b"retained"[..], true, named(&[300]))
    );
    for payload in [b"1", b"2"] {
        from.publish(&topic, payload, 1);
    }
    let first = to.message();
    assert_eq!(first.properties, named(&[300]));
    to.reset();
    from.publish(&topic, b"3", 1);
    let mut to = world.client(hello.clone());
    let again = to.take();
    assert!(again.dup && again.id == first.id);
    assert_eq!(again.properties, named(&[300]));
    for payload in [b"2", b"3"] {
        let message = to.take();
        assert_eq!(
            (&message.payload[..], message.properties),
            (&payload[..], named(&[300]))
        );
    }
    to.disconnect();
    // MQTT 3.1.1 has no identifiers.
    from.publish(&topic, b"4", 1);
    let mut old = world.client(Hello::of(&thing, "to").lasting());
    assert_eq!(old.take().payload, b"4");
    from.publish(&topic, b"5", 1);
    assert_eq!(old.take().payload, b"5");
    old.disconnect();
    // A session that speaks MQTT 5 again still has them.
    let mut to = world.client(hello);
    from.publish(&topic, b"6", 1);
    assert_eq!(to.take().properties, named(&[300]));
}

#[test]
fn of_overlapping_subscriptions_only_those_that_ask_not_to_leave_out_what_is_ones_own() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut to = world.client(Hello::of(&thing, "to").five());
    const NO_LOCAL: u8 = 4;
    const AS_PUBLISHED: u8 = 8;
    subscribe_as(&mut to, 1, &[(&topic, 2 | NO_LOCAL | AS_PUBLISHED)]);
    to.publish(&topic, b"own", 1);
    to.expect_silence();
    subscribe_as(&mut to, 2, &[(&format!("{topic}/#"), 0)]);
    to.publish_with(&topic, b"own", 0, true, &[]);
    let own = to.take();
    assert_eq!(
        (own.qos, own.retain, own.properties),
        (0, false, named(&[2]))
    );
    from.publish_with(&topic, b"other", 2, true, &[]);
    let other = to.take();
    assert_eq!(
        (other.qos, other.retain, sorted(&other.properties)),
        (2, true, named(&[1, 2]))
    );
    // A subscription that is replaced hears itself again, and at its new QoS.
    subscribe_as(&mut to, 1, &[(&topic, 1 | 2 << 4)]);
    to.publish(&topic, b"own", 0);
    assert_eq!(sorted(&to.take().properties), named(&[1, 2]));
}

#[test]
fn what_is_shared_names_the_subscription_of_the_member_that_gets_it() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let filter = format!("$share/group/{topic}");
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut members: Vec<Client> = (0..4)
        .map(|n| {
            let hello = Hello::of(&thing, &format!("member {n}")).five();
            let mut member = world.client(hello);
            assert_eq!(subscribe_as(&mut member, 10 + n, &[(&filter, 1)]), [1]);
            member
        })
        .collect();
    // A subscription besides is a copy besides.
    subscribe_as(&mut members[0], 99, &[(&topic, 0)]);
    for _ in 0..4 {
        from.publish(&topic, b"x", 1);
    }
    for (n, member) in members.iter_mut().enumerate() {
        let mut names: Vec<Vec<u8>> = (0..if n == 0 { 5 } else { 1 })
            .map(|_| member.take().properties)
            .collect();
        names.sort();
        assert_eq!(names[0], named(&[10 + n]));
        assert!(names[1..].iter().all(|it| *it == named(&[99])));
        member.expect_silence();
    }
    // What another one leaves behind comes under one's own name.
    let mut heir = members.swap_remove(1);
    from.publish(&topic, b"left", 1);
    let mut first = members.swap_remove(0);
    drop(members);
    while first.message().properties != named(&[10]) {}
    first.reset();
    let message = heir.take();
    assert_eq!((message.dup, message.properties), (false, named(&[11])));
}
