//! After an outage of Redis: a journal full of events, how fast they go out, and what memory that takes.

use crate::broker::{self, Redis};
use crate::process::{self, cpu_micros};
use crate::report::grouped;
use anyhow::{Context, Result, ensure};
use redis::streams::StreamRangeReply;
use redis::{Commands, Connection};
use rollcall_domain::identity::{SessionId, ThingId, Timestamp};
use rollcall_domain::presence::{
    Arrivals, Change, Farewell, Peer, Presence, PresenceLog, Protocol, Roll, Session,
};
use rollcall_storage::journal::{Config, Durability, Journal, WhenFull};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const INSTANCE: &str = "backlog";
/// Sessions that are online at one time.
const ONLINE: usize = 1_000;
/// Changes that are committed together, in turn: those of quiet times and of storms.
const GROUPS: [usize; 4] = [1, 8, 64, 512];
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
const BETWEEN_WORDS: Duration = Duration::from_secs(5);
/// Without any progress for so long, it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Entries that are read at one time to see whether they are what they are to be.
const PAGE: usize = 10_000;
/// Events a second.
const GOAL: f64 = 100_000.0;

/// What was found; that everything arrived, once and in order, is no part of it: otherwise there is none.
#[derive(Serialize)]
pub(crate) struct Backlog {
    events: u64,
    /// From the first event in Redis to the last.
    seconds: f64,
    rate: f64,
    reached: bool,
    /// Processor time of an event.
    rollcall_micros: f64,
    redis_micros: f64,
    /// Resident memory: of the process that has filled the journal, before that and at its most; of the server
    /// while everything waits, and at its most until everything is relayed.
    filling: (u64, u64),
    waiting: u64,
    relaying: u64,
}

pub(crate) fn run(events: u64) -> Result<Backlog> {
    let folder = TempDir::with_prefix("rollcall-load-")?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let own = std::process::id();
    let before = process::resident_bytes(own)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(fill(&data, events))?;
    drop(runtime);
    let filling = (before, process::most_resident_bytes(own)?);

    let settings = [
        ("ROLLCALL_INSTANCE", INSTANCE.to_owned()),
        ("ROLLCALL_MQTT__LISTEN", "127.0.0.1:0".to_owned()),
        ("ROLLCALL_REDIS__URL", Redis::url_in(folder.path())),
        ("ROLLCALL_REDIS__RETRY_MAX", "100ms".to_owned()),
    ];
    let (server, _) = broker::up(&data, &settings)?;
    let waiting = process::resident_bytes(server.id())?;
    let redis = Redis::start(folder.path())?;
    let mut connection = redis.connect()?;
    let cpu = (cpu_of(server.id())?, cpu_of(redis.process.id())?);
    let elapsed = await_all(&mut connection, events)?;
    let per_event = |now: u64, then: u64| (now - then) as f64 / events as f64;
    let rollcall_micros = per_event(cpu_of(server.id())?, cpu.0);
    let redis_micros = per_event(cpu_of(redis.process.id())?, cpu.1);
    let relaying = process::most_resident_bytes(server.id())?;
    check(&mut connection, events)?;
    let rate = events as f64 / elapsed.as_secs_f64();
    Ok(Backlog {
        events,
        seconds: elapsed.as_secs_f64(),
        rate,
        reached: rate >= GOAL,
        rollcall_micros,
        redis_micros,
        filling,
        waiting,
        relaying,
    })
}

fn cpu_of(process: u32) -> Result<u64> {
    cpu_micros(&process.to_string())
}

/// The thing of the `number`-th session, so that an event tells where it belongs.
fn thing(number: u64) -> ThingId {
    ThingId::from_bytes(u128::from(number).to_be_bytes())
}

/// Change by change: who arrives, and whether it is an arrival. First [`ONLINE`] come; then one leaves and one comes, in
/// turn, until there are enough; then the rest leave.
fn script(events: u64) -> impl Iterator<Item = (u64, bool)> {
    let sessions = events / 2;
    let online = (ONLINE as u64).min(sessions);
    let turns = (online..sessions).flat_map(move |n| [(n - online, false), (n, true)]);
    let last = (sessions - online..sessions).map(|n| (n, false));
    (0..online).map(|n| (n, true)).chain(turns).chain(last)
}

