//! From a log to its stream: every event, once, in order, whatever becomes of Redis.
//!
//! Redis itself keeps how far a producer has come, in the same script that appends. So whoever is unsure
//! (an answer was lost, Redis was restarted, this process was killed) asks and goes on from there.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, counter, describe_counter, describe_gauge, gauge};
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use rollcall_domain::ports::{EventLog, LogError};
use rollcall_domain::presence::{Journal, Sessions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::account::Account;
use crate::announce::Presences;
use crate::connect::Client;
use crate::lease::{self, Keeper, Refused};
use crate::oust::Ouster;
use crate::replicas::Replicas;
use crate::script::Services;
use crate::{BadUrl, Config, jittered};

/// How often a relay with nothing to do looks whether Redis has kept what it got.
const TEND: Duration = Duration::from_secs(1);

/// The relay of all logs, ready to run.
pub struct Relay {
    client: Client,
    config: Config,
    presence: Option<(Presences, Keeper)>,
    ouster: Option<Ouster>,
}

impl Relay {
    /// A relay of the logs of services.
    ///
    /// # Errors
    /// The address of Redis makes no sense. Whether Redis is there is not asked.
    pub fn new(config: Config) -> Result<Self, BadUrl> {
        Ok(Self {
            client: Client::open(&config.url)?,
            config,
            presence: None,
            ouster: None,
        })
    }

    /// Relays `journal`, too, whose events are `extended` or not.
    #[must_use]
    pub fn with_presence(
        mut self,
        lease: lease::Config,
        journal: Arc<dyn Journal>,
        extended: bool,
    ) -> Self {
        let (client, config) = (self.client.clone(), self.config.clone());
        let keeper = Keeper::new(client, config, lease, Arc::clone(&journal), extended);
        let presences = Presences::new(self.config.clone(), journal, extended, &keeper);
        self.presence = Some((presences, keeper));
        self
    }

    /// Ends those of `sessions` whose clients are on other instances now, by what Redis says of `journal`.
    #[must_use]
    pub fn with_sessions(mut self, journal: Arc<dyn Journal>, sessions: Arc<dyn Sessions>) -> Self {
        self.ouster = Some(Ouster {
            client: self.client.clone(),
            config: self.config.clone(),
            journal,
            sessions,
        });
        self
    }

    /// Makes sure that no other instance of this name is alive, as far as Redis is there to be asked.
    ///
    /// # Errors
    /// One is.
    pub async fn claim(&self) -> Result<(), Refused> {
        match &self.presence {
            Some((_, keeper)) => keeper.claim().await,
            None => Ok(()),
        }
    }

    /// Relays presence and `logs` until `stop` is true and what they hold has been relayed, or `drain_timeout`
    /// is over.
    ///
    /// # Errors
    /// Another instance of this name is alive, which was found only now. Nothing is relayed any longer.
    pub async fn run(
        self,
        logs: Vec<Arc<dyn EventLog>>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Refused> {
        let Self {
            client,
            config,
            presence,
            ouster,
        } = self;
        let (done, mut is_done) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut keeper = None;
        if let Some((presences, keeps)) = presence {
            tasks.spawn(Loop::new(client.clone(), config.clone(), presences).run(stop.clone()));
            keeper = Some(keeps);
        }
        let keeping = async move {
            match keeper {
                Some(keeper) => keeper.run(is_done).await,
                None => {
                    let _ = is_done.wait_for(|done| *done).await;
                    Ok(())
                }
            }
        };
        for log in logs {
            let services = Services::new(&config, log);
            tasks.spawn(Loop::new(client.clone(), config.clone(), services).run(stop.clone()));
        }
        let relaying = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a relay has failed");
                }
            }
            done.send_replace(true);
            std::future::pending().await
        };
        let ousting = async {
            match ouster {
                Some(ouster) => ouster.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            kept = keeping => kept,
            never = relaying => never,
            never = ousting => match never {},
        }
    }
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("redis does not answer as it should")]
    Redis(#[from] RedisError),
    #[error("redis refuses events: {0}")]
    Refused(String),
    #[error("the epoch of this instance is over")]
    Fenced,
    #[error("redis has lost what it had")]
    Lost,
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Trouble {
    /// The label of the counter.
    fn kind(&self) -> String {
        match self {
            Self::Redis(error) => error.category().to_owned(),
            Self::Refused(failure) => failure.split(' ').next().unwrap_or_default().to_owned(),
            Self::Fenced => "fenced".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::Log(_) => "log".to_owned(),
        }
    }
}

/// How the events of one log get into their stream.
pub(crate) trait Passage: Send {
    fn log(&self) -> &dyn EventLog;

    /// Begins with a new connection. Returns the position up to which the stream has events.
    fn open(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> impl Future<Output = Result<u64, Trouble>> + Send;

    /// Appends some events after `position`; `None` if there are none.
    fn carry(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> impl Future<Output = Result<Option<Carried>, Trouble>> + Send;

    /// Called now and then when there is nothing to carry.
    fn tend(
        &mut self,
        redis: &mut MultiplexedConnection,
        position: u64,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// What became of some events.
pub(crate) struct Carried {
    /// Position of the last one.
    pub(crate) last: u64,
    /// Events before the first that were in the journal no more.
    pub(crate) missing: u64,
    /// Position of the last event that the stream has.
    pub(crate) reached: u64,
    pub(crate) appended: u64,
    /// Why not all were appended, if Redis said so.
    pub(crate) failure: Option<String>,
}

/// One log on its way to one stream.
struct Loop<P> {
    client: Client,
    config: Config,
    passage: P,
    /// The full name of the stream.
    stream: String,
    replicas: Replicas,
    /// When entries were looked for that are too old; never, or not all are dropped yet.
    trimmed: Option<Instant>,
    account: Account,
    metrics: Metrics,
}

struct Metrics {
    stream: &'static str,
    unconfirmed: Gauge,
    up: Gauge,
}

impl<P: Passage> Loop<P> {
    fn new(client: Client, config: Config, passage: P) -> Self {
        let stream = passage.log().stream().as_str();
        describe();
        let name = format!("{}.{stream}", config.prefix);
        let metrics = Metrics {
            stream,
            unconfirmed: gauge!("rollcall_relay_unconfirmed_events", "stream" => stream),
            up: gauge!("rollcall_relay_up", "stream" => stream),
        };
        Self {
            client,
            replicas: Replicas::new(&config, name.clone()),
            stream: name,
            trimmed: None,
            account: Account::open(stream, passage.log().relayed(), passage.log().last()),
            config,
            passage,
            metrics,
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
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
            self.account.wait(self.passage.log().last());
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
            let log = self.passage.log();
            let none_waits = log.last() <= log.relayed();
            tokio::select! {
                () = &mut deadline => break,
                _ = stop.wait_for(|stop| *stop), if none_waits => return,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(self.config.retry_max);
        }
        let log = self.passage.log();
        let events = log.last().saturating_sub(log.relayed());
        tracing::warn!(
            stream = self.metrics.stream,
            events,
            "stopped; they go out after the next start"
        );
    }

    /// Relays over one connection. Returns when told to stop and all is relayed.
    async fn relay(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        down: &mut bool,
    ) -> Result<(), Trouble> {
        let stream = self.metrics.stream;
        let (connect, timeout) = (self.config.connect_timeout, self.config.response_timeout);
        let connection = self.client.connect(&self.stream, connect, Some(timeout));
        let mut redis = connection.await?;
        let mut position = self.passage.open(&mut redis).await?;
        self.account.find(position, self.passage.log().last());
        self.replicas.open(&mut redis).await?;
        loop {
            self.trim(&mut redis).await?;
            let Self {
                passage,
                metrics,
                account,
                ..
            } = self;
            account.wait(passage.log().last());
            let Some(carried) = passage.carry(&mut redis, position).await? else {
                metrics.up.set(1.0);
                if std::mem::take(down) {
                    tracing::info!(stream, "redis is back; all events are relayed");
                }
                if *stop.borrow() && passage.log().last() <= position {
                    return Ok(());
                }
                let idle = tokio::select! {
                    () = passage.log().wait(position) => false,
                    _ = stop.wait_for(|stop| *stop), if !*stop.borrow() => false,
                    () = tokio::time::sleep(TEND) => true,
                };
                if idle {
                    passage.tend(&mut redis, position).await?;
                    self.confirm(&mut redis, position).await?;
                }
                continue;
            };
            account.carry(&carried, passage.log().last());
            let Carried {
                last,
                missing,
                reached,
                ..
            } = carried;
            if missing > 0 {
                tracing::warn!(
                    stream,
                    missing,
                    "events are neither in the journal nor in the stream"
                );
            }
            self.confirm(&mut redis, reached).await?;
            if let Some(failure) = carried.failure {
                return Err(Trouble::Refused(failure));
            }
            if reached < last {
                return Err(Trouble::Lost);
            }
            position = reached;
        }
    }
}

impl<P: Passage> Loop<P> {
    /// Says to the log how far it is relayed: as far as replicas have it, if they are to.
    async fn confirm(
        &mut self,
        redis: &mut MultiplexedConnection,
        reached: u64,
    ) -> Result<(), Trouble> {
        let log = self.passage.log();
        if log.relayed() != reached && self.replicas.have_all(redis).await? {
            log.set_relayed(reached).await?;
        }
        let unconfirmed = reached.saturating_sub(log.relayed());
        self.metrics.unconfirmed.set(unconfirmed as f64);
        Ok(())
    }

    /// Drops entries that are too old, by the clock of Redis, now and then and some at a time.
    async fn trim(&mut self, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
        let age = self.config.max_stream_age;
        let pause = (age / 100).clamp(Duration::from_secs(1), Duration::from_secs(60));
        let is_early = self.trimmed.is_some_and(|at| at.elapsed() < pause);
        if age.is_zero() || is_early {
            return Ok(());
        }
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(redis).await?;
        let oldest = Duration::from_secs(seconds).saturating_sub(age).as_millis() as u64;
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&self.stream).arg("MINID").arg("~").arg(oldest);
        let dropped: u64 = trim.query_async(redis).await?;
        // Redis does not drop very many at once.
        self.trimmed = (dropped == 0).then(Instant::now);
        Ok(())
    }
}

fn describe() {
    describe_counter!(
        "rollcall_relay_failures_total",
        "Failures of the relay, by kind"
    );
    describe_gauge!(
        "rollcall_relay_unconfirmed_events",
        "Events in a stream that too few replicas have: redis.wait_replicas"
    );
    describe_gauge!(
        "rollcall_relay_up",
        "1 if all events were relayed when last looked at, else 0"
    );
}
