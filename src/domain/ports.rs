//! What the domain asks of the world.

use async_trait::async_trait;

use crate::event::{Entry, Fields, Stream};

pub use crate::presence::{PresenceLog, Roll};
pub use crate::sessions::SessionStore;

/// What came of reading files again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What is as the files say now.
    pub done: Vec<String>,
    /// Why the rest stays as it was.
    pub failed: Vec<String>,
}

/// What can be read again from its files while everything runs: certificates.
pub trait Reload: Send + Sync {
    fn reload(&self) -> Reloaded;
}

/// A durable, ordered log of events that one producer writes and the relay drains.
///
/// Positions start at 1, have no gaps and are never used twice within the life of the producer id.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The stream these events belong to.
    fn stream(&self) -> Stream;

    /// Names the log for good: a random id made with the log, so that a watermark kept elsewhere can
    /// tell this log from one that was restored or made anew.
    fn producer(&self) -> uuid::Uuid;

    /// At most `limit` entries after `position`, oldest first. Entries that the bound of the log has
    /// dropped are skipped: the first position may then be later than `position + 1`.
    async fn read(&self, position: u64, limit: usize) -> Result<Vec<Entry>, LogError>;

    /// The position of the newest entry; 0 if there was none yet.
    fn last(&self) -> u64;

    /// The position up to which entries are known to be in the stream.
    fn relayed(&self) -> u64;

    /// Looks what other processes have done to the log, if there can be any: `last`, `relayed` and `producer` are
    /// no older afterwards than when it was called.
    async fn refresh(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Remembers that everything up to `position` is in the stream, which frees the room it takes.
    /// With a lower position than before, forgets (the stream was found to have lost entries).
    async fn set_relayed(&self, position: u64) -> Result<(), LogError>;

    /// Gives the log a new producer id: its positions no longer continue what the stream knows.
    async fn renew_producer(&self) -> Result<uuid::Uuid, LogError>;

    /// Returns once there is an entry after `position`. Cancelling loses nothing.
    async fn wait(&self, position: u64);
}

/// Events of others, to be heard in their order from a place on. Who hears keeps the id of the last entry that had its
/// effect.
#[async_trait]
pub trait EventSource: Send {
    /// Whose places they are.
    fn name(&self) -> &str;

    /// Behind which entry to begin if nothing was heard yet.
    fn beginning(&self) -> String;

    /// What comes right behind the entry `after`. Waits a while for something new.
    async fn read(&mut self, after: &str) -> Result<Sourced, LogError>;

    /// These have had their effect.
    async fn done(&mut self, ids: &[String]) -> Result<(), LogError>;
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sourced {
    /// Ids and fields; none if there is nothing new for now.
    Entries(Vec<(String, Fields)>),
    /// It was lost, and what is there now has not been heard: go on behind this place.
    Anew(String),
}

/// How far a stream of others was read, kept over restarts.
#[async_trait]
pub trait Cursors: Send + Sync {
    /// The id of the last entry of `stream` that was dealt with.
    async fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError>;

    async fn set_cursor(&self, stream: &str, id: &str) -> Result<(), StoreError>;
}

/// The log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the event log")]
pub struct LogError {
    pub doing: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A change was not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something else has the same unique value.
    #[error("{0} is taken")]
    Taken(&'static str),
    #[error("cannot {doing}")]
    Failed {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