/// Makes a journal with these events, as a server does that has no Redis.
async fn fill(data: &Path, events: u64) -> Result<()> {
    let config = Config {
        max_bytes: "2GiB".parse().map_err(anyhow::Error::msg)?,
        durability: Durability::Process,
        commit_interval: Duration::ZERO,
        when_full: WhenFull::Refuse,
    };
    let journal = Journal::open(&data.join("presence.db"), &config, INSTANCE, false).await?;
    let mut here: VecDeque<Arc<Session>> = VecDeque::with_capacity(ONLINE);
    let mut script = script(events);
    let (mut done, mut word) = (0, Instant::now());
    for size in GROUPS.into_iter().cycle() {
        let batch: Vec<Presence> = script
            .by_ref()
            .take(size)
            .map(|(number, arrives)| {
                let (session, change) = if arrives {
                    let session = session(number);
                    here.push_back(Arc::clone(&session));
                    (session, Change::Arrived)
                } else {
                    let session = here.pop_front().expect("invariant: it has arrived");
                    (session, Change::Left(Farewell::Disconnected))
                };
                let at = Timestamp::now();
                Presence {
                    session,
                    change,
                    at,
                }
            })
            .collect();
        if batch.is_empty() {
            break;
        }
        done += batch.len();
        let (kept, answer) = mpsc::channel();
        journal.append(
            batch,
            Box::new(move |arrivals| {
                let _ = kept.send(arrivals);
            }),
        );
        let arrivals = tokio::task::block_in_place(|| answer.recv())?;
        ensure!(arrivals == Arrivals::Kept, "not kept: {arrivals:?}");
        if word.elapsed() > BETWEEN_WORDS {
            eprintln!("{} events wait", grouped(done as f64));
            word = Instant::now();
        }
    }
    ensure!(journal.is_empty(), "somebody is still on the roll");
    journal.close().await;
    Ok(())
}

fn session(number: u64) -> Arc<Session> {
    Arc::new(Session {
        id: SessionId::generate(),
        thing: thing(number),
        client_id: format!("client-{number:08}").into(),
        protocol: Protocol::Mqtt5,
        peer: Peer::Ip(([127, 0, 0, 1], 50_000).into()),
    })
}

/// How long it takes from the first event to the last.
fn await_all(connection: &mut Connection, events: u64) -> Result<Duration> {
    let (mut begin, mut progress, mut word) = (None, Instant::now(), Instant::now());
    let mut known = 0;
    loop {
        let len: u64 = connection.xlen("mainflux.mqtt")?;
        let now = Instant::now();
        if len > known {
            (known, progress) = (len, now);
        }
        if known > 0 && begin.is_none() {
            begin = Some(now);
        }
        if let Some(begin) = begin
            && known >= events
        {
            return Ok(now - begin);
        }
        ensure!(
            now < progress + PATIENCE,
            "no progress after {known} events"
        );
        if word.elapsed() > BETWEEN_WORDS {
            eprintln!("{} events are relayed", grouped(known as f64));
            word = now;
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Whether the stream has exactly these events, in order.
fn check(connection: &mut Connection, events: u64) -> Result<()> {
    let mut script = script(events);
    let (mut start, mut at) = ("-".to_owned(), 0);
    let (mut seen, mut word) = (0, Instant::now());
    loop {
        let page: StreamRangeReply = connection.xrange_count("mainflux.mqtt", &start, "+", PAGE)?;
        let Some(last) = page.ids.last() else { break };
        start = format!("({}", last.id);
        for entry in &page.ids {
            let (number, arrives) = script.next().context("more events than there were")?;
            let field = |name: &str| entry.get::<String>(name).context("no such field");
            let found: ThingId = field("thing_id")?.parse()?;
            let kind = if arrives { "connect" } else { "disconnect" };
            ensure!(
                found == thing(number) && field("event_type")? == kind,
                "entry {} is not the {kind} of session {number}",
                entry.id
            );
            let occurred: u64 = field("occurred_at")?.parse()?;
            ensure!(occurred > at, "entry {} goes back in time", entry.id);
            (at, seen) = (occurred, seen + 1);
        }
        if word.elapsed() > BETWEEN_WORDS {
            eprintln!("{} events are as they should be", grouped(f64::from(seen)));
            word = Instant::now();
        }
    }
    ensure!(script.next().is_none(), "only {seen} events have come");
    Ok(())
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| grouped(bytes as f64 / f64::from(1 << 20));
        let reached = if self.reached { "reached" } else { "MISSED" };
        writeln!(
            f,
            "backlog      {} events in {:.1} s, {} events/s; cpu {:.2} us rollcall, {:.2} us redis; goal at least {}: {reached}",
            grouped(self.events as f64),
            self.seconds,
            grouped(self.rate),
            self.rollcall_micros,
            self.redis_micros,
            grouped(GOAL),
        )?;
        write!(
            f,
            "             resident: {} to {} MiB while it fills, {} MiB while everything waits, at most {} MiB until all is relayed",
            mebibytes(self.filling.0),
            mebibytes(self.filling.1),
            mebibytes(self.waiting),
            mebibytes(self.relaying),
        )
    }
}
