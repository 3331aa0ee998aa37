//! A reader who follows the stream of presence from its first entry on and keeps a copy, so that nothing is lost
//! with what is trimmed or deleted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use redis::{Connection, RedisResult};

use crate::crowd::attempt_of;

pub(crate) const STREAM: &str = "mainflux.mqtt";
const PAGE: usize = 5_000;
const PAUSE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_millis(500);

/// An event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) thing: String,
    pub(crate) instance: Arc<str>,
    pub(crate) connect: bool,
    /// Nanoseconds since the Unix epoch, by the clock of the instance.
    pub(crate) at: u64,
    pub(crate) session: String,
    pub(crate) client_id: String,
    pub(crate) sequence: String,
    pub(crate) reason: Arc<str>,
    /// Whose it is, as its peer says.
    pub(crate) attempt: Option<u64>,
}

impl Event {
    /// # Errors
    /// A field is missing.
    pub(crate) fn parse(id: &str, fields: &[(String, String)]) -> Result<Self, String> {
        let find = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let text = |name: &str| find(name).ok_or_else(|| format!("{id} has no {name}: {fields:?}"));
        let connect = match &*text("event_type")? {
            "connect" => true,
            "disconnect" => false,
            other => return Err(format!("{id} is a {other}")),
        };
        Ok(Self {
            id: id.to_owned(),
            thing: text("thing_id")?,
            instance: text("instance")?.into(),
            connect,
            at: text("occurred_at")?
                .parse()
                .map_err(|_| format!("{id} has no time"))?,
            session: text("session_id")?,
            client_id: text("client_id")?,
            sequence: text("sequence")?,
            reason: find("reason").unwrap_or_default().into(),
            attempt: attempt_of(&text("peer")?),
        })
    }

    /// The fields that an audit looks at.
    pub(crate) fn fields(&self) -> [(&str, String); 6] {
        let kind = if self.connect {
            "connect"
        } else {
            "disconnect"
        };
        [
            ("thing_id", self.thing.clone()),
            ("event_type", kind.to_owned()),
            ("instance", self.instance.to_string()),
            ("occurred_at", self.at.to_string()),
            ("session_id", self.session.clone()),
            ("sequence", self.sequence.clone()),
        ]
    }

    /// When Redis took it: milliseconds since the Unix epoch, by its clock.
    pub(crate) fn taken(&self) -> u64 {
        place(&self.id).0
    }
}

/// The two numbers of the id of an entry.
pub(crate) fn place(id: &str) -> (u64, u64) {
    let (time, number) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// All that the stream ever had, but for what a failover has lost.
#[derive(Default)]
pub(crate) struct Copy {
    pub(crate) events: Vec<Event>,
    /// What is no event of presence.
    pub(crate) odd: Vec<String>,
    /// Events that a master took and lost.
    pub(crate) void: usize,
    url: String,
    /// The last entry that was read.
    last: String,
    /// Events before the stream was deleted last.
    deleted: usize,
}

impl Copy {
    fn add(&mut self, entries: Vec<(String, Vec<(String, String)>)>) {
        for (id, fields) in entries {
            match Event::parse(&id, &fields) {
                Ok(event) => self.events.push(event),
                Err(what) => self.odd.push(what),
            }
            self.last = id;
        }
    }

    /// The id of the last entry that was read.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    pub(crate) fn connection(&self) -> RedisResult<Connection> {
        let connection = redis::Client::open(&*self.url)?.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }

    /// Reads what is new. Returns whether that was all.
    fn read(&mut self, connection: &mut Connection) -> RedisResult<bool> {
        type Page = Vec<(String, Vec<(String, Vec<(String, String)>)>)>;
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT")
            .arg(PAGE)
            .arg("STREAMS")
            .arg(STREAM)
            .arg(&self.last);
        let page: Option<Page> = read.query(connection)?;
        let entries: Vec<_> = page.into_iter().flatten().flat_map(|(_, it)| it).collect();
        let all = entries.len() < PAGE;
        self.add(entries);
        Ok(all)
    }

    /// Another server has taken over, with what it has of the stream: what came after is lost.
    pub(crate) fn move_to(&mut self, url: String) {
        self.url = url;
        let mut connection = self.connection().expect("the new master");
        let mut last = redis::cmd("XREVRANGE");
        last.arg(STREAM).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<(String, redis::Value)> = last.query(&mut connection).expect("a stream");
        let last = last.into_iter().next().map_or("0-0".to_owned(), |it| it.0);
        let deleted = self.deleted;
        let kept = self.events[deleted..].partition_point(|it| place(&it.id) <= place(&last));
        let kept = deleted + kept;
        self.void += self.events.len() - kept;
        self.events.truncate(kept);
        self.last = match kept > deleted {
            true => self.events[kept - 1].id.clone(),
            false => "0-0".to_owned(),
        };
    }
}

/// Keeps the copy, on a thread of its own.
pub(crate) struct Scribe {
    copy: Arc<Mutex<Copy>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scribe {
    pub(crate) fn begin(url: String) -> Self {
        let copy = Copy {
            url,
            last: "0-0".to_owned(),
            ..Copy::default()
        };
        let (copy, stop) = (Arc::new(Mutex::new(copy)), Arc::new(AtomicBool::new(false)));
        let (shared, end) = (Arc::clone(&copy), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut connection: Option<(String, Connection)> = None;
            while !end.load(Ordering::Relaxed) {
                {
                    let mut copy = shared.lock().unwrap_or_else(|it| it.into_inner());
                    let known = connection.take().filter(|(url, _)| *url == copy.url);
                    let open = || Some((copy.url.clone(), copy.connection().ok()?));
                    connection = known.or_else(open);
                    if let Some((_, open)) = &mut connection
                        && copy.read(open).is_err()
                    {
                        connection = None;
                    }
                }
                thread::sleep(PAUSE);
            }
        });
        Self {
            copy,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn copy(&self) -> MutexGuard<'_, Copy> {
        self.copy.lock().unwrap_or_else(|it| it.into_inner())
    }

    /// Reads to the end of the stream, and does something to it in the very moment.
    pub(crate) fn read_and(&self, command: &[&str]) -> RedisResult<()> {
        let mut copy = self.copy();
        let mut connection = copy.connection()?;
        while !copy.read(&mut connection)? {}
        let mut both = redis::pipe();
        both.atomic().cmd("XRANGE").arg(STREAM);
        both.arg(format!("({}", copy.last)).arg("+");
        both.cmd(command[0]).arg(&command[1..]);
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let (entries, _): (Entries, redis::Value) = both.query(&mut connection)?;
        copy.add(entries);
        if command[0] == "DEL" {
            copy.last = "0-0".to_owned();
            copy.deleted = copy.events.len();
        }
        Ok(())
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
