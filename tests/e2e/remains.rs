//! What is left of messages and sessions in their file: nothing, once they are done with.

use rusqlite::Connection;

use crate::client::{Client, Hello, publish};
use crate::durable::{message_expiry, resume, take, text};
use crate::world::{World, wait_for};

/// The file of sessions, from outside.
fn file(world: &World) -> Connection {
    let path = world.folder().join("data/sessions.db");
    Connection::open(path).expect("the file is there")
}

fn rows(file: &Connection, table: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM {table}");
    file.query_row(&sql, [], |row| row.get(0)).expect("a count")
}

/// Waits until nothing is left in these tables.
fn wait_empty(file: &Connection, tables: &[&str]) {
    for table in tables {
        wait_for(table, || (rows(file, table) == 0).then_some(()));
    }
}

#[test]
fn who_sends_more_than_may_be_unacknowledged_is_cut_off() {
    let world = World::with(&[("ROLLCALL_MQTT__MAX_INFLIGHT", "3")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let mut sleeper = world.client(Hello::of(&thing, "sleeper").lasting());
    sleeper.subscribe(&[(&topic, 1)]);
    sleeper.disconnect();
    let send = |client: &mut Client, count: u16| {
        for id in 1..=count {
            client.send(&publish(client.five, &topic, b"x", 1, false, id, &[]));
        }
    };
    let mut old = world.client(Hello::of(&thing, "old"));
    let mut fine = world.client(Hello::of(&thing, "fine").five());
    let mut greedy = world.client(Hello::of(&thing, "greedy").five());
    let violations = || {
        world.counter(
            "rollcall_mqtt_protocol_errors_total",
            "receive_maximum_exceeded",
        )
    };
    // Nothing is committed, so nothing is acknowledged.
    let file = file(&world);
    file.execute_batch("BEGIN IMMEDIATE").expect("locked");
    send(&mut old, 9);
    send(&mut fine, 3);
    send(&mut greedy, 4);
    wait_for("a violation", || (violations() > 0.0).then_some(()));
    file.execute_batch("ROLLBACK").expect("unlocked");
    for (client, count) in [(&mut old, 9), (&mut fine, 3)] {
        for _ in 0..count {
            assert_eq!(client.receive().first, 0x40);
        }
        // What was acknowledged counts no longer.
        client.publish(&topic, b"x", 1);
    }
    assert!((violations() - 1.0).abs() < f64::EPSILON);
}

#[test]
fn nothing_is_kept_of_what_is_done_with() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "20")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let shared = format!("$share/group/{topic}/shared");
    let names = ["a", "b", "c"];
    let hello = |name: &str| Hello::of(&thing, name).five().lasting();
    let mut publisher = world.client(Hello::of(&thing, "publisher").five().will(
        &topic,
        b"never said",
        1,
        true,
    ));
    let mut clients = names.map(|name| {
        let mut client = world.client(hello(name));
        client.subscribe(&[(&topic, 2), (&shared, 2)]);
        client
    });
    let file = file(&world);
    let deliveries = ["deliveries", "messages", "received"];
    // Acknowledged at once.
    for n in 0..6u8 {
        publisher.publish(&topic, &[n], 1 + n % 2);
    }
    for client in &mut clients {
        take(client, 6);
    }
    wait_empty(&file, &deliveries);
    // What expires while it waits, what is too large for who comes back, and what is not.
    clients.into_iter().for_each(Client::disconnect);
    publisher.publish_with(&topic, b"short", 1, false, &message_expiry(1));
    publisher.publish(&topic, &[7; 2000], 2);
    publisher.publish(&topic, b"news", 2);
    assert!(rows(&file, "deliveries") > 3);
    wait_for("the end of what expires", || {
        (rows(&file, "messages") == 2).then_some(())
    });
    let small = |name: &str| resume(&world, hello(name).property(&[0x27, 0, 0, 4, 0]));
    let mut clients = names.map(small);
    for client in &mut clients {
        assert_eq!(text(&take(client, 1)[0]), "news");
    }
    wait_empty(&file, &deliveries);
    // Handed over: the others are gone, or not there.
    let [a, b, c] = clients;
    b.disconnect();
    c.disconnect();
    let shared_topic = format!("{topic}/shared");
    for n in 0..4u8 {
        publisher.publish(&shared_topic, &[n], 1);
    }
    drop(a);
    for name in ["a", "b"] {
        drop(world.client(Hello {
            clean: true,
            ..hello(name)
        }));
    }
    let mut c = resume(&world, hello("c"));
    take(&mut c, 4);
    wait_empty(&file, &deliveries);
    // More than may wait: the session ends, and all that waited with it.
    c.disconnect();
    for n in 0..25u8 {
        publisher.publish(&topic, &[n], 1);
    }
    wait_empty(&file, &deliveries);
    // And nobody is there any more.
    publisher.disconnect();
    for name in names {
        world.client(Hello::of(&thing, name).five()).disconnect();
    }
    wait_empty(&file, &["sessions", "subscriptions", "wills", "retained"]);
}

#[test]
fn who_was_turned_away_once_is_chosen_again() {
    let world = World::with(&[("ROLLCALL_MQTT__SESSION_QUEUE_BYTES", "256KiB")]);
    let (thing, channel) = world.member();
    let topic = format!("channels/{channel}/messages");
    let (much, shared_topic) = (format!("{topic}/much"), format!("{topic}/shared"));
    let shared = format!("$share/group/{shared_topic}");
    let hello = |name: &str| Hello::of(&thing, name).five().lasting();
    let mut stuck = world.client(hello("stuck"));
    stuck.subscribe(&[(&much, 0), (&shared, 1)]);
    let mut publisher = world.client(Hello::of(&thing, "publisher").five());
    // It reads nothing, and has as much to read as it may.
    let payload = [7; 50_000];
    let dropped = |reason: &str| world.counter("rollcall_mqtt_messages_dropped_total", reason);
    wait_for("a message that is dropped", || {
        publisher.publish(&much, &payload, 0);
        publisher.expect_silence();
        (dropped("queue_full") > 0.0).then_some(())
    });
    publisher.publish(&shared_topic, &payload, 1);
    wait_for("one that nobody has room for", || {
        (dropped("no_member") > 0.0).then_some(())
    });
    // Nothing is kept of it.
    let file = file(&world);
    wait_empty(&file, &["deliveries", "messages"]);
    // Who has gone leaves nothing unread, and may have what comes now.
    stuck.reset();
    wait_for("its end", || {
        let ended = world.counter("rollcall_mqtt_connections_ended_total", "connection_lost");
        (ended > 0.0).then_some(())
    });
    publisher.publish(&shared_topic, b"again", 1);
    assert_eq!(text(&resume(&world, hello("stuck")).take()), "again");
}
