//! Topic aliases that the server sets up toward clients.

use crate::client::{Client, Hello, Message};
use crate::world::World;

/// Takes messages as a client does that keeps track of aliases.
struct Reader {
    client: Client,
    topics: std::collections::HashMap<u16, String>,
    max: u16,
    /// Messages that came without their topic.
    saved: usize,
}

impl Reader {
    fn new(world: &World, hello: Hello, max: u16) -> Self {
        let [high, low] = max.to_be_bytes();
        Self {
            client: world.client(hello.property(&[0x22, high, low])),
            topics: std::collections::HashMap::new(),
            max,
            saved: 0,
        }
    }

    fn take(&mut self) -> Message {
        let mut message = self.client.take();
        let place = message.properties.iter().position(|byte| *byte == 0x23);
        let alias = place.map(|at| {
            let bytes: Vec<u8> = message.properties.drain(at..at + 3).collect();
            u16::from_be_bytes([bytes[1], bytes[2]])
        });
        match alias {
            None => assert!(!message.topic.is_empty(), "{message:?}"),
            Some(alias) => {
                assert!((1..=self.max).contains(&alias), "{alias}");
                if message.topic.is_empty() {
                    self.saved += 1;
                    message.topic = self.topics[&alias].clone();
                } else {
                    self.topics.insert(alias, message.topic.clone());
                }
            }
        }
        message
    }
}

#[test]
fn topics_that_come_again_come_as_a_number() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = |name: usize| format!("channels/{channel}/messages/{name}");
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut plain = world.client(Hello::of(&thing, "plain").five());
    let mut reader = Reader::new(&world, Hello::of(&thing, "reader").five().lasting(), 2);
    let filter = format!("channels/{channel}/messages/#");
    plain.subscribe(&[(&filter, 2)]);
    reader.client.subscribe(&[(&filter, 2)]);
    for round in 0..4 {
        for name in 0..3 {
            for (qos, size) in [(0, 3), (1, 3), (2, 3), (0, 2_000), (1, 2_000)] {
                let payload = vec![round; size];
                from.publish_with(&topic(name), &payload, qos, false, &[0x01, 0]);
                let message = reader.take();
                assert_eq!((&message.topic, message.qos), (&topic(name), qos));
                assert_eq!(message.properties, [0x01, 0]);
                assert!(message.payload == payload);
                // Who takes no aliases gets none.
                let message = plain.take();
                assert_eq!(
                    (message.topic, message.properties),
                    (topic(name), vec![0x01, 0])
                );
            }
        }
    }
    assert!(reader.saved > 20, "{}", reader.saved);

    // A new connection knows no aliases, whatever the session has.
    reader.client.disconnect();
    let mut reader = Reader::new(&world, Hello::of(&thing, "reader").five().lasting(), 2);
    from.publish(&topic(0), b"x", 1);
    assert_eq!(reader.take().topic, topic(0));
    assert_eq!(reader.saved, 0);
}

#[test]
fn what_waits_goes_by_number_too() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let hello = Hello::of(&thing, "reader").five().lasting();
    let mut client = world.client(hello.clone());
    client.subscribe(&[(&topic, 1)]);
    client.disconnect();
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..10u8 {
        from.publish_with(&topic, &[n], 1, false, &[0x02, 0, 0, 1, 0]);
    }
    let mut reader = Reader::new(&world, Hello::of(&thing, "reader").five().lasting(), 9);
    for n in 0..10u8 {
        let message = reader.take();
        assert_eq!((message.topic, message.payload), (topic.clone(), vec![n]));
        assert_eq!(message.properties[0], 0x02);
    }
    assert_eq!(reader.saved, 9);
}

#[test]
fn an_alias_never_makes_a_packet_too_large_and_none_may_be_allowed() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut from = world.client(Hello::of(&thing, "from").five());
    // Exactly the packet without an alias: header 2, topic 2 + n, no properties 1, payload 1.
    let whole = 2 + 2 + topic.len() + 1 + 1;
    let hello = Hello::of(&thing, "reader")
        .five()
        .property(&[0x27, 0, 0, 0, whole as u8]);
    let mut reader = Reader::new(&world, hello, 9);
    reader.client.subscribe(&[(&topic, 0)]);
    for _ in 0..5 {
        from.publish(&topic, b"1", 0);
        assert_eq!(reader.take().topic, topic);
    }
    assert_eq!(reader.saved, 0);
    from.publish(&topic, b"22", 0);
    from.publish(&topic, b"", 0);
    assert_eq!(reader.take().payload, b"");

    let world = World::with(&[("ROLLCALL_MQTT__MAX_TOPIC_ALIAS_OUT", "0")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut reader = Reader::new(&world, Hello::of(&thing, "reader").five(), 9);
    reader.client.subscribe(&[(&topic, 0)]);
    let mut from = world.client(Hello::of(&thing, "from"));
    for _ in 0..5 {
        from.publish(&topic, b"1", 0);
        assert_eq!(reader.take().topic, topic);
    }
    assert_eq!(reader.saved, 0);
}
