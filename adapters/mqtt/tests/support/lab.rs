//! A front in this process that lets everybody in, and clients that do to it what bytes say.
//!
//! Whatever they do: each connection ends or answers a ping, and a client that behaves is served all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rollcall_domain::access::{self, Access, Action, Authority, AuthorityError};
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_domain::presence::{Arrivals, Kept, Presence, PresenceLog};
use rollcall_domain::sessions::Left;
use rollcall_mqtt::{Config, Front};
use tokio::signal::unix::{SignalKind, signal};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);
const CLIENTS: usize = 6;

const IDS: [&str; 4] = ["", "one", "two", "three"];
const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "b", "$own/a", "/", "", "will"];
const FILTERS: [&str; 12] = [
    "a",
    "a/+",
    "a/#",
    "+/b",
    "+",
    "will",
    "$share/g/a/#",
    "$share/g/+",
    "$share/h/a",
    "$own/#",
    "$share//a",
    "a/#/b",
];

pub(crate) struct Lab {
    observer: Client,
    rounds: u32,
    path: PathBuf,
    _front: Front,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        // A write to who is gone is to fail, not to end the process: what else sees to it is not there in fuzz targets.
        let pipe = runtime.block_on(async { signal(SignalKind::pipe()) });
        drop(pipe.expect("a handler"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mqtt.sock");
        let config = config(&format!("unix:{}", path.display()));
        let access = access::Config {
            ttl: Duration::from_secs(1),
            recheck_timeout: Duration::from_secs(1),
            follow: false,
            max_entries: 10,
        };
        let access = Arc::new(Access::new(Arc::new(Nobody), access));
        let handle = runtime.handle().clone();
        let front = Front::start(
            &config,
            access,
            Some(Arc::new(Nowhere)),
            None,
            Left::default(),
            handle,
        )
        .expect("a front");
        let mut observer = Client::open(&path);
        observer.send(&connect(true, "observer", 2, &[], None));
        let filters = [&text("#")[..], &[0], &text("observer"), &[1]].concat();
        observer.send(&packet(0x82, &[&[0, 1, 0], &filters[..]].concat()));
        Self {
            observer,
            rounds: 0,
            path,
            _front: front,
            _runtime: runtime,
            _folder: folder,
        }
    }

    /// Plays what `script` says.
    pub(crate) fn play(&mut self, script: &[u8]) {
        let mut play = Play {
            path: &self.path,
            script,
            clients: Default::default(),
        };
        while !play.script.is_empty() {
            play.step();
        }
        for client in play.clients.into_iter().flatten() {
            client.end();
        }
        self.look();
        // The next script finds nothing of this one.
        for id in &IDS[1..] {
            let mut client = Client::open(&self.path);
            client.send(&connect(true, id, 2, &[], None));
            for topic in TOPICS.iter().filter(|topic| !topic.is_empty()) {
                client.send(&packet(0x31, &[text(topic), vec![0]].concat()));
            }
            client.send(&[0xE0, 0]);
            client.end();
        }
    }

    /// The observer hears itself.
    fn look(&mut self) {
        self.rounds += 1;
        let round = self.rounds.to_be_bytes();
        let body = [&text("observer")[..], &[0, 9, 0], &round].concat();
        self.observer.send(&packet(0x32, &body));
        let (mut acknowledged, mut heard) = (false, false);
        let end = Instant::now() + PATIENCE;
        while !(acknowledged && heard) {
            assert!(Instant::now() < end, "the observer is not served");
            let alive = self.observer.receive(Duration::from_millis(100));
            for (first, body) in self.observer.heard.clone() {
                match first >> 4 {
                    4 => acknowledged = true,
                    3 if first & 6 != 0 => heard |= body.ends_with(&round),
                    14 => panic!("the observer is told {body:x?}"),
                    _ => {}
                }
            }
            self.observer.behave();
            assert!(alive, "the observer has lost its connection");
        }
    }
}

/// The default, with bounds that are soon reached.
fn config(listen: &str) -> Config {
    let defaults: toml::Table = include_str!("../../../../configs/default.toml")
        .parse()
        .expect("TOML");
    let mut mqtt = defaults["mqtt"].clone();
    let table = mqtt.as_table_mut().expect("a table");
    for (key, value) in [
        ("listen", listen.into()),
        ("access", "open".into()),
        ("mqtt31", true.into()),
        ("workers", 2.into()),
        ("max_packet_size", "4KiB".into()),
        ("max_inflight", 4.into()),
        ("max_topic_alias", 3.into()),
        ("max_subscriptions", 6.into()),
        ("max_subscription_bytes", "4KiB".into()),
        ("session_queue_bytes", "16KiB".into()),
        ("session_queue_messages", 20.into()),
        ("max_retained", 4.into()),
    ] {
        assert!(table.insert(key.to_owned(), value).is_some(), "no {key}");
    }
    mqtt.try_into().expect("a configuration")
}

/// Knows nothing and lets nobody in; nobody asks.
struct Nobody;

#[async_trait]
impl Authority for Nobody {
    async fn identify(&self, _: &Secret) -> Result<ThingId, AuthorityError> {
        Err(AuthorityError::Denied)
    }

