//! Reads a stream as one consumer of a group, right behind the last entry that had its effect.
//!
//! Where that is, the reader's database knows; the group is told whenever a connection is made, so it makes no
//! difference what became of the group or of what was delivered and not acknowledged: whatever has had its effect is
//! acknowledged, and everything behind it comes again, in order. Entries that somebody else was given meanwhile are
//! missed, and asked for.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use rollcall_domain::event::Stream;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::ports::{EventSource, LogError, Sourced};

use crate::connect::Client;
use crate::stream::{RawEntries, StreamEntry, entries, place};
use crate::{BadUrl, Config};

/// Entries of one reply.
const PAGE: usize = 100;
/// How long Redis holds a request that finds nothing new.
const BLOCK: Duration = Duration::from_secs(2);
/// Who is the first to hear begins so long before: clocks differ.
const BEFORE: Duration = Duration::from_secs(60);
/// How long others of the group have for what they were given.
const PATIENCE: Duration = Duration::from_millis(100);

pub struct GroupSource {
    client: Client,
    config: Config,
    stream: String,
    group: String,
    consumer: String,
    name: String,
    connection: Option<MultiplexedConnection>,
}

impl GroupSource {
    /// # Errors
    /// The address of Redis makes no sense. Whether Redis is there is not asked.
    pub fn new(
        config: Config,
        stream: Stream,
        group: String,
        consumer: String,
    ) -> Result<Self, BadUrl> {
        let stream = format!("{}.{}", config.prefix, stream.as_str());
        Ok(Self {
            client: Client::open(&config.url)?,
            name: format!("{group} {stream}"),
            config,
            stream,
            group,
            consumer,
            connection: None,
        })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let (connect, response) = (self.config.connect_timeout, self.config.response_timeout);
        let patience = Some(response + BLOCK);
        self.client.connect(&self.stream, connect, patience).await
    }

    /// Has the group go on behind `after`. No if the stream ends before that: it is another one.
    async fn open(
        &self,
        redis: &mut MultiplexedConnection,
        after: &str,
    ) -> Result<bool, RedisError> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group);
        create.arg(after).arg("MKSTREAM");
        match create.query_async::<()>(redis).await {
            Err(error) if error.code() == Some("BUSYGROUP") => {
                let mut set = redis::cmd("XGROUP");
                set.arg("SETID").arg(&self.stream).arg(&self.group);
                set.arg(after).query_async::<()>(redis).await?;
            }
            created => created?,
        }
        self.acknowledge_heard(redis, after).await?;
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(&self.stream);
        let info: HashMap<String, Value> = info.query_async(redis).await?;
        let last: Option<String> = match info.get("last-generated-id") {
            Some(id) => redis::from_redis_value(id.clone()).ok(),
            None => None,
        };
        Ok(last.is_none_or(|last| place(&last) >= place(after)))
    }

    /// Acknowledges what was delivered, to whomever, and has had its effect.
    async fn acknowledge_heard(
        &self,
        redis: &mut MultiplexedConnection,
        after: &str,
    ) -> Result<(), RedisError> {
        loop {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(&self.stream).arg(&self.group).arg("-");
            pending.arg(after).arg(PAGE);
            type Pending = Vec<(String, String, u64, u64)>;
            let heard: Pending = pending.query_async(redis).await?;
            if heard.is_empty() {
                return Ok(());
            }
            let ids: Vec<String> = heard.into_iter().map(|(id, ..)| id).collect();
            self.acknowledge(&ids).query_async::<()>(redis).await?;
        }
    }

    fn acknowledge(&self, ids: &[String]) -> Cmd {
        let mut command = redis::cmd("XACK");
        command.arg(&self.stream).arg(&self.group).arg(ids);
        command
    }

    async fn deliver(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<Vec<StreamEntry>, RedisError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer);
        read.arg("COUNT").arg(PAGE);
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.stream).arg(">");
        let reply: Option<Vec<(String, RawEntries)>> = read.query_async(redis).await?;
        let pages = reply.into_iter().flatten();
        Ok(pages.flat_map(|(_, page)| entries(page)).collect())
    }

    /// Whether there are entries between `after` and `id`.
    async fn is_gap(
        &self,
        redis: &mut MultiplexedConnection,
        after: &str,
        id: &str,
    ) -> Result<bool, RedisError> {
        let (time, number) = place(id);
        let before = match number {
            0 => format!("{}-{}", time.saturating_sub(1), u64::MAX),
            _ => format!("{time}-{}", number - 1),
        };
        let mut look = redis::cmd("XREVRANGE");
        look.arg(&self.stream).arg(before).arg("-");
        let found: RawEntries = look.arg("COUNT").arg(1).query_async(redis).await?;
        Ok(found
            .first()
            .is_some_and(|(before, _)| place(before) > place(after)))
    }

    async fn next(
        &self,
        redis: &mut MultiplexedConnection,
        after: &str,
    ) -> Result<Sourced, RedisError> {
        let delivered = match self.deliver(redis).await {
            // Somebody has removed the group, or the stream and the group with it.
            Err(error) if matches!(error.code(), Some("NOGROUP" | "UNBLOCKED")) => {
                return self.again(redis, after).await;
            }
            delivered => delivered?,
        };
        let (heard, fresh): (Vec<_>, Vec<_>) = delivered
            .into_iter()
            .partition(|entry| place(&entry.id) <= place(after));
        if !heard.is_empty() {
            let ids: Vec<String> = heard.into_iter().map(|entry| entry.id).collect();
            self.acknowledge(&ids).query_async::<()>(redis).await?;
        }
        let Some(first) = fresh.first() else {
            return Ok(Sourced::Entries(Vec::new()));
        };
        if self.is_gap(redis, after, &first.id).await? {
            tokio::time::sleep(PATIENCE).await;
            return self.again(redis, after).await;
        }
        let fresh = fresh.into_iter().map(|entry| (entry.id, entry.fields));
        Ok(Sourced::Entries(fresh.collect()))
    }

    async fn again(
        &self,
        redis: &mut MultiplexedConnection,
        after: &str,
    ) -> Result<Sourced, RedisError> {
        Ok(match self.open(redis, after).await? {
            true => Sourced::Entries(Vec::new()),
            false => Sourced::Anew("0-0".to_owned()),
        })
    }
}

#[async_trait]
impl EventSource for GroupSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn beginning(&self) -> String {
        let milliseconds = Timestamp::now().0 / 1_000_000;
        format!("{}-0", milliseconds - BEFORE.as_millis() as u64)
    }

    async fn read(&mut self, after: &str) -> Result<Sourced, LogError> {
        let read = async {
            match self.connection.take() {
                Some(mut redis) => {
                    let next = self.next(&mut redis, after).await?;
                    Ok((redis, next))
                }
                None => {
                    let mut redis = self.connect().await?;
                    let next = self.again(&mut redis, after).await?;
                    Ok((redis, next))
                }
            }
        };
        let (redis, sourced) = read.await.map_err(failed("read"))?;
        self.connection = Some(redis);
        Ok(sourced)
    }

    async fn done(&mut self, ids: &[String]) -> Result<(), LogError> {
        let Some(mut redis) = self.connection.take() else {
            // What is not acknowledged now is when there is a connection again.
            return Ok(());
        };
        let done = self.acknowledge(ids).query_async::<()>(&mut redis).await;
        done.map_err(failed("acknowledge"))?;
        self.connection = Some(redis);
        Ok(())
    }
}

fn failed(doing: &'static str) -> impl Fn(RedisError) -> LogError {
    move |error| LogError {
        doing,
        source: Box::new(error),
    }
}
