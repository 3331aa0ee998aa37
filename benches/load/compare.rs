//! Every scenario against both brokers in turn, medians, and the goals next to them.

use crate::broker::Kind;
use crate::report::{Report, grouped};
use crate::{Scenario, show};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What rollcall has to reach.
#[derive(Clone, Copy)]
enum Goal {
    /// So many times the figure of mosquitto, or more.
    TimesMosquitto(f64),
    /// So many bytes, or fewer.
    Bytes(f64),
}

/// Seconds until Redis has the events of a storm.
const DRAIN_GOAL: f64 = 5.0;

impl Scenario {
    fn goal(self) -> Goal {
        match self {
            Self::Connect => Goal::TimesMosquitto(0.7),
            Self::Pairs0 => Goal::TimesMosquitto(7.0),
            Self::Pairs1 => Goal::TimesMosquitto(8.0),
            Self::Fanin => Goal::TimesMosquitto(4.0),
            Self::Fanout => Goal::TimesMosquitto(8.0),
            Self::Idle => Goal::Bytes(4096.0),
        }
    }
}

/// The runs of one broker, boiled down.
#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// From the lowest figure to the highest, as a part of the median.
    spread: f64,
}

impl Summary {
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Result<Self> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = figures
            .first()
            .zip(figures.last())
            .context("no run has ended well")?;
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            (figures[middle - 1] + figures[middle]) / 2.0
        };
        Ok(Self {
            median,
            spread: (high - low) / median,
        })
    }
}

#[derive(Serialize)]
struct Comparison {
    compared: &'static str,
    unit: &'static str,
    rollcall: Summary,
    mosquitto: Summary,
    ratio: f64,
    goal: String,
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<Summary>,
}

/// Runs all `scenarios`, `rounds` times each, and says whether every message was where it belongs.
///
/// A run that breaks is told of and left out, and so is a comparison that has no run left.
pub(crate) fn run(
    scenarios: &[Scenario],
    rounds: usize,
    span: Duration,
    sessions: usize,
    json: bool,
) -> Result<bool> {
    let mut sound = true;
    for &scenario in scenarios {
        let mut reports = Vec::new();
        for _ in 0..rounds {
            for kind in [Kind::Rollcall, Kind::Mosquitto] {
                match scenario.run(kind, span, sessions) {
                    Ok(report) => {
                        show(&report, json)?;
                        sound &= !report.faults.any();
                        reports.push(report);
                    }
                    Err(error) => {
                        eprintln!("{scenario:?} on {kind:?} broke: {error:#}");
                        sound = false;
                    }
                }
            }
        }
        match compare(scenario, &reports) {
            Ok(comparison) => show(&comparison, json)?,
            Err(error) => eprintln!("{scenario:?} cannot be compared: {error:#}"),
        }
    }
    Ok(sound)
}

fn compare(scenario: Scenario, reports: &[Report]) -> Result<Comparison> {
    let first = reports.first().context("no run has ended well")?;
    let of = |kind| reports.iter().filter(move |report| report.broker == kind);
    let rollcall = Summary::of(of(Kind::Rollcall).map(|report| report.figure))?;
    let mosquitto = Summary::of(of(Kind::Mosquitto).map(|report| report.figure))?;
    let drain = Summary::of(of(Kind::Rollcall).filter_map(|report| report.drain_seconds)).ok();

    let ratio = rollcall.median / mosquitto.median;
    let (mut goal, mut reached) = match scenario.goal() {
        Goal::TimesMosquitto(times) => (format!("at least {times} x"), ratio >= times),
        Goal::Bytes(bytes) => (
            format!("at most {} bytes", grouped(bytes)),
            rollcall.median <= bytes,
        ),
    };
    if let Some(drain) = &drain {
        goal.push_str(&format!(", drained within {DRAIN_GOAL} s"));
        reached &= drain.median <= DRAIN_GOAL;
    }
    Ok(Comparison {
        compared: first.scenario,
        unit: first.unit,
        rollcall,
        mosquitto,
        ratio,
        goal,
        reached,
        drain,
    })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            compared,
            unit,
            rollcall,
            mosquitto,
            ratio,
            goal,
            ..
        } = self;
        let reached = if self.reached { "reached" } else { "MISSED" };
        write!(
            f,
            "=> {compared}: rollcall {rollcall}, mosquitto {mosquitto} {unit}, ratio {ratio:.2}"
        )?;
        if let Some(drain) = &self.drain {
            write!(f, ", drained in {:.2} s", drain.median)?;
        }
        writeln!(f, "; goal {goal}: {reached}")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (spread {:.0} %)",
            grouped(self.median),
            self.spread * 100.0
        )
    }
}
