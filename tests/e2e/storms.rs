//! Many at a time, and crashes in between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Hello;
use crate::world::{PATIENCE, World, check_pairs, wait_for};

/// Threads that connect and disconnect until they are told to stop or the server is gone.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    /// Sessions whose client has seen the CONNACK.
    pub(crate) welcomed: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    pub(crate) fn begin(address: SocketAddr, hellos: Vec<Hello>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let welcomed = Arc::new(AtomicUsize::new(0));
        let threads = hellos
            .into_iter()
            .enumerate()
            .map(|(n, hello)| {
                let (stop, welcomed) = (Arc::clone(&stop), Arc::clone(&welcomed));
                std::thread::spawn(move || {
                    let mut round = n;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        if cycle(address, &hello.bytes(), round % 3, &welcomed).is_err() {
                            // Refused or cut off: the server may be gone.
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                })
            })
            .collect();
        Self {
            stop,
            welcomed,
            threads,
        }
    }

    pub(crate) fn wait(&self, sessions: usize) {
        wait_for("the storm", || {
            (self.welcomed.load(Ordering::Relaxed) >= sessions).then_some(())
        });
    }

    /// How many were welcomed in all.
    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        self.welcomed.load(Ordering::Relaxed)
    }
}

fn cycle(
    address: SocketAddr,
    hello: &[u8],
    way: usize,
    welcomed: &AtomicUsize,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(hello)?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    welcomed.fetch_add(1, Ordering::Relaxed);
    match way {
        0 => stream.write_all(&[0xE0, 0]),
        1 => stream.shutdown(std::net::Shutdown::Write),
        _ => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
    }
}

fn hellos(world: &World, count: usize, same: bool) -> Vec<Hello> {
    let (things, _) = world.members(if same { 1 } else { count });
    (0..count)
        .map(|n| match same {
            true => Hello::of(&things[0], "contested"),
            false => Hello::of(&things[n], "c"),
        })
        .collect()
}

#[test]
fn a_storm_through_crashes_leaves_every_session_with_one_connect_and_one_disconnect() {
    let mut world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let hellos = hellos(&world, 16, false);
    let mut welcomed = 0;
    for round in 0..5 {
        let storm = Storm::begin(world.mqtt(), hellos.clone());
        storm.wait(100 + 37 * round);
        world.signal("KILL");
        welcomed += storm.end();
        world.end("KILL");
        world.run();
        let sessions = check_pairs(&world.events());
        assert!(
            sessions >= welcomed,
            "{welcomed} were welcomed, {sessions} are in the journal"
        );
        // Those who came but did not live to see the CONNACK are few.
        assert!(sessions <= welcomed + 16 * (round + 1));
    }
}

#[test]
fn many_who_fight_for_one_client_id_come_and_go_in_turn() {
    let mut world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let hellos = hellos(&world, 12, true);
    let storm = Storm::begin(world.mqtt(), hellos);
    storm.wait(600);
    let welcomed = storm.end();
    world.end("TERM");
    world.run();
    let events = world.events();
    assert!(check_pairs(&events) >= welcomed);
    // One client id: nobody comes before the one before has left.
    for (n, event) in events.iter().enumerate() {
        let expected = if n % 2 == 0 { "connect" } else { "disconnect" };
        assert_eq!(event["event_type"], expected, "at {n}");
    }
}

#[test]
fn a_thousand_sessions_at_a_time_are_all_on_the_roll() {
    let mut world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (things, channel) = world.members(1_000);
    let topic = format!("channels/{channel}/messages");
    let mut clients: Vec<_> = things
        .iter()
        .map(|thing| world.client(Hello::of(thing, "c").version(false)))
        .collect();
    for client in &mut clients {
        assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    }
    assert_eq!(world.json(&["presence", "--limit", "1"])["total"], 1_000);
    clients[0].publish(&topic, b"to all", 0);
    for client in &mut clients {
        assert_eq!(client.take().payload, b"to all");
    }
    drop(clients);
    let events = world.wait_events(2_000);
    assert_eq!(check_pairs(&events), 1_000);
    assert!(world.end("TERM").success());
}
