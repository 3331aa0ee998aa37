//! The roll of all instances on a Redis, and what changes from there on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rollcall_domain::attendance::{
    Attendance, Attendee, Happened, LastSeen, News, Register, Watch,
};
use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_domain::refusal::Refusal;
use tokio::sync::OnceCell;

use crate::roll::{Row, View, ViewError, view};
use crate::seen::seen;
use crate::stream::{Reader, StreamEntry, place};
use crate::{BadUrl, Url, jittered};

/// The pause after Redis did not answer; doubled after each further time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What every entry comes after.
const BEGINNING: &str = "0-0";

/// A stream of presence and its roll. Ids are those of entries.
#[derive(Clone)]
pub struct Shared {
    url: Url,
    prefix: String,
    readings: Arc<Readings>,
}

/// A large roll takes memory, and Redis time: it is read once at a time, and whoever asks meanwhile shares the next reading.
#[derive(Default)]
struct Readings {
    turn: tokio::sync::Mutex<()>,
    next: Mutex<Arc<OnceCell<Reading>>>,
}

type Reading = Result<Arc<Register>, Arc<ViewError>>;

impl Shared {
    /// # Errors
    /// The address of Redis makes no sense. Whether Redis is there is not asked.
    pub fn new(url: &Url, prefix: &str) -> Result<Self, BadUrl> {
        crate::connect::Client::open(url)?;
        Ok(Self {
            url: url.clone(),
            prefix: prefix.to_owned(),
            readings: Arc::default(),
        })
    }

    async fn read_register(&self) -> Reading {
        let next = || self.readings.next.lock().expect("invariant: no panic");
        let reading = Arc::clone(&next());
        let read = async {
            let _turn = self.readings.turn.lock().await;
            // What is read from here on is too old for whoever asks later.
            *next() = Arc::default();
            match view(&self.url, &self.prefix).await {
                // Nothing has happened yet.
                Err(ViewError::NoStream(_)) => Ok(Arc::new(Register {
                    at: BEGINNING.to_owned(),
                    ..Register::default()
                })),
                view => view.map(|it| Arc::new(register(it))).map_err(Arc::new),
            }
        };
        reading.get_or_init(|| read).await.clone()
    }

    fn reader(&self, after: &str) -> Reader {
        let stream = format!("{}.mqtt", self.prefix);
        let reader = Reader::after(&self.url, stream, after.to_owned());
        reader.expect("invariant: the address was checked")
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Refusal {
    Refusal::Unavailable {
        what: "redis",
        source: Box::new(error),
    }
}

fn attendee((session_id, row): (String, Row)) -> Attendee {
    Attendee {
        session_id,
        thing_id: row.thing_id,
        instance: row.instance,
        client_id: row.client_id,
        protocol: row.protocol,
        peer: row.peer,
        since: Timestamp(row.since.parse().unwrap_or(0)),
    }
}

fn register(view: View) -> Register {
    let counts = view.parts.iter();
    let instances = counts.map(|part| (part.instance.clone(), part.rows.len() as u64));
    let instances = instances.collect();
    let rows = view.parts.into_iter().flat_map(|part| part.rows);
    let mut sessions: Vec<Attendee> = rows.map(attendee).collect();
    sessions.sort_unstable_by(|a, b| (a.since, &a.session_id).cmp(&(b.since, &b.session_id)));
    Register {
        at: view.last,
        sessions,
        instances,
    }
}

#[async_trait]
impl Attendance for Shared {
    async fn register(&self) -> Result<Arc<Register>, Refusal> {
        self.read_register().await.map_err(unavailable)
    }

    async fn last_seen(&self, thing: ThingId) -> Result<LastSeen, Refusal> {
        let seen = seen(&self.url, &self.prefix, &thing.to_string()).await;
        let seen = seen.map_err(unavailable)?;
        Ok(LastSeen {
            sessions: seen.sessions.into_iter().map(attendee).collect(),
            left: seen.left,
        })
    }

    async fn watch(&self, after: Option<&str>) -> Result<Box<dyn Watch>, Refusal> {
        let number = |text: &str| text.parse::<u64>().is_ok();
        let is_id = |id: &str| {
            id.split_once('-')
                .is_some_and(|(a, b)| number(a) && number(b))
        };
        if !after.is_none_or(is_id) {
            return Err(Refusal::invalid(
                "after",
                "the id of an entry is expected, such as 1693312937469-0",
            ));
        }
        // Nobody is to wait for a Redis that is not there, or lets nobody in.
        let register = match after {
            Some(_) => None,
            None => Some(self.read_register().await.map_err(unavailable)?),
        };
        Ok(Box::new(Follow {
            shared: self.clone(),
            reader: self.reader(after.unwrap_or(BEGINNING)),
            register,
            told: after.map(ToOwned::to_owned),
            found: None,
            pause: SHORTEST_PAUSE,
        }))
    }
}

/// Reads on, as long as the last entry that was told is still there. If not, entries were trimmed, or the stream is
/// another one than it was (flushed, or that of a replica which had not got all): the register is told in place of them.
struct Follow {
    shared: Shared,
    reader: Reader,
    /// What was read to begin with.
    register: Option<Arc<Register>>,
    /// The last entry that was told; none if the register is next.
    told: Option<String>,
    /// What comes behind it, yet to be told.
    found: Option<Vec<StreamEntry>>,
    pause: Duration,
}

impl Follow {
    async fn try_next(&mut self) -> Result<Option<News>, Arc<ViewError>> {
        let failed = |error| Arc::new(ViewError::Redis(self.shared.url.clone(), error));
        let Some(told) = &self.told else {
            let register = match self.register.take() {
                Some(register) => register,
                None => self.shared.read_register().await?,
            };
            self.reader = self.shared.reader(&register.at);
            self.told = Some(register.at.clone());
            self.found = None;
            return Ok(Some(News::Register(register)));
        };
        if self.found.is_none() {
            self.found = Some(self.reader.follow().await.map_err(failed)?);
        }
        let is_there =
            place(told) == (0, 0) || self.reader.has_entry(told).await.map_err(failed)?;
        let found = self.found.take().unwrap_or_default();
        if !is_there {
            self.told = None;
            return Ok(None);
        }
        let Some(last) = found.last() else {
            return Ok(None);
        };
        self.told = Some(last.id.clone());
        let events = found
            .into_iter()
            .map(|StreamEntry { id, fields }| Happened { id, fields });
        Ok(Some(News::Events(events.collect())))
    }
}

#[async_trait]
impl Watch for Follow {
    async fn next(&mut self) -> News {
        loop {
            match self.try_next().await {
                Ok(news) => {
                    self.pause = SHORTEST_PAUSE;
                    if let Some(news) = news {
                        return news;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "who watches presence waits for redis");
                    tokio::time::sleep(jittered(self.pause)).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
