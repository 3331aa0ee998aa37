//! Clients that keep to the protocol, and a server that is killed over and over: nothing that was acknowledged is
//! lost, QoS 2 comes once, and everything in order.
//!
//! `GAME_SEED=n` plays a game again, as far as time lets itself be played again; `GAME_ROUNDS=n` plays a
//! longer one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Hello, Packet, message, packet, publish, subscribe};
use crate::world::{PATIENCE, World};

/// Messages that a publisher has under way.
const UNDER_WAY: usize = 8;
/// How long a client listens before it looks at what else it has to do.
const TICK: Duration = Duration::from_millis(50);

/// What everybody in a game knows.
struct Game {
    /// Where the server is now, if it runs.
    server: Mutex<Option<SocketAddr>>,
    /// No more is published.
    over: AtomicBool,
    /// How many messages each topic had, when its publisher has them all acknowledged.
    published: Mutex<BTreeMap<String, u32>>,
    /// How many subscribers are ready.
    ready: Mutex<usize>,
}

/// Random enough.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn throw(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The server is gone, or the connection.
struct Gone;

struct Wire(Client);

impl Wire {
    /// Connects as soon as there is a server; returns whether it knows the session.
    fn connect(game: &Game, hello: &Hello) -> Result<(Self, bool), Gone> {
        let Some(address) = *game.server.lock().expect("lock") else {
            thread::sleep(TICK);
            return Err(Gone);
        };
        let stream = TcpStream::connect(address).map_err(|_| Gone)?;
        let mut wire = Self(Client::over(stream, hello.five));
        wire.0
            .stream
            .set_read_timeout(Some(TICK))
            .expect("a socket");
        wire.send(&hello.bytes())?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(connack) = wire.receive()? {
                assert_eq!((connack.first, connack.body[1]), (0x20, 0), "{connack:?}");
                return Ok((wire, connack.body[0] == 1));
            }
            assert!(Instant::now() < end, "no answer to a CONNECT");
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.0.try_send(bytes).map_err(|_| Gone)
    }

    fn ack(&mut self, first: u8, id: u16) -> Result<(), Gone> {
        self.send(&packet(first, &id.to_be_bytes()))
    }

    /// The next packet, if there is one before the tick is over.
    fn receive(&mut self) -> Result<Option<Packet>, Gone> {
        self.0.try_receive().map_err(|_| Gone)
    }
}

fn id(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet.body[0], packet.body[1]])
}

/// A message that is not acknowledged as a whole.
struct Pending {
    id: u16,
    number: u32,
    released: bool,
}

/// Publishes numbers on a topic until the game is over, and sees each of them through.
fn publish_numbers(game: &Game, hello: &Hello, topic: &str, qos: u8) {
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let (mut next, mut known) = (0, false);
    loop {
        let over = game.over.load(Ordering::Relaxed);
        if over && pending.is_empty() && known {
            game.published
                .lock()
                .expect("lock")
                .insert(topic.to_owned(), next);
            return;
        }
        let Ok((mut wire, present)) = Wire::connect(game, hello) else {
            continue;
        };
        assert!(present || !known, "the session of {topic} is lost");
        known = true;
        // Errors end the connection, and the next one goes on.
        let _ = publish_some(game, &mut wire, topic, qos, &mut pending, &mut next);
    }
}

fn publish_some(
    game: &Game,
    wire: &mut Wire,
    topic: &str,
    qos: u8,
    pending: &mut VecDeque<Pending>,
    next: &mut u32,
) -> Result<(), Gone> {
    let five = wire.0.five;
    let bytes = |it: &Pending, dup: bool| {
        let text = it.number.to_string();
        let mut bytes = publish(five, topic, text.as_bytes(), qos, false, it.id, &[]);
        bytes[0] |= u8::from(dup) << 3;
        bytes
    };
    for it in pending.iter() {
        match it.released {
            true => wire.ack(0x62, it.id)?,
            false => wire.send(&bytes(it, true))?,
        }
    }
    loop {
        while pending.len() < UNDER_WAY && !game.over.load(Ordering::Relaxed) {
            let it = Pending {
                id: (*next % 60_000) as u16 + 1,
                number: *next,
                released: false,
            };
            *next += 1;
            let bytes = bytes(&it, false);
            pending.push_back(it);
            wire.send(&bytes)?;
            // Who wanders must be able to keep up.
            thread::sleep(Duration::from_millis(1));
        }
        if pending.is_empty() {
            return Ok(());
        }
        let Some(answer) = wire.receive()? else {
            continue;
        };
        let id = id(&answer);
        let place = pending.iter().position(|it| it.id == id);
        let failed = answer.body.get(2).is_some_and(|code| *code >= 0x80);
        match answer.first {
            0x40 | 0x70 => {
                // 0x92 answers a PUBREL that was answered before a crash.
                assert!(!failed || answer.body[2] == 0x92, "{answer:?}");
                pending.remove(place.expect("an acknowledgement of something"));
            }
            0x50 => {
                assert!(!failed, "{answer:?}");
                pending[place.expect("a receipt of something")].released = true;
                wire.ack(0x62, id)?;
            }
            other => panic!("unexpected packet {other:#x}"),
        }
    }
}

/// What a subscriber has got, by topic.
type Got = BTreeMap<String, Vec<u32>>;

