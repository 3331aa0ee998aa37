//! The roll of one instance that shares its stream with nobody: what its journal says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Attendance, Attendee, Happened, LastSeen, Left, News, Register, Watch};
use crate::event::Entry;
use crate::identity::ThingId;
use crate::ports::LogError;
use crate::presence::{Change, Journal, Online};
use crate::refusal::Refusal;

/// Entries that are read at one time.
const PAGE: usize = 500;
/// Things of which it is remembered when they left, at least; those that left last.
const REMEMBERED: usize = 100_000;

/// Ids are positions of the journal.
pub struct Here {
    journal: Arc<dyn Journal>,
    left: Mutex<Leavers>,
}

/// When things left last, up to a position. Once there are many they are put aside, in place of those before.
#[derive(Default)]
struct Leavers {
    position: u64,
    now: HashMap<ThingId, Left>,
    before: HashMap<ThingId, Left>,
}

impl Here {
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            left: Mutex::default(),
        }
    }

    fn attendee(&self, Online { session, since }: &Online) -> Attendee {
        Attendee {
            session_id: session.id.to_string(),
            thing_id: session.thing.to_string(),
            instance: self.journal.instance().to_owned(),
            client_id: session.client_id.to_string(),
            protocol: session.protocol.as_str().to_owned(),
            peer: session.peer.to_string(),
            since: *since,
        }
    }

    fn take_register(&self) -> (u64, Arc<Register>) {
        let snapshot = self.journal.snapshot();
        let online = snapshot.online.iter();
        let sessions: Vec<_> = online.map(|(_, online)| self.attendee(online)).collect();
        let count = sessions.len() as u64;
        let register = Register {
            at: snapshot.position.to_string(),
            sessions,
            instances: [(self.journal.instance().to_owned(), count)].into(),
        };
        (snapshot.position, Arc::new(register))
    }

    /// Reads what was noted since it was last asked.
    async fn catch_up(&self) -> Result<(), LogError> {
        loop {
            let position = self.lock().position;
            let noted = self.journal.read_changes(position, PAGE).await?;
            let Some(last) = noted.last().map(|it| it.position) else {
                return Ok(());
            };
            let mut left = self.lock();
            if left.position != position {
                // Somebody else was faster.
                continue;
            }
            left.position = last;
            for it in noted {
                if let Change::Left(_) = it.presence.change {
                    let last = Left {
                        id: it.position.to_string(),
                        at: it.presence.at,
                        instance: it.instance.to_string(),
                    };
                    left.now.insert(it.presence.session.thing, last);
                }
            }
            if left.now.len() >= REMEMBERED {
                left.before = std::mem::take(&mut left.now);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Leavers> {
        self.left.lock().expect("invariant: nobody panics with it")
    }
}

#[async_trait]
impl Attendance for Here {
    async fn register(&self) -> Result<Arc<Register>, Refusal> {
        Ok(self.take_register().1)
    }

    async fn last_seen(&self, thing: ThingId) -> Result<LastSeen, Refusal> {
        self.catch_up()
            .await
            .map_err(|error| Refusal::Unavailable {
                what: "the journal",
                source: Box::new(error),
            })?;
        let online = self.journal.online_of(thing);
        let left = self.lock();
        Ok(LastSeen {
            sessions: online.iter().map(|it| self.attendee(it)).collect(),
            left: left.now.get(&thing).or(left.before.get(&thing)).cloned(),
        })
    }

    async fn watch(&self, after: Option<&str>) -> Result<Box<dyn Watch>, Refusal> {
        let after = after.map(str::parse).transpose();
        let after =
            after.map_err(|_| Refusal::invalid("after", "the id of an event is expected"))?;
        Ok(Box::new(Follow {
            here: Self::new(Arc::clone(&self.journal)),
            position: after,
        }))
    }
}

struct Follow {
    here: Here,
    /// Of the last event that was told; `None` if the register is to be told.
    position: Option<u64>,
}

impl Follow {
    async fn read(&mut self, position: u64) -> Result<Vec<Entry>, LogError> {
        let journal = &self.here.journal;
        if position <= journal.last() {
            journal.wait(position).await;
        }
        journal.read(position, PAGE).await
    }
}

#[async_trait]
impl Watch for Follow {
    async fn next(&mut self) -> News {
        loop {
            let Some(position) = self.position else {
                let (position, register) = self.here.take_register();
                self.position = Some(position);
                return News::Register(register);
            };
            let entries = self.read(position).await;
            let entries = entries.unwrap_or_default();
            let Some((first, last)) = entries.first().zip(entries.last()) else {
                // Of another journal, or it cannot be read.
                self.position = None;
                continue;
            };
            if first.position > position + 1 {
                // What is in between was dropped.
                self.position = None;
                continue;
            }
            self.position = Some(last.position);
            let events = entries.into_iter().map(|entry| Happened {
                id: entry.position.to_string(),
                fields: entry.fields,
            });
            return News::Events(events.collect());
        }
    }
}
