//! Reads events where everybody else does: in the stream.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use rollcall_domain::event::Fields;

use crate::connect::Client;
use crate::{BadUrl, Url};

/// Entries of one reply.
const PAGE: usize = 500;
/// How long Redis holds a request that finds nothing new.
const BLOCK: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one stream from a place on.
pub struct Reader {
    client: Client,
    connection: Option<MultiplexedConnection>,
    stream: String,
    /// The id of the last entry that was read.
    last: String,
}

/// Entries as Redis sends them: id, and the bytes of fields and values.
pub(crate) type RawEntries = Vec<(String, Vec<(Vec<u8>, Vec<u8>)>)>;

/// An entry of a stream.
#[derive(Debug)]
pub struct StreamEntry {
    pub id: String,
    pub fields: Fields,
}

pub(crate) fn entries(raw: RawEntries) -> impl Iterator<Item = StreamEntry> {
    raw.into_iter().map(|(id, fields)| {
        // Others may write there what is no text.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned().into();
        let fields = fields.into_iter();
        let fields = fields.map(|(name, value)| (text(name), text(value)));
        StreamEntry {
            id,
            fields: fields.collect(),
        }
    })
}

/// The two numbers of the id of an entry: later entries have greater ones.
#[must_use]
pub fn place(id: &str) -> (u64, u64) {
    let (time, number) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

impl Reader {
    /// Reads `stream` (its full name) from `since` on: milliseconds since the Unix epoch, 0 for all.
    ///
    /// # Errors
    /// The address makes no sense.
    pub fn new(url: &Url, stream: String, since: u64) -> Result<Self, BadUrl> {
        let last = match since {
            0 => "0-0".to_owned(),
            since => format!("{}-{}", since - 1, u64::MAX),
        };
        Ok(Self {
            client: Client::open(url)?,
            connection: None,
            stream,
            last,
        })
    }

    /// Reads `stream` (its full name) from behind the entry with this id on.
    ///
    /// # Errors
    /// The address makes no sense.
    pub fn after(url: &Url, stream: String, id: String) -> Result<Self, BadUrl> {
        Ok(Self {
            client: Client::open(url)?,
            connection: None,
            stream,
            last: id,
        })
    }

    /// The id of the last entry that was read.
    #[must_use]
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Whether entries of the stream were deleted, or may have been: Redis before 7 does not tell. No if there
    /// is no stream.
    ///
    /// # Errors
    /// As of [`Reader::next`].
    pub async fn has_lost_entries(&mut self) -> Result<bool, RedisError> {
        let mut connection = self.take_connection().await?;
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(&self.stream);
        let info: Result<HashMap<String, Value>, _> = info.query_async(&mut connection).await;
        self.connection = Some(connection);
        match info {
            Err(error) if error.to_string().contains("no such key") => Ok(false),
            info => info.map(|info| info.get("entries-added") != info.get("length")),
        }
    }

    /// The next entries; none if there are no more now.
    ///
    /// # Errors
    /// Redis does not answer. The next call connects anew and loses nothing.
    pub async fn next(&mut self) -> Result<Vec<StreamEntry>, RedisError> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT")
            .arg(PAGE)
            .arg("STREAMS")
            .arg(&self.stream)
            .arg(&self.last);
        self.query(read).await
    }

    /// Like [`Reader::next`], but waits some seconds for something new.
    ///
    /// # Errors
    /// As of [`Reader::next`].
    pub async fn follow(&mut self) -> Result<Vec<StreamEntry>, RedisError> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT")
            .arg(PAGE)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.stream).arg(&self.last);
        self.query(read).await
    }

    /// Whether the stream has an entry of this id.
    ///
    /// # Errors
    /// As of [`Reader::next`].
    pub(crate) async fn has_entry(&mut self, id: &str) -> Result<bool, RedisError> {
        let mut connection = self.take_connection().await?;
        let mut find = redis::cmd("XREVRANGE");
        find.arg(&self.stream).arg(id).arg(id);
        let found: RawEntries = find.query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(!found.is_empty())
    }

    async fn take_connection(&mut self) -> Result<MultiplexedConnection, RedisError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let times = (TIMEOUT, Some(TIMEOUT + BLOCK));
                self.client.connect(&self.stream, times.0, times.1).await
            }
        }
    }

    async fn query(&mut self, read: redis::Cmd) -> Result<Vec<StreamEntry>, RedisError> {
        let mut connection = self.take_connection().await?;
        let reply: Option<Vec<(String, RawEntries)>> = read.query_async(&mut connection).await?;
        self.connection = Some(connection);
        let pages = reply.into_iter().flatten();
        let entries: Vec<StreamEntry> = pages.flat_map(|(_, page)| entries(page)).collect();
        if let Some(last) = entries.last() {
            self.last.clone_from(&last.id);
        }
        Ok(entries)
    }
}
