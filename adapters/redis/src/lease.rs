//! Who may write presence under the name of an instance, and who closes what an instance left that is gone.
//!
//! A lease is a key that Redis lets run out, by its own clock: no other is asked. With it goes an epoch, a word that is
//! never given twice. Every script that writes presence compares it, so whoever was declared gone can no longer
//! write under it, however late it wakes up. Any instance that finds another without a lease but with sessions on the
//! roll ends the epoch of the other and closes these sessions, in steps that each take the state they saw for granted or do
//! nothing: so several may try at once.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use rollcall_domain::identity::Timestamp;
use rollcall_domain::presence::Journal;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::connect::Client;
use crate::roll::{self, Keys, Row};
use crate::script::Script;
use crate::{Config as Redis, jittered};

static ACQUIRE: Script = Script::new(include_str!("acquire.lua"));
static RENEW: Script = Script::new(include_str!("renew.lua"));
static CLOSE: Script = Script::new(concat!(
    include_str!("left.lua"),
    include_str!("clients.lua"),
    include_str!("close.lua")
));

/// How often an instance looks after the others; one of all does so at a time.
const SWEEP: Duration = Duration::from_millis(500);
/// Sessions that are closed in one script call.
const STEP: usize = 256;
/// How long it is remembered of an instance with nobody on the roll when its last event was.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// After its last renewal, a third of this apart, an instance counts as gone.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
}

impl Config {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let sound = Duration::from_millis(500)..=Duration::from_secs(3600);
        (!sound.contains(&self.ttl)).then_some(("lease.ttl", "from 500ms to 1h"))
    }
}

/// The lease that this instance has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: String,
    /// The epoch of this name before.
    pub(crate) before: String,
    pub(crate) producer: Uuid,
}

/// The name, or the journal, is in use elsewhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "another instance named {instance} is alive on this redis, or one with a copy of this journal: {holder}; \
     stop it, or set another `instance` (and begin with an empty data folder)"
)]
pub struct Refused {
    instance: String,
    holder: String,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("redis refuses to close sessions: {0}")]
    Full(String),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Holds the lease of this instance, and looks after the others.
pub(crate) struct Keeper {
    client: Client,
    redis: Redis,
    config: Config,
    extended: bool,
    journal: Arc<dyn Journal>,
    keys: Keys,
    instance: String,
    /// Who this is, to be shown to who wants the same name.
    who: String,
    held: watch::Sender<Held>,
    /// The epoch that someone was told is over.
    doubted: watch::Sender<String>,
    metrics: Metrics,
}

struct Metrics {
    held: Gauge,
    lost: Counter,
    closed: Counter,
}

impl Keeper {
    pub(crate) fn new(
        client: Client,
        redis: Redis,
        config: Config,
        journal: Arc<dyn Journal>,
        extended: bool,
    ) -> Self {
        describe_gauge!("rollcall_lease_held", "1 if this instance has its lease");
        describe_counter!(
            "rollcall_lease_lost_total",
            "Epochs of this instance that others, or the loss of Redis's memory, ended"
        );
        describe_counter!(
            "rollcall_lease_sessions_closed_total",
            "Sessions of other instances, gone for good, that this one closed"
        );
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (host, process) = (host.trim(), std::process::id());
        let since = Timestamp::now().rfc3339();
        Self {
            keys: Keys::new(&redis.prefix),
            instance: journal.instance().to_owned(),
            who: format!("process {process} on host {host}, since {since}"),
            held: watch::Sender::default(),
            doubted: watch::Sender::default(),
            metrics: Metrics {
                held: gauge!("rollcall_lease_held"),
                lost: counter!("rollcall_lease_lost_total"),
                closed: counter!("rollcall_lease_sessions_closed_total"),
            },
            client,
            redis,
            config,
            extended,
            journal,
        }
    }

    /// The lease as it comes and goes; an empty epoch before the first.
    pub(crate) fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// To be told by whoever was told that an epoch is over.
    pub(crate) fn doubted(&self) -> watch::Sender<String> {
        self.doubted.clone()
    }