    async fn authorize(
        &self,
        _: &Secret,
        _: ChannelId,
        _: Action,
    ) -> Result<ThingId, AuthorityError> {
        Err(AuthorityError::Denied)
    }
}

struct Nowhere;

impl PresenceLog for Nowhere {
    fn append(&self, _: Vec<Presence>, kept: Kept) {
        kept(Arrivals::Kept);
    }
}

struct Play<'a> {
    path: &'a PathBuf,
    script: &'a [u8],
    clients: [Option<Client>; CLIENTS],
}

impl Play<'_> {
    /// The next byte of the script; 0 behind its end.
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.script.split_first() else {
            return 0;
        };
        self.script = rest;
        *byte
    }

    fn bytes(&mut self, most: u8) -> Vec<u8> {
        let len = usize::from(self.byte() % most).min(self.script.len());
        let (bytes, rest) = self.script.split_at(len);
        self.script = rest;
        bytes.to_vec()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    fn step(&mut self) {
        let what = self.byte();
        let who = usize::from(what >> 4) % CLIENTS;
        let kind = what & 15;
        if kind == 0 || self.clients[who].is_none() {
            if let Some(before) = self.clients[who].take() {
                before.end();
            }
            return self.connect(who);
        }
        if kind == 1 {
            return drop(self.clients[who].take());
        }
        let five = self.clients[who].as_ref().is_some_and(|client| client.five);
        let bytes = match kind {
            2..=5 => self.publish(five),
            6 => self.subscribe(five),
            7 => self.unsubscribe(five),
            8 => self.acknowledge(five),
            9 => vec![0xC0, 0],
            10 => self.disconnect(five),
            11 => self.bytes(64),
            12 => self.flawed(),
            _ => {
                let client = self.clients[who].as_mut().expect("just seen");
                client.receive(Duration::ZERO);
                return client.behave();
            }
        };
        self.clients[who].as_mut().expect("just seen").send(&bytes);
    }

    fn connect(&mut self, who: usize) {
        let mut client = Client::open(self.path);
        let (how, more) = (self.byte(), self.byte());
        client.five = how & 1 != 0;
        let id = self.one_of(&IDS);
        let clean = how & 2;
        let mut properties = Vec::new();
        if how & 4 != 0 {
            properties.extend([0x11, 0, 0, 0, more & 3]);
        }
        if how & 8 != 0 {
            properties.extend([0x21, 0, more >> 2 & 3]);
        }
        if how & 16 != 0 {
            properties.extend([0x22, 0, more >> 4 & 3]);
        }
        if how & 32 != 0 {
            properties.extend([0x27, 0, 0, 0, more | 32]);
        }
        let will = (how & 64 != 0).then(|| {
            let delay = [&[5, 0x18, 0, 0, 0][..], &[more & 1]].concat();
            let delay = if client.five { delay } else { Vec::new() };
            [delay, text("will"), text("x")].concat()
        });
        let flags = clean | if will.is_some() { more & 0x38 } else { 0 };
        client.send(&connect(client.five, id, flags, &properties, will));
        self.clients[who] = Some(client);
    }

    fn publish(&mut self, five: bool) -> Vec<u8> {
        let how = self.byte();
        let qos = how & 3;
        let mut body = text(self.one_of(&TOPICS));
        if qos > 0 {
            body.extend([0, self.byte() & 15]);
        }
        if five {
            let mut properties = Vec::new();
            if how & 16 != 0 {
                properties.extend([0x23, 0, self.byte() & 3]);
            }
            if how & 32 != 0 {
                properties.extend([0x02, 0, 0, 0, self.byte() & 1]);
            }
            if how & 64 != 0 {
                properties.extend([0x01, 1, 0x26, 0, 1, b'a', 0, 1, b'b', 0x08, 0, 1, b'a']);
            }
            body.push(properties.len() as u8);
            body.extend(properties);
        }
        let len = usize::from(self.byte()) * if how & 128 != 0 { 16 } else { 1 };
        body.extend(vec![b'p'; len]);
        packet(
            0x30 | (how & 12) ^ (how & 8) | qos << 1 | (how >> 2 & 1),
            &body,
        )
    }

    fn subscribe(&mut self, five: bool) -> Vec<u8> {
        let how = self.byte();
        let mut body = vec![0, how | 1];
        if five {
            body.extend(if how & 2 != 0 {
                &[2, 0x0B, 5][..]
            } else {
                &[0]
            });
        }
        for _ in 0..=how >> 6 {
            body.extend(text(self.one_of(&FILTERS)));
            body.push(self.byte() & if five { 0x3f } else { 0x03 });
        }
        packet(0x82, &body)
    }

    fn unsubscribe(&mut self, five: bool) -> Vec<u8> {
        let mut body = vec![0, self.byte() | 1];
        body.extend(five.then_some(0));
        body.extend(text(self.one_of(&FILTERS)));
        packet(0xA2, &body)
    }

    fn acknowledge(&mut self, five: bool) -> Vec<u8> {
        let how = self.byte();
        let first = [0x40, 0x50, 0x62, 0x70][usize::from(how & 3)];
        let mut body = vec![0, how >> 2 & 15];
        if five && how & 64 != 0 {
            body.push(self.byte());
        }
        packet(first, &body)
    }

    fn disconnect(&mut self, five: bool) -> Vec<u8> {
        let how = self.byte();
        match (five, how & 3) {
            (false, _) | (true, 0) => vec![0xE0, 0],
            (true, 1) => vec![0xE0, 1, how >> 2],
            (true, _) => vec![0xE0, 7, 4 * (how >> 7), 5, 0x11, 0, 0, 0, how >> 2 & 3],
        }
    }

    /// A row of the table, with a byte changed.
    fn flawed(&mut self) -> Vec<u8> {
        let rows = super::table::rows();
        let row = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % rows.len();
        let mut bytes = rows[row].bytes.clone();
        let place = usize::from(self.byte()) % bytes.len();
        bytes[place] ^= self.byte();
        bytes
    }
}

