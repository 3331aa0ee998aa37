//! Shared subscriptions: each message to one member, and to another one if that member leaves.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Client, Hello, Message};
use crate::world::{Thing, World, wait_for};

/// A thing, its topic, and the filter of a group for it.
fn setting(world: &World) -> (Thing, String, String) {
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let filter = format!("$share/group/{topic}/#");
    (thing, topic, filter)
}

/// A client with an id of its own, on whichever worker that is.
fn member(world: &World, hello: Hello, filter: &str, qos: u8) -> Client {
    let mut client = world.client(hello);
    assert_eq!(client.subscribe(&[(filter, qos)]), [qos]);
    client
}

/// All messages that have come so far, seen through.
fn take_all(client: &mut Client) -> Vec<Message> {
    client.send(&[0xC0, 0]);
    let (mut messages, mut released, mut pinged) = (Vec::new(), 0, false);
    let done = |messages: &[Message], released, pinged| {
        pinged && messages.iter().filter(|it| it.qos == 2).count() == released
    };
    while !done(&messages, released, pinged) {
        let packet = client.receive();
        match packet.first {
            0xD0 => pinged = true,
            0x62 => {
                client.send(&[0x70, 2, packet.body[0], packet.body[1]]);
                released += 1;
            }
            _ => {
                let message = crate::client::message(&packet, client.five);
                match message.qos {
                    1 => client.ack(0x40, message.id),
                    2 => client.ack(0x50, message.id),
                    _ => {}
                }
                messages.push(message);
            }
        }
    }
    messages
}

/// As many messages and no more, seen through.
fn take(client: &mut Client, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    wait_for("so many messages", || {
        messages.append(&mut take_all(client));
        (messages.len() >= count).then_some(())
    });
    messages.append(&mut take_all(client));
    assert_eq!(messages.len(), count, "{messages:?}");
    messages
}

