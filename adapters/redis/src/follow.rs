//! Hears from the things stream what was revoked elsewhere.
//!
//! How far it has read is kept over restarts, some time behind what it has heard: to hear something twice
//! does no harm, since whatever is not fresh is only asked about.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use rollcall_domain::access::{Revocations, Revoked};
use rollcall_domain::event::Stream;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::ports::Cursors;
use rollcall_domain::things;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::stream::{Reader, StreamEntry};
use crate::{BadUrl, Config, jittered};

/// News this old may be outdated: the grant may have been given again since.
const FRESH: Duration = Duration::from_secs(5);
/// A first start also hears what was said this long before: clocks differ, and grants may have been asked for
/// before Redis could be reached.
const BEFORE: Duration = Duration::from_secs(60);
/// What was heard is dealt with so long after all questions about it, so the cursor may be kept.
const SETTLED: Duration = Duration::from_secs(20);

/// Follows the things stream of a Redis.
pub struct Follower {
    config: Config,
    stream: String,
    cursors: Arc<dyn Cursors>,
    revocations: Arc<dyn Revocations>,
    /// Whether what is said there is all there is to know. If not, somebody here knows better.
    trusted: bool,
    settled: Duration,
    metrics: Metrics,
}

struct Metrics {
    revocations: Counter,
    others: Counter,
    failures: Counter,
    up: Gauge,
    lag: Gauge,
}

impl Follower {
    /// `trusted` says that the things service is elsewhere: what the stream says is then taken for true while it
    /// is fresh; otherwise the authority is asked, for `recheck_timeout` at most.
    ///
    /// # Errors
    /// The address of Redis makes no sense. Whether Redis is there is not asked.
    pub fn new(
        config: Config,
        cursors: Arc<dyn Cursors>,
        revocations: Arc<dyn Revocations>,
        trusted: bool,
        recheck_timeout: Duration,
    ) -> Result<Self, BadUrl> {
        crate::connect::Client::open(&config.url)?;
        describe_counter!(
            "rollcall_follow_events_total",
            "Events read from the things stream, by whether they revoke something"
        );
        describe_counter!(
            "rollcall_follow_failures_total",
            "Times the things stream could not be read"
        );
        describe_gauge!(
            "rollcall_follow_up",
            "1 if the things stream could be read when last tried, else 0"
        );
        describe_gauge!(
            "rollcall_follow_lag_seconds",
            "How old the latest event of the things stream was when it was read"
        );
        let events = |kind| counter!("rollcall_follow_events_total", "kind" => kind);
        let metrics = Metrics {
            revocations: events("revocation"),
            others: events("other"),
            failures: counter!("rollcall_follow_failures_total"),
            up: gauge!("rollcall_follow_up"),
            lag: gauge!("rollcall_follow_lag_seconds"),
        };
        let stream = format!("{}.{}", config.prefix, Stream::Things.as_str());
        Ok(Self {
            config,
            stream,
            cursors,
            revocations,
            trusted,
            settled: recheck_timeout + SETTLED,
            metrics,
        })
    }

    /// Follows until `stop` is true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow(&self) {
        let mut reader = self.reader().await;
        let mut pause = self.config.retry_min;
        let mut unsettled: Option<(Instant, String)> = None;
        let (mut up, mut down) = (false, false);
        loop {
            let read = match up {
                true => reader.follow().await,
                // Without waiting: whether Redis is there is known sooner.
                false => reader.next().await,
            };
            up = read.is_ok();
            match read {
                Ok(entries) => {
                    self.metrics.up.set(1.0);
                    pause = self.config.retry_min;
                    if std::mem::take(&mut down) {
                        tracing::info!("revocations are heard again");
                    }
                    if !entries.is_empty() {
                        self.hear(&entries);
                        unsettled.get_or_insert((Instant::now(), reader.last().to_owned()));
                    }
                }
                Err(error) => {
                    self.metrics.up.set(0.0);
                    self.metrics.failures.increment(1);
                    if !std::mem::replace(&mut down, true) {
                        let (redis, error) = (&self.config.url, &error as &dyn std::error::Error);
                        tracing::warn!(%redis, error, "cannot hear of revocations elsewhere");
                    }
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(self.config.retry_max);
                }
            }
            if let Some((_, id)) = unsettled.take_if(|(since, _)| since.elapsed() >= self.settled) {
                self.keep_cursor(&id).await;
            }
        }
    }

    async fn reader(&self) -> Reader {
        let url = &self.config.url;
        let stream = self.stream.clone();
        let cursor = self.cursors.cursor(&stream).await.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot find how far revocations were heard");
            None
        });
        let reader = match cursor {
            Some(id) => Reader::after(url, stream, id),
            None => {
                let milliseconds = Timestamp::now().0 / 1_000_000;
                Reader::new(url, stream, milliseconds - BEFORE.as_millis() as u64)
            }
        };
        let reader = reader.expect("invariant: the address was checked");
        // The next start goes on from here, even if nothing is heard until then.
        self.keep_cursor(reader.last()).await;
        reader
    }

    async fn keep_cursor(&self, id: &str) {
        if let Err(error) = self.cursors.set_cursor(&self.stream, id).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot keep how far revocations were heard");
        }
    }

    fn hear(&self, entries: &[StreamEntry]) {
        let now = Timestamp::now();
        let (mut certain, mut doubtful): (Vec<Revoked>, Vec<Revoked>) = Default::default();
        for entry in entries {
            let Some(revoked) = things::heard(&entry.fields) else {
                continue;
            };
            let at = things::occurred_at(&entry.fields).unwrap_or_default();
            if self.trusted && age(at, now) < FRESH {
                certain.push(revoked);
            } else {
                doubtful.push(revoked);
            }
        }
        if let Some(at) = entries
            .last()
            .and_then(|it| things::occurred_at(&it.fields))
        {
            self.metrics.lag.set(age(at, now).as_secs_f64());
        }
        if !certain.is_empty() {
            self.revocations.revoked(&certain);
        }
        if !doubtful.is_empty() {
            self.revocations.doubted(&doubtful);
        }
        let count = (certain.len() + doubtful.len()) as u64;
        self.metrics.revocations.increment(count);
        self.metrics.others.increment(entries.len() as u64 - count);
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(at.0))
}