/// A connection, and what came over it.
struct Client {
    stream: UnixStream,
    five: bool,
    input: Vec<u8>,
    heard: Vec<(u8, Vec<u8>)>,
    over: bool,
}

impl Client {
    fn open(path: &PathBuf) -> Self {
        let stream = UnixStream::connect(path).expect("the front listens");
        let timeout = Some(Duration::from_millis(200));
        stream.set_write_timeout(timeout).expect("a socket");
        Self {
            stream,
            five: true,
            input: Vec::new(),
            heard: Vec::new(),
            over: false,
        }
    }

    /// Who cannot send since the other side does not read is over, too.
    fn send(&mut self, bytes: &[u8]) {
        self.over |= self.over || self.stream.write_all(bytes).is_err();
    }

    /// Reads what comes within `time`, one read. Returns whether there may be more.
    fn receive(&mut self, time: Duration) -> bool {
        let mut bytes = [0; 16 * 1024];
        let time = time.max(Duration::from_micros(100));
        self.stream.set_read_timeout(Some(time)).expect("a socket");
        match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(n) => self.input.extend_from_slice(&bytes[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
        while let Ok(Some(len)) = rollcall_mqtt::codec::frame_len(&self.input)
            && len <= self.input.len()
        {
            let rest = self.input.split_off(len);
            let whole = std::mem::replace(&mut self.input, rest);
            let header = 1 + whole[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
            self.heard.push((whole[0], whole[header..].to_vec()));
        }
        true
    }

    /// Answers what was heard, as a client should.
    fn behave(&mut self) {
        for (first, body) in std::mem::take(&mut self.heard) {
            let answer = match first >> 4 {
                3 if first & 6 != 0 => {
                    let at = 2 + usize::from(body[0]) * 256 + usize::from(body[1]);
                    let kind = if first & 6 == 2 { 0x40 } else { 0x50 };
                    [kind, 2, body[at], body[at + 1]]
                }
                5 => [0x62, 2, body[0], body[1]],
                6 => [0x70, 2, body[0], body[1]],
                _ => continue,
            };
            self.send(&answer);
        }
    }

    /// The connection answers a ping, or has ended; when it says no more, it ends.
    fn end(mut self) {
        self.send(&[0xC0, 0]);
        let _ = self.stream.shutdown(Shutdown::Write);
        let end = Instant::now() + PATIENCE;
        while self.receive(Duration::from_millis(100)) {
            assert!(Instant::now() < end, "a connection does not end");
            self.heard.clear();
        }
    }
}

fn connect(five: bool, id: &str, flags: u8, properties: &[u8], will: Option<Vec<u8>>) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([
        if five { 5 } else { 4 },
        flags | u8::from(will.is_some()) << 2,
        0,
        0,
    ]);
    if five {
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    body.extend(text(id));
    body.extend(will.unwrap_or_default());
    packet(0x10, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