/// Numbers that were published, in order.
fn numbers(messages: &[Message]) -> Vec<u8> {
    let mut numbers: Vec<u8> = messages.iter().map(|it| it.payload[0]).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn each_message_goes_to_one_member_in_turn() {
    let world = World::start();
    for (qos, five) in [(0, false), (1, false), (0, true), (1, true), (2, true)] {
        let (thing, topic, filter) = setting(&world);
        let mut members: Vec<Client> = (0..6)
            .map(|n| {
                let hello = Hello::of(&thing, &format!("member {n}")).version(five);
                member(&world, hello, &filter, 2)
            })
            .collect();
        // Another group, and one who is not in any, get everything too; so does who is in both and neither.
        let other = format!("$share/other/{topic}");
        let mut other = member(&world, Hello::of(&thing, "other"), &other, 0);
        let mut all = member(&world, Hello::of(&thing, "all").five(), &filter, 0);
        all.subscribe(&[(&topic, 1)]);

        let mut from = world.client(Hello::of(&thing, "from").version(five));
        for n in 0..70u8 {
            assert_eq!(from.publish(&topic, &[n], qos), 0);
        }
        let mut seen = Vec::new();
        for member in &mut members {
            // Each has its tenth: nobody is passed over as long as there is room.
            for message in take(member, 10) {
                assert_eq!((message.qos, message.retain), (qos, false));
                seen.push(message);
            }
        }
        let mut own = numbers(&take(&mut all, 80));
        for message in &seen {
            own.push(message.payload[0]);
        }
        let mut count: BTreeMap<u8, usize> = BTreeMap::new();
        for n in own {
            *count.entry(n).or_default() += 1;
        }
        assert_eq!(count, (0..70).map(|n| (n, 2)).collect());
        assert_eq!(numbers(&take(&mut other, 70)), (0..70).collect::<Vec<u8>>());
    }
}

#[test]
fn members_get_no_retained_messages_and_leave_when_they_say_so() {
    let world = World::start();
    let (thing, topic, filter) = setting(&world);
    let mut from = world.client(Hello::of(&thing, "from").five());
    from.publish_with(&topic, b"retained", 1, true, &[]);
    let mut one = member(&world, Hello::of(&thing, "one").five(), &filter, 1);
    let mut two = member(&world, Hello::of(&thing, "two"), &filter, 0);
    one.expect_silence();
    two.expect_silence();
    // Retain as published, and a granted QoS of one's own.
    assert_eq!(one.subscribe(&[(&filter, 1 | 8)]), [1]);
    for _ in 0..2 {
        from.publish_with(&topic, b"live", 2, true, &[]);
    }
    let (first, second) = (one.take(), two.take());
    assert_eq!((first.qos, first.retain), (1, true));
    assert_eq!((second.qos, second.retain), (0, false));

    assert_eq!(one.unsubscribe(&topic).last(), Some(&0x11), "another one");
    assert_eq!(one.unsubscribe(&filter).last(), Some(&0));
    assert_eq!(one.unsubscribe(&filter).last(), Some(&0x11));
    for n in 0..5 {
        from.publish(&topic, &[n], 1);
        assert_eq!(two.take().payload, [n]);
    }
    one.expect_silence();
    two.disconnect();
    // Nobody is left: no trace of the group is either.
    from.publish(&topic, b"unheard", 1);
    let mut late = member(&world, Hello::of(&thing, "late"), &filter, 1);
    late.expect_silence();
    from.publish(&topic, b"heard", 1);
    assert_eq!(late.take().payload, b"heard");

    // No local and shared is a protocol error [MQTT5-3.8.3-4].
    one.send(&crate::client::subscribe(true, 9, &[(&filter, 4)]));
    one.expect_disconnect(0x82);
}

#[test]
fn who_has_no_room_is_passed_over() {
    let world = World::start();
    let (thing, topic, filter) = setting(&world);
    // It takes two at a time, and does not acknowledge.
    let hello = Hello::of(&thing, "busy").five().property(&[0x21, 0, 2]);
    let mut busy = member(&world, hello, &filter, 1);
    let mut ready = member(&world, Hello::of(&thing, "ready"), &filter, 1);
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut held = Vec::new();
    for n in 0..20u8 {
        from.publish(&topic, &[n], 1);
        if n < 4 && n % 2 == 0 {
            held.push(busy.message());
        } else {
            assert_eq!(ready.take().payload, [n]);
        }
    }
    busy.expect_silence();
    // With room again, it has its turn again.
    busy.ack(0x40, held[0].id);
    busy.expect_silence();
    from.publish(&topic, b"x", 1);
    from.publish(&topic, b"y", 1);
    assert_eq!(busy.message().payload.len() + ready.take().payload.len(), 2);
}

#[test]
fn who_does_not_read_is_passed_over_too() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "256KiB")]);
    let (thing, topic, filter) = setting(&world);
    let _stuck = member(&world, Hello::of(&thing, "stuck"), &filter, 0);
    let mut ready = member(&world, Hello::of(&thing, "ready"), &filter, 0);
    let mut from = world.client(Hello::of(&thing, "from"));
    // Far more than sockets hold goes by; what the stuck one has is not more than they do.
    let (payload, count) = (vec![0; 50_000], 2_000);
    let mut came = 0;
    for _ in 0..count {
        from.publish(&topic, &payload, 0);
        from.expect_silence();
        came += take_all(&mut ready).len();
    }
    wait_for("the last one", || {
        came += take_all(&mut ready).len();
        let sent = world.counter("rollcall_mqtt_messages_sent_total", "");
        (sent == f64::from(count)).then_some(())
    });
    assert!(came > 1_500, "{came}");
    let dropped = world.counter("rollcall_mqtt_messages_dropped_total", "");
    assert_eq!(dropped, 0.0);
}

