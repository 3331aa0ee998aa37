//! Order: of each publisher, the messages of one topic and QoS come in the order of their sending, through
//! queues, windows, other workers and new connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client::{Client, Hello, Message, message};
use crate::world::{Thing, World, wait_for};

const PUBLISHERS: u8 = 4;
const ROUNDS: u16 = 150;
/// Of a retained message.
const CHANGES: u16 = 3_000;

/// What a subscriber has seen, by publisher and QoS: the number that is expected next.
#[derive(Default)]
struct Ledger {
    next: HashMap<(u8, u8), u16>,
    /// Packet identifiers of QoS 2 messages that are not released.
    open: Vec<u16>,
}

impl Ledger {
    fn note(&mut self, message: &Message) {
        let [publisher, qos, high, low] = message.payload[..] else {
            panic!("{message:?}")
        };
        assert_eq!(message.qos, qos);
        let number = u16::from_be_bytes([high, low]);
        let next = self.next.entry((publisher, qos)).or_default();
        match qos {
            // Lost while nobody is there, but never late.
            0 => assert!(number >= *next, "{number} after {next}"),
            // What was not acknowledged comes again, and says so.
            1 if message.dup => assert!(number <= *next, "{number} before {next}"),
            2 if self.open.contains(&message.id) => {
                assert!(message.dup, "{message:?}");
                return;
            }
            _ => assert_eq!(number, *next, "publisher {publisher} at QoS {qos}"),
        }
        if qos == 2 {
            self.open.push(message.id);
        }
        *next = (*next).max(number + 1);
    }

    fn is_complete(&self) -> bool {
        (0..PUBLISHERS).all(|publisher| {
            let seen = |qos| self.next.get(&(publisher, qos)) == Some(&ROUNDS);
            seen(1) && seen(2)
        })
    }
}

/// Reads slowly, goes away in the middle of everything, and comes back with another window.
fn subscribe(world: &World, thing: &Thing, name: &str, topic: &str, ready: &AtomicUsize) {
    let mut ledger = Ledger::default();
    let mut connections = 0u8;
    while !ledger.is_complete() || !ledger.open.is_empty() {
        connections += 1;
        let window = [0x21, 0, 1 + connections % 7];
        let hello = Hello::of(thing, name).five().lasting().property(&window);
        let mut client = world.client(hello);
        if connections == 1 {
            assert_eq!(client.subscribe(&[(topic, 2)]), [2]);
            ready.fetch_add(1, Ordering::SeqCst);
        }
        for _ in 0..40 * u32::from(connections) {
            if ledger.is_complete() && ledger.open.is_empty() {
                break;
            }
            follow(&mut client, &mut ledger);
        }
        client.reset();
    }
}

/// Sees one packet through.
fn follow(client: &mut Client, ledger: &mut Ledger) {
    let packet = client.receive();
    if packet.first == 0x62 {
        let id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
        ledger.open.retain(|open| *open != id);
        return client.ack(0x70, id);
    }
    let message = message(&packet, true);
    ledger.note(&message);
    match message.qos {
        1 => client.ack(0x40, message.id),
        2 => client.ack(0x50, message.id),
        _ => {}
    }
}

#[test]
fn of_each_publisher_messages_of_one_qos_stay_in_order() {
    let world = World::with(&[("ROLLCALL_MQTT__WORKERS", "3")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (world, thing, topic, ready) = (&world, &thing, &topic[..], &ready);
        for name in ["one", "two", "three"] {
            scope.spawn(move || subscribe(world, thing, name, topic, ready));
        }
        wait_for("the subscribers", || {
            (ready.load(Ordering::SeqCst) == 3).then_some(())
        });
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let name = format!("publisher {publisher}");
                let mut client = world.client(Hello::of(thing, &name).five());
                for number in 0..ROUNDS {
                    let [high, low] = number.to_be_bytes();
                    for qos in 0..3 {
                        let payload = [publisher, qos, high, low];
                        assert_eq!(client.publish(topic, &payload, qos), 0);
                    }
                }
            });
        }
    });
}

#[test]
fn releases_are_sent_again_in_the_order_of_the_receipts() {
    let world = World::start();
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    for five in [false, true] {
        let hello = Hello::of(&thing, "to").version(five).lasting();
        let mut to = world.client(hello.clone());
        to.subscribe(&[(&topic, 2)]);
        let mut from = world.client(Hello::of(&thing, "from"));
        for n in 0..4u8 {
            from.publish(&topic, &[n], 2);
        }
        let ids: Vec<u16> = (0..4).map(|_| to.message().id).collect();
        for n in [2, 3, 0] {
            to.ack(0x50, ids[n]);
            assert_eq!(to.receive().first, 0x62);
        }
        to.reset();
        // [MQTT-4.6.0-4], [MQTT5-4.6.0-4]
        let mut to = world.client(hello);
        let mut released = Vec::new();
        let mut sent = Vec::new();
        for _ in 0..4 {
            let packet = to.receive();
            if packet.first == 0x62 {
                let id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
                released.push(id);
                to.ack(0x70, id);
            } else {
                let again = message(&packet, five);
                assert!(again.dup);
                sent.push((again.id, again.payload));
            }
        }
        assert_eq!(released, [ids[2], ids[3], ids[0]]);
        assert_eq!(sent, [(ids[1], vec![1])]);
        to.ack(0x50, ids[1]);
        assert_eq!(to.receive().first, 0x62);
        to.ack(0x70, ids[1]);
        to.expect_silence();
        to.unsubscribe(&topic);
        to.disconnect();
    }
}

#[test]
fn what_was_retained_comes_before_what_is_live() {
    let world = World::with(&[("ROLLCALL_MQTT__WORKERS", "3")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (world, thing, topic, done) = (&world, &thing, &topic, &done);
        scope.spawn(move || {
            let mut from = world.client(Hello::of(thing, "from").five());
            for n in 0..CHANGES {
                from.publish_with(topic, &n.to_be_bytes(), 1, true, &[]);
            }
            done.store(1, Ordering::SeqCst);
        });
        // Whoever subscribes in the middle sees the state as it was, then every change of it: none is missing
        // between the two.
        for name in 0..4 {
            scope.spawn(move || {
                let number = |message: &Message| {
                    u16::from_be_bytes([message.payload[0], message.payload[1]])
                };
                let mut round = 0;
                while done.load(Ordering::SeqCst) == 0 {
                    round += 1;
                    let hello = Hello::of(thing, &format!("{name} {round}"));
                    let mut to = world.client(hello.five());
                    to.subscribe(&[(topic, 1)]);
                    let first = to.take();
                    assert!(first.retain || number(&first) == 0, "{first:?}");
                    let mut last = number(&first);
                    for _ in 0..50 {
                        if last == CHANGES - 1 {
                            break;
                        }
                        let next = to.take();
                        assert!(!next.retain);
                        // A change on its way may have been seen in what was retained.
                        let (next, expected) = (number(&next), last + 1);
                        assert!(next <= expected, "{next} in place of {expected}");
                        last = last.max(next);
                    }
                }
            });
        }
    });
}
