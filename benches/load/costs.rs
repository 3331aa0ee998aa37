//! What presence costs: fewer connects than without it, and the time until the others see it.

use crate::broker::{Broker, Kind, Redis};
use crate::compare::Summary;
use crate::report::{Faults, Latency, Report, grouped};
use crate::show;
use crate::storm::{self, NAME_PREFIX, Storm};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{Commands, FromRedisValue};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Of the connects without presence, so many are to be left with it.
const GOAL: f64 = 0.85;
const RATE: u32 = 5_000;
const LAG_GOAL: Duration = Duration::from_millis(5);
/// The first second is for warming up.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long Redis gets for the last events.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns whether every run was sound.
pub(crate) fn run(rounds: usize, span: Duration, json: bool) -> Result<bool> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut sound = true;
    for _ in 0..rounds {
        let on = storm::run(Kind::Rollcall, span)?;
        let settings = &[("ROLLCALL_EVENTS__MQTT", "false")];
        let off = storm::run_with(Kind::Rollcall, span, settings, 0)?;
        let off = Report {
            scenario: "  unlisted",
            ..off
        };
        for report in [&on, &off] {
            show(report, json)?;
            sound &= !report.faults.any();
        }
        with.push(on.figure);
        without.push(off.figure);
    }
    let with = Summary::of(with.into_iter())?;
    let without = Summary::of(without.into_iter())?;
    let ratio = with.median / without.median;
    let costs = Costs {
        with,
        without,
        ratio,
        reached: ratio >= GOAL,
    };
    show(&costs, json)?;
    for _ in 0..rounds {
        let lag = lag(span)?;
        show(&lag, json)?;
        sound &= !lag.faults.any();
    }
    Ok(sound)
}

#[derive(Serialize)]
struct Costs {
    with: Summary,
    without: Summary,
    ratio: f64,
    reached: bool,
}

/// From a CONNACK to its event in Redis.
#[derive(Serialize)]
struct Lag {
    sessions: u64,
    /// Connects that really began, in a second.
    rate: f64,
    lag: Latency,
    reached: bool,
    faults: Faults,
}

/// Who is let in at a fixed rate, and when a reader who waits for it has read that.
fn lag(span: Duration) -> Result<Lag> {
    let broker = storm::start(Kind::Rollcall, &[("ROLLCALL_EVENTS__EXTENDED", "true")])?;
    let redis = broker.redis.as_ref().context("a storm has a Redis")?;
    let enough = AtomicBool::new(false);
    let (welcomed, begun, seen, faults) = thread::scope(|scope| {
        let reader = scope.spawn(|| watch(redis, &enough));
        let let_in = let_in(&broker, WARM_UP + span);
        // The reader ends, whatever became of the storm.
        enough.store(true, Ordering::Relaxed);
        let seen = reader
            .join()
            .expect("invariant: a reader fails by its result")?;
        let (welcomed, begun, faults) = let_in?;
        anyhow::Ok((welcomed, begun, seen, faults))
    })?;
    let mut faults = faults;
    let mut lags = Histogram::new_with_bounds(1, 60_000_000_000, 2)?;
    let warm = welcomed.first().context("nobody was let in")?.1 + WARM_UP;
    for (number, connack) in &welcomed {
        match seen.get(number) {
            None => faults.events_wrong += 1,
            Some(_) if *connack < warm => {}
            // The reader may be faster than the client.
            Some(seen) => {
                let lag = seen.saturating_duration_since(*connack).as_nanos();
                lags.saturating_record(u64::try_from(lag)?.max(1));
            }
        }
    }
    let p99 = Duration::from_nanos(lags.value_at_quantile(0.99));
    Ok(Lag {
        sessions: lags.len(),
        rate: begun as f64 / (WARM_UP + span).as_secs_f64(),
        lag: Latency::of(&lags),
        reached: p99 <= LAG_GOAL,
        faults,
    })
}

type Moments = Vec<(usize, Instant)>;

fn let_in(broker: &Broker, span: Duration) -> Result<(Moments, u64, Faults)> {
    let mut storm = Storm::new(broker)?;
    storm.welcomed = Some(Vec::new());
    let begun = storm.blow(Instant::now() + span, RATE)?;
    storm.calm_down()?;
    Ok((
        storm.welcomed.take().unwrap_or_default(),
        begun,
        storm.faults,
    ))
}

/// When each connect was read from the stream, by the number in the name of the client. Reads until it has been
/// told that there is `enough`, and everybody who came has left.
fn watch(redis: &Redis, enough: &AtomicBool) -> Result<HashMap<usize, Instant>> {
    let mut connection = redis.connect()?;
    let options = StreamReadOptions::default().block(100).count(1_000);
    let mut last = "0".to_owned();
    let mut seen = HashMap::new();
    let (mut left, mut end) = (0, None);
    loop {
        let reply: Option<StreamReadReply> =
            connection.xread_options(&["mainflux.mqtt"], &[&last], &options)?;
        let now = Instant::now();
        for entry in reply
            .into_iter()
            .flat_map(|it| it.keys)
            .flat_map(|it| it.ids)
        {
            let text = |name| {
                let value = entry.map.get(name).cloned().context("no such field")?;
                Ok::<_, anyhow::Error>(String::from_redis_value(value)?)
            };
            if text("event_type")? == "connect" {
                let name = text("client_id")?;
                let number = name.strip_prefix(NAME_PREFIX).context("a stranger")?;
                let before = seen.insert(number.parse()?, now);
                ensure!(before.is_none(), "{name} has connected twice");
            } else {
                left += 1;
            }
            last = entry.id;
        }
        if enough.load(Ordering::Relaxed) {
            let end = *end.get_or_insert(now + PATIENCE);
            if left == seen.len() || now > end {
                return Ok(seen);
            }
        }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            with,
            without,
            ratio,
            reached,
        } = self;
        let reached = if *reached { "reached" } else { "MISSED" };
        writeln!(
            f,
            "=> costs: with presence {with}, without {without} cycles/s, ratio {ratio:.2}; goal at least {GOAL}: {reached}"
        )
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = if self.reached { "reached" } else { "MISSED" };
        write!(
            f,
            "lag          {} connects/s, CONNACK to Redis {}; goal p99 at most {LAG_GOAL:?}: {reached};",
            grouped(self.rate),
            self.lag,
        )?;
        write!(f, "{}", self.faults)
    }
}