#[test]
fn what_a_member_leaves_behind_goes_to_another() {
    let world = World::start();
    let (thing, topic, filter) = setting(&world);
    let mut from = world.client(Hello::of(&thing, "from").five());
    for (five, lasting) in [(false, false), (true, false), (true, true)] {
        let mut hello = Hello::of(&thing, "leaver")
            .version(five)
            .property(&[0x21, 0, 3]);
        if lasting {
            hello = hello.lasting();
        }
        // Alone at first: three under way, the rest waits.
        let mut leaver = member(&world, hello.clone(), &filter, 2);
        for n in 0..8u8 {
            from.publish(&topic, &[n], 1 + n % 2);
        }
        let window = if five { 3 } else { 8 };
        let held: Vec<_> = (0..window).map(|_| leaver.message()).collect();
        leaver.ack(0x40, held[0].id);
        // Room for one more.
        if five {
            assert_eq!(leaver.message().payload, [3]);
        }
        leaver.expect_silence();
        let mut stayer = member(&world, Hello::of(&thing, "stayer").five(), &filter, 2);
        stayer.expect_silence();
        leaver.reset();

        let expected: &[u8] = match (five, lasting) {
            // 1, 3, 5 and 7 were sent at QoS 2 and may have arrived [MQTT5-4.8.2-5].
            (false, _) => &[2, 4, 6],
            // 1 and 3 were sent, the rest was not.
            (true, false) => &[2, 4, 5, 6, 7],
            // What was sent waits for it to come back.
            (true, true) => &[4, 5, 6, 7],
        };
        let seen = take(&mut stayer, expected.len());
        assert_eq!(numbers(&seen), expected);
        assert!(seen.iter().all(|message| !message.dup));
        if lasting {
            let mut leaver = world.client(hello);
            let again = take(&mut leaver, 3);
            let order: Vec<u8> = again.iter().map(|it| it.payload[0]).collect();
            assert_eq!(order, [1, 2, 3]);
            assert!(again.iter().all(|message| message.dup));
            leaver.unsubscribe(&filter);
            leaver.disconnect();
        }
        stayer.unsubscribe(&filter);
        stayer.disconnect();
    }
}

#[test]
fn when_nobody_is_there_one_of_those_who_come_back_has_it() {
    let world = World::start();
    let (thing, topic, filter) = setting(&world);
    let hello = |n: usize| Hello::of(&thing, &format!("member {n}")).five().lasting();
    for n in 0..4 {
        member(&world, hello(n), &filter, if n == 3 { 0 } else { 1 }).disconnect();
    }
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..30u8 {
        from.publish(&topic, &[n], 1);
    }
    from.publish(&topic, b"nobody", 0);
    let mut seen = Vec::new();
    for n in 0..4 {
        let mut member = world.client(hello(n));
        let messages = take_all(&mut member);
        // Nothing is kept for who wants QoS 0.
        assert_eq!(messages.len(), if n == 3 { 0 } else { 10 });
        seen.extend(messages);
        member.disconnect();
    }
    assert_eq!(numbers(&seen), (0..30).collect::<Vec<u8>>());

    // When a session ends for good, the others have what it had.
    for n in 0..30u8 {
        from.publish(&topic, &[n], 1);
    }
    for n in 1..4 {
        world
            .client(Hello::of(&thing, &format!("member {n}")))
            .disconnect();
    }
    let mut last = world.client(hello(0));
    wait_for("all to come", || {
        let unacknowledged = take_all(&mut last);
        seen = [std::mem::take(&mut seen), unacknowledged].concat();
        (seen.len() == 60).then_some(())
    });
    assert_eq!(numbers(&seen[30..]), (0..30).collect::<Vec<u8>>());
}

