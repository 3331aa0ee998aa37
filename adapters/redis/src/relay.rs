//! From a log to its stream: every event, once, in order, whatever becomes of Redis.
//!
//! Redis itself keeps how far a producer has come, in the same script that appends. So whoever is unsure
//! (an answer was lost, Redis was restarted, this process was killed) asks and goes on from there.

use std::sync::Arc;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};
use rollcall_domain::ports::{EventLog, LogError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::script::Target;
use crate::{BadUrl, Config, client, connect, jittered};

/// The relay of all logs, ready to run.
pub struct Relay {
    client: Client,
    config: Config,
}

impl Relay {
    /// # Errors
    /// The address of Redis makes no sense. Whether Redis is there is not asked.
    pub fn new(config: Config) -> Result<Self, BadUrl> {
        Ok(Self {
            client: client(&config.url)?,
            config,
        })
    }

    /// Relays `logs` until `stop` is true and what they hold has been relayed, or `drain_timeout` is over.
    pub async fn run(self, logs: Vec<Arc<dyn EventLog>>, stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for log in logs {
            let (client, config, stop) = (self.client.clone(), self.config.clone(), stop.clone());
            tasks.spawn(Loop::new(client, config, log).run(stop));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a relay has failed");
            }
        }
    }
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("redis does not answer as it should")]
    Redis(#[from] RedisError),
    #[error("redis refuses events: {0}")]
    Refused(String),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Trouble {
    /// The label of the counter.
    fn kind(&self) -> String {
        match self {
            Self::Redis(error) => error.category().to_owned(),
            Self::Refused(failure) => failure.split(' ').next().unwrap_or_default().to_owned(),
            Self::Log(_) => "log".to_owned(),
        }
    }
}

/// One log on its way to one stream.
struct Loop {
    client: Client,
    config: Config,
    log: Arc<dyn EventLog>,
    metrics: Metrics,
}

struct Metrics {
    stream: &'static str,
    relayed: Counter,
    missing: Counter,
    lag: Gauge,
    up: Gauge,
}

impl Loop {
    fn new(client: Client, config: Config, log: Arc<dyn EventLog>) -> Self {
        let stream = log.stream().as_str();
        describe();
        let metrics = Metrics {
            stream,
            relayed: counter!("rollcall_relay_events_total", "stream" => stream),
            missing: counter!("rollcall_relay_events_missing_total", "stream" => stream),
            lag: gauge!("rollcall_relay_lag_events", "stream" => stream),
            up: gauge!("rollcall_relay_up", "stream" => stream),
        };
        Self {
            client,
            config,
            log,
            metrics,
        }
    }

    async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut pause = self.config.retry_min;
        let mut down = false;
        let deadline = {
            let (mut stop, limit) = (stop.clone(), self.config.drain_timeout);
            async move {
                let _ = stop.wait_for(|stop| *stop).await;
                tokio::time::sleep(limit).await;
            }
        };
        tokio::pin!(deadline);
        loop {
            let begin = Instant::now();
            let trouble = tokio::select! {
                () = &mut deadline => break,
                ended = self.relay(&mut stop, &mut down) => match ended {
                    Ok(()) => return,
                    Err(trouble) => trouble,
                },
            };
            self.metrics.up.set(0.0);
            let labels = [
                ("stream", self.metrics.stream.to_owned()),
                ("kind", trouble.kind()),
            ];
            counter!("rollcall_relay_failures_total", &labels).increment(1);
            if !std::mem::replace(&mut down, true) {
                let (stream, redis) = (self.metrics.stream, &self.config.url);
                let error = &trouble as &dyn std::error::Error;
                tracing::warn!(stream, %redis, error, "cannot relay; events wait in the journal");
            }
            if begin.elapsed() > self.config.retry_max {
                pause = self.config.retry_min;
            }
            tokio::select! {
                () = &mut deadline => break,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(self.config.retry_max);
        }
        let events = self.log.last().saturating_sub(self.log.relayed());
        tracing::warn!(
            stream = self.metrics.stream,
            events,
            "stopped; they go out after the next start"
        );
    }

    /// Relays over one connection. Returns when told to stop and all is relayed.
    async fn relay(
        &self,
        stop: &mut watch::Receiver<bool>,
        down: &mut bool,
    ) -> Result<(), Trouble> {
        let config = &self.config;
        let timeout = Some(config.response_timeout);
        let mut redis = connect(&self.client, config.connect_timeout, timeout).await?;
        let producer = self.log.producer().to_string();
        let stream = self.metrics.stream;
        let mut target = Target::new(&config.prefix, stream, producer, config.max_stream_length);
        target.load(&mut redis).await?;
        let mut position = self.find_position(&mut target, &mut redis).await?;
        loop {
            self.metrics
                .lag
                .set(self.log.last().saturating_sub(position) as f64);
            let entries = self
                .log
                .read(position, config.batch * config.pipeline)
                .await?;
            let Some(first) = entries.first() else {
                self.metrics.up.set(1.0);
                if std::mem::take(down) {
                    tracing::info!(stream, "redis is back; all events are relayed");
                }
                if *stop.borrow() && self.log.last() <= position {
                    return Ok(());
                }
                tokio::select! {
                    () = self.log.wait(position) => {}
                    _ = stop.wait_for(|stop| *stop), if !*stop.borrow() => {}
                }
                continue;
            };
            let missing = first.position - position - 1;
            if missing > 0 {
                self.metrics.missing.increment(missing);
                tracing::warn!(
                    stream,
                    missing,
                    "events are neither in the journal nor in the stream"
                );
            }
            let last = entries.last().map_or(position, |entry| entry.position);
            let count = entries.len() as u64;
            let reports = target
                .append(&mut redis, position, &entries, config.batch)
                .await?;
            let reached = reports.last().map_or(position, |report| report.position);
            if let Some(report) = reports
                .into_iter()
                .find(|report| !report.failure.is_empty())
            {
                self.log.set_relayed(reached).await?;
                return Err(Trouble::Refused(report.failure));
            }
            if reached < last {
                tracing::warn!(
                    stream,
                    reached,
                    position,
                    "redis has lost events; they are sent again"
                );
            }
            self.metrics
                .relayed
                .increment(if reached == last { count } else { 0 });
            position = reached;
            self.log.set_relayed(position).await?;
        }
    }

    /// Where to go on: after what Redis has of this log.
    async fn find_position(
        &self,
        target: &mut Target,
        redis: &mut MultiplexedConnection,
    ) -> Result<u64, Trouble> {
        let stream = self.metrics.stream;
        let known = target.position(redis).await?;
        let relayed = self.log.relayed();
        if known > self.log.last() {
            // The log is older than what it has sent: a copy was put back. Its next events are new ones.
            tracing::warn!(
                stream,
                known,
                last = self.log.last(),
                "the journal was put back in time"
            );
            target.producer = self.log.renew_producer().await?.to_string();
            target.set_position(redis, relayed).await?;
            return Ok(relayed);
        }
        if known < relayed {
            tracing::warn!(
                stream,
                known,
                relayed,
                "redis has lost events; they are sent again"
            );
        }
        self.log.set_relayed(known).await?;
        Ok(known)
    }
}

fn describe() {
    describe_counter!("rollcall_relay_events_total", "Events appended to a stream");
    describe_counter!(
        "rollcall_relay_events_missing_total",
        "Events that were dropped from the journal before they were in the stream"
    );
    describe_counter!(
        "rollcall_relay_failures_total",
        "Failures of the relay, by kind"
    );
    describe_gauge!(
        "rollcall_relay_lag_events",
        "Events that are not in the stream yet"
    );
    describe_gauge!(
        "rollcall_relay_up",
        "1 if all events were relayed when last looked at, else 0"
    );
}