/// Takes what is published until the game is over and everything has come; leaves now and then if it `wanders`.
fn subscribe_all(game: &Game, hello: &Hello, filter: &str, wanders: bool, mut dice: Dice) -> Got {
    let mut got = Got::new();
    let (mut known, mut subscribed) = (false, false);
    // QoS 2 messages that came and are not released.
    let mut received = HashSet::new();
    let end = Instant::now() + 4 * PATIENCE;
    loop {
        assert!(
            Instant::now() < end,
            "{} waits for more than {got:?}",
            hello.client_id
        );
        let Ok((mut wire, present)) = Wire::connect(game, hello) else {
            continue;
        };
        assert!(
            present || !known,
            "the session of {} is lost",
            hello.client_id
        );
        known = true;
        if !subscribed {
            if wire
                .send(&subscribe(hello.five, 1, &[(filter, 2)]))
                .is_err()
            {
                continue;
            }
            while let Ok(answer) = wire.receive() {
                if answer.is_some_and(|it| it.first == 0x90) {
                    subscribed = true;
                    *game.ready.lock().expect("lock") += 1;
                    break;
                }
            }
            continue;
        }
        let mut patience = if wanders {
            dice.throw(300) + 1
        } else {
            u64::MAX
        };
        while let Ok(packet) = wire.receive() {
            let Some(packet) = packet else {
                if is_complete(game, &got) {
                    return got;
                }
                continue;
            };
            if take(&mut wire, &packet, &mut received, &mut got).is_err() {
                break;
            }
            patience -= 1;
            if patience == 0 {
                break;
            }
        }
        if wanders {
            drop(wire);
            thread::sleep(Duration::from_millis(dice.throw(50)));
        }
    }
}

fn take(
    wire: &mut Wire,
    packet: &Packet,
    received: &mut HashSet<u16>,
    got: &mut Got,
) -> Result<(), Gone> {
    match packet.first {
        0x62 => {
            received.remove(&id(packet));
            wire.ack(0x70, id(packet))
        }
        first if first >> 4 == 3 => {
            let message = message(packet, wire.0.five);
            // A QoS 2 message that is there already is only received again.
            if message.qos == 1 || received.insert(message.id) {
                let number = String::from_utf8(message.payload).expect("text");
                let number = number.parse().expect("a number");
                got.entry(message.topic).or_default().push(number);
            }
            wire.ack(if message.qos == 1 { 0x40 } else { 0x50 }, message.id)
        }
        other => panic!("unexpected packet {other:#x}"),
    }
}

fn is_complete(game: &Game, got: &Got) -> bool {
    let published = game.published.lock().expect("lock");
    game.over.load(Ordering::Relaxed)
        && published.len() == 4
        && published.iter().all(|(topic, count)| {
            let last = count.checked_sub(1);
            last.is_none_or(|last| got.get(topic).is_some_and(|got| got.contains(&last)))
        })
}

fn play(durability: &str, seed: u64, rounds: u64) {
    let mut world = World::with(&[
        ("ROLLCALL_MQTT__WORKERS", "3"),
        ("ROLLCALL_MQTT__DURABILITY", durability),
        ("ROLLCALL_MQTT__SESSION_QUEUE_MESSAGES", "1000000"),
    ]);
    let (thing, channel) = world.member();
    let topic = |name: &str| format!("channels/{channel}/messages/{name}");
    let game = Game {
        server: Mutex::new(Some(world.mqtt())),
        over: AtomicBool::new(false),
        published: Mutex::default(),
        ready: Mutex::new(0),
    };
    let mut dice = Dice(seed);
    let hello = |name: &str, five: bool| Hello::of(&thing, name).version(five).lasting();
    thread::scope(|scope| {
        let game = &game;
        let mut subscribers = Vec::new();
        for (n, wanders) in [false, true, true].into_iter().enumerate() {
            let hello = hello(&format!("subscriber {n}"), n != 1);
            let (filter, dice) = (topic("#"), Dice(dice.throw(u64::MAX)));
            let run = move || subscribe_all(game, &hello, &filter, wanders, dice);
            subscribers.push(scope.spawn(run));
        }
        crate::world::wait_for("the subscribers", || {
            (*game.ready.lock().expect("lock") == 3).then_some(())
        });
        for n in 0..4u8 {
            let name = format!("publisher {n}");
            let (hello, topic, qos) = (hello(&name, n % 2 == 0), topic(&name), n / 2 + 1);
            scope.spawn(move || publish_numbers(game, &hello, &topic, qos));
        }
        for _ in 0..rounds {
            thread::sleep(Duration::from_millis(100 + dice.throw(500)));
            *game.server.lock().expect("lock") = None;
            world.crash_and_restart();
            *game.server.lock().expect("lock") = Some(world.mqtt());
        }
        thread::sleep(Duration::from_millis(dice.throw(300)));
        game.over.store(true, Ordering::Relaxed);
        let got: Vec<Got> = subscribers
            .into_iter()
            .map(|it| it.join().expect("sound"))
            .collect();
        let published = game.published.lock().expect("lock");
        for (topic, &count) in &*published {
            assert!(count > 0, "nothing was published on {topic}");
            for got in &got {
                let mut numbers = got[topic].clone();
                if topic.ends_with(['0', '1']) {
                    // QoS 1 may come again, but not for the first time after a later one.
                    let mut seen = HashSet::new();
                    numbers.retain(|number| seen.insert(*number));
                }
                let wrong = (0..).zip(&numbers).find(|(place, number)| place != *number);
                assert_eq!(wrong, None, "out of order, or double, on {topic}");
                assert_eq!(numbers.len() as u32, count, "lost on {topic}");
            }
        }
    });
}

fn seed() -> u64 {
    let seed = std::env::var("GAME_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("GAME_SEED={seed}");
    seed
}

fn rounds() -> u64 {
    let rounds = std::env::var("GAME_ROUNDS")
        .ok()
        .and_then(|it| it.parse().ok());
    rounds.unwrap_or(5)
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_however_often_it_is_killed() {
    play("disk", seed(), rounds());
}

#[test]
fn the_same_holds_for_the_end_of_the_process_alone() {
    play("process", seed(), rounds().div_ceil(2));
}