#[test]
fn a_group_that_cannot_keep_up_loses_messages_but_no_members() {
    let world = World::with(&[
        ("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "10"),
        ("ROLLCALL_MQTT__MAX_INFLIGHT", "5"),
    ]);
    let (thing, topic, filter) = setting(&world);
    let mut one = member(&world, Hello::of(&thing, "one").five(), &filter, 1);
    let mut two = member(&world, Hello::of(&thing, "two"), &filter, 1);
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..50u8 {
        from.publish(&topic, &[n], 1);
    }
    let mut seen = Vec::new();
    for client in [&mut one, &mut two] {
        for _ in 0..15 {
            seen.push(client.take());
        }
        client.expect_silence();
    }
    // Those that came first, and each once.
    assert_eq!(numbers(&seen), (0..30).collect::<Vec<u8>>());
    let dropped = world.counter("rollcall_mqtt_messages_dropped_total", "no_member");
    assert_eq!(dropped, 20.0);
    // There is room again.
    for n in 0..10u8 {
        from.publish(&topic, &[n], 1);
    }
    let again = [take_all(&mut one), take_all(&mut two)].concat();
    assert_eq!(numbers(&again), (0..10).collect::<Vec<u8>>());
}

#[test]
fn a_message_that_a_member_refuses_is_done_with() {
    let world = World::start();
    let (thing, topic, filter) = setting(&world);
    let mut from = world.client(Hello::of(&thing, "from").five());
    let mut one = member(&world, Hello::of(&thing, "one").five(), &filter, 1);
    from.publish(&topic, b"x", 1);
    let message = one.message();
    let mut two = member(&world, Hello::of(&thing, "two").five(), &filter, 1);
    // [MQTT5-4.8.2-6]
    let [high, low] = message.id.to_be_bytes();
    one.send(&[0x40, 3, high, low, 0x83]);
    one.expect_silence();
    one.reset();
    wait_for("it to be gone", || {
        let ended = "rollcall_mqtt_connections_ended_total";
        (world.counter(ended, "connection_lost") == 1.0).then_some(())
    });
    from.publish(&topic, b"y", 1);
    assert_eq!(two.take().payload, b"y");
    two.expect_silence();
}

#[test]
fn what_waits_for_a_member_survives_a_crash_and_can_still_go_to_another() {
    let mut world = World::start();
    let (thing, topic, filter) = setting(&world);
    let hello = |name| Hello::of(&thing, name).five().lasting();
    member(&world, hello("one"), &filter, 1).disconnect();
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..20u8 {
        assert_eq!(from.publish(&topic, &[n], 1), 0);
    }
    world.crash_and_restart();
    let mut two = member(&world, hello("two"), &filter, 1);
    two.expect_silence();
    // The session that had them ends.
    world.client(Hello::of(&thing, "one")).disconnect();
    let seen = take(&mut two, 20);
    assert_eq!(numbers(&seen), (0..20).collect::<Vec<u8>>());
    // And the group is one as before.
    let mut one = member(&world, hello("one"), &filter, 1);
    let mut from = world.client(Hello::of(&thing, "from").five());
    for n in 0..2u8 {
        from.publish(&topic, &[n], 1);
    }
    let seen = [take(&mut one, 1), take(&mut two, 1)].concat();
    assert_eq!(numbers(&seen), [0, 1]);
}

#[test]
fn groups_may_share_everything_where_everything_is_open() {
    let world = World::with(&[("ROLLCALL_MQTT__ACCESS", "open")]);
    let mut from = world.client(Hello::anyone("from").five());
    let mut one = member(&world, Hello::anyone("one").five(), "$share/g/#", 1);
    let mut two = member(&world, Hello::anyone("two"), "$share/g/#", 1);
    let mut plus = member(&world, Hello::anyone("plus"), "$share/g/+/b", 1);
    let mut own = member(&world, Hello::anyone("own"), "$share/g/$own/#", 1);
    for topic in ["a", "a/b", "/", "$own/b"] {
        assert_eq!(from.publish(topic, topic.as_bytes(), 1), 0);
    }
    let mut topics: Vec<String> = [take(&mut one, 2), take(&mut two, 1)]
        .concat()
        .into_iter()
        .map(|message| message.topic)
        .collect();
    topics.sort();
    // Not what begins with a dollar, which is for those who name it.
    assert_eq!(topics, ["/", "a", "a/b"]);
    assert_eq!(take(&mut plus, 1)[0].topic, "a/b");
    assert_eq!(take(&mut own, 1)[0].topic, "$own/b");
}

/// Reads some, acknowledges most of it, and is gone. Returns what was acknowledged.
fn pass_by(client: &mut Client, packets: usize) -> Vec<[u8; 3]> {
    let mut seen = Vec::new();
    for n in 0..packets {
        // Nothing may be there for this one.
        client.send(&[0xC0, 0]);
        let packet = client.receive();
        if packet.first == 0xD0 {
            continue;
        }
        let message = crate::client::message(&packet, client.five);
        if n % 5 != 0 {
            client.ack(0x40, message.id);
            seen.push(message.payload[..3].try_into().expect("three bytes"));
        }
    }
    seen
}

#[test]
fn nothing_is_lost_while_members_come_and_go() {
    let world = World::with(&[("ROLLCALL_MQTT__WORKERS", "3")]);
    let (thing, topic, filter) = setting(&world);
    let seen: Mutex<HashSet<[u8; 3]>> = Mutex::default();
    let done = AtomicBool::new(false);
    let (publishers, messages) = (2u8, 1_500u16);
    thread::scope(|scope| {
        let (world, thing, filter, topic) = (&world, &thing, &filter[..], &topic[..]);
        let (seen, done) = (&seen, &done);
        let hello = Hello::of(thing, "anchor").five().property(&[0x21, 0, 9]);
        let mut anchor = member(world, hello, filter, 1);
        let passers: Vec<_> = (0..5usize)
            .map(|n| {
                scope.spawn(move || {
                    let name = format!("passer {n}");
                    let mut round = n;
                    while !done.load(Ordering::SeqCst) {
                        round += 1;
                        let hello = Hello::of(thing, &name).version(round % 2 == 0);
                        let hello = match round % 3 {
                            0 => hello,
                            _ => hello.lasting().property(&[0x21, 0, 3]),
                        };
                        let mut client = world.client(hello);
                        client.send(&crate::client::subscribe(client.five, 1, &[(filter, 1)]));
                        // What was under way comes before the answer.
                        let mut passed = Vec::new();
                        loop {
                            let packet = client.receive();
                            if packet.first == 0x90 {
                                break;
                            }
                            let message = crate::client::message(&packet, client.five);
                            client.ack(0x40, message.id);
                            passed.push(message.payload[..3].try_into().expect("three bytes"));
                        }
                        passed.extend(pass_by(&mut client, 10 + round % 7));
                        // The last acknowledgements may be lost with the connection: then others see it.
                        client.send(&[0xC0, 0]);
                        client.reset();
                        seen.lock().expect("sound").extend(passed);
                    }
                    // The session ends, and with it what was left of it.
                    world.client(Hello::of(thing, &name)).disconnect();
                })
            })
            .collect();
        let senders: Vec<_> = (0..publishers)
            .map(|publisher| {
                scope.spawn(move || {
                    let name = format!("publisher {publisher}");
                    let mut from = world.client(Hello::of(thing, &name).five());
                    for n in 0..messages {
                        let [high, low] = n.to_be_bytes();
                        assert_eq!(from.publish(topic, &[publisher, high, low], 1), 0);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for sender in senders {
                sender.join().expect("sent");
            }
            done.store(true, Ordering::SeqCst);
            for passer in passers {
                passer.join().expect("passed");
            }
        });
        let all = usize::from(publishers) * usize::from(messages);
        wait_for("every message to be seen", || {
            let messages = take_all(&mut anchor);
            let mut seen = seen.lock().expect("sound");
            for message in messages {
                seen.insert(message.payload[..3].try_into().expect("three bytes"));
            }
            (seen.len() == all).then_some(())
        });
    });
    let dropped = world.counter("rollcall_mqtt_messages_dropped_total", "");
    assert_eq!(dropped, 0.0);
}
