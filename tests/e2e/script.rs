//! Conversations with the server, written as text: who says what, and what is answered.
//!
//! A script begins with `== name | versions`, `4` for MQTT 3.1.1 and `5`; behind them `open` if it needs topics that
//! no thing may have, `things` if it needs such as are denied. Then, a line each (`4:` or `5:` before it: in that version only):
//!
//! - `a > publish ~/x hello qos=1 id=7`: client `a` sends; `~` is a topic of the script's own; `-` is nothing at all;
//!   a payload is text, `len:100` or `hex:ff00`; `raw` sends bytes in the notation of `packets.txt`; `give` sends a message and sees it through;
//! - `a < puback 7`: `a` hears exactly that; codes are hex, `0/87` is 0 in 3.1.1 and 0x87 in 5, `?` is any, `$n` binds a
//!   number or stands for it. A PUBLISH has the properties that are listed; of other packets those that are listed
//!   are compared, `reason=-` is none and `reason=*` any. A DISCONNECT is heard in version 5 only. `take` is a message,
//!   seen through; `end` is the end;
//! - `a silent`: nothing is there to hear; `a reset`, `a close`: the connection is broken off, or closed; `wait 200`.

mod words;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::{Client, Hello, Packet, block, packet, text, variable};
use crate::table;
use crate::world::{Thing, World};
use words::{PROPERTIES, Words, take_number, take_text};

pub(crate) struct Script {
    pub(crate) name: &'static str,
    versions: &'static str,
    /// Whether it is for things, and for anybody.
    modes: [bool; 2],
    lines: Vec<&'static str>,
}

/// Where scripts are played: as whom, and on which topics.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    /// The thing and its channel; `None` where anybody may do anything.
    pub(crate) member: Option<(Thing, String)>,
}

impl Stage {
    /// The first listener, as a thing.
    pub(crate) fn of(world: &World) -> Self {
        Self {
            address: world.mqtt(),
            member: Some(world.member()),
        }
    }
}

pub(crate) fn scripts(text: &'static str) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, rest) = head.split_once(" | ").expect("name | versions");
            scripts.push(Script {
                name,
                versions: rest.split(' ').next().expect("versions"),
                modes: [!rest.ends_with(" open"), !rest.ends_with(" things")],
                lines: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            scripts.last_mut().expect("a script").lines.push(line);
        }
    }
    scripts
}