    /// Takes the lease if Redis is there.
    pub(crate) async fn claim(&self) -> Result<(), Refused> {
        let claimed = async {
            let mut redis = self.connect().await?;
            self.acquire(&mut redis).await
        };
        match claimed.await {
            Ok(_) => Ok(()),
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot take the lease yet");
                Ok(())
            }
        }
    }

    /// Keeps the lease until `stop` is true, then gives it back.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), Refused> {
        let most = self.redis.retry_max.min(self.config.ttl / 6);
        let mut pause = self.redis.retry_min.min(most);
        loop {
            let kept = tokio::select! {
                kept = self.keep(&mut pause) => Some(kept),
                _ = stop.wait_for(|stop| *stop) => None,
            };
            self.metrics.held.set(0.0);
            let Some(kept) = kept else {
                self.give_back().await;
                return Ok(());
            };
            match kept {
                Ok(never) => match never {},
                Err(Trouble::Refused(refused)) => return Err(refused),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "no lease");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                // It runs out.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
            pause = (pause * 2).min(most);
        }
    }

    async fn give_back(&self) {
        let held = self.held.borrow().clone();
        let given = async {
            let mut redis = self.connect().await?;
            self.renew(&mut redis, &held, Duration::ZERO).await
        };
        if let Err(error) = given.await {
            tracing::debug!(%error, "the lease is not given back: it runs out");
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let timeout = Some(self.redis.response_timeout.min(self.config.ttl));
        let connect = self.redis.connect_timeout;
        let mut redis = self
            .client
            .connect(&self.keys.stream, connect, timeout)
            .await?;
        for script in [&ACQUIRE, &RENEW, &CLOSE] {
            script.load(&mut redis).await?;
        }
        Ok(redis)
    }

    /// Keeps the lease over one connection.
    async fn keep(&self, pause: &mut Duration) -> Result<std::convert::Infallible, Trouble> {
        let mut redis = self.connect().await?;
        let mut doubted = self.doubted.subscribe();
        let ttl = self.config.ttl;
        self.ensure(&mut redis).await?;
        *pause = self.redis.retry_min.min(ttl / 6);
        let mut renewed = Instant::now();
        // After a Redis that was away, the others are given the time to come back too.
        let patience = renewed + ttl / 2;
        let mut tick = tokio::time::interval(SWEEP.min(ttl / 6));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut busy = false;
        loop {
            tokio::select! {
                _ = doubted.changed() => {}
                _ = tick.tick(), if !busy => {}
                () = std::future::ready(()), if busy => {}
            }
            let held = self.held.borrow().clone();
            if *doubted.borrow_and_update() == held.epoch
                || held.producer != self.journal.producer()
            {
                self.metrics.lost.increment(1);
                self.acquire(&mut redis).await?;
                renewed = Instant::now();
            } else if renewed.elapsed() + SWEEP.min(ttl / 6) >= ttl / 3 {
                self.ensure(&mut redis).await?;
                renewed = Instant::now();
            }
            self.metrics.held.set(1.0);
            if Instant::now() > patience {
                busy = self.look_after_others(&mut redis, busy).await?;
            }
        }
    }

    /// Renews the lease, or takes it.
    async fn ensure(&self, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
        let held = self.held.borrow().clone();
        if !held.epoch.is_empty() {
            if self.renew(redis, &held, self.config.ttl).await? != 0 {
                return Ok(());
            }
            self.metrics.lost.increment(1);
            tracing::warn!("the epoch of this instance was ended: it begins another");
        }
        self.acquire(redis).await
    }

    /// Takes the lease. Who has it in the meantime is waited for until it is seen to be alive.
    async fn acquire(&self, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
        let mut left = u64::MAX;
        let keys = &self.keys;
        loop {
            let producer = self.journal.producer();
            let run = &Uuid::new_v4().simple().to_string()[..8];
            let mut call = ACQUIRE.call();
            call.arg(5)
                .arg(keys.lease(&self.instance))
                .arg(keys.lease_of_journal(producer))
                .arg(keys.roll())
                .arg(keys.part(&self.instance))
                .arg(keys.record(&self.instance));
            call.arg(&self.instance)
                .arg(producer.to_string())
                .arg(self.journal.place())
                .arg(self.config.ttl.as_millis() as u64)
                .arg(run)
                .arg(Timestamp::now().0)
                .arg(&self.who);
            let (outcome, first, second): (String, String, String) =
                call.query_async(redis).await?;
            match outcome.as_str() {
                "taken" => {
                    let held = Held {
                        epoch: first,
                        before: second,
                        producer,
                    };
                    self.held.send_replace(held);
                    return Ok(());
                }
                "leftover" => {
                    self.close(redis, &self.instance).await?;
                }
                _ => {
                    let now = second.parse().unwrap_or(0);
                    if now > left {
                        return Err(Trouble::Refused(Refused {
                            instance: self.instance.clone(),
                            holder: first,
                        }));
                    }
                    left = now;
                    tokio::time::sleep((self.config.ttl / 20).min(SWEEP)).await;
                }
            }
        }
    }

    /// Renews the lease, or gives it back if `ttl` is zero. Returns 0 if the epoch is over.
    async fn renew(
        &self,
        redis: &mut MultiplexedConnection,
        held: &Held,
        ttl: Duration,
    ) -> Result<u64, RedisError> {
        let keys = &self.keys;
        let mut call = RENEW.call();
        call.arg(5)
            .arg(keys.lease(&self.instance))
            .arg(keys.lease_of_journal(held.producer))
            .arg(keys.roll())
            .arg(keys.part(&self.instance))
            .arg(keys.record(&self.instance));
        let value = format!("{}\n{}\n{}", self.journal.place(), held.epoch, self.who);
        call.arg(&self.instance)
            .arg(&held.epoch)
            .arg(ttl.as_millis() as u64)
            .arg(Timestamp::now().0)
            .arg(MEMORY.as_millis() as u64)
            .arg(value);
        call.query_async(redis).await
    }

    /// Closes sessions of instances that are gone. Returns whether there are more to be closed by this one, which
    /// goes on if it is `busy` with that.
    async fn look_after_others(
        &self,
        redis: &mut MultiplexedConnection,
        busy: bool,
    ) -> Result<bool, Trouble> {
        if !busy {
            let mut turn = redis::cmd("SET");
            turn.arg(self.keys.sweep()).arg(&self.instance).arg("NX");
            turn.arg("PX").arg(SWEEP.as_millis() as u64);
            let mine: Option<String> = turn.query_async(redis).await?;
            if mine.is_none() {
                return Ok(false);
            }
        }
        let mut others: Vec<String> = Cmd::hkeys(self.keys.roll()).query_async(redis).await?;
        others.retain(|other| *other != self.instance);
        if others.is_empty() {
            return Ok(false);
        }
        let leases: Vec<String> = others.iter().map(|other| self.keys.lease(other)).collect();
        let leases: Vec<Option<String>> = Cmd::mget(leases).query_async(redis).await?;
        for (other, lease) in others.iter().zip(leases) {
            if lease.is_none() && self.close(redis, other).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Closes the sessions of an instance without a lease, until none is left or someone else is at it, or it is
    /// time to think of the own lease. Returns whether there are more.
    async fn close(&self, redis: &mut MultiplexedConnection, other: &str) -> Result<bool, Trouble> {
        let keys = &self.keys;
        let end = Instant::now() + self.config.ttl / 6;
        let (mut all, mut more) = (0, true);
        let mut cursor = "0".to_owned();
        while more && Instant::now() < end {
            let mut record = redis::cmd("HMGET");
            record.arg(keys.record(other));
            record.arg("epoch").arg("at").arg("alive");
            type Record = (Option<String>, Option<String>, Option<u64>);
            let (epoch, at, alive): Record = record.query_async(redis).await?;
            let mut scan = redis::cmd("HSCAN");
            scan.arg(keys.part(other)).arg(&cursor);
            scan.arg("COUNT").arg(STEP);
            let rows: Vec<(String, String)>;
            (cursor, rows) = scan.query_async(redis).await?;
            if rows.is_empty() && cursor != "0" {
                // A table from which many were taken has long empty stretches.
                continue;
            }
            let (epoch, at) = (epoch.unwrap_or_default(), at.unwrap_or_default());
            let mut call = CLOSE.call();
            call.arg(6)
                .arg(&keys.stream)
                .arg(keys.roll())
                .arg(keys.part(other))
                .arg(keys.record(other))
                .arg(keys.lease(other))
                .arg(keys.clients());
            let ended = format!("ended-{}", Uuid::new_v4().simple());
            call.arg(other).arg(&epoch).arg(&at).arg(ended);
            call.arg(self.redis.max_stream_length)
                .arg(MEMORY.as_millis() as u64);
            // When the instance was last known to be alive, by its own clock: its events stay in order.
            let last: u64 = at.parse().unwrap_or(0);
            let mut time = Timestamp(last.max(alive.unwrap_or(0)));
            for (session, row) in rows.iter().take(2 * STEP) {
                time = time.next();
                let row = Row::parse(row);
                call.arg(session);
                roll::add_client(&mut call, &row.thing_id, &row.client_id);
                call.arg(time.0);
                let fields = row.farewell(session, time, self.extended);
                call.arg(2 * fields.len());
                for (name, value) in &fields {
                    call.arg(name.as_bytes()).arg(value.as_bytes());
                }
            }
            let (failure, closed): (String, u64) = call.query_async(redis).await?;
            all += closed;
            self.metrics.closed.increment(closed);
            match failure.as_str() {
                "" => more = !rows.is_empty(),
                "alive" | "raced" => more = false,
                _ => return Err(Trouble::Full(failure)),
            }
        }
        if all > 0 {
            tracing::warn!(
                instance = other,
                sessions = all,
                "an instance is gone; its sessions are closed"
            );
        }
        Ok(more)
    }
}
