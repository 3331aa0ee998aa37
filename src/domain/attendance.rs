//! Who is online on all instances that share a stream of presence: to be looked at, counted, and followed from there.

mod here;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use crate::event::Fields;
use crate::identity::{ChannelId, ThingId, Timestamp};
use crate::refusal::Refusal;
use crate::things::Things;

pub use here::Here;

/// Watches at one time: each holds a connection to Redis.
pub const MAX_WATCHES: usize = 64;

/// A session on the roll, as its instance wrote it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attendee {
    pub session_id: String,
    pub thing_id: String,
    pub instance: String,
    pub client_id: String,
    pub protocol: String,
    pub peer: String,
    /// The `occurred_at` of its connect.
    pub since: Timestamp,
}

/// All who are online, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// The id of the event that it is as of: what comes after it is news.
    pub at: String,
    /// The earliest first.
    pub sessions: Vec<Attendee>,
    /// How many each instance has, which may be none.
    pub instances: BTreeMap<String, u64>,
}

/// What is known of a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastSeen {
    /// Where it is online, on whatever instance.
    pub sessions: Vec<Attendee>,
    /// Its last disconnect, if that is remembered.
    pub left: Option<Left>,
}

/// The last disconnect of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The id of the event, which may be there no longer.
    pub id: String,
    pub at: Timestamp,
    pub instance: String,
}

/// An event of presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub id: String,
    pub fields: Fields,
}

/// What comes of a watch.
#[derive(Debug)]
pub enum News {
    /// In place of all that was known: the first, and whenever events may have been missed, or be told again.
    Register(Arc<Register>),
    /// What happened after what was known.
    Events(Vec<Happened>),
}

/// Where the roll of all instances is.
#[async_trait]
pub trait Attendance: Send + Sync {
    async fn register(&self) -> Result<Arc<Register>, Refusal>;

    async fn last_seen(&self, thing: ThingId) -> Result<LastSeen, Refusal>;

    /// Follows what happens after the event of this id, or from the register on.
    async fn watch(&self, after: Option<&str>) -> Result<Box<dyn Watch>, Refusal>;
}

/// Events as they come.
#[async_trait]
pub trait Watch: Send {
    /// Waits for what is next, also while nobody can be asked. Cancelling loses nothing.
    async fn next(&mut self) -> News;
}

/// How many are online.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub at: String,
    pub sessions: u64,
    pub things: u64,
    pub instances: BTreeMap<String, u64>,
    /// Most things first.
    pub channels: Vec<ChannelCount>,
}

/// How many of a channel are online: things that may publish or subscribe there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelCount {
    pub channel: ChannelId,
    pub things: u64,
    pub sessions: u64,
}

/// What edges show of presence.
#[derive(Clone)]
pub struct Overview {
    attendance: Arc<dyn Attendance>,
    /// Who knows which things a channel has.
    things: Option<Arc<Things>>,
    watches: Arc<AtomicUsize>,
}

impl Overview {
    #[must_use]
    pub fn new(attendance: Arc<dyn Attendance>, things: Option<Arc<Things>>) -> Self {
        Self {
            attendance,
            things,
            watches: Arc::default(),
        }
    }

    /// A page of who is online, of one instance or one thing if they are named, and how many they are in all.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn list(
        &self,
        instance: Option<&str>,
        thing: Option<ThingId>,
        offset: u64,
        limit: u64,
    ) -> Result<(Register, u64), Refusal> {
        let register = self.attendance.register().await?;
        let thing = thing.map(|it| it.to_string());
        let wanted = register.sessions.iter().filter(|it| {
            instance.is_none_or(|wanted| it.instance == wanted)
                && thing.as_ref().is_none_or(|wanted| it.thing_id == *wanted)
        });
        let number = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
        let page = wanted.clone().skip(number(offset)).take(number(limit));
        let page = Register {
            at: register.at.clone(),
            sessions: page.cloned().collect(),
            instances: register.instances.clone(),
        };
        Ok((page, wanted.count() as u64))
    }

    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn last_seen(&self, thing: ThingId) -> Result<LastSeen, Refusal> {
        self.attendance.last_seen(thing).await
    }

    /// Counts by instance, and by channel if that is wanted.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]; [`Refusal::Invalid`] if channels are not known here.
    pub async fn count(&self, by_channel: bool) -> Result<Counts, Refusal> {
        let things = match &self.things {
            Some(things) if by_channel => Some(things),
            None if by_channel => {
                let reason = "channels are known where the things service is: ask there (--server, http.listen)";
                return Err(Refusal::invalid("by_channel", reason));
            }
            _ => None,
        };
        let register = self.attendance.register().await?;
        let mut online: HashMap<&str, u64> = HashMap::new();
        for it in &register.sessions {
            *online.entry(&it.thing_id).or_default() += 1;
        }
        let mut counts = Counts {
            sessions: register.sessions.len() as u64,
            things: online.len() as u64,
            ..Counts::default()
        };
        if let Some(things) = things {
            // What is no id is on the roll by somebody else's hand.
            let known = online.iter().filter_map(|(id, sessions)| {
                let id: ThingId = id.parse().ok()?;
                Some((id, *sessions))
            });
            counts.channels = things.count_by_channel(&known.collect()).await?;
        }
        counts.at.clone_from(&register.at);
        counts.instances.clone_from(&register.instances);
        Ok(counts)
    }

    /// Follows what happens after the event of this id, or from the register on.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if [`MAX_WATCHES`] watch already, [`Refusal::Invalid`] if that is no id,
    /// [`Refusal::Unavailable`].
    pub async fn watch(&self, after: Option<&str>) -> Result<Watching, Refusal> {
        let place = Place(Arc::clone(&self.watches));
        if self.watches.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHES {
            return Err(Refusal::Busy);
        }
        let watch = self.attendance.watch(after).await?;
        Ok(Watching {
            watch,
            _place: place,
        })
    }
}

/// One of [`MAX_WATCHES`].
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch that counts among all.
pub struct Watching {
    watch: Box<dyn Watch>,
    _place: Place,
}

impl Watching {
    /// As [`Watch::next`].
    pub async fn next(&mut self) -> News {
        self.watch.next().await
    }
}