/// Plays all scripts in all their versions, several at a time.
pub(crate) fn play(text: &'static str, stages: &[Stage]) {
    let scripts = scripts(text);
    let mut plays = Vec::new();
    for stage in stages {
        for script in &scripts {
            if !script.modes[usize::from(stage.member.is_none())] {
                continue;
            }
            plays.extend(
                script
                    .versions
                    .chars()
                    .map(|version| (stage, script, version == '5')),
            );
        }
    }
    assert!(!plays.is_empty());
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((stage, script, five)) =
                    plays.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(at) = script.play(stage, *five) {
                        failed.lock().expect("no panic").push(at);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

impl Script {
    /// Returns where it failed.
    fn play(&self, stage: &Stage, five: bool) -> Result<(), String> {
        let own = format!(
            "{}-{}",
            self.name.replace(' ', "-"),
            if five { 5 } else { 4 }
        );
        let base = match &stage.member {
            Some((_, channel)) => format!("channels/{channel}/messages/{own}"),
            None => own.clone(),
        };
        let mut play = Play {
            stage,
            five,
            own,
            base,
            clients: HashMap::new(),
            early: HashMap::new(),
            numbers: HashMap::new(),
        };
        for line in &self.lines {
            let wanted = match line.split_at_checked(2) {
                Some(("4:", rest)) => Some(rest).filter(|_| !five),
                Some(("5:", rest)) => Some(rest).filter(|_| five),
                _ => Some(*line),
            };
            let Some(step) = wanted.map(str::trim) else {
                continue;
            };
            let step = std::panic::AssertUnwindSafe(|| play.step(step));
            if let Err(panic) = std::panic::catch_unwind(step) {
                let why = panic.downcast_ref::<String>().map_or("", String::as_str);
                let version = if five { "5" } else { "3.1.1" };
                let mode = match stage.member {
                    Some(_) => "as a thing",
                    None => "open",
                };
                return Err(format!(
                    "\"{}\", {version}, {mode}: {line}
  {why}",
                    self.name
                ));
            }
        }
        Ok(())
    }
}

struct Play<'a> {
    stage: &'a Stage,
    five: bool,
    /// What names of this play begin with.
    own: String,
    /// What `~` stands for.
    base: String,
    clients: HashMap<&'static str, Client>,
    /// Messages that came while an answer was awaited.
    early: HashMap<&'static str, VecDeque<Packet>>,
    numbers: HashMap<String, String>,
}

impl Play<'_> {
    fn step(&mut self, line: &'static str) {
        let (who, rest) = line.split_once(' ').expect("who and what");
        if who == "wait" {
            let time = rest.parse().expect("milliseconds");
            return std::thread::sleep(Duration::from_millis(time));
        }
        match rest.split_once(' ') {
            Some((">", said)) => self.say(who, said),
            Some(("<", heard)) => self.hear(who, heard),
            _ => match rest {
                "silent" => {
                    let early = self.early.get(who).is_none_or(VecDeque::is_empty);
                    assert!(early, "heard {:?}", self.early[who]);
                    self.client(who).expect_silence();
                }
                "reset" => self.clients.remove(who).expect("a client").reset(),
                "close" => drop(self.clients.remove(who)),
                "open" => {
                    let client = Client::open(self.stage.address, self.five);
                    self.clients.insert(who, client);
                }
                other => panic!("what is {other}?"),
            },
        }
    }

    fn client(&mut self, who: &str) -> &mut Client {
        self.clients
            .get_mut(who)
            .expect("a client that has connected")
    }

    /// A text as it is sent: with what `~` and `$n` stand for.
    fn spelled(&self, word: &str) -> String {
        match word {
            "-" => String::new(),
            _ if word.starts_with('$') && self.numbers.contains_key(word) => {
                self.numbers[word].clone()
            }
            _ => word.replace('~', &self.base),
        }
    }

    fn id(&self, word: &str) -> u16 {
        self.spelled(word).parse().expect("an identifier")
    }

    /// `4/80` is the code of each version; hex.
    fn code<'w>(&self, word: &'w str) -> &'w str {
        let (four, five) = word.split_once('/').unwrap_or((word, word));
        if self.five { five } else { four }
    }

    fn say(&mut self, who: &'static str, line: &str) {
        let words = Words::parse(line);
        if words.kind == "connect" && !line.ends_with(" again") {
            let client = Client::open(self.stage.address, self.five);
            self.clients.insert(who, client);
        }
        let bytes = match line.strip_prefix("raw ") {
            Some(notation) => table::bytes(notation),
            None => self.encode(who, &words),
        };
        self.client(who).send(&bytes);
        if words.kind != "give" {
            return;
        }
        let id = words.get("id").unwrap_or("1").to_owned();
        match words.number("qos") {
            0 => {}
            1 => self.hear_answer(who, &format!("puback {id} 0/?")),
            _ => {
                self.hear_answer(who, &format!("pubrec {id} 0/?"));
                let id = self.id(&id);
                self.client(who).ack(0x62, id);
                self.hear_answer(who, &format!("pubcomp {id} 0"));
            }
        }
    }

    /// Like [`Play::hear`], with messages before it put aside.
    fn hear_answer(&mut self, who: &'static str, line: &str) {
        loop {
            let packet = self.client(who).receive();
            if packet.first >> 4 != 3 {
                return self.hear_this(who, line, Some(packet));
            }
            self.early.entry(who).or_default().push_back(packet);
        }
    }

    fn encode(&self, who: &str, words: &Words) -> Vec<u8> {
        let place = |n: usize| words.places.get(n).map_or("-", String::as_str);
        let mut body = Vec::new();
        let five = self.five;
        match words.kind.as_str() {
            "connect" => return self.connect(who, words).bytes(),
            "publish" | "give" => {
                let qos = words.number("qos") as u8;
                body.extend(text(&self.spelled(place(0))));
                if qos > 0 {
                    body.extend(self.id(words.get("id").unwrap_or("1")).to_be_bytes());
                }
                if five {
                    body.extend(block(&self.properties(words, "")));
                }
                body.extend(self.payload(place(1)));
                let flags = words.number("dup") << 3 | words.number("retain");
                return packet(0x30 | qos << 1 | flags as u8, &body);
            }
            "subscribe" | "unsubscribe" => {
                body.extend(self.id(place(0)).to_be_bytes());
                if five {
                    body.extend(block(&self.properties(words, "")));
                }
                for filter in &words.places[1..] {
                    let (filter, options) = filter.split_once('=').unwrap_or((filter, ""));
                    body.extend(text(&self.spelled(filter)));
                    if words.kind == "subscribe" {
                        body.push(options_of(options));
                    }
                }
                return packet(
                    if words.kind == "subscribe" {
                        0x82
                    } else {
                        0xA2
                    },
                    &body,
                );
            }
            "puback" | "pubrec" | "pubrel" | "pubcomp" => {
                body.extend(self.id(place(0)).to_be_bytes());
                self.tail(words, 1, &mut body);
            }
            "disconnect" | "auth" => self.tail(words, 0, &mut body),
            "pingreq" => {}
            other => panic!("who says {other}?"),
        }
        let first = KINDS
            .iter()
            .find(|it| it.0 == words.kind)
            .expect("a packet")
            .1;
        packet(first, &body)
    }

    /// A reason code, hex, and properties, if there are any.
    fn tail(&self, words: &Words, place: usize, body: &mut Vec<u8>) {
        let properties = self.properties(words, "");
        let code = words.places.get(place).map(|code| byte(self.code(code)));
        if !self.five || (code.is_none() && properties.is_empty()) {
            return;
        }
        body.push(code.unwrap_or(0));
        if !properties.is_empty() {
            body.extend(block(&properties));
        }
    }

    fn connect(&self, who: &str, words: &Words) -> Hello {
        let name = words
            .get("id")
            .map_or_else(|| format!("{}-{who}", self.own), |id| self.spelled(id));
        let hello = match &self.stage.member {
            Some((thing, _)) => Hello::of(thing, &name),
            None => Hello::anyone(&name),
        };
        let mut hello = hello
            .version(self.five)
            .property(&self.properties(words, ""));
        hello.keep_alive = words.number("keep") as u16;
        hello.clean = words.get("clean") != Some("0");
        if words.get("lasting").is_some() {
            hello = hello.lasting();
        }
        if let Some(topic) = words.get("will") {
            let flags = words.number("will-flags");
            let payload = self.payload(words.get("payload").unwrap_or("-"));
            hello = hello.will(
                &self.spelled(topic),
                &payload,
                flags as u8 & 3,
                flags & 4 != 0,
            );
            hello.will.as_mut().expect("a will").properties = self.properties(words, "will.");
        }
        hello
    }

    fn payload(&self, word: &str) -> Vec<u8> {
        match word.split_once(':') {
            Some(("len", len)) => vec![b'x'; len.parse().expect("a length")],
            Some(("hex", hex)) => table::bytes(hex),
            _ => self.spelled(word).into_bytes(),
        }
    }

    fn properties(&self, words: &Words, prefix: &str) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in &words.named {
            let known = name
                .strip_prefix(prefix)
                .filter(|name| !prefix.is_empty() || !name.starts_with("will."));
            let Some((_, id, kind)) = PROPERTIES.iter().find(|it| known == Some(it.0)) else {
                continue;
            };
            block.push(*id);
            match kind {
                0 => block.extend(variable(self.spelled(value).parse().expect("a number"))),
                10 | 11 => block.extend(text(&self.spelled(value))),
                12 => {
                    let (key, value) = value.split_once(':').expect("key:value");
                    block.extend([text(key), text(value)].concat());
                }
                len => {
                    let value: u32 = self.spelled(value).parse().expect("a number");
                    block.extend(&value.to_be_bytes()[4 - usize::from(*len)..]);
                }
            }
        }
        block
    }

    fn hear(&mut self, who: &str, line: &str) {
        if line.starts_with("disconnect") && !self.five {
            return;
        }
        let early = self.early.get_mut(who).and_then(VecDeque::pop_front);
        let packet = early.or_else(|| self.client(who).receive_or_end());
        self.hear_this(who, line, packet);
    }

    fn hear_this(&mut self, who: &str, line: &str, packet: Option<Packet>) {
        let mut wanted = Words::parse(line);
        let seen_through = wanted.kind == "take";
        if seen_through {
            wanted.kind = "publish".to_owned();
        }
        if wanted.kind == "unsuback" && !self.five {
            wanted.places.truncate(1);
        }
        let Some(packet) = packet else {
            assert_eq!(wanted.kind, "end", "the server has closed");
            return;
        };
        let heard = self.decode(&packet);
        assert!(self.matches(&wanted, &heard), "heard {heard:?}");
        if seen_through {
            let id = heard
                .get("id")
                .map_or(0, |id| id.parse().expect("a number"));
            match heard.number("qos") {
                1 => self.client(who).ack(0x40, id),
                2 => {
                    self.client(who).ack(0x50, id);
                    self.hear(who, &format!("pubrel {id}"));
                    self.client(who).ack(0x70, id);
                }
                _ => {}
            }
        }
    }

    fn decode(&self, packet: &Packet) -> Words {
        let kind = KINDS.iter().find(|it| it.1 >> 4 == packet.first >> 4);
        let mut heard = Words {
            kind: kind.expect("a packet that servers send").0.to_owned(),
            ..Words::default()
        };
        let mut rest = &packet.body[..];
        let five = self.five;
        match packet.first >> 4 {
            2 => {
                heard.flag("present", rest[0] & 1);
                assert_eq!(rest[0] >> 1, 0, "reserved bits");
                heard.places.push(format!("{:x}", rest[1]));
                rest = &rest[2..];
                if five {
                    heard.read_properties(&mut rest);
                }
            }
            3 => {
                let topic = take_text(&mut rest);
                heard.places.push(self.shortened(&topic));
                let qos = packet.first >> 1 & 3;
                heard.flag("dup", packet.first >> 3 & 1);
                heard.flag("retain", packet.first & 1);
                if qos > 0 {
                    heard.named.push(("qos".to_owned(), qos.to_string()));
                    heard
                        .named
                        .push(("id".to_owned(), take_number(&mut rest, 2).to_string()));
                }
                if five {
                    heard.read_properties(&mut rest);
                }
                let payload = String::from_utf8_lossy(rest).into_owned();
                let long = payload.len() > 50 && payload.bytes().all(|byte| byte == b'x');
                heard.places.push(if long {
                    format!("len:{}", payload.len())
                } else {
                    payload
                });
                rest = &[];
            }
            4..=7 => {
                heard.places.push(take_number(&mut rest, 2).to_string());
                heard.read_tail(&mut rest);
            }
            9 | 11 => {
                heard.places.push(take_number(&mut rest, 2).to_string());
                if five {
                    heard.read_properties(&mut rest);
                }
                heard
                    .places
                    .extend(rest.iter().map(|code| format!("{code:x}")));
                rest = &[];
            }
            14 | 15 => heard.read_tail(&mut rest),
            _ => {}
        }
        assert!(rest.is_empty(), "bytes are left of {packet:?}");
        for (_, value) in &mut heard.named {
            *value = self.shortened(value);
        }
        heard
    }

    fn shortened(&self, text: &str) -> String {
        text.replace(&self.base, "~")
    }

    fn matches(&mut self, wanted: &Words, heard: &Words) -> bool {
        if wanted.kind != heard.kind {
            return false;
        }
        let message = heard.kind == "publish";
        // The code of success may be left out.
        let mut places = heard.places.clone();
        if places.len() < wanted.places.len()
            && wanted.kind != "suback"
            && wanted.kind != "unsuback"
        {
            places.push("0".to_owned());
        }
        if wanted.places.len() > places.len() || (message && wanted.places.len() != places.len()) {
            return false;
        }
        // 3.1.1 has no codes in an UNSUBACK; codes of a SUBACK are as many as filters.
        if wanted.kind.ends_with("suback") && self.five && wanted.places.len() != places.len() {
            return false;
        }
        for (wanted, heard) in wanted.places.iter().zip(&places) {
            let wanted = match wanted.as_str() {
                "-" => "",
                wanted if message => wanted,
                wanted => self.code(wanted),
            };
            if !self.same(wanted, heard) {
                return false;
            }
        }
        let mut names: Vec<&str> = wanted.named.iter().map(|it| it.0.as_str()).collect();
        if message {
            names.extend(
                heard
                    .named
                    .iter()
                    .map(|it| it.0.as_str())
                    .filter(|name| *name != "id"),
            );
        }
        names.into_iter().all(|name| match wanted.get(name) {
            Some("*") => heard.get(name).is_some(),
            Some("-") => heard.get(name).is_none(),
            _ => {
                let (wanted, heard) = (wanted.all(name), heard.all(name));
                wanted.len() == heard.len()
                    && wanted.iter().zip(heard).all(|(a, b)| self.same(a, b))
            }
        })
    }

    fn same(&mut self, wanted: &str, heard: &str) -> bool {
        if wanted.starts_with('$')
            && wanted.len() > 1
            && wanted.as_bytes()[1].is_ascii_lowercase()
            && wanted.len() < 4
        {
            return *self
                .numbers
                .entry(wanted.to_owned())
                .or_insert_with(|| heard.to_owned())
                == heard;
        }
        wanted == "?" || wanted == heard
    }
}

const KINDS: [(&str, u8); 12] = [
    ("connack", 0x20),
    ("publish", 0x30),
    ("puback", 0x40),
    ("pubrec", 0x50),
    ("pubrel", 0x62),
    ("pubcomp", 0x70),
    ("suback", 0x90),
    ("unsuback", 0xB0),
    ("pingreq", 0xC0),
    ("pingresp", 0xD0),
    ("disconnect", 0xE0),
    ("auth", 0xF0),
];

/// `1,nl,rap,rh2`: QoS, no local, retain as published, retain handling.
fn options_of(text: &str) -> u8 {
    let parts = text.split(',').map(|part| match part {
        "nl" => 4,
        "rap" => 8,
        "rh1" => 0x10,
        "rh2" => 0x20,
        qos => qos.parse().expect("a QoS"),
    });
    parts.fold(0, |all, one: u8| all | one)
}

fn byte(hex: &str) -> u8 {
    u8::from_str_radix(hex, 16).expect("hex")
}
